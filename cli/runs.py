"""Run folders: config.yaml, checkpoints/, metrics.json and pictures. One run, one folder, claimed before it is
filled.
"""

import errno
import itertools
import json
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from titans_seq.cli.errors import UsageError
from titans_seq.files import replacing
from titans_seq.printable import printable

CONFIG, METRICS, CHECKPOINTS = "config.yaml", "metrics.json", "checkpoints"
_LARGEST = 1e300  # no metric is larger; Python's whole numbers can be too large for a float
BEST, LAST = "best.ckpt", "last.ckpt"
# what `task:` in a config.yaml says of a run
_KINDS = {
    "forecast": "a forecaster (titans-seq fit forecast)",
    "dna": "a DNA classifier (titans-seq fit dna)",
    "dna_lm": "a DNA language model (titans-seq pretrain dna)",
    "lm": "a language model of text (titans-seq fit lm)",
}
# what a config.yaml from elsewhere may have built
BUILDABLE = ("titans_seq.", "lightning.Trainer", "lightning.pytorch.callbacks.")


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


def read_metrics(path: Path, needed: Iterable[str]) -> dict[str, Any]:
    """Return the metrics of a finished run; a UsageError unless they hold a finite number for each name needed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no text, or nested too deeply
        raise UsageError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not of a finished training: it holds no metrics")
    for name in needed:
        if name not in found:
            raise UsageError(f"{path} is not of a finished training: it has no {name}")
        value = found[name]
        if type(value) not in (int, float) or not -_LARGEST < value < _LARGEST:
            raise UsageError(f"{path}: {name} must be a finite number; got {printable(repr(value), 60)}")
    return found


def read_config(folder: Path, *tasks: str) -> DictConfig:
    """Return the configuration of a run of one of these tasks; anything else is a UsageError."""
    path = folder / CONFIG
    if not folder.exists():
        raise UsageError(f"no run folder {folder}")
    if not path.is_file():
        raise UsageError(f"{folder} is not a run folder: it has no {CONFIG}")
    try:
        config = OmegaConf.load(path)
    except (OmegaConfBaseException, yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(config, DictConfig) or config.get("task") not in tasks:
        found = config.get("task") if isinstance(config, DictConfig) else None
        what = _KINDS.get(str(found), f"a run of an unknown task {found!r}")
        raise UsageError(f"{folder} holds {what}; this needs {' or '.join(_KINDS[task] for task in tasks)}")
    _require_own_targets(config, path)
    return config


def _require_own_targets(config: DictConfig, path: Path) -> None:
    """A run folder may come from elsewhere: it names classes, at any depth, and only the known ones are built."""
    for target in _targets(OmegaConf.to_container(config)):
        if not str(target).startswith(BUILDABLE):
            raise UsageError(f"{path}: _target_ {target!r} is no part of titans_seq and no trainer or callback")


def _targets(node: Any) -> Iterator[Any]:
    """Every value of a key `_target_` below a node."""
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "_target_")
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _targets(child)


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
