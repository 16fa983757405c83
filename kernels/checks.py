"""What the memory operation demands of its arguments; every failure is one ValueError that names argument and value."""

from numbers import Real

import torch
from torch import Tensor

from titans_seq.kernels.slots import Slots
from titans_seq.kernels.state import MemoryState, whole_number

GATE_PER = ("token", "chunk")
LARGEST_BOUND = 1e30  # of max_surprise: a float32, and far beyond any surprise one can hold
FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_arguments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    eta: Tensor,
    theta: Tensor,
    state: MemoryState,
    chunk_size: int,
    max_surprise: float | None,
    mask: Tensor | None,
    gate_per: str,
) -> None:
    """Shapes, dtypes and devices: everything that can be known without reading a value."""
    check_tokens(q, k, v)
    check_gate_per(gate_per)
    for name, gate in (("alpha", alpha), ("eta", eta), ("theta", theta)):
        _check_shape(name, gate, tuple(q.shape[:3]), "[B, T, H]")
        _check_kind(name, gate, q)
    whole_number("chunk_size", chunk_size, 1)
    check_max_surprise(max_surprise)
    if mask is not None:
        _check_shape("mask", mask, tuple(q.shape[:2]), "[B, T]")
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be boolean; got {mask.dtype}")
        _check_device("mask", mask, q)
    check_state(state, q, v.shape[-1])
    if state.chunk_size not in (None, chunk_size):
        raise ValueError(f"state was made with chunk_size {state.chunk_size}; got chunk_size {chunk_size}")


def check_gate_per(gate_per: str) -> None:
    if gate_per not in GATE_PER:
        raise ValueError(f"gate_per must be one of {', '.join(GATE_PER)}; got {gate_per!r}")


def check_max_surprise(max_surprise: float | None) -> None:
    number = isinstance(max_surprise, Real) and not isinstance(max_surprise, bool)
    if max_surprise is not None and not (number and 0 < max_surprise < LARGEST_BOUND):
        raise ValueError(f"max_surprise must be a number in (0, {LARGEST_BOUND:.0e}) or None; got {max_surprise!r}")


def check_tokens(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, value in (("q", q), ("k", k), ("v", v)):
        _check_tensor(name, value)
    if q.ndim != 4:
        raise ValueError(f"q must be [B, T, H, K]; got {tuple(q.shape)}")
    if k.shape != q.shape:
        raise ValueError(f"q and k must agree on [B, T, H, K]; got q {tuple(q.shape)} and k {tuple(k.shape)}")
    if v.ndim != 4 or v.shape[:3] != k.shape[:3]:
        raise ValueError(f"k and v must agree on [B, T, H]; got k {tuple(k.shape)} and v {tuple(v.shape)}")
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        check_floating(name, tensor)
        _check_kind(name, tensor, q)


def check_state(state: MemoryState, q: Tensor, value_width: int | None) -> None:
    """The layers must chain from K to V for every sample and head. `value_width` None: any V."""
    if not isinstance(state, MemoryState):
        raise ValueError(f"state must be a MemoryState (see MemoryState.from_weights); got {type(state).__name__}")
    batch, heads, width = q.shape[0], q.shape[2], q.shape[3]
    depths = (len(state.weights), len(state.momentum), len(state.chunk_start))
    if len(set(depths)) != 1 or depths[0] == 0:
        raise ValueError(f"state must hold weights, momentum and chunk_start of one depth >= 1; got depths {depths}")
    wide = torch.promote_types(q.dtype, torch.float32)
    for layer, tensors in enumerate(zip(state.weights, state.momentum, state.chunk_start, strict=True)):
        out = tensors[0].shape[2] if tensors[0].ndim == 4 else -1
        last = layer == depths[0] - 1
        if last and value_width is not None:
            out = value_width
        for name, tensor in zip(("weights", "momentum", "chunk_start"), tensors, strict=True):
            where = f"state.{name}[{layer}]"
            _check_shape(where, tensor, (batch, heads, out, width), "[B, H, out, in]")
            _check_device(where, tensor, q)
            if tensor.dtype != wide:
                raise ValueError(f"{where} must be {wide} beside tokens of {q.dtype}; got {tensor.dtype}")
        width = out
    _check_shape("state.position", state.position, (batch,), "[B]")
    if state.position.dtype != torch.int64:
        raise ValueError(f"state.position must be int64; got {state.position.dtype}")
    _check_device("state.position", state.position, q)


def check_finite(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    """No NaN or infinity at real tokens."""
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        wrong = ~tensor.isfinite()
        if mask is not None:
            wrong = wrong & mask[..., None, None]
        if wrong.any():
            raise ValueError(f"{name} must be finite; got {tensor[wrong][0].item()}")


def check_ranges(
    alpha: Tensor, eta: Tensor, theta: Tensor, state: MemoryState, chunk_size: int, mask: Tensor | None
) -> None:
    """Value ranges at real tokens. Reading values waits for the device, so only `reference` and `check=True` do it."""
    largest = torch.finfo(theta.dtype).max
    for name, gate, high, rule in (
        ("alpha", alpha, 1.0, "in [0, 1]"),
        ("eta", eta, 1.0, "in [0, 1]"),
        ("theta", theta, largest, "finite and >= 0"),
    ):
        wrong = ~((gate >= 0) & (gate <= high))  # also true for NaN
        if mask is not None:
            wrong = wrong & mask[..., None]
        if wrong.any():
            raise ValueError(f"{name} must be {rule}; got {gate[wrong][0].item()}")
    wrong = (state.position < 0) | (state.position >= chunk_size)
    if wrong.any():
        raise ValueError(f"state.position must be in [0, {chunk_size}); got {state.position[wrong][0].item()}")


def check_constant(alpha: Tensor, eta: Tensor, state: MemoryState, chunk_size: int, mask: Tensor | None) -> None:
    """Gates promised to be constant in each chunk, among the real tokens of a call."""
    if alpha.shape[1] == 0:
        return
    slots = Slots.plan(alpha, state, chunk_size, mask)
    real = slots.fill(torch.ones_like(alpha)) > 0  # [N, B, H, C]
    for name, gate in (("alpha", alpha), ("eta", eta)):
        filled = slots.fill(gate)
        first = slots.first(filled.flatten(1, 2)).view(real.shape[:-1])
        wrong = real & (filled != first[..., None])
        if wrong.any():
            raise ValueError(
                f'{name} must be the same for all tokens of a chunk with gate_per="chunk"; '
                f"got {first[..., None].expand_as(filled)[wrong][0].item()} and {filled[wrong][0].item()}"
            )


def check_floating(name: str, tensor: Tensor) -> None:
    _check_tensor(name, tensor)
    if tensor.dtype not in FLOATS:
        raise ValueError(f"{name} must be a floating tensor; got {tensor.dtype}")


def check_cache(name: str, cache: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    """What a state keeps of earlier inputs: of this shape, on the device of x, and no wider than x but under autocast,
    where layers cast what they are given.
    """
    _check_shape(name, cache, shape, "of this layer")
    _check_device(name, cache, x)
    check_floating(name, cache)
    narrow = torch.promote_types(cache.dtype, x.dtype) == x.dtype
    if not narrow and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"{name} must be {x.dtype} like x, or narrower; got {cache.dtype}")


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor; got {type(value).__name__}")


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...], legend: str) -> None:
    _check_tensor(name, tensor)
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be {legend} = {shape}; got {tuple(tensor.shape)}")


def _check_kind(name: str, tensor: Tensor, q: Tensor) -> None:
    if tensor.dtype != q.dtype:
        raise ValueError(f"{name} must have the dtype of q, {q.dtype}; got {tensor.dtype}")
    _check_device(name, tensor, q)


def _check_device(name: str, tensor: Tensor, q: Tensor) -> None:
    if tensor.device != q.device:
        raise ValueError(f"{name} must be on the device of q, {q.device}; got {tensor.device}")
