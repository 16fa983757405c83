"""Pieces that language models and DNA models are built of: blocks, and the state of a stack of them.

Dimensions: B batch, T time, D model width, H heads.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from titans_seq.draws import Dropout
from titans_seq.kernels.state import BatchState
from titans_seq.mixer_base import Mixer
from titans_seq.mixers import WITH_MEMORY, make_mixer
from titans_seq.places import take, turned

# options that blocks give to mixers which take them
MIXER_DEFAULTS: Mapping[str, Any] = {"num_persistent": 4}


@dataclass(frozen=True)
class ModelState(BatchState):
    """What a stack of blocks carries from one call to the next: the state of each, its mixer's."""

    blocks: tuple[BatchState, ...]


def choose(rows: Bool[Tensor, " B"], state: ModelState, other: ModelState) -> ModelState:
    """The samples of `state` where `rows`, those of `other` elsewhere.

    Raises:
        ValueError: states of different sizes, as attention without a window has them.
    """
    others = iter(other.tensors())

    def pick(mine: Tensor) -> Tensor:
        theirs = next(others)
        if theirs.shape != mine.shape:
            raise ValueError("states that began at different times have different sizes: give attention a window")
        return torch.where(rows.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)

    return state.map(pick)


def continued(
    state: ModelState | None, carried: Bool[Tensor, " B"], fresh: Callable[[], ModelState]
) -> ModelState | None:
    """What the next batch of a training on streams begins with.

    Args:
        state: of the batch before; None: there was none, and all rows begin.
        carried: rows that begin with `state`; others begin with the learned start.
        fresh: makes the learned start.
    """
    return state if state is None or bool(carried.all()) else choose(carried, state, fresh())


class SwiGLU(nn.Module):
    """Position-wise channel mixing: (SiLU(x W_1) * x W_2) W_3, no bias. Source: GLU Variants (arXiv 2002.05202).

    Args:
        dim: D.
        hidden: width between, 8/3 D rounded up to a multiple of 8 if None: as many weights as two layers of 4 D.
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = -(-8 * dim // 24) * 8 if hidden is None else hidden
        self.inp = nn.Linear(dim, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        gate, value = self.inp(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)


class Block(nn.Module):
    """x + mixer(norm(x)), then x + SwiGLU(norm(x)). Causal; with `bidirectional` every output sees both sides.

    Args:
        dim: D.
        mixer: one of `mixers.MIXERS`, or a callable that makes a `Mixer` from D.
        bidirectional: attention over all tokens at once; of mixers that only read forwards, a second one over the real
            tokens from the last to the first, its outputs added.
        dropout: of what each half adds.
        options: of the mixer; num_persistent is 4 where it has persistent tokens.
    """

    def __init__(
        self,
        dim: int,
        *,
        mixer: str | Callable[..., Mixer] = "memory",
        bidirectional: bool = False,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        defaults = {**MIXER_DEFAULTS, "bidirectional": bidirectional}
        self.bidirectional = bidirectional
        self.mixer_norm, self.channel_norm = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)

        def reader() -> Mixer:
            made = make_mixer(mixer, dim, defaults, **options)
            if not isinstance(made, Mixer):
                raise ValueError(f"mixer must make a titans_seq.mixer_base.Mixer; got {type(made).__name__}")
            return made

        self.mixer = reader()
        self.backward_mixer = reader() if bidirectional and self.mixer.carries_state else None
        self.channels = SwiGLU(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        state: BatchState | None = None,
        mask: Bool[Tensor, "B T"] | None = None,
        return_surprise: bool = False,
    ) -> tuple[Any, ...]:
        """x [B, T, D]; the new state, None if bidirectional; with `return_surprise` the memory's surprise [B, T, H].

        The surprise of a bidirectional block is the mean of that of its two readers.

        Raises:
            ValueError: a state for a bidirectional block or of another mixer, or surprise where there is no memory.
        """
        if state is not None and self.bidirectional:
            raise ValueError("a bidirectional block has no state to go on from: it reads to the end first")
        if return_surprise and not self.mixer.has_memory:
            found = type(self.mixer).__name__
            raise ValueError(f"surprise needs a mixer with a memory: {', '.join(WITH_MEMORY)}; got {found}")
        asked = {"mask": mask, "return_state": True, "return_surprise": return_surprise}
        normed = self.mixer_norm(x)
        mixed, state, *surprise = self.mixer(normed, state=state, **asked)
        if self.backward_mixer is not None:
            places = turned(torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask)
            back, _, *other = self.backward_mixer(take(normed, places), **asked)
            mixed = mixed + take(back, places)
            surprise = [(a + take(b, places)) / 2 for a, b in zip(surprise, other, strict=True)]
        x = x + self.dropout(mixed)
        x = x + self.dropout(self.channels(self.channel_norm(x)))
        return x, None if self.bidirectional else state, *surprise
