"""Intervals of records: reading them, how test intervals overlap those of training, and splits in which none does.

Coordinates are 0-based and half-open, as in BED. Overlap is one of positions: both strands hold the same bases.
N intervals, L classes, K clusters, S splits.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import open_text, user_path

SPLITS = ("train", "test")
_LIST_COLUMNS = ("region", "start", "end", "strand")
_STRANDS = {"+": "+", "-": "-", ".": "+", "": "+"}  # a strand that is not given reads as +
_LAST = 2**40  # longer than any record, so that positions of 4 million records fit one line of 64 bits
_PAIRS = 2**21  # candidates looked at together, 100 MB


@dataclass(frozen=True)
class Interval:
    """The bases begin ... end - 1 of a record, read on one strand.

    Raises:
        DataError: not 0 <= begin < end <= 2**40, or a strand other than "+" and "-".
    """

    record: str
    begin: int
    end: int
    strand: str = "+"
    label: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end <= _LAST:
            raise DataError(f"interval {self.place}: 0 <= begin < end <= 2**40 is needed")
        if self.strand not in ("+", "-"):
            raise DataError(f"interval {self.place}: strand {self.strand!r} must be + or -")

    @property
    def place(self) -> str:
        """Record and coordinates as genome browsers write them, but 0-based and half-open."""
        return f"{self.record}:{self.begin}-{self.end}"


@dataclass(frozen=True, eq=False)
class Intervals(Sequence[Interval]):
    """Many intervals column by column; a sequence of `Interval` for who wants one.

    records, strands, labels: str objects (a label may be None). begins, ends: int64.
    """

    records: np.ndarray
    begins: Int[np.ndarray, " N"]
    ends: Int[np.ndarray, " N"]
    strands: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, intervals: Iterable[Interval]) -> "Intervals":
        if isinstance(intervals, cls):
            return intervals
        rows = [(each.record, each.begin, each.end, each.strand, each.label) for each in intervals]
        return cls.from_columns(*zip(*rows, strict=True)) if rows else cls.from_columns(*[()] * 5)

    @classmethod
    def from_columns(cls, records: Any, begins: Any, ends: Any, strands: Any, labels: Any) -> "Intervals":
        records, strands, labels = (np.array(column, dtype=object) for column in (records, strands, labels))
        return cls(records, np.array(begins, dtype=np.int64), np.array(ends, dtype=np.int64), strands, labels)

    def take(self, index: Any) -> "Intervals":
        """Return those at the positions of an index array, a mask or a slice."""
        return Intervals(*(column[index] for column in self.columns))

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        return self.ends - self.begins

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        return self.records, self.begins, self.ends, self.strands, self.labels

    def __len__(self) -> int:
        return len(self.begins)

    @overload
    def __getitem__(self, index: int) -> Interval: ...
    @overload
    def __getitem__(self, index: slice) -> "Intervals": ...
    def __getitem__(self, index: int | slice) -> "Interval | Intervals":
        if isinstance(index, slice):
            return self.take(index)
        record, begin, end, strand, label = (column[index] for column in self.columns)
        return Interval(record, int(begin), int(end), strand, label)


@dataclass(frozen=True)
class OverlapCounts:
    """How many test intervals share with a single train interval what the attributes say.

    Attributes:
        test: Number of test intervals.
        touching: At least 1 base.
        half: At least 50 % of their own length.
        identical: Record, begin and end.
        other_class: At least 1 base, where both have labels and these differ.
    """

    test: int
    touching: int
    half: int
    identical: int
    other_class: int


@dataclass(frozen=True)
class OverlapReport:
    """What a split gives away.

    Args:
        train: number of train intervals.
        total: counts over all test intervals.
        lengths: minimum, median and maximum in bases, train and test together.
        per_class: the same per class of the test intervals, sorted; empty where intervals have no labels.
        length_only: accuracy on test of "length -> most frequent train class" (a tie: the first in sorted order; a
            length that train has not: the most frequent class of all). None where intervals have no labels.
        majority: accuracy of the most frequent train class, None likewise; what length_only is to be compared with.
    """

    train: int
    total: OverlapCounts
    lengths: tuple[int, float, int]
    per_class: dict[str, OverlapCounts] = field(default_factory=dict)
    length_only: float | None = None
    majority: float | None = None


def read_interval_lists(path: str | Path) -> tuple[Intervals, Intervals]:
    """Return (train, test) of a data set in the list format of genomic-benchmarks, labelled by class file.

    Args:
        path: folder with `train/<class>.csv.gz` and `test/<class>.csv.gz` of columns id,region,start,end,strand. An
            empty strand is +; `id` is left out, since it repeats across classes.

    Raises:
        DataError: a file, a column or a class is missing, or a row is not an interval (with file and line).
    """
    path = user_path(path)
    train, test = (_lists_of(path / split) for split in SPLITS)
    for split, here, there in (("train", train, test), ("test", test, train)):
        missing = sorted(set(there) - set(here))
        if missing:
            raise DataError(f"{path / split}: no {missing[0]}.csv.gz; train and test must hold the same classes")
    return _joined(train), _joined(test)


def read_bed(path: str | Path) -> Intervals:
    """Read a BED file of three or more tab-separated columns; column 4 is the label, column 6 the strand.

    Comments, `track` and `browser` lines and empty lines are skipped; a name `.` is no label, a strand `.` is +.

    Args:
        path: in UTF-8, .gz allowed.

    Raises:
        DataError: no such file, no intervals, or (with file and line) fewer than three columns or another number than
            before, a begin or end that is not a whole number from 0 to 2**40, end <= begin, an unknown strand.
    """
    path = user_path(path)
    rows: list[tuple[str, int, int, str, str | None]] = []
    columns = 0
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip() or line.startswith("#") or line.split(maxsplit=1)[0] in ("track", "browser"):
                continue
            fields = line.rstrip("\r\n").split("\t")
            columns = columns or len(fields)
            rows.append(_bed_row(fields, columns, f"{path}: line {number}"))
    if not rows:
        raise DataError(f"{path} holds no intervals")
    return Intervals.from_columns(*zip(*rows, strict=True))


def overlap_audit(train: Sequence[Interval], test: Sequence[Interval]) -> OverlapReport:
    """Count the test intervals that overlap train intervals, and what length alone tells about the class.

    Only places are compared: a copy elsewhere in the genome is not seen. Time grows with the number of pairs that
    overlap, memory does not.

    Raises:
        DataError: no train or no test intervals.
    """
    train, test = Intervals.of(train), Intervals.of(test)
    for name, intervals in zip(SPLITS, (train, test), strict=True):
        if not len(intervals):
            raise DataError(f"no {name} intervals: an audit needs both train and test")
    classes, labels = _codes([train.labels, test.labels])
    flags = _overlap_flags(train, test, labels)
    lengths = np.concatenate([train.lengths, test.lengths])
    report = OverlapReport(
        train=len(train),
        total=OverlapCounts(len(test), *map(int, flags.sum(axis=1))),
        lengths=(int(lengths.min()), float(np.median(lengths)), int(lengths.max())),
    )
    if min(each.min() for each in labels) < 0:
        return report
    majority = np.bincount(labels[0]).argmax()
    counts = [np.bincount(labels[1][flag], minlength=len(classes)) for flag in (np.ones(len(test), dtype=bool), *flags)]
    return replace(
        report,
        per_class={str(classes[i]): OverlapCounts(*(int(each[i]) for each in counts)) for i in np.unique(labels[1])},
        length_only=float((label_by_length(train.lengths, labels[0], test.lengths) == labels[1]).mean()),
        majority=float((majority == labels[1]).mean()),
    )


def label_by_length(
    lengths: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"], asked: Int[np.ndarray, " M"]
) -> Int[np.ndarray, " M"]:
    """Return the most frequent label among those of a length, of all where no interval has it; the first in a tie."""
    pairs, counts = np.unique(np.stack([lengths, labels]), axis=1, return_counts=True)  # sorted by length, then label
    best = np.lexsort((-counts, pairs[0]))  # stable: in a tie the first label stays first
    known, first = np.unique(pairs[0][best], return_index=True)
    places = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[places] == asked, pairs[1][best[first]][places], np.bincount(labels).argmax())


def overlap_clusters(intervals: Sequence[Interval]) -> Int[np.ndarray, " N"]:
    """Return the cluster 0 ... K - 1 of every interval: connected components of sharing a base."""
    (begins,), (ends,) = _on_one_line([Intervals.of(intervals)])
    order = np.argsort(begins, kind="stable")
    opens = np.ones(len(order), dtype=bool)
    opens[1:] = begins[order][1:] >= np.maximum.accumulate(ends[order])[:-1]
    clusters = np.empty(len(order), dtype=np.int64)
    clusters[order] = np.cumsum(opens) - 1
    return clusters


def _on_one_line(tables: list[Intervals]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return begins and ends of every table with the records laid one behind the other, so that none touches the
    next.
    """
    records = _codes([table.records for table in tables])[1]
    span = 1 + max((int(table.ends.max(initial=0)) for table in tables), default=0)
    begins = [codes * span + table.begins for codes, table in zip(records, tables, strict=True)]
    return begins, [begin + table.lengths for begin, table in zip(begins, tables, strict=True)]


def _codes(columns: list[np.ndarray]) -> tuple[np.ndarray, list[Int[np.ndarray, " N"]]]:
    """Return the sorted values of several columns together, and each column as positions in them; None is -1."""
    codes, values = pd.factorize(np.concatenate(columns), sort=True)
    return values, np.split(codes.astype(np.int64), np.cumsum([len(column) for column in columns])[:-1])


def _overlap_flags(train: Intervals, test: Intervals, labels: list[np.ndarray]) -> Bool[np.ndarray, "4 N"]:
    """Return, in the order of `OverlapCounts`, what is true of each test interval."""
    begins, ends = _on_one_line([train, test])
    flags = np.zeros((4, len(test)), dtype=bool)
    touching, half, identical, other_class = flags
    for i, j in _overlapping_pairs(begins[1], ends[1], begins[0], ends[0]):
        shared = np.minimum(ends[1][i], ends[0][j]) - np.maximum(begins[1][i], begins[0][j])
        touching[i] = True
        half[i[2 * shared >= test.lengths[i]]] = True
        identical[i[(begins[1][i] == begins[0][j]) & (ends[1][i] == ends[0][j])]] = True
        other_class[i[(labels[1][i] != labels[0][j]) & (labels[1][i] >= 0) & (labels[0][j] >= 0)]] = True
    return flags


def _overlapping_pairs(
    begins: np.ndarray, ends: np.ndarray, other_begins: np.ndarray, other_ends: np.ndarray
) -> Iterator[tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]]:
    """Yield in pieces all (i, j) where interval i and other interval j share a base.

    The others are taken by length, doubling from class to class: within one, those that overlap i begin less than the
    longest before it. Were all taken together, one that spans a chromosome would make candidates of all before i.
    """
    lengths = other_ends - other_begins
    powers = np.frexp(lengths)[1]
    for power in np.unique(powers):
        others = np.flatnonzero(powers == power)
        others = others[np.argsort(other_begins[others])]
        starts = other_begins[others]
        first = np.searchsorted(starts, begins - lengths[others].max(), side="right")
        counts = np.maximum(np.searchsorted(starts, ends) - first, 0)
        total = np.cumsum(counts)
        for piece in np.split(np.arange(len(begins)), np.flatnonzero(np.diff(total // _PAIRS)) + 1):
            i = np.repeat(piece, counts[piece])
            before = np.repeat(total[piece] - counts[piece], counts[piece])
            j = others[first[i] + np.arange(len(i)) + (total[piece[0]] - counts[piece[0]]) - before]
            overlap = other_ends[j] > begins[i]
            yield i[overlap], j[overlap]


def _bed_row(fields: list[str], columns: int, where: str) -> tuple[str, int, int, str, str | None]:
    if len(fields) < 3:
        raise DataError(f"{where} has {len(fields)} columns; BED has at least 3, separated by tabs")
    if len(fields) != columns:
        raise DataError(f"{where} has {len(fields)} columns, the lines before {columns}")
    record, begin, end = fields[0], *(_whole_number(text, where) for text in fields[1:3])
    label, strand = (fields[3:] + [""])[0], (fields[5:] + ["."])[0]
    if not record:
        raise DataError(f"{where} names no record")
    if end <= begin:
        raise DataError(f"{where}: end {end} must be above begin {begin}")
    if strand not in ("+", "-", "."):
        raise DataError(f"{where}: strand {strand!r} must be +, - or .")
    return record, begin, end, _STRANDS[strand], None if label in ("", ".") else label


def _whole_number(text: str, where: str) -> int:
    # Python reads no number of thousands of digits
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _LAST):
        raise DataError(f"{where}: {text!r} must be a whole number from 0 to 2**40")
    return int(text)


def _lists_of(folder: Path) -> dict[str, Intervals]:
    files = sorted(folder.glob("*.csv.gz"))
    if not files:
        raise DataError(f"no <class>.csv.gz in {folder}; a data set of interval lists has some in train/ and in test/")
    return {file.name.removesuffix(".csv.gz"): _read_list(file) for file in files}


def _joined(lists: dict[str, Intervals]) -> Intervals:
    return Intervals(*(np.concatenate(parts) for parts in zip(*(each.columns for each in lists.values()), strict=True)))


def _read_list(path: Path) -> Intervals:
    try:
        with open_text(path) as file:
            # texts as they stand (a record may be called NA); a blank line counts, so that lines are the file's
            table = pd.read_csv(
                file, dtype={"region": object, "strand": object}, keep_default_na=False, skip_blank_lines=False
            )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    missing = [name for name in _LIST_COLUMNS if name not in table.columns]
    if missing:
        raise DataError(f"{path}: no column {missing[0]}; {', '.join(_LIST_COLUMNS)} are needed")

    def refuse(bad: pd.Series, column: str, rule: str) -> None:
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise DataError(f"{path}: line {row + 2}: {column} {str(table[column].iloc[row])!r} must be {rule}")

    begins, ends = (pd.to_numeric(table[name], errors="coerce") for name in ("start", "end"))
    for numbers in (begins, ends):
        whole = (numbers >= 0) & (numbers <= _LAST) & (numbers % 1 == 0)
        refuse(~whole, str(numbers.name), "a whole number from 0 to 2**40")
    refuse(ends <= begins, "end", "above start")
    strands = table["strand"].map(_STRANDS)
    refuse(strands.isna(), "strand", "+, - or empty")
    refuse(table["region"] == "", "region", "a name")
    labels = [path.name.removesuffix(".csv.gz")] * len(table)
    return Intervals.from_columns(table["region"], begins, ends, strands, labels)
