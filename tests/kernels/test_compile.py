"""The kernels compile for GPUs that are not there, fit them, keep to their bounds of spilled registers, and use no
plain tf32.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed (it exists for Linux only)")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "compile.py"
COMPILED = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}


def test_the_must_run_cases_compile_fit_and_keep_their_bounds(tmp_path):
    """In processes without Triton's interpreter. The table of registers, spills and shared memory is printed."""
    command = [sys.executable, SCRIPT, "--must", "--json", tmp_path / "rows.json"]
    done = subprocess.run(command, env=COMPILED, capture_output=True, text=True, check=False, timeout=900)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {(row["arch"], row["depth"], row["chunk_size"], row["precision"]) for row in rows} == {
        (arch, depth, chunk, precision)
        for arch in (80, 90, 100)
        for depth in (1, 2)
        for chunk in (16, 64)
        for precision in ("tf32x3", "bf16")
    }
    assert all(row["stack"] == 0 for row in rows if row["depth"] == 1)


def test_the_launchers_ask_for_what_is_compiled_here():
    """Signatures, constants and options of all kernels of a call with its backward, on a chip that Triton is told
    of.
    """
    command = [sys.executable, Path(__file__).parents[1] / "helpers" / "launches.py"]
    done = subprocess.run(command, env=COMPILED, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 32  # four kernels at two depths, chunk sizes and precisions
