"""The native operators inside PyTorch's own machinery: checkpointing, autocast, export; and what they refuse."""

import os
import subprocess
import sys

import memory_cases
import pytest
import torch
from accuracy import assert_equal_to
from memory_oracle import Problem, random_problem

from titans_seq import NeuralMemory
from titans_seq.kernels import MemoryState, native_library, native_memory, neural_memory

# where CI is set a missing build is a failure
pytestmark = pytest.mark.skipif(
    native_library.library() is None and "CI" not in os.environ, reason="the native kernels were not built"
)


def run(problem: Problem, leaves: list[torch.Tensor], backend: str = "native") -> torch.Tensor:
    state = MemoryState.from_weights(tuple(w.to(leaves[0].dtype) for w in problem.state.weights))
    return neural_memory(*leaves, state, chunk_size=problem.chunk_size, max_surprise=1.0, backend=backend)[0]


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(reentrant):
    torch.manual_seed(0)
    layer = NeuralMemory(8, heads=2, chunk_size=4, num_persistent=1, backend="native")
    x = torch.randn(2, 9, 8, requires_grad=True)  # the reentrant form asks for it
    leaves = [x, *layer.parameters()]
    layer(x).square().sum().backward()
    expected = [leaf.grad for leaf in leaves]
    layer.zero_grad(set_to_none=True)
    x.grad = None
    torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
    assert all(torch.equal(leaf.grad, value) for leaf, value in zip(leaves, expected, strict=True))


def test_autocast_stops_at_the_operator():
    """float32 tokens inside autocast: the same numbers and gradients, forward and backward, bit by bit."""
    problem = random_problem(depth=2, chunk_size=4, T=11)
    results = []
    for enabled in (False, True):
        leaves = [x.float().requires_grad_() for x in problem.tensors]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = run(problem, leaves)
            results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_gives_what_it_gives_on_chunked(autocast):
    memory_cases.check_layer("native", "cpu", autocast=autocast)


ONE_OPERATOR = """
import torch
from titans_seq import NeuralMemory
for gate_per, strict in (("token", False), ("chunk", True)):
    torch.manual_seed(0)
    layer = NeuralMemory(8, heads=2, chunk_size=4, num_persistent=1, gate_per=gate_per, backend="native")
    x = torch.randn(2, 9, 8)
    sizes = {"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")}}
    program = torch.export.export(layer, (x,), strict=strict, dynamic_shapes=sizes)
    # autocast is switched off around the operator, for which an exported program has a graph of its own
    called = [node.target for graph in program.graph_module.modules() for node in graph.graph.nodes]
    ours = [target for target in called if "titans_seq" in str(target)]
    names = [target.name().removeprefix("titans_seq::") for target in ours]
    assert sorted(names) == ["convolution_forward", "native_forward", "norm_forward", "norm_forward"], names
    for shape in ((2, 9), (3, 4), (5, 30)):
        other = torch.randn(*shape, 8)
        assert torch.equal(program.module()(other), layer(other))
    print(gate_per, strict)

compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
parameters = list(layer.parameters())
got, expected = (torch.autograd.grad(f(x).square().sum(), parameters) for f in (compiled, layer))
for a, b in zip(got, expected):
    torch.testing.assert_close(a, b)
print("gradients of a compiled layer")
"""


def test_an_exported_layer_has_one_memory_operator_for_all_sizes_and_a_compiled_one_its_gradients():
    """In a process of its own: shapes in annotations, which tests check, cannot be traced."""
    done = subprocess.run([sys.executable, "-P", "-c", ONE_OPERATOR], capture_output=True, text=True, check=False)
    said = ["token False", "chunk True", "gradients of a compiled layer"]
    assert done.stdout.splitlines() == said, done.stderr[-3000:]


def test_a_fifth_layer_is_refused_by_name_and_auto_takes_chunked():
    problem = random_problem(depth=5, chunk_size=4, T=6)
    leaves = list(problem.tensors)
    with pytest.raises(RuntimeError, match='backend="native" does not cover depth 5, more than 4'):
        run(problem, leaves)
    assert torch.equal(run(problem, leaves, "auto"), run(problem, leaves, "chunked"))


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated"
)  # PyTorch's own, when a dual tensor is first made
def test_forward_mode_is_refused():
    problem = random_problem(depth=2, chunk_size=4, T=3)
    with torch.autograd.forward_ad.dual_level():
        q = torch.autograd.forward_ad.make_dual(problem.tensors[0], torch.ones_like(problem.tensors[0]))
        with pytest.raises(RuntimeError, match='no forward-mode derivative; backend="reference" has'):
            run(problem, [q, *problem.tensors[1:]])


@pytest.mark.parametrize("loss", ["sum", "square"])
def test_the_second_derivative_is_refused(loss):
    """Also with a loss whose gradient is a constant, for which zeros in silence would be easy."""
    problem = random_problem(depth=2, chunk_size=4, T=3)
    leaves = [x.clone().requires_grad_() for x in problem.tensors]
    y = run(problem, leaves)
    (first,) = torch.autograd.grad(y.sum() if loss == "sum" else y.square().sum(), leaves[2], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative.*reference"):
        first.sum().backward()


@pytest.mark.parametrize("in_lanes", [True, False], ids=["lanes", "rows"])
@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 19, 20, 21])
def test_states_for_backward_fit_at_every_place_in_a_chunk(tokens, in_lanes, monkeypatch):
    """How many there is room for depends on sizes alone, so that a compiled graph has no break."""
    monkeypatch.setattr(native_memory, "_fits_lanes", lambda *_: in_lanes)
    for positions in ((0, 0), (1, 0), (1, 1)):
        problem = random_problem(depth=2, chunk_size=2, T=tokens, positions=positions)
        parts = (problem.state.weights, problem.state.momentum, problem.state.chunk_start)
        state = MemoryState(*parts, problem.state.position, 2)
        results = []
        for backend in ("native", "chunked"):
            leaves = [x.clone().requires_grad_() for x in problem.tensors]
            y = neural_memory(*leaves, state, chunk_size=2, backend=backend)[0]
            results.append(torch.autograd.grad(y.square().sum(), leaves))
        for got, expected in zip(*results, strict=True):
            assert_equal_to(got, expected, name=f"gradient from {positions}")


@pytest.mark.parametrize("size", [(0, 3, 2), (2, 0, 2), (2, 3, 0)], ids=["no samples", "no tokens", "no heads"])
@pytest.mark.parametrize("backend", ["native", "chunked"])
def test_nothing_gives_nothing(size, backend):
    q, gate = torch.randn(*size, 4), torch.rand(size)
    state = MemoryState.from_weights((torch.randn(size[0], size[2], 4, 4),))
    y, state, surprise = neural_memory(q, q, q, gate, gate, gate, state, return_surprise=True, backend=backend)
    assert (y.shape, surprise.shape, state.chunk_size) == ((*size, 4), size, 64)
