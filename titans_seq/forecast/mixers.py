"""Sequence mixers of the forecaster: `[B, T, D] -> [B, T, D]`, made from the width D alone plus named options.

The memory is the subject; attention, a selective SSM and nothing are its controls in the same frame.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from titans_seq.memory import NeuralMemory
from titans_seq.ssm import SelectiveSSM


def memory(dim: int, *, chunk_size: int = 4, num_persistent: int = 4, **options: Any) -> NeuralMemory:
    """The neural memory with chunks that fit a dozen patches; options as in `NeuralMemory`."""
    return NeuralMemory(dim, chunk_size=chunk_size, num_persistent=num_persistent, **options)


class Attention(nn.Module):
    """Full self-attention, PatchTST's mixer. `heads` must divide `dim`."""

    def __init__(self, dim: int, *, heads: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"dim must be a multiple of heads; got dim {dim} and heads {heads}")
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


MIXERS: dict[str, Callable[..., nn.Module] | None] = {
    "memory": memory,
    "attention": Attention,
    "ssm": SelectiveSSM,
    "none": None,
}
