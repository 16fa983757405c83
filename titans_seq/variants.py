"""How memory and attention are put together: MAC, MAG and MAL (Titans, section 4), mixers `[B, T, D] -> [B, T, D]`.

Dimensions: B batch, T time, D model width, H heads, K width of a head, P persistent tokens; of MAC, S tokens of a
segment, W tokens that a call brings to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titans_seq.attention import Attention, AttentionState, normed, rotated
from titans_seq.combine import MutualGate, NormedResidual
from titans_seq.convolution import draw_taps, new_taps, tokens_of
from titans_seq.kernels import MemoryState, read_memory
from titans_seq.kernels.checks import check_cache
from titans_seq.kernels.state import BatchState, whole_number
from titans_seq.memory import LayerState, NeuralMemory
from titans_seq.mixer_base import Mixer, put_back, results, to_front
from titans_seq.places import take


@dataclass(frozen=True)
class MACState(BatchState):
    """What a `MAC` layer carries from one call to the next.

    memory: of the memory. start: its weights at the start of the segment, L tensors [B, H, out, in].
    inputs: [B, conv_size - 1, D], the last inputs, for the convolution of the queries that h comes from.
    keys, values: [B, 2, S, H, K], of what the memory recalled for the segment's tokens and of the tokens; unrotated.
    position: int64 [B], tokens of the segment that were read, in [0, S).
    """

    memory: LayerState
    start: tuple[Tensor, ...]
    inputs: Tensor
    keys: Tensor
    values: Tensor
    position: Tensor
    fingerprint: str


@dataclass(frozen=True)
class _HybridState(BatchState):
    memory: LayerState
    attention: AttentionState


class MAGState(_HybridState):
    """What a `MAG` layer carries from one call to the next."""


class MALState(_HybridState):
    """What a `MAL` layer carries from one call to the next."""


class _WithMemory(Mixer):
    """A mixer with a `memory`, which checks what it is given."""

    has_memory, options_to = True, NeuralMemory
    memory: NeuralMemory

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.memory.dim

    def check_state(self, x: Tensor, state: Any) -> None:
        self.memory.check_kind(state.memory)
        self.memory.check_state(x, state.memory)

    def _first_weight(self) -> Tensor:
        return self.memory.qkv.weight


class MAC(_WithMemory):
    """Memory as a context, `[B, T, D] -> [B, T, D]`, causal. For each segment of S tokens, M the memory as it stood
    before:

        q = SiLU(conv(x W_q)), of unit length;  h = RMSNorm(M(q)) W
        y = Attention([P | h | x]);  m = Memory(RMSNorm(x + RMSNorm(y)));  out = y (x) m, see `MutualGate`

    Queries are the segment's tokens; token j sees P, and h_i and x_i for i <= j. The memory then learns from what
    attention made of the tokens, and gives each token what it knows once it has learned that token. The block around it
    adds the residual.

    Source: Titans, eq. 21-25. As printed, token j would see h_i of later tokens, and the reading in eq. 25 would come
    from after the segment: both show the future. There the memory learns from y alone and y is only gated by its
    reading; here x is added (section 4.4: all blocks have residuals), and the reading is heard itself. P and h are
    unrotated keys, positions begin anew with each segment.

    Args:
        dim: D.
        heads: H, of both.
        head_dim: K, even, of both; D / H if None.
        segment: S.
        num_persistent: P.
        qk_norm: of the attention.
        options: of `NeuralMemory`, for the memory.
    """

    state_type = MACState

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        segment: int = 64,
        num_persistent: int = 4,
        qk_norm: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.segment = whole_number("segment", segment, 1)
        self.memory = NeuralMemory(dim, heads=heads, head_dim=head_dim, **options)
        self.attention = Attention(dim, heads=heads, head_dim=head_dim, num_persistent=num_persistent, qk_norm=qk_norm)
        inner = self.memory.heads * self.memory.head_dim
        self.query = nn.Linear(dim, inner, bias=False)
        self.query_conv = new_taps(self.memory.conv_size, inner)
        if self.query_conv is not None:
            draw_taps(self.query_conv)
        self.recall_norm = nn.RMSNorm(self.memory.head_dim, eps=1e-6)
        self.recall = nn.Linear(inner, dim, bias=False)
        self.residual, self.gate = NormedResidual(dim), MutualGate(dim)
        self.fingerprint = f"MAC segment={segment} {self.memory.fingerprint} {self.attention.fingerprint}"

    def forward(
        self,
        x: Tensor,
        *,
        state: MACState | None = None,
        mask: Tensor | None = None,
        return_state: bool = False,
        return_surprise: bool = False,
    ) -> Tensor | tuple[Any, ...]:
        """Mix x [B, T, D] over time; arguments, results and errors as of `NeuralMemory`, with a `MACState`."""
        self.check(x, state, mask)
        batch, tokens = x.shape[:2]
        count, place = torch.full((batch,), tokens), torch.zeros(batch, dtype=torch.int64)
        if state is None:
            state = self.initial_state(batch, dtype=x.dtype)
        else:
            place = state.position.cpu()
        if mask is not None:
            count = mask.sum(dim=1).cpu()
        x, _, back = to_front(x, mask)  # segments count real tokens only

        y, surprise = torch.zeros_like(x), x.new_zeros(batch, tokens, self.memory.heads, dtype=torch.float32)
        parts = []
        for source, real in _by_segment(place, count, self.segment):
            whole = bool(real.all())
            source, real = source.to(x.device), real.to(x.device)
            part, state = self._segment(take(x, source.clamp(max=tokens - 1)), state, real, whole)
            parts.append((*part, source.masked_fill(~real, tokens)))
        if parts:
            y, surprise, target = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
            y, surprise = _put(y, target, tokens), _put(surprise, target, tokens)
        y, surprise = put_back(y, back), put_back(surprise, back)
        return results(y, state if return_state else None, surprise if return_surprise else None)

    def initial_state(self, batch_size: int, *, dtype: torch.dtype | None = None) -> MACState:
        """The start of a stream, before any token. dtype: that of the inputs."""
        memory = self.memory.initial_state(batch_size, dtype=dtype)
        empty = self.query.weight.new_zeros(batch_size, 2, self.segment, self.memory.heads, self.memory.head_dim)
        position = torch.zeros(batch_size, dtype=torch.int64, device=empty.device)
        return MACState(memory, memory.memory.weights, memory.inputs, empty, empty, position, self.fingerprint)

    def check_state(self, x: Tensor, state: MACState) -> None:
        super().check_state(x, state)
        weights = state.memory.memory.weights
        if [(w.shape, w.dtype, w.device) for w in state.start] != [(w.shape, w.dtype, w.device) for w in weights]:
            raise ValueError("state.start must have the shapes, dtype and device of the memory's weights")
        heads, width = self.memory.heads, self.memory.head_dim
        check_cache("state.inputs", state.inputs, (len(x), self.memory.conv_size - 1, self.memory.dim), x)
        for name, cache in (("state.keys", state.keys), ("state.values", state.values)):
            check_cache(name, cache, (len(x), 2, self.segment, heads, width), x)
        if state.position.shape != (len(x),) or state.position.dtype != torch.int64:
            raise ValueError(f"state.position must be int64 [B] = ({len(x)},); got {tuple(state.position.shape)}")

    def extra_repr(self) -> str:
        return f"segment={self.segment}"

    def _segment(self, x: Tensor, state: MACState, real: Tensor, whole: bool) -> tuple[tuple[Tensor, Tensor], MACState]:
        """Outputs [B, W, D] and surprise [B, W, H] of tokens that stay within each sample's segment, and the new state.

        real [B, W]: which of x are tokens; they come first. whole: all are.
        """
        first = ((state.position == 0) & real[:, 0]).view(-1, 1, 1, 1)
        weights = state.memory.memory.weights
        start = tuple(torch.where(first, now, then) for now, then in zip(weights, state.start, strict=True))
        slot = state.position[:, None] + torch.arange(x.shape[1], device=x.device)  # [B, W]
        history = torch.cat([state.inputs.to(x.dtype), x], dim=1)
        recalled = self._recall(history, replace(state.memory.memory, weights=start))
        q, k, v = self.attention.project(x)
        recalled_k, recalled_v = self.attention.keys_and_values(recalled)
        place = slot.masked_fill(~real, self.segment)
        keys = _written(state.keys, torch.stack([recalled_k, k], dim=1), place)
        values = _written(state.values, torch.stack([recalled_v, v], dim=1), place)
        y = self._attend(q, keys, values, slot)
        mask = None if whole else real
        m, memory, surprise = self.memory(
            self.residual(x, y), state=state.memory, mask=mask, return_state=True, return_surprise=True
        )  # eq. 24
        y = self.gate(y, m)  # eq. 25
        count = real.sum(dim=1)
        inputs = take(history, count[:, None] + torch.arange(state.inputs.shape[1], device=x.device))
        position = (state.position + count) % self.segment
        return (y, surprise), MACState(memory, start, inputs, keys, values, position, self.fingerprint)

    def _recall(self, history: Tensor, memory: MemoryState) -> Tensor:
        """h [B, W, D]: what the memory, as it stood before the segment, knows of the last W of history."""
        z, heads, backend = self.query(history), self.memory.heads, self.memory.backend
        (q,) = tokens_of(z, self.query_conv, heads, parts=1, unit=1, backend=backend)
        h = read_memory(q.to(history.dtype), memory)  # eq. 21
        return self.recall(normed(self.recall_norm, h).flatten(2))

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, slot: Tensor) -> Tensor:
        """Attention of q [B, W, H, K] at slots [B, W] of the segment to P, h and x (eq. 22-23): [B, W, D]."""
        width = q.shape[-1]
        places = torch.arange(self.segment, device=q.device)
        visible = places <= slot[..., None]  # [B, W, S]
        # turned and plain keys in one product: [R(q) | q] against [R(k) | 0] of x, [0 | k] of h and P
        q = torch.cat([rotated(q, slot), q], dim=-1)
        rows = [F.pad(keys[:, 0], (width, 0)), F.pad(rotated(keys[:, 1], places), (0, width))]
        seen, kept = [visible, visible], [values[:, 0], values[:, 1]]
        if self.attention.persistent is not None:
            key, value = self.attention.keys_and_values(self.attention.persistent.to(q.dtype))
            rows.insert(0, F.pad(key, (width, 0)).expand(len(q), -1, -1, -1))
            kept.insert(0, value.expand(len(q), -1, -1, -1))
            seen.insert(0, torch.ones_like(visible[..., :1]).expand(-1, -1, len(key)))
        k = torch.cat(rows, dim=1)
        v = F.pad(torch.cat(kept, dim=1), (0, width))  # as wide as keys, which the fast kernels ask for
        q, k, v = (z.transpose(1, 2) for z in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, torch.cat(seen, dim=-1)[:, None], scale=width**-0.5)
        return self.attention.out(y.transpose(1, 2)[..., :width].flatten(2))


class MAG(_WithMemory):
    """Memory as a gate, `[B, T, D] -> [B, T, D]`, causal: attention is the short memory, the neural memory the long.

        x~ = [P | x];  y = SW-Attention(x~);  m = Memory(x~);  out = y (x) m, see `MutualGate`

    The block around it adds the residual. Source: Titans, eq. 26-28. One P serves both.

    Args:
        dim: D.
        heads: H, of both.
        head_dim: K, even, of both; D / H if None.
        window: tokens the attention sees beside P, the query's own included.
        num_persistent: P.
        qk_norm: of the attention.
        options: of `NeuralMemory`, for the memory.
    """

    state_type = MAGState

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        window: int | None = 128,
        num_persistent: int = 4,
        qk_norm: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.memory = NeuralMemory(dim, heads=heads, head_dim=head_dim, num_persistent=num_persistent, **options)
        self.attention = Attention(dim, heads=heads, head_dim=head_dim, window=window, qk_norm=qk_norm)
        self.gate = MutualGate(dim)

    def forward(
        self,
        x: Tensor,
        *,
        state: MAGState | None = None,
        mask: Tensor | None = None,
        return_state: bool = False,
        return_surprise: bool = False,
    ) -> Tensor | tuple[Any, ...]:
        """Mix x [B, T, D] over time; arguments, results and errors as of `NeuralMemory`, with a `MAGState`."""
        self.check(x, state, mask)
        parts = (None, None) if state is None else (state.memory, state.attention)
        m, memory, surprise = self.memory(x, state=parts[0], mask=mask, return_state=True, return_surprise=True)
        y, attention = self.attention(  # eq. 27; of eq. 26 each of the two puts P before x itself
            x, state=parts[1], mask=mask, return_state=True, persistent=self.memory.persistent
        )
        y = self.gate(y, m)  # eq. 28
        return results(y, MAGState(memory, attention) if return_state else None, surprise if return_surprise else None)


class MAL(_WithMemory):
    """Memory as a layer, `[B, T, D] -> [B, T, D]`, causal: attention within a window over what the memory gives.

        y = Memory([P | x]);  out = y + SW-Attention(RMSNorm(x + RMSNorm(y)))

    so that with the block's residual each of the two layers has one of its own (section 4.4: all blocks have
    residuals). With form="h3" y = q * Memory([P | k * v]) with q, k, v linear maps of x: H3 (arXiv 2212.14052) with its
    two state space models replaced by the memory and its convolution, our reading of the form that the paper evaluated.
    Source: Titans, eq. 29-31.

    Args:
        dim: D.
        heads: H, of both.
        head_dim: K, even, of both; D / H if None.
        window: tokens the attention sees, the query's own included.
        num_persistent: P.
        qk_norm: of the attention.
        form: "plain" or "h3".
        options: of `NeuralMemory`, for the memory.
    """

    state_type = MALState

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        window: int | None = 128,
        num_persistent: int = 4,
        qk_norm: bool = False,
        form: str = "plain",
        **options: Any,
    ) -> None:
        super().__init__()
        if form not in ("plain", "h3"):
            raise ValueError(f"form must be plain or h3; got {form!r}")
        self.memory = NeuralMemory(dim, heads=heads, head_dim=head_dim, num_persistent=num_persistent, **options)
        self.attention = Attention(dim, heads=heads, head_dim=head_dim, window=window, qk_norm=qk_norm)
        self.memory.fingerprint += f" of MAL form={form}"  # it reads something else in the other form
        self.residual = NormedResidual(dim)
        self.products = nn.Linear(dim, 3 * dim, bias=False) if form == "h3" else None

    def forward(
        self,
        x: Tensor,
        *,
        state: MALState | None = None,
        mask: Tensor | None = None,
        return_state: bool = False,
        return_surprise: bool = False,
    ) -> Tensor | tuple[Any, ...]:
        """Mix x [B, T, D] over time; arguments, results and errors as of `NeuralMemory`, with a `MALState`."""
        self.check(x, state, mask)
        parts = (None, None) if state is None else (state.memory, state.attention)
        asked = {"state": parts[0], "mask": mask, "return_state": True, "return_surprise": True}
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0.0)  # padding may hold anything, NaN too
        if self.products is None:
            y, memory, surprise = self.memory(x, **asked)  # eq. 29 and 30
        else:
            q, k, v = self.products(x).chunk(3, dim=-1)
            y, memory, surprise = self.memory(k * v, **asked)
            y = q * y
        seen, attention = self.attention(  # eq. 31
            self.residual(x, y), state=parts[1], mask=mask, return_state=True
        )
        return results(
            y + seen, MALState(memory, attention) if return_state else None, surprise if return_surprise else None
        )


def _by_segment(position: Tensor, count: Tensor, segment: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut the next `count` [B] tokens of each sample where its segments end: indices [B, W], and which of them are
    real.
    """
    done = torch.zeros_like(count)
    while bool((new := torch.minimum(segment - position, count - done)).any()):
        column = torch.arange(int(new.max()))
        yield done[:, None] + column, column < new[:, None]
        done, position = done + new, (position + new) % segment


def _written(cache: Tensor, rows: Tensor, slot: Tensor) -> Tensor:
    """The cache [B, 2, S, H, K] with rows [B, 2, W, H, K] at slots [B, W]; those for slot S are dropped."""
    index = slot[:, None, :, None, None].expand_as(rows)
    return F.pad(cache.to(rows.dtype), (0, 0, 0, 0, 0, 1)).scatter(2, index, rows)[:, :, :-1]


def _put(x: Tensor, target: Tensor, tokens: int) -> Tensor:
    """x [B, M, W] at places target [B, M] of [B, T, W], zeros elsewhere; those for place T are dropped."""
    empty = x.new_zeros(len(x), tokens + 1, x.shape[-1])
    return empty.scatter(1, target[..., None].expand_as(x), x)[:, :-1]
