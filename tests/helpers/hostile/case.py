"""One hostile input: what is prepared, what is run on it, and how that must end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

DONE, REFUSED = 0, 2
EITHER = -1  # an option that may be legal: done, or refused in one line


@dataclass(frozen=True)
class Base:
    """Finished tiny runs and their data in one folder; cases copy from it and must not change it."""

    folder: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def series(self) -> Path:
        return self.folder / "series.csv"

    @property
    def genome(self) -> Path:
        return self.folder / "genome.fa"

    @property
    def sequences(self) -> Path:
        return self.folder / "sequences.csv"

    @property
    def book(self) -> Path:
        return self.folder / "book.txt"


Prepare = Callable[[Path], None]


def nothing(folder: Path) -> None:
    """There is nothing to prepare."""


@dataclass(frozen=True)
class Case:
    """An input and its expected end.

    kind: what is attacked. name: unique in its kind.
    words: of the command; paths are relative to the case's folder. call: instead of a command, a library call in that
    folder, which must return or raise a ValueError or an OSError.
    exit: DONE, REFUSED or EITHER.
    says: pattern of the line on stderr when refused. makes: a file that must be there when done.
    prepare: fills the case's folder.
    """

    kind: str
    name: str
    words: tuple[str, ...] = ()
    exit: int = REFUSED
    says: str = ""
    makes: str | None = None
    prepare: Prepare = nothing
    call: Callable[[], object] | None = None

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


Family = Callable[[Base], Iterator[Case]]
