"""The layers of the memory MLP as the chunk form holds them: narrow side first, weights and momentum in one tensor.

A layer is a pair P = (W, S) of matrices [narrow, wide]. Whatever is scaled per token is scaled on the narrow side, and
one product serves W and S. All that reading and writing need is one form and its derivatives: over slots c and r in (W,
S)

    form = sum w[c, r] n_c^T P_r m_c

with weights w, narrow vectors n and wide vectors m. Reading a layer is its derivative by the output side, the update is
its derivative by P, and the backward of both are the other derivatives.

Dimensions: G samples and heads (of one chunk, or of several), C slots of a chunk, n and m the narrow and the wide side
of a layer, 2 for (W, S).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """Which side of a layer is the narrow one: the input of `rising` layers, the output of the others."""

    rising: bool

    def pack(self, weight: Float[Tensor, "B H out in"]) -> Float[Tensor, "G n m"]:
        return self._oriented(weight.flatten(0, 1))

    def unpack(self, matrix: Float[Tensor, "G n m"], heads: int) -> Float[Tensor, "B H out in"]:
        """A copy, also of what is in order already: callers may change what they gave and what they got."""
        return self._oriented(matrix).unflatten(0, (-1, heads)).clone(memory_format=torch.contiguous_format)

    def forward(self, w: Float[Tensor, "G n m"]) -> Float[Tensor, "G _ _"]:
        """The matrix that a row vector of inputs is multiplied with."""
        return w if self.rising else w.mT

    def backward(self, w: Float[Tensor, "G n m"]) -> Float[Tensor, "G _ _"]:
        """The matrix that a row vector of errors is multiplied with."""
        return w.mT if self.rising else w

    def sides(self, inp: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """(narrow, wide) of (input, output), and (input, output) of (narrow, wide)."""
        return (inp, out) if self.rising else (out, inp)

    def _oriented(self, matrix: Tensor) -> Tensor:
        return matrix.mT if self.rising else matrix


def by_wide(pair: Float[Tensor, "G 2 n m"], scaled_narrow: Float[Tensor, "G C 2*n"]) -> Float[Tensor, "G C m"]:
    """Derivative of the form by the wide vectors."""
    return torch.bmm(scaled_narrow, pair.flatten(1, 2))


def by_weights(narrow: Float[Tensor, "G C n"], matrix_wide: Float[Tensor, "G C 2*n"]) -> Float[Tensor, "G C 2"]:
    """Derivative of the form by its weights, from `per_matrix`."""
    return (matrix_wide.unflatten(-1, (2, -1)) * narrow[..., None, :]).sum(dim=-1)


def per_matrix(pair: Float[Tensor, "G 2 n m"], wide: Float[Tensor, "G C m"]) -> Float[Tensor, "G C 2*n"]:
    """P_r m_c for both r."""
    return torch.bmm(wide, pair.flatten(1, 2).mT)


def scaled(
    weights: Float[Tensor, "G C 2"], narrow: Float[Tensor, "G C n"], out: Tensor | None = None
) -> Float[Tensor, "G C 2*n"]:
    """w[c, r] n_c for both r."""
    width = narrow.shape[-1]
    out = narrow.new_empty(*narrow.shape[:-1], 2 * width) if out is None else out
    torch.mul(narrow, weights[..., :1], out=out[..., :width])
    torch.mul(narrow, weights[..., 1:], out=out[..., width:])
    return out


def weighted_sum(weights: Float[Tensor, "G C 2"], matrix_wide: Float[Tensor, "G C nn"]) -> Float[Tensor, "G C nn//2"]:
    """sum over r of w[c, r] times the r-th half of a row."""
    of_weights, of_momentum = matrix_wide.chunk(2, dim=-1)
    return (of_weights * weights[..., :1]).addcmul_(of_momentum, weights[..., 1:])
