"""From a projection to the tokens of the memory: a causal depthwise convolution, SiLU, and heads of length 1.

On a CPU compiled C does it in one pass, as for the memory itself. Without it, the convolution goes a block of the
sequence at a time.

Dimensions: B batch, T time, R taps, P parts, H heads, K width of a head, W channels.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from titans_seq.kernels.native_convolution import native_convolution
from titans_seq.kernels.support import native_pass

# As in native/convolution.c: what divides a head that is shorter.
SHORTEST = 1e-6
# Numbers of a block: its handful of temporaries fits a core's cache. Whole sequences through memory made this the
# slowest part around the memory (docs/LOG.md).
BLOCK = 1 << 17


def new_taps(size: int, width: int) -> nn.Parameter | None:
    """Taps [R, W] of a convolution over `size` tokens, for `draw_taps`; None where it is over one."""
    return nn.Parameter(torch.empty(size, width)) if size > 1 else None


def draw_taps(taps: Tensor) -> None:
    """As PyTorch draws those of its own convolutions."""
    nn.init.uniform_(taps, -(len(taps) ** -0.5), len(taps) ** -0.5)


def silu_conv(z: Float[Tensor, "B Z W"], taps: Float[Tensor, "R W"]) -> Float[Tensor, "B Z-R+1 W"]:
    """y_t = silu(sum_r taps[r] z[t + r]): z holds the R - 1 entries before the first output, then T, Z in all.

    On a CPU backward computes the convolution again instead of keeping it, and there is no second derivative.
    Elsewhere, and when traced, the same in plain operations, which compilers fuse.
    """
    if z.device.type != "cpu" or torch.compiler.is_compiling():
        return F.silu(_conv(z, taps, 0, z.shape[1] - len(taps) + 1))
    return _SiluConv.apply(z, taps)


def tokens_of(
    z: Float[Tensor, "B Z W"],
    taps: Float[Tensor, "R W"] | None,
    heads: int,
    *,
    parts: int,
    unit: int,
    loudest: float = math.inf,
    backend: str = "auto",
) -> tuple[Float[Tensor, "B T H K"], ...]:
    """P parts of silu(conv(z)), Z = R - 1 + T, at the precision of the taps: under autocast z is narrower.

    Args:
        z: channels lie as [P, H, K].
        taps: None: no convolution.
        heads: H. parts: P.
        unit: of how many parts, the first ones, each head is divided by its length, at least 1e-6.
        loudest: the other parts are clipped at +-loudest, but not in float16, which may not hold as much.
        backend: as of the memory; "auto" and "native" take the compiled C on a CPU where it was built, for float32 and
            float64.
    """
    wide = z.dtype if taps is None else torch.promote_types(z.dtype, taps.dtype)
    z, taps = z.to(wide), None if taps is None else taps.to(wide)
    if native_pass(backend, z):
        taps = z.new_ones(1, z.shape[2]) if taps is None else taps
        return tuple(native_convolution(z, taps, parts, heads, unit, loudest))
    h = F.silu(z) if taps is None else silu_conv(z, taps)
    tokens = h.unflatten(-1, (parts, heads, -1)).unbind(-3)
    # a norm is float32 under CUDA's autocast
    units = (F.normalize(x, dim=-1, eps=SHORTEST).to(wide) for x in tokens[:unit])
    clip = loudest < math.inf and wide != torch.float16
    return (*units, *(x.clamp(-loudest, loudest) if clip else x for x in tokens[unit:]))


class _SiluConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(z, taps)
        y = z.new_empty(z.shape[0], z.shape[1] - len(taps) + 1, z.shape[2])
        for first, last in _blocks(y):
            y[:, first:last] = F.silu(_conv(z, taps, first, last), inplace=True)
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled():  # create_graph=True; a constant would be a wrong second derivative
            raise RuntimeError(
                "the convolution around the memory has no second derivative; a layer with conv_size=0 has none of it"
            )
        z, taps = ctx.saved_tensors
        d_z, d_taps = torch.zeros_like(z), torch.zeros_like(taps)
        for first, last in _blocks(d_y):
            d = torch.ops.aten.silu_backward(d_y[:, first:last], _conv(z, taps, first, last))
            for r, tap in enumerate(taps):
                d_z[:, first + r : last + r].addcmul_(d, tap)
                d_taps[r] += (d * z[:, first + r : last + r]).sum(dim=(0, 1))
        return d_z, d_taps


def _conv(z: Tensor, taps: Tensor, first: int, last: int) -> Tensor:
    y = z[:, first:last] * taps[0]
    for r in range(1, len(taps)):
        y.addcmul_(z[:, first + r : last + r], taps[r])
    return y


def _blocks(y: Tensor) -> list[tuple[int, int]]:
    length = max(BLOCK // max(y.shape[0] * y.shape[2], 1), 1)
    return [(first, min(first + length, y.shape[1])) for first in range(0, y.shape[1], length)]
