"""Run folders: config.yaml, checkpoints/, metrics.json and pictures. One run, one folder, claimed before it is
filled.
"""

import errno
import itertools
import json
import os
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from omegaconf import DictConfig, OmegaConf

from titans_seq.cli.errors import UsageError
from titans_seq.files import replacing

CONFIG, METRICS, CHECKPOINTS = "config.yaml", "metrics.json", "checkpoints"
BEST, LAST = "best.ckpt", "last.ckpt"


def numbered(folder: Path) -> "itertools.chain[Path]":
    """Return folder, folder-2, folder-3, ..."""
    rest = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return itertools.chain([folder], rest)


def free(path: Path) -> Path:
    """The first of file.csv, file-2.csv, ... that is not there."""
    names = (each.with_name(each.name + path.suffix) for each in numbered(path.with_suffix("")))
    return next(name for name in names if not name.exists())


def claim(folder: Path, *, explicit: bool) -> Path:
    """Make the run folder and return it. Two commands at the same moment never get the same one.

    An explicit folder may exist only while it is empty; without one, the first free number is taken.
    """
    return _claim_explicit(folder) if explicit else make_new_folder(folder)


def _claim_explicit(folder: Path) -> Path:
    make_folder(folder)
    lock = folder / CHECKPOINTS  # making a folder is atomic: of two claims one fails here
    try:
        if (folder / CONFIG).exists():
            raise FileExistsError
        if any(path != lock for path in folder.iterdir()):
            raise UsageError(f"{folder} is not empty; choose another --output")
        _make(lock.mkdir, folder)
    except FileExistsError:
        raise UsageError(f"{folder} holds a run already; choose another --output, or --resume it") from None
    return folder


def make_new_folder(folder: Path) -> Path:
    """Make and return the first of folder, folder-2, ... that is free."""
    for candidate in numbered(folder):
        try:
            _make(partial(candidate.mkdir, parents=True), candidate)
            return candidate
        except FileExistsError:
            continue
    raise AssertionError("unreachable: the numbers do not end")


def make_folder(folder: Path) -> Path:
    """Make a folder that may exist, and return it; a place that cannot be written to is a UsageError."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another place")
    _make(partial(folder.mkdir, parents=True, exist_ok=True), folder)
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to {folder}: {os.strerror(errno.EACCES)}; choose another place")
    return folder


def _make(mkdir: Callable[[], None], folder: Path) -> None:
    try:
        mkdir()
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise UsageError(f"cannot write to {folder}: a part of the path is a file") from None
        raise UsageError(f"cannot write to {folder}: {error.strerror}; choose another place") from None


def write_config(folder: Path, config: DictConfig) -> None:
    """Write the resolved configuration of the run."""
    (folder / CONFIG).write_text(OmegaConf.to_yaml(config), encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a flat record; a number that is not finite is refused, since JSON has no word for it."""
    text = json.dumps(values, indent=2, allow_nan=False)
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Return a record that `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def split_checkpoint(path: Path) -> tuple[Path, Path]:
    """Return run folder and checkpoint file of what --checkpoint names: a run folder, or a file in its checkpoints."""
    if path.is_dir():
        best = path / CHECKPOINTS / BEST
        return path, best if best.exists() else path / CHECKPOINTS / LAST
    if path.suffix == ".ckpt" and path.is_file():
        return path.absolute().parent.parent, path
    raise UsageError(f"no run folder or checkpoint {path}")


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Put a changed checkpoint in the place of an old one."""
    with replacing(path) as part:
        torch.save(checkpoint, part)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's contents; nothing in it is unpickled beyond tensors and plain values."""
    if not path.is_file():
        raise UsageError(f"{path.parent.parent} has no checkpoint; its training did not get that far")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, BadZipFile, KeyError, ValueError, OSError):
        raise UsageError(f"{path} is damaged or not a checkpoint; use another checkpoint or train again") from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UsageError(f"{path} is not a checkpoint of a run")
    return checkpoint
