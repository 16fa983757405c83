"""The memory, chunk by chunk, as matrix products: the same numbers as `reference` without per-token weights.

In a chunk with start state (W_0, S_0) every token's gradient is an outer product delta_i h_i^T per layer, and every
weight that token t reads is a sum over the chunk:

    W_t x = beta_t W_0 x + f_t S_0 x - sum_{i<=t} G[t, i] theta_i delta_i (h_i . x)

`beta`, `f` and `G` depend on alpha and eta alone (`gate_table`), so they are made for all chunks at once; only the keys'
forward and backward pass and the state go from chunk to chunk.

Dimensions: B batch, T time, H heads, K key width, V value width, N chunks, C slots of a chunk, L depth. A slot is a place
in a chunk; masked tokens have none, and slots without a token are empty (`real` = 0) and leave the state alone.
Source: Titans (arXiv 2501.00663v1), eq. 16-18.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from titans_seq.kernels.state import MemoryState, Weights


def chunked_memory(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    alpha: Float[Tensor, "B T H"],
    eta: Float[Tensor, "B T H"],
    theta: Float[Tensor, "B T H"],
    state: MemoryState,
    chunk_size: int,
    max_surprise: float | None,
    mask: Bool[Tensor, "B T"] | None,
) -> tuple[Float[Tensor, "B T H V"], MemoryState, Float[Tensor, "B T H"]]:
    """Outputs, final state and surprise. Memory for backward grows with T (weights at each chunk start are kept)."""
    if q.shape[1] == 0:
        return torch.zeros_like(v), _with_chunk_size(state, chunk_size), torch.zeros_like(alpha)
    slots = _Slots.plan(q, state, chunk_size, mask)
    q, k, v = (slots.fill(x) for x in (q, k, v))  # [N, B, H, C, K]
    alpha, eta, theta = slots.fill(alpha), slots.fill(eta, empty=1.0), slots.fill(theta)  # [N, B, H, C]
    rows, ends = gate_table(alpha, eta, slots.real)

    start = state.chunk_start
    pairs = [torch.stack(pair, dim=2) for pair in zip(state.weights, state.momentum, strict=True)]  # [B, H, 2, out, in]
    outputs, surprises = [], []
    for n in range(len(q)):
        inputs, deltas = key_factors(start, k[n], v[n])
        surprise = factor_norm(inputs, deltas)  # [B, H, C]
        step = theta[n] if max_surprise is None else theta[n] * (max_surprise / surprise.clamp_min(max_surprise))
        outputs.append(_read(pairs, q[n], rows[n], step, inputs, deltas))
        surprises.append(surprise)
        pairs = _end(pairs, ends[n], step, inputs, deltas)
        start = slots.next_start(n, tuple(pair[:, :, 0] for pair in pairs), start)
    weights, momentum = (tuple(pair[:, :, i] for pair in pairs) for i in (0, 1))
    y, surprise = slots.empty_out(torch.stack(outputs)), slots.empty_out(torch.stack(surprises)[..., None])[..., 0]
    return y, MemoryState(weights, momentum, start, slots.position, chunk_size), surprise


def gate_table(
    alpha: Float[Tensor, "*G C"], eta: Float[Tensor, "*G C"], real: Float[Tensor, "*#G C"] | None
) -> tuple[Float[Tensor, "*G C C+2"], Float[Tensor, "*G 2 C+2"]]:
    """How much of each source is in `M` after every slot, and in `M` and `S` after the last, for unit theta.

    Sources, in columns: the start weights (`beta`), the start momentum (`f`), then the C gradients of the chunk (`G`).
    Row by row, with no quotient, log or clamp: gates of exactly 0 and 1 are right in value and in gradient.
    """
    width = alpha.shape[-1]
    source = torch.eye(width + 2, dtype=alpha.dtype, device=alpha.device)
    keep = 1 - alpha
    in_weights, in_momentum = source[0], source[1]
    rows = []
    for i in range(width):
        in_momentum = eta[..., i, None] * in_momentum + source[i + 2]
        written = in_momentum if real is None else real[..., i, None] * in_momentum
        in_weights = keep[..., i, None] * in_weights + written
        rows.append(in_weights)
    return torch.stack(rows, dim=-2), torch.stack([in_weights, in_momentum], dim=-2)


def key_factors(
    weights: Weights, k: Float[Tensor, "B H C K"], v: Float[Tensor, "B H C V"]
) -> tuple[list[Tensor], list[Tensor]]:
    """Layer inputs h [B, H, C, in] and errors delta [B, H, C, out]: the gradient of layer l is delta_l h_l^T per token."""
    inputs, slopes = [k], []
    for w in weights[:-1]:
        z = inputs[-1] @ w.mT
        gate = torch.sigmoid(z)
        inputs.append(z * gate)
        slopes.append(gate * (1 + z * (1 - gate)))
    deltas = [2 * (inputs[-1] @ weights[-1].mT - v)]
    for w, slope in zip(weights[:0:-1], slopes[::-1], strict=True):
        deltas.append((deltas[-1] @ w) * slope)
    return inputs, deltas[::-1]


def factor_norm(inputs: list[Tensor], deltas: list[Tensor]) -> Float[Tensor, "B H C"]:
    """||u|| = sqrt(sum over layers of ||delta||^2 ||h||^2); its gradient at u = 0 is 0."""
    norms = [_norm(delta) * _norm(h) for delta, h in zip(deltas, inputs, strict=True)]
    return norms[0] if len(norms) == 1 else _norm(torch.stack(norms, dim=-1))


def _norm(x: Float[Tensor, "*G W"]) -> Float[Tensor, "*G"]:
    return torch.linalg.vector_norm(x, dim=-1)


def _read(
    pairs: list[Tensor], x: Tensor, rows: Tensor, step: Tensor, inputs: list[Tensor], deltas: list[Tensor]
) -> Float[Tensor, "B H C V"]:
    """M_t(q_t) for the C tokens of a chunk."""
    from_start, written = rows[..., :2], rows[..., 2:] * step[..., None, :]
    for layer, (pair, h, delta) in enumerate(zip(pairs, inputs, deltas, strict=True)):
        if layer > 0:
            x = F.silu(x)
        both = (x @ pair.flatten(2, 3).mT).unflatten(-1, (2, -1))  # W_0 x and S_0 x: [B, H, C, 2, out]
        x = (from_start[..., None] * both).sum(dim=-2) - ((x @ h.mT) * written) @ delta
    return x


def _end(pairs: list[Tensor], ends: Tensor, step: Tensor, inputs: list[Tensor], deltas: list[Tensor]) -> list[Tensor]:
    """Weights and momentum after the chunk's last slot."""
    from_start, written = ends[..., :2], ends[..., 2:] * step[..., None, :]  # [B, H, 2, 2], [B, H, 2, C]
    ended = []
    for pair, h, delta in zip(pairs, inputs, deltas, strict=True):
        kept = from_start @ pair.flatten(3)  # [B, H, 2, out * in]
        weighted = written.mT[..., None] * delta[..., None, :]  # [B, H, C, 2, out]
        ended.append(kept.view_as(pair) - (weighted.flatten(3).mT @ h).view_as(pair))
    return ended


@dataclass(frozen=True)
class _Slots:
    """Which slot of which chunk each token takes: real tokens follow each other from the state's position on."""

    chunk_size: int
    chunks: int
    width: int  # slots of a chunk; fewer than chunk_size when the call stays inside one chunk
    skipped: int  # slots left out at the front, empty in every sample
    tokens: int
    reached: Int[Tensor, " B"]  # slots of the stream's current chunks after the call
    slot: Int[Tensor, "B T"] | None  # slot of each token, one past the end for a masked one; None: token t in slot t
    real: Float[Tensor, "N _ 1 C"] | None  # 1 where a slot holds a token; None: nobody reads beyond the tokens

    @classmethod
    def plan(cls, q: Tensor, state: MemoryState, chunk_size: int, mask: Tensor | None) -> "_Slots":
        tokens, position = q.shape[1], state.position
        fresh = state.chunk_size is None  # known without reading `position`, which would wait for the device
        if mask is None and (fresh or not position.any()):
            chunks = -(-tokens // chunk_size)
            width = min(tokens, chunk_size)
            real = None
            if chunks * width > tokens:  # the last chunk is padded and its end state is returned
                real = (torch.arange(chunks * width, device=q.device) < tokens).to(q.dtype).view(chunks, 1, 1, width)
            return cls(chunk_size, chunks, width, 0, tokens, position + tokens, None, real)
        if mask is None:
            mask = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device)
        count = mask.cumsum(dim=1)
        reached = position + count[:, -1]
        end = max(int(reached.max()), 1)
        chunks = -(-end // chunk_size)
        skipped = min(int(position.min()), end - 1) if chunks == 1 else 0
        width = end - skipped if chunks == 1 else chunk_size
        total = chunks * width
        slot = torch.where(mask, position[:, None] + count - 1 - skipped, total)
        real = q.new_zeros(len(q), total + 1).scatter_(1, slot, 1.0)[:, :total]
        real = real.view(-1, 1, chunks, width).permute(2, 0, 1, 3)
        return cls(chunk_size, chunks, width, skipped, tokens, reached, slot, real)

    @property
    def position(self) -> Int[Tensor, " B"]:
        return self.reached % self.chunk_size

    def fill(self, x: Tensor, empty: float = 0.0) -> Tensor:
        """Tokens [B, T, H, ...] into slots [N, B, H, C, ...]."""
        total = self.chunks * self.width
        if self.slot is None:
            x = F.pad(x.movedim(1, -1), (0, total - self.tokens), value=empty).movedim(-1, 1)
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

    def next_start(self, n: int, weights: Weights, start: Weights) -> Weights:
        """Gradient point of the next chunk: the end weights of samples that filled this one."""
        full = self.reached >= (n + 1) * self.chunk_size
        if self.slot is None and n + 1 < self.chunks:  # every sample fills all but the last chunk
            return weights
        return tuple(torch.where(full[:, None, None, None], w, old) for w, old in zip(weights, start, strict=True))


def _with_chunk_size(state: MemoryState, chunk_size: int) -> MemoryState:
    return MemoryState(state.weights, state.momentum, state.chunk_start, state.position, chunk_size)
