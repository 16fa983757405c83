"""Pieces that language models and DNA models are built of: mixers by name, blocks, and the state of a stack of them.

Dimensions: B batch, T time, D model width, H heads, P persistent tokens.
Every mixer: `mixer(x, state=None, mask=None, return_state=True) -> (y, state)`, x and y [B, T, D].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from titans_seq.attention import Attention, AttentionState
from titans_seq.draws import Dropout
from titans_seq.kernels.state import BatchState
from titans_seq.memory import LayerState, NeuralMemory
from titans_seq.places import take, turned
from titans_seq.variants import MAC, MAG, MAL, MACState, MAGState, MALState

BlockState = LayerState | AttentionState | MACState | MAGState | MALState


@dataclass(frozen=True)
class ModelState(BatchState):
    """What a stack of blocks carries from one call to the next: the state of each."""

    blocks: tuple[BlockState, ...]


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
    state: ModelState | None, goes_on: Bool[Tensor, " B"], fresh: Callable[[], ModelState]
) -> ModelState | None:
    """What the next batch of a training on streams begins with: `state` in rows that go on, the learned start
    elsewhere.

    state: of the batch before; None: there was none, and all rows begin.
    """
    return state if state is None or bool(goes_on.all()) else choose(goes_on, state, fresh())


MIXERS: dict[str, type[nn.Module]] = {
    "memory": NeuralMemory,
    "mac": MAC,
    "mag": MAG,
    "mal": MAL,
    "attention": Attention,
}
WITH_MEMORY = tuple(name for name in MIXERS if name != "attention")


class SwiGLU(nn.Module):
    """Position-wise channel mixing: (SiLU(x W_1) * x W_2) W_3, no bias. Source: GLU Variants (arXiv 2002.05202).

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
        mixer: "memory" (LMM, eq. 19), "mac" (eq. 21-25), "mag" (eq. 26-28), "mal" (eq. 29-31) or "attention".
        bidirectional: attention over all tokens at once; of the others, which only read forwards, a second one over the
            real tokens from the last to the first, its outputs added.
        num_persistent: P, learned tokens of each mixer.
        options: of the mixer.
    """

    def __init__(
        self,
        dim: int,
        *,
        mixer: str = "memory",
        bidirectional: bool = False,
        dropout: float = 0.0,
        num_persistent: int = 4,
        **options: Any,
    ) -> None:
        super().__init__()
        if mixer not in MIXERS:
            raise ValueError(f"mixer must be one of {', '.join(MIXERS)}; got {mixer!r}")
        both_sides = {"bidirectional": bidirectional} if mixer == "attention" else {}
        self.kind, self.bidirectional = mixer, bidirectional
        self.mixer_norm, self.channel_norm = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)
        self.mixer = MIXERS[mixer](dim, num_persistent=num_persistent, **both_sides, **options)
        self.backward_mixer = None
        if bidirectional and not both_sides:
            self.backward_mixer = MIXERS[mixer](dim, num_persistent=num_persistent, **options)
        self.channels = SwiGLU(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        state: BlockState | None = None,
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
        if return_surprise and self.kind not in WITH_MEMORY:
            raise ValueError(f"surprise needs a mixer with a memory: {', '.join(WITH_MEMORY)}; got {self.kind!r}")
        asked = {"mask": mask, "return_state": True, **({"return_surprise": True} if return_surprise else {})}
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
