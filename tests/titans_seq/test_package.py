"""`import titans_seq` is quick, and has every name all the same."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import titans_seq


def test_every_name_is_there_and_imported_for_type_checkers() -> None:
    tree = ast.parse(Path(titans_seq.__file__).read_text())
    checked = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert checked | {"__version__"} == set(titans_seq.__all__)
    for name in titans_seq.__all__:
        assert getattr(titans_seq, name) is not None
        assert name in dir(titans_seq)
    with pytest.raises(AttributeError, match="has no attribute 'Titan'"):
        _ = titans_seq.Titan


def test_pytorch_is_imported_when_it_is_used() -> None:
    code = "import sys, titans_seq; print('torch' in sys.modules)\nfrom titans_seq import *; print(MAC.__module__)"
    out = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "titans_seq.variants"]
