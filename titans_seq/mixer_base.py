"""What every sequence mixer takes, gives and says of itself, so that blocks need not know which one they have.

Dimensions: B batch, T time, D model width, H heads.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from titans_seq.kernels.checks import check_floating
from titans_seq.kernels.state import BatchState
from titans_seq.places import real_first, take


class Mixer(nn.Module):
    """A sequence mixer `[B, T, D] -> [B, T, D]`; the block around it adds the residual.

        y = mixer(x)
        y, state, surprise = mixer(x, state=state, mask=mask, return_state=True, return_surprise=True)

    state: what the same mixer returned for the tokens before; None starts a stream. mask: boolean [B, T], True = real
    token; masked positions change nothing and give zeros. surprise: [B, T, H]. Cutting a sequence anywhere and carrying
    the state changes nothing.

    Attributes:
        state_type: class of its state.
        has_memory: it has a neural memory, so that `return_surprise` has an answer.
        options_to: class of the part that gets the options which the mixer does not name.
    """

    state_type: ClassVar[type[BatchState]]
    has_memory: ClassVar[bool] = False
    options_to: ClassVar["type[Mixer] | None"] = None

    dim: int
    fingerprint: str
    qkv: nn.Linear

    @property
    def carries_state(self) -> bool:
        """Whether it returns a state, not None: whoever sees both sides has none, all others read forwards only."""
        return True

    def check(self, x: Tensor, state: Any, mask: Tensor | None, *, return_surprise: bool = False) -> None:
        """Raise the ValueError that a call with these arguments would."""
        if return_surprise and not self.has_memory:
            raise ValueError(f"surprise needs a mixer with a memory; {type(self).__name__} has none")
        check_floating("x", x)
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(f"x must be [B, T, {self.dim}]; got {tuple(x.shape)}")
        weight = self._first_weight()
        if x.device != weight.device or (x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type)):
            raise ValueError(
                f"x must be {weight.dtype} on {weight.device}, like the layer's parameters; got {x.dtype} on {x.device}"
            )
        if mask is not None and not isinstance(mask, Tensor):
            raise ValueError(f"mask must be a torch.Tensor; got {type(mask).__name__}")
        if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
            raise ValueError(
                f"mask must be boolean [B, T] = {tuple(x.shape[:2])}; got {mask.dtype} {tuple(mask.shape)}"
            )
        if state is not None:
            self.check_kind(state)
            self.check_state(x, state)

    def check_kind(self, state: Any) -> None:
        """Refuse the state of another mixer."""
        if not self.carries_state:
            raise ValueError("state must be None with bidirectional=True: every token sees both sides")
        if not isinstance(state, self.state_type):
            kind = self.state_type.__name__
            raise ValueError(f"state must be {'an' if kind[0] in 'AEIO' else 'a'} {kind}; got {type(state).__name__}")
        own = getattr(state, "fingerprint", None)
        if own is not None and own != self.fingerprint:
            raise ValueError(f"state belongs to another layer: {own}; this layer is {self.fingerprint}")

    def check_state(self, x: Tensor, state: Any) -> None:
        """Refuse a state whose tensors do not fit."""
        raise NotImplementedError

    def _first_weight(self) -> Tensor:
        """Of the map that x meets first: it decides dtype and device of inputs."""
        return self.qkv.weight


def require_batch(x: Tensor, samples: int) -> None:
    if samples != len(x):
        raise ValueError(f"state must hold the batch of x, {len(x)} samples; got {samples}")


def to_front(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """x and mask with the real tokens first, so that they are neighbours, and how to put them back: see `put_back`.

    Padding becomes zeros: it may hold anything, NaN too.
    """
    if mask is None:
        return x, None, None
    order = real_first(mask)
    return take(x.masked_fill(~mask[..., None], 0.0), order), mask.gather(1, order), torch.argsort(order, dim=1)


def put_back(y: Tensor, places: Tensor | None) -> Tensor:
    """y [B, T, W] with its tokens where they were before `to_front`."""
    return y if places is None else take(y, places)


def last_inputs(history: Tensor, kept: int, mask: Tensor | None) -> Tensor:
    """The last `kept` real rows of history [B, kept + T, W], whose first `kept` rows are those of the state.

    mask: [B, T], real tokens first.
    """
    if mask is None:
        return history[:, history.shape[1] - kept :]
    return take(history, mask.sum(dim=1, keepdim=True) + torch.arange(kept, device=history.device))


def results(y: Tensor, *more: Any) -> Any:
    """y alone, or with what was asked for."""
    asked = tuple(each for each in more if each is not None)
    return (y, *asked) if asked else y
