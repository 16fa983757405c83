"""What only the chunk-parallel backend has: a backward by hand, groups of chunks, bounded memory, gates per chunk."""

import math

import pytest
import torch
from accuracy import assert_equal_to
from memory_oracle import gradients, oracle_memory, random_problem

from titans_seq.kernels import MemoryState, neural_memory
from titans_seq.kernels.chunked import SMALLEST_GROUP


def call(tensors, state, *, backend="chunked", **options):
    own = MemoryState(state.weights, state.momentum, state.chunk_start, state.position, options["chunk_size"])
    return neural_memory(*tensors, own, **options, return_surprise=True, backend=backend)


@pytest.mark.parametrize(
    ("chunk_size", "T", "position", "masked"),
    [(1, SMALLEST_GROUP + 1, None, False), (3, 4, None, False), (3, 4, 2, True)],
    ids=["groups", "chunks", "inside a chunk, masked"],
)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_gradcheck_of_every_input(depth, chunk_size, T, position, masked):
    """Finite differences: tokens, gates and the whole state."""
    mask = torch.arange(T)[None] != 1 if masked else None
    problem = random_problem(
        depth=depth, chunk_size=chunk_size, T=T, B=1, H=1, K=2, V=3, hidden=3, mask=mask, max_surprise=2.0,
        positions=None if position is None else (position,),
    )  # fmt: skip
    state = problem.state
    flat = (*problem.tensors, *state.weights, *state.momentum, *state.chunk_start)

    def function(*flat):
        fields = (flat[6 + i * depth : 6 + (i + 1) * depth] for i in range(3))
        own = MemoryState(*fields, state.position, chunk_size)
        y, own, surprise = neural_memory(*flat[:6], own, **problem.options(), return_surprise=True, backend="chunked")
        return y, surprise, *own.weights, *own.momentum, *own.chunk_start

    assert torch.autograd.gradcheck(function, [x.clone().requires_grad_() for x in flat])


@pytest.mark.parametrize("T", [1, SMALLEST_GROUP, SMALLEST_GROUP + 1, 3 * SMALLEST_GROUP + 1])
def test_any_number_of_groups(T):
    problem = random_problem(depth=2, chunk_size=1, T=T, H=1, max_surprise=1.0)
    exact = gradients(lambda x, s: oracle_memory(*x, s, **problem.options()), problem)
    got = gradients(lambda x, s: call(x, s, **problem.options()), problem)
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=f"gradient of {name}")


@pytest.mark.parametrize("used", ["y", "surprise", "weights", "momentum", "chunk_start"])
@pytest.mark.parametrize("T", [3, 11])
def test_gradients_of_one_result_alone(used, T):
    """Results that nobody uses bring no gradient into backward."""
    problem = random_problem(depth=2, chunk_size=2, T=T, H=1, max_surprise=1.0)

    def one(run):
        leaves = [x.clone().requires_grad_() for x in problem.tensors]
        y, state, surprise = run(leaves, problem.state)
        parts = {"y": (y,), "surprise": (surprise,)}.get(used) or getattr(state, used)
        total = sum(
            (part * torch.linspace(-1, 1, part.numel(), dtype=part.dtype).view_as(part)).sum() for part in parts
        )
        return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)

    exact = one(lambda x, s: oracle_memory(*x, s, **problem.options()))
    for name, a, b in zip(
        ["q", "k", "v", "alpha", "eta", "theta"], one(lambda x, s: call(x, s, **problem.options())), exact, strict=True
    ):
        assert_equal_to(a, b, name=name)


def test_some_inputs_without_gradients():
    problem = random_problem(depth=2, chunk_size=2, T=7, H=1)
    v = problem.tensors[2].clone().requires_grad_()
    tensors = (*problem.tensors[:2], v, *problem.tensors[3:])
    results = [
        torch.autograd.grad(run(tensors)[0].square().sum(), v)[0]
        for run in (
            lambda x: call(x, problem.state, chunk_size=2),
            lambda x: oracle_memory(*x, problem.state, chunk_size=2),
        )
    ]
    assert_equal_to(*results, name="v")


def test_a_second_backward_gives_the_same():
    problem = random_problem(depth=2, chunk_size=2, T=15)
    leaves = [x.clone().requires_grad_() for x in problem.tensors]
    loss = call(leaves, problem.state, chunk_size=2, max_surprise=1.0)[0].square().sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("loss", ["sum", "square"])
def test_the_second_derivative_is_refused_and_the_reference_has_it(loss):
    """Refused at once: with a loss whose gradient is a constant it would be zero in silence."""
    problem = random_problem(depth=2, chunk_size=2, T=4, H=1)
    for backend in ("chunked", "reference"):
        leaves = [x.clone().requires_grad_() for x in problem.tensors]
        y = call(leaves, problem.state, chunk_size=2, backend=backend)[0]
        total = y.sum() if loss == "sum" else y.square().sum()
        if backend == "reference":
            (grad,) = torch.autograd.grad(total, leaves[2], create_graph=True)
            assert torch.autograd.grad(grad.square().sum(), leaves[0])[0].abs().max() > 0
        else:
            with pytest.raises(RuntimeError, match="no second derivative.*reference"):
                torch.autograd.grad(total, leaves[2], create_graph=True)


def test_backward_under_autocast():
    """Autocast around forward and backward changes nothing: it stops at the operation."""
    problem = random_problem(depth=2, chunk_size=2, T=11)
    state = MemoryState.from_weights(tuple(w.float() for w in problem.state.weights))
    results = []
    for enabled in (False, True):
        leaves = [x.float().requires_grad_() for x in problem.tensors]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y, _ = neural_memory(*leaves, state, chunk_size=2, max_surprise=1.0, backend="chunked")
            y.sum().backward()
        results.append([x.grad for x in leaves])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(("B", "H"), [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_results_share_no_memory_with_arguments_or_each_other(depth, B, H):
    """Who changes the weights after a call, an optimizer say, must not change the state it gave."""
    problem = random_problem(depth=depth, chunk_size=8, T=3, B=B, H=H)
    state = MemoryState.from_weights(problem.state.weights)
    _, after = neural_memory(*problem.tensors, state, chunk_size=8, backend="chunked")
    results = [*after.weights, *after.momentum, *after.chunk_start]
    storages = [x.untyped_storage().data_ptr() for x in (*results, *problem.tensors, *state.weights, *state.momentum)]
    assert len(set(storages)) == len(storages)
    assert all(x.untyped_storage().nbytes() == x.numel() * 8 for x in results)


def kept_for_backward(T):
    """States held between forward and backward, chunk size 1: those that autograd saves, and those of the last
    group.
    """
    K, hidden = 8, 16
    problem = random_problem(depth=2, chunk_size=1, T=T, B=1, H=1, K=K, V=K, hidden=hidden)
    leaves = [x.clone().requires_grad_() for x in problem.tensors]
    sizes = []

    def pack(x):
        sizes.append(x.numel() if x.ndim == 4 and x.shape[-2:] in ((K, hidden), (hidden, K)) else 0)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y, _ = neural_memory(*leaves, MemoryState.from_weights(problem.state.weights), chunk_size=1, backend="chunked")
    node = y.grad_fn
    while "Chunked" not in node.name():
        node = node.next_functions[0][0]
    last = node.last[1]
    sizes += [x.numel() for x in last.pairs] + [x.numel() for start in last.starts for x in start]
    return sum(sizes) / (2 * 2 * K * hidden)


def test_the_states_kept_for_backward_grow_like_the_square_root_of_the_chunks():
    for T in (64, 99, 256, 1024):
        assert kept_for_backward(T) <= 3.25 * math.sqrt(T) + 4


def test_nothing_is_kept_without_gradients():
    problem = random_problem(depth=2, chunk_size=2, T=9)
    leaves = [x.clone().requires_grad_() for x in problem.tensors]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda x: x):
        with torch.no_grad():
            call(leaves, problem.state, chunk_size=2)
        call(problem.tensors, problem.state, chunk_size=2)
        assert not saved
        call(leaves, problem.state, chunk_size=2)
        assert saved


@pytest.mark.parametrize("positions", [None, (1, 3)], ids=["boundary", "inside"])
@pytest.mark.parametrize("masked", [False, True], ids=["all real", "masked"])
@pytest.mark.parametrize("T", [4, 8, 21])
def test_gates_per_chunk_are_gates_per_token_that_do_not_change(T, masked, positions):
    """Values, final state, and the gradients of the gates of each chunk and of everything else."""
    C = 4
    mask = torch.arange(T)[None] % torch.tensor([[3], [4]]) > 0 if masked else None
    problem = random_problem(depth=2, chunk_size=C, T=T, positions=positions, mask=mask, max_surprise=1.0)
    real = torch.ones(2, T, dtype=torch.bool) if mask is None else mask
    chunk = (problem.state.position[:, None] + real.cumsum(dim=1) - 1).clamp(min=0) // C  # of each token

    def run(backend, gate_per):
        gates = [gate[:, : T // C + 2].clone().requires_grad_() for gate in problem.tensors[3:5]]
        index = chunk[..., None].expand(-1, -1, 2)
        spread = [gate.gather(1, index) for gate in gates]
        leaves = [x.clone().requires_grad_() for x in (*problem.tensors[:3], problem.tensors[5])]
        y, state, surprise = call(
            (*leaves[:3], *spread, leaves[3]), problem.state, backend=backend, gate_per=gate_per, check=True,
            **problem.options(),
        )  # fmt: skip
        results = [y, surprise, *state.weights, *state.momentum, *state.chunk_start]
        total = sum((x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)).sum() for x in results)
        return [*results, *torch.autograd.grad(total, [*gates, *leaves])]

    T = max(T, 2 * C)
    exact = run("reference", "token")
    for i, (a, b) in enumerate(zip(run("chunked", "chunk"), exact, strict=True)):
        assert_equal_to(a, b, name=str(i))


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("name", ["alpha", "eta"])
def test_gates_per_chunk_that_change_are_refused_by_check(backend, name):
    problem = random_problem(depth=1, chunk_size=4, T=8)
    tensors = list(problem.tensors)
    for i in (3, 4):
        tensors[i] = torch.full_like(tensors[i], 0.5)
    call(tensors, problem.state, chunk_size=4, gate_per="chunk", check=True, backend=backend)
    index = {"alpha": 3, "eta": 4}[name]
    tensors[index][1, 6, 0] = 0.25
    with pytest.raises(ValueError, match=f"{name} must be the same for all tokens of a chunk.*0.5 and 0.25"):
        call(tensors, problem.state, chunk_size=4, gate_per="chunk", check=True, backend=backend)


def test_checkpointing_makes_forward_anew():
    """The form PyTorch recommends lets backward look at what was saved only once."""
    problem = random_problem(depth=2, chunk_size=2, T=11, H=1, max_surprise=1.0)
    leaves = [x.clone().requires_grad_() for x in problem.tensors]

    def outputs(*leaves):
        return call(leaves, problem.state, **problem.options())[0]

    expected = torch.autograd.grad(outputs(*leaves).square().sum(), leaves)
    again = torch.utils.checkpoint.checkpoint(outputs, *leaves, use_reentrant=False)
    for a, b in zip(torch.autograd.grad(again.square().sum(), leaves), expected, strict=True):
        assert torch.equal(a, b)
