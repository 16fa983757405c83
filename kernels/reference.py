"""The memory, token by token: the definition that every other backend is held to.

    u_t = grad_W ||M(k_t) - v_t||^2 at the weights at the start of t's chunk
    S_t = eta_t S_{t-1} - theta_t min(1, max_surprise / ||u_t||) u_t
    M_t = (1 - alpha_t) M_{t-1} + S_t
    y_t = M_t(q_t),     M(x) = W_L silu(W_{L-1} ... silu(W_1 x))

Dimensions: B batch, T time, H heads, K key width, V value width, L depth.
Source: Titans (arXiv 2501.00663v1), eq. 12-16 and 18. Slow, and with a graph of T copies of the weights: for tests.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from titans_seq.kernels.state import MemoryState, Weights


def reference_memory(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    alpha: Float[Tensor, "B T H"],
    eta: Float[Tensor, "B T H"],
    theta: Float[Tensor, "B T H"],
    state: MemoryState,
    chunk_size: int,
    max_surprise: float | None,
    mask: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, "B T H V"], MemoryState, Float[Tensor, "B T H"]]:
    """Outputs, final state and surprise `||u_t||`; a masked token changes nothing and gives y = 0, surprise = 0."""
    weights, momentum, start, position = state.weights, state.momentum, state.chunk_start, state.position
    outputs, surprises = [], []
    for t in range(q.shape[1]):
        real = mask[:, t, None]  # [B, 1], against [B, H]
        gradient = inner_gradient(start, k[:, t], v[:, t])  # u_t of eq. 18
        surprise = torch.linalg.vector_norm(torch.cat([u.flatten(2) for u in gradient], dim=-1), dim=-1)
        step = theta[:, t] * surprise_scale(surprise, max_surprise)
        # eq. 14 and 18, then eq. 13
        pushed = tuple(_per_head(eta[:, t]) * s - _per_head(step) * u for s, u in zip(momentum, gradient, strict=True))
        moved = tuple(_per_head(1 - alpha[:, t]) * w + s for w, s in zip(weights, pushed, strict=True))
        momentum = _where(real, pushed, momentum)
        weights = _where(real, moved, weights)
        outputs.append(torch.where(real[..., None], apply_mlp(weights, q[:, t, :, None])[..., 0, :], 0.0))  # eq. 15
        surprises.append(torch.where(real, surprise, 0.0))
        position = position + mask[:, t]
        start = _where((position == chunk_size)[:, None], weights, start)
        position = position % chunk_size
    y = torch.stack(outputs, dim=1) if outputs else torch.zeros_like(v)
    surprise = torch.stack(surprises, dim=1) if surprises else torch.zeros_like(alpha)
    return y, MemoryState(weights, momentum, start, position, chunk_size), surprise


def apply_mlp(weights: Weights, x: Float[Tensor, "B H C K"]) -> Float[Tensor, "B H C V"]:
    """M(x) with one set of weights per sample and head."""
    for w in weights[:-1]:
        x = F.silu(x @ w.mT)
    return x @ weights[-1].mT


def inner_gradient(weights: Weights, k: Float[Tensor, "B H K"], v: Float[Tensor, "B H V"]) -> Weights:
    """grad_W ||M(k) - v||^2, layer by layer, in closed form: autograd is off under `torch.inference_mode`."""
    inputs, slopes = [k], []
    for w in weights[:-1]:
        z = torch.einsum("bhoi,bhi->bho", w, inputs[-1])
        inputs.append(F.silu(z))
        slopes.append(silu_slope(z))
    delta = 2 * (torch.einsum("bhoi,bhi->bho", weights[-1], inputs[-1]) - v)  # of eq. 12
    gradient = [torch.einsum("bho,bhi->bhoi", delta, inputs[-1])]
    for w, h, slope in zip(weights[:0:-1], inputs[-2::-1], slopes[::-1], strict=True):
        delta = torch.einsum("bhoi,bho->bhi", w, delta) * slope
        gradient.append(torch.einsum("bho,bhi->bhoi", delta, h))
    return tuple(gradient[::-1])


def silu_slope(z: Tensor) -> Tensor:
    """d silu(z) / dz."""
    gate = torch.sigmoid(z)
    return gate * (1 + z * (1 - gate))


def surprise_scale(surprise: Tensor, max_surprise: float | None) -> Tensor | float:
    """min(1, max_surprise / surprise), written so that a surprise of 0 has a gradient of 0 and not NaN."""
    return 1.0 if max_surprise is None else max_surprise / surprise.clamp_min(max_surprise)


def _per_head(gate: Float[Tensor, "B H"]) -> Float[Tensor, "B H 1 1"]:
    return gate[..., None, None]


def _where(condition: Bool[Tensor, "B 1"], new: Weights, old: Weights) -> Weights:
    return tuple(torch.where(condition[..., None, None], n, o) for n, o in zip(new, old, strict=True))
