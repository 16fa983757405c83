"""Float32 and bfloat16, long chunks, gates near their ends: as accurate as the plain recurrence there."""

import pytest
import torch
from accuracy import assert_as_accurate_as
from memory_oracle import Problem, gradients, oracle_memory, random_problem
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from titans_seq.kernels import MemoryState, neural_memory, read_memory

NEAR = {
    "alpha and eta tiny": (1e-4, 1e-4),
    "alpha near 1": (0.999, 0.9),
    "eta near 0": (0.01, 1e-3),
    "alpha near 1, eta near 0": (0.999, 1e-3),
    "products of halves": (0.5, 0.5),
    "products of 0.7": (0.3, 0.7),
    "nothing forgotten": (0.0, 1.0),
}


def long_problem(alpha, eta, *, T=128, depth=1):
    problem = random_problem(depth=depth, chunk_size=128, T=T, B=1, H=1)
    q, k, v, a, e, theta = problem.tensors
    return Problem((q, k, v, torch.full_like(a, alpha), torch.full_like(e, eta), theta / 20), problem.state, 128)


def run(tensors, state, *, backend, dtype):
    """In `dtype`, from and to float64, so that one loss serves all precisions."""
    fields = [tuple(w.to(dtype) for w in getattr(state, name)) for name in ("weights", "momentum", "chunk_start")]
    own = MemoryState(*fields, state.position, 128)
    y, own, surprise = neural_memory(
        *(x.to(dtype) for x in tensors), own, chunk_size=128, return_surprise=True, backend=backend
    )
    return y, own, surprise


def assert_as_accurate(fast, plain, exact, *, name):
    """In units of the largest exact entry: with nothing forgotten these grow to hundreds, and so does one rounding."""
    scale = max(1.0, exact.abs().max().item())
    assert_as_accurate_as(fast / scale, plain / scale, exact / scale, name=name)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("alpha", "eta"), NEAR.values(), ids=NEAR)
@pytest.mark.parametrize("backend", ["chunked", "native"])
def test_hundreds_of_small_factors(backend, alpha, eta, depth):
    problem = long_problem(alpha, eta, depth=depth)
    exact = gradients(lambda x, s: oracle_memory(*x, s, chunk_size=128), problem)
    plain, fast = (
        gradients(lambda x, s, b=b: run(x, s, backend=b, dtype=torch.float32), problem) for b in ("reference", backend)
    )
    for name, value in exact.items():
        assert_as_accurate(fast[name], plain[name], value, name=f"gradient of {name}")
    with torch.no_grad():
        exact_y, exact_state, _ = oracle_memory(*problem.tensors, problem.state, chunk_size=128)
        (plain_y, plain_state, _), (fast_y, fast_state, _) = (
            run(problem.tensors, problem.state, backend=b, dtype=torch.float32) for b in ("reference", backend)
        )
    assert_as_accurate(fast_y, plain_y, exact_y, name="y")
    for i in range(depth):
        assert_as_accurate(fast_state.weights[i], plain_state.weights[i], exact_state.weights[i], name="weights")
        assert_as_accurate(fast_state.momentum[i], plain_state.momentum[i], exact_state.momentum[i], name="momentum")


@pytest.mark.parametrize("backend", ["reference", "chunked", "native"])
@pytest.mark.parametrize(("alpha", "eta"), [(0.5, 0.5), (0.3, 0.7), (0.9, 0.1), (0.999, 1e-3)])
def test_a_small_product_keeps_its_gradient(alpha, eta, backend):
    """The last output's gradient at token t is a product of T - t small factors. A clamp has the right value and
    gradient zero; here every gradient float32 can hold (1e-30) must be there, and right."""
    problem = long_problem(alpha, eta)

    def last_output(call):
        gates = tuple(x.clone().requires_grad_() for x in problem.tensors[3:])
        y, *_ = call((*problem.tensors[:3], *gates), problem.state)
        return torch.autograd.grad(y[0, -1].double().sum(), gates)

    exact = last_output(lambda x, s: oracle_memory(*x, s, chunk_size=128))
    got = last_output(lambda x, s: run(x, s, backend=backend, dtype=torch.float32))
    for name, a, b in zip(("alpha", "eta", "theta"), got, exact, strict=True):
        assert a.isfinite().all()
        visible = b.abs() > 1e-30
        assert visible.sum() > 1, name
        error = ((a - b).abs() / b.abs())[visible]
        assert error.max() < 1e-2, (
            f"{name}: relative error {error.max():.1e} where the gradient is {b[visible][error.argmax()]:.1e}"
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("fast", ["chunked", "native"])
def test_low_precision_inputs_keep_wide_states(fast, dtype):
    problem = random_problem(depth=2, chunk_size=16, T=37, K=8, V=8, hidden=16)
    low = tuple(x.to(dtype) for x in problem.tensors)
    weights = tuple(w.float() for w in problem.state.weights)
    with torch.no_grad():
        results = [
            neural_memory(*low, MemoryState.from_weights(weights), chunk_size=16, backend=backend)
            for backend in (fast, "reference")
        ]
        state = MemoryState.from_weights(tuple(w.double() for w in weights))
        exact, final = neural_memory(*(x.double() for x in low), state, chunk_size=16, backend="reference")
    (y, fast_state), (plain, plain_state) = results
    assert_as_accurate_as(y, plain, exact, name="y")
    assert y.dtype == dtype
    for i in range(2):
        assert_as_accurate_as(fast_state.weights[i], plain_state.weights[i], final.weights[i], name="weights")
    for state in (fast_state, plain_state):
        for w in (*state.weights, *state.momentum, *state.chunk_start):
            assert w.dtype == torch.float32


@pytest.mark.parametrize("backend", ["reference", "chunked", "native"])
def test_low_precision_states_are_refused(backend):
    """Hundreds of small steps add up in the state: never in bfloat16, and never widened in silence."""
    problem = random_problem(depth=2, chunk_size=4, T=9)
    low = tuple(x.bfloat16() for x in problem.tensors)
    state = MemoryState.from_weights(tuple(w.bfloat16() for w in problem.state.weights))
    with pytest.raises(ValueError, match="weights.*float32.*bfloat16"):
        neural_memory(*low, state, chunk_size=4, backend=backend)


@pytest.mark.parametrize("backend", ["reference", "chunked", "native"])
def test_autocast_stops_at_the_operation(backend):
    """Float32 tokens and states give float32 results, to the last bit, whatever autocast would do to a matmul."""
    problem = random_problem(depth=2, chunk_size=4, T=9)
    tensors = [x.float() for x in problem.tensors]
    state = MemoryState.from_weights(tuple(w.float() for w in problem.state.weights))
    y, after = neural_memory(*tensors, state, chunk_size=4, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        cast, cast_after = neural_memory(*tensors, state, chunk_size=4, backend=backend)
        read = read_memory(tensors[0], after)
    assert torch.equal(cast, y)
    assert all(torch.equal(a, b) for a, b in zip(cast_after.weights, after.weights, strict=True))
    assert torch.equal(read, read_memory(tensors[0], after))


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest storage that any operation returned."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return out


def test_no_weights_per_token():
    """The chunked form never holds one weight matrix per token of even one chunk, forward or backward."""
    B, H, T, C, K = 1, 1, 64, 32, 32
    problem = random_problem(depth=2, chunk_size=C, T=T, B=B, H=H, K=K, V=K, hidden=2 * K)
    with LargestTensor() as largest:
        gradients(lambda x, s: neural_memory_with_surprise(x, s, C), problem)
    assert largest.numel < B * H * C * K * K


def neural_memory_with_surprise(tensors, state, chunk_size):
    own = MemoryState(state.weights, state.momentum, state.chunk_start, state.position, chunk_size)
    return neural_memory(*tensors, own, chunk_size=chunk_size, return_surprise=True, backend="chunked")


@pytest.mark.parametrize("backend", ["reference", "chunked", "native"])
def test_poisoned_allocations(backend):
    """Memory that is allocated and never written must not reach a result: here it holds NaN."""
    problem = random_problem(
        depth=2, chunk_size=4, T=10, positions=(1, 3), mask=torch.arange(10)[None] % torch.tensor([[3], [4]]) > 0
    )

    def everything():
        own = MemoryState(*(getattr(problem.state, f) for f in ("weights", "momentum", "chunk_start", "position")), 4)
        y, own, surprise = neural_memory(
            *problem.tensors, own, **problem.options(), return_surprise=True, backend=backend
        )
        return [y, surprise, *own.weights, *own.momentum, *own.chunk_start]

    plain = everything()
    torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN
    try:
        poisoned = everything()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(plain, poisoned, strict=True))


@pytest.mark.parametrize("gate_per", ["token", "chunk"])
def test_poisoned_allocations_in_backward(gate_per):
    """The same, for every gradient, over several groups of chunks."""
    problem = random_problem(depth=2, chunk_size=2, T=13, max_surprise=1.0)
    gates = [gate[:, :1].expand_as(gate) for gate in problem.tensors[3:5]]
    problem = Problem((*problem.tensors[:3], *gates, problem.tensors[5]), problem.state, 2, 1.0)

    def run(tensors, state):
        own = MemoryState(state.weights, state.momentum, state.chunk_start, state.position, 2)
        return neural_memory(*tensors, own, **problem.options(), gate_per=gate_per, return_surprise=True)

    plain = gradients(run, problem)
    torch.use_deterministic_algorithms(True)
    try:
        poisoned = gradients(run, problem)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(poisoned[name], value) for name, value in plain.items())
