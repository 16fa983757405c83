"""Run folders: config.yaml, checkpoints/, metrics.json and pictures. One run, one folder, claimed before it is
filled.
"""

import errno
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from titans_seq import __version__, files
from titans_seq.cli.errors import UsageError
from titans_seq.datamodules.common.files import user_path
from titans_seq.printable import printable

CONFIG, METRICS, CHECKPOINTS = "config.yaml", "metrics.json", "checkpoints"
_LARGEST = 1e300  # no metric is larger; Python's whole numbers can be too large for a float
BEST, LAST = "best.ckpt", "last.ckpt"
LOCK = ".lock"  # held by the process that trains in the folder
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP)  # network file systems without a lock service


def numbered(folder: Path) -> "itertools.chain[Path]":
    """Return folder, folder-2, folder-3, ..."""
    rest = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return itertools.chain([folder], rest)


def free(path: Path) -> Path:
    """The first of file.csv, file-2.csv, ... that is not there."""
    names = (each.with_name(each.name + path.suffix) for each in numbered(path.with_suffix("")))
    return next(name for name in names if not name.exists())


def is_first_process() -> bool:
    """Is this the process of a run on several devices that writes its files?"""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def claim(folder: Path, *, explicit: bool) -> Iterator[Path]:
    """Make the run folder and hold it. Two commands at the same moment never get the same one.

    An explicit folder may exist only while no run has begun in it; without one, the first free number is taken.
    """
    if explicit:
        require_unused(make_folder(folder))
    else:
        folder = make_new_folder(folder)
    with locked(folder):
        require_unused(folder)  # by now another command may have been here
        (folder / CHECKPOINTS).mkdir(exist_ok=True)
        yield folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder; a UsageError if another process does. Whatever ends the process frees it."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"another process is training in {folder}; wait until it ends, or stop it") from None
    except OSError as error:  # no right to write there, or a link or a folder in its place
        if error.errno in _NO_LOCKS:
            warnings.warn(f"{folder} lies where files cannot be locked: start one process at a time", stacklevel=2)
            yield
            return
        raise UsageError(f"cannot lock {folder / LOCK}: {error.strerror}; choose another folder") from None
    try:
        yield
    finally:
        lock.release()


def require_unused(folder: Path) -> None:
    """Refuse a folder that holds anything but what a command leaves that was killed before it wrote a config.yaml."""
    if (folder / CONFIG).exists():
        raise UsageError(f"{folder} holds a run already; choose another --output, or --resume it")
    if not _is_blank(folder):
        raise UsageError(f"{folder} is not empty; choose another --output")


def is_unstarted(folder: Path) -> bool:
    """Was it claimed by a command that was killed before it wrote a config.yaml?"""
    claimed = (folder / LOCK).is_file() or (folder / CHECKPOINTS).is_dir()
    return claimed and not (folder / CONFIG).exists() and _is_blank(folder)


def has_begun(folder: Path) -> bool:
    """Is there anything of its training to go on from?"""
    return any((folder / name).exists() for name in (METRICS, f"{CHECKPOINTS}/{BEST}", f"{CHECKPOINTS}/{LAST}"))


def _is_blank(folder: Path) -> bool:
    checkpoints = folder / CHECKPOINTS
    others = [path.name for path in folder.iterdir() if path != checkpoints and path.name != LOCK]
    unfinished = all(name.startswith(f".{CONFIG}.") and name.endswith(".part") for name in others)
    return unfinished and not (checkpoints.exists() and (not checkpoints.is_dir() or any(checkpoints.iterdir())))


def make_new_folder(folder: Path) -> Path:
    """Make and return the first of folder, folder-2, ... that is free."""
    for candidate in numbered(folder):
        try:
            _make(partial(candidate.mkdir, parents=True), candidate)
            return candidate
        except FileExistsError:
            continue
    raise AssertionError("unreachable: the numbers do not end")


def new_file(path: Path) -> Path:
    """Return a path that --output names, its folder made; a UsageError if it is there: results replace nothing."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file")
    if path.exists():
        raise UsageError(f"{path} is there already; choose another name")
    make_folder(path.parent)
    return path


def new_picture(output: str | None, default: Path) -> Path:
    """The picture that --output names, or the first free one like `default`."""
    path = user_path(output) if output else free(default)
    if path.suffix.lower() != ".png":
        raise UsageError(f"--output must end in .png; got {path}")
    return new_file(path)


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
    """Write the resolved configuration of the run, and the version that reads it."""
    files.write_text(folder / CONFIG, OmegaConf.to_yaml({**config, "version": __version__}))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a flat record; a number that is not finite is refused, since JSON has no word for it."""
    files.write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def read_metrics(path: Path, needed: Iterable[str]) -> dict[str, Any]:
    """Return the metrics of a finished run; a UsageError unless they hold a finite number for each name needed."""
    try:
        found = files.read_json(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is not of a finished training: it holds no metrics")
    for name in needed:
        if name not in found:
            raise UsageError(f"{path} is not of a finished training: it has no {name}")
        value = found[name]
        if type(value) not in (int, float) or not -_LARGEST < value < _LARGEST:
            raise UsageError(f"{path}: {name} must be a finite number; got {printable(repr(value), 60)}")
    return found
