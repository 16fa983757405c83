"""A gated norm through compiled C (`native/norm.c`), for float32 and float64 on a CPU: one operator forward, and one
backward that makes everything between anew.
"""

from typing import Any

import torch
from torch import Tensor

from titans_seq.kernels.native_library import Norm, no_second_derivative, run_pass


def native_norm(y: Tensor, weight: Tensor | None, gate: Tensor | None, eps: float) -> Tensor:
    """y / sqrt(mean(y^2) + eps) * weight * silu(gate), the mean over the last dimension of y. None: without it.

    gate: as many numbers as y has, in the same order.

    Numerics: all in the dtype of the arguments, float32 or float64. There is no second derivative.
    """
    if torch.autograd.forward_ad._current_level >= 0:  # the operator would pass on a tangent of zero
        raise RuntimeError('backend="native" has no forward-mode derivative; backend="reference" has')
    return norm_forward(y, weight, gate, eps)


@torch.library.custom_op("titans_seq::norm_forward", mutates_args=())
def norm_forward(y: Tensor, weight: Tensor | None, gate: Tensor | None, eps: float) -> Tensor:
    y, (weight, gate) = y.contiguous(), (None if x is None else x.contiguous() for x in (weight, gate))
    out = torch.empty_like(y)
    call = _call(y, weight, gate, eps)
    call.out = out.data_ptr()
    run_pass("forward", call, y)
    return out


@norm_forward.register_fake
def _(y, weight, gate, eps):
    return y.new_empty(y.shape)


@torch.library.custom_op("titans_seq::norm_backward", mutates_args=())
def norm_backward(
    d_out: Tensor, y: Tensor, weight: Tensor | None, gate: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of y, weight and gate; empty for None."""
    d_out, y = d_out.contiguous(), y.contiguous()
    weight, gate = (None if x is None else x.contiguous() for x in (weight, gate))
    d_y = torch.empty_like(y)
    d_weight, d_gate = (y.new_empty(0) if x is None else torch.empty_like(x) for x in (weight, gate))
    call = _call(y, weight, gate, eps)
    call.d_out, call.d_y = d_out.data_ptr(), d_y.data_ptr()
    call.d_w = None if weight is None else d_weight.data_ptr()
    call.d_g = None if gate is None else d_gate.data_ptr()
    run_pass("backward", call, y)
    return d_y, d_weight, d_gate


@norm_backward.register_fake
def _(d_out, y, weight, gate, eps):
    d_weight, d_gate = (y.new_empty(0 if x is None else x.shape) for x in (weight, gate))
    return y.new_empty(y.shape), d_weight, d_gate


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, d_out: Tensor) -> tuple[Any, ...]:
    y, weight, gate = ctx.saved_tensors
    d_y, d_weight, d_gate = norm_backward(d_out, y, weight, gate, ctx.eps)
    return d_y, None if weight is None else d_weight, None if gate is None else d_gate, None


norm_forward.register_autograd(_backward, setup_context=_setup)
norm_backward.register_autograd(no_second_derivative)


def _call(y: Tensor, weight: Tensor | None, gate: Tensor | None, eps: float) -> Norm:
    width = y.shape[-1]
    w, g = (None if x is None else x.data_ptr() for x in (weight, gate))
    return Norm(rows=y.numel() // width, width=width, eps=eps, y=y.data_ptr(), w=w, g=g)
