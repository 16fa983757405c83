"""The memory operation: one signature, several backends.

Dimensions: B batch, T time, H heads, K key width, V value width, L depth of the memory MLP.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from titans_seq.kernels.checks import (
    check_arguments,
    check_constant,
    check_finite,
    check_floating,
    check_ranges,
    check_state,
)
from titans_seq.kernels.native_memory import native_memory
from titans_seq.kernels.reference import apply_mlp, reference_memory
from titans_seq.kernels.state import MemoryState
from titans_seq.kernels.support import Case, machine_of, resolve_backend


def neural_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    eta: Tensor,
    theta: Tensor,
    state: MemoryState,
    *,
    chunk_size: int = 64,
    max_surprise: float | None = None,
    mask: Tensor | None = None,
    gate_per: str = "token",
    return_state: bool = True,
    return_surprise: bool = False,
    backend: str = "auto",
    check: bool = False,
) -> Any:  # what is returned depends on two flags
    """Write T tokens into the memory and read it after each of them.

        u_t = grad_W ||M(k_t) - v_t||^2      at the weights at the START of t's chunk (no 1/2, sum over V)
        S_t = eta_t S_{t-1} - theta_t u_t
        M_t = (1 - alpha_t) M_{t-1} + S_t
        y_t = M_t(q_t),                      M(x) = W_L silu(W_{L-1} ... silu(W_1 x))

    Args:
        q, k: [B, T, H, K]. v: [B, T, H, V]. One floating dtype, one device.
        alpha, eta: [B, T, H] in [0, 1]; alpha = 1 erases M (not S). theta: [B, T, H] >= 0.
        state: where to go on from; `MemoryState.from_weights(weights)` starts anew. Carrying the state over any cut of
            a sequence, inside a chunk too, gives the outputs and the final state of one call.
        chunk_size: tokens that share a gradient point; 1 is the online recurrence of eq. 13-14.
        max_surprise: None is the paper; else theta_t is multiplied by min(1, max_surprise / ||u_t||), with its
            gradient.
        mask: boolean [B, T], True = real token. A masked token writes nothing, takes no place in a chunk, and has
            y = 0 and surprise 0.
        gate_per: "token", or "chunk": alpha and eta are promised to be the same for all tokens of a chunk in this call
            (`check` looks), and backends may use it; their gradients then stand at each chunk's first real token.
        return_state: False leaves the state out, which `native` then need not write.
        return_surprise: add ||u_t|| [B, T, H], before theta and before any clip.
        backend: "reference" (token by token, the definition), "chunked" (matrix products, any device), "native"
            (compiled C for CPUs), "triton" (kernels for CUDA); these two raise where they cannot run. "auto" takes
            native on a CPU and triton on CUDA for the cases they cover, else chunked.
        check: also check values: finite tokens, gates in their ranges (`reference` always does). This reads values and
            so waits for the device; without it gates out of range give numbers that mean nothing.

    Returns:
        y [B, T, H, V] in the dtype of v, then the state after the last token, then the surprise if asked for; y alone
        if neither is.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, a state of another depth or chunk size, ranges as above.
        RuntimeError: backend="native" or "triton" where it cannot run, or for a case it does not cover.

    Numerics: everything is computed in float32 (float64 for float64 tokens), also under autocast; "triton" rounds both
    sides of a product of bfloat16 tokens to bfloat16 and keeps sums and state in float32. Gradients are closed forms,
    so grad mode, `no_grad` and `inference_mode` give the same outputs. All but "reference" have a backward by hand:
    its memory grows like sqrt(T / C) states (formulas stand with them), and there is no second derivative ("reference"
    has one). Squares of the inner gradient's factors are summed in that precision. A factor of layer l is about as
    large as 2 ||M(k) - v|| times the weights of the layers above l; its norm must stay below the square root of the
    largest number (1.8e19 in float32): beyond, the surprise is infinite, and `max_surprise` makes the step 0. A layer
    sees to that by clipping v (see `NeuralMemory`). A token that is not finite, or whose factors are not, makes its
    whole chunk and all after it NaN in all but "reference", tokens before it in the chunk included.
    "chunked" reads a mask or a carried state to place the tokens in chunks, and so waits for the device; "triton" never
    does.

    Source: Titans (arXiv 2501.00663v1), eq. 11-16, 18. Deviation: eq. 16 prints t' = t for t a multiple of the chunk;
    each token here uses the last chunk boundary strictly before it.
    """
    check_arguments(q, k, v, alpha, eta, theta, state, chunk_size, max_surprise, mask, gate_per)
    chunk_size, max_surprise = int(chunk_size), None if max_surprise is None else float(max_surprise)  # NumPy's too
    backend = resolve_backend(backend, machine_of(q.device.type, q.device.index), Case.of(q, state, chunk_size))
    if check or backend == "reference":
        check_finite(q, k, v, mask)
        check_ranges(alpha, eta, theta, state, chunk_size, mask)
        if gate_per == "chunk":
            check_constant(alpha, eta, state, chunk_size, mask)
    dtype, out_dtype = torch.promote_types(q.dtype, torch.float32), v.dtype
    alpha, eta, theta = (x.to(dtype) for x in (alpha, eta, theta))
    if not (backend == "triton" and q.dtype == torch.bfloat16):
        q, k, v = (x.to(dtype) for x in (q, k, v))
    with torch.autocast(q.device.type, enabled=False):
        if backend == "reference":
            mask = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if mask is None else mask
            y, state, surprise = reference_memory(q, k, v, alpha, eta, theta, state, chunk_size, max_surprise, mask)
        elif q.shape[0] == 0 or q.shape[1] == 0 or q.shape[2] == 0:
            y, surprise = torch.zeros_like(v), torch.zeros_like(alpha)
            state = replace(state, chunk_size=chunk_size)
        else:
            given = (q, k, v, alpha, eta, theta, state, chunk_size, max_surprise, mask, gate_per)
            if backend == "native":
                y, state, surprise = native_memory(*given, return_state)
            else:
                y, state, surprise = (_fused if backend == "triton" else _chunked)(*given)
    results = (y.to(out_dtype), *([state] if return_state else []), *([surprise] if return_surprise else []))
    return results if len(results) > 1 else results[0]


def _chunked(*arguments: Any) -> tuple[Tensor, MemoryState, Tensor]:
    from titans_seq.kernels.untraced import chunked_memory

    return chunked_memory(*arguments)


def _fused(*arguments: Any) -> tuple[Tensor, MemoryState, Tensor]:
    from titans_seq.kernels.fused import fused_memory

    return fused_memory(*arguments)


def read_memory(q: Tensor, state: MemoryState) -> Tensor:
    """M*(q): read without writing (eq. 15). q [B, T, H, K] -> [B, T, H, V], in the dtype of q."""
    check_floating("q", q)
    if q.ndim != 4:
        raise ValueError(f"q must be [B, T, H, K]; got {tuple(q.shape)}")
    check_state(state, q, None)
    with torch.autocast(q.device.type, enabled=False):
        y = apply_mlp(state.weights, q.transpose(1, 2).to(state.weights[0].dtype))
    return y.transpose(1, 2).to(q.dtype)
