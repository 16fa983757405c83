"""Genomes: the records of a FASTA file, read by offset as letters or as tokens.

Coordinates are 0-based and half-open everywhere.
"""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyfaidx

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import user_path
from titans_seq.datamodules.genomics.alphabet import Tokens, encode, other_strand
from titans_seq.datamodules.genomics.index import open_indexed, read_letters, require_fasta
from titans_seq.datamodules.genomics.intervals import Interval

_PIECE = 2**18  # bases read at once: a few MB of temporaries, and long enough that Python's share is nothing


class Genome:
    """The records of a FASTA file, plain or bgzip; nothing of the sequences is kept in memory.

    Each process opens the file for itself, so a genome may go to forked and spawned workers.

    Args:
        path: The FASTA file.

    Attributes:
        names: Names of the records in the order of the file, each up to the first blank.
        lengths: Number of bases of each record.

    Raises:
        DataError: As `require_fasta` and `open_indexed`; a record is empty.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
        self._handle: tuple[int, pyfaidx.Fasta] | None = None
        require_fasta(self.path)
        records = self._fasta().faidx.index
        self.names: tuple[str, ...] = tuple(records)
        self.lengths: dict[str, int] = {name: int(record.rlen) for name, record in records.items()}
        empty = [name for name, length in self.lengths.items() if not length]
        if empty:
            raise DataError(f"{self.path}: record {empty[0]} is empty; take it out or give its sequence")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None}

    def _fasta(self) -> pyfaidx.Fasta:
        if self._handle is None or self._handle[0] != os.getpid():
            # a forked process shares the file position of its parent: both would read at the wrong place
            self._handle = os.getpid(), open_indexed(self.path)
        return self._handle[1]

    def require(self, record: str) -> None:
        """Raise a DataError, with the nearest name, unless there is such a record."""
        if record not in self.lengths:
            near = _nearest(record, self.names)
            more = f" and {len(self.names) - 5} more" if len(self.names) > 5 else ""
            hint = f"did you mean {near}?" if near else f"it has {', '.join(self.names[:5])}{more}"
            raise DataError(f"no record {record} in {self.path}; {hint}")

    def letters(self, record: str, begin: int = 0, end: int | None = None) -> str:
        """The bases [begin, end) as the file has them, in either case; end None: to the last one."""
        end = self._end(record, begin, end)
        return "" if begin == end else read_letters(self._fasta(), self.path, record, begin, end)

    def tokens(self, record: str, begin: int = 0, end: int | None = None) -> Tokens:
        """The bases [begin, end) as tokens of the alphabet.

        Raises:
            DataError: no such record, a place outside of it, a letter that is not a base (with its position from 1).
        """
        end = self._end(record, begin, end)
        tokens = np.empty(end - begin, dtype=np.uint8)
        for first, last in pieces(begin, end):
            letters = self.letters(record, first, last)
            try:
                tokens[first - begin : last - begin] = encode(letters, first)
            except ValueError as error:
                raise DataError(f"{self.path}: record {record}: {error}") from None
        return tokens

    def tokens_of(self, interval: Interval) -> Tokens:
        """The bases of an interval as tokens, read on its strand."""
        tokens = self.tokens(interval.record, interval.begin, interval.end)
        return other_strand(tokens) if interval.strand == "-" else tokens

    def record(self, name: str) -> "Record":
        """One record, to be sliced like an array."""
        self.require(name)
        return Record(self, name)

    def _end(self, record: str, begin: int, end: int | None) -> int:
        self.require(record)
        length = self.lengths[record]
        end = length if end is None else end
        if not 0 <= begin <= end <= length:
            raise DataError(f"{self.path}: record {record} has {length} bases; there are no bases [{begin}, {end})")
        return end


def check_intervals(genome: Genome, intervals: Sequence[Interval]) -> None:
    """Raise a DataError for the first interval whose record is unknown or shorter than its end."""
    for interval in intervals:
        try:
            genome.require(interval.record)
        except DataError as error:
            raise DataError(f"interval {interval.place}: {error}") from None
        length = genome.lengths[interval.record]
        if interval.end > length:
            raise DataError(
                f"interval {interval.place} ends past record {interval.record} of {genome.path}, which has {length} "
                "bases; are the intervals of another assembly?"
            )


@dataclass(frozen=True)
class Record:
    """A record of a genome as a sequence of tokens: its length, and slices of it that are read from the file."""

    genome: Genome
    name: str

    def __len__(self) -> int:
        return self.genome.lengths[self.name]

    def __getitem__(self, index: slice) -> Tokens:
        begin, end, step = index.indices(len(self))
        return self.genome.tokens(self.name, begin, max(begin, end))[::step]


def pieces(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut [begin, end) into stretches short enough to be read at once."""
    for first in range(begin, end, _PIECE):
        yield first, min(first + _PIECE, end)


def _nearest(name: str, names: Sequence[str]) -> str | None:
    """chr1 for 1, MT for chrM, NC_000913.3 for NC_000913; else what is spelled alike."""

    def bare(name: str) -> str:
        core = re.sub(r"\.\d+$", "", name.lower().removeprefix("chr"))
        return "mt" if core == "m" else core

    alike = [known for known in names if bare(known) == bare(name)]
    return next(iter(alike or difflib.get_close_matches(name, names, n=1)), None)
