"""What the Triton kernels are asked, once for two ways to run them: interpreted in float64 (`test_fused.py`), and
compiled in float32 and bfloat16 on a GPU (`test_gpu.py`). All widths are small and most are no multiple of a tile.
"""

import contextlib
from functools import partial

import torch
from accuracy import assert_as_accurate_as, assert_equal_to
from memory_oracle import OracleState, Problem, gradients, oracle_memory, random_problem
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from titans_seq import NeuralMemory
from titans_seq.kernels import MemoryState, neural_memory

SOME = torch.tensor([[1, 1, 0, 1, 1, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 0, 0, 1]], dtype=torch.bool)
CASES = {
    "depth 1, three chunks, last one short": {"depth": 1, "chunk_size": 4, "T": 9, "H": 2, "B": 1},
    "depth 1, clipped": {"depth": 1, "chunk_size": 2, "T": 3, "H": 1, "B": 1, "max_surprise": 1.0},
    "depth 2, three chunks in two groups": {"depth": 2, "chunk_size": 4, "T": 9, "H": 1, "B": 1, "max_surprise": 3.0},
    "depth 3": {"depth": 3, "chunk_size": 4, "T": 5, "H": 1, "B": 1, "max_surprise": 3.0},
    "depth 4, shorter than a chunk": {"depth": 4, "chunk_size": 4, "T": 2, "H": 1, "B": 1},
    "online": {"depth": 2, "chunk_size": 1, "T": 3, "H": 1, "B": 1},
    "from inside a chunk, masked": {"depth": 2, "chunk_size": 4, "T": 9, "H": 1, "positions": (1, 3), "mask": SOME},
    "sums over slots in two parts": {
        "depth": 2,
        "chunk_size": 20,
        "T": 21,
        "H": 1,
        "B": 1,
        "K": 9,
        "V": 10,
        "hidden": 17,
    },
    "several tiles, none of them full": {
        "depth": 2,
        "chunk_size": 20,
        "T": 23,
        "H": 1,
        "B": 1,
        "K": 18,
        "V": 20,
        "hidden": 33,
    },
    # widths and slots that the tiles divide: loads without masks, as in the cases that matter
    "full tiles": {"depth": 2, "chunk_size": 16, "T": 32, "H": 1, "B": 1, "K": 16, "V": 32, "hidden": 48},
}


def extreme_gates() -> Problem:
    """Gates of exactly 0 and 1, and a key of zeros."""
    problem = random_problem(depth=2, chunk_size=4, T=7, H=1, B=1, max_surprise=2.0)
    _, k, _, alpha, eta, theta = problem.tensors
    k[0, 4] = 0
    alpha[0, 1], alpha[0, 5], eta[0, 2], eta[0, 5], theta[0, 3] = 1, 0, 0, 1, 0
    return problem


PROBLEMS = {
    **{name: partial(random_problem, **description) for name, description in CASES.items()},
    "gates of exactly 0 and 1, a key of zeros": extreme_gates,
}


def gates_of_a_chunk() -> Problem:
    """For `spread`."""
    return random_problem(depth=2, chunk_size=3, T=8, H=1, B=1)


def spread(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Only the gate of a chunk's first token counts, for the operation and the oracle alike."""
    first = torch.arange(8) // 3 * 3
    return (*tensors[:3], tensors[3][:, first], tensors[4][:, first], tensors[5])


def run(tensors, state, *, backend="triton", dtype=torch.float64, device="cpu", **options):
    """The operation in `dtype` on a device, from and to tensors on the CPU."""
    wide = torch.promote_types(dtype, torch.float32)
    fields = (tuple(w.to(device, wide) for w in part) for part in (state.weights, state.momentum, state.chunk_start))
    own = MemoryState(*fields, state.position.to(device), options["chunk_size"])
    if options.get("mask") is not None:
        options["mask"] = options["mask"].to(device)
    tensors = (x.to(device, dtype) for x in tensors)
    y, own, surprise = neural_memory(*tensors, own, **options, return_surprise=True, backend=backend)
    return y.cpu(), own.to(torch.device("cpu")), surprise.cpu()


def results(y, state, surprise) -> dict[str, Tensor]:
    return {
        "y": y,
        "surprise": surprise,
        "position": state.position,
        **{
            f"{part}[{i}]": w
            for part in ("weights", "momentum", "chunk_start")
            for i, w in enumerate(getattr(state, part))
        },
    }


def everything(call, problem: Problem) -> dict[str, Tensor]:
    """What `call(tensors, state)` gives, and the gradient of everything it is given."""
    with torch.no_grad():
        found = results(*call(problem.tensors, problem.state))
    return found | {f"gradient of {name}": x for name, x in gradients(call, problem).items()}


class RoundedProducts(TorchDispatchMode):
    """Both sides of every matrix product are rounded to bfloat16: what plain PyTorch makes at that precision."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        first = {torch.ops.aten.bmm.default: 0, torch.ops.aten.mm.default: 0, torch.ops.aten.baddbmm.default: 1}.get(
            func
        )
        if first is not None:
            args = (*args[:first], *(x.bfloat16().to(x.dtype) for x in args[first : first + 2]), *args[first + 2 :])
        return func(*args, **(kwargs or {}))


def rounded(problem: Problem, dtype: torch.dtype) -> Problem:
    """In float64, with numbers that tokens of `dtype` and states of float32 can hold."""
    state = problem.state
    weights, momentum, start = (
        tuple(w.float().double() for w in part) for part in (state.weights, state.momentum, state.chunk_start)
    )
    state = OracleState(weights, momentum, start, state.position)
    given = tuple(x.to(dtype).double() for x in problem.tensors)
    return Problem(given, state, problem.chunk_size, problem.max_surprise, problem.mask)


def run_in_two(tensors, state, *, cut: int, **options):
    """The first `cut` tokens, then the others from the state these left."""
    first, state, before = run([x[:, :cut] for x in tensors], state, **options)
    second, state, after = run([x[:, cut:] for x in tensors], state, **options)
    return torch.cat([first, second], dim=1), state, torch.cat([before, after], dim=1)


def assert_as_accurate_as_the_recurrence(problem: Problem, kernels, dtype, *, before=tuple) -> None:
    """Every value and gradient of `kernels(tensors, state)`: at most twice the error of the plain recurrence in
    `dtype`.

    problem: `rounded`. before: what is done to the tensors first, in all.
    """
    options = problem.options()
    exact = everything(lambda x, s: oracle_memory(*before(x), s, **options), problem)
    got = everything(lambda x, s: kernels(before(x), s), problem)
    with RoundedProducts() if dtype == torch.bfloat16 else contextlib.nullcontext():
        plain = everything(lambda x, s: run(before(x), s, dtype=torch.float32, backend="reference", **options), problem)
    assert torch.equal(got.pop("position"), exact.pop("position"))
    atol = 1e-5 if dtype == torch.float32 else 4e-3  # one rounding of the result itself
    for name, value in exact.items():
        scale = value.abs().max().clamp_min(1e-2)
        assert_as_accurate_as(
            got[name].double() / scale, plain[name].double() / scale, value / scale, name=name, atol=atol
        )


def check_one_call(problem: Problem, dtype: torch.dtype, device: str) -> None:
    problem = rounded(problem, dtype)
    kernels = partial(run, dtype=dtype, device=device, **problem.options())
    assert_as_accurate_as_the_recurrence(problem, kernels, dtype)


def check_gates_of_a_chunk(dtype: torch.dtype, device: str) -> None:
    problem = rounded(gates_of_a_chunk(), dtype)
    kernels = partial(run, dtype=dtype, device=device, gate_per="chunk", **problem.options())
    assert_as_accurate_as_the_recurrence(problem, kernels, dtype, before=spread)


def check_cut_inside_a_chunk(dtype: torch.dtype, device: str) -> None:
    problem = rounded(random_problem(depth=2, chunk_size=4, T=9, H=1, B=1, max_surprise=3.0), dtype)
    kernels = partial(run_in_two, cut=6, dtype=dtype, device=device, **problem.options())
    assert_as_accurate_as_the_recurrence(problem, kernels, dtype)


def check_unwritten_memory_and_races(problem: Problem, device: str) -> None:
    """Every allocation starts as NaN the second time, and both times give the same."""
    call = partial(run, dtype=torch.float32, device=device, **problem.options())
    expected = everything(call, problem)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.empty(3, device=device).isnan().all()
        got = everything(call, problem)
    finally:
        torch.use_deterministic_algorithms(False)
    for name, value in expected.items():
        assert_equal_to(got[name], value, name=name, tolerance=1e-6)


def check_layer(backend: str, device: str, *, autocast: bool) -> None:
    """Against the same layer on `chunked`, on the same device."""
    # under autocast one rounding to bfloat16 may fall the other way
    tolerance = 1e-2 if autocast else 1e-5 if device == "cpu" else 1e-4
    got, expected = (layer_results(b, device, autocast=autocast) for b in (backend, "chunked"))
    for name, value in expected.items():
        assert_equal_to(got[name], value, name=name, tolerance=tolerance)


def layer_results(backend: str, device: str, *, autocast: bool) -> dict[str, Tensor]:
    """A stream in two calls through one layer, cut inside a chunk, and the gradients of its parameters; on the CPU."""
    torch.manual_seed(0)
    layer = NeuralMemory(8, heads=2, chunk_size=4, num_persistent=1, backend=backend)
    x = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0)).to(device)
    layer.to(device)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
        first, state = layer(x[:, :3], return_state=True)
        y = torch.cat([first, layer(x[:, 3:], state=state)], dim=1)
    weights = torch.linspace(-1, 1, y.numel(), device=device).view_as(y)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    found = zip(names, torch.autograd.grad((y * weights).sum(), parameters), strict=True)
    return {"y": y.detach().cpu().float(), **{f"gradient of {name}": x.cpu() for name, x in found}}
