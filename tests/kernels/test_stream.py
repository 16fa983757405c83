"""Cuts and masks: a sequence in pieces, and padding anywhere, give what one clean call gives."""

import itertools

import pytest
import torch
from accuracy import assert_equal_to
from memory_oracle import OracleState, Problem, gradients, oracle_memory, random_problem

from titans_seq.kernels import MemoryState, neural_memory

BACKENDS = ["reference", "chunked", "native"]
FIELDS = ("weights", "momentum", "chunk_start")


def own_state(state, chunk_size):
    return MemoryState(state.weights, state.momentum, state.chunk_start, state.position, chunk_size)


def run(tensors, state, *, backend, chunk_size, max_surprise=None, mask=None):
    own = own_state(state, chunk_size)
    options = {"chunk_size": chunk_size, "max_surprise": max_surprise, "mask": mask}
    return neural_memory(*tensors, own, **options, return_surprise=True, backend=backend)


def in_pieces(problem, cuts, backend):
    """The call cut at `cuts`, the state carried; outputs joined."""
    T = problem.tensors[0].shape[1]
    state = own_state(problem.state, problem.chunk_size)
    outputs = []
    for begin, end in itertools.pairwise([0, *cuts, T]):
        mask = None if problem.mask is None else problem.mask[:, begin:end]
        options = problem.options() | {"mask": mask}
        piece = [x[:, begin:end] for x in problem.tensors]
        y, state, surprise = neural_memory(*piece, state, **options, return_surprise=True, backend=backend)
        outputs.append((y, surprise))
    y, surprise = (torch.cat(parts, dim=1) for parts in zip(*outputs, strict=True))
    return y, state, surprise


def assert_same(got, exact):
    assert_equal_to(got[0], exact[0], name="y")
    assert_equal_to(got[2], exact[2], name="surprise")
    assert torch.equal(got[1].position, exact[1].position)
    for field in FIELDS:
        for i, (a, b) in enumerate(zip(getattr(got[1], field), getattr(exact[1], field), strict=True)):
            assert_equal_to(a, b, name=f"final {field}[{i}]")


PATTERNS = {
    "before": ["000111111111", "011111111111"],
    "inside": ["111001111011", "101010101010"],
    "after": ["111111111000", "111110000000"],
    "everywhere": ["010011101010", "001111111100"],
    "one sample empty": ["000000000000", "111111111111"],
    "one token": ["000000010000", "100000000000"],
    "a chunk of padding": ["000011111111", "111100001111"],
    "all real": ["111111111111", "111111111111"],
    "all padding": ["000000000000", "000000000000"],
}


def mask_of(name):
    return torch.tensor([[c == "1" for c in row] for row in PATTERNS[name]])


@pytest.mark.parametrize("chunk_size", [1, 4, 16])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cut_at_every_position(backend, depth, chunk_size):
    T = 13
    problem = random_problem(depth=depth, chunk_size=chunk_size, T=T, max_surprise=2.0)
    with torch.no_grad():
        exact = oracle_memory(*problem.tensors, problem.state, **problem.options())
        for cut in range(T + 1):
            assert_same(in_pieces(problem, [cut], backend), exact)


CUTS = [[2, 5, 6], [3, 3, 3], [0, 0, 13, 13], [1, 2, 3, 9], [4, 8, 12], list(range(1, 13))]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_several_cuts_and_empty_pieces(backend, cuts):
    problem = random_problem(depth=3, chunk_size=4, T=13)
    with torch.no_grad():
        exact = oracle_memory(*problem.tensors, problem.state, **problem.options())
        assert_same(in_pieces(problem, cuts, backend), exact)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_through_cuts(backend):
    """Back-propagation through a carried state is back-propagation through one call."""
    problem = random_problem(depth=2, chunk_size=4, T=9, H=1, max_surprise=2.0)

    def cut(tensors, state):
        return in_pieces(Problem(tensors, state, 4, 2.0), [3, 3, 6], backend)

    exact = gradients(lambda x, s: oracle_memory(*x, s, **problem.options()), problem)
    got = gradients(cut, problem)
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=f"gradient of {name}")


@pytest.mark.parametrize("positions", [None, (1, 3)], ids=["boundary", "inside"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_masks(backend, pattern, positions):
    """A masked step skips both lines of the update; chunk positions count real tokens only; samples stand anywhere."""
    problem = random_problem(depth=2, chunk_size=4, T=12, positions=positions, mask=mask_of(pattern))
    with torch.no_grad():
        exact = oracle_memory(*problem.tensors, problem.state, **problem.options())
        got = run(problem.tensors, problem.state, backend=backend, **problem.options())
    assert_same(got, exact)
    assert (got[0][~problem.mask] == 0).all()
    assert (got[2][~problem.mask] == 0).all()


@pytest.mark.parametrize("pattern", ["before", "inside", "everywhere", "one sample empty"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_masked_sample_is_its_real_tokens_alone(backend, pattern):
    problem = random_problem(depth=2, chunk_size=4, T=12, mask=mask_of(pattern))
    with torch.no_grad():
        y, state, surprise = run(problem.tensors, problem.state, backend=backend, **problem.options())
        for b, real in enumerate(problem.mask):
            alone = [x[b : b + 1, real] for x in problem.tensors]
            start = OracleState(
                *(tuple(w[b : b + 1] for w in getattr(problem.state, f)) for f in FIELDS), torch.tensor([0])
            )
            y1, state1, surprise1 = run(alone, start, backend=backend, chunk_size=4)
            assert_equal_to(y[b : b + 1, real], y1, name="y")
            assert_equal_to(surprise[b : b + 1, real], surprise1, name="surprise")
            assert state.position[b] == state1.position[0]
            for field in FIELDS:
                for w, w1 in zip(getattr(state, field), getattr(state1, field), strict=True):
                    assert_equal_to(w[b : b + 1], w1, name=field)


@pytest.mark.parametrize("pattern", ["before", "inside", "everywhere", "one sample empty"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_under_a_mask(backend, pattern):
    problem = random_problem(
        depth=2, chunk_size=4, T=12, H=1, positions=(1, 3), max_surprise=2.0, mask=mask_of(pattern)
    )
    exact = gradients(lambda x, s: oracle_memory(*x, s, **problem.options()), problem)
    got = gradients(lambda x, s: run(x, s, backend=backend, **problem.options()), problem)
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=f"gradient of {name}")
    for name in ("q", "k", "v", "alpha", "eta", "theta"):
        assert (got[name][~problem.mask] == 0).all(), f"padding has a gradient: {name}"


@pytest.mark.parametrize("pattern", ["everywhere", "a chunk of padding"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_sequences_cut_at_every_position(backend, pattern):
    """After the first piece the samples stand at different places of their chunks."""
    problem = random_problem(depth=2, chunk_size=3, T=12, positions=(2, 1), mask=mask_of(pattern))
    with torch.no_grad():
        exact = oracle_memory(*problem.tensors, problem.state, **problem.options())
        for cut in range(13):
            assert_same(in_pieces(problem, [cut], backend), exact)


@pytest.mark.parametrize("poison", [1e4, float("nan")], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_padding_holds_does_not_matter(backend, poison):
    problem = random_problem(depth=2, chunk_size=4, T=12, mask=mask_of("everywhere"))
    dirty = [x.clone() for x in problem.tensors]
    for x in dirty[:3]:
        x[~problem.mask] = poison
    clean = run(problem.tensors, problem.state, backend=backend, **problem.options())
    assert_same(run(dirty, problem.state, backend=backend, **problem.options()), clean)
