"""The compiled kernels on a GPU, forward and every gradient, against the oracle in float64: `pytest -m gpu` on this
file.

`test_fused.py` runs what stands here in Triton's interpreter, some of it in these very functions. Compiling a kernel
takes
seconds: `--numprocesses` of pytest-xdist runs tests side by side.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from memory_cases import (
    PROBLEMS,
    check_cut_inside_a_chunk,
    check_gates_of_a_chunk,
    check_layer,
    check_one_call,
    check_unwritten_memory_and_races,
)
from memory_oracle import random_problem

from titans_seq.kernels import machine_of, resolve_backend
from titans_seq.kernels.support import triton_obstacle

fused = pytest.importorskip("titans_seq.kernels.fused", reason="triton is not installed (it exists for Linux only)")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is False"),
]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def _groups_of_two(monkeypatch):
    monkeypatch.setattr(fused, "SMALLEST_GROUP", 2)


def test_the_kernels_are_compiled_here():
    machine = machine_of("cuda", None)
    assert not machine.interpreted
    assert triton_obstacle(machine) is None
    assert resolve_backend("auto", machine) == "triton"


@DTYPES
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_as_accurate_as_the_plain_recurrence(problem, dtype):
    check_one_call(problem(), dtype, "cuda")


@DTYPES
def test_gates_of_a_chunk(dtype):
    check_gates_of_a_chunk(dtype, "cuda")


@DTYPES
def test_cut_inside_a_chunk(dtype):
    check_cut_inside_a_chunk(dtype, "cuda")


@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation", "ignore:.*CUBLAS_WORKSPACE_CONFIG")
@pytest.mark.parametrize(
    "case",
    [
        {"T": 23, "chunk_size": 20, "K": 18, "V": 20, "hidden": 33},
        {"T": 160, "chunk_size": 64, "K": 64, "V": 64, "hidden": 128},
    ],
    ids=["odd", "full tiles"],
)
def test_no_unwritten_memory_and_no_races(case):
    check_unwritten_memory_and_races(random_problem(depth=2, **case), "cuda")


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
def test_the_layer_takes_the_kernels_by_itself(autocast, monkeypatch):
    calls, own = [], fused.fused_memory
    monkeypatch.setattr(fused, "fused_memory", lambda *arguments: calls.append(1) or own(*arguments))
    check_layer("auto", "cuda", autocast=autocast)
    assert len(calls) == 2  # a stream in two calls


def test_full_graph():
    """In a process of its own: the shape checks of `conftest.py` cannot be traced."""
    script = Path(__file__).parents[1] / "helpers" / "full_graph.py"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-P", script, "cuda"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["fresh", "carried", "layer", "lengths", "chunked"]
