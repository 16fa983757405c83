"""The states of layers and models on disk: safetensors, apart from the weights."""

import hashlib
import json
import os
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import safetensors
import torch
from safetensors.torch import safe_open, save_file
from torch import Tensor, nn

from titans_seq.blocks import BlockState, ModelState
from titans_seq.files import replacing
from titans_seq.kernels import MemoryState

FORMAT = "titans-seq state"
VERSION = 1


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


State = MemoryState | BlockState | ModelState | ObservedState
STATES: dict[str, type[State]] = {cls.__name__: cls for cls in get_args(State)}


def save_state(path: str | os.PathLike[str], state: State, *, model: nn.Module | None = None) -> None:
    """Write a state to one file, atomically.

    `model`: also keep a digest of its parameters, so that `load_state(path, model=...)` knows the very same weights.
    The shape of the layer that made the state is always kept, and checked by the layer that is given the state.

    Raises:
        ValueError: `state` is no state, or `path` no file in a folder that exists.
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
    with replacing(path) as part:
        save_file(tensors, part, metadata=header)


def load_state(path: str | os.PathLike[str], *, model: nn.Module | None = None) -> State:
    """Read what `save_state` wrote, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a state file, a damaged one, one of a newer format, or (with `model`) the state of other
            weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is a folder, no state file" if path.is_dir() else f"no state file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
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
        return _rebuild(json.loads(header["tree"]), tensors)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: its header and its tensors do not fit") from error


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
        return STATES[tree["state"]](**{name: _rebuild(part, tensors) for name, part in tree["fields"].items()})
    return tree["value"]
