"""Cells of a table as dates and numbers: one parser for frames and files.

R rows.
"""

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.forecast.calendar import Step, find_step, grid_place, step_text

Where = Callable[..., str]  # rows of a table -> how a message names them, such as " (row 3)" or " (line 5)"
LONGEST_DATE = 40  # letters that pandas is given to tell what a cell may be
LARGEST = 1e150  # of a value: its square is a number
_THOUSANDS = r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?"
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
# month before day is how 01/02/2020 is read where both are equally regular
_DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d-%m-%Y", "%b %d %Y", "%b %d, %Y", "%d %b %Y", "%d-%b-%Y")
_MONTHS = ("%b %Y", "%b-%Y", "%B %Y", "%m/%Y")
_FORMS = ("ISO8601", *(day + clock for day in _DAYS for clock in _CLOCKS), *_MONTHS)
_OFFSET = r":\d\d\S*?(?:Z|[+-]\d\d:?\d\d)$"  # of a time zone


def frame_rows(*rows: int) -> str:
    return f" (row{'s' if len(rows) > 1 else ''} {' and '.join(map(str, rows))})"


def read_times(column: pd.Series, step: Step | None, where: Where) -> np.ndarray:
    """Time stamps as datetime64[ns], or whole numbers; 20240131 is a date unless the step is a whole number."""
    name = column.name
    if isinstance(column.dtype, pd.PeriodDtype):
        column = _within_reach(column, where).dt.to_timestamp()
    if pd.api.types.is_float_dtype(column.dtype) and column.notna().all() and (column % 1 == 0).all():
        column = column.astype(np.int64)
    if pd.api.types.infer_dtype(column, skipna=False) == "integer":
        numbers = column.to_numpy(dtype=np.int64)
        if isinstance(step, int) or (step is None and not _like_dates(numbers)):
            return numbers
        if not _like_dates(numbers):
            raise DataError(f"column {name!r} holds whole numbers, so freq must be one too; got {step_text(step)}")
        column = column.astype(str)
    if isinstance(step, int):
        raise DataError(f"freq={step} is for whole numbers in column {name!r}; it holds {column.dtype}")
    if pd.api.types.is_numeric_dtype(column.dtype):
        raise DataError(f"column {name!r} must hold dates or whole numbers; it holds {column.dtype}")
    return read_dates(column, where)


def _like_dates(numbers: Int[np.ndarray, " R"]) -> bool:
    month, day = numbers // 100 % 100, numbers % 100
    return bool(
        ((numbers >= 19000101) & (numbers <= 21001231) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all()
    )


def read_dates(column: pd.Series, where: Where) -> np.ndarray:
    """Time stamps as datetime64[ns] of a column of dates or text.

    Text is ISO 8601 or one of the usual forms; where several forms can read all of it, the most regular dates count.
    Times with an offset become UTC.

    Raises:
        DataError: a cell is empty, cannot be parsed, or lies outside the years 1678 to 2261; the message names the row.

    Warns:
        DataWarning: day and month could be exchanged and would be as regular; offsets were turned into UTC.
    """
    if pd.api.types.infer_dtype(column, skipna=True) == "string":
        dates = _parsed(column.astype(str).where(column.notna(), None), column.name, where)
    elif isinstance(column.dtype, pd.DatetimeTZDtype):
        raise DataError(f"column {column.name!r} has a time zone; drop it with .dt.tz_localize(None)")
    else:
        dates = pd.DatetimeIndex(pd.to_datetime(column, errors="coerce"))
    if dates.hasnans:
        raise _unread(column, int(np.argmax(dates.isna())), where)
    _within_reach(dates.to_series(name=column.name), where)
    return dates.as_unit("ns").to_numpy()


def _within_reach(column: pd.Series, where: Where) -> pd.Series:
    years = column.dt.year.to_numpy()
    beyond = (years < 1678) | (years > 2261)  # of which nanoseconds since 1970 are no int64
    if beyond.any():
        raise _unread(column, int(np.argmax(beyond)), where)
    return column


def is_date_text(cells: pd.Series) -> bool:
    """Whether text is all dates; numbers alone are none."""
    text = cells.dropna().astype(str).str.strip()
    if text.empty or pd.to_numeric(text, errors="coerce").notna().any():
        return False
    return any(_read(text, form, utc=True).notna().all() for form in _FORMS if _may_read(text, form))


def _parsed(text: pd.Series, name: Any, where: Where) -> pd.DatetimeIndex:
    text = text.str.strip()
    offset = text.str.contains(_OFFSET, na=False).to_numpy()
    if offset.any() and not offset.all():
        row = int((offset != offset[0]).argmax())
        raise DataError(
            f"column {name!r}{where(row)}: {text.iloc[row]!r} differs from those before in having a time zone or none; "
            "write all with one or all without"
        )
    if offset.any() and not text.str.endswith(("Z", "+00:00", "+0000")).all():
        warnings.warn(f"column {name!r} has times with offsets; they are read as UTC", DataWarning, stacklevel=2)
    found: dict[str, pd.DatetimeIndex] = {}
    furthest = pd.DatetimeIndex([pd.NaT] * len(text))  # the form that reads furthest is the one that was meant
    for form in _FORMS:
        if not _may_read(text, form):
            continue
        # offsets may change within a file (clock changes): UTC orders them
        dates = _read(text, form, utc=bool(offset.any())).tz_localize(None)
        if dates.hasnans:
            furthest = max(furthest, dates, key=lambda each: int(np.argmax(each.isna())))
        elif not any(dates.equals(other) for other in found.values()):
            found[form] = dates
        if form == "ISO8601" and found:
            return dates
    if not found:
        return furthest
    breaks = {form: _breaks(dates) for form, dates in found.items()}
    best, *others = sorted(found, key=breaks.__getitem__)
    if others and breaks[others[0]] == breaks[best]:
        one, other = (
            form.replace("%m", "month").replace("%d", "day").replace("%Y", "year") for form in (best, others[0])
        )
        warnings.warn(
            f"column {name!r}: dates such as {text.iloc[0]!r} are read as {one}, and could as well be {other}; write "
            "2024-01-31",
            DataWarning,
            stacklevel=2,
        )
    return found[best]


def _may_read(text: pd.Series, form: str) -> bool:
    """By the first cell: most forms need not be tried on the others."""
    return bool(_read(text.iloc[:1], form, utc=True).notna().all())


def _read(text: pd.Series, form: str, utc: bool) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(text, format=form, errors="coerce", utc=utc))


def _breaks(dates: pd.DatetimeIndex) -> int:
    """How many dates do not lie one step after the one before."""
    stamps = dates.unique().sort_values()
    step = find_step(stamps)
    if step is None:
        return 0
    times = stamps.to_numpy()
    return int((np.diff(grid_place(times, times[:1].repeat(len(times)), step)) != 1).sum())


def _unread(column: pd.Series, row: int, where: Where) -> DataError:
    cell = column.iloc[row]
    place = f"column {column.name!r}{where(row)}"
    if pd.isna(cell):
        return DataError(f"{place} has no date")
    try:
        year = getattr(cell, "year", None) or pd.Timestamp(str(cell)[:LONGEST_DATE]).year
    except (ValueError, TypeError):
        year = None
    if year is not None and not 1678 <= year <= 2261:
        return DataError(f"{place}: {str(cell)!r} is not in the years 1678 to 2261; number the rows instead")
    hint = "; write dates as 2024-01-31 or 2024-01-31 13:45:00" if isinstance(cell, str) else ""
    return DataError(f"{place}: cannot parse {cell!r} as a date{hint}")


# numbers -------------------------------------------------------------------------------------------------------------


def to_numbers(column: pd.Series) -> tuple[Float[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """A column's values, NaN where empty, and which cells are wrong: not numbers, infinite or beyond 1e150.

    Text such as 1,234.5 counts if all text that is not a plain number has commas before each three digits.
    """
    if column.dtype.kind in "mMc":
        return np.full(len(column), np.nan), np.ones(len(column), dtype=bool)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    unread = np.isnan(numbers) & column.notna().to_numpy()
    if unread.any():
        text = column[unread].astype(str).str.strip()
        if text.str.fullmatch(_THOUSANDS).all():
            numbers[unread] = text.str.replace(",", "").astype(np.float64)
            unread[:] = False
    with np.errstate(invalid="ignore"):
        return numbers, unread | (np.abs(numbers) > LARGEST)


def not_a_number(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    hint = "; write decimals with a point" if re.fullmatch(r"[+-]?\d+,\d+", str(value).strip()) else ""
    kind = "number" if isinstance(value, str) else f"finite number up to {LARGEST:.0e}"
    return f"{value!r} is not a {kind}{hint}"
