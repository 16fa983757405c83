"""Which slot of which chunk each token takes.

A slot is a place in a chunk. Real tokens follow each other from the state's position on; masked tokens have no slot,
and slots without a token are empty and leave the state alone.

Dimensions: B batch, T time, H heads, N chunks, C slots of a chunk.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from titans_seq.kernels.state import MemoryState


@dataclass(frozen=True)
class Slots:
    """The plan of one call."""

    chunk_size: int
    chunks: int
    width: int  # slots of a chunk; fewer than chunk_size when the call stays inside one chunk
    skipped: int  # slots left out at the front, empty in every sample
    tokens: int
    reached: Int[Tensor, " B"]  # slots of the stream's current chunks after the call
    slot: Int[Tensor, "B T"] | None  # slot of each token, one past the end for a masked one; None: token t in slot t
    filled: Float[Tensor, "N B C"] | None  # 1 where a slot holds a token, 0 where it is empty; None: token t in slot t

    @classmethod
    def plan(cls, q: Tensor, state: MemoryState, chunk_size: int, mask: Tensor | None, *, wait: bool = True) -> "Slots":
        """wait: read from the device how many chunks there are, where that depends on values; else leave room for the
        most there could be."""
        tokens, position = q.shape[1], state.position
        fresh = state.chunk_size is None  # known without reading `position`, which would wait for the device
        if mask is None and (fresh or (wait and not position.any())):
            width = min(tokens, chunk_size)
            return cls(chunk_size, -(-tokens // chunk_size), width, 0, tokens, position + tokens, None, None)
        if mask is None:
            mask = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device)
        count = mask.cumsum(dim=1)
        reached = position + count[:, -1]
        end = max(int(reached.max()), 1) if wait else tokens + (0 if fresh else chunk_size - 1)
        chunks = -(-end // chunk_size)
        skipped = min(int(position.min()), end - 1) if chunks == 1 and wait else 0
        width = end - skipped if chunks == 1 else chunk_size
        total = chunks * width
        slot = torch.where(mask, position[:, None] + count - 1 - skipped, total)
        filled = q.new_zeros(len(q), total + 1).scatter_(1, slot, 1.0)[:, :total]
        filled = filled.unflatten(1, (chunks, width)).transpose(0, 1)
        return cls(chunk_size, chunks, width, skipped, tokens, reached, slot, filled)

    @property
    def position(self) -> Int[Tensor, " B"]:
        return self.reached % self.chunk_size

    def real(self, first: int, last: int, heads: int) -> Float[Tensor, "n _ C"] | None:
        """1 where a slot of chunks `first` to `last` holds a token, for samples and heads in one; None: every slot
        does.
        """
        if self.filled is not None:
            return self.filled[first:last].repeat_interleave(heads, dim=1)
        if last * self.width <= self.tokens:
            return None
        slot = torch.arange(first * self.width, last * self.width, device=self.reached.device)
        return (slot < self.tokens).view(last - first, 1, self.width).float()

    @property
    def current_chunk(self) -> int | Int[Tensor, " B"]:
        """The chunk the call ends in, `chunks` if it ends at the end of the last one; one number if all samples
        agree.
        """
        return self.tokens // self.chunk_size if self.slot is None else self.reached // self.chunk_size

    def first(self, x: Float[Tensor, "N G C"]) -> Float[Tensor, "N G"]:
        """The value at the first real slot of each chunk."""
        if self.filled is None:
            return x[..., 0]
        index = self.filled.argmax(dim=-1).repeat_interleave(x.shape[1] // self.filled.shape[1], dim=1)
        return x.gather(-1, index[..., None])[..., 0]

    def tokens_in(
        self, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, eta: Tensor, theta: Tensor, gate_per: str
    ) -> tuple[Tensor, ...]:
        """Tokens in their slots [N, G, C, ...]; alpha and eta [N, G] where they are the same for a chunk."""
        q, k, v = (self.fill(x).flatten(1, 2) for x in (q, k, v))
        empty = ((alpha, 0.0), (eta, 1.0), (theta, 0.0))
        alpha, eta, theta = (self.fill(x, value).flatten(1, 2) for x, value in empty)
        if gate_per == "chunk":
            alpha, eta = self.first(alpha), self.first(eta)
        return q, k, v, alpha, eta, theta

    def results_out(self, y: Tensor, surprise: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """y [N, G, C, V] and surprise [N, G, C] as tokens [B, T, H, ...]."""
        y, surprise = (self.empty_out(x.unflatten(1, (-1, heads))) for x in (y, surprise[..., None]))
        return y, surprise[..., 0]

    def fill(self, x: Tensor, empty: float = 0.0) -> Tensor:
        """Tokens [B, T, H, ...] into slots [N, B, H, C, ...]."""
        total = self.chunks * self.width
        if self.slot is None:
            if total > self.tokens:
                x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, total - self.tokens), value=empty)
        else:
            index = self.slot.view(*self.slot.shape, *[1] * (x.ndim - 2)).expand(x.shape)
            x = x.new_full((len(x), total + 1, *x.shape[2:]), empty).scatter(1, index, x)[:, :total]
        x = x.unflatten(1, (self.chunks, self.width))  # [B, N, C, H, ...]
        return x.movedim(1, 0).transpose(2, 3).contiguous()

    def empty_out(self, x: Float[Tensor, "N B H C W"]) -> Float[Tensor, "B T H W"]:
        """Slots back to tokens; masked tokens get 0."""
        x = x.permute(1, 0, 3, 2, 4).flatten(1, 2)  # [B, N*C, H, W]
        if self.slot is None:
            return x[:, : self.tokens]
        index = self.slot[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return F.pad(x, (0, 0, 0, 0, 0, 1)).gather(1, index)
