"""How the outputs of memory and attention are put together, in MAC, MAG and MAL.

Dimensions: B batch, T time, D model width.
"""

import torch
from torch import Tensor, nn

from titans_seq.attention import normed

RESIDUAL_START = 0.3  # of what the norm gives: y is heard, and x still tells the tokens apart
GATE_START = 0.1  # all gates half open, whatever they see: both outputs are heard from the first step on


class NormedResidual(nn.Module):
    """RMSNorm(x + RMSNorm(y)): what the second of two layers reads, [B, T, D].

    x has passed the norm of the block, so y needs one too: as it is, it would be a hundredth of x at the start, and
    little more after training (docs/LOG.md).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.added_norm = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)
        nn.init.constant_(self.added_norm.weight, RESIDUAL_START)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return normed(self.norm, x + normed(self.added_norm, y))


class MutualGate(nn.Module):
    """How MAC and MAG put attention's y and the memory's m together, [B, T, D]: each passes a gate that the other one
    opens,

        y * sigmoid(RMSNorm(m)) + m * sigmoid(RMSNorm(y)).

    The paper's is a product: both normalised with learned vectors, then a non-linearity. In a product each is noise to
    the other until one has learned something, and a norm makes the noise as large as what it stands for: neither is
    learned, or late (docs/LOG.md).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention_norm, self.memory_norm = nn.RMSNorm(dim, eps=1e-6), nn.RMSNorm(dim, eps=1e-6)
        for norm in (self.attention_norm, self.memory_norm):
            nn.init.constant_(norm.weight, GATE_START)

    def forward(self, y: Tensor, m: Tensor) -> Tensor:
        return y * torch.sigmoid(normed(self.memory_norm, m)) + m * torch.sigmoid(normed(self.attention_norm, y))
