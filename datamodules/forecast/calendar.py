"""The one calendar: the step between time stamps, and the stamps that follow."""

import warnings
from typing import Any

import numpy as np
import pandas as pd

from titans_seq.datamodules.common.errors import DataError


def usual_step(dates: pd.DatetimeIndex) -> str | None:
    """Return the pandas alias of the step between dates, None for fewer than two.

    Regular dates keep calendar steps such as "MS"; where there are gaps or duplicates the most frequent step counts.
    """
    if len(dates) < 2:
        return None
    if len(dates) >= 3 and (regular := _regular_step(dates)) is not None:
        return regular
    steps = pd.Series(dates).diff().dropna()
    steps = steps[steps > pd.Timedelta(0)]
    if steps.empty:
        return None
    step = steps.mode().iloc[0]
    whole_days = step % pd.Timedelta(days=1) == pd.Timedelta(0)
    return pd.tseries.frequencies.to_offset(f"{step.days}D" if whole_days else step).freqstr


def _regular_step(dates: pd.DatetimeIndex) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pandas 3 announces that pandas 4 gives an offset
        found = pd.infer_freq(dates)
    return getattr(found, "freqstr", found)


def plain_freq(freq: Any) -> str | int | None:
    """A frequency as text or a whole number.

    Raises:
        DataError: it is neither, or not a step forward.
    """
    if freq is None or isinstance(freq, str):
        pass
    elif isinstance(freq, pd.tseries.offsets.BaseOffset):
        freq = freq.freqstr
    elif isinstance(freq, int | np.integer) and not isinstance(freq, bool):
        freq = int(freq)
    else:
        raise DataError(f"freq must be a frequency of pandas such as 'h', or a whole number; got {freq!r}")
    if isinstance(freq, str):
        offset = known_offset(freq)
        freq, steps = offset.freqstr, offset.n
    else:
        steps = freq
    if steps is not None and steps < 1:
        raise DataError(f"freq must be a step forward; got {freq!r}")
    return freq


def known_offset(freq: str) -> Any:
    """The offset of an alias; old aliases such as "H" and "M" are taken as what they are called now."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return pd.tseries.frequencies.to_offset(freq)
    except ValueError:
        raise DataError(f"freq {freq!r} is no frequency pandas knows; give e.g. 'h', 'D' or '15min'") from None


def calendar_step(dates: pd.DatetimeIndex, found: str) -> str:
    """What the most frequent difference of days means where some rows are missing: months, quarters, years, business
    days.
    """
    days = pd.Timedelta(fixed_step(found) or 0).days
    if not (dates == dates.normalize()).all():
        return found
    if days == 1 and len(dates) > 10 and (dates.dayofweek < 5).all():
        return "B"
    for least, most, name in ((28, 31, "month"), (90, 92, "quarter"), (365, 366, "year")):
        if least <= days <= most:
            for side, alias in (
                ("start", {"month": "MS", "quarter": "QS", "year": "YS"}),
                ("end", {"month": "ME", "quarter": "QE", "year": "YE"}),
            ):
                if getattr(dates, f"is_{name}_{side}").all():
                    return alias[name]
    return found


def fixed_step(freq: str) -> np.timedelta64 | None:
    """The length of a step, None for steps of the calendar (months, business days, ...)."""
    offset = known_offset(freq)
    if isinstance(offset, pd.offsets.Day):  # no tick any more in pandas 3
        return np.timedelta64(offset.n, "D").astype("timedelta64[ns]")
    if isinstance(offset, pd.offsets.Tick):
        return np.timedelta64(pd.Timedelta(offset).value, "ns")
    return None


def future_times(last: pd.Index, steps: int, freq: str | int) -> pd.Index:
    """The `steps` grid points after each of N last ones, one after another: N * steps."""
    if isinstance(freq, int):
        return pd.Index((last.to_numpy()[:, None] + freq * np.arange(1, steps + 1)).ravel())
    step = fixed_step(freq)
    if step is not None:
        return pd.DatetimeIndex((last.to_numpy()[:, None] + step * np.arange(1, steps + 1)).ravel())
    codes, stamps = pd.factorize(last)
    ahead = np.stack(
        [pd.date_range(stamp, periods=steps + 1, freq=freq)[1:].to_numpy() for stamp in pd.DatetimeIndex(stamps)]
    )
    return pd.DatetimeIndex(ahead[codes].ravel())


def calendar_place(times: np.ndarray, starts: np.ndarray, freq: str) -> np.ndarray:
    """Steps of a calendar frequency from each row's start to the row, -1 where it is not on the grid that begins
    there.
    """
    place = np.empty(len(times), dtype=np.int64)
    for start in np.unique(starts):
        rows = starts == start
        grid = pd.date_range(start, times[rows].max(), freq=freq)
        # a start that is no anchor of the frequency would make a grid without it
        on_grid = len(grid) > 0 and grid[0] == pd.Timestamp(start)
        place[rows] = grid.get_indexer(pd.DatetimeIndex(times[rows])) if on_grid else -1
    return place


def stamp_text(time: Any) -> str:
    return str(pd.Timestamp(time)) if isinstance(time, np.datetime64) else str(time)
