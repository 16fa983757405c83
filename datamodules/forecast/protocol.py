"""Which windows are for training, validation and test: the benchmark's borders, the last rows of every series, or what
a user asks for.

L lookback, H horizon, N series, W windows, R rows of all series.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Int

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.common.loaders import SPLITS
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.windows import Anchors

Bounds: TypeAlias = tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]
Cut: TypeAlias = "Shares | Dates | Known"
SHARES = (70.0, 10.0, 20.0)  # percent of the rows for train, validation and test


@dataclass(frozen=True)
class Benchmark:
    """The protocol of the long-term forecasting benchmark, for a table whose columns are forecast side by side.

    Validation and test windows reach `lookback` rows back, so that their first target is the first row of the split.

    Args:
        rows: lengths of train, validation and test counted from row 0 (later rows unused); None goes by `shares`, where
            train and test round down, validation takes the rest, and test ends at the last row.
        shares: of train, validation and test, in percent.
        stride, origin: only first target rows t with (t - origin) % stride == 0; for series made of sessions.
    """

    rows: tuple[int, int, int] | None = None
    shares: tuple[float, float, float] = SHARES
    stride: int = 1
    origin: int = 0

    def ranges(self, length: int, lookback: int) -> dict[str, tuple[int, int]]:
        """Rows [begin, end) that the windows of each split touch; begin is negative where the lookback does not fit."""
        train, val, test = self.rows or _by_share(length, self.shares)
        return {
            "train": (0, train),
            "val": (train - lookback, train + val),
            "test": (train + val - lookback, train + val + test),
        }

    def bounds(self, panel: Panel, split: str) -> Bounds:
        """The rows [begin, end) of each series that are forecast in a split."""
        begin, end = self.ranges(int(panel.lengths[0]), 0)[split]
        return np.full(len(panel), begin), np.full(len(panel), end)

    def learned(self, panel: Panel) -> Panel:
        """The rows that scaling and training may see: those of train."""
        return panel.rows(*self.bounds(panel, "train"))

    def anchors(self, panel: Panel, split: str, lookback: int, horizon: int) -> Anchors:
        """The windows of a split, whole horizons only, of all series at once."""
        begin, end = self.ranges(int(panel.lengths[0]), lookback)[split]
        earliest = begin + lookback
        first = np.arange(earliest + (self.origin - earliest) % self.stride, end - horizon + 1, self.stride)
        return Anchors(np.broadcast_to(np.arange(len(panel)), (len(first), len(panel))), first)

    def require(self, name: str, length: int, lookback: int, horizon: int) -> None:
        """Raise a DataError unless every split holds a window of lookback + horizon rows."""
        if self._fits(length, lookback, horizon):
            return
        asked = f"lookback {lookback} + horizon {horizon}"
        if self.rows is not None:
            train, val, test = self.rows
            raise DataError(
                f"{name}: {asked} does not fit its train/val/test rows {train}/{val}/{test}; the horizon may be at "
                f"most {min(val, test)}, lookback + horizon at most {train}"
            )
        raise DataError(
            f"{name} has {length} rows, too few for {asked} after the {self.words} split into train, val and test; it "
            f"must have at least {self.rows_needed(lookback, horizon)} rows, or choose a shorter lookback or horizon"
        )

    @property
    def words(self) -> str:
        return "/".join(f"{share:g}" for share in self.shares)

    def rows_needed(self, lookback: int, horizon: int) -> int:
        """The length from which on every series has a window in each split by shares."""
        # rounding makes the limit ragged, so walk down from a length that is certainly enough
        train, *others = self.shares
        length = int(max(100 * (horizon + 1) / min(others), 100 * (lookback + horizon + 1) / train)) + 2
        while self._fits(length - 1, lookback, horizon):
            length -= 1
        return length

    def _fits(self, length: int, lookback: int, horizon: int) -> bool:
        ranges = self.ranges(length, lookback).values()
        return all(begin >= 0 and end <= length and end - begin >= lookback + horizon for begin, end in ranges)


@dataclass(frozen=True)
class HoldOut:
    """The last rows of every series are for validation; a series too short to spare them trains with all it has.

    Args:
        val_rows: how many; at least the horizon, or 0 for no validation.
        horizon: H.
    """

    val_rows: int
    horizon: int

    @classmethod
    def of(cls, panels: Sequence[Panel], horizon: int, val_rows: int | None = None) -> "HoldOut":
        """With `val_rows`, or the larger of two horizons and 15 % of the median length."""
        if val_rows is None:
            lengths = np.concatenate([panel.lengths for panel in panels])
            val_rows = max(2 * horizon, int(0.15 * np.median(lengths)))
        return cls(val_rows, horizon)

    def spare(self, panel: Panel) -> Int[np.ndarray, " N"]:
        """Rows of each series that are kept from training."""
        return np.where(panel.lengths >= self.val_rows + 2 * self.horizon, self.val_rows, 0)

    def learned(self, panel: Panel) -> Panel:
        """The rows that scaling and training may see."""
        return panel.rows(np.zeros(len(panel), dtype=np.int64), panel.lengths - self.spare(panel))

    def anchors(self, panel: Panel, split: str, lookback: int, horizon: int) -> Anchors:
        """Windows of one series each, without those that have no observed row on one side.

        A window begins with its whole lookback, or, in a series shorter than two lookbacks, at the middle of what it
        has.
        """
        spare = self.spare(panel)
        end = panel.lengths - spare if split == "train" else np.where(spare > 0, panel.lengths, 0)
        earliest = np.minimum(lookback, np.maximum(1, (end - horizon) // 2))
        begin = np.zeros_like(end) if split == "train" else panel.lengths - spare
        return _series_anchors(panel, np.maximum(begin, earliest), end, lookback, horizon)


@dataclass(frozen=True)
class SeriesSplit:
    """Every series of a long table is cut for itself, by shares or by dates; a series too short for it only trains.

    Args:
        cut: where. By shares validation and test have at least one horizon each.
        horizon: H.
    """

    cut: Cut
    horizon: int

    def bounds(self, panel: Panel, split: str) -> Bounds:
        """The rows [begin, end) of each series that are forecast in a split."""
        ends = self.cut.rows(panel, self.horizon)
        place = SPLITS.index(split)
        begins = np.zeros(len(panel), dtype=np.int64) if place == 0 else ends[place - 1]
        return begins, ends[place]

    def learned(self, panel: Panel) -> Panel:
        """The rows that scaling and training may see: those of train."""
        return panel.rows(*self.bounds(panel, "train"))

    def anchors(self, panel: Panel, split: str, lookback: int, horizon: int) -> Anchors:
        """Windows of one series each, as those of `HoldOut`."""
        begin, end = self.bounds(panel, split)
        earliest = np.minimum(lookback, np.maximum(1, (end - horizon) // 2))
        return _series_anchors(panel, np.maximum(begin, earliest), end, lookback, horizon)


def _series_anchors(
    panel: Panel, begin: Int[np.ndarray, " N"], end: Int[np.ndarray, " N"], lookback: int, horizon: int
) -> Anchors:
    """The windows of each series whose targets lie in its rows [begin, end), those with observed rows on both sides."""
    counts = np.maximum(end - horizon - begin + 1, 0)
    series = np.repeat(np.arange(len(panel)), counts)
    first = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(begin, counts)
    seen = np.concatenate([[0], np.cumsum(~np.isnan(panel.target))])
    at, start = panel.offsets[series] + first, panel.offsets[series]
    past = seen[at] - seen[np.maximum(at - lookback, start)]
    kept = (past > 0) & (seen[at + horizon] - seen[at] > 0)
    return Anchors(series[kept, None], first[kept])


Protocol = Benchmark | HoldOut | SeriesSplit


# what a user asks for ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shares:
    """Train, validation and test as percentages of each series, which add up to 100."""

    percent: tuple[float, float, float] = SHARES

    def rows(self, panel: Panel, horizon: int) -> Int[np.ndarray, "3 N"]:
        """Where each split ends; a series that has no room for a horizon in each of them is all for training."""
        lengths = panel.lengths
        val, test = (
            np.maximum((lengths * (share / 100) + 1e-9).astype(np.int64), horizon) for share in self.percent[1:]
        )
        train = np.where(lengths - val - test >= 2 * horizon, lengths - val - test, lengths)
        return np.stack([train, np.minimum(train + val, lengths), lengths])


@dataclass(frozen=True)
class Dates:
    """The time stamps at which validation and test begin."""

    val: str
    test: str

    def rows(self, panel: Panel, horizon: int) -> Int[np.ndarray, "3 N"]:
        """Where each split ends in each series.

        Raises:
            DataError: they are no time stamps of the panel's kind, or no row lies before, between or after them.
        """
        starts = [self._stamp(text, panel) for text in (self.val, self.test)]
        if starts[0] >= starts[1]:
            raise DataError(
                f"split {self.val}/{self.test}: validation must begin before test; "
                "percentages are three, such as 70/10/20"
            )
        if len(panel.clock) < len(panel.target):  # all series have the same
            ends = [np.full(len(panel), np.searchsorted(panel.clock, start)) for start in starts]
        else:
            ends = [np.add.reduceat(np.asarray(panel.clock < start), panel.offsets[:-1], dtype=np.int64)
                    for start in starts]  # fmt: skip
        sizes = np.diff(np.stack([np.zeros(len(panel), dtype=np.int64), *ends, panel.lengths]), axis=0)
        for size, words in zip(sizes, ("before", "from", "after"), strict=True):
            if not size.any():
                first, last = panel.clock.min(), panel.clock.max()
                raise DataError(
                    f"split {self.val}/{self.test}: no row lies {words} {self.val if words != 'after' else self.test}"
                    f"{f' to {self.test}' if words == 'from' else ''}; the rows run from {first} to {last}"
                )
        return np.stack([*ends, panel.lengths])

    def _stamp(self, text: str, panel: Panel) -> pd.Timestamp | int:
        numbered = np.issubdtype(panel.clock.dtype, np.integer)
        try:
            if not numbered and text.isdigit() and len(text) < len("2024"):
                raise ValueError  # pandas would take it for a year of two digits
            return int(text) if numbered else panel.on_clock(pd.Timestamp(text))
        except (ValueError, TypeError):
            what = "a whole number, as the rows are numbered" if numbered else "a date such as 2024-01-31"
            raise DataError(f"split: {text!r} must be {what}; percentages are three, such as 70/10/20") from None


@dataclass(frozen=True, eq=False)
class Known:
    """The rows that a saved forecaster has learned from: what follows is for test.

    Args:
        ids: of the series.
        last: the last row of each, as the clock has it.
        zoned: whether the time stamps have a zone.
        held_out: rows of each that its epoch was chosen on, and its intervals calibrated.
    """

    ids: pd.Index
    last: pd.Index
    zoned: bool
    held_out: int

    @classmethod
    def of(cls, panel: Panel, held_out: int) -> "Known":
        """All rows of a panel."""
        return cls(panel.ids, panel.last, panel.zone is not None, held_out)

    def rows(self, panel: Panel, horizon: int) -> Int[np.ndarray, "3 N"]:
        """Where each split ends. If no series has later rows, the second half of the held-out rows is for test, of the
        series that had rows to hold out.
        """
        seen = self.seen(panel)
        if (panel.lengths > seen).any():
            return np.stack([np.maximum(seen - self.held_out, 0), seen, panel.lengths])
        half = np.where(HoldOut(self.held_out, horizon).spare(panel) > 0, self._half(horizon), 0)
        return np.stack([np.maximum(panel.lengths - 2 * half, 0), np.maximum(panel.lengths - half, 0), panel.lengths])

    def warn_of_the_end(self, panel: Panel, horizon: int) -> None:
        """Warn if no series has later rows."""
        if not (panel.lengths > self.seen(panel)).any():
            warnings.warn(
                f"no row comes after those the forecaster has learned from: the last {self._half(horizon)} of each "
                "series are taken, which have also chosen its epoch and calibrated its intervals",
                DataWarning,
                stacklevel=3,
            )

    def _half(self, horizon: int) -> int:
        return max(horizon, self.held_out // 2)

    def seen(self, panel: Panel) -> Int[np.ndarray, " N"]:
        """How many rows of each series were learned from."""
        if not len(self.ids):
            return np.zeros(len(panel), dtype=np.int64)
        if self.zoned != (panel.zone is not None):
            raise DataError(f"{panel.columns.time!r} must have a time zone here if it had one in training, else none")
        place = self.ids.get_indexer(panel.ids)
        last = self.last[place][panel.series]
        inside = np.asarray(panel.on_the_clock <= last) & (place >= 0)[panel.series]
        return np.add.reduceat(inside, panel.offsets[:-1], dtype=np.int64)


def read_split(text: str) -> Cut:
    """Read 70/10/20 (percentages of train, validation and test) or 2017-01-01/2017-06-01 (where the last two begin).

    Raises:
        DataError: it is neither.
    """
    parts = [part.strip() for part in text.split("/")]
    if len(parts) == 2 and all(parts):
        return Dates(*parts)
    try:
        train, val, test = map(float, parts)
    except ValueError:
        raise DataError(
            f"split must be percentages such as 70/10/20, or two dates such as 2017-01-01/2017-06-01 at which "
            f"validation and test begin; got {text!r}"
        ) from None
    if not min(train, val, test) > 0 or abs(train + val + test - 100) > 1e-9:
        raise DataError(f"split must be three positive percentages that add up to 100; got {text!r}")
    return Shares((train, val, test))


def protocol_of(panel: Panel, cut: Cut, horizon: int) -> Benchmark | SeriesSplit:
    """The protocol of a user's panel: wide ones keep their columns side by side, long ones split every series alone.

    Warns:
        DataWarning: a saved forecaster has learned from every row.
    """
    if isinstance(cut, Known):
        cut.warn_of_the_end(panel, horizon)
    if not panel.wide:
        return SeriesSplit(cut, horizon)
    if isinstance(cut, Shares):
        return Benchmark(shares=cut.percent)
    train, val, test = np.diff(cut.rows(panel, horizon).max(axis=1), prepend=0).tolist()
    return Benchmark((train, val, test))


def _by_share(length: int, shares: tuple[float, float, float]) -> tuple[int, int, int]:
    # the published border is below the exact one at some lengths, such as .7 of 90
    exact = 0.0 if shares == SHARES else 1e-9
    train, test = (int(length * (share / 100) + exact) for share in (shares[0], shares[2]))
    return train, length - train - test, test
