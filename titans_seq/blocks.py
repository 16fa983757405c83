"""Pieces that language models and DNA models are built of.

Dimensions: B batch, T time, D model width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from titans_seq.memory import LayerState, NeuralMemory


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

    forward returns what `state` asks for: with a state, or `return_state`, (x, new state); only causal blocks have one.
    """

    def __init__(self, dim: int, *, bidirectional: bool = False, dropout: float = 0.0, **options: object) -> None:
        super().__init__()
        self.memory_norm, self.channel_norm = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)
        self.memory = NeuralMemory(dim, **options)  # type: ignore[arg-type]
        self.backward_memory = NeuralMemory(dim, **options) if bidirectional else None  # type: ignore[arg-type]
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
            turned = turned_places(torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask)
            mixed = mixed + take(self.backward_memory(take(normed, turned), mask=mask), turned)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.channels(self.channel_norm(x))), state


def turned_places(real: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Where each position's content comes from when the real ones are turned round; the others stay. Its own inverse."""
    position = torch.arange(real.shape[1], device=real.device).expand(real.shape)
    order = torch.argsort((~real).to(torch.uint8), dim=1, stable=True)  # places of real tokens first, then the others
    count = real.sum(dim=1, keepdim=True)
    turned = torch.where(position < count, count - 1 - position, position)
    return torch.empty_like(order).scatter_(1, order, order.gather(1, turned))


def take(x: Float[Tensor, "B T D"], places: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
    """Rows of x at places."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
