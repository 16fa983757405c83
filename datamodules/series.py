"""A multivariate series with its time axis, and the error all readers raise.

T rows, C channels.
"""

import re
import warnings
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pandas as pd
from jaxtyping import Float

_HALF = 500  # characters of a message, before and after what is left out of the middle


class DataError(ValueError):
    """The user's data, or the place where it should be, is wrong. One line: what, where, what to do."""

    def __init__(self, message: str) -> None:
        if len(message) > 2 * _HALF:  # it quotes a cell or a header that is very long
            message = f"{message[:_HALF]}...{message[-_HALF:]}"
        super().__init__(re.sub(r"\s*[\r\n]+\s*", " ", message))  # a server's or a parser's words may hold more


def at_least(least: int, **arguments: int) -> None:
    """Refuse arguments that are no whole numbers of at least `least`."""
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise DataError(f"{name} must be a whole number; got {value!r}")
        if value < least:
            raise DataError(f"{name} must be at least {least}; got {value}")


class DataWarning(UserWarning):
    """The user's data can be used, but hold something that is probably not meant."""


@dataclass(frozen=True, eq=False)
class Series:
    """Raw values, row by row in time order.

    Args:
        name: data set name, or the file's stem for a user's file.
        values: float64 [T, C], original units.
        columns: C channel names.
        dates: T time stamps as published (the benchmark files hold gaps, duplicates and synthetic dates), or None.
        freq: pandas alias of the usual step ("h", "15min", ...), or None.
        stride, origin: only windows whose first target row t satisfies (t - origin) % stride == 0 are used; the
            defaults use every window. Other values are for series made of sessions of fixed length.
    """

    name: str
    values: Float[np.ndarray, "T C"]
    columns: tuple[str, ...]
    dates: pd.DatetimeIndex | None = None
    freq: str | None = None
    stride: int = 1
    origin: int = 0


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


def future_dates(series: Series, horizon: int) -> pd.Index:
    """Return the `horizon` time stamps after the last row, in the series' usual step.

    A series without dates or without a step is continued by row number (a RangeIndex from T on).
    """
    if series.dates is None or series.freq is None:
        rows = len(series.values)
        return pd.RangeIndex(rows, rows + horizon, name="row")
    last = series.dates[-1]
    # one more than asked: the first entry is `last` itself, or the next anchor when `last` lies off a calendar step
    dates = pd.date_range(last, periods=horizon + 1, freq=series.freq, name="date")
    return dates[dates > last][:horizon]
