"""Attention within a window by PyTorch's FlexAttention, whose kernels for GPUs read no key that no query of a block can
see.

Dimensions: B batch, T queries, S keys before the first query, H heads, K width of a head, P persistent tokens; queries
and keys are dealt with in blocks of BLOCK.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

BLOCK = 128  # FlexAttention's own default
LEAST_WIDTH = 16  # of a head; its kernels take no narrower ones


def runs_on(q: Tensor) -> bool:
    """Whether FlexAttention has a kernel for such queries; elsewhere it would build all scores [T, S + T]."""
    return q.is_cuda and q.dtype != torch.float64 and q.shape[-1] >= LEAST_WIDTH


def window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor,
    end: Tensor,
    *,
    window: int,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Attention of q [B, T, H, K] to k, v [B, S + T, H, K] within a window, and its log-sum-exp [B, T, H].

    Query t stands at slot S + t. It sees the slots from S + t - window + 1 to S + t, or if not `causal` to S + t +
    window - 1, of those from first [B] to before end [B]; itself in any case. Gradients flow through both results.
    """
    tokens, back = q.shape[1], k.shape[1] - q.shape[1]
    reach = 0 if causal else window - 1

    def visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        distance = query + back - key
        near = (distance < window) & (distance >= -reach) & (key >= first[b]) & (key < end[b])
        return near | (distance == 0)

    blocks = block_mask(tokens, back, window, reach, visible, q.device)
    q, k, v = (z.transpose(1, 2) for z in (q, k, v))
    y, more = _kernel(q.is_cuda)(q, k, v, block_mask=blocks, scale=scale, return_aux=AuxRequest(lse=True))
    return y.transpose(1, 2), more.lse.transpose(1, 2)


def with_prefix(y: Tensor, lse: Tensor, scores: Tensor, values: Tensor) -> Tensor:
    """Attention over more keys: y [B, T, H, K] and lse [B, T, H] of the others, scores [B, T, H, P] and values [P, H,
    K] of these.
    """
    weight = torch.softmax(torch.cat([lse[..., None], scores.to(lse.dtype)], dim=-1), dim=-1).to(y.dtype)
    return weight[..., :1] * y + torch.einsum("bthp,phk->bthk", weight[..., 1:], values.to(y.dtype))


def block_mask(
    tokens: int, back: int, window: int, reach: int, visible: Callable[..., Tensor], device: torch.device
) -> BlockMask:
    """The blocks of keys that blocks of queries reach: made by counting, never from a mask [T, S + T]."""
    first = BLOCK * torch.arange(-(-tokens // BLOCK), dtype=torch.int32, device=device)  # query of each block
    last = (first + BLOCK - 1).clamp(max=tokens - 1)
    low = (first + back - window + 1).clamp(min=0) // BLOCK
    high = (last + back + reach).clamp(max=back + tokens - 1) // BLOCK
    columns = -(-(back + tokens) // BLOCK)
    index = (low[:, None] + torch.arange(columns, dtype=torch.int32, device=device)).clamp(max=columns - 1)
    return BlockMask.from_kv_blocks(
        (high - low + 1)[None, None],
        index[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=visible,
        seq_lengths=(tokens, back + tokens),
    )


@cache
def _kernel(fused: bool) -> Any:
    """FlexAttention; not fused it builds all scores, for tests without a GPU."""
    return torch.compile(flex_attention) if fused else flex_attention
