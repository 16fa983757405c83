"""Hostile files of tensors: states of layers and models, and what damages tensors."""

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from hostile import damage
from hostile.base import LAYER
from hostile.case import DONE, EITHER, REFUSED, Base, Case, Prepare
from hostile.writing import read_tensors, write_tensors

from titans_seq import NeuralMemory, load_state

STATE, NAME = "state file", "mine.state"


def copied(base: Base, source: str, name: str, *more: Prepare) -> Prepare:
    """Copy a file or folder of the base, then damage it."""

    def prepare(folder: Path) -> None:
        path = base / source
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / name)
        for each in more:
            each(folder)

    return prepare


TensorEdit = Callable[[dict[str, torch.Tensor], dict[str, str]], None]


def tensors_edited(name: str, edit: TensorEdit) -> Prepare:
    """Change tensors and header of a safetensors file."""

    def prepare(folder: Path) -> None:
        tensors, header = read_tensors(folder / name)
        edit(tensors, header)
        write_tensors(folder / name, tensors, header)

    return prepare


def _filled(value: float) -> TensorEdit:
    def edit(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
        name = _floating(tensors)
        tensors[name] = torch.full_like(tensors[name], value)

    return edit


def _changed(change: Callable[[torch.Tensor], torch.Tensor]) -> TensorEdit:
    def edit(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
        name = _floating(tensors)
        tensors[name] = change(tensors[name]).contiguous()

    return edit


def _floating(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if tensors[name].is_floating_point() and tensors[name].numel() > 1)


def _dropped(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors.pop(min(tensors))


def _renamed(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors["a"] = tensors.pop(min(tensors))


TENSORS: dict[str, TensorEdit] = {
    "nan": _filled(float("nan")),
    "infinite": _filled(float("inf")),
    "float64": _changed(lambda tensor: tensor.double()),
    "half": _changed(lambda tensor: tensor.half()),
    "whole-numbers": _changed(lambda tensor: tensor.long()),
    "one-dimension-more": _changed(lambda tensor: tensor[None]),
    "longer": _changed(lambda tensor: torch.cat([tensor, tensor])),
    "empty": _changed(lambda tensor: tensor[:0]),
    "missing": _dropped,
    "renamed": _renamed,
}


# states ---------------------------------------------------------------------------------------------------------------


def _header(name: str, value: str) -> TensorEdit:
    def edit(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
        header[name] = value

    return edit


_HEADERS = {
    "format": _header("format", "other"),
    "version-text": _header("version", "abc"),
    "version-next": _header("version", "99"),
    "parameters": _header("parameters", "0" * 64),
    "tree-text": _header("tree", "abc"),
    "tree-number": _header("tree", "5"),
    "tree-null": _header("tree", "null"),
    "tree-list": _header("tree", "[1]"),
    "tree-nested": _header("tree", damage.nested(3000, '{"tuple": [', "]}").decode()),
    "tree-brackets": _header("tree", damage.nested(3000).decode()),
    "tree-unknown-state": _header("tree", '{"state": "os.system", "fields": {}}'),
    "tree-no-fields": _header("tree", '{"state": "ModelState"}'),
    "tree-tuple-of-numbers": _header("tree", '{"tuple": 5}'),
    "tree-no-tensor": _header("tree", '{"tensor": "nothing"}'),
    "tree-value": _header("tree", '{"value": 5}'),
    "tree-empty-state": _header("tree", '{"state": "ModelState", "fields": {"blocks": {"tuple": []}}}'),
}


def states(base: Base) -> Iterator[Case]:
    """States of a language model by the command, and of a layer by the library."""
    name = NAME
    words = ("generate", "lm", "--checkpoint", str(base / "lm"), "--prompt", "a", "--tokens", "2", "--state", name)
    cases: dict[str, Prepare] = {key: tensors_edited(name, edit) for key, edit in (TENSORS | _HEADERS).items()}
    cases |= {key: damage.text_edited(name, edit) for key, edit in damage.byte_damages(9)}
    cases["header-of-exabytes"] = damage.text_edited(name, lambda data: b"\xff" * 7 + b"\x7f" + data[8:])
    cases["header-nested"] = damage.text_edited(name, lambda data: _with_header(damage.nested(3000, '{"a":', "}")))
    for key, edit in cases.items():
        exit = EITHER if key == "half" else REFUSED
        yield Case(STATE, key, words, exit, "state", prepare=copied(base, "talk.state", name, edit))
    for key in (*TENSORS, "tree-nested", "tree-value", "tree-empty-state", "cut-0"):
        call = functools.partial(_continue_layer, base, name)
        prepare = copied(base, "layer.state", name, cases[key])
        exit = EITHER if key == "half" else REFUSED
        yield Case(STATE, f"layer-{key}", call=call, exit=exit, says="state", prepare=prepare)
    weights = base / "lm" / "model" / "model.safetensors"
    yield Case(STATE, "weights", (*words[:-1], str(weights)), says="state")
    yield Case(STATE, "folder", (*words[:-1], "."), says="state")
    yield Case(STATE, "of-a-layer", (*words[:-1], str(base / "layer.state")), says="state")
    yield Case(STATE, "gone", (*words[:-1], "nowhere"), says="nowhere")
    yield Case(STATE, "whole", words, DONE, prepare=copied(base, "talk.state", name))


def _with_header(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def _continue_layer(base: Base, name: str) -> None:
    layer = NeuralMemory(**LAYER)  # type: ignore[arg-type]
    layer.load_state_dict(torch.load(base / "layer.pt", weights_only=True))
    state = load_state(name, model=layer)
    layer(torch.zeros(1, 3, 8), state=state, return_state=True)
