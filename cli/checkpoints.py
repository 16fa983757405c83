"""Checkpoints: written whole, known by a digest of every byte, and looked through before anything is done with them.

A checkpoint is torch's zip file with the digest as the comment of the archive, which torch itself passes over.
"""

import hashlib
import io
import math
import os
import pickle
import struct
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.connectors import checkpoint_connector
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from titans_seq.cli.errors import UsageError
from titans_seq.cli.runs import BEST, CHECKPOINTS, LAST
from titans_seq.cli.training import History
from titans_seq.files import write_files
from titans_seq.training import TrainedModule

_MARK = b"titans-seq sha256 "
_COMMENT = struct.pack("<H", len(_MARK) + 64) + _MARK  # its length stands before it; the digest follows
_NO_COMMENT = struct.pack("<H", 0)
_CHUNK = 2**20  # bytes read at a time
# what torch raises at a file that is not what it wrote, and Lightning and torch when they restore what is not theirs
_UNREADABLE = (
    RuntimeError, pickle.UnpicklingError, EOFError, BadZipFile, LookupError, ValueError, TypeError, AttributeError,
    AssertionError, ImportError, OverflowError, struct.error,
)  # fmt: skip
_UNUSABLE = (*_UNREADABLE, MisconfigurationException)


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning writes and reads checkpoints here. Its own way goes through TMPDIR: from another file system the
    old checkpoint is emptied first and then written, and what stops that takes both.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        if storage_options is not None:
            raise TypeError("storage_options are not supported: checkpoints are files")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Whatever is asked, nothing is unpickled beyond tensors and plain values."""
        return _read(Path(path))


class AnyCheckpointFiles(CheckpointFiles):
    """Also reads the checkpoints that Lightning writes elsewhere, which have no digest."""

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        place = Path(path)
        if not place.is_file():
            raise UsageError(f"no checkpoint {path}")
        with place.open("rb") as file:
            file.seek(-min(len(_COMMENT) + 64, place.stat().st_size), os.SEEK_END)
            marked = _MARK in file.read()
        if marked:
            return _read(place)
        return _load(place, UsageError(f"{path} is damaged or not a checkpoint; nothing in it is unpickled"))


def use_checkpoint_files(trainer: L.Trainer) -> None:
    """Let a Trainer write its checkpoints as `CheckpointFiles` does; a UsageError if it was given another way."""
    given = trainer.strategy.checkpoint_io
    if type(given) is not TorchCheckpointIO:
        name = type(given).__name__
        raise UsageError(f"trainer.plugins: a run writes its checkpoints in its own way; leave {name} out")
    trainer.strategy.checkpoint_io = CheckpointFiles()


def split_checkpoint(path: Path) -> tuple[Path, Path]:
    """Return run folder and checkpoint file of what --checkpoint names: a run folder, or a file in its checkpoints."""
    if path.is_dir():
        best = path / CHECKPOINTS / BEST
        return path, best if best.exists() else path / CHECKPOINTS / LAST
    if path.suffix == ".ckpt" and path.is_file():
        return path.absolute().parent.parent, path
    raise UsageError(f"no run folder or checkpoint {path}")


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all: an old one in its place stays until then.

    Raises:
        OSError: the disk is full, or refuses it; `filename` is `path`.
    """
    buffer = io.BytesIO()  # not to the file: torch reports a full disk as an error without a number
    torch.save(checkpoint, buffer)
    view = buffer.getbuffer()
    digest = hashlib.sha256(view).hexdigest().encode()
    assert view[-2:] == _NO_COMMENT
    write_files({path: [view[:-2], _COMMENT, digest]})


def load_checkpoint(path: Path, *, finite: bool = True) -> dict[str, Any]:
    """Return a checkpoint's contents, of which every part that all tasks have is of the right types.

    finite: refuse weights that are not, which a training that diverged leaves too.
    """
    if not path.is_file():
        raise UsageError(
            f"{path.parent.parent} has no checkpoint {path.name}: its training did not get that far, or it was removed"
        )
    checkpoint = _read(path)
    with _damage(path):
        _check_content(checkpoint)
        if finite:
            _require(_all_finite(checkpoint["state_dict"]), "its weights are not finite, or its training diverged")
    return checkpoint


def check_resume(checkpoint: Mapping[str, Any], module: TrainedModule, trainer: L.Trainer, path: Path) -> None:
    """Refuse a checkpoint that the module's training cannot go on from, before anything is changed."""
    rows = rows_of(checkpoint, module, path)
    with _damage(path):
        _require("loops" in checkpoint, "it has no loops")
        kept = {callback.state_key for callback in _callbacks_of(trainer) if callback.state_dict()}
        _require(kept <= checkpoint.get("callbacks", {}).keys(), "it has no states of all callbacks")
        _require(_all_finite(checkpoint.get("current_model_state", {})), "weights are not finite")
        _check_likeness(checkpoint["loops"].get("fit_loop"), trainer.fit_loop.state_dict(), "loops")
        epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        counted = [count for part in ("total", "current") for count in epochs[part].values()]
        _require(all(count <= len(rows) + 1 for count in counted), "its loops have more epochs than its history")
        states: Any = checkpoint.get("optimizer_states")
        _require(_is_list_of(states, dict) and len(states) == 1, "optimizer_states")
        _require(_is_list_of(checkpoint.get("lr_schedulers"), dict), "lr_schedulers")
        if not type(module).__module__.startswith("titans_seq."):
            return  # a class of the user's own may have other optimisers
        if all(isinstance(key, int) for key in states[0].get("state", {})):  # else by name, of weights shared out
            _check_optimizer(states[0], module)
        for state in checkpoint["lr_schedulers"]:
            _check_schedule(state, module)


def _callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    return trainer.callbacks  # type: ignore[attr-defined]


def rows_of(checkpoint: Mapping[str, Any], module: TrainedModule, path: Path) -> list[dict[str, float]]:
    """The rows of the epochs until a checkpoint, each with all that the module shows."""
    rows = callback_state(checkpoint, History).get("rows", [])
    with _damage(path):
        whole = all({"epoch", "seconds", "train_loss", *module.shown} <= row.keys() for row in rows)
        _require(whole, "its history is not that of this run")
    return rows


def callback_state(checkpoint: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The state of the callback of a class; empty where there is none."""
    states = checkpoint.get("callbacks", {})
    return next((state for key, state in states.items() if key.startswith(kind.__qualname__)), {})


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """An error of Lightning while it restores a checkpoint says that the checkpoint is damaged."""
    try:
        yield
    except _UNUSABLE as error:
        places = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
        if not any(code.co_filename == checkpoint_connector.__file__ and "restore" in code.co_name for code in places):
            raise
        raise UsageError(f"{path} is damaged, or not of this run: {_first_line(error)}; train again") from None


def _read(path: Path) -> dict[str, Any]:
    """Raises: OSError: it cannot be read. UsageError: it is damaged."""
    damaged = UsageError(
        f"{path} is damaged or not a checkpoint of this version of titans-seq; use another checkpoint or train again"
    )
    if _digest(path) is None or not _is_stored(path):
        raise damaged
    checkpoint = _load(path, damaged)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UsageError(f"{path} is not a checkpoint of a run")
    return checkpoint


def _load(path: Path, damaged: UsageError) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise _no_memory(path) from None
    except _UNREADABLE as error:
        raise _no_memory(path) if "allocate memory" in str(error) else damaged from None


def _no_memory(path: Path) -> UsageError:
    return UsageError(f"there is not enough memory to read {path}")


def _is_stored(path: Path) -> bool:
    """Is everything in the archive as long as it seems? torch compresses nothing, and what is unpacks to any size."""
    try:
        with ZipFile(path) as archive:
            parts = archive.infolist()
    except _UNREADABLE:
        return False
    stored = all(part.compress_type == ZIP_STORED for part in parts)
    return stored and sum(part.file_size for part in parts) <= path.stat().st_size


def _digest(path: Path) -> str | None:
    """The digest that a checkpoint names, if its content has it."""
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - len(_COMMENT) - 64
        digest = hashlib.sha256()
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        digest.update(_NO_COMMENT)
        rest = file.read()
    return digest.hexdigest() if left == 0 and rest == _COMMENT + digest.hexdigest().encode() else None


# what is in them ------------------------------------------------------------------------------------------------------


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:  # the check's own, or of a comparison with what cannot be compared
        raise UsageError(f"{path} is damaged: {_first_line(error)}; use another checkpoint or train again") from None


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _check_content(checkpoint: dict[str, Any]) -> None:
    _require(_is_weights(checkpoint["state_dict"]), "its state_dict holds other things than weights")
    _require(_is_weights(checkpoint.get("current_model_state", {})), "its current_model_state holds other things")
    for name in ("epoch", "global_step"):
        _require(_is_count(checkpoint.get(name)), f"its {name} must be a count")
    _require(isinstance(checkpoint.get("pytorch-lightning_version"), str), "it names no version of Lightning")
    for name in ("loops", "callbacks"):
        _require(_is_dict_of(checkpoint.get(name, {}), dict), f"its {name} have no states")
    for name, state in checkpoint.get("callbacks", {}).items():
        for callback, check in _CALLBACKS.items():
            _require(not name.startswith(callback) or check(state), f"it holds a wrong state of {callback}")


def _is_rows(state: Mapping[str, Any]) -> bool:
    rows: Any = state.get("rows")
    numbers = _is_list_of(rows, dict) and all(_is_number(value) for row in rows for value in row.values())
    return numbers and [row.get("epoch") for row in rows] == list(range(len(rows)))


def _is_stopping(state: Mapping[str, Any]) -> bool:
    counts = all(_is_count(state.get(name)) for name in ("wait_count", "stopped_epoch", "patience"))
    return counts and _is_score(state.get("best_score"))


def _is_best(state: Mapping[str, Any]) -> bool:
    models: Any = state.get("best_k_models")
    scores = isinstance(models, dict) and len(models) <= 1 and all(map(_is_score, models.values()))
    names = ("best_model_path", "kth_best_model_path", "last_model_path", "dirpath")
    named = all(isinstance(state.get(name), str) for name in names)
    kept = (state.get(name) for name in ("best_model_score", "current_score", "kth_value"))
    return scores and named and all(value is None or _is_score(value) for value in kept)


_CALLBACKS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "History": _is_rows,
    "EarlyStopping": _is_stopping,
    "BestCheckpoint": _is_best,
    "EMAWeightAveraging": lambda state: _is_count(state.get("latest_update_step")),
}


def _check_likeness(value: Any, pattern: Any, name: str) -> None:
    """Refuse what has not the names and types of a pattern; whole numbers are counts."""
    if isinstance(pattern, dict):
        _require(isinstance(value, dict) and value.keys() == pattern.keys(), f"its {name} are not those of this run")
        for key, part in pattern.items():
            _check_likeness(value[key], part, f"{name}.{key}")
    else:
        right = _is_count(value) if type(pattern) is int else type(value) is type(pattern)
        _require(right, f"its {name} is not of the right type")


def _check_optimizer(state: Mapping[str, Any], module: TrainedModule) -> None:
    """Rates may be others than at the start, and so may be the kernel that computes the steps (`fused`: as on another
    device); everything else of a group is the configuration's. Parameters are numbered in the order of the groups, or
    of the module where its weights were shared out.
    """
    fresh, what = module.make_optimizer(), "its optimizer_states are not those of this run"
    groups = fresh.state_dict()["param_groups"]
    _require(_is_list_of(state.get("param_groups"), dict) and len(state["param_groups"]) == len(groups), what)
    shapes: dict[int, torch.Size] = {}
    for own, mine, theirs in zip(fresh.param_groups, groups, state["param_groups"], strict=True):
        _require(all(_is_rate(theirs.get(name)) for name in ("lr", "initial_lr")), "its learning rate must be finite")
        _require(theirs.get("fused") in (None, False, True), what)
        given = {name: theirs[name] for name in ("initial_lr", "params", "fused") if name in theirs}
        _require({**theirs, "lr": mine["lr"]} == {**mine, **given}, what)
        numbers: Any = given.get("params")
        _require(_is_list_of(numbers, int) and len(numbers) == len(own["params"]), what)
        shapes |= {number: weights.shape for number, weights in zip(numbers, own["params"], strict=True)}
    _require(len(shapes) == sum(len(group["params"]) for group in groups), what)
    for number, kept in state["state"].items():
        _require(number in shapes and _is_weights(kept) and kept.keys() == {"step", "exp_avg", "exp_avg_sq"}, what)
        _require({value.shape for name, value in kept.items() if name != "step"} == {shapes[number]}, what)
        _require(kept["step"].shape == () and _all_finite(kept), what)


def _check_schedule(state: Mapping[str, Any], module: TrainedModule) -> None:
    fresh = torch.optim.lr_scheduler.LambdaLR(module.make_optimizer(), lambda epoch: 1.0).state_dict()
    lists = [name for name, value in fresh.items() if isinstance(value, list)]
    _check_likeness({**state, **{name: [] for name in lists}}, {**fresh, **{name: [] for name in lists}}, "schedule")
    for name in lists:
        values: Any = state.get(name)
        right = _is_rate if name != "lr_lambdas" else _is_none
        whole = isinstance(values, list) and len(values) == len(fresh[name])
        _require(whole and all(map(right, values)), "its schedule has no rates")


def _is_weights(values: Any) -> bool:
    return _is_dict_of(values, Tensor) and all(map(_is_plain_tensor, values.values()))


def _is_plain_tensor(value: Tensor) -> bool:
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        return False
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()  # else a few numbers stand for many


def _all_finite(weights: Mapping[str, Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in weights.values())


def _is_dict_of(values: Any, kind: type) -> bool:
    return isinstance(values, dict) and all(
        isinstance(name, str) and isinstance(value, kind) for name, value in values.items()
    )


def _is_list_of(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_rate(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _is_none(value: Any) -> bool:
    return value is None


def _is_score(value: Any) -> bool:
    return isinstance(value, Tensor) and value.shape == () and value.is_floating_point()


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
