"""Hostile checkpoints of finished runs."""

import io
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hostile import damage
from hostile.base import RUNS
from hostile.case import EITHER, REFUSED, Base, Case

KIND = "checkpoint"
SAYS = r"\.ckpt|checkpoint"
WEIGHTS = "state_dict"


class _Payload:
    """Unpickled, it would make a file in the case's folder, which is noticed."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, ("pwned", "w")


def _zip(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


_FILES: dict[str, Callable[[], bytes]] = {
    "pickle": lambda: pickle.dumps(_Payload()),
    "pickle-of-protocol-0": lambda: pickle.dumps(_Payload(), protocol=0),
    "torch-pickle": lambda: _saved({WEIGHTS: _Payload()}),
    "torch-module": lambda: _saved(torch.nn.Linear(2, 2)),
    "zip-of-nothing": lambda: _zip(),
    "zip-of-text": lambda: _zip(a=b"text"),
    "zip-without-data": lambda: _zip(**{"archive/data.pkl": pickle.dumps({WEIGHTS: 1}, protocol=2)}),
    "zip-of-zeros": lambda: _zip(**{"archive/data.pkl": bytes(1000)}),
    "list": lambda: _saved([1, 2]),
    "number": lambda: _saved(5),
    "tensor": lambda: _saved(torch.zeros(3)),
    "none": lambda: _saved(None),
    "no-weights": lambda: _saved({"epoch": 1}),
}


def files(base: Base) -> Iterator[Case]:
    """Files that are no checkpoint."""
    for seed, run in enumerate(RUNS):
        words = damage.uses(base)[run]
        damages = list(damage.byte_damages(seed))
        for name, edit in damages if run == "forecast" else random.Random(seed).sample(damages, 4):
            yield Case(KIND, f"{run}-{name}", words, REFUSED, SAYS, prepare=damage.copied(base, run, _both(edit)))
    words = damage.uses(base)["forecast"]
    for name, make in _FILES.items():
        edit = _both(lambda old, make=make: make())  # type: ignore[misc]
        yield Case(KIND, f"file-{name}", words, REFUSED, SAYS, prepare=damage.copied(base, "forecast", edit))
    for share in (0.3, 0.5, 0.6, 0.7):  # among the tensors
        edit = _both(damage.flipped(share))
        yield Case(KIND, f"bit-at-{share}", words, REFUSED, SAYS, prepare=damage.copied(base, "forecast", edit))
    yield Case(KIND, "folder", words, REFUSED, SAYS, prepare=damage.copied(base, "forecast", _as_folders))
    yield Case(KIND, "gone", words, REFUSED, SAYS, prepare=damage.copied(base, "forecast", _gone))


def _both(edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for name in ("best.ckpt", "last.ckpt"):
            damage.text_edited(f"{damage.RUN}/checkpoints/{name}", edit)(folder)

    return prepare


def _gone(folder: Path) -> None:
    for path in (folder / damage.RUN / "checkpoints").iterdir():
        path.unlink()


def _as_folders(folder: Path) -> None:
    _gone(folder)
    for name in ("best.ckpt", "last.ckpt"):
        (folder / damage.RUN / "checkpoints" / name).mkdir()


# weights --------------------------------------------------------------------------------------------------------------


def _first(change: Callable[[torch.Tensor], Any]) -> damage.Edit:
    """Change one of the weights."""

    def edit(checkpoint: dict[str, Any]) -> None:
        weights = checkpoint[WEIGHTS]
        name = next(name for name, value in weights.items() if value.is_floating_point() and value.numel() > 1)
        weights[name] = change(weights[name].clone())

    return edit


def _with(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda weights: weights.reshape(-1).index_fill(0, torch.tensor([1]), value).reshape(weights.shape)


_WEIGHTS: dict[str, damage.Edit] = {
    "number": damage.put(5, WEIGHTS),
    "list": damage.put([1.0], WEIGHTS),
    "text": damage.put("abc", WEIGHTS),
    "none": damage.put(None, WEIGHTS),
    "empty": damage.put({}, WEIGHTS),
    "other-names": damage.put({"a": torch.zeros(1)}, WEIGHTS),
    "number-keys": damage.put({1: torch.zeros(1)}, WEIGHTS),
    "numbers": damage.put({"a": 1.5}, WEIGHTS),
    "nan": _first(_with(float("nan"))),
    "infinite": _first(_with(float("inf"))),
    "minus-infinite": _first(_with(float("-inf"))),
    "value-is-none": _first(lambda weights: None),
    "value-is-list": _first(lambda weights: weights.tolist()),
    "reshaped": _first(lambda weights: weights.reshape(-1)),
    "longer": _first(lambda weights: torch.cat([weights, weights])),
    "empty-tensor": _first(lambda weights: weights[:0]),
    "complex": _first(lambda weights: weights.to(torch.complex64)),
    "whole-numbers": _first(lambda weights: weights.to(torch.int64)),
    "sparse": _first(lambda weights: weights.to_sparse()),
    # a petabyte on four bytes
    "expanded": _first(lambda weights: torch.zeros(1).expand(2**48)),
    "expanded-in-shape": _first(lambda weights: torch.zeros(1).expand(weights.shape)),
}


def _missing(checkpoint: dict[str, Any]) -> None:
    checkpoint[WEIGHTS].popitem()


def _surplus(checkpoint: dict[str, Any]) -> None:
    checkpoint[WEIGHTS]["network.one_more"] = torch.zeros(2)


def weights(base: Base) -> Iterator[Case]:
    """Checkpoints whose weights are none, or not those of the model."""
    edits = _WEIGHTS | {"missing": _missing, "surplus": _surplus, "no-weights": damage.drop(WEIGHTS)}
    for seed, run in enumerate(RUNS):
        chosen = edits if run == "forecast" else random.Random(seed).sample(sorted(edits), 5)
        for name in chosen:
            # a tensor of one value repeated has the right shape, so that it may be read
            exit = EITHER if name in ("expanded-in-shape", "whole-numbers") else REFUSED
            prepare = damage.copied(base, run, damage.checkpoint_edited(edits[name]))
            yield Case(KIND, f"{run}-weights-{name}", damage.uses(base)[run], exit, SAYS, prepare=prepare)
    for name in ("nan", "reshaped"):
        prepare = damage.copied(base, "forecast", damage.checkpoint_edited(edits[name], signed=False))
        words = damage.uses(base)["forecast"]
        yield Case(KIND, f"unsigned-{name}", words, REFUSED, SAYS, prepare=prepare)


# what else a checkpoint holds -----------------------------------------------------------------------------------------

_READ_BY_USE = {"forecast": "ForecastDataModule", "dna": "DNAClassData"}


def data_states(base: Base) -> Iterator[Case]:
    """The state of the data module, key by key of another type."""
    for run, key in _READ_BY_USE.items():
        words = {
            "forecast": ("predict", "forecast", "--checkpoint", damage.RUN, "--output", "out", "--quiet"),
            "dna": damage.uses(base)["dna"],
        }[run]
        tree = torch.load(base / run / "checkpoints" / "best.ckpt", weights_only=True)
        for keys in [(key,), *damage.paths(tree[key], (key,))]:
            value = tree
            for part in keys:
                value = value[part]
            for i, wrong in enumerate(damage.other_types(value)):
                edit = damage.checkpoint_edited(damage.put(wrong, *keys))
                name = f"{run}-{damage.named(keys)}-{i}-{type(wrong).__name__}"
                # other names of columns are legal: a forecaster is used on any
                exit = EITHER if isinstance(value, str) or "bases" in keys else REFUSED
                yield Case(KIND, name, words, exit, SAYS, prepare=damage.copied(base, run, edit))
    wrongs = {"nan": [0.0, torch.nan], "zero": [0.0, 0.0], "minus": [0.0, -1.0], "endless": [torch.inf, 1.0]}
    tables = {name: torch.tensor([row] * 2, dtype=torch.float64) for name, row in wrongs.items()}
    for name, wrong in (tables | {"long": torch.ones(3, 2)}).items():
        edit = damage.checkpoint_edited(damage.put(wrong, "ForecastDataModule", "arrays", "scales"))
        words = ("predict", "forecast", "--checkpoint", damage.RUN, "--output", "out", "--quiet")
        yield Case(KIND, f"scale-{name}", words, REFUSED, SAYS, prepare=damage.copied(base, "forecast", edit))


def resumed(base: Base) -> Iterator[Case]:
    """What only training goes on with: loops, callbacks, optimisers, schedulers."""
    draw = random.Random(5)
    for run in ("forecast", "lm"):
        tree = torch.load(base / run / "checkpoints" / "last.ckpt", weights_only=True)
        tops = (
            "epoch",
            "global_step",
            "pytorch-lightning_version",
            "loops",
            "callbacks",
            "optimizer_states",
            "lr_schedulers",
        )
        for key in tops:
            edit = damage.checkpoint_edited(damage.drop(key), "last.ckpt")
            yield _resumed(base, run, f"without-{key}", edit, EITHER)
            for i, wrong in enumerate(draw.sample(damage.other_types(tree[key]), 2)):
                edit = damage.checkpoint_edited(damage.put(wrong, key), "last.ckpt")
                exit = EITHER if key == "pytorch-lightning_version" else REFUSED
                yield _resumed(base, run, f"{key}-{i}-{type(wrong).__name__}", edit, exit)
        deep = [
            keys
            for top in ("loops", "callbacks", "optimizer_states", "lr_schedulers")
            for keys in damage.paths(tree[top], (top,))
        ]
        for i, keys in enumerate(draw.sample(deep, 14)):
            wrong = draw.choice(["abc", [[]], {"a": None}, -5, float("nan"), 10**18])
            edit = damage.checkpoint_edited(damage.put(wrong, *keys), "last.ckpt")
            yield _resumed(base, run, f"{i}-{damage.named(keys)[:60]}-{str(wrong)[:5]}", edit, EITHER)
    for name, rows in {
        "numbers": [5],
        "empty-rows": [{}],
        "text": [{"epoch": "x"}],
        "none": None,
        "nan": [{"epoch": float("nan"), "train_loss": float("nan"), "val_mse": float("nan"), "seconds": float("nan")}],
    }.items():
        edit = damage.checkpoint_edited(damage.put(rows, "callbacks", "History", "rows"), "last.ckpt")
        yield _resumed(base, "forecast", f"history-{name}", edit, REFUSED)


def _resumed(base: Base, run: str, name: str, edit: Callable[[Path], None], exit: int) -> Case:
    return Case(KIND, f"resume-{run}-{name}", damage.resume(run), exit, SAYS, prepare=damage.copied(base, run, edit))
