"""Train, validation and test of a genome, and windows of them.

Coordinates are 0-based and half-open. W windows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from torch.utils.data import Dataset

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.loaders import SPLITS
from titans_seq.datamodules.genomics.alphabet import UNKNOWN, Tokens
from titans_seq.datamodules.genomics.genome import Genome, check_intervals, pieces
from titans_seq.datamodules.genomics.intervals import Interval, overlap_audit, read_bed

Splits = dict[str, list[Interval]]

HELD_OUT = 0.05  # of every record for validation, and again for test
_SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def contiguous_splits(genome: Genome) -> Splits:
    """Split every record: its last 5 % are test, the 5 % before that validation, the rest train.

    Raises:
        DataError: Records are too short for a split to have a base.
    """
    splits: Splits = {name: [] for name in SPLITS}
    for record, length in genome.lengths.items():
        held = round(length * HELD_OUT)
        val, test = max(length - 2 * held, 0), length - held
        for name, (begin, end) in zip(SPLITS, [(0, val), (val, test), (test, length)], strict=True):
            if begin < end:
                splits[name].append(Interval(record, begin, end))
    if not splits["val"]:
        longest = max(genome.lengths.values())
        raise DataError(f"{genome.path}: its longest record has {longest} bases, too few for {HELD_OUT:.0%} as val")
    return splits


def record_splits(genome: Genome, val: Sequence[str] = (), test: Sequence[str] = ()) -> Splits:
    """Hold out whole records for validation and test; all others are train.

    Args:
        genome: What is split.
        val: Names of the records for validation.
        test: Names of the records for test.

    Raises:
        DataError: There is no such record, it is named for both, or no record is left for training.
    """
    held = {"val": [val] if isinstance(val, str) else val, "test": [test] if isinstance(test, str) else test}
    for record in (*held["val"], *held["test"]):
        genome.require(record)
    both = sorted(set(held["val"]) & set(held["test"]))
    if both:
        raise DataError(f"record {both[0]} is held out for val and for test; name it in one of them")
    splits: Splits = {name: [] for name in SPLITS}
    for record, length in genome.lengths.items():
        name = next((name for name, records in held.items() if record in records), "train")
        splits[name].append(Interval(record, 0, length))
    if not splits["train"]:
        raise DataError(f"{genome.path}: every record is held out for val or test; leave one for training")
    return splits


def bed_splits(genome: Genome, path: str | Path) -> Splits:
    """Read the splits from a BED file whose column 4 is train, val (or valid) or test, as Basenji and Enformer do.

    Args:
        genome: What is split.
        path: The BED file.

    Raises:
        DataError: Column 4 holds another word, there is nothing to train on, intervals of different splits overlap; as
            `read_bed` and `check_intervals`.
    """
    intervals = read_bed(path)
    try:
        check_intervals(genome, intervals)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    splits: Splits = {name: [] for name in SPLITS}
    for interval in intervals:
        label = interval.label or ""
        if label.lower() not in _SPLIT_OF:
            found = repr(label) if label else "nothing"
            raise DataError(f"{path}: column 4 of {interval.place} must be train, val or test; it holds {found}")
        splits[_SPLIT_OF[label.lower()]].append(interval)
    if not splits["train"]:
        raise DataError(f"{path}: no interval has train in column 4")
    for seen, held_out in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = overlap_audit(splits[seen], splits[held_out]).total.touching if splits[held_out] else 0
        if shared:
            raise DataError(f"{path}: {shared} intervals of {held_out} overlap intervals of {seen}; keep them apart")
    return splits


class GenomeWindows(Dataset[Tokens]):
    """Windows inside intervals, read when they are asked for.

    The windows of an interval do not overlap; its last one may be shorter than `length`. Every base of the intervals
    is read once at construction, to count N; 12 bytes per window stay in memory.

    Args:
        genome: Where the bases are read from.
        intervals: Where the windows lie; on the minus strand they are read as reverse complements.
        length: Bases per window.
        max_unknown: Windows with a greater share of N (IUPAC codes of several bases included) are left out.

    Attributes:
        dropped: Number of windows that were left out.

    Raises:
        DataError: length is below 1 or max_unknown outside of [0, 1]; as `check_intervals`; a letter is not a base;
            all windows are left out.
    """

    def __init__(self, genome: Genome, intervals: Sequence[Interval], length: int, max_unknown: float = 0.5) -> None:
        if length < 1 or not 0 <= max_unknown <= 1:
            raise DataError(
                f"length must be at least 1, max_unknown in [0, 1]; got length {length}, max_unknown {max_unknown}"
            )
        self.genome, self.intervals, self.length = genome, tuple(intervals), length
        check_intervals(genome, self.intervals)
        kept, self.dropped = [np.empty(0, dtype=np.int64)], 0
        for interval in self.intervals:
            begins = np.arange(interval.begin, interval.end, length)
            ends = np.minimum(begins + length, interval.end)
            keep = _count_unknown(genome, interval, begins, ends) / (ends - begins) <= max_unknown
            kept.append(begins[keep])
            self.dropped += int((~keep).sum())
        self._begins = np.concatenate(kept)
        self._interval = np.repeat(np.arange(len(self.intervals), dtype=np.int32), [len(begins) for begins in kept[1:]])
        if self.dropped and not len(self):
            raise DataError(
                f"{genome.path}: all {self.dropped} windows of {length} bases have more than {max_unknown:.0%} N; "
                "raise max_unknown or give other intervals"
            )

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, index: int) -> Tokens:
        return self.genome.tokens_of(Interval(*self.places(index), self.intervals[self._interval[index]].strand))

    def places(self, index: int) -> tuple[str, int, int]:
        """Record, begin and end of a window, counted on the plus strand."""
        interval, begin = self.intervals[self._interval[index]], int(self._begins[index])
        return interval.record, begin, min(begin + self.length, interval.end)


def _count_unknown(
    genome: Genome, interval: Interval, begins: Int[np.ndarray, " W"], ends: Int[np.ndarray, " W"]
) -> Int[np.ndarray, " W"]:
    counts = np.zeros(len(begins), dtype=np.int64)
    for first, last in pieces(interval.begin, interval.end):
        unknown = genome.tokens(interval.record, first, last) == UNKNOWN
        before = np.concatenate([[0], np.cumsum(unknown)])  # N of the piece ahead of each of its bases
        here = slice(np.searchsorted(ends, first, side="right"), np.searchsorted(begins, last, side="left"))
        counts[here] += before[np.minimum(ends[here], last) - first] - before[np.maximum(begins[here], first) - first]
    return counts
