"""Ways to damage what a finished run wrote: bytes, keys of mappings, tensors of checkpoints."""

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from hostile.case import Base, Prepare
from hostile.writing import write_checkpoint

from titans_seq.cli import runs

RUN = "run"  # name of the copy in a case's folder
Edit = Callable[[Any], Any]  # changes a value in place and returns None, or returns what takes its place


def uses(base: Base) -> dict[str, tuple[str, ...]]:
    """A command that reads the configuration and the best checkpoint, for each kind of run; for text the last one."""
    where = ("--checkpoint", RUN, "--quiet")
    return {
        "forecast": ("test", "forecast", *where),
        "dna": ("predict", "dna", *where, "--csv", str(base.sequences), "--output", "out.csv"),
        "dna_lm": ("embed", "dna", *where, "--fasta", str(base.genome), "--output", "out.npz"),
        "lm": resume("lm"),
    }


def resume(run: str) -> tuple[str, ...]:
    """The command that trains a copied run for one more epoch."""
    verb = ("pretrain", "dna") if run == "dna_lm" else ("fit", run)
    return (*verb, "--output", RUN, "--resume", "--epochs", "2", "--quiet")


# runs -----------------------------------------------------------------------------------------------------------------


def copied(base: Base, run: str, *more: Prepare) -> Prepare:
    """Copy a finished run without its pictures, then damage it."""

    def prepare(folder: Path) -> None:
        shutil.copytree(base / run, folder / RUN, ignore=shutil.ignore_patterns("*.png"))
        for each in more:
            each(folder)

    return prepare


def config_edited(edit: Edit) -> Prepare:
    """Change the mapping in config.yaml."""

    def prepare(folder: Path) -> None:
        path = folder / RUN / runs.CONFIG
        config = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(_edited(config, edit), sort_keys=False))

    return prepare


def text_edited(name: str, edit: Callable[[bytes], bytes]) -> Prepare:
    """Change the bytes of a file of the case."""

    def prepare(folder: Path) -> None:
        path = folder / name
        path.write_bytes(edit(path.read_bytes()))

    return prepare


def json_edited(name: str, edit: Edit) -> Prepare:
    """Change the value in a JSON file of the case."""

    def prepare(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(_edited(json.loads(path.read_text()), edit)))

    return prepare


def checkpoint_edited(edit: Edit, *names: str, signed: bool = True) -> Prepare:
    """Change what is in checkpoints of the run.

    signed: written as the project writes it, so that no digest gives the change away; otherwise the digest stays.
    """

    def prepare(folder: Path) -> None:
        for name in names or (runs.BEST, runs.LAST):
            path = folder / RUN / runs.CHECKPOINTS / name
            checkpoint = _edited(torch.load(path, weights_only=True), edit)
            if signed and isinstance(checkpoint, dict):
                write_checkpoint(path, checkpoint)
            else:
                torch.save(checkpoint, path)

    return prepare


def _edited(value: Any, edit: Edit) -> Any:
    changed = edit(value)
    return value if changed is None else changed


# keys -----------------------------------------------------------------------------------------------------------------


def put(value: Any, *keys: Any) -> Edit:
    """Put a value in the place of that below these keys."""

    def edit(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = copy.deepcopy(value)

    return edit


def drop(*keys: Any) -> Edit:
    """Take away what is below these keys."""

    def edit(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        del tree[keys[-1]]

    return edit


def paths(tree: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys of everything in a tree of mappings and lists; of a list only the first."""
    items = (
        list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree))[:1] if isinstance(tree, list) else []
    )
    for key, value in items:
        yield (*before, key)
        yield from paths(value, (*before, key))


def other_types(value: Any) -> list[Any]:
    """Values of other types than this one's, none of which could be meant."""
    wrong: list[Any] = ["abc", [1, 2], {"a": 1}]
    if isinstance(value, str):
        wrong[0] = 12345
    if isinstance(value, dict):
        wrong[2] = 1.5
    if isinstance(value, list):
        wrong[1] = {"b": [None]}
    return wrong


def named(keys: tuple[Any, ...]) -> str:
    """Keys as the name of a case."""
    return ".".join(str(key).split("{")[0] for key in keys)


# bytes ----------------------------------------------------------------------------------------------------------------


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    """Brackets in brackets."""
    return (opening * levels + closing * levels).encode()


def byte_damages(seed: int, cuts: int = 3, flips: int = 2) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Damages of a binary file: cut at random places, changed inside, or another file altogether."""
    yield "empty", lambda data: b""
    yield "nonsense", lambda data: b"\x00\xff\x1b[31mnonsense\r\n" * 50
    yield "doubled", lambda data: data + data
    yield "zeros", lambda data: bytes(len(data))
    yield "headless", lambda data: data[7:]
    for i in range(cuts):
        yield f"cut-{i}", lambda data, i=i: data[: random.Random(seed + i).randrange(1, len(data))]  # type: ignore[misc]
    for i in range(flips):
        yield f"overwritten-{i}", lambda data, i=i: _overwritten(data, seed + i)  # type: ignore[misc]


def _overwritten(data: bytes, seed: int) -> bytes:
    """A sixteenth of the bytes, in one place, is random."""
    draw = random.Random(seed)
    begin = draw.randrange(len(data) // 2)
    size = max(1, len(data) // 16)
    return data[:begin] + draw.randbytes(size) + data[begin + size :]


def flipped(bit: float) -> Callable[[bytes], bytes]:
    """One bit of a file, at this share of its length, is another."""

    def edit(data: bytes) -> bytes:
        place = int(bit * len(data))
        return data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :]

    return edit
