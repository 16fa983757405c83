"""The regular grid of time that the rows of a table lie on.

R rows of the table, N series.
"""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.forecast.calendar import (
    Step,
    find_step,
    grid_place,
    grid_times,
    stamp_text,
    step_text,
    to_periods,
)
from titans_seq.datamodules.forecast.cells import Where
from titans_seq.datamodules.forecast.options import option

MOST_STEPS = 10  # steps of the grid per row given, beyond which a date or the frequency must be wrong


@dataclass(frozen=True)
class Grid:
    """Where the rows of a table go.

    Args:
        step: between rows of the grid.
        times, offsets: of the grid, series after series.
        order: the table's rows by series and time; place: the row of the grid of each of those.
    """

    step: Step
    times: pd.Index
    offsets: Int[np.ndarray, " N1"]
    order: Int[np.ndarray, " R"]
    place: Int[np.ndarray, " R"]

    def dense(self, values: Float[np.ndarray, "*C R"]) -> Float[np.ndarray, "*C R2"]:
        """Values of the table's rows as those of the grid's, NaN where missing; the same array where they agree."""
        if len(self.order) == self.offsets[-1] and (np.diff(self.order) == 1).all():
            return values
        out = np.full((*values.shape[:-1], self.offsets[-1]), np.nan)
        out[..., self.place] = values[..., self.order]
        return out


def lay_out(
    times: np.ndarray,
    step: Step | None,
    name: str,
    where: Where,
    codes: Int[np.ndarray, " R"] | None = None,
    ids: pd.Index | None = None,
) -> Grid:
    """The grid of rows that come in any order.

    Args:
        times: of the rows.
        step: None finds it in the longest series.
        name: of the column of times.
        where: names rows in messages.
        codes: the series of each row; None where there is one.
        ids: names of the series.

    Raises:
        DataError: a time stamp is double or off the grid, or the grid has few rows.
    """
    codes = np.zeros(len(times), dtype=np.int64) if codes is None else codes
    order = np.lexsort((times, codes))
    rows = _Rows(times[order], codes[order], order, name, where, ids)
    rows.require_once()
    step = rows.find_step() if step is None else step
    rows, place = rows.on_grid(step)
    steps = place[rows.firsts + rows.lengths - 1] + 1
    sparse = steps > MOST_STEPS * rows.lengths + 1000
    if sparse.any():
        worst = int(np.argmax(sparse))
        raise DataError(
            f"{rows.series(rows.firsts[worst])}{rows.lengths[worst]} rows lie over {steps[worst]} steps of "
            f"{step_text(step)}; look for a wrong date near {rows.stamp(rows.widest(worst))}, or give the "
            f"right {option('freq')}"
        )
    offsets = np.concatenate([[0], np.cumsum(steps)])
    return Grid(step, grid_times(rows.times[rows.firsts], steps, step), offsets, order, offsets[rows.codes] + place)


@dataclass(frozen=True)
class _Rows:
    """Rows by series and time, and how messages name them."""

    times: np.ndarray
    codes: Int[np.ndarray, " R"]
    order: Int[np.ndarray, " R"]
    name: str
    where: Where
    ids: pd.Index | None

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        return np.bincount(self.codes)

    @property
    def firsts(self) -> Int[np.ndarray, " N"]:
        return np.cumsum(self.lengths) - self.lengths

    def series(self, row: int) -> str:
        return "" if self.ids is None else f"series {self.ids[self.codes[row]]}: "

    def stamp(self, row: int) -> str:
        return f"{self.series(row)}{self.name} {stamp_text(self.times[row])}"

    def widest(self, series: int) -> int:
        """The row of a series after which the largest gap begins."""
        first = int(self.firsts[series])
        times = self.times[first : first + int(self.lengths[series])].astype(np.int64)
        return first + int(np.argmax(np.diff(times)))

    def require_once(self) -> None:
        same = (np.diff(self.codes) == 0) & (self.times[1:] == self.times[:-1])
        if same.any():
            row = int(np.argmax(same))
            hint = "" if self.ids is not None and len(self.ids) > 1 else (
                f"; of a long table name the column of series by {option('id_col')}, or make one column per series"
            )  # fmt: skip
            rows = self.where(*sorted(self.order[row : row + 2].tolist()))
            raise DataError(f"{self.stamp(row)} is given twice{rows}; remove or merge the duplicates{hint}")

    def find_step(self) -> Step:
        longest = self.times[self.codes == int(np.argmax(self.lengths))]
        if len(longest) < 2:
            raise DataError(f"no series has two rows, so the step of {self.name!r} is unknown; give {option('freq')}")
        if np.issubdtype(longest.dtype, np.integer):
            return int(pd.Series(np.diff(longest)).mode().iloc[0])
        step = find_step(pd.DatetimeIndex(longest))
        assert step is not None  # two different time stamps
        return step

    def on_grid(self, step: Step) -> "tuple[_Rows, Int[np.ndarray, ' R']]":
        """The rows, as periods if they are one per period, and their place on the grid of their series."""
        place = grid_place(self.times, self.times[self.firsts][self.codes], step)
        off = place < 0
        if off.any() and (periods := self._as_periods(step)) is not None:
            return periods
        if off.any():
            row = int(np.argmax(off))
            first = int(self.firsts[self.codes[row]])
            start = "" if row == first else f" from {stamp_text(self.times[first])}"
            raise DataError(
                f"{self.stamp(row)}{self.where(int(self.order[row]))} is not on the grid of {step_text(step)}{start}; "
                f"drop the row, round the time stamps, or give the right {option('freq')}"
            )
        inside = np.diff(place)[np.diff(self.codes) == 0]
        if len(inside) and inside.min() > 1:
            raise DataError(
                f"no two rows are one step of {step_text(step)} apart, the nearest are {inside.min()} steps; give "
                f"{option('freq')} as it fits the data"
            )
        return self, place

    def _as_periods(self, step: Step) -> "tuple[_Rows, Int[np.ndarray, ' R']] | None":
        times = to_periods(self.times, step)
        if times is None:
            return None
        place = grid_place(times, times[self.firsts][self.codes], step)
        if (place < 0).any() or (np.diff(place)[np.diff(self.codes) == 0] < 1).any():
            return None
        moved = int(np.argmax(times != self.times))
        warnings.warn(
            f"column {self.name!r} has one date per period, which is read as {step_text(step)}: "
            f"{stamp_text(self.times[moved])} becomes {stamp_text(times[moved])}",
            DataWarning,
            stacklevel=6,
        )
        return replace(self, times=times), place
