"""The memory operation: one signature, several backends.

Dimensions: B batch, T time, H heads, K key width, V value width, L depth of the memory MLP.
"""

import logging
from functools import cache

import torch
from torch import Tensor

from titans_seq.kernels.checks import check_arguments, check_constant, check_ranges, check_state
from titans_seq.kernels.chunked import chunked_memory
from titans_seq.kernels.reference import apply_mlp, reference_memory
from titans_seq.kernels.state import MemoryState

BACKENDS = ("auto", "reference", "chunked", "triton")

log = logging.getLogger("titans_seq")


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
    return_surprise: bool = False,
    backend: str = "auto",
    check: bool = False,
) -> tuple[Tensor, MemoryState] | tuple[Tensor, MemoryState, Tensor]:
    """Write T tokens into the memory and read it after each of them.

        u_t = grad_W ||M(k_t) - v_t||^2      at the weights at the START of t's chunk (no 1/2, sum over V)
        S_t = eta_t S_{t-1} - theta_t u_t
        M_t = (1 - alpha_t) M_{t-1} + S_t
        y_t = M_t(q_t),                      M(x) = W_L silu(W_{L-1} ... silu(W_1 x))

    Args:
        q, k: [B, T, H, K]. v: [B, T, H, V]. One floating dtype, one device.
        alpha, eta: [B, T, H] in [0, 1]; alpha = 1 erases M (not S). theta: [B, T, H] >= 0.
        state: where to go on from; `MemoryState.from_weights(weights)` starts anew. Carrying the state over any cut of a
            sequence, inside a chunk too, gives the outputs and the final state of one call.
        chunk_size: tokens that share a gradient point; 1 is the online recurrence of eq. 13-14.
        max_surprise: None is the paper; else theta_t is multiplied by min(1, max_surprise / ||u_t||), with its gradient.
        mask: boolean [B, T], True = real token. A masked token writes nothing, takes no place in a chunk, and has
            y = 0 and surprise 0.
        gate_per: "token", or "chunk": alpha and eta are promised to be the same for all tokens of a chunk in this call
            (`check` looks), and backends may use it; their gradients then stand at each chunk's first real token.
        return_surprise: add ||u_t|| [B, T, H], before theta and before any clip.
        backend: "reference" (token by token, the definition), "chunked" (matrix products, any device), "triton" (CUDA
            only; raises where it cannot run), "auto" (the fastest that runs here).
        check: also check value ranges (`reference` always does); this reads values and so waits for the device.

    Returns:
        y [B, T, H, V] in the dtype of v, the state after the last token, and the surprise if asked for.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, a state of another depth or chunk size, ranges as above.
        RuntimeError: backend="triton" where it cannot run.

    Numerics: everything is computed in float32 (float64 for float64 tokens), also under autocast; gradients are closed
    forms, so grad mode, `no_grad` and `inference_mode` give the same outputs. "chunked" has a backward by hand: it needs
    about 3.25 sqrt(T / C) states, makes the rest anew, and has no second derivative ("reference" has). Squares of the
    inner gradient's factors are summed in that precision: tokens and weights must stay far from the square root of its largest number (1e18 in float32). A mask
    or a carried state is read to place the tokens in chunks, so only calls without both never wait for the device.

    Source: Titans (arXiv 2501.00663v1), eq. 11-16, 18. Deviation: eq. 16 prints t' = t for t a multiple of the chunk;
    each token here uses the last chunk boundary strictly before it.
    """
    check_arguments(q, k, v, alpha, eta, theta, state, chunk_size, max_surprise, mask, gate_per)
    backend = resolve_backend(backend, q.device)
    if check or backend == "reference":
        check_ranges(alpha, eta, theta, state, chunk_size, mask)
        if gate_per == "chunk":
            check_constant(alpha, eta, state, chunk_size, mask)
    dtype = torch.promote_types(q.dtype, torch.float32)
    out_dtype = v.dtype
    q, k, v, alpha, eta, theta = (x.to(dtype) for x in (q, k, v, alpha, eta, theta))
    with torch.autocast(q.device.type, enabled=False):
        if backend == "reference":
            mask = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if mask is None else mask
            y, state, surprise = reference_memory(q, k, v, alpha, eta, theta, state, chunk_size, max_surprise, mask)
        else:
            y, state, surprise = chunked_memory(
                q, k, v, alpha, eta, theta, state, chunk_size, max_surprise, mask, gate_per
            )
    y = y.to(out_dtype)
    return (y, state, surprise) if return_surprise else (y, state)


def read_memory(q: Tensor, state: MemoryState) -> Tensor:
    """M*(q): read without writing (eq. 15). q [B, T, H, K] -> [B, T, H, V], in the dtype of q."""
    if q.ndim != 4:
        raise ValueError(f"q must be [B, T, H, K]; got {tuple(q.shape)}")
    check_state(state, q, None)
    with torch.autocast(q.device.type, enabled=False):
        y = apply_mlp(state.weights, q.transpose(1, 2).to(state.weights[0].dtype))
    return y.transpose(1, 2).to(q.dtype)


def resolve_backend(backend: str, device: torch.device) -> str:
    """The backend that runs for `backend` on `device`; "auto" never raises, "triton" never falls back."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "triton":
        raise RuntimeError('backend="triton" has no kernel in this version; backend="auto" takes the PyTorch form')
    if backend == "auto":
        if device.type == "cuda":
            _say_once("no Triton kernel in this version: backend auto takes chunked on CUDA")
        return "chunked"
    return backend


@cache
def _say_once(message: str) -> None:
    log.info(message)
