"""The memory through Triton kernels: `chunked`'s algorithm, with the state in memory and its tiles in registers.

Tokens take slots, chunks run in groups of sqrt(N) (at least 16), and backward makes a group anew from the state kept
before it, as in `chunked.py`; a group is one launch forward and three backward, beside those of the gate table. Nothing
is read from the device: with a mask or a carried state there is room for as many chunks as there could be.

Dimensions: B batch, T time, H heads, G = B * H, K key width, V value width, N chunks, g chunks of a group, C slots of a
chunk, L depth, P numbers in the weights of all layers of one head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from titans_seq.kernels.gates import Gates, GateTable
from titans_seq.kernels.slots import Slots
from titans_seq.kernels.state import MemoryState
from titans_seq.kernels.triton_backward import read_backward, walk_backward
from titans_seq.kernels.triton_forward import Scratch, walk
from titans_seq.kernels.triton_tiles import Dims, FactorGradients, Factors

SMALLEST_GROUP = 16  # a group's launches cost as much as a few chunks


def fused_memory(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, eta: Tensor, theta: Tensor, state: MemoryState, chunk_size: int,
    max_surprise: float | None, mask: Tensor | None, gate_per: str,
) -> tuple[Tensor, MemoryState, Tensor]:  # fmt: skip
    """Outputs, final state and surprise, as `chunked_memory`; q, k and v may be bfloat16, all else is float32.

    Numerics: products of float32 tokens are tf32x3 (three products of the tensor cores for one of float32's precision);
    those of bfloat16 tokens round both sides and sum in float32. The gate table is a matrix product of PyTorch, so
    `torch.set_float32_matmul_precision("high")` makes it tf32. Memory in backward, beside tokens and results: about 3
    sqrt(N) states of 2 G P numbers, and for sqrt(N) chunks (at least 16) about G C (6 (L - 1) HID + 5 K + (L + 9) C)
    numbers.
    A carried or masked call takes room for every chunk there could be: one token costs a chunk. There is no second and
    no forward-mode derivative.
    """
    if torch.autograd.forward_ad._current_level >= 0:  # the operator would pass on a tangent of zero
        raise RuntimeError('backend="triton" has no forward-mode derivative; backend="reference" has')
    slots, heads, depth = Slots.plan(q, state, chunk_size, mask, wait=False), q.shape[2], state.depth
    tokens = slots.tokens_in(q, k, v, alpha, eta, theta, gate_per)
    real = slots.real(0, slots.chunks, heads)
    real = None if real is None else real.to(theta.dtype).expand(tokens[5].shape)
    flat = torch.cat([w.flatten(2) for part in (state.weights, state.momentum, state.chunk_start) for w in part], dim=2)
    flat = flat.flatten(0, 1).unflatten(1, (3, -1))  # [G, 3, P]
    current = (slots.reached // chunk_size).repeat_interleave(heads)
    hidden = state.weights[0].shape[-2] if depth > 1 else 0
    trained = torch.is_grad_enabled() and any(x.requires_grad for x in (*tokens, flat))
    y, surprise, flat, _ = memory_forward(*tokens, real, current, flat, max_surprise, hidden, depth, trained)
    y, surprise = slots.results_out(y, surprise, heads)
    parts = flat.unflatten(0, (-1, heads)).flatten(2).split([w[0, 0].numel() for w in state.weights] * 3, dim=2)
    shapes = [w.shape[-2:] for w in state.weights] * 3
    final = tuple(  # copies: callers may change what they got
        x.unflatten(2, shape).clone(memory_format=torch.contiguous_format)
        for x, shape in zip(parts, shapes, strict=True)
    )
    weights, momentum, start = (final[i : i + depth] for i in range(0, 3 * depth, depth))
    return y, MemoryState(weights, momentum, start, slots.position, chunk_size), surprise


@torch.library.custom_op("titans_seq::memory_forward", mutates_args=())
def memory_forward(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, eta: Tensor, theta: Tensor, real: Tensor | None, current: Tensor,
    state: Tensor, max_surprise: float | None, hidden: int, depth: int, trained: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y [N, G, C, V], surprise [N, G, C], the state [G, 3, P] after the chunks, and the states before groups of them.

    q, k [N, G, C, K], v [N, G, C, V], theta [N, G, C]; alpha, eta the same, or [N, G] if constant in a chunk. real [N,
    G, C]: 1 at slots that hold a token; None: all do. current [G]: the chunk the stream stands in at the end, N behind
    the last one.
    state: weights, momentum and chunk start. hidden: width, 0 at depth 1. trained: keep what backward needs.
    """
    run = _Run.of(q, v, state, max_surprise, hidden, depth)
    tokens = [x.contiguous() for x in (q, k, v, alpha, eta, theta)]
    pair, start = state[:, :2].clone(memory_format=torch.contiguous_format), state[:, 2].contiguous()
    y, surprise, stood = torch.empty_like(tokens[2]), torch.empty_like(tokens[5]), start.clone()
    groups = group_ranges(len(q))
    kept = pair.new_empty(len(groups) if trained else 0, *pair.shape)
    with torch.cuda.device_of(q):  # kernels run on the current device
        for i, chunks in enumerate(groups):
            if trained:
                kept[i] = pair
            group = None  # one group at a time in memory
            group = _Group(run, pair, start, [x[_slice(chunks)] for x in tokens], _part(real, chunks), keep=False)
            here, at = _place(current, chunks)
            y[_slice(chunks)], surprise[_slice(chunks)] = group.results(torch.where(here[:, 0], at, -1), stood)
            start = pair[:, 0].clone(memory_format=torch.contiguous_format)
    stood = torch.where((current == len(q))[:, None], start, stood)
    return y, surprise, torch.cat([pair, stood[:, None]], dim=1), kept


@memory_forward.register_fake
def _(q, k, v, alpha, eta, theta, real, current, state, max_surprise, hidden, depth, trained):
    size = group_size(q.shape[0])
    groups = (q.shape[0] + size - 1) // size if trained else 0
    kept = state.new_empty(groups, state.shape[0], 2, state.shape[2])
    return v.new_empty(v.shape), theta.new_empty(theta.shape), state.new_empty(state.shape), kept


@torch.library.custom_op("titans_seq::memory_backward", mutates_args=())
def memory_backward(
    d_y: Tensor, d_surprise: Tensor, d_state: Tensor, q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, eta: Tensor,
    theta: Tensor, real: Tensor | None, current: Tensor, state: Tensor, kept: Tensor, max_surprise: float | None,
    hidden: int, depth: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, alpha, eta, theta and state."""
    run = _Run.of(q, v, state, max_surprise, hidden, depth)
    tokens = [x.contiguous() for x in (q, k, v, alpha, eta, theta)]
    d_tokens = [torch.empty_like(x) for x in tokens]
    d_pair, d_current = d_state[:, :2].clone(memory_format=torch.contiguous_format), d_state[:, 2]
    d_pair[:, 0] += torch.where((current == len(q))[:, None], d_current, 0.0)
    d_start = torch.zeros_like(d_current)
    with torch.cuda.device_of(q):
        for i, chunks in reversed(list(enumerate(group_ranges(len(q))))):
            first = chunks.start == 0
            start = state[:, 2].contiguous() if first else kept[i, :, 0].contiguous()
            group = back = None  # one group at a time in memory
            group = _Group(run, kept[i], start, [x[_slice(chunks)] for x in tokens], _part(real, chunks), keep=True)
            group.keep()
            back = _GroupBackward(group, d_y[_slice(chunks)], d_surprise[_slice(chunks)], d_pair)
            here, at = _place(current, chunks)
            back.d_pairs[at, torch.arange(len(at), device=at.device), 0] += torch.where(here, d_current, 0.0)
            for target, value in zip(d_tokens, back.walk(), strict=True):
                target[_slice(chunks)] = value
            d_pair, d_start = back.d_pairs[0].clone(), back.d_start
            if not first:
                d_pair[:, 0] += d_start
    d_start = d_start + torch.where((current == 0)[:, None], d_current, 0.0)
    d_q, d_k, d_v, d_alpha, d_eta, d_theta = d_tokens
    return d_q, d_k, d_v, d_alpha, d_eta, d_theta, torch.cat([d_pair, d_start[:, None]], dim=1)


@memory_backward.register_fake
def _(d_y, d_surprise, d_state, q, k, v, alpha, eta, theta, real, current, state, *_):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, alpha, eta, theta, state))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, max_surprise, hidden, depth, _ = inputs
    ctx.options = (max_surprise, hidden, depth)
    ctx.save_for_backward(*tensors, output[3])
    ctx.set_materialize_grads(False)  # zeros for `kept`, which nobody reads, would be as large as it


def _backward(ctx: Any, *d_results: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: under checkpointing a second look is an error
    like = (saved[2], saved[5], saved[8])  # v, theta, state
    given = [torch.zeros_like(x) if d is None else d for d, x in zip(d_results[:3], like, strict=True)]
    with torch.autocast(saved[0].device.type, enabled=False):
        *d_tokens, d_state = memory_backward(*given, *saved, *ctx.options)
    return *d_tokens, None, None, d_state, None, None, None, None


memory_forward.register_autograd(_backward, setup_context=_setup)


@dataclass(frozen=True)
class _Run:
    """What every launch of a call is told."""

    forward: dict[str, Any]
    backward: dict[str, Any]
    clip: dict[str, Any]

    @classmethod
    def of(cls, q: Tensor, v: Tensor, state: Tensor, max_surprise: float | None, hidden: int, depth: int) -> "_Run":
        wgmma = not q.is_cuda or multiplies_from_shared(torch.cuda.get_device_capability(q.device)[0])
        sizes = (q.shape[3], v.shape[3], hidden, depth, q.shape[2], precision(q.dtype))
        forward, backward = (kernel_dims(*sizes, backward=back, wgmma=wgmma) for back in (False, True))
        clip = {"max_surprise": max_surprise or 0.0, "CLIP": max_surprise is not None}
        return cls({"d": forward[0], **forward[1]}, {"d": backward[0], **backward[1]}, clip)

    @property
    def dims(self) -> Dims:
        """For the sizes, which are those of all kernels."""
        dims: Dims = self.forward["d"]
        return dims


class _Group:
    """Some chunks from the state `pair` [G, 2, P] before them; the first takes its gradient at `start` [G, P].

    keep: make all that backward needs, by `keep`, and leave pair alone; else results, by `results`, and pair moves on.
    """

    def __init__(
        self, run: _Run, pair: Tensor, start: Tensor, tokens: Sequence[Tensor], real: Tensor | None, *, keep: bool
    ) -> None:
        """tokens: q, k, v, alpha, eta, theta of the chunks."""
        q, k, v, alpha, eta, theta = tokens
        self.run, self.start, self.q, self.k, self.v, self.theta = run, start, q, k, v, theta
        self.size, self.groups, slots, width = v.shape
        self.rooms = self.size if keep else 1
        self.gates = Gates(alpha, eta, slots, real, per_chunk=alpha.ndim == 2)
        self.table = GateTable(*(x.contiguous() for x in self.gates.table))
        self.pairs = pair
        if keep:
            self.pairs = pair.new_empty(self.size + 1, *pair.shape)
            self.pairs[0] = pair
        # gradients of the gates are sums over factors: rounded to bfloat16 these would not do
        self.factors = Factors(
            self.hidden(theta.dtype),
            self.hidden(theta.dtype),
            self.room(slots, width),
            self.room(2, run.dims.L.value, slots),
            torch.empty_like(theta),
            torch.empty_like(theta),
        )
        self.zx, self.overlap = self.hidden(v.dtype), self.room(run.dims.L.value, slots, slots)

    def results(self, place: Tensor, stood: Tensor) -> tuple[Tensor, Tensor]:
        """y and surprise; `stood` gets the weights before chunk `place` of the group, where there is one."""
        y = torch.empty_like(self.v)
        self._walk(place.to(torch.int32), stood, y, keep=False)
        return y, self.factors.surprise

    def keep(self) -> None:
        self._walk(None, None, self.v, keep=True)  # y is not written

    def _walk(self, place: Tensor | None, stood: Tensor | None, y: Tensor, *, keep: bool) -> None:
        scratch = Scratch(*(torch.empty_like(self.zx[0]) for _ in range(3)))
        walk[(self.groups,)](
            self.q, self.k, self.v, self.theta, self.table, self.start, place, stood, self.pairs, self.factors, scratch,
            self.zx, self.overlap, y, self.groups, self.size, **self.run.clip, KEEP=keep, **self.run.forward,
        )  # fmt: skip

    def room(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Empty memory per chunk (or for one chunk after the other), sample and head."""
        return self.start.new_empty(self.rooms, self.groups, *shape, dtype=dtype)

    def hidden(self, dtype: torch.dtype) -> Tensor:
        """Room for a number per slot and hidden unit; for one where there is no hidden layer."""
        dims = self.run.dims
        return self.room(dims.C, max((dims.L.value - 1) * dims.HID, 1), dtype=dtype)


class _GroupBackward:
    """Gradients of a group: of its readings at once, then, by `walk`, chunk by chunk.

    Between the two `d_pairs` [g + 1, G, 2, P] may be added to: the gradients of the states before the chunks and after
    them.
    """

    def __init__(self, group: _Group, d_y: Tensor, d_surprise: Tensor, d_pair: Tensor) -> None:
        self.group, self.d_surprise = group, d_surprise.contiguous()
        self.d_pairs = torch.empty_like(group.pairs)
        self.d_pairs[-1] = d_pair
        d_q, d_k, d_last = (torch.empty_like(x, dtype=d_pair.dtype) for x in (group.q, group.k, group.v))
        d_hidden = [torch.empty_like(group.factors.z) for _ in range(3)]
        self.d_q, self.gradients = d_q, FactorGradients(d_k, d_hidden[0], d_hidden[1], d_last)
        self.d_step, self.d_start = torch.empty_like(group.theta), torch.zeros_like(group.start)
        self.d_table = GateTable(*(torch.empty_like(x) for x in group.table))
        read_backward[(group.groups, group.size)](
            group.q, group.k, group.table, group.pairs, group.factors, group.zx, group.overlap, d_y.contiguous(),
            d_hidden[2], torch.empty_like(group.table.written), d_q, self.gradients, self.d_pairs, self.d_table,
            self.d_step, group.groups, **group.run.backward,
        )  # fmt: skip

    def walk(self) -> tuple[Tensor, ...]:
        """Gradients of q, k, v, alpha, eta and theta; completes d_pairs, and d_start, that of the group's `start`."""
        group = self.group
        walk_backward[(group.groups,)](
            group.k,
            group.table,
            group.start,
            group.pairs,
            group.factors,
            self.d_surprise,
            self.d_pairs,
            self.d_start,
            self.gradients,
            self.d_step,
            self.d_table,
            group.groups,
            group.size,
            tiny=torch.finfo(group.theta.dtype).tiny,
            **group.run.clip,
            **group.run.backward,
        )
        d_alpha, d_eta = group.gates.backward(self.d_table)
        return self.d_q, self.gradients.k, -self.gradients.last, d_alpha, d_eta, self.d_step


def group_size(chunks: int) -> int:
    """max(sqrt(N), 16), also of an N that torch.compile leaves open: `math` would compile a graph for every N."""
    return torch.sym_max(torch.sym_int(torch.sym_sqrt(torch.sym_float(chunks))), SMALLEST_GROUP)


def group_ranges(chunks: int) -> list[range]:
    """Chunks in groups of sqrt(N), so that all that is kept for backward grows like sqrt(N)."""
    size = group_size(chunks)
    return [range(first, min(first + size, chunks)) for first in range(0, chunks, size)]


def precision(tokens: torch.dtype) -> str:
    """How products are made; float64 is for the interpreter."""
    if tokens == torch.bfloat16:
        return "bf16 in float32" if triton.knobs.runtime.interpret else "bf16"
    return "ieee" if tokens == torch.float64 else "tf32x3"


def multiplies_from_shared(major: int) -> bool:
    """Whether a chip of compute capability `major` has products whose operands stand in shared memory: 12 has none
    again.
    """
    return 9 <= major < 12


def kernel_dims(
    K: int, V: int, hidden: int, depth: int, slots: int, precision: str, *, backward: bool, wgmma: bool
) -> tuple[Dims, dict[str, int]]:
    """What kernels are compiled for, and how they are launched. wgmma: see `multiplies_from_shared`.

    Tiles as large as leave no more than a few registers to spill (`benchmarks/compile.py`): operands of older chips
    stand in registers, and float32 needs three products, whose parts do too.
    """
    widths = (K, V, hidden) if depth > 1 else (K, V)
    rows, bfloat16 = max(triton.next_power_of_2(slots), 16), precision.startswith("bf16")
    full = rows >= 64
    if backward:
        largest, warps, stages = 32, 8 if full else 4, 1 if full and not bfloat16 else 2
    elif bfloat16:
        largest, warps, stages = 64 if wgmma == full else 32, 8, 1  # wgmma takes 64 slots
    else:
        largest, warps, stages = 16 if full else 32, 4, 1
    tile = min(max(triton.next_power_of_2(min(widths)), 16), largest)
    masked = rows != slots or any(width % tile for width in widths)
    numbers = K * hidden + (depth - 2) * hidden * hidden + hidden * V if depth > 1 else K * V
    acc = tl.float64 if precision == "ieee" else tl.float32
    constants = (tl.constexpr(x) for x in (depth, rows, min(rows, tile), tile, masked, precision, acc))
    return Dims(K, V, hidden, numbers, slots, *constants), {"num_warps": warps, "num_stages": stages}


def _place(current: Tensor, chunks: range) -> tuple[Tensor, Tensor]:
    """Whether streams [G] stand in one of the chunks [G, 1] and in which one of them [G]; chunk 0 starts where the call
    does.
    """
    here = (current >= max(chunks.start, 1)) & (current < chunks.stop)
    return here[:, None], (current - chunks.start).clamp(0, len(chunks))


def _slice(chunks: range) -> slice:
    return slice(chunks.start, chunks.stop)


def _part(x: Tensor | None, chunks: range) -> Tensor | None:
    return None if x is None else x[_slice(chunks)]
