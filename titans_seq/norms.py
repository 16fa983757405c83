"""RMSNorm around the memory: on a CPU compiled C does each in one pass, as for the memory itself.

Dimensions: B batch, T time, H heads, K width of a head.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from titans_seq.kernels.native_norm import native_norm
from titans_seq.kernels.support import native_pass


def rms_norm(x: Float[Tensor, "... D"], eps: float, backend: str = "auto") -> Float[Tensor, "... D"]:
    """x / sqrt(mean(x^2) + eps), the mean over the last dimension. backend: as of the memory."""
    return native_norm(x, None, None, eps) if native_pass(backend, x) else F.rms_norm(x, x.shape[-1:], eps=eps)


class GatedNorm(nn.Module):
    """RMSNorm of each head, times SiLU(gate): `[B, T, H, K], [B, T, H K] -> [B, T, H K]`.

    At the precision of the weight: under autocast the gate is narrower.

    Args:
        width: K. eps: added to the mean square.
    """

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(
        self, y: Float[Tensor, "B T H K"], gate: Float[Tensor, "B T G"], backend: str = "auto"
    ) -> Float[Tensor, "B T G"]:
        """backend: as of the memory."""
        y = y.to(self.weight.dtype)
        if native_pass(backend, y) and gate.dtype == y.dtype:
            return native_norm(y, self.weight, gate, self.eps).flatten(2)
        return F.rms_norm(y, self.weight.shape, self.weight, self.eps).flatten(2) * F.silu(gate)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"
