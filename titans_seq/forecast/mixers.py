"""Sequence mixers of the forecaster: `[B, T, D] -> [B, T, D]`, made from the width D alone plus named options.

The memory is the subject; attention, a selective SSM and nothing are its controls in the same frame.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titans_seq.memory import NeuralMemory


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


class SelectiveSSM(nn.Module):
    """Mamba's selective state space model as a plain PyTorch scan: Simba's own mixer.

        h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t,     y_t = C_t h_t + D x_t

    A is diagonal, [E, S] for inner width E = expansion * dim and S states; delta, B and C are linear maps of x. One
    step of
    Python per token: meant for tens of patches.
    Source: Mamba (arXiv 2312.00752), section 3; SiMBA (arXiv 2403.15360). Deviation: 16 states as in Mamba, SiMBA has
        64.
    """

    def __init__(self, dim: int, *, states: int = 16, conv_size: int = 4, expansion: int = 2) -> None:
        super().__init__()
        inner, rank = expansion * dim, -(-dim // 16)
        self.states, self.rank = states, rank
        self.inp = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, conv_size, groups=inner, padding=conv_size - 1)
        self.select = nn.Linear(inner, rank + 2 * states, bias=False)
        self.delta = nn.Linear(rank, inner)
        self.log_a = nn.Parameter(torch.arange(1, states + 1, dtype=torch.float32).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, dim, bias=False)
        # delta starts log-uniform in [1e-3, 1e-1]; the bias is its inverse softplus
        start = torch.exp(torch.empty(inner).uniform_(-6.9, -2.3))
        with torch.no_grad():
            self.delta.bias.copy_(start + torch.log(-torch.expm1(-start)))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        x, gate = self.inp(x).chunk(2, dim=-1)
        x = F.silu(self.conv(x.mT)[..., :tokens].mT)  # [B, T, E]
        rank, b, c = self.select(x).split([self.rank, self.states, self.states], dim=-1)
        delta, a = F.softplus(self.delta(rank)), -self.log_a.exp()  # [B, T, E], [E, S]
        h, outputs = x.new_zeros(x.shape[0], *a.shape), []
        # [B, E, S] only per token: over all tokens at once they leave the cache, and the gradient of an index into them
        # fills the whole again
        for delta_t, b_t, c_t, u_t in zip(*(v.unbind(1) for v in (delta, b, c, delta * x)), strict=True):
            h = torch.exp(delta_t[..., None] * a) * h + u_t[..., None] * b_t[:, None]
            outputs.append((h * c_t[:, None]).sum(dim=-1))
        y = torch.stack(outputs, dim=1) + self.skip * x
        return self.out(y * F.silu(gate))


MIXERS: dict[str, Callable[..., nn.Module] | None] = {
    "memory": memory,
    "attention": Attention,
    "ssm": SelectiveSSM,
    "none": None,
}
