"""Mixers that carry one tensor from token to token, and the last inputs of a convolution.

Dimensions: B batch, T time, D model width, R taps of the convolution.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from titans_seq.kernels.checks import check_cache
from titans_seq.kernels.state import BatchState, whole_number
from titans_seq.mixer_base import Mixer, last_inputs, put_back, require_batch, results, to_front


@dataclass(frozen=True)
class RecurrentState(BatchState):
    """What a `Recurrent` mixer carries from one call to the next.

    hidden: [B, ...], float32 or wider. inputs: [B, R - 1, D], the last inputs, for the convolution.
    fingerprint: of the layer's shape; a layer refuses the state of another.
    """

    hidden: Tensor
    inputs: Tensor
    fingerprint: str


class Recurrent(Mixer):
    """A causal mixer that is its `read`: whoever derives from this gives it, and the attributes.

    Attributes:
        kept: R - 1.
        hidden_shape: of the carried tensor of one sample; it starts with zeros.
    """

    state_type = RecurrentState

    kept: int
    hidden_shape: tuple[int, ...]

    def read(self, history: Tensor, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """y [B, T, D] of the last T of history [B, R - 1 + T, D], and the carried tensor after them.

        mask: [B, T], real tokens first; the others must leave the carried tensor as it is.
        """
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        *,
        state: RecurrentState | None = None,
        mask: Tensor | None = None,
        return_state: bool = False,
        return_surprise: bool = False,
    ) -> Tensor | tuple[Any, ...]:
        """Mix x [B, T, D] over time; arguments, results and errors as of `Mixer`."""
        self.check(x, state, mask, return_surprise=return_surprise)
        x, mask, places = to_front(x, mask)
        state = self.initial_state(len(x), dtype=x.dtype) if state is None else state
        history = torch.cat([state.inputs.to(x.dtype), x], dim=1)
        y, hidden = x, state.hidden.to(_wide(x.dtype))
        if x.shape[1]:
            y, hidden = self.read(history, hidden, mask)
        if mask is not None:
            y = y.masked_fill(~mask[..., None], 0.0)
        inputs = last_inputs(history, self.kept, mask)
        return results(put_back(y, places), RecurrentState(hidden, inputs, self.fingerprint) if return_state else None)

    def initial_state(self, batch_size: int, *, dtype: torch.dtype | None = None) -> RecurrentState:
        """The start of a stream, before any token. dtype: that of the inputs."""
        weight, batch_size = self._first_weight(), whole_number("batch_size", batch_size, 0)
        dtype = weight.dtype if dtype is None else dtype
        hidden = weight.new_zeros(batch_size, *self.hidden_shape, dtype=_wide(dtype))
        return RecurrentState(hidden, weight.new_zeros(batch_size, self.kept, self.dim, dtype=dtype), self.fingerprint)

    def check_state(self, x: Tensor, state: RecurrentState) -> None:
        require_batch(x, len(state.inputs))
        check_cache("state.hidden", state.hidden, (len(x), *self.hidden_shape), x.new_empty(0, dtype=_wide(x.dtype)))
        check_cache("state.inputs", state.inputs, (len(x), self.kept, self.dim), x)

    def extra_repr(self) -> str:
        return self.fingerprint


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
