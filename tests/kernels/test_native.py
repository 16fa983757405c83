"""The compiled C, each build and both kernels: values and every gradient against the per-token oracle, and what only
compiled code can get wrong."""

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import memory_cases
import pytest
import torch
from accuracy import assert_as_accurate_as, assert_equal_to
from memory_oracle import Problem, gradients, oracle_memory, random_problem
from native_builds import BUILDS, needs_build

from titans_seq.kernels import MemoryState, native_library, native_memory, neural_memory

ROOT = Path(__file__).parents[2]
pytestmark = needs_build
KERNELS = ("lanes", "rows")


@pytest.fixture(params=BUILDS)
def build(request, monkeypatch) -> str:
    """Each build for this processor, in turn the one that runs."""
    loaded = native_library.load(native_library.path_of(request.param))
    monkeypatch.setattr(native_memory, "library", lambda: loaded)
    return request.param


@pytest.fixture(params=KERNELS)
def kernel(request, monkeypatch) -> str:
    monkeypatch.setattr(native_memory, "_fits_lanes", lambda *_: request.param == "lanes")
    return request.param


def run(tensors, state, *, dtype=torch.float64, backend="native", **options):
    fields = (tuple(w.to(dtype) for w in part) for part in (state.weights, state.momentum, state.chunk_start))
    own = MemoryState(*fields, state.position, options["chunk_size"])
    tensors = (x.to(dtype) for x in tensors)
    return neural_memory(*tensors, own, **options, return_surprise=True, backend=backend)


def everything(problem: Problem, **options):
    return memory_cases.everything(lambda t, s: run(t, s, **problem.options(), **options), problem)


def oracle(problem: Problem):
    return memory_cases.everything(lambda t, s: oracle_memory(*t, s, **problem.options()), problem)


def test_native_was_built_for_this_processor():
    assert native_library.library() is not None
    assert native_library.library()._name == str(native_library.path_of(BUILDS[0]))


@pytest.mark.parametrize("problem", memory_cases.PROBLEMS.values(), ids=memory_cases.PROBLEMS)
def test_values_and_gradients_in_float64(build, kernel, problem):
    """The same code as in float32, compiled for numbers that leave no room for an error of the formula."""
    problem = problem()
    got, exact = everything(problem), oracle(problem)
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=name)


@pytest.mark.parametrize("problem", memory_cases.PROBLEMS.values(), ids=memory_cases.PROBLEMS)
def test_as_accurate_as_the_plain_recurrence_in_float32(build, kernel, problem):
    problem = problem()
    exact = oracle(problem)
    got, plain = (everything(problem, dtype=torch.float32, backend=backend) for backend in ("native", "reference"))
    for name, value in exact.items():
        scale = max(1.0, value.double().abs().max().item()) if value.numel() else 1.0
        assert_as_accurate_as(
            got[name].double() / scale, plain[name].double() / scale, value.double() / scale, name=name, atol=1e-6
        )


@pytest.mark.parametrize("memories", range(1, 18))
def test_every_number_of_memories_beside_each_other(build, memories):
    """Lanes behind the last memory, from one to all but one."""
    problem = random_problem(depth=2, chunk_size=4, T=6, B=memories, H=1, K=3, V=2, hidden=5, max_surprise=1.0)
    exact = gradients(lambda x, s: oracle_memory(*x, s, **problem.options()), problem)
    got = gradients(lambda x, s: run(x, s, **problem.options()), problem)
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=f"gradient of {name}")


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 15, 16, 17, 33])
@pytest.mark.parametrize("slots", [1, 3, 4, 5, 16, 17])
def test_every_remainder_of_a_tile(kernel, width, slots):
    problem = random_problem(
        depth=2, chunk_size=slots, T=slots + 1, B=1, H=1, K=width, V=width + 1, hidden=width + 2, max_surprise=1.0
    )
    exact = gradients(lambda x, s: oracle_memory(*x, s, **problem.options()), problem)
    got = gradients(lambda x, s: run(x, s, **problem.options()), problem)
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=f"gradient of {name}")


@pytest.mark.parametrize(
    ("memories", "widths", "lanes"),
    [
        (1792, (8, 16, 8), True),  # a forecaster
        (16, (16, 32, 16), True),
        (4, (16, 32, 16), False),  # a quarter of the lanes
        (8, (64, 64), False),
        (64, (64, 64), True),
        (1792, (64, 256, 64), False),  # states larger than a cache
    ],
)
def test_small_memories_that_fill_the_lanes_lie_there(memories, widths, lanes):
    assert native_memory._fits_lanes(memories, widths, 16) == lanes


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("T", [1, 4, 11])
def test_a_fresh_state_is_its_weights(build, kernel, depth, T):
    """Neither the chunk start nor the momentum is read then, and the weights get the chunk start's gradient too."""
    problem = random_problem(depth=depth, chunk_size=4, T=T, B=3, H=2, K=3, V=3, hidden=5, max_surprise=1.0)
    results = {}
    for backend in ("native", "reference"):
        weights = tuple(w.clone().requires_grad_() for w in problem.state.weights)
        tokens = [x.clone().requires_grad_() for x in problem.tensors]
        y = neural_memory(
            *tokens, MemoryState.from_weights(weights), **problem.options(), return_state=False, backend=backend
        )
        results[backend] = (y, *torch.autograd.grad(y.square().sum(), [*tokens, *weights]))
    for got, exact in zip(*results.values(), strict=True):
        assert_equal_to(got, exact, name="a result")


def test_momentum_that_is_one_number_everywhere_is_read(build, kernel):
    problem = random_problem(depth=2, chunk_size=4, T=6)
    for number in (0.0, 0.25):
        momentum = tuple(torch.full((), number, dtype=w.dtype).expand(w.shape) for w in problem.state.weights)
        state = replace(problem.state, momentum=momentum)
        got, exact = (run(problem.tensors, state, backend=b, **problem.options()) for b in ("native", "reference"))
        assert_equal_to(got[0], exact[0], name="y")


def big() -> tuple[Problem, dict[str, torch.Tensor]]:
    problem = random_problem(depth=2, chunk_size=8, T=70, B=5, H=9, K=8, V=8, hidden=16, max_surprise=1.0)
    return problem, everything(problem, dtype=torch.float32)


@pytest.fixture(params=["OpenMP", "own"])
def pool(request):
    """Whose threads the work runs in."""
    before = [pool.value for pool in native_library._pools]
    if request.param == "own":
        native_library._leave_pools()
    elif not all(before):
        pytest.skip("no OpenMP in this process")
    yield
    for pool, value in zip(native_library._pools, before, strict=True):
        pool.value = value


def test_results_do_not_depend_on_the_number_of_threads(kernel, pool, monkeypatch):
    results = []
    for threads in (1, 2, 3, 7):
        monkeypatch.setattr(native_memory._Call, "_threads", lambda _, threads=threads: threads)
        results.append(big()[1])
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())


def test_one_thread_for_little_work_and_those_of_pytorch_for_much(monkeypatch):
    problem, _ = big()
    asked = []
    share = native_memory._Call._threads
    monkeypatch.setattr(native_memory._Call, "_threads", lambda call: asked.append(share(call)) or 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    for work in (2**40, 1):
        monkeypatch.setattr(native_memory, "WORK_OF_A_THREAD", work)
        run(problem.tensors, problem.state, **problem.options())
    assert asked == [1, 5]


def test_threads_of_python_and_a_fork_at_once(kernel, pool, monkeypatch):
    monkeypatch.setattr(native_memory._Call, "_threads", lambda _: 3)
    expected = big()[1]
    results = []
    threads = [threading.Thread(target=lambda: results.append(big()[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(got[name], value) for got in results for name, value in expected.items())
    child = os.fork()
    if child == 0:
        same = all(torch.equal(value, expected[name]) for name, value in big()[1].items())
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_poison_in_one_memory_does_not_reach_its_neighbours(kernel, poison):
    problem, _ = big()
    tensors = [x.clone() for x in problem.tensors]
    clean = run(tensors, problem.state, dtype=torch.float32, **problem.options())[0]
    for x in tensors[:3]:
        x[2, 30, 4] = poison
    y = run(tensors, problem.state, dtype=torch.float32, **problem.options())[0]
    others = torch.ones(5, 9, dtype=torch.bool)
    others[2, 4] = False
    assert torch.equal(y.transpose(1, 2)[others], clean.transpose(1, 2)[others])
    assert torch.equal(y[2, :24, 4], clean[2, :24, 4])  # chunks before it too


def test_tokens_are_read_and_written_where_they_lie(kernel):
    """Slices, transposes and expanded weights, as layers hand them over, without copies that change a number."""
    problem, _ = big()
    *tokens, _, _, _ = problem.tensors
    packed = torch.stack([x.float() for x in tokens], dim=3).transpose(0, 1).contiguous().transpose(0, 1)
    q, k, v = packed.unbind(3)
    assert not q.is_contiguous()
    gates = [torch.stack([x.float(), x.float()], dim=-1)[..., 0] for x in problem.tensors[3:]]
    weights = tuple(w[:1].float().expand(5, -1, -1, -1) for w in problem.state.weights)
    strided = neural_memory(q, k, v, *gates, MemoryState.from_weights(weights), chunk_size=8, backend="native")
    plain = neural_memory(
        *(x.contiguous() for x in (q, k, v, *gates)),
        MemoryState.from_weights(tuple(w.contiguous() for w in weights)),
        chunk_size=8, backend="native",
    )  # fmt: skip
    assert torch.equal(strided[0], plain[0])


def test_gates_of_a_chunk(kernel):
    problem = memory_cases.gates_of_a_chunk()

    def call(backend):
        def of(tensors, state):
            spread = memory_cases.spread(tensors)
            if backend is None:
                return oracle_memory(*spread, state, **problem.options())
            return run(spread, state, gate_per="chunk", **problem.options())

        return gradients(of, problem)

    exact, got = call(None), call("native")
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=name)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("T", [1, 9])
def test_the_operators_are_what_pytorch_expects(kernel, T, masked):
    problem = random_problem(depth=2, chunk_size=4, T=T, K=3, V=3, hidden=4, max_surprise=1.0)
    mask = torch.rand(2, T, generator=torch.Generator().manual_seed(0)) < 0.7 if masked else None
    tensors = [x.clone().requires_grad_() for x in problem.tensors]
    state = [x.clone().requires_grad_() for x in (*problem.state.weights,) * 3]
    for parts, return_state in ((3, True), (2, False)):
        given = state[: 2 * parts]
        arguments = (*tensors, given, 2, torch.zeros(2, dtype=torch.int64), mask, 4, 1.0, False, True, return_state)
        torch.library.opcheck(native_memory.native_forward, arguments)


ONE_GRAPH = """
import torch
from torch._dynamo.testing import CompileCounter
from titans_seq import NeuralMemory
layer, counter = NeuralMemory(8, heads=2, chunk_size=4), CompileCounter()
compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
for tokens in (3, 4, 9, 30):
    x = torch.randn(2, tokens, 8)
    torch.testing.assert_close(compiled(x), layer(x))
print(counter.frame_count, "graph")
for wide in (8, 256):  # one memory in each lane, and vectors along rows
    found = torch._dynamo.explain(NeuralMemory(wide, heads=2))(torch.randn(2, 9, wide))
    print(found.graph_count, "graph,", found.graph_break_count, "breaks")
"""


def test_a_compiled_layer_is_one_graph_at_all_lengths():
    """In a process of its own: shapes in annotations, which tests check, cannot be traced."""
    done = subprocess.run([sys.executable, "-P", "-c", ONE_GRAPH], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["1 graph", *["1 graph, 0 breaks"] * 2], done.stderr[-3000:]


def test_results_that_nobody_reads_bring_no_zeros(kernel, monkeypatch):
    problem = random_problem(depth=2, chunk_size=2, T=7, H=1, max_surprise=1.0)
    leaves = [x.clone().requires_grad_() for x in problem.tensors]
    y = run(leaves, problem.state, **problem.options())[0]
    given, backward = [], native_memory.native_backward
    monkeypatch.setattr(native_memory, "native_backward", lambda *x: given.append(x[1:3]) or backward(*x))
    y.square().sum().backward()
    assert given == [(None, [])]  # of the surprise and of the final state
    assert all(x.grad is not None for x in leaves)


SANITIZED = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
import torch
from memory_oracle import random_problem
from titans_seq.kernels import MemoryState, native_library, native_memory, neural_memory
loaded = native_library.load(Path({library!r}))
native_memory.library = native_library.library = lambda: loaded
native_memory.WORK_OF_A_THREAD = 1
import memory_cases
for in_lanes in (True, False):
    native_memory._fits_lanes = lambda *_: in_lanes
    for make in memory_cases.PROBLEMS.values():
        for dtype in (torch.float32, torch.float64):
            problem = make()
            parts = (problem.state.weights, problem.state.momentum, problem.state.chunk_start)
            fields = [tuple(w.to(dtype).requires_grad_() for w in part) for part in parts]
            own = MemoryState(*fields, problem.state.position, problem.chunk_size)
            tensors = [x.to(dtype).requires_grad_() for x in problem.tensors]
            results = neural_memory(*tensors, own, **problem.options(), return_surprise=True, backend="native")
            (results[0].sum() + results[2].sum() + sum(w.sum() for w in results[1].weights)).backward()
            fresh = MemoryState.from_weights(fields[0])
            neural_memory(*tensors, fresh, **problem.options(), return_state=False, backend="native").sum().backward()
native_library.NUMBERS_OF_A_THREAD = 1
import native_passes
for case in native_passes.CASES.values():
    native_passes.assert_right(case())
    results = native_passes.everything(case(), "native", torch.float32)
    assert all(x.isfinite().all() for x in results.values())
print("clean")
"""


# every byte of new memory is 255, which makes NaN
POISON = "detect_leaks=0:malloc_fill_byte=255:max_malloc_fill_size=1000000000"


def test_sanitizers_find_nothing(tmp_path):
    """AddressSanitizer and UndefinedBehaviorSanitizer over both kernels, forward and backward."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed")
    folder = ROOT / "kernels" / "native"
    library = tmp_path / "sanitized.so"
    sources = [str(path) for path in sorted(folder.glob("*.c"))]
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-fno-strict-aliasing", "-pthread"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-DLANES_OF_FLOAT=8"]
    subprocess.run([compiler, *flags, *checks, "-shared", "-fPIC", *sources, "-o", str(library)], check=True)
    runtime = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    code = SANITIZED.format(paths=[str(ROOT), str(ROOT / "tests" / "helpers")], library=str(library))
    environment = os.environ | {"LD_PRELOAD": runtime, "ASAN_OPTIONS": POISON, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "clean", done.stderr[-3000:]
