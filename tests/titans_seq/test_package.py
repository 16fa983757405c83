"""`import titans_seq` is quick, and has every name all the same."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import titans_seq
from titans_seq import datamodules
from titans_seq.kernels.compiling import constant_result

COMPILER = {"torch._dynamo", "torch._inductor", "triton", "sympy"}
FIELDS = {"lightning", "pandas", "gluonts", "matplotlib", "sklearn", "scipy", "hydra", "omegaconf", "plotly"}


@pytest.mark.parametrize("package", [titans_seq, datamodules], ids=lambda package: package.__name__)
def test_every_name_is_there_and_imported_for_type_checkers(package: ModuleType) -> None:
    tree = ast.parse(Path(package.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imports if not node.module.endswith(".lazy") for alias in node.names}
    assert names | {"__version__"} == {*package.__all__, "__version__"}
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    with pytest.raises(AttributeError, match="has no attribute 'Titan'"):
        _ = package.Titan


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import titans_seq, titans_seq.datamodules", {"torch", "numpy", *COMPILER, *FIELDS}),
        ("from titans_seq import NeuralMemory, save_state", COMPILER | FIELDS),
        ("from titans_seq.kernels import neural_memory", COMPILER | FIELDS),
        ("from titans_seq.cli.main import parse; parse(['fit', 'dna'])", {"torch", "numpy", *COMPILER, *FIELDS}),
        (
            "from titans_seq.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass",
            {"torch", "numpy", *COMPILER, *FIELDS},
        ),
        ("from titans_seq.datamodules.forecast import registry", {"torch", "lightning", "sklearn", *COMPILER}),
    ],
)
def test_what_an_import_does_not_bring(code: str, absent: set[str]) -> None:
    """Modules, not seconds: PyTorch's compiler takes as long as PyTorch, and the fields' libraries longer."""
    code += "\nimport sys; print('imported:', *sys.modules)"
    out = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    imported = out.rpartition("imported: ")[2].split()
    assert "sys" in imported and not absent.intersection(imported)


def test_the_compiler_reads_our_marks_as_its_own() -> None:
    assert vars(constant_result(lambda: 0)) == vars(torch.compiler.assume_constant_result(lambda: 0))
