"""Pictures of results: one that cannot be drawn loses nothing that was measured."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# what matplotlib and the disk raise: names that cannot be drawn or encoded, numbers beyond its axes, fonts, a full disk
NOT_DRAWN = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, MemoryError)


def draw(plot: Callable[..., Path], *arguments: Any, **options: Any) -> list[Path]:
    """The picture that a plot function makes; none, and a warning on stderr, if it cannot."""
    try:
        return [plot(*arguments, **options)]
    except NOT_DRAWN as error:
        name = plot.__name__.removeprefix("plot_")
        print(f"titans-seq: note: no picture of the {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return []
