"""What a value of a recorded configuration may be: its type, as the constructor declares it, and its size."""

import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from titans_seq.cli.errors import UsageError

MOST = 10**9  # of whole numbers without a limit of their own: epochs, steps, patience
# of what takes memory or starts processes; generous: every size of the paper's models is far below
_NAMES = {
    2**3: "k",
    2**5: "depth",
    2**6: "expansion",
    2**8: "blocks layers num_workers devices",
    2**10: "conv_size",
    2**12: "heads states num_nodes",
    2**14: "head_dim num_persistent",
    2**16: "dim chunk_size segment folds fold",
    2**20: (
        "lookback horizon patch_size patch_stride window vocabulary vocab_size carry batch_size eval_batch_size "
        "eval_samples max_time duration"
    ),
    2**22: "length eval_length",
    2**32 - 1: "seed",
}
LARGEST = {name: limit for limit, names in _NAMES.items() for name in names.split()}
# what a batch takes is the product of the two; a real one is far below
MOST_TOKENS = 2**30
_BATCHES = (
    ("length", "batch_size"),
    ("length", "eval_batch_size"),
    ("eval_length", "eval_batch_size"),
    ("lookback", "batch_size"),
    ("lookback", "eval_batch_size"),
)
# where -1 has a meaning: all, or no end
MINUS_ONE = ("devices", "max_epochs", "max_steps", "num_sanity_val_steps")
SIGNED = ("min_delta", "stopping_threshold", "divergence_threshold")
# options of the Trainer that would write to, or send to, a place that the file chooses
CHOICES: Mapping[str, tuple[Any, ...]] = {"profiler": (None, "simple", "advanced"), "model_registry": (None,)}
_SHOWN = 60  # letters of a value in a message


def brief(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]}...{text[-1]}"


def require(key: str, value: Any, hint: Any) -> None:
    """Raise a UsageError unless a value of `section.name` is of its declared type and of a reasonable size."""
    name = key.rpartition(".")[2]
    if name in CHOICES and value not in CHOICES[name]:
        raise UsageError(f"{key} must be one of {', '.join(map(str, CHOICES[name]))}; got {brief(value)}")
    if not suits(value, hint):
        raise UsageError(f"{key} must be {_words(hint)}; got {brief(value)}")
    _require_size(key, name, value)


def require_most(key: str, value: Any) -> None:
    """As `require`, of a value that a user types: only that it is finite, and not larger than a file may ask for."""
    name = key.rpartition(".")[2]
    if isinstance(value, list):
        for item in value:
            require_most(key, item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        most = LARGEST.get(name, MOST)
        if not value <= most or value == -math.inf:  # NaN too
            raise UsageError(f"{key} must be finite and at most {most}; got {brief(value)}")


def _require_size(key: str, name: str, value: Any) -> None:
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            _require_size(key, name, item)
    elif isinstance(value, str):
        if name == "devices" and value.isdecimal():  # "8" is as good as 8
            _require_size(key, name, int(value))
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key} must be finite; got {value}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        most = LARGEST.get(name, MOST)
        least = -most if name in SIGNED else -1 if name in MINUS_ONE else 0
        if not least <= value <= most:
            raise UsageError(f"{key} must be between {least} and {most}; got {brief(value)}")


def require_batches(name: str, section: Mapping[str, Any]) -> None:
    """Raise a UsageError if a section whose values `require` has let through asks for batches that are too large."""
    for long, rows in _BATCHES:
        tokens, times = section.get(long), section.get(rows)
        if isinstance(tokens, int) and isinstance(times, int) and tokens * times > MOST_TOKENS:
            raise UsageError(f"{name}.{long} x {name}.{rows} must be at most {MOST_TOKENS}; got {tokens} x {times}")


def suits(value: Any, hint: Any) -> bool:
    """Tell whether a plain value is of a declared type. No plain value is one of a class."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(suits(value, each) for each in inner)
    if origin is typing.Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    if origin in (list, tuple, Sequence, Iterable):
        return isinstance(value, list) and all(suits(item, inner[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(suits(item, inner[1]) for item in value.values())
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint or (hint is Path and isinstance(value, str))


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
    Path: "text",
}


def _words(hint: Any) -> str:
    """The plain types among those declared."""
    found = list(dict.fromkeys(_each(hint)))
    return " or ".join(found) if found else "left out"


def _each(hint: Any) -> list[str]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return [word for each in inner for word in _each(each)]
    if origin is typing.Literal:
        return [repr(each) for each in inner]
    if origin in (list, tuple, Sequence, Iterable):
        return [f"a list of {word}" for word in _each(inner[0])[:1]]
    if origin in (dict, Mapping):
        return ["a mapping"]
    return [_WORDS[hint]] if hint in _WORDS else []
