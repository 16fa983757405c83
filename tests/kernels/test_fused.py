"""The Triton kernels, run by Triton's interpreter (`conftest.py` turns it on where there is no GPU), against the
oracle.

The interpreter takes float64, so values, states and gradients are held to 1e-9 like those of every other backend. It
takes seconds per case: few cases, each for several traps at once. What a GPU's compiler makes of the kernels:
`test_compile.py` without a GPU, `test_gpu.py` on one.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accuracy import assert_equal_to
from memory_cases import (
    CASES,
    check_cut_inside_a_chunk,
    check_gates_of_a_chunk,
    check_layer,
    check_one_call,
    check_unwritten_memory_and_races,
    extreme_gates,
    gates_of_a_chunk,
    results,
    run,
    spread,
)
from memory_oracle import gradients, oracle_memory, random_problem

from titans_seq import NeuralMemory
from titans_seq.forecast import SimbaForecaster
from titans_seq.kernels import MemoryState, neural_memory

fused = pytest.importorskip("titans_seq.kernels.fused", reason="triton is not installed (it exists for Linux only)")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU test_gpu.py runs the compiled kernels")


@pytest.fixture(autouse=True)
def _groups_of_two(monkeypatch):
    monkeypatch.setattr(fused, "SMALLEST_GROUP", 2)


def assert_exact(problem, exact_problem=None, **options):
    exact_problem = exact_problem or problem
    with torch.no_grad():
        got = results(*run(problem.tensors, problem.state, **problem.options(), **options))
        exact = results(*oracle_memory(*exact_problem.tensors, exact_problem.state, **exact_problem.options()))
    for name, value in exact.items():
        assert_equal_to(got[name].double(), value.double(), name=name)
    exact = gradients(lambda x, s: oracle_memory(*x, s, **exact_problem.options()), exact_problem)
    got = gradients(lambda x, s: run(x, s, **problem.options(), **options), problem)
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=f"gradient of {name}")


@pytest.mark.parametrize("description", CASES.values(), ids=CASES)
def test_values_states_and_gradients(description):
    assert_exact(random_problem(**description))


def test_tiles_that_are_full_need_no_masks():
    for backward in (False, True):
        dims, _ = fused.kernel_dims(
            16, 32, 48, 2, 16, "ieee", backward=backward, wgmma=True
        )  # of the case "full tiles"
        assert not dims.MASKED.value


def test_gates_exactly_zero_and_one_and_a_zero_key():
    assert_exact(extreme_gates())


def test_gates_of_a_chunk():
    problem = gates_of_a_chunk()
    exact = gradients(lambda x, s: oracle_memory(*spread(x), s, **problem.options()), problem)
    got = gradients(lambda x, s: run(spread(x), s, **problem.options(), gate_per="chunk"), problem)
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=f"gradient of {name}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_as_accurate_as_the_plain_recurrence(dtype):
    """As `test_gpu.py` demands it of all problems; so do the next two."""
    problem = random_problem(depth=2, chunk_size=4, T=8, H=1, B=1, K=8, V=8, hidden=16, max_surprise=3.0)
    check_one_call(problem, dtype, "cpu")


def test_gates_of_a_chunk_in_bfloat16():
    check_gates_of_a_chunk(torch.bfloat16, "cpu")


def test_cut_inside_a_chunk():
    check_cut_inside_a_chunk(torch.float32, "cpu")


def small(T=6, *, seed=0):
    problem = random_problem(depth=2, chunk_size=4, T=T, H=1, B=1, K=2, V=2, hidden=3, max_surprise=2.0, seed=seed)
    weights = problem.state.weights

    def call(*leaves):
        state = MemoryState.from_weights(leaves[6:])
        y, state, surprise = neural_memory(
            *leaves[:6], state, chunk_size=4, max_surprise=2.0, return_surprise=True, backend="triton"
        )
        return y, surprise, *state.weights

    return call, [x.clone().requires_grad_() for x in (*problem.tensors, *weights)]


def loss(outputs):
    return sum((x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)).sum() for x in outputs)


def test_results_do_not_come_from_memory_that_was_never_written():
    problem = random_problem(depth=2, chunk_size=4, T=6, H=1, B=1, K=2, V=2, hidden=3, max_surprise=2.0)
    check_unwritten_memory_and_races(problem, "cpu")


def test_checkpoint_and_grad_modes():
    call, leaves = small()
    outputs = call(*leaves)
    expected = torch.autograd.grad(loss(outputs), leaves)
    again = torch.utils.checkpoint.checkpoint(call, *leaves, use_reentrant=False)
    for a, b in zip(torch.autograd.grad(loss(again), leaves), expected, strict=True):
        assert torch.equal(a, b)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for a, b in zip(call(*leaves), outputs, strict=True):
                assert torch.equal(a, b)


def test_full_graph():
    """In a process of its own: the shape checks of `conftest.py` cannot be traced."""
    script = Path(__file__).parents[1] / "helpers" / "full_graph.py"
    done = subprocess.run([sys.executable, "-P", script], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["fresh", "carried", "layer", "lengths", "chunked"]


def test_autocast_does_not_reach_the_memory():
    call, leaves = small()
    leaves = [x.detach().float().requires_grad_() for x in leaves]
    expected = call(*leaves)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = call(*leaves)
        gradient = torch.autograd.grad(loss(got), leaves)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)
    for a, b in zip(gradient, torch.autograd.grad(loss(expected), leaves), strict=True):
        assert torch.equal(a, b)


def test_operators_pass_opcheck():
    """Schema, fake kernels and autograd registration, as PyTorch checks them."""
    g = torch.Generator().manual_seed(0)
    N, G, C, K = 3, 1, 2, 2
    q, k, v = (torch.randn(N, G, C, K, generator=g).requires_grad_() for _ in range(3))
    alpha, eta, theta = (torch.rand(N, G, C, generator=g).requires_grad_() for _ in range(3))
    state = torch.randn(G, 3, K * K, generator=g).requires_grad_()
    arguments = (q, k, v, alpha, eta, theta, None, torch.tensor([2]), state, 1.0, 0, 1, True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(fused.memory_forward, arguments, test_utils=tests)
    with torch.no_grad():
        y, surprise, final, kept = fused.memory_forward(*arguments)
    given = (torch.ones_like(y), torch.ones_like(surprise), torch.ones_like(final))
    saved = (*(x.detach() for x in arguments[:6]), None, arguments[7], state.detach(), kept, 1.0, 0, 1)
    torch.library.opcheck(fused.memory_backward, (*given, *saved), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated"
)  # PyTorch's own, when a dual tensor is first made
def test_forward_mode_is_refused():
    call, leaves = small(T=2)
    with torch.autograd.forward_ad.dual_level():
        leaves[0] = torch.autograd.forward_ad.make_dual(leaves[0].detach(), torch.ones_like(leaves[0]))
        with pytest.raises(RuntimeError, match='no forward-mode derivative; backend="reference" has'):
            call(*leaves)


def test_backward_leaves_the_gradients_it_is_given():
    call, leaves = small()
    outputs = call(*leaves)
    given = [torch.ones_like(x) for x in outputs]
    torch.autograd.backward(outputs, given)
    assert all((x == 1).all() for x in given)


@pytest.mark.parametrize("result", [0, 1, -1], ids=["y", "surprise", "state"])
def test_gradients_of_one_result_alone(result):
    """The others have none: as if those were zero."""
    call, leaves = small(T=5)
    outputs = call(*leaves)
    alone = torch.autograd.grad(outputs[result].sum(), leaves, retain_graph=True, materialize_grads=True)
    with_zeros = sum(x.sum() * (1.0 if x is outputs[result] else 0.0) for x in outputs)
    every = torch.autograd.grad(with_zeros, leaves, materialize_grads=True)
    assert any(x.any() for x in alone)
    for got, expected in zip(alone, every, strict=True):
        assert_equal_to(got, expected, name="gradient")


def test_no_second_derivative():
    call, leaves = small(T=2)
    (first,) = torch.autograd.grad(loss(call(*leaves)), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="memory_backward"):
        first.sum().backward()


def test_no_tokens():
    call, leaves = small()
    y, surprise, *weights = call(*(x[:, :0] for x in leaves[:6]), *leaves[6:])
    assert y.shape == (1, 0, 1, 2)
    assert surprise.shape == (1, 0, 1)
    for a, b in zip(weights, leaves[6:], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
def test_the_layer_on_the_kernels(autocast):
    check_layer("triton", "cpu", autocast=autocast)


def test_the_forecaster_on_the_kernels_in_bfloat16_autocast():
    options = {"patch_size": 8, "dim": 4, "heads": 1, "expansion": 1, "num_persistent": 1}
    models = [
        SimbaForecaster(24, 4, backend=b, dropout=0.0, head_dropout=0.0, **options) for b in ("triton", "chunked")
    ]
    models[1].load_state_dict(models[0].state_dict())
    past = torch.randn(1, 24, generator=torch.Generator().manual_seed(0))
    gradients = []
    for model in models:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            forecast = model(past)[0]
        gradients.append((forecast, *torch.autograd.grad(loss([forecast]), list(model.parameters()))))
    for a, b in zip(*gradients, strict=True):
        assert_equal_to(a, b, name="forecaster", tolerance=1e-2)  # one rounding to bfloat16 may fall the other way


def test_distributed_data_parallel(tmp_path, monkeypatch):
    """One process of one: hooks on every parameter, which all must take part."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    layer = NeuralMemory(4, heads=1, expansion=1, chunk_size=2, backend="triton")
    x = torch.randn(1, 3, 4)
    expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(layer)
        parallel(x).square().sum().backward()
        del parallel  # were it the last to hold the group, it would wait for threads that wait for Python's lock
    finally:
        torch.distributed.destroy_process_group()
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)
