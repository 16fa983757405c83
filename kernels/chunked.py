"""The memory, chunk by chunk, as matrix products: the same numbers as `reference` without per-token weights.

In a chunk with start state (W_0, S_0) every token's gradient is an outer product delta_i h_i^T per layer, and every
weight that token t reads is a sum over the chunk:

    W_t x = beta_t W_0 x + f_t S_0 x - sum_{i<=t} A[t, i] step_i delta_i (h_i . x)

`beta`, `f` and `A` depend on alpha and eta alone (`gates.py`); step is theta, clipped. Tokens take their places in
chunks (`slots.py`), and chunks are run in groups (`groups.py`). The state before each group is kept for backward, which
makes everything else of a group anew from there, one group at a time.

Dimensions: B batch, T time, H heads, G = B * H, K key width, V value width, N chunks, C slots of a chunk, L depth.
Source: Titans (arXiv 2501.00663v1), eq. 16-18.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from titans_seq.kernels.gates import Gates
from titans_seq.kernels.groups import Group, GroupBackward, Reading, read
from titans_seq.kernels.layers import Layer
from titans_seq.kernels.slots import Slots
from titans_seq.kernels.state import MemoryState

CACHED = 1 << 21  # numbers of state in a group without backward: readings at once pay only while they stay in the cache
SMALLEST_GROUP = 4  # the last group is kept, not made anew: calls of at most 4 chunks compute nothing twice


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
    gate_per: str,
) -> tuple[Float[Tensor, "B T H V"], MemoryState, Float[Tensor, "B T H"]]:
    """Outputs, final state and surprise.

    Memory in backward, beside tokens, results and their gradients: about 3.25 sqrt(N) states of 2 B H sum(in * out)
    numbers, and for sqrt(N) / 2 chunks (at least 4) B H C (10 sum(hidden) + 10 K + (2 L + 12) C) numbers, K = V; until
    then it keeps 2.75 sqrt(N) states and the last group. What it keeps of that group no saved-tensor hook sees. Without
    gradients one group is in memory. There is no second derivative.
    """
    slots = Slots.plan(q, state, chunk_size, mask)
    heads = q.shape[2]
    tokens = slots.tokens_in(q, k, v, alpha, eta, theta, gate_per)
    tensors = (*tokens, *state.weights, *state.momentum, *state.chunk_start)
    trained = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    layers = tuple(Layer(rising=w.shape[-2] >= w.shape[-1]) for w in state.weights)
    plan = _Plan(slots, layers, heads, max_surprise, gate_per, 2 * sum(w.numel() for w in state.weights), trained)
    y, surprise, *final = _Chunked.apply(plan, *tensors)
    y, surprise = slots.results_out(y, surprise, heads)
    depth = state.depth
    weights, momentum, start = (tuple(final[i : i + depth]) for i in range(0, 3 * depth, depth))
    return y, MemoryState(weights, momentum, start, slots.position, chunk_size), surprise


@dataclass(frozen=True)
class _Plan:
    """What does not depend on the values."""

    slots: Slots
    layers: tuple[Layer, ...]
    heads: int
    max_surprise: float | None
    gate_per: str
    state_numbers: int  # in weights and momentum of all samples and heads
    trained: bool  # backward will come

    def groups(self) -> list[range]:
        """Chunks in groups of sqrt(N) / 2, so that all that is kept for backward grows like sqrt(N)."""
        chunks = self.slots.chunks
        size = max(math.isqrt(chunks) // 2, SMALLEST_GROUP)
        if not self.trained:
            size = min(size, max(CACHED // self.state_numbers, 1))
        return [range(first, min(first + size, chunks)) for first in range(0, chunks, size)]

    def run(
        self,
        chunks: range,
        pairs: Sequence[Tensor],
        start: Sequence[Tensor],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        alpha: Tensor,
        eta: Tensor,
        theta: Tensor,
        *,
        end: bool,
    ) -> tuple[Gates, Group, Reading]:
        """A group, from the state `pairs` before it."""
        q, k, v, alpha, eta, theta = _of(chunks, q, k, v, alpha, eta, theta)
        real = self.slots.real(chunks.start, chunks.stop, self.heads)
        real = None if real is None else real.to(alpha.dtype)
        gates = Gates(alpha, eta, self.slots.width, real, per_chunk=self.gate_per == "chunk")
        group = Group(self.layers, pairs, start, k, v, theta, gates.table, self.max_surprise, end=end)
        return gates, group, read(group, q)

    def current(self, n: int) -> bool | Bool[Tensor, "G 1 1"]:
        """Whether the stream stands in chunk n after the call; per sample and head where samples may differ."""
        chunk = self.slots.current_chunk
        return chunk == n if isinstance(chunk, int) else (chunk == n).repeat_interleave(self.heads)[:, None, None]

    def pack(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and momentum as pairs, and chunk start, of 3 L tensors [B, H, out, in]."""
        packed = [layer.pack(x) for layer, x in zip(self.layers * 3, tensors, strict=True)]
        depth = len(self.layers)
        pairs = zip(packed[:depth], packed[depth : 2 * depth], strict=True)
        return [torch.stack(pair, dim=1) for pair in pairs], [w.contiguous() for w in packed[2 * depth :]]

    def unpack(self, pairs: Sequence[Tensor], start: Sequence[Tensor]) -> list[Tensor]:
        matrices = [*(pair[:, 0] for pair in pairs), *(pair[:, 1] for pair in pairs), *start]
        return [layer.unpack(matrix, self.heads) for layer, matrix in zip(self.layers * 3, matrices, strict=True)]


class _Chunked(torch.autograd.Function):
    """On slots. The state is 3 L tensors [B, H, out, in]: weights, momentum and chunk start of all layers."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        tokens, state = tensors[:6], tensors[6:]
        pairs, start = plan.pack(state)
        current, kept = start, list(start)
        y, surprise = torch.empty_like(tokens[2]), torch.empty_like(tokens[5])
        ran: tuple[Gates, Group, Reading] | None = None
        for chunks in plan.groups():
            kept += pairs if plan.trained else []
            ran = None  # one group at a time in memory
            ran = plan.run(chunks, pairs, start, *tokens, end=True)
            for target, value in zip(_of(chunks, y, surprise), (ran[2].y, ran[1].surprise), strict=True):
                target.copy_(value)
            for n in range(max(chunks.start, 1), chunks.stop):
                current = _choose(plan.current(n), ran[1].starts[n - chunks.start], current)
            pairs, start = [pair[-1].clone() for pair in ran[1].pairs], ran[1].starts[-1]
        current = _choose(plan.current(plan.slots.chunks), start, current)
        if plan.trained:
            ctx.plan, ctx.last = plan, ran
            ctx.save_for_backward(*tokens, *kept)
        return y, surprise, *plan.unpack(pairs, current)

    @staticmethod
    def backward(ctx: Any, *d_results: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True; a constant would be a wrong second derivative
            raise RuntimeError(
                'backend="chunked" has no second derivative; backend="reference" has (a layer also needs conv_size=0)'
            )
        with torch.autocast(d_results[0].device.type, enabled=False):
            return None, *_backward(ctx, *d_results)


def _backward(ctx: Any, d_y: Tensor, d_surprise: Tensor, *d_state: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the six token tensors and of the state, given those of the results."""
    plan, depth = ctx.plan, len(ctx.plan.layers)
    saved = ctx.saved_tensors  # once: under checkpointing a second look is an error
    tokens, first_start, kept = saved[:6], saved[6 : 6 + depth], saved[6 + depth :]
    d_pairs, d_current = plan.pack(d_state)
    d_tokens = [torch.empty_like(x) for x in tokens]
    last, ctx.last = ctx.last, None  # a second backward makes the last group anew too
    for chunks in reversed(plan.groups()):
        pairs, kept = kept[-depth:], kept[:-depth]
        start = first_start if chunks.start == 0 else [pair[:, 0].contiguous() for pair in pairs]
        ran, last = last or plan.run(chunks, pairs, start, *tokens, end=False), None
        d_group, d_pairs, d_start = _group_backward(plan, chunks, ran, _of(chunks, d_y, d_surprise), d_pairs, d_current)
        for target, value in zip(_of(chunks, *d_tokens), d_group, strict=True):
            target.copy_(value)
        del ran, d_group  # one group at a time in memory
    _add(d_start, d_current, plan.current(0))
    return *d_tokens, *plan.unpack(d_pairs, d_start)


def _group_backward(
    plan: _Plan, chunks: range, ran: tuple[Gates, Group, Reading], d_results: Sequence[Tensor], d_pairs: list[Tensor],
    d_current: list[Tensor],
) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor]]:  # fmt: skip
    """Gradients of the group's tokens, of the state before it, and of where its first chunk took its gradient."""
    gates, group, reading = ran
    back = GroupBackward(group, reading, d_results[0], d_results[1], d_pairs)
    for n in reversed(chunks):
        i = n - chunks.start
        _add([pair[i + 1, :, 0] for pair in back.d_pairs], d_current, plan.current(n + 1))
        d_start = back.chunk(i)
        _add([pair[i, :, 0] for pair in back.d_pairs], d_start, n > 0)
    d_q, d_k, d_v, d_theta = back.tokens()
    d_alpha, d_eta = gates.backward(back.gates())
    return (d_q, d_k, d_v, d_alpha, d_eta, d_theta), [pair[0].clone() for pair in back.d_pairs], d_start


def _of(chunks: range, *tensors: Tensor) -> list[Tensor]:
    return [x[chunks.start : chunks.stop] for x in tensors]


def _choose(condition: bool | Tensor, new: Sequence[Tensor], old: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(condition, bool):
        return list(new if condition else old)
    return [torch.where(condition, a, b) for a, b in zip(new, old, strict=True)]


def _add(targets: Sequence[Tensor], values: Sequence[Tensor], condition: bool | Tensor) -> None:
    """Add in place, where the condition holds."""
    if condition is False:
        return
    for target, value in zip(targets, values, strict=True):
        target += value if condition is True else torch.where(condition, value, 0.0)
