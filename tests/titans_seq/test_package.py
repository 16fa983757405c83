"""`import titans_seq` is quick, and has every name all the same."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import titans_seq
from titans_seq import datamodules


@pytest.mark.parametrize("package", [titans_seq, datamodules])
def test_every_name_is_there_and_imported_for_type_checkers(package: ModuleType) -> None:
    tree = ast.parse(Path(str(package.__file__)).read_text())
    checked = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert checked == set(package.__all__) - {"__version__"}
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    with pytest.raises(AttributeError, match="has no attribute 'Titan'"):
        _ = package.Titan


def test_the_layer_and_its_files_import_neither_pandas_nor_lightning() -> None:
    code = (
        "import sys\nfrom titans_seq import NeuralMemory, save_state\nprint({'pandas', 'lightning'} & {*sys.modules})"
    )
    out = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "set()\n"


def test_pytorch_is_imported_when_it_is_used() -> None:
    code = "import sys, titans_seq; print('torch' in sys.modules)\nfrom titans_seq import *; print(MAC.__module__)"
    out = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "titans_seq.variants"]
