"""The memory operation one token at a time: the judge of every backend.

Written from the paper's equations alone (Titans, arXiv 2501.00663v1, eq. 12-15 and 18): the weights of every sample,
head and token are materialised, and the inner gradient is `torch.autograd.grad` of the printed loss. It shares no
formula with `titans_seq.kernels`, so that agreement means something. Everything is differentiable: gradients of the
operation come from autograd through this loop. Slow on purpose; use float64 and a few dozen tokens.

    B batch   T time   H heads   K key width   V value width   L depth
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OracleState:
    """The fields of `MemoryState`, without its class: L tensors [B, H, out, in] each, `position` int64 [B]."""

    weights: tuple[Tensor, ...]
    momentum: tuple[Tensor, ...]
    chunk_start: tuple[Tensor, ...]
    position: Tensor


def mlp(weights: list[Tensor] | tuple[Tensor, ...], x: Tensor) -> Tensor:
    """M(x) = W_L silu(... silu(W_1 x)); no bias, nothing after the last layer."""
    for i, weight in enumerate(weights):
        x = weight @ (torch.nn.functional.silu(x) if i else x)
    return x


def inner_gradient(weights: list[Tensor], k: Tensor, v: Tensor, create_graph: bool) -> tuple[Tensor, ...]:
    """grad_W || M(k) - v ||^2: the sum over V, no 1/2."""
    with torch.enable_grad():
        weights = [w if w.requires_grad else w.detach().requires_grad_() for w in weights]
        loss = (mlp(weights, k) - v).square().sum()
        return torch.autograd.grad(loss, weights, create_graph=create_graph)


def oracle_memory(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alpha: Tensor,
    eta: Tensor,
    theta: Tensor,
    state: OracleState,
    *,
    chunk_size: int,
    max_surprise: float | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, OracleState, Tensor]:
    """Outputs [B, T, H, V], final state, surprise [B, T, H]."""
    create_graph = torch.is_grad_enabled()
    B, T, H, _ = q.shape
    V = v.shape[-1]
    L = len(state.weights)
    real = torch.ones(B, T, dtype=torch.bool) if mask is None else mask
    y = [[[q.new_zeros(V) for _ in range(H)] for _ in range(T)] for _ in range(B)]
    surprise = [[[q.new_zeros(()) for _ in range(H)] for _ in range(T)] for _ in range(B)]
    final = [[[[field[i][b, h] for i in range(L)] for h in range(H)] for b in range(B)] for field in _fields(state)]
    positions = state.position.tolist()

    for b in range(B):
        for h in range(H):
            M, S, start = final[0][b][h], final[1][b][h], final[2][b][h]
            position = int(state.position[b])
            for t in range(T):
                if not real[b, t]:
                    continue
                if position == 0:
                    start = M
                u = inner_gradient(start, k[b, t, h], v[b, t, h], create_graph)
                norm = torch.linalg.vector_norm(torch.cat([part.flatten() for part in u]))
                step = theta[b, t, h]
                if max_surprise is not None and norm > max_surprise:
                    step = step * (max_surprise / norm)
                S = [eta[b, t, h] * s - step * part for s, part in zip(S, u, strict=True)]
                M = [(1 - alpha[b, t, h]) * m + s for m, s in zip(M, S, strict=True)]
                y[b][t][h] = mlp(M, q[b, t, h])
                surprise[b][t][h] = norm
                position = (position + 1) % chunk_size
            final[0][b][h], final[1][b][h] = M, S
            final[2][b][h] = M if position == 0 else start
            positions[b] = position

    stacked = [
        tuple(torch.stack([torch.stack([f[b][h][i] for h in range(H)]) for b in range(B)]) for i in range(L))
        for f in final
    ]
    outputs = (
        torch.stack([torch.stack([torch.stack(row) for row in sample]) for sample in y])
        if T
        else q.new_zeros(B, 0, H, V)
    )
    norms = (
        torch.stack([torch.stack([torch.stack(row) for row in sample]) for sample in surprise])
        if T
        else q.new_zeros(B, 0, H)
    )
    return outputs, OracleState(*stacked, position=torch.tensor(positions)), norms


def _fields(state: OracleState) -> tuple[tuple[Tensor, ...], ...]:
    return state.weights, state.momentum, state.chunk_start


@dataclass(frozen=True)
class Problem:
    """The inputs of one call: `tensors` in the order q, k, v, alpha, eta, theta."""

    tensors: tuple[Tensor, ...]
    state: OracleState
    chunk_size: int
    max_surprise: float | None = None
    mask: Tensor | None = None

    def options(self) -> dict[str, object]:
        return {"chunk_size": self.chunk_size, "max_surprise": self.max_surprise, "mask": self.mask}


def random_weights(
    depth: int, *, B: int, H: int, K: int, V: int, hidden: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    widths = [K] + [hidden] * (depth - 1) + [V]
    shapes = zip(widths[1:], widths[:-1], strict=True)
    return tuple(_randn(B, H, o, i, generator=generator) * 1.5 / i**0.5 for o, i in shapes)


def random_problem(
    *,
    depth: int = 2,
    chunk_size: int = 4,
    T: int = 9,
    B: int = 2,
    H: int = 2,
    K: int = 3,
    V: int = 4,
    hidden: int = 5,
    positions: tuple[int, ...] | None = None,
    max_surprise: float | None = None,
    mask: Tensor | None = None,
    seed: int = 0,
) -> Problem:
    """A seeded float64 problem. `positions` (one per sample, each > 0) starts it inside a chunk whose start differs
    from the current weights; without it the state stands at a chunk boundary. Momentum is never zero."""
    g = torch.Generator().manual_seed(seed)
    q, k = (torch.nn.functional.normalize(_randn(B, T, H, K, generator=g), dim=-1) for _ in range(2))
    v = _randn(B, T, H, V, generator=g)
    alpha, eta, theta = (torch.rand(B, T, H, dtype=torch.float64, generator=g) * top for top in (0.5, 1.0, 0.2))
    widths = {"B": B, "H": H, "K": K, "V": V, "hidden": hidden, "generator": g}
    weights = random_weights(depth, **widths)
    momentum = tuple(0.1 * w for w in random_weights(depth, **widths))
    start = (
        weights
        if positions is None
        else tuple(w + 0.3 * d for w, d in zip(weights, random_weights(depth, **widths), strict=True))
    )
    position = torch.tensor(positions or [0] * B)
    return Problem(
        (q, k, v, alpha, eta, theta), OracleState(weights, momentum, start, position), chunk_size, max_surprise, mask
    )


def _randn(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def gradients(run, problem: Problem, *, seed: int = 1) -> dict[str, Tensor]:
    """Gradients of a random linear functional of outputs, surprise and final state.

    `run(tensors, state)` returns (y, state, surprise). At a chunk boundary `chunk_start` is the weights themselves, so
    it is no input of its own there; inside a chunk it is.
    """
    names = ["q", "k", "v", "alpha", "eta", "theta"]
    leaves = dict(zip(names, (t.clone().requires_grad_() for t in problem.tensors), strict=True))
    state_leaves = {}
    for field in ("weights", "momentum", "chunk_start"):
        inside = field != "chunk_start" or bool((problem.state.position > 0).all())
        source = getattr(problem.state, field)
        state_leaves[field] = tuple(w.clone().requires_grad_() for w in source) if inside else state_leaves["weights"]
        if inside:
            leaves |= {f"{field}[{i}]": w for i, w in enumerate(state_leaves[field])}
    state = OracleState(**state_leaves, position=problem.state.position)
    y, final, surprise = run(tuple(leaves[n] for n in names), state)

    g = torch.Generator().manual_seed(seed)
    terms = [y, surprise, *final.weights, *final.momentum, *final.chunk_start]
    loss = sum((term * torch.randn(term.shape, dtype=torch.float64, generator=g)).sum() for term in terms)
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


@functools.cache
def exact_values(**description) -> tuple[Tensor, OracleState, Tensor]:
    """The oracle on `random_problem(**description)`; cached, since every backend is held against it."""
    problem = random_problem(**description)
    with torch.no_grad():
        return oracle_memory(*problem.tensors, problem.state, **problem.options())
