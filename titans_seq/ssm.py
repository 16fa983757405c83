"""Mamba's selective state space model as a plain PyTorch scan: Simba's own mixer, a control.

Dimensions: B batch, T time, D model width, E inner width, S states of a channel, R taps of the convolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titans_seq.kernels.state import whole_number
from titans_seq.recurrent import Recurrent


class SelectiveSSM(Recurrent):
    """Mamba's block `[B, T, D] -> [B, T, D]`, causal.

        h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t,     y_t = C_t h_t + D x_t

    A is diagonal, [E, S] for inner width E = expansion * dim and S states; delta, B and C are linear maps of x. One
    step of Python per token: meant for hundreds of tokens, not for long sequences.

    Source: Mamba (arXiv 2312.00752), section 3; SiMBA (arXiv 2403.15360). Deviation: 16 states as in Mamba, SiMBA has
    64.

    Args:
        dim: D.
        states: S.
        conv_size: R, taps of the causal depthwise convolution.
        expansion: E / D.

    Numerics: h is float32 (float64 under float64), also under autocast.
    """

    def __init__(self, dim: int, *, states: int = 16, conv_size: int = 4, expansion: int = 2) -> None:
        super().__init__()
        dim, states, conv_size, expansion = (
            whole_number(name, value, 1)
            for name, value in (
                ("dim", dim), ("states", states), ("conv_size", conv_size), ("expansion", expansion)
            )
        )  # fmt: skip
        inner, rank = expansion * dim, -(-dim // 16)
        self.dim, self.states, self.rank, self.kept = dim, states, rank, conv_size - 1
        self.hidden_shape = inner, states
        self.inp = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, conv_size, groups=inner)
        self.select = nn.Linear(inner, rank + 2 * states, bias=False)
        self.delta = nn.Linear(rank, inner)
        self.log_a = nn.Parameter(torch.empty(inner, states))
        self.skip = nn.Parameter(torch.empty(inner))
        self.out = nn.Linear(inner, dim, bias=False)
        self.fingerprint = f"SelectiveSSM dim={dim} states={states} conv_size={conv_size} expansion={expansion}"
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set A = -1 .. -S, D = 1, and draw delta's start anew, log-uniform in [1e-3, 1e-1]."""
        start = torch.empty_like(self.delta.bias).uniform_(-6.9, -2.3).exp()
        with torch.no_grad():
            self.log_a.copy_(torch.arange(1, self.states + 1).log().expand_as(self.log_a))
            self.skip.fill_(1.0)
            self.delta.bias.copy_(start + torch.log(-torch.expm1(-start)))  # its inverse softplus

    def _first_weight(self) -> Tensor:
        return self.inp.weight

    def read(self, history: Tensor, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        x, gate = self.inp(history).chunk(2, dim=-1)
        x, gate = F.silu(self.conv(x.mT).mT), gate[:, self.kept :]  # [B, T, E]
        rank, b, c = self.select(x).split([self.rank, self.states, self.states], dim=-1)
        delta = F.softplus(self.delta(rank))
        if mask is not None:
            delta = delta * mask[..., None]  # with a step of 0 h stays as it is, exactly
        h, wide, outputs = hidden, hidden.dtype, []  # h [B, E, S]
        a = -self.log_a.to(wide).exp()
        # [B, E, S] only per token: over all tokens at once they leave the cache, and the gradient of an index into them
        # fills the whole again
        for delta_t, b_t, c_t, u_t in zip(*(v.to(wide).unbind(1) for v in (delta, b, c, delta * x)), strict=True):
            h = torch.exp(delta_t[..., None] * a) * h + u_t[..., None] * b_t[:, None]
            outputs.append((h * c_t[:, None]).sum(dim=-1))
        y = torch.stack(outputs, dim=1).to(x.dtype) + self.skip * x
        return self.out(y * F.silu(gate)), h
