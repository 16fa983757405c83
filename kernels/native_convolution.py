"""From a projection to the tokens of the memory through compiled C (`native/convolution.c`), for float32 and float64 on
a CPU: one operator forward, and one backward that makes everything between anew.

Dimensions: B batch, T time, R taps, Z = R - 1 + T, P parts, H heads, K width of a head, W = P H K.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from titans_seq.kernels.native_library import Convolution, Tokens, no_second_derivative, run_pass


def native_convolution(z: Tensor, taps: Tensor, parts: int, heads: int, unit: int, loudest: float) -> list[Tensor]:
    """P tensors [B, T, H, K] from z [B, Z, W] and taps [R, W]: silu of the convolution, heads of length 1 in the first
    `unit` parts, clipped at +-loudest in the others.

    Numerics: all in the dtype of z and taps, float32 or float64. There is no second derivative.
    """
    if torch.autograd.forward_ad._current_level >= 0:  # the operator would pass on a tangent of zero
        raise RuntimeError('backend="native" has no forward-mode derivative; backend="reference" has')
    return convolution_forward(z, taps, parts, heads, unit, loudest)


@torch.library.custom_op("titans_seq::convolution_forward", mutates_args=())
def convolution_forward(
    z: Tensor, taps: Tensor, parts: int, heads: int, unit: int, loudest: float
) -> list[Tensor]:  # fmt: skip
    z, taps = _with_rows(z), taps.contiguous()
    call = _call(z, taps, parts, heads, unit, loudest)
    results = [z.new_empty(call.batch, call.tokens, heads, call.width) for _ in range(parts)]
    call.part[:parts] = [_tokens(part) for part in results]
    run_pass("forward", call, z)
    return results


@convolution_forward.register_fake
def _(z, taps, parts, heads, unit, loudest):
    shape = (z.shape[0], z.shape[1] - taps.shape[0] + 1, heads, z.shape[2] // (parts * heads))
    return [z.new_empty(shape) for _ in range(parts)]


@torch.library.custom_op("titans_seq::convolution_backward", mutates_args=())
def convolution_backward(
    d_parts: Sequence[Tensor | None], z: Tensor, taps: Tensor, heads: int, unit: int, loudest: float
) -> tuple[Tensor, Tensor]:
    """Gradients of z and the taps. d_parts: None is zero."""
    z, taps = _with_rows(z), taps.contiguous()
    d_parts = [None if d is None else _with_rows(d) for d in d_parts]
    d_z, d_taps = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (z, taps))
    call = _call(z, taps, len(d_parts), heads, unit, loudest)
    call.part[: len(d_parts)] = [Tokens() if d is None else _tokens(d) for d in d_parts]
    call.d_z, call.d_tap = d_z.data_ptr(), d_taps.data_ptr()
    run_pass("backward", call, z)
    return d_z, d_taps


@convolution_backward.register_fake
def _(d_parts, z, taps, heads, unit, loudest):
    return z.new_empty(z.shape), taps.new_empty(taps.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    z, taps, _, *ctx.options = inputs
    ctx.save_for_backward(z, taps)
    ctx.set_materialize_grads(False)  # nothing for parts that nobody reads


def _backward(ctx: Any, d_parts: list[Tensor | None]) -> tuple[Any, ...]:
    d_z, d_taps = convolution_backward(d_parts, *ctx.saved_tensors, *ctx.options)
    return d_z, d_taps, None, None, None, None


convolution_forward.register_autograd(_backward, setup_context=_setup)
convolution_backward.register_autograd(no_second_derivative)


def _call(z: Tensor, taps: Tensor, parts: int, heads: int, unit: int, loudest: float) -> Convolution:
    (batch, rows, width), size = z.shape, len(taps)
    return Convolution(
        batch=batch, tokens=rows - size + 1, taps=size, parts=parts, heads=heads, width=width // (parts * heads),
        unit=unit, loudest=loudest, batch_stride=z.stride(0), row_stride=z.stride(1), z=z.data_ptr(),
        tap=taps.data_ptr(),
    )  # fmt: skip


def _with_rows(x: Tensor) -> Tensor:
    """x, its last dimension contiguous."""
    return x if x.stride(-1) == 1 or x.shape[-1] <= 1 else x.contiguous()


def _tokens(x: Tensor) -> Tokens:
    return Tokens(x.data_ptr(), *x.stride()[:3])
