"""The states of layers and models on disk: safetensors, apart from the weights."""

import hashlib
import json
import os
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from titans_seq.attention import AttentionState
from titans_seq.blocks import ModelState
from titans_seq.files import parse_json
from titans_seq.kernels import MemoryState
from titans_seq.kernels.state import BatchState
from titans_seq.mixers import MIXERS
from titans_seq.tensor_files import read_tensors, write_tensors
from titans_seq.variants import MACState

FORMAT = "titans-seq state"
VERSION = 2


@dataclass(frozen=True)
class ObservedState:
    """What a forecaster has observed: its memory's states at three boundaries of blocks, and the rows that wait.

    header: JSON of what is no tensor. rows: tensors of the rows.
    """

    older: ModelState
    before: ModelState
    now: ModelState
    header: str
    rows: tuple[Tensor, ...]


State = BatchState | ObservedState
_OF_MIXERS: tuple[type[State], ...] = tuple(mixer.state_type for mixer in MIXERS.values())
STATES: dict[str, type[State]] = {cls.__name__: cls for cls in (MemoryState, *_OF_MIXERS, ModelState, ObservedState)}


def save_state(path: str | os.PathLike[str], state: State, *, model: nn.Module | None = None) -> None:
    """Write a state to one file, whole or not at all.

    `model`: also keep a digest of its parameters, so that `load_state(path, model=...)` knows the very same weights.
    The shape of the layer that made the state is always kept, and checked by the layer that is given the state.

    Raises:
        ValueError: `state` is no state, or `path` no file in a folder that exists.
        OSError: the disk is full, or refuses it; a file that was there before is as it was.
    """
    if type(state) not in STATES.values():
        *more, last = [name for name in STATES if name not in ("MemoryState", "LayerState")]
        raise ValueError(
            f"state must be a MemoryState or a LayerState; got {type(state).__name__} "
            f"({', '.join(more)} and {last} are taken too)"
        )
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, "state", tensors)
    header = {"format": FORMAT, "version": str(VERSION), "tree": json.dumps(tree)}
    if model is not None:
        header["parameters"] = parameter_digest(model)
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"path must be a file in a folder that exists; got {path}")
    write_tensors(path, tensors, header)


def load_state(path: str | os.PathLike[str], *, model: nn.Module | None = None) -> State:
    """Read what `save_state` wrote, on the CPU.

    Raises:
        OSError: no such file, or one that cannot be read.
        ValueError: not a state file, a damaged one, one of another format, one with values that no state has, or (with
            `model`) the state of other weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is a folder, no state file" if path.is_dir() else f"no state file at {path}")
    tensors, header = read_tensors(path)
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} holds no titans-seq state")
    if header.get("version") != str(VERSION):
        raise ValueError(f"{path} has state format {header.get('version')}; this version reads format {VERSION}")
    if model is not None:
        if "parameters" not in header:
            raise ValueError(f"{path} was saved without its model: save_state(path, state, model=model) keeps a digest")
        if header["parameters"] != parameter_digest(model):
            raise ValueError(f"{path} is the state of another model: the parameters differ")
    try:
        state = _rebuild(parse_json(header["tree"], str(path)), tensors)
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path} is damaged: its header and its tensors do not fit") from None
    if type(state) not in STATES.values():
        raise ValueError(f"{path} is damaged: it holds no state")
    _check(state, str(path))
    return state


def parameter_digest(model: nn.Module) -> str:
    """sha256 over names and values of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A JSON tree of the state's shape; the tensors go to `tensors` under their path."""
    if isinstance(value, Tensor):
        # shared storage (a chunk that has just begun) is written once per name: safetensors refuses aliases
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if is_dataclass(value):
        parts = {f.name: _flatten(getattr(value, f.name), f"{name}.{f.name}", tensors) for f in fields(value)}
        return {"state": type(value).__name__, "fields": parts}
    if isinstance(value, tuple):
        return {"tuple": [_flatten(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]}
    return {"value": value}


def _rebuild(tree: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "tuple" in tree:
        return tuple(_rebuild(item, tensors) for item in tree["tuple"])
    if "state" in tree:
        kind = STATES[tree["state"]]
        parts = {name: _rebuild(part, tensors) for name, part in tree["fields"].items()}
        hints = get_type_hints(kind)
        if parts.keys() != hints.keys() or not all(_fits(part, hints[name]) for name, part in parts.items()):
            raise TypeError(f"not the fields of a {kind.__name__}")
        return kind(**parts)
    return tree["value"]


def _fits(value: Any, hint: Any) -> bool:
    """Is a value of the type that a field of a state has?"""
    if get_origin(hint) is tuple:  # of any length
        return isinstance(value, tuple) and all(_fits(item, get_args(hint)[0]) for item in value)
    if get_args(hint):  # one of several
        return any(_fits(value, each) for each in get_args(hint))
    return isinstance(value, hint) and not isinstance(value, bool)


def _check(state: BatchState | ObservedState, place: str) -> None:
    """Refuse values that no call makes; shapes and dtypes are checked by the layer that is given the state."""
    for part in (getattr(state, field.name) for field in fields(state)):
        if isinstance(part, BatchState):
            _check(part, place)
        for item in part if isinstance(part, tuple) else ():
            if isinstance(item, BatchState):
                _check(item, place)
    if not isinstance(state, BatchState):
        return
    if not all(tensor.isfinite().all() for tensor in state.tensors()):
        raise ValueError(f"{place} is damaged: not all values of the state are finite")
    if isinstance(state, MemoryState):
        _check_range(state.position, 1 if state.chunk_size is None else state.chunk_size, place)
    if isinstance(state, MACState):
        _check_range(state.position, state.keys.shape[2] if state.keys.ndim == 5 else 0, place)
    if isinstance(state, AttentionState):
        _check_range(state.count, torch.iinfo(torch.int64).max, place)


def _check_range(position: Tensor, end: int, place: str) -> None:
    if position.dtype != torch.int64 or position.ndim != 1:
        raise ValueError(f"{place} is damaged: positions must be int64 [B]; got {position.dtype} {position.ndim}-d")
    if not ((position >= 0) & (position < end)).all():
        raise ValueError(f"{place} is damaged: positions must be in [0, {end})")
