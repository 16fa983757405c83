"""Which column of a file holds the time."""

import re
import warnings
from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.forecast.cells import plain_numbers
from titans_seq.datamodules.forecast.dates import are_dates, like_dates, stray_cell
from titans_seq.datamodules.forecast.options import option

DATES = ("date", "timestamp", "datetime", "ds", "time")  # names that a column of dates has most often
STEPS = ("step", "t", "time", "index", "row", "period", "timestep", "time_step", "ds")  # of columns that number rows
UNNAMED = "Unnamed: 0"  # the first column, without a name: the index that pandas writes
_YEAR = re.compile(r"(.*[\W_])?(year|yr)s?", re.IGNORECASE)
# of columns that hold a part of the time beside the date
_PARTS = (
    "year",
    "yr",
    "quarter",
    "month",
    "mon",
    "mnth",
    "week",
    "day",
    "hour",
    "hr",
    "minute",
    "min",
    "second",
    "time",
)
_CLOCK = r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?"
_ROUNDED = 0.05  # of a month: R gives three decimals of a year
_EPOCH = re.compile(r"(?i)(?<![a-z])(unix)?_?(time|date|epoch|ds|ts|unix)(stamp|time)?(?![a-z])")
_SECONDS = (3e8, 4.2e9)  # since 1970, of the years 1979 to 2103


def find_time(table: pd.DataFrame, given: str | None, others: Collection[str], long: bool) -> tuple[pd.DataFrame, str]:
    """Find the column of time, and bring it into a form that `read_times` reads.

    Args:
        table: of a file.
        given: the column, if it is known.
        others: columns that are something else.
        long: whether time stamps may repeat.

    Returns:
        The table, in which the column may have a new name or be joined with one of clock times, and its name.

    Raises:
        DataError: no column holds dates or numbers the rows.

    Warns:
        DataWarning: seconds since 1970 or clock times in a column of their own were made into time stamps.
    """
    name = given or _found(table, [str(name) for name in table if name not in others], long)
    table = _with_clock(table, name, others)
    column = table[name]
    if _is_year(name, column):
        table = table.assign(**{name: column.astype(np.int64).astype(str)})
    elif (months := _decimal_months(name, column)) is not None:
        warnings.warn(f"column {name!r} is read as months of years in decimals", DataWarning, stacklevel=3)
        table = table.assign(**{name: months})
    elif unit := _since_1970(name, column):
        warnings.warn(
            f"column {name!r} is read as {'milli' if unit == 'ms' else ''}seconds since 1970", DataWarning, stacklevel=3
        )
        table = table.assign(**{name: pd.to_datetime(column, unit=unit)})  # type: ignore[call-overload]
    if name.startswith("Unnamed: "):
        plain = "step" if plain_numbers(table[name]) is not None else "date"
        if plain not in table:
            table, name = table.rename(columns={name: plain}), plain
    return table, name


def require_one_time_column(table: pd.DataFrame, time: str, names: Sequence[str]) -> None:
    """Refuse a table of which dates repeat because other columns hold hours, months, ... of the time."""
    if not table[time].duplicated().any():
        return
    parts = [name for name in names if name.strip().lower() in _PARTS]
    for some in (*([name] for name in parts), parts):
        if some and not table[[time, *some]].duplicated().any():
            raise DataError(
                f"{time!r} repeats, and the rest of the time is in {' and '.join(map(repr, some))}: make one column of "
                f"them, such as {'1959Q1' if 'quarter' in map(str.lower, parts) else '2011-01-31 05:00'}"
            )


def counts_rows(column: pd.Series) -> bool:
    """Whether whole numbers rise from row to row, as those of an index of which rows may have been dropped."""
    numbers = plain_numbers(column)
    return numbers is not None and bool((numbers[1:] > numbers[:-1]).all())


def _found(table: pd.DataFrame, names: Sequence[str], long: bool) -> str:
    usual = [name for name in names if name.strip().lower() in DATES]
    dated = (name for name in (*usual, *names) if are_dates(table[name]))
    counted = (name for name in (*usual, *names) if _since_1970(name, table[name]))
    # of a usual name one cell may be wrong: the message that names it helps more than that there is no date
    text = (name for name in usual if not pd.api.types.is_numeric_dtype(table[name].dtype))
    years = (name for name in names if _is_year(name, table[name]) or _decimal_months(name, table[name]) is not None)
    found = next(chain(dated, counted, text, years, _steps(table, names, long)), None)
    if found is not None:
        return found
    decimal = [name for name in names if _YEAR.fullmatch(name.strip()) or name.strip().lower() in DATES]
    decimal = [name for name in decimal if pd.api.types.is_float_dtype(table[name].dtype)]
    if decimal:
        raise DataError(
            f"column {decimal[0]!r} holds decimals such as {table[decimal[0]].iloc[-1]}; write dates, e.g. 1749-01"
        )
    for name in names:
        stray = None if pd.api.types.is_numeric_dtype(table[name].dtype) else stray_cell(table[name])
        if stray is not None:
            raise DataError(f"column {name!r} holds dates but for {stray!r}; correct it, or leave its row out")
    listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    raise DataError(
        f"no column holds dates in every row, and none numbers them (found: {listed}); give {option('time_col')}"
    )


def _steps(table: pd.DataFrame, names: Sequence[str], long: bool) -> list[str]:
    called = [name for name in names if name.strip().lower() in STEPS and plain_numbers(table[name]) is not None]
    called = [name for name in called if long or not table[name].duplicated().any()]
    index = [name for name in names[:1] if name == UNNAMED and counts_rows(table[name])]
    return called + index


def _is_year(name: str, column: pd.Series) -> bool:
    numbers = plain_numbers(column) if _YEAR.fullmatch(name.strip()) else None
    return numbers is not None and bool(((numbers >= 1000) & (numbers <= 2999)).all())


def _decimal_months(name: str, column: pd.Series) -> pd.Series | None:
    """Years in decimals as R writes them, 1949 and 1949.083 of January and February, as text of months; None of others.

    Steps are of one month, or of a quarter or half a year.
    """
    named = _YEAR.fullmatch(name.strip()) or name.strip().lower() in DATES
    if not named or not pd.api.types.is_float_dtype(column.dtype) or column.isna().any():
        return None
    months = column.to_numpy() * 12
    whole = np.round(months).astype(np.int64)
    steps = np.unique(np.diff(whole))
    inside = ((column >= 1000) & (column < 3000)).all() and len(whole) > 1
    if not inside or len(steps) != 1 or steps[0] not in (1, 3, 6) or np.abs(months - whole).max() > _ROUNDED:
        return None
    return pd.Series([f"{each // 12:04d}-{each % 12 + 1:02d}" for each in whole], index=column.index, name=name)


def _since_1970(name: str, column: pd.Series) -> str | None:
    """The unit of a column of seconds or milliseconds since 1970."""
    numbers = plain_numbers(column) if _EPOCH.search(name) else None
    if numbers is None or like_dates(numbers):
        return None
    units = {"s": 1, "ms": 1000}
    return next(
        (u for u, n in units.items() if ((numbers > n * _SECONDS[0]) & (numbers < n * _SECONDS[1])).all()), None
    )


def _with_clock(table: pd.DataFrame, name: str, others: Collection[str]) -> pd.DataFrame:
    """The table with clock times of a column of their own behind its dates."""
    clocks = [each for each in table if str(each).strip().lower() in ("time", "hour", "clock") and each != name]
    dates: Any = table[name]
    for clock in clocks:
        cells = table[clock]
        text = clock not in others and _is_text(cells) and _is_text(dates) and dates.duplicated().any()
        if text and cells.astype(str).str.strip().str.fullmatch(_CLOCK).all() and not dates.str.contains(":").any():
            warnings.warn(f"columns {name!r} and {clock!r} are read as one time stamp", DataWarning, stacklevel=3)
            return table.assign(**{name: dates.str.strip() + " " + cells.str.strip()}).drop(columns=clock)
    return table


def _is_text(column: pd.Series) -> bool:
    return pd.api.types.infer_dtype(column, skipna=False) == "string"
