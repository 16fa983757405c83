"""Labelled sequences: CSV or TSV with `sequence,label`, the folders of genomic-benchmarks, intervals of a genome.

Class names are sorted and go with the data: the order that folders or rows happen to have says nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import base_name, open_text, user_path
from titans_seq.datamodules.genomics.alphabet import encode
from titans_seq.datamodules.genomics.genome import Genome, check_intervals
from titans_seq.datamodules.genomics.intervals import Interval
from titans_seq.datamodules.genomics.tables import kind_of, read_rows

COLUMNS = ("sequence", "label")


@dataclass(frozen=True)
class Labelled:
    """Sequences of any length and their classes.

    Attributes:
        name: What results call the data.
        tokens: One array of tokens (see `alphabet`) per sequence.
        labels: Index into class_names.
        class_names: Sorted, unless training gave them.
    """

    name: str
    tokens: tuple[UInt8[np.ndarray, " _"], ...]
    labels: Int[np.ndarray, " S"]
    class_names: tuple[str, ...]

    def subset(self, rows: Int[np.ndarray, " _"]) -> "Labelled":
        """Some of the sequences; the classes stay."""
        return replace(self, tokens=tuple(self.tokens[row] for row in rows), labels=self.labels[rows])

    @property
    def lengths(self) -> Int[np.ndarray, " S"]:
        return np.array([len(tokens) for tokens in self.tokens], dtype=np.int64)


@dataclass(frozen=True)
class Sequences:
    """Sequences without classes, and what each is called."""

    ids: tuple[str, ...]
    tokens: tuple[UInt8[np.ndarray, " _"], ...]


def read_sequences(path: str | Path) -> Sequences:
    """Read the column `sequence` of a CSV or TSV; ids from a column `id`, else row numbers from 1.

    Raises:
        DataError: as `read_labelled_csv`, or no row at all.
    """
    path = user_path(path)
    rows = list(_table(path, ("sequence",), ("id",)))
    if not rows:
        raise DataError(f"{path} has no sequence")
    ids = [name or str(i) for i, (_, (_, name)) in enumerate(rows, 1)]
    return Sequences(tuple(ids), tuple(_tokens(sequence, where) for where, (sequence, _) in rows))


def read_labelled_csv(path: str | Path, class_names: tuple[str, ...] | None = None) -> Labelled:
    """Read `sequence,label` rows; other columns are left out, case of the header is ignored.

    Args:
        path: .csv or .tsv, also .gz, in UTF-8.
        class_names: those of the training data; a label that is none of them is refused. None: the sorted labels found.

    Raises:
        DataError: no such file, a missing column, an empty sequence or label, a letter that is not a base, fewer than
            two classes, a class that training did not know.
    """
    path = user_path(path)
    tokens, labels = [], []
    for where, (sequence, label) in _table(path, COLUMNS):
        if not label:
            raise DataError(f"{where} has no label")
        tokens.append(_tokens(sequence, where))
        labels.append(label)
    return labelled(path, tokens, labels, class_names)


def read_labelled_folder(path: str | Path, class_names: tuple[str, ...] | None = None) -> Labelled:
    """Read `<class>/<id>.txt`, one sequence per file: a split of a data set as genomic-benchmarks downloads it.

    The package takes labels from the order in which folders are listed, which differs between machines and splits; here
    classes are sorted by name.

    Raises:
        DataError: no such folder, no class folders, and as `read_labelled_csv`.
    """
    path = user_path(path)
    if not path.is_dir():
        raise DataError(f"no folder {path}")
    files = sorted(file for folder in sorted(path.iterdir()) if folder.is_dir() for file in folder.glob("*.txt"))
    tokens = [_tokens(_content(file).strip(), str(file)) for file in files]
    return labelled(path, tokens, [file.parent.name for file in files], class_names)


def labelled_from_bed(
    genome: Genome, intervals: Sequence[Interval], class_names: tuple[str, ...] | None = None
) -> Labelled:
    """Read the sequences of intervals, whose labels are the classes; on the minus strand the reverse complement.

    Args:
        genome: Where the sequences are read from.
        intervals: Where they lie.
        class_names: Classes of the training data. None: the labels found, sorted.

    Raises:
        DataError: An interval has no label, there are fewer than two classes, training did not know a class; as
            `check_intervals`.
    """
    check_intervals(genome, intervals)
    labels = []
    for interval in intervals:
        if not interval.label:
            raise DataError(f"interval {interval.place} has no class; give one in column 4 of the BED file")
        labels.append(interval.label)
    tokens = [genome.tokens_of(interval) for interval in intervals]
    return labelled(genome.path, tokens, labels, class_names)


def _content(path: Path) -> str:
    with open_text(path) as file:
        return file.read()


def _table(
    path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where each row stands, and its fields of these columns; empty where an optional column is not there."""
    separator = kind_of(path)
    with open_text(path) as file:
        header, rows = read_rows(path, file, separator)
        missing = [name for name in columns if name not in header]
        if missing:
            raise DataError(
                f"{path}: no column {' and no column '.join(missing)}; the header is {', '.join(header) or 'empty'}"
            )
        places = [header.index(name) if name in header else None for name in (*columns, *optional)]
        for line, fields in rows:
            yield f"{path}: line {line}", tuple("" if place is None else fields[place] for place in places)


def _tokens(sequence: str, where: str) -> UInt8[np.ndarray, " _"]:
    if not sequence:
        raise DataError(f"{where} has no sequence")
    try:
        return encode(sequence)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def labelled(
    path: Path, tokens: list[UInt8[np.ndarray, " _"]], labels: list[str], class_names: tuple[str, ...] | None
) -> Labelled:  # fmt: skip
    found = tuple(sorted(set(labels)))
    if class_names is None:
        if len(found) < 2:
            raise DataError(f"{path}: at least two classes are needed; found {', '.join(found) or 'none'}")
        class_names = found
    unknown = [name for name in found if name not in class_names]
    if unknown:
        raise DataError(
            f"{path}: class {unknown[0]} of sequence {labels.index(unknown[0]) + 1} is not among those of training, "
            f"{', '.join(class_names)}"
        )
    index = {name: i for i, name in enumerate(class_names)}
    name = base_name(path) if path.is_file() else path.name
    return Labelled(name, tuple(tokens), np.array([index[label] for label in labels], dtype=np.int64), class_names)
