"""Pieces that language models and DNA models are built of.

Dimensions: B batch, T time, D model width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from titans_seq.memory import LayerState, NeuralMemory
from titans_seq.places import take, turned


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


class MemoryBlock(nn.Module):
    """LMM, eq. 19: x + memory(norm(x)), then x + SwiGLU(norm(x)). Causal; with `bidirectional` every output sees both sides.

    Args:
        bidirectional: add a second memory that reads the real tokens from the last to the first; outputs are summed.
        options: of `NeuralMemory`.

    forward returns x and the new state; only causal blocks can go on from one.
    """

    def __init__(self, dim: int, *, bidirectional: bool = False, dropout: float = 0.0, **options: Any) -> None:
        super().__init__()
        self.memory_norm, self.channel_norm = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)
        self.memory = NeuralMemory(dim, **options)
        self.backward_memory = NeuralMemory(dim, **options) if bidirectional else None
        self.channels = SwiGLU(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: LayerState | None = None,
    ) -> tuple[Float[Tensor, "B T D"], LayerState]:
        if state is not None and self.backward_memory is not None:
            raise ValueError("a bidirectional block has no state to go on from: it reads to the end first")
        normed = self.memory_norm(x)
        mixed, state = self.memory(normed, state=state, mask=mask, return_state=True)
        if self.backward_memory is not None:
            places = turned(torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask)
            mixed = mixed + take(self.backward_memory(take(normed, places), mask=mask), places)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.channels(self.channel_norm(x))), state
