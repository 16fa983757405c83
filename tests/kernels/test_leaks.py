"""No future, no neighbour, and the same numbers in all three grad modes."""

import pytest
import torch
from memory_oracle import random_problem

from titans_seq.kernels import MemoryState, neural_memory, read_memory

BACKENDS = ["reference", "chunked", "native"]
NAMES = ["q", "k", "v", "alpha", "eta", "theta"]


def run(tensors, problem, backend, **options):
    own = MemoryState(
        *(getattr(problem.state, f) for f in ("weights", "momentum", "chunk_start", "position")), problem.chunk_size
    )
    return neural_memory(*tensors, own, **problem.options(), return_surprise=True, backend=backend)


def perturbed(tensors, index, where):
    tensors = [x.clone() for x in tensors]
    tensors[index][where] = tensors[index][where] * 0.9 + 0.05
    return tensors


@pytest.mark.parametrize("max_surprise", [None, 1.0], ids=["plain", "clipped"])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_causality_matrix(backend, depth, max_surprise):
    """Which outputs change when one input of a token does: none before it, always its own, later ones unless q."""
    T = 10
    problem = random_problem(depth=depth, chunk_size=4, T=T, max_surprise=max_surprise)
    with torch.no_grad():
        y, _, surprise = run(problem.tensors, problem, backend)
        for index, name in enumerate(NAMES):
            for t in range(T):
                y2, _, surprise2 = run(perturbed(problem.tensors, index, (slice(None), t)), problem, backend)
                changed = (y2 != y).flatten(2).any(-1).all(0)  # [T]; in every sample
                untouched = (y2 == y).flatten(2).all(-1).all(0)
                assert untouched[:t].all(), f"{name} of token {t} reaches an earlier output"
                assert torch.equal(surprise2[:, :t], surprise[:, :t]), (
                    f"{name} of token {t} reaches an earlier surprise"
                )
                assert changed[t], f"{name} of token {t} does not reach its own output"
                later = untouched if name == "q" else changed
                assert later[t + 1 :].all(), f"{name} of token {t}: wrong later outputs"


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_and_heads_are_independent(backend):
    problem = random_problem(depth=2, chunk_size=4, T=9, B=3, H=2, positions=(1, 2, 3), max_surprise=1.0)
    with torch.no_grad():
        y, state, surprise = run(problem.tensors, problem, backend)
        for index in range(6):
            for b, h in [(0, 1), (2, 0)]:
                y2, state2, surprise2 = run(perturbed(problem.tensors, index, (b, slice(None), h)), problem, backend)
                others = torch.ones(3, 2, dtype=torch.bool)
                others[b, h] = False
                assert torch.equal(y2.transpose(1, 2)[others], y.transpose(1, 2)[others])
                assert torch.equal(surprise2.transpose(1, 2)[others], surprise.transpose(1, 2)[others])
                assert not torch.equal(y2[b, :, h], y[b, :, h])
                for field in ("weights", "momentum", "chunk_start"):
                    for w, w2 in zip(getattr(state, field), getattr(state2, field), strict=True):
                        assert torch.equal(w2[others], w[others]), field


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_samples_mask_changes_nothing(backend):
    problem = random_problem(depth=2, chunk_size=4, T=9, B=2)
    results = []
    for dropped in (None, 2, slice(3, 9), slice(0, 9)):
        mask = torch.ones(2, 9, dtype=torch.bool)
        if dropped is not None:
            mask[1, dropped] = False
        own = MemoryState.from_weights(problem.state.weights)
        y, state = neural_memory(*problem.tensors, own, chunk_size=4, mask=mask, backend=backend)
        results.append([y[0], *(w[0] for w in state.weights)])
    for other in results[1:]:
        assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_three_grad_modes_agree(backend, depth):
    problem = random_problem(depth=depth, chunk_size=4, T=10, max_surprise=2.0)

    def everything():
        tensors = [x.clone() for x in problem.tensors]
        own = MemoryState.from_weights(tuple(w.clone() for w in problem.state.weights))
        y, own, surprise = neural_memory(*tensors, own, **problem.options(), return_surprise=True, backend=backend)
        more, own = neural_memory(*tensors, own, **problem.options(), backend=backend)
        return [y, surprise, more, read_memory(tensors[0], own), *own.weights, *own.momentum]

    with torch.enable_grad():
        for x in (*problem.tensors, *problem.state.weights):
            x.requires_grad_()
        trained = everything()
    assert trained[0].requires_grad
    with torch.no_grad():
        frozen = everything()
    with torch.inference_mode():
        inferred = everything()
    for a, b, c in zip(trained, frozen, inferred, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
