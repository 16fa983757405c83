"""Self-attention with rotary positions, a sliding window, persistent tokens and a state, on PyTorch's own kernels.

Dimensions: B batch, T time, D model width, H heads, K width of a head, P persistent tokens, S cached tokens; a long
sequence is cut into N blocks of C queries against J keys each.
Sources: rotary positions from RoFormer (arXiv 2104.09864); persistent tokens and the window with a prefix from Titans
(arXiv 2501.00663v1, section 3.3 and eq. 26-27).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titans_seq.flex import runs_on, window_attention, with_prefix
from titans_seq.kernels.checks import check_cache
from titans_seq.kernels.state import BatchState, whole_number
from titans_seq.mixer_base import Mixer, put_back, require_batch, to_front
from titans_seq.places import take

# RoFormer's: pair i of a head's K / 2 pairs turns by ROTARY_BASE^(-2 i / K) per token
ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class AttentionState(BatchState):
    """What an `Attention` layer carries from one call to the next.

    keys, values: [B, S, H, K], the last real tokens, the newest at the end and zeros before the first; keys unrotated.
        S is window - 1, or without a window all positions so far, padding included.
    count: int64 [B], real tokens read since the stream began.
    fingerprint: of the layer's shape; a layer refuses the state of another.
    """

    keys: Tensor
    values: Tensor
    count: Tensor
    fingerprint: str


class Attention(Mixer):
    """Multi-head self-attention `[B, T, D] -> [B, T, D]`; the block around it adds the residual.

        q, k, v = x W;  out = softmax([q k_P^T | R(q) R(k)^T] / sqrt(K)) [v_P | v] W_o

    R turns by the token's position among the real tokens; only differences of positions count, so a window and a stream
    may begin anywhere. The persistent tokens P give keys and values that every query sees, from no distance (no R on
    either side), and no outputs.

    Args:
        dim: D.
        heads: H.
        head_dim: K, even; D / H if None.
        bidirectional: every token sees both sides; then there is no state.
        window: tokens a query sees, itself included (if bidirectional, as many on either side); None: all.
        num_persistent: P, learned tokens [P, D], projected like others.
        qk_norm: RMSNorm with a learned vector on q and k, before R.

    Numerics: scores and sums as in `scaled_dot_product_attention`; angles in float32 (float64 under float64). With a
    window they are small however long the stream, or, by FlexAttention, in float64; without one they lose about T 6e-8
    radians. Memory grows with T (window + C), C = min(window, T), never with T^2. Without a window it is the kernel's,
    and a stream keeps all tokens and builds a boolean mask [T, S + T] for every piece but the first.
    A real token that is NaN or infinite may spoil all tokens of the blocks that hold it.
    """

    state_type = AttentionState

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        bidirectional: bool = False,
        window: int | None = None,
        num_persistent: int = 0,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        dim, heads = whole_number("dim", dim, 1), whole_number("heads", heads, 1)
        num_persistent = whole_number("num_persistent", num_persistent, 0)
        for name, value in (("bidirectional", bidirectional), ("qk_norm", qk_norm)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False; got {value!r}")
        if head_dim is None and dim % heads:
            raise ValueError(f"dim must be a multiple of heads, or head_dim be given; got dim {dim} and heads {heads}")
        head_dim = dim // heads if head_dim is None else whole_number("head_dim", head_dim, 1)
        if head_dim % 2:
            raise ValueError(f"head_dim must be even, for rotary positions; got {head_dim}")
        self.dim, self.heads, self.head_dim, self.causal = dim, heads, head_dim, not bidirectional
        self.window = None if window is None else whole_number("window", window, 1)

        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.q_norm = nn.RMSNorm(head_dim, eps=1e-6) if qk_norm else None
        self.k_norm = nn.RMSNorm(head_dim, eps=1e-6) if qk_norm else None
        self.out = nn.Linear(heads * head_dim, dim, bias=False)
        self.persistent = nn.Parameter(torch.empty(num_persistent, dim)) if num_persistent else None
        self.fingerprint = (
            f"Attention dim={dim} heads={heads} head_dim={head_dim} window={self.window} qk_norm={qk_norm}"
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the persistent tokens anew."""
        if self.persistent is not None:
            nn.init.normal_(self.persistent, std=0.02)

    def forward(
        self,
        x: Tensor,
        *,
        state: AttentionState | None = None,
        mask: Tensor | None = None,
        return_state: bool = False,
        return_surprise: bool = False,
        persistent: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, AttentionState | None]:
        """Mix x [B, T, D] over time.

        Args:
            state: carry on from an earlier call; None starts a stream.
            mask: boolean [B, T], True = real token; masked positions change nothing and give zeros.
            return_surprise: refused, for there is no memory.
            persistent: [P, D], tokens to use in place of the layer's own: those of a module that shares them.

        Returns:
            y [B, T, D]; then with `return_state` the new `AttentionState`, None if bidirectional.

        Raises:
            ValueError: x is not [B, T, D], the mask does not fit, or the state is that of another layer or given to one
                that is bidirectional.
        """
        self.check(x, state, mask, return_surprise=return_surprise)
        x, mask, places = to_front(x, mask)  # slots are positions, and causality hides the padding
        q, k, v = self.project(x)
        prefix = self._prefix(self.persistent if persistent is None else persistent)
        cache = self.initial_state(len(x)) if state is None else state
        new = torch.full_like(cache.count, x.shape[1]) if mask is None else mask.sum(dim=1)
        if x.shape[1] == 0:
            y = q
        elif state is None and (self.window is None or x.shape[1] <= self.window):
            y = self._whole(q, k, v, prefix, None if mask is None else new)
        else:
            keys, values = _joined(cache.keys, k), _joined(cache.values, v)
            flex = self.window is not None and x.shape[1] > self.window and runs_on(q)
            y = (self._by_flex if flex else self._in_blocks)(q, keys, values, prefix, cache.count, new)
        y = self.out(y.flatten(2))
        if mask is not None:
            y = put_back(y.masked_fill(~mask[..., None], 0.0), places)
        if not return_state:
            return y
        return y, self._after(cache, k, v, new) if self.causal else None

    @property
    def carries_state(self) -> bool:
        return self.causal

    def initial_state(self, batch_size: int) -> AttentionState:
        """The start of a stream, before any token."""
        weight, batch_size = self.qkv.weight, whole_number("batch_size", batch_size, 0)
        cached = 0 if self.window is None else self.window - 1
        empty = weight.new_zeros(batch_size, cached, self.heads, self.head_dim)
        count = torch.zeros(batch_size, dtype=torch.int64, device=weight.device)
        return AttentionState(empty, empty, count, self.fingerprint)

    def extra_repr(self) -> str:
        return f"{self.fingerprint}, bidirectional={not self.causal}"

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v [B, T, H, K] of x [B, T, D], unrotated."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim)).unbind(-3)
        return normed(self.q_norm, q), normed(self.k_norm, k), v

    def keys_and_values(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """k, v [..., H, K] of rows [..., D] that have no query, unrotated: persistent tokens (eq. 20), h in MAC."""
        projected = F.linear(rows, self.qkv.weight[self.heads * self.head_dim :])
        k, v = projected.unflatten(-1, (2, self.heads, self.head_dim)).unbind(-3)
        return normed(self.k_norm, k), v

    def _prefix(self, persistent: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Keys and values [P, H, K] of the persistent tokens."""
        if persistent is None:
            return None
        if persistent.ndim != 2 or persistent.shape[-1] != self.dim:
            raise ValueError(f"persistent must be [P, {self.dim}]; got {tuple(persistent.shape)}")
        return self.keys_and_values(persistent)

    def _whole(
        self, q: Tensor, k: Tensor, v: Tensor, prefix: tuple[Tensor, Tensor] | None, new: Tensor | None
    ) -> Tensor:
        """A sequence from its start that fits the window, with the least mask: the fastest kernels take none.

        Padding is behind the real tokens, where causality hides it.
        """
        visible = None
        if not self.causal and new is not None:  # at least one: kernels differ in what a softmax over nothing is
            visible = torch.arange(k.shape[1], device=k.device) < new.clamp(min=1)[:, None, None]  # [B, 1, T]
        return _attend(q, k, v, prefix, visible=visible, causal=self.causal)

    def _in_blocks(
        self, q: Tensor, k: Tensor, v: Tensor, prefix: tuple[Tensor, Tensor] | None, count: Tensor, new: Tensor
    ) -> Tensor:
        """Blocks of C queries, each against J keys: those of the block and what its tokens can reach around it.

        k, v [B, S + T, H, K] begin with the cache: slot S + t holds token t, the first real slot is S - count.
        """
        batch, tokens = q.shape[:2]
        back = k.shape[1] - tokens  # S
        ahead = 0 if self.causal else back
        size = tokens if self.window is None else min(self.window, tokens)  # C
        blocks = -(-tokens // size)
        row = torch.arange(size, device=q.device)[:, None]
        key = torch.arange(back + size + ahead, device=q.device)  # [J]
        slot = size * torch.arange(blocks, device=q.device)[:, None] + key  # [N, J]

        near = key <= row + back + ahead  # [C, J]
        if self.window is not None:
            near = near & (key >= row)
        real = slot >= (back - count)[:, None, None]  # [B, N, J]
        if not self.causal:
            real = real & (slot < (back + new)[:, None, None])
        # padding sees at least itself: kernels differ in what a softmax over nothing is
        visible = (near & real[:, :, None]) | (key == row + back)  # [B, N, C, J]

        q = F.pad(q, (0, 0, 0, 0, 0, blocks * size - tokens)).unflatten(1, (blocks, size)).flatten(0, 1)
        index = slot.flatten().clamp(max=k.shape[1] - 1)  # beyond the end is never visible
        # unfold says the same, with a backward 40 times slower on a CPU
        k, v = (z.index_select(1, index).unflatten(1, (blocks, -1)).flatten(0, 1) for z in (k, v))  # [B N, J, H, K]
        y = _attend(q, k, v, prefix, visible=visible.flatten(0, 1), start=back)
        return y.unflatten(0, (batch, blocks)).flatten(1, 2)[:, :tokens]

    def _by_flex(
        self, q: Tensor, k: Tensor, v: Tensor, prefix: tuple[Tensor, Tensor] | None, count: Tensor, new: Tensor
    ) -> Tensor:
        """What `_in_blocks` gives, by FlexAttention: faster on GPUs where the sequence is longer than the window."""
        assert self.window is not None
        back, scale = k.shape[1] - q.shape[1], self.head_dim**-0.5
        # float64: the angles grow with the sequence, for no block begins anew
        position = torch.arange(k.shape[1], device=k.device, dtype=torch.float64)
        end = torch.full_like(new, k.shape[1]) if self.causal else back + new
        turned = rotated(q, position[back:]), rotated(k, position)
        y, lse = window_attention(
            *turned, v.to(q.dtype), back - count, end, window=self.window, causal=self.causal, scale=scale
        )
        if prefix is not None:
            keys, values = prefix
            y = with_prefix(y, lse, scale * torch.einsum("bthk,phk->bthp", q, keys.to(q.dtype)), values)
        return y

    def _after(self, cache: AttentionState, k: Tensor, v: Tensor, new: Tensor) -> AttentionState:
        """The state after the first `new` [B] tokens of each sample; k and v [B, T, H, K] are their keys and values."""
        past, tokens = cache.keys.shape[1], k.shape[1]
        kept = past + tokens if self.window is None else past
        slot = (past - kept + new)[:, None] + torch.arange(kept, device=k.device)  # [B, S]
        keys, values = (
            take(_joined(old, z).flatten(2), slot.clamp(min=0))
            .masked_fill((slot < 0)[..., None], 0.0)
            .unflatten(-1, (self.heads, self.head_dim))
            for old, z in ((cache.keys, k), (cache.values, v))
        )
        return AttentionState(keys, values, cache.count + new, self.fingerprint)

    def check_state(self, x: Tensor, state: AttentionState) -> None:
        require_batch(x, len(state.count))
        kept = state.keys.shape[1] if self.window is None and state.keys.ndim == 4 else (self.window or 1) - 1
        for name, cache in (("state.keys", state.keys), ("state.values", state.values)):
            check_cache(name, cache, (len(x), kept, self.heads, self.head_dim), x)


def normed(norm: nn.RMSNorm | None, x: Tensor) -> Tensor:
    """norm(x) at the precision of the norm's weight, for under autocast x is narrower; x itself without a norm."""
    return x if norm is None else norm(x.to(norm.weight.dtype)).to(x.dtype)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prefix: tuple[Tensor, Tensor] | None,
    *,
    visible: Tensor | None = None,
    start: int = 0,
    causal: bool = False,
) -> Tensor:
    """Attention of q [G, C, H, K] to k, v [G, J, H, K] behind a prefix [P, H, K] that all see: [G, C, H, K].

    Query c is at the position of key start + c. visible: boolean [G, C, J], or [G, 1, J] for all queries; `causal` asks
    for the square triangle instead.
    """
    width = q.shape[-1]  # K
    first, plain = 0, q
    position = torch.arange(k.shape[1], device=k.device)
    q, k = rotated(q, position[start : start + q.shape[1]]), rotated(k, position)
    if prefix is not None:
        # A prefix key meets the unrotated query. Its score travels in a feature of its own, [R(q) | q k_P] [0 | 1], so
        # that one call of the kernel sees both; values are as wide as keys, which the fast kernels ask for.
        keys, values = prefix
        extra = len(keys)  # P
        score = torch.einsum("gchk,phk->gchp", plain, keys).to(q.dtype)
        unit = torch.eye(extra, dtype=k.dtype, device=k.device)[:, None].expand(-1, keys.shape[1], -1)  # [P, H, P]
        keys = torch.cat([torch.zeros_like(keys), unit], dim=-1)
        q = torch.cat([q, score], dim=-1)
        k = torch.cat([keys.expand(len(k), -1, -1, -1), F.pad(k, (0, extra))], dim=1)
        v = F.pad(torch.cat([values.expand(len(v), -1, -1, -1), v], dim=1), (0, extra))
        if visible is not None:
            visible = F.pad(visible, (extra, 0), value=True)
        elif causal:  # idle queries keep the triangle square: no mask of T x T
            q, first = F.pad(q, (0, 0, 0, 0, extra, 0)), extra
    q, k, v = (z.transpose(1, 2) for z in (q, k, v))
    visible = None if visible is None else visible[:, None]
    y = F.scaled_dot_product_attention(q, k, v, visible, is_causal=causal, scale=width**-0.5)
    return y.transpose(1, 2)[:, first:, :, :width]


def rotated(x: Tensor, position: Tensor) -> Tensor:
    """x [G, T, H, K] turned by its position, [T] or [G, T]: feature i pairs with K / 2 + i.

    Angles are made at the precision of the position, at least float32.
    """
    half = x.shape[-1] // 2
    wide = torch.promote_types(x.dtype, torch.float32)
    fine = torch.promote_types(wide, position.dtype)
    speed = ROTARY_BASE ** (-torch.arange(half, device=x.device, dtype=fine) / half)
    angle = position.to(fine)[..., None, None] * speed  # [..., T, 1, K / 2]
    cos, sin = angle.cos().to(wide), angle.sin().to(wide)
    a, b = x.to(wide).chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


def _joined(cache: Tensor, x: Tensor) -> Tensor:
    """[B, S + T, H, K]; a cache may come from a call at another precision."""
    return torch.cat([cache.to(x.dtype), x], dim=1)
