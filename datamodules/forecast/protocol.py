"""Which windows are for training, validation and test: the benchmark's borders, or the last rows of every series.

L lookback, H horizon, N series, W windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.windows import Anchors


@dataclass(frozen=True)
class Benchmark:
    """The protocol of the long-term forecasting benchmark, for a table whose columns are forecast side by side.

    Validation and test windows reach `lookback` rows back, so that their first target is the first row of the split.

    Args:
        rows: lengths of train, validation and test counted from row 0 (later rows unused); None is 70/10/20, where
            train and test round down, validation takes the rest, and test ends at the last row.
        stride, origin: only first target rows t with (t - origin) % stride == 0; for series made of sessions.
    """

    rows: tuple[int, int, int] | None = None
    stride: int = 1
    origin: int = 0

    def ranges(self, length: int, lookback: int) -> dict[str, tuple[int, int]]:
        """Rows [begin, end) that the windows of each split touch; begin is negative where the lookback does not fit."""
        train, val, test = self.rows or (int(length * 0.7), length - int(length * 0.7) - int(length * 0.2),
                                         int(length * 0.2))  # fmt: skip
        return {
            "train": (0, train),
            "val": (train - lookback, train + val),
            "test": (train + val - lookback, train + val + test),
        }

    def learned(self, panel: Panel) -> Panel:
        """The rows that scaling and training may see: those of train."""
        end = self.ranges(int(panel.lengths[0]), 0)["train"][1]
        return panel.rows(np.zeros(len(panel), dtype=np.int64), np.full(len(panel), end))

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
            f"{name} has {length} rows, too few for {asked} after the 70/10/20 split into train, val and test; it "
            f"must have at least {self.rows_needed(lookback, horizon)} rows, or choose a shorter lookback or horizon"
        )

    def rows_needed(self, lookback: int, horizon: int) -> int:
        """The length from which on every series has a window in each split of 70/10/20."""
        # rounding makes the limit ragged, so walk down from a length that is certainly enough
        length = 10 * (horizon + 1) + 2 * (lookback + horizon)
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
        if split != "train":
            earliest = np.maximum(earliest, panel.lengths - spare)
        counts = np.maximum(end - horizon - earliest + 1, 0)
        series = np.repeat(np.arange(len(panel)), counts)
        first = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(earliest, counts)
        seen = np.concatenate([[0], np.cumsum(~np.isnan(panel.target))])
        at, start = panel.offsets[series] + first, panel.offsets[series]
        past = seen[at] - seen[np.maximum(at - lookback, start)]
        kept = (past > 0) & (seen[at + horizon] - seen[at] > 0)
        return Anchors(series[kept, None], first[kept])


Protocol = Benchmark | HoldOut
