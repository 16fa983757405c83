"""Methods that take and give frames of any library."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from titans_seq.datamodules.forecast.native import from_pandas, to_pandas

C = TypeVar("C")


def frames_as_given(*methods: str) -> Callable[[type[C]], type[C]]:
    """Let these methods of a class take frames of any library; frames they return are of the same one.

    Without a frame the library is that of `fit`.
    """

    def decorated(cls: type[C]) -> type[C]:
        for name in methods:
            setattr(cls, name, _as_given(getattr(cls, name)))
        return cls

    return decorated


def _as_given(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        both = [*map(to_pandas, args)], {name: to_pandas(value) for name, value in options.items()}
        given = [*both[0], *both[1].values()]
        kind = next((kind for _, kind in given if kind is not None), None)
        if not any(isinstance(value, pd.DataFrame | pd.Series | str | Path) for value, _ in given):
            kind = getattr(self, "frames_", None)
        found = method(self, *(value for value, _ in both[0]), **{name: value for name, (value, _) in both[1].items()})
        if method.__name__ == "fit":
            self.frames_ = kind
        return from_pandas(found, kind) if isinstance(found, pd.DataFrame) else found

    return call
