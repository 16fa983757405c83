"""The regular grid of time that the rows of a table lie on.

R rows of the table, N series.
"""

import warnings
from dataclasses import dataclass

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
        codes, ids: which series each row belongs to, and their names; None where there is one.

    Raises:
        DataError: a time stamp is double or off the grid, or the grid has few rows.
    """
    codes = np.zeros(len(times), dtype=np.int64) if codes is None else codes
    order = np.lexsort((times, codes))
    codes, times = codes[order], times[order]
    lengths = np.bincount(codes)
    firsts = np.cumsum(lengths) - lengths
    _no_doubles(codes, times, ids, name, where, order)
    if step is None:
        step = _find_step(times, int(np.argmax(lengths)), codes, name)
    place = grid_place(times, times[firsts][codes], step)
    if (place < 0).any() and (periods := to_periods(times, step)) is not None:
        moved = grid_place(periods, periods[firsts][codes], step)
        if (moved >= 0).all() and (np.diff(moved)[np.diff(codes) == 0] > 0).all():
            warnings.warn(
                f"column {name!r} has one date per period; they are read as {step_text(step)}: "
                f"{stamp_text(times[0])} is {stamp_text(periods[0])}",
                DataWarning,
                stacklevel=4,
            )
            times, place = periods, moved
    _on_grid(place, times, codes, ids, step, name, where, order)
    steps = place[firsts + lengths - 1] + 1
    sparse = steps > MOST_STEPS * lengths + 1000
    if sparse.any():
        worst = int(np.argmax(sparse))
        raise DataError(
            f"{_series(ids, worst)}{lengths[worst]} rows lie over {steps[worst]} steps of {step_text(step)}; look for "
            "a wrong date, or give the right freq="
        )
    offsets = np.concatenate([[0], np.cumsum(steps)])
    return Grid(step, grid_times(times[firsts], steps, step), offsets, order, offsets[codes] + place)


def _find_step(times: np.ndarray, longest: int, codes: np.ndarray, name: str) -> Step:
    longest_times = times[codes == longest]
    if len(longest_times) < 2:
        raise DataError(f"no series has two rows, so the step of {name!r} is unknown; give freq=")
    if np.issubdtype(times.dtype, np.integer):
        return int(pd.Series(np.diff(longest_times)).mode().iloc[0])
    step = find_step(pd.DatetimeIndex(longest_times))
    assert step is not None  # two different time stamps
    return step


def _no_doubles(
    codes: np.ndarray, times: np.ndarray, ids: pd.Index | None, name: str, where: Where, order: np.ndarray
) -> None:
    same = (codes[1:] == codes[:-1]) & (times[1:] == times[:-1])
    if same.any():
        at = int(np.argmax(same))
        rows = where(*sorted((int(order[at]), int(order[at + 1]))))
        hint = "merge the duplicates"
        if ids is None or len(ids) == 1:
            hint += (
                "; a long table, one series below the other, needs the column of their names (id_col=), or one column "
            )
            hint += "per series (DataFrame.pivot)"
        raise DataError(f"{_series(ids, codes[at])}{name} {stamp_text(times[at])} is given twice{rows}; {hint}")


def _on_grid(
    place: np.ndarray, times: np.ndarray, codes: np.ndarray, ids: pd.Index | None, step: Step, name: str, where: Where,
    order: np.ndarray,
) -> None:  # fmt: skip
    if (place < 0).any():
        row = int(np.argmax(place < 0))
        start = stamp_text(times[np.argmax(codes == codes[row])])
        raise DataError(
            f"{_series(ids, codes[row])}{name} {stamp_text(times[row])}{where(int(order[row]))} is not on the grid of "
            f"{step_text(step)} from {start}; drop the row, round the time stamps, or give the right freq="
        )
    inside = np.diff(place)[np.diff(codes) == 0]
    if len(inside) and inside.min() > 1:
        raise DataError(
            f"no two rows are one step of {step_text(step)} apart, the nearest are {inside.min()} steps; give a freq= "
            "that fits the data"
        )


def _series(ids: pd.Index | None, code: int) -> str:
    return "" if ids is None else f"series {ids[code]}: "
