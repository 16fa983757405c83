"""The operation against the per-token oracle. The traps of DESIGN section 3 are the table of contents:

values, final state, gradients        test_exact.py
gates exactly 0 and 1                 test_exact.py
products of many small factors        test_precision.py
alpha = 1 erases M, not S             test_exact.py
zero weights absorb (L >= 2)          test_exact.py
grad, no_grad, inference_mode         test_leaks.py
lengths 0, 1, C-1, C, C+1, a prime    test_exact.py
no future, no neighbour               test_leaks.py
masks                                 test_stream.py
cuts and carried state                test_stream.py, test_state.py
surprise                              test_exact.py
"""

import pytest
import torch
from accuracy import assert_equal_to
from memory_oracle import OracleState, exact_values, gradients, mlp, oracle_memory, random_problem

from titans_seq.kernels import MemoryState, neural_memory, read_memory

BACKENDS = ["reference", "chunked", "native"]


def run(tensors, state, *, backend, **options):
    """`neural_memory` with the oracle's states at both ends."""
    own = MemoryState(state.weights, state.momentum, state.chunk_start, state.position, options["chunk_size"])
    y, own, surprise = neural_memory(*tensors, own, **options, return_surprise=True, backend=backend)
    return y, own, surprise


def assert_same(got, exact):
    for (y, state, surprise), name in [(got, "got")]:
        assert_equal_to(y, exact[0], name="y")
        assert_equal_to(surprise, exact[2], name="surprise")
        assert torch.equal(state.position, exact[1].position), name
    for field in ("weights", "momentum", "chunk_start"):
        pairs = zip(getattr(got[1], field), getattr(exact[1], field), strict=True)
        for i, (a, b) in enumerate(pairs):
            assert_equal_to(a, b, name=f"final {field}[{i}]")


def assert_same_gradients(backend, problem):
    """Against autograd of the per-token loop, for every input, gate and initial state."""
    exact = gradients(lambda x, s: oracle_memory(*x, s, **problem.options()), problem)
    got = gradients(lambda x, s: run(x, s, backend=backend, **problem.options()), problem)
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=f"gradient of {name}")


@pytest.mark.parametrize("length", ["0", "1", "C-1", "C", "C+1", "13"])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_final_state(backend, depth, chunk_size, length):
    T = {"C-1": chunk_size - 1, "C": chunk_size, "C+1": chunk_size + 1}.get(length)
    description = {"depth": depth, "chunk_size": chunk_size, "T": int(length) if T is None else T}
    problem = random_problem(**description)
    with torch.no_grad():
        assert_same(
            run(problem.tensors, problem.state, backend=backend, **problem.options()), exact_values(**description)
        )


@pytest.mark.parametrize("max_surprise", [None, 1.0], ids=["plain", "clipped"])
@pytest.mark.parametrize("positions", [None, (1, 3)], ids=["boundary", "inside"])
@pytest.mark.parametrize(("chunk_size", "T"), [(1, 3), (4, 1), (4, 7), (16, 7)])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend, depth, chunk_size, T, positions, max_surprise):
    if positions and chunk_size == 1:
        positions = None  # a chunk of one token has no inside; this is then a second problem at the boundary
    problem = random_problem(
        depth=depth,
        chunk_size=chunk_size,
        T=T,
        H=1,
        positions=positions,
        max_surprise=max_surprise,
        seed=chunk_size + T,
    )
    assert_same_gradients(backend, problem)


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_heads_wide_values_and_a_clip_that_binds_for_some_tokens_only(backend):
    problem = random_problem(depth=2, chunk_size=3, T=8, H=3, K=2, V=5, max_surprise=3.0)
    _, _, surprise = oracle_memory(*problem.tensors, problem.state, **problem.options())
    assert 0.1 < (surprise > 3.0).double().mean() < 0.9
    assert_same_gradients(backend, problem)


GATES = {
    "alpha 0": (0.0, None, None),
    "alpha 1": (1.0, None, None),
    "eta 0": (None, 0.0, None),
    "eta 1": (None, 1.0, None),
    "theta 0": (None, None, 0.0),
    "all 0": (0.0, 0.0, 0.0),
    "alpha 1, eta 0": (1.0, 0.0, None),
    "alpha 1, eta 1": (1.0, 1.0, None),
    "alpha 0, eta 1": (0.0, 1.0, None),
}


def with_gates(problem, gates, where):
    tensors = list(problem.tensors)
    for i, value in enumerate(gates, start=3):
        if value is not None:
            tensors[i] = torch.where(where, torch.full_like(tensors[i], value), tensors[i])
    return type(problem)(tuple(tensors), problem.state, problem.chunk_size, problem.max_surprise, problem.mask)


@pytest.mark.parametrize("where", ["everywhere", "first", "some"])
@pytest.mark.parametrize("gates", GATES.values(), ids=GATES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gates_exactly_zero_and_one(backend, gates, where):
    """Ratios of products that hit zero: right in the value and in the gradient, not NaN."""
    T = 7
    token = torch.arange(T)
    chosen = {"everywhere": token >= 0, "first": token == 0, "some": (token == 2) | (token == 3) | (token == 5)}[where]
    problem = with_gates(random_problem(depth=2, chunk_size=4, T=T, H=1), gates, chosen[None, :, None])
    with torch.no_grad():
        exact = oracle_memory(*problem.tensors, problem.state, **problem.options())
        assert_same(run(problem.tensors, problem.state, backend=backend, **problem.options()), exact)
    assert_same_gradients(backend, problem)


@pytest.mark.parametrize("max_surprise", [None, 1.0], ids=["plain", "clipped"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_zero_key_has_no_surprise_and_finite_gradients(backend, depth, max_surprise):
    """silu(0) = 0, so a zero input is a zero key: the norm of its update is 0 and must not divide."""
    problem = random_problem(depth=depth, chunk_size=4, T=6, H=1, max_surprise=max_surprise)
    k = problem.tensors[1]
    k[:, 2] = 0
    k[0, 5] = 0
    _, _, surprise = run(problem.tensors, problem.state, backend=backend, **problem.options())
    assert torch.equal(surprise[:, 2], torch.zeros_like(surprise[:, 2]))
    assert_same_gradients(backend, problem)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_alpha_one_clears_the_weights_and_keeps_the_momentum(backend, depth):
    problem = random_problem(depth=depth, chunk_size=4, T=6)
    q, alpha = problem.tensors[0], problem.tensors[3]
    alpha[:, -1] = 1
    y, state, _ = run(problem.tensors, problem.state, backend=backend, **problem.options())
    for M, S in zip(state.weights, state.momentum, strict=True):
        assert_equal_to(M, S, name="weights after alpha = 1")
        assert S.abs().max() > 1e-3
    alone = torch.stack(
        [torch.stack([mlp([s[b, h] for s in state.momentum], q[b, -1, h]) for h in range(2)]) for b in range(2)]
    )
    assert_equal_to(y[:, -1], alone, name="y after alpha = 1")


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_weights_absorb_at_depth_two_but_not_at_depth_one(backend):
    for depth in (1, 2, 3):
        problem = random_problem(depth=depth, chunk_size=4, T=9)
        zero = tuple(torch.zeros_like(w) for w in problem.state.weights)
        state = OracleState(zero, zero, zero, problem.state.position)
        y, final, surprise = run(problem.tensors, state, backend=backend, **problem.options())
        stays = all(torch.equal(w, z) for w, z in zip(final.weights, zero, strict=True))
        assert stays == (depth > 1)
        assert bool((y == 0).all()) == (depth > 1)
        assert bool((surprise == 0).all()) == (depth > 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_surprise_is_the_norm_of_the_linear_memorys_gradient_before_theta_and_clip(backend):
    """At depth 1 the gradient is 2 (W k - v) k^T, whose norm anyone can write down."""
    problem = random_problem(depth=1, chunk_size=16, T=7)
    q, k, v, alpha, eta, theta = problem.tensors
    residual = torch.einsum("bhvk,bthk->bthv", problem.state.weights[0], k) - v
    exact = 2 * residual.norm(dim=-1) * k.norm(dim=-1)
    for scale, clip in [(1.0, None), (0.0, None), (1.0, 0.1)]:
        tensors = (q, k, v, alpha, eta, theta * scale)
        _, _, surprise = run(tensors, problem.state, backend=backend, chunk_size=16, max_surprise=clip)
        assert_equal_to(surprise, exact, name=f"surprise, theta x {scale}, max_surprise {clip}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_max_surprise_none_and_a_bound_nothing_reaches_are_the_paper(backend):
    problem = random_problem(depth=3, chunk_size=4, T=9)
    plain = run(problem.tensors, problem.state, backend=backend, chunk_size=4)
    loose = run(problem.tensors, problem.state, backend=backend, chunk_size=4, max_surprise=1e6)
    assert_same(loose, plain)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_second_chunk_takes_its_gradients_at_the_first_chunks_weights(backend):
    """A memory whose gradient point never moves writes the same into chunk 2 whatever chunk 1 was."""
    problem = random_problem(depth=1, chunk_size=4, T=8)
    q, k, v, alpha, eta, theta = problem.tensors
    changed = v.clone()
    changed[:, :4] += 1
    surprises = [
        run((q, k, x, alpha, eta, theta), problem.state, backend=backend, chunk_size=4)[2] for x in (v, changed)
    ]
    assert ((surprises[0] - surprises[1])[:, 4:].abs() > 1e-6).all()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_read_memory_is_the_mlp_and_writes_nothing(depth):
    problem = random_problem(depth=depth, T=7)
    q = problem.tensors[0]
    state = MemoryState.from_weights(problem.state.weights)
    before = [t.clone() for t in (*state.weights, *state.momentum, *state.chunk_start, state.position)]
    y = read_memory(q, state)
    exact = torch.stack(
        [
            torch.stack(
                [torch.stack([mlp([w[b, h] for w in state.weights], q[b, t, h]) for h in range(2)]) for t in range(7)]
            )
            for b in range(2)
        ]
    )
    assert_equal_to(y, exact, name="reading")
    after = (*state.weights, *state.momentum, *state.chunk_start, state.position)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_reading_after_a_call_repeats_its_last_output(backend):
    problem = random_problem(depth=2, chunk_size=4, T=7)
    y, state, _ = run(problem.tensors, problem.state, backend=backend, **problem.options())
    assert_equal_to(read_memory(problem.tensors[0][:, -1:], state), y[:, -1:], name="reading")


def test_inputs_are_left_alone():
    problem = random_problem(depth=2, T=7)
    state = MemoryState.from_weights(problem.state.weights)
    everything = [*problem.tensors, *state.weights, *state.momentum, *state.chunk_start, state.position]
    before = [t.clone() for t in everything]
    for backend in BACKENDS:
        neural_memory(*problem.tensors, state, chunk_size=4, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(before, everything, strict=True))


def test_auto_is_native_on_a_cpu():
    problem = random_problem(depth=2, T=7)
    state = MemoryState.from_weights(problem.state.weights)
    results = [neural_memory(*problem.tensors, state, chunk_size=4, backend=name)[0] for name in ("auto", "native")]
    assert torch.equal(*results)
