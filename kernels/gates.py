"""What the gates of a chunk make of each source: how much of it is in `M` and in `S` after every slot.

In a chunk with start state (W_0, S_0) and unit theta, after slot t and over the chunk's gradients u_i:

    S_t = e_t S_0 - sum_{i<=t} E[t, i] u_i
    W_t = beta_t W_0 + f_t S_0 - sum_{i<=t} A[t, i] u_i

    E[t, i] = prod_{i<l<=t} eta_l,   B[t, i] = prod_{i<l<=t} (1 - alpha_l),   A = B E,   e, beta: the same from before
    the first slot,   f = B e

No quotient, log or clamp anywhere: gates of exactly 0 and 1 are right in value and in gradient. Empty slots (`real` =
0) have alpha = 0 and eta = 1 and add nothing to W. With gates that are constant in a chunk A is Toeplitz, and its
diagonals are enough.

Dimensions: G any leading dimensions (chunks, samples, heads), C slots of a chunk. Source: Titans (arXiv 2501.00663v1),
    eq. 16-18.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class GateTable(NamedTuple):
    """All there is to know of a chunk's alpha and eta.

    start: [*G, C, 2], beta and f of each slot. written: [*G, C, C], A.
    end_start: [*G, 3], beta, f and e of the last slot. end_written: [*G, 2, C], its rows of A and E.
    """

    start: Tensor
    written: Tensor
    end_start: Tensor
    end_written: Tensor


class Gates:
    """The gates of some chunks and their table.

    alpha, eta: [*G, C], or [*G] when constant in each chunk; width: C. real: [*G, C], 1 at slots that hold a token,
    None where all do; constant gates with empty slots beside them are spread over the slots.
    """

    def __init__(self, alpha: Tensor, eta: Tensor, width: int, real: Tensor | None, *, per_chunk: bool) -> None:
        self.per_chunk, self.eta, self.real = per_chunk, eta, real
        if per_chunk and real is None:
            self.table, self.powers = toeplitz_table(alpha, eta, width)
            return
        if per_chunk and real is not None:
            alpha, eta = alpha[..., None] * real, torch.where(real > 0, eta[..., None], 1.0)
        self.table, self.products = gate_table(alpha, eta, real)

    def backward(self, grad: GateTable) -> tuple[Tensor, Tensor]:
        """Gradients of alpha and eta, in their shapes."""
        if self.per_chunk and self.real is None:
            return toeplitz_table_backward(self.eta, self.powers, grad)
        d_alpha, d_eta = gate_table_backward(self.products, self.real, grad)
        if self.per_chunk and self.real is not None:
            return (d_alpha * self.real).sum(dim=-1), (d_eta * self.real).sum(dim=-1)
        return d_alpha, d_eta


def gate_table(
    alpha: Float[Tensor, "*G C"], eta: Float[Tensor, "*G C"], real: Float[Tensor, "*#G C"] | None
) -> tuple[GateTable, tuple[Tensor, Tensor]]:
    """The table of gates that differ from token to token, and the products it was made from: beta of eq. 16, and what
    eq. 18 makes of eta.
    """
    keep, push = products(torch.stack([1 - alpha, eta]))
    moved = keep[..., 1:] @ _only_real(push, real)  # f and A
    return _table(keep[..., 0], moved, push[..., -1, :]), (keep, push)


def gate_table_backward(
    made_from: tuple[Float[Tensor, "*G C C+1"], Float[Tensor, "*G C C+1"]],
    real: Float[Tensor, "*#G C"] | None,
    grad: GateTable,
) -> tuple[Float[Tensor, "*G C"], Float[Tensor, "*G C"]]:
    """Gradients of alpha and eta, given those of the table."""
    keep, push = made_from
    d_beta, d_moved, d_last = _table_backward(grad)
    d_keep = F.pad(d_moved @ _only_real(push, real).mT, (1, 0))
    d_keep[..., 0] = d_beta
    d_push = _only_real(keep[..., 1:].mT @ d_moved, real)
    d_push[..., -1, :] += d_last
    return -products_backward(keep, d_keep), products_backward(push, d_push)


def products(gate: Float[Tensor, "*G C"]) -> Float[Tensor, "*G C C+1"]:
    """[t, j] = product of the gates after slot j, up to and with slot t; j = 0 stands before the first slot; 0 for j >
    t.
    """
    width = gate.shape[-1]
    index = torch.arange(width + 1, device=gate.device)
    after = index[1:, None] > index  # slot t comes after source j
    factors = torch.where(after, gate[..., None], 1.0)
    return torch.cumprod(factors, dim=-2) * (index[1:, None] >= index)


def products_backward(products: Float[Tensor, "*G C C+1"], grad: Float[Tensor, "*G C C+1"]) -> Float[Tensor, "*G C"]:
    """Gradient of the gates. A product over (j, s] that holds gate t is that over (j, t) times gate t times that over
    (t, s].
    """
    before = F.pad(products[..., :-1, :], (0, 0, 1, 0))  # over (j, t)
    before[..., 0, 0] = 1
    return ((products[..., 1:].mT @ grad) * before).sum(dim=-1)


def _table(beta: Tensor, moved: Tensor, last_push: Tensor) -> GateTable:
    end_start = torch.stack([beta[..., -1], moved[..., -1, 0], last_push[..., 0]], dim=-1)
    end_written = torch.stack([moved[..., -1, 1:], last_push[..., 1:]], dim=-2)
    return GateTable(torch.stack([beta, moved[..., 0]], dim=-1), moved[..., 1:], end_start, end_written)


def _table_backward(grad: GateTable) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of beta [*G, C], (f, A) [*G, C, C + 1] and the last row of (e, E) [*G, C + 1]."""
    d_beta = grad.start[..., 0].clone()
    d_beta[..., -1] += grad.end_start[..., 0]
    d_moved = torch.cat([grad.start[..., 1:], grad.written], dim=-1)
    d_moved[..., -1, 0] += grad.end_start[..., 1]
    d_moved[..., -1, 1:] += grad.end_written[..., 0, :]
    return d_beta, d_moved, torch.cat([grad.end_start[..., 2:], grad.end_written[..., 1, :]], dim=-1)


def _only_real(push: Tensor, real: Tensor | None) -> Tensor:
    return push if real is None else push * real[..., None]


def toeplitz_table(
    alpha: Float[Tensor, "*G"], eta: Float[Tensor, "*G"], width: int
) -> tuple[GateTable, tuple[Tensor, Tensor, Tensor]]:
    """The table of gates that are constant over a chunk of `width` tokens, and the numbers it was made from.

    Each diagonal of A holds one value.
    """
    keep, push, diagonals = _constant_products(alpha, eta, width)
    start = torch.stack([keep[..., 1:], eta[..., None] * diagonals], dim=-1)
    end_start = torch.cat([start[..., -1, :], push[..., -1:]], dim=-1)
    end_written = torch.stack([diagonals, push[..., :-1]], dim=-2).flip(-1)
    return GateTable(start, toeplitz(diagonals), end_start, end_written), (keep, push, diagonals)


def toeplitz_table_backward(
    eta: Float[Tensor, "*G"], made_from: tuple[Tensor, Tensor, Tensor], grad: GateTable
) -> tuple[Float[Tensor, "*G"], Float[Tensor, "*G"]]:
    """Gradients of alpha and eta, given those of the table."""
    keep, push, diagonals = made_from
    d_start = grad.start.clone()
    d_start[..., -1, :] += grad.end_start[..., :2]
    d_written = grad.end_written.flip(-1)  # of the diagonals and of push[:-1]
    d_diagonals = diagonal_sums(grad.written) + d_written[..., 0, :] + eta[..., None] * d_start[..., 1]
    d_eta = (d_start[..., 1] * diagonals).sum(dim=-1)
    d_push = F.pad(d_written[..., 1, :], (0, 1))
    d_push[..., -1] = grad.end_start[..., 2]
    d_push[..., :-1] += (toeplitz(keep[..., :-1]).mT @ d_diagonals[..., None])[..., 0]
    d_keep = F.pad(d_start[..., 0], (1, 0))
    d_keep[..., :-1] += (toeplitz(push[..., :-1]).mT @ d_diagonals[..., None])[..., 0]
    return -_power_slope(keep, d_keep), d_eta + _power_slope(push, d_push)


def toeplitz(diagonals: Float[Tensor, "*G C"]) -> Float[Tensor, "*G C C"]:
    """[t, i] = diagonals[t - i] for i <= t, else 0."""
    width = diagonals.shape[-1]
    return F.pad(diagonals, (width - 1, 0)).unfold(-1, width, 1).flip(-1)


def diagonal_sums(matrix: Float[Tensor, "*G C C"]) -> Float[Tensor, "*G C"]:
    """[d] = sum over t - i = d: what `toeplitz` makes of a gradient."""
    width = matrix.shape[-1]
    shifted = F.pad(matrix.flip(-1), (0, width)).flatten(-2)[..., :-width]  # row t moved to the right by t
    return shifted.unflatten(-1, (width, 2 * width - 1))[..., width - 1 :].sum(dim=-2)


def _constant_products(alpha: Tensor, eta: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Powers 0..C of 1 - alpha and of eta [*G, C + 1], and the diagonals of A [*G, C]."""
    keep, push = (F.pad(gate[..., None].expand(*gate.shape, width), (1, 0), value=1.0) for gate in (1 - alpha, eta))
    keep, push = keep.cumprod(dim=-1), push.cumprod(dim=-1)
    return keep, push, (toeplitz(keep[..., :-1]) @ push[..., :-1, None])[..., 0]


def _power_slope(powers: Float[Tensor, "*G P"], grad: Float[Tensor, "*G P"]) -> Float[Tensor, "*G"]:
    """Gradient of the base, given that of its powers 0..C."""
    exponent = torch.arange(1, powers.shape[-1], dtype=powers.dtype, device=powers.device)
    return (grad[..., 1:] * exponent * powers[..., :-1]).sum(dim=-1)
