"""The memory through compiled C (`native/`), for float32 and float64 tokens on a CPU: one operator forward, one
backward.

The algorithm is that of `chunked`. Small memories lie one in each lane of the processor's vectors (`lanes.c`), larger
ones, and too few to fill the lanes, along vectors (`rows.c`). Tokens are read and written where they lie. Results do
not depend on the number of threads.

Dimensions: B batch, T time, H heads, K key width, V value width, L depth, C chunk size.
"""

import ctypes
import itertools
from collections.abc import Sequence
from ctypes import c_int64
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from titans_seq.kernels.native_library import (
    DEEPEST,
    DTYPES,
    FUNCTIONS,
    KERNELS,
    Call,
    Gradients,
    Layers,
    State,
    Tokens,
    library,
    no_second_derivative,
)
from titans_seq.kernels.state import MemoryState

TAIL = 2  # numbers behind the states that are kept for backward
EVERY = 4  # chunks between two states that are kept for backward, with one memory in each lane
MOST_IN_A_LANE = 2**13  # weights of a memory in one lane; the states of more do not stay in a core's cache
COST_OF_FOUR_IN_ROWS = 5  # of four weights in `rows`, in weights of `lanes` with all lanes full; measured 4.4 to 6
WORK_OF_A_THREAD = 2**20  # multiplications below which a thread costs more than it brings


def native_memory(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, eta: Tensor, theta: Tensor, state: MemoryState, chunk_size: int,
    max_surprise: float | None, mask: Tensor | None, gate_per: str, return_state: bool = True,
) -> tuple[Tensor, MemoryState, Tensor]:  # fmt: skip
    """Outputs, state and surprise, as `chunked_memory`; return_state=False: the given state, not the final one."""
    if torch.autograd.forward_ad._current_level >= 0:  # the operator would pass on a tangent of zero
        raise RuntimeError('backend="native" has no forward-mode derivative; backend="reference" has')
    given = [*state.weights, *state.momentum]
    if any(start is not w for start, w in zip(state.chunk_start, state.weights, strict=True)):
        given += state.chunk_start  # else its gradient is part of that of the weights
    trained = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, alpha, eta, theta, *given))
    bound = float("inf") if max_surprise is None else max_surprise
    y, surprise, position, final, _ = native_forward(
        q, k, v, alpha, eta, theta, given, state.depth, state.position, mask, chunk_size, bound, gate_per == "chunk",
        trained, return_state,
    )  # fmt: skip
    if return_state:
        weights, momentum, start = (tuple(final[i : i + state.depth]) for i in range(0, len(final), state.depth))
        state = MemoryState(weights, momentum, start, position, chunk_size)
    return y, state, surprise


@torch.library.custom_op("titans_seq::native_forward", mutates_args=())
def native_forward(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, eta: Tensor, theta: Tensor, state: Sequence[Tensor],
    depth: int, position: Tensor, mask: Tensor | None, chunk_size: int, max_surprise: float, per_chunk: bool,
    trained: bool, return_state: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor]:  # fmt: skip
    """y [B, T, H, V], surprise [B, T, H], position [B], the state after the last token, and states for backward.

    state: weights, momentum and chunk start of all layers, [B, H, out, in] each; without a chunk start it is the
    weights. trained: keep what backward needs. return_state: False gives none.
    """
    call = _Call(q, k, v, alpha, eta, theta, state, depth, position, mask, chunk_size, max_surprise, per_chunk)
    new = torch.zeros_like if mask is not None else torch.empty_like
    y, surprise = (new(x, memory_format=torch.contiguous_format) for x in (v, theta))
    final = [w.new_empty(w.shape) for w in [*state[:depth]] * 3] if return_state else []
    kept = call.keep() if trained else q.new_empty(0)
    call.forward(y, surprise, final)
    count = q.shape[1] if call.count is None else call.count
    return y, surprise, (position + count) % chunk_size, final, kept


@native_forward.register_fake
def _(q, k, v, alpha, eta, theta, state, depth, position, mask, chunk_size, bound, per_chunk, trained, return_state):
    kept = q.new_empty(_numbers_kept(q, _widths(state, depth), chunk_size) if trained else 0)
    final = [w.new_empty(w.shape) for w in [*state[:depth]] * 3] if return_state else []
    return v.new_empty(v.shape), theta.new_empty(theta.shape), position.new_empty(position.shape), final, kept


@torch.library.custom_op("titans_seq::native_backward", mutates_args=())
def native_backward(
    d_y: Tensor | None, d_surprise: Tensor | None, d_final: Sequence[Tensor], q: Tensor, k: Tensor, v: Tensor,
    alpha: Tensor, eta: Tensor, theta: Tensor, state: Sequence[Tensor], wanted: Sequence[bool],
    depth: int, position: Tensor, mask: Tensor | None, kept: Tensor, chunk_size: int, max_surprise: float,
    per_chunk: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    """Gradients of q, k, v, alpha, eta, theta and the wanted parts of the state; empty ones of the other parts.

    d_final: of the final weights, momentum and chunk start; or empty: nobody read them.
    """
    call = _Call(q, k, v, alpha, eta, theta, state, depth, position, mask, chunk_size, max_surprise, per_chunk)
    new = torch.zeros_like if mask is not None else torch.empty_like
    d_tokens = [new(x, memory_format=torch.contiguous_format) for x in (q, k, v, alpha, eta, theta)]
    d_state = [w.new_empty(w.shape if is_wanted else 0) for w, is_wanted in zip(state, wanted, strict=True)]
    call.backward(d_y, d_surprise, d_final, kept, d_tokens, d_state)
    d_q, d_k, d_v, d_alpha, d_eta, d_theta = d_tokens
    return d_q, d_k, d_v, d_alpha, d_eta, d_theta, d_state


@native_backward.register_fake
def _(d_y, d_surprise, d_final, q, k, v, alpha, eta, theta, state, wanted, *_):
    d_state = [w.new_empty(w.shape if is_wanted else 0) for w, is_wanted in zip(state, wanted, strict=True)]
    return *(x.new_empty(x.shape) for x in (q, k, v, alpha, eta, theta)), d_state


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    q, k, v, alpha, eta, theta, state, ctx.depth, position, mask, *ctx.options, _, _ = inputs
    ctx.save_for_backward(q, k, v, alpha, eta, theta, position, mask, output[4], *state)
    ctx.set_materialize_grads(False)  # nothing for results that nobody reads


def _backward(ctx: Any, d_y: Any, d_surprise: Any, _position: Any, d_final: Any, _kept: Any) -> tuple[Any, ...]:
    q, k, v, alpha, eta, theta, position, mask, kept, *state = ctx.saved_tensors
    d_final = list(d_final or ())
    if any(d is not None for d in d_final):
        weights = state[: ctx.depth] * 3
        d_final = [torch.zeros_like(w) if d is None else d for d, w in zip(d_final, weights, strict=True)]
    else:
        d_final = []
    wanted = _whole_parts(ctx.needs_input_grad[6], ctx.depth)
    *d_tokens, d_state = native_backward(
        d_y, d_surprise, d_final, q, k, v, alpha, eta, theta, state, wanted, ctx.depth, position, mask, kept,
        *ctx.options,
    )  # fmt: skip
    d_state = [d if is_wanted else None for d, is_wanted in zip(d_state, wanted, strict=True)]
    return *d_tokens, d_state, *[None] * 8


def _whole_parts(wanted: Sequence[bool], depth: int) -> list[bool]:
    """Of a part of the state (weights, momentum, chunk start) the gradients of all layers are wanted, or of none."""
    parts = [any(wanted[i : i + depth]) for i in range(0, len(wanted), depth)]
    return [part for part in parts for _ in range(depth)]


native_forward.register_autograd(_backward, setup_context=_setup)
native_backward.register_autograd(no_second_derivative)


def _widths(state: Sequence[Tensor], depth: int) -> tuple[int, ...]:
    return int(state[0].shape[3]), *(int(w.shape[2]) for w in state[:depth])


class _Plan(NamedTuple):
    """What a call takes in one kernel, by its sizes alone, with no condition on those that torch.compile and
    torch.export leave open: a size that depended on values would break a compiled graph.

    every: chunks between two states kept for backward, of streams at the start of a chunk. states: how many each memory
    keeps. kept: numbers in all of them, with a tail: of a size of 0 or 1 a graph would be compiled for it alone.
    """

    build: ctypes.CDLL
    kernel: str
    widths: tuple[int, ...]
    memories: int
    every: int
    states: int
    kept: int

    @classmethod
    def of(cls, kernel: str, q: Tensor, widths: tuple[int, ...], chunk_size: int) -> "_Plan":
        batch, tokens, heads, _ = q.shape
        chunks = (tokens + chunk_size - 1) // chunk_size
        every = EVERY if kernel == "lanes" else _every_in_rows(chunks)
        states = (chunks - 1) // every
        build = library()
        assert build is not None, "resolve_backend checks it"
        memories, numbers = _block(build, kernel, widths, q.dtype)
        blocks = (batch * heads + memories - 1) // memories
        return cls(build, kernel, widths, memories, every, states, blocks * states * numbers + TAIL)

    def every_from(self, slots: int, chunk_size: int) -> int:
        """Chunks between two states that are kept of a stream of so many slots, so that there are at most `states`."""
        chunks = (slots + chunk_size - 1) // chunk_size
        return max(self.every, (chunks - 1) // (self.states + 1) + 1)


def _plans(q: Tensor, widths: tuple[int, ...], chunk_size: int) -> tuple[_Plan, _Plan, bool]:
    """The plans of both kernels, and whether the first is taken."""
    lanes, rows = (_Plan.of(kernel, q, widths, chunk_size) for kernel in KERNELS)
    return lanes, rows, _fits_lanes(q.shape[0] * q.shape[2], widths, lanes.memories)


def _plan(q: Tensor, widths: tuple[int, ...], chunk_size: int) -> _Plan:
    lanes, rows, fits = _plans(q, widths, chunk_size)
    return lanes if fits else rows


def _numbers_kept(q: Tensor, widths: tuple[int, ...], chunk_size: int) -> int:
    """That of the plan, also where the batch is left open: there the choice is part of the formula."""
    lanes, rows, fits = _plans(q, widths, chunk_size)
    return torch.sym_ite(fits, lanes.kept, rows.kept)


def _every_in_rows(chunks: int) -> int:
    """max(4, sqrt(N) / 2), also of a size that is left open."""
    return torch.sym_max(4, torch.sym_int(torch.sym_sqrt(torch.sym_float(chunks))) // 2)


@cache
def _block(build: ctypes.CDLL, kernel: str, widths: tuple[int, ...], dtype: torch.dtype) -> tuple[int, int]:
    """Memories in a block, and numbers in a state of one: two chunks of one token keep one state."""
    memories = _function(build, kernel, "memories", dtype)()
    position = c_int64(0)
    call = Call(batch=1, tokens=2, heads=1, depth=len(widths) - 1, chunk_size=1, every=1)
    call.position = ctypes.addressof(position)
    call.width[: len(widths)] = widths
    return memories, _function(build, kernel, "kept", dtype)(ctypes.byref(call))


def _function(build: ctypes.CDLL, kernel: str, word: str, dtype: torch.dtype) -> Any:
    return getattr(build, f"titans_{kernel}_{word}_{DTYPES[dtype]}")


class _Call:
    """A call as the C sees it; keeps alive what it points to."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, eta: Tensor, theta: Tensor, state: Sequence[Tensor],
        depth: int, position: Tensor, mask: Tensor | None, chunk_size: int, max_surprise: float, per_chunk: bool,
    ) -> None:  # fmt: skip
        self.dtype = q.dtype
        self.alive: list[Tensor] = []
        batch, tokens, heads, _ = q.shape
        self.depth, plan = depth, _plan(q, _widths(state, depth), chunk_size)
        self.numbers = sum(a * b for a, b in itertools.pairwise(plan.widths))
        self.functions = {word: _function(plan.build, plan.kernel, word, q.dtype) for word in FUNCTIONS}
        self.plan, self.position = plan, position
        self.call = Call(
            batch=batch, tokens=tokens, heads=heads, depth=self.depth, chunk_size=chunk_size, every=1,
            gate_per_chunk=per_chunk, max_surprise=max_surprise,
        )  # fmt: skip
        self.call.width[: len(plan.widths)] = plan.widths
        for name, x in (("q", q), ("k", k), ("v", v), ("alpha", alpha), ("eta", eta), ("theta", theta)):
            setattr(self.call, name, self._tokens(x))
        self.call.state = self._state(state)
        if all(_is_zero(m) for m in state[depth : 2 * depth]):
            self.call.state.momentum = (Layers * DEEPEST)()
        self.call.position = self._pointer(position)
        self.count: Tensor | None = None
        if mask is not None:
            self.count = mask.sum(dim=1)
            self.call.count = self._pointer(self.count)
            self.call.order = self._pointer(torch.argsort(~mask, dim=1, stable=True))

    def keep(self, kept: Tensor | None = None) -> Tensor:
        """Say where the states for backward lie, the same in forward and backward. None: new memory, which begins where
        the C can load whole vectors, and of which every number is written.
        """
        position = int(self.position.max())
        self.call.every = self.plan.every_from(position + self.call.tokens, self.call.chunk_size)
        if kept is None:
            kept = torch.empty(self.plan.kept, dtype=self.dtype)
            # some memories may have fewer chunks than others
            (kept if position or self.count is not None else kept[-TAIL:]).zero_()
        assert self.functions["kept"](ctypes.byref(self.call)) <= len(kept)
        self.call.kept = kept.data_ptr()
        return kept

    def forward(self, y: Tensor, surprise: Tensor, final: Sequence[Tensor]) -> None:
        self.call.y, self.call.surprise, self.call.final = self._tokens(y), self._tokens(surprise), self._state(final)
        self._checked(self.functions["forward"](ctypes.byref(self.call), self._threads()))

    def backward(
        self, d_y: Tensor | None, d_surprise: Tensor | None, d_final: Sequence[Tensor], kept: Tensor,
        d_tokens: Sequence[Tensor], d_state: Sequence[Tensor],
    ) -> None:  # fmt: skip
        self.keep(kept)
        q, k, v, alpha, eta, theta = (self._tokens(x) for x in d_tokens)
        gradients = Gradients(
            y=Tokens() if d_y is None else self._tokens(d_y),
            surprise=Tokens() if d_surprise is None else self._tokens(d_surprise),
            final=self._state(d_final), q=q, k=k, v=v, alpha=alpha, eta=eta, theta=theta, state=self._state(d_state),
        )  # fmt: skip
        self._checked(self.functions["backward"](ctypes.byref(self.call), ctypes.byref(gradients), self._threads()))

    def _threads(self) -> int:
        call = self.call
        work = call.batch * call.heads * call.tokens * self.numbers * 10
        return min(torch.get_num_threads(), 1 + work // WORK_OF_A_THREAD)

    @staticmethod
    def _checked(failed: int) -> None:
        if failed:
            raise MemoryError("no memory for the buffers of the memory operation")

    def _tokens(self, x: Tensor) -> Tokens:
        if x.ndim == 4 and x.stride(3) != 1 and x.shape[3] > 1:
            x = x.contiguous()
        self.alive.append(x)
        return Tokens(x.data_ptr(), *x.stride()[:3])

    def _state(self, tensors: Sequence[Tensor]) -> State:
        """Layers of all weights, then of the momentum, then of the chunk start; empty tensors stand for none."""
        layers = []
        for w in tensors:
            if w.numel() and w.stride()[2:] != (w.shape[3], 1):
                w = w.contiguous()
            self.alive.append(w)
            layers.append(Layers(w.data_ptr(), *w.stride()[:2]) if w.numel() else Layers())
        parts = (layers[i : i + self.depth] for i in range(0, len(layers), self.depth))
        return State(*((Layers * DEEPEST)(*part) for part in parts))

    def _pointer(self, x: Tensor) -> int:
        x = x.contiguous()
        self.alive.append(x)
        return x.data_ptr()


def _fits_lanes(memories: int, widths: Sequence[int], lanes: int) -> bool:
    """Whether a memory in each lane costs less than one after the other, with rows filled up to whole vectors."""
    numbers = sum(a * b for a, b in itertools.pairwise(widths))
    if numbers > MOST_IN_A_LANE:
        return False
    rows = 0
    for layer in range(len(widths) - 1):
        even, odd = widths[layer + layer % 2], widths[layer + 1 - layer % 2]  # as in rows_chunk.h
        rows += odd * _filled_up(even, lanes)
    return 4 * _filled_up(memories, lanes) * numbers <= COST_OF_FOUR_IN_ROWS * memories * rows


def _filled_up(count: int, lanes: int) -> int:
    return -(-count // lanes) * lanes


def _is_zero(x: Tensor) -> bool:
    """Whether a tensor is one zero seen everywhere, as the momentum of a fresh state; reads a single number."""
    return x.stride() == (0, 0, 0, 0) and not x[0, 0, 0, 0]
