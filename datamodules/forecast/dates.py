"""Cells of a table as time stamps: one parser for frames and files.

R rows.
"""

import re
import warnings
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.forecast.calendar import Step, find_step, grid_place, in_wall_time, step_text
from titans_seq.datamodules.forecast.cells import Where, plain_numbers

LONGEST_DATE = 40  # letters that pandas is given to tell what a cell may be
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_MONTH_FIRST, _DAY_FIRST = ("%m/%d/%Y", "%m-%d-%Y"), ("%d/%m/%Y", "%d-%m-%Y")
_DAYS = (*_MONTH_FIRST, *_DAY_FIRST, "%d.%m.%Y", "%b %d %Y", "%b %d, %Y", "%d %b %Y", "%d-%b-%Y", "%b-%d-%Y")
_MONTHS = ("%b %Y", "%b-%Y", "%B %Y", "%Y %b", "%Y-%b", "%b-%y", "%m/%Y")
_FORMS = ("ISO8601", *(day + clock for day in _DAYS for clock in _CLOCKS), *_MONTHS)
_QUARTER = r"(?P<a>\d{4})[ -]?Q(?P<b>[1-4])|Q(?P<c>[1-4])[ -]?(?P<d>\d{4})"
_OFFSET = r":\d\d\S*?(?:Z|[+-]\d\d:?\d\d)$"  # of a time zone


@dataclass(frozen=True)
class Stamps:
    """Time stamps of a column as they are computed with, and what they were.

    Args:
        values: whole numbers, or datetime64[ns]: of a time zone in UTC, but by local time where the step is a day or
            longer, since days are regular there when clocks change.
        zone: the name of the time zone.
        period: the alias of periods, whose starts (or ends) the values are.
    """

    values: np.ndarray
    zone: str | None = None
    period: str | None = None


def read_times(column: pd.Series, step: Step | None, where: Where, day_first: bool | None = None) -> Stamps:
    """Read a column of time stamps; 20240131 is a date unless the step is a whole number."""
    name = column.name
    if isinstance(column.dtype, pd.PeriodDtype):
        end = type(step).__name__.endswith("End")
        starts = _within_reach(column, where).dt.to_timestamp(how="end" if end else "start")
        days = starts.dt.normalize() if end else starts
        return Stamps(read_dates(days, where).values, period=column.dtype.name[len("period[") : -1])
    numbers = plain_numbers(column)
    if numbers is not None:
        if isinstance(step, int) or (step is None and not like_dates(numbers)):
            return Stamps(numbers)
        if not like_dates(numbers) and not (type(step).__name__.startswith(("Year", "BYear")) and _like_years(numbers)):
            raise DataError(f"column {name!r} holds whole numbers, so freq must be one too; got {step_text(step)}")
        column = pd.Series(numbers, name=name).astype(str)
    if isinstance(step, int):
        raise DataError(f"freq={step} is for whole numbers in column {name!r}; it holds {column.dtype}")
    if pd.api.types.is_numeric_dtype(column.dtype):
        raise DataError(f"column {name!r} must hold dates or whole numbers; it holds {column.dtype}")
    return read_dates(column, where, step, day_first)


def _like_years(numbers: Int[np.ndarray, " R"]) -> bool:
    return bool(((numbers >= 1678) & (numbers <= 2261)).all())


def are_dates(column: pd.Series) -> bool:
    """Whether every cell is a date: a time stamp, text of one, or a number such as 20240131."""
    if column.dtype.kind == "M" or isinstance(column.dtype, pd.PeriodDtype):
        return bool(column.notna().all())
    kind = pd.api.types.infer_dtype(column, skipna=False)
    if kind == "integer":
        return like_dates(column.to_numpy(dtype=np.int64))
    return kind in ("date", "datetime") or (kind == "string" and is_date_text(column))


def like_dates(numbers: Int[np.ndarray, " R"]) -> bool:
    month, day = numbers // 100 % 100, numbers % 100
    return bool(
        ((numbers >= 19000101) & (numbers <= 21001231) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all()
    )


def read_dates(column: pd.Series, where: Where, step: Step | None = None, day_first: bool | None = None) -> Stamps:
    """Time stamps of a column of dates or text.

    Text is ISO 8601 or one of the usual forms, also of quarters such as 2020Q1; where several forms can read all of it,
    the most regular dates count.

    Args:
        column: the cells.
        where: names rows in messages.
        step: that the dates should have; None: any.
        day_first: whether 01/02/2024 is the first of February; None: as it makes the dates regular.

    Raises:
        DataError: a cell is empty, cannot be parsed, or lies outside the years 1678 to 2261, or the dates are as
            regular with day and month exchanged; the message names the row.

    Warns:
        DataWarning: day and month can be exchanged, but less regularly; offsets change.
    """
    if pd.api.types.infer_dtype(column, skipna=True) == "string":
        text = column.astype(str).where(column.notna(), None).str.strip()
        dates = _parsed(_from_quarters(text), column.name, where, step, day_first)
    else:
        dates = _datetimes(column)
    if dates.hasnans:
        raise _unread(column, int(np.argmax(dates.isna())), where)
    _within_reach(dates.to_series(name=column.name), where)
    if dates.tz is None:
        return Stamps(dates.as_unit("ns").to_numpy())
    return Stamps(_on_clock(dates, step).as_unit("ns").to_numpy(), _zone_name(dates, column.name))


def _datetimes(column: pd.Series) -> pd.DatetimeIndex:
    try:
        return pd.DatetimeIndex(pd.to_datetime(column, errors="coerce"))
    except ValueError:  # objects of several offsets
        return pd.DatetimeIndex(pd.to_datetime(column, errors="coerce", utc=True))


def _on_clock(dates: pd.DatetimeIndex, step: Step | None) -> pd.DatetimeIndex:
    """Dates of a zone without it: in UTC, or on the wall if all are at one time of the day."""
    wall = dates.tz_localize(None)
    clock = wall - wall.normalize()
    usual = clock.value_counts().index[0]
    same = wall.normalize() + usual
    moved = clock != usual
    # an hour that is left out in spring is told as the next one
    days = not moved.any() or bool((in_zone(same[moved], dates.tz) == dates[moved]).all())
    if days if step is None else in_wall_time(step):
        return same if days else wall
    return dates.tz_convert("UTC").tz_localize(None)


def in_zone(wall: pd.DatetimeIndex, zone: str | tzinfo | None) -> pd.DatetimeIndex:
    """Times on the wall as those of a zone: the first of two, the next where there is none."""
    return wall.tz_localize(zone, nonexistent="shift_forward", ambiguous=np.ones(len(wall), dtype=bool))


def known_zone(name: Any) -> str | None:
    """A zone's name as a file says it, or None.

    Raises:
        ValueError: the zone is unknown.
    """
    try:
        if name is None or (isinstance(name, str) and name and pd.DatetimeIndex([]).tz_localize(name).tz is not None):
            return name
    except (KeyError, ValueError, TypeError, OSError):  # of zoneinfo, by what the name looks like
        pass
    raise ValueError(f"zone must be the name of a time zone; got {name!r}")


def known_period(alias: Any) -> str | None:
    """The alias of periods as a file says it, or None.

    Raises:
        ValueError: there are no such periods.
    """
    try:
        if alias is None or (isinstance(alias, str) and pd.PeriodDtype(alias)):
            return alias
    except (KeyError, ValueError, TypeError):
        pass
    raise ValueError(f"period must be an alias of periods such as M or Q-DEC; got {alias!r}")


def on_one_clock(zone: str | None, other: str | None, step: Step) -> bool:
    """Whether time stamps of these zones, as `Stamps` has them, can follow each other.

    One without a zone cannot follow one with. But days that are written with offsets are local where the offsets
    change, in a file of a year, and have that offset in one of a season: both are kept as days.
    """
    known = zone or other
    return (zone is None) == (other is None) or (known is not None and known.startswith("UTC") and in_wall_time(step))


def _zone_name(dates: pd.DatetimeIndex, name: Any) -> str:
    zone, offset = str(dates.tz), dates.tz.utcoffset(None)
    if zone != "UTC" and offset is not None:  # always the same
        minutes = offset // pd.Timedelta(minutes=1)
        return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    try:
        dates[:0].tz_convert(zone)
    except (KeyError, ValueError, TypeError):
        raise DataError(
            f"column {name!r}: the time zone {zone} has no name that can be saved; use .dt.tz_convert('Europe/Berlin')"
        ) from None
    return zone


def _within_reach(column: pd.Series, where: Where) -> pd.Series:
    years = column.dt.year.to_numpy()
    beyond = (years < 1678) | (years > 2261)  # of which nanoseconds since 1970 are no int64
    if beyond.any():
        raise _unread(column, int(np.argmax(beyond)), where)
    return column


def is_date_text(cells: pd.Series) -> bool:
    """Whether text is all dates; numbers alone are none."""
    text = cells.dropna().astype(str).str.strip()
    if text.empty or not re.search(r"\d", text.iloc[0]) or pd.to_numeric(text, errors="coerce").notna().any():
        return False
    text = _from_quarters(text)
    return any(_read(text, form, utc=True).notna().all() for form in _FORMS if _may_read(text, form))


def stray_cell(cells: pd.Series) -> str | None:
    """The first cell that is not a date, in a column in which most cells are dates; else None."""
    text = _from_quarters(cells.dropna().astype(str).str.strip())
    for form in _FORMS if len(text) else ():
        if _may_read(text, form):
            wrong = _read(text, form, utc=True).isna()
            if 0 < wrong.sum() < len(text) / 2:
                return str(cells.dropna().iloc[int(np.argmax(wrong))])
    return None


def _from_quarters(text: pd.Series) -> pd.Series:
    """Text of quarters as that of their first months."""
    if not text.iloc[:1].str.fullmatch(_QUARTER, case=False).all():
        return text
    parts = text.str.extract(rf"^(?:{_QUARTER})$", flags=re.IGNORECASE)
    year, quarter = parts["a"].fillna(parts["d"]), parts["b"].fillna(parts["c"])
    months = quarter.map({str(q): f"-{3 * q - 2:02d}-01" for q in range(1, 5)})
    return (year + months).where(parts.notna().any(axis=1), text)


def _parsed(text: pd.Series, name: Any, where: Where, step: Step | None, day_first: bool | None) -> pd.DatetimeIndex:
    offset = text.str.contains(_OFFSET, na=False).to_numpy()
    if offset.any() and not offset.all():
        row = int((offset != offset[0]).argmax())
        raise DataError(
            f"column {name!r}{where(row)}: {text.iloc[row]!r} differs from those before in having a time zone or none; "
            "write all with one or all without"
        )
    zone, text = _zone_of(text, name) if offset.any() else (None, text)
    found: dict[str, pd.DatetimeIndex] = {}
    furthest = pd.DatetimeIndex([pd.NaT] * len(text))  # the form that reads furthest is the one that was meant
    others = () if day_first is None else _MONTH_FIRST if day_first else _DAY_FIRST
    for form in _FORMS:
        if form.startswith(others) or not _may_read(text, form):
            continue
        dates = _read(text, form, utc=zone is not None).tz_convert(zone) if zone else _read(text, form, utc=False)
        if dates.hasnans:
            furthest = max(furthest, dates, key=lambda each: int(np.argmax(each.isna())))
        elif not any(dates.equals(other) for other in found.values()):
            found[form] = dates
        if form == "ISO8601" and found:
            return dates
    return _regular(found, step, f"column {name!r}: dates such as {text.iloc[0]!r}") if found else furthest


def _zone_of(text: pd.Series, name: Any) -> tuple[str | None, pd.Series]:
    """The zone of text with offsets, if they are one, and the text to be parsed.

    Offsets that change say no zone: what is one time of the day is local, everything else is ordered by UTC.
    """
    offsets = text.str.extract(r"(Z|[+-]\d\d:?\d\d)$")[0].replace({"Z": "+00:00"})
    plain = offsets.str.replace(r"([+-]\d\d):?(\d\d)", r"\1:\2", regex=True)
    if plain.nunique() == 1:
        return ("UTC" if plain.iloc[0] in ("+00:00", "-00:00") else f"UTC{plain.iloc[0]}"), text
    wall = text.str.replace(r"(Z|[+-]\d\d:?\d\d)$", "", regex=True)
    local = wall.str.extract(r"(\d\d:\d\d\S*)$")[0].nunique() == 1
    warnings.warn(
        f"column {name!r} has offsets that change; its times are read as {'local days' if local else 'UTC'}",
        DataWarning,
        stacklevel=2,
    )
    return (None, wall) if local else ("UTC", text)


def _regular(found: dict[str, pd.DatetimeIndex], step: Step | None, what: str) -> pd.DatetimeIndex:
    """The most regular of several readings."""
    breaks = {form: (_breaks(dates, step), _breaks(dates, None)) for form, dates in found.items()}
    best, *others = sorted(found, key=breaks.__getitem__)
    if others:
        one, other = (
            form.replace("%m", "month").replace("%d", "day").replace("%Y", "year") for form in (best, others[0])
        )
        if breaks[others[0]] == breaks[best]:
            raise DataError(
                f"{what} can be {one} or {other}; write 2024-01-31, or give --day-first or --month-first "
                "(day_first=True or False in Python)"
            )
        warnings.warn(
            f"{what} are read as {one}, which makes them regular, and not as {other}; write 2024-01-31",
            DataWarning,
            stacklevel=2,
        )
    return found[best]


def _may_read(text: pd.Series, form: str) -> bool:
    """By the first cell: most forms need not be tried on the others."""
    return bool(_read(text.iloc[:1], form, utc=True).notna().all())


def _read(text: pd.Series, form: str, utc: bool) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(pd.to_datetime(text, format=form, errors="coerce", utc=utc))


def _breaks(dates: pd.DatetimeIndex, step: Step | None) -> int:
    """How many dates do not lie one step after the one before."""
    stamps = (dates if dates.tz is None else _on_clock(dates, step)).unique().sort_values()
    step = find_step(stamps) if step is None else step
    if step is None:
        return 0
    times = stamps.as_unit("ns").to_numpy()
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
