"""What a forged config.yaml could try: callables that would leave a file, by every path that leads to them.

The paths are found in what is loaded, so they follow the code when it moves.
"""

import functools
import importlib
import inspect
import io
import os
import pathlib
import pickle
import pkgutil
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

ROOTS = ("titans_seq", "lightning.pytorch.callbacks", "lightning.pytorch.trainer", "lightning.pytorch.cli")
DEEPEST = 3  # names after that of the module
MOST = 6  # paths to one callable that are tried


class _Unpickled:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def _pickled(mark: Path) -> str:
    path = mark.with_suffix(".pickle")
    path.write_bytes(pickle.dumps(_Unpickled(mark)))
    return str(path)


def _saved(mark: Path) -> str:
    path = mark.with_suffix(".pt")
    torch.save(_Unpickled(mark), path)
    return str(path)


def _copied(mark: Path) -> str:
    path = mark.with_suffix(".source")
    path.write_text("x")
    return str(path)


# callable -> arguments by which it leaves `mark`
LEAVING: dict[Any, Callable[[Path], dict[str, Any]]] = {
    np.load: lambda mark: {"file": _pickled(mark), "allow_pickle": True},
    np.save: lambda mark: {"file": f"{mark}", "arr": [1]},
    np.savez: lambda mark: {"file": f"{mark}", "x": [1]},
    np.savetxt: lambda mark: {"fname": f"{mark}", "X": [1]},
    torch.load: lambda mark: {"f": _saved(mark), "weights_only": False},
    torch.save: lambda mark: {"obj": 1, "f": f"{mark}"},
    pd.read_pickle: lambda mark: {"filepath_or_buffer": _pickled(mark)},
    pd.to_pickle: lambda mark: {"obj": 1, "filepath_or_buffer": f"{mark}"},
    os.mkdir: lambda mark: {"path": f"{mark}"},
    os.makedirs: lambda mark: {"name": f"{mark}"},
    os.system: lambda mark: {"command": f"touch {mark}"},
    io.open: lambda mark: {"file": f"{mark}", "mode": "w"},
    shutil.copy: lambda mark: {"src": _copied(mark), "dst": f"{mark}"},
    shutil.copyfile: lambda mark: {"src": _copied(mark), "dst": f"{mark}"},
    subprocess.run: lambda mark: {"args": ["touch", f"{mark}"]},
    subprocess.Popen: lambda mark: {"args": ["touch", f"{mark}"]},
    subprocess.check_output: lambda mark: {"args": ["touch", f"{mark}"]},
    tempfile.mkdtemp: lambda mark: {"prefix": f"{mark}-"},
    pathlib.Path: lambda mark: {},  # only to reach its methods, see `escapes`
}


@dataclass(frozen=True)
class Escape:
    """path: dotted. arguments: of what it leads to, in yaml's words, for a mark that must not appear."""

    path: str
    arguments: Callable[[Path], dict[str, Any]]

    def payload(self, mark: Path) -> dict[str, Any]:
        return {"_target_": self.path, **self.arguments(mark)}


def load_everything() -> None:
    """Import every module of ours."""
    import titans_seq

    for package in ("kernels", "datamodules", "cli", "forecast", "genomics", "language"):
        module = importlib.import_module(f"titans_seq.{package}")
        for found in pkgutil.iter_modules(module.__path__):
            if found.name not in ("triton_backward", "triton_forward", "triton_tiles", "harness"):  # need what may lack
                importlib.import_module(f"titans_seq.{package}.{found.name}")
    assert titans_seq.__path__


def callables() -> Iterator[tuple[str, Any]]:
    """Every attribute path from our modules and Lightning's through what they import, down to a callable."""
    for name in sorted(sys.modules):
        if name.startswith(ROOTS):
            yield from ((f"{name}.{path}", value) for path, value in _below(sys.modules[name], DEEPEST))


@functools.cache
def _below(module: types.ModuleType, depth: int) -> list[tuple[str, Any]]:
    found = []
    for name, value in sorted(vars(module).items()):
        if not name.isidentifier() or name.startswith("__"):
            continue
        if issubclass(type(value), types.ModuleType):
            found += [(f"{name}.{path}", inner) for path, inner in _below(value, depth - 1)] if depth > 1 else []
        elif callable(value):
            found.append((name, value))
    return found


def escapes(paths: Iterable[tuple[str, Any]]) -> list[Escape]:
    """To each callable of LEAVING some of the paths, from different modules; and to methods of pathlib.Path."""
    found: dict[Any, dict[str, str]] = {}
    for path, value in paths:
        if (inspect.isroutine(value) or inspect.isclass(value)) and value in LEAVING:
            found.setdefault(value, {}).setdefault(".".join(path.split(".")[:2]), path)
    made: list[Escape] = []
    for value, by_module in found.items():
        for path in list(by_module.values())[:MOST]:
            if value is pathlib.Path:
                made += [Escape(f"{path}.{name}", _method(path, *more)) for name, more in _METHODS]
            else:
                made.append(Escape(path, LEAVING[value]))
    return made


_METHODS: list[tuple[str, tuple[Any, ...]]] = [("write_text", ("x",)), ("touch", ()), ("mkdir", ())]


def _method(path: str, *more: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda mark: {"_args_": [{"_target_": path, "_args_": [f"{mark}"]}, *more]}


# where in a configuration a payload can lie: the keys that lead to it
PLACES: list[tuple[str, ...]] = [
    ("model",),
    ("trainer", "plugins"),
    ("data",),
    ("model", "x"),
    ("data", "dataset"),
    ("model", "mixer"),
    ("training", "loss"),
    ("trainer", "callbacks"),
    ("model", "x", "y", "z"),
]
# built only where something is trained
TRAINING_PLACES: list[tuple[str, ...]] = [
    ("early_stopping",),
    ("averaging",),
    ("early_stopping", "monitor"),
    ("averaging", "device"),
]
LISTS = ("plugins", "callbacks", "x")  # keys whose payload lies in a list


def hide(config: dict[str, Any], place: tuple[str, ...], payload: Any) -> None:
    """Put a payload at a place of a configuration."""
    *above, last = place
    node = config
    for key in above:
        if not isinstance(node.get(key), dict):
            node[key] = {}
        node = node[key]
    node[last] = [payload] if last in LISTS and above else payload
