"""A multivariate series with its time axis, and the error all readers raise.

T rows, C channels.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float


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
