"""Moving tokens along a sequence: rows by index, and the real ones turned round.

Dimensions: B batch, T time, W any width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def take(x: Float[Tensor, "B T W"], index: Int[Tensor, "B M"]) -> Float[Tensor, "B M W"]:
    """Rows of x at index."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def real_first(real: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Where the real positions are, in order, then where the others are."""
    return torch.argsort((~real).to(torch.uint8), dim=1, stable=True)


def turned(real: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Where each position's content comes from when the real ones are turned round; the others stay. Its own
    inverse.
    """
    position = torch.arange(real.shape[1], device=real.device).expand(real.shape)
    order, count = real_first(real), real.sum(dim=1, keepdim=True)
    source = torch.where(position < count, count - 1 - position, position)
    return torch.empty_like(order).scatter_(1, order, order.gather(1, source))
