"""The C under other compilers than the one that built this install: no warnings, and with clang the same numbers."""

import ast
import shutil
import subprocess
from functools import partial
from pathlib import Path

import memory_cases
import pytest
from accuracy import assert_equal_to
from memory_oracle import oracle_memory

from titans_seq.kernels import MemoryState, native_library, native_memory, neural_memory

ROOT = Path(__file__).parents[2]
STRICT = ["-Wall", "-Wextra", "-Werror"]


def flags() -> list[str]:
    """Those of setup.py, which cannot be imported without building."""
    assigned = {
        node.targets[0].id: node.value
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    return ast.literal_eval(assigned["FLAGS"])


def compile_with(compiler: str, library: Path) -> Path:
    """The build without flags of a processor: SSE2 on x86-64, NEON on arm64."""
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    sources = [str(path) for path in sorted((ROOT / "kernels" / "native").glob("*.c"))]
    command = [compiler, *flags(), *STRICT, "-DLANES_OF_FLOAT=4", "-pthread", "-shared", "-fPIC"]
    done = subprocess.run([*command, *sources, "-o", str(library)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return library


@pytest.fixture(scope="module")
def clang(tmp_path_factory):
    return native_library.load(compile_with("clang", tmp_path_factory.mktemp("clang") / "clang.so"))


def oracle(tensors, state, **options):
    return oracle_memory(*tensors, state, **options)


def native(tensors, state, **options):
    own = MemoryState(state.weights, state.momentum, state.chunk_start, state.position, options["chunk_size"])
    return neural_memory(*tensors, own, **options, return_surprise=True, backend="native")


@pytest.mark.parametrize("in_lanes", [True, False], ids=["lanes", "rows"])
@pytest.mark.parametrize("problem", memory_cases.PROBLEMS.values(), ids=memory_cases.PROBLEMS)
def test_values_and_gradients_with_clang(clang, problem, in_lanes, monkeypatch):
    monkeypatch.setattr(native_memory, "library", lambda: clang)
    monkeypatch.setattr(native_memory, "_fits_lanes", lambda *_: in_lanes)
    problem = problem()
    got, exact = (memory_cases.everything(partial(call, **problem.options()), problem) for call in (native, oracle))
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=name)


def test_arm64(tmp_path):
    """Compiles without a warning, and into NEON; machines of its own run it where the wheels are made."""
    library = compile_with("aarch64-linux-gnu-gcc", tmp_path / "arm64.so")
    command = ["aarch64-linux-gnu-objdump", "--disassemble", str(library)]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert code.count("fmla") > 100
