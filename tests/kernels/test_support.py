"""Which backend runs where: decided from a table of machines and cases, no device needed."""

import _ctypes
import logging
import shutil
import sys

import pytest
import torch

from titans_seq.kernels import native_library, support
from titans_seq.kernels.support import Case, Machine, machine_of, resolve_backend

H100 = Machine("cuda", (9, 0), installed=True, interpreted=False)
MACHINES = {
    "H100": H100,
    "A100": H100._replace(capability=(8, 0)),
    "V100": H100._replace(capability=(7, 0)),
    "CUDA without triton": H100._replace(installed=False),
    "ROCm": H100._replace(capability=(9, 4), rocm=True),
    "H100, interpreter": H100._replace(interpreted=True),
    "CPU": Machine("cpu", None, installed=True, interpreted=False, built=True),
    "CPU, interpreter": Machine("cpu", None, installed=True, interpreted=True, built=True),
    "CPU without a compiler": Machine("cpu", None, installed=True, interpreted=False),
    "Mac": Machine("mps", None, installed=False, interpreted=False),
}
CASES = {
    "usual": Case(torch.float32, (128,), 64),
    "bfloat16, depth 4": Case(torch.bfloat16, (256, 256, 256), 16),
    "linear": Case(torch.float32, (), 1),
    "float16": Case(torch.float16, (128,), 64),
    "float64": Case(torch.float64, (128,), 64),
    "long chunk": Case(torch.float32, (128,), 128),
    "uneven": Case(torch.float32, (128, 64), 64),
    "depth 5": Case(torch.float32, (128,) * 4, 64),
}
COVERED = ("usual", "bfloat16, depth 4", "linear", "float16", "depth 5")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("machine", MACHINES)
def test_auto_takes_the_kernels_of_the_device_for_cases_they_cover(machine, case):
    expected = "chunked"
    if machine in ("H100", "A100") and case in COVERED:
        expected = "triton"
    if machine in ("CPU", "CPU, interpreter") and case != "depth 5":
        expected = "native"
    assert resolve_backend("auto", MACHINES[machine], CASES[case]) == expected


@pytest.fixture
def install(monkeypatch, tmp_path):
    """The folder of an install without a build."""
    monkeypatch.setattr(native_library, "FOLDER", tmp_path)
    native_library._found.cache_clear()
    yield tmp_path
    native_library._found.cache_clear()


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (None, "not built: install a C compiler"),
        (__file__, r"native.base.so cannot be loaded \(.*native.base.so.*\): install titans-seq again"),
        (_ctypes.__file__, r"native.base.so cannot be loaded \(.*titans_sizes.*\): install titans-seq again"),
    ],
    ids=["no compiler", "no library", "another library"],
)
def test_an_install_without_a_usable_build_says_why_and_takes_chunked(install, file, why, caplog):
    if file is not None:
        shutil.copy(file, install / "native.base.so")
    support._say_once.cache_clear()
    machine = machine_of("cpu", None)
    assert resolve_backend("auto", machine, CASES["usual"]) == "chunked"
    (said,) = caplog.records
    assert said.levelname == "WARNING" and "\n" not in said.message
    with pytest.raises(RuntimeError, match=f"{why}.*auto"):
        resolve_backend("native", machine, CASES["usual"])


def test_a_source_tree_that_hides_the_install_is_named(install):
    (install / "native").mkdir()
    with pytest.raises(RuntimeError, match=r"source tree .*pip install -e \.` there"):
        resolve_backend("native", machine_of("cpu", None), CASES["usual"])


def test_native_where_it_cannot_run_names_the_obstacle_and_the_way_out():
    with pytest.raises(RuntimeError, match="on cuda, not on the CPU.*auto"):
        resolve_backend("native", H100, CASES["usual"])
    with pytest.raises(RuntimeError, match="does not cover depth 5.*auto"):
        resolve_backend("native", MACHINES["CPU"], CASES["depth 5"])


def test_windows_has_no_native_kernels(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert resolve_backend("auto", MACHINES["CPU without a compiler"], CASES["usual"]) == "chunked"
    with pytest.raises(RuntimeError, match="not built on Windows"):
        resolve_backend("native", MACHINES["CPU without a compiler"], CASES["usual"])


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        ("V100", "older than compute capability 8.0"),
        ("CUDA without triton", "not installed"),
        ("CPU", "on cpu"),
        ("ROCm", "not for ROCm"),
        ("Mac", "not installed"),
    ],
)
def test_triton_where_it_cannot_run_names_the_obstacle_and_the_way_out(machine, why):
    with pytest.raises(RuntimeError, match=f'{why}.*backend="auto"'):
        resolve_backend("triton", MACHINES[machine], CASES["usual"])


@pytest.mark.parametrize(
    ("case", "why"), [("float64", "float64"), ("long chunk", "chunk_size 128"), ("uneven", "widths")]
)
def test_triton_for_a_case_it_does_not_cover_never_falls_back(case, why):
    with pytest.raises(RuntimeError, match=f"does not cover.*{why}.*auto"):
        resolve_backend("triton", H100, CASES[case])


@pytest.mark.parametrize("machine", ["H100", "CPU, interpreter"])
def test_triton_where_it_runs(machine):
    assert resolve_backend("triton", MACHINES[machine], CASES["usual"]) == "triton"


def test_a_fallback_is_said_once(caplog, monkeypatch):
    support._say_once.cache_clear()
    monkeypatch.setattr(support, "log", logging.getLogger("a_logger_nobody_configured"))
    with caplog.at_level(logging.INFO, logger=support.log.name):
        for _ in range(3):
            resolve_backend("auto", H100, CASES["long chunk"])
    assert [record.message for record in caplog.records] == [
        "backend auto takes chunked, not triton: chunk_size 128, more than 64"
    ]


def test_this_machine(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert machine_of("cpu", None).interpreted
    monkeypatch.delenv("TRITON_INTERPRET")
    assert machine_of("cpu", None)[:2] == ("cpu", None)
    assert not machine_of("cpu", None).interpreted
