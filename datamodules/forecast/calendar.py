"""The one calendar: the step between time stamps, the grid it makes, and the stamps that follow.

A step is an offset of pandas, or a whole number where rows are numbered.
"""

import re
import warnings
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from pandas.tseries.offsets import BaseOffset

from titans_seq.datamodules.common.errors import DataError

Step: TypeAlias = BaseOffset | int
MOST = 0.8  # of dates that follow a rule: the others are a few days early or late
RARE = 0.02  # of dates on weekends: then they are mistakes among business days
FEW = 5  # equal gaps up to this number may be chance: months and quarters differ in length
_UNITS = {12: "Y", 3: "Q", 1: "M"}
_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


# steps ---------------------------------------------------------------------------------------------------------------


def to_step(freq: Any) -> Step | None:
    """Read a step: an alias, a whole number, an offset, or what `plain_step` made of it; None stays None.

    Raises:
        DataError: it is none of these, not a step forward, or an offset that cannot be saved.
    """
    if freq is None:
        return None
    if isinstance(freq, timedelta | np.timedelta64):
        freq = pd.tseries.frequencies.to_offset(pd.Timedelta(freq))
    if isinstance(freq, str):
        step = _offset(freq)
    elif isinstance(freq, BaseOffset):
        step = freq
    elif isinstance(freq, dict):
        given = dict(freq)
        step = getattr(pd.offsets, given.pop("class"))(**given)  # "09:00" stands for a time of the day
    elif isinstance(freq, int | np.integer) and not isinstance(freq, bool):
        step = int(freq)
    else:
        raise DataError(f"freq must be a pandas frequency such as 'h', or a whole number; got {freq!r}")
    if (step if isinstance(step, int) else step.n) < 1:
        raise DataError(f"freq must be a step forward; got {freq!r}")
    if isinstance(freq, BaseOffset) and to_step(plain_step(freq)) != freq:
        raise _unsaved(freq)
    return step


def plain_step(step: Step) -> str | int | dict[str, Any]:
    """A step as JSON can hold it: its alias, or the class and arguments of one that an alias does not tell."""
    if isinstance(step, int):
        return step
    given = _given(step)
    try:
        same = _offset(step.freqstr)
        if same == step and _given(same) == given:
            return str(step.freqstr)
    except DataError:
        pass
    if not all(isinstance(value, str | int | list) for value in given.values()):
        raise _unsaved(step)
    return {"class": type(step).__name__, "n": step.n, **given}


def _given(step: BaseOffset) -> dict[str, Any]:
    """The arguments of an offset; the holidays of a calendar count as its own."""
    given = {name: value for name, value in getattr(step, "kwds", {}).items() if name not in ("calendar", "offset")}
    given |= {name: [f"{each:%H:%M}" for each in given[name]] for name in ("start", "end") if name in given}
    return given | {"holidays": [str(day) for day in given["holidays"]]} if "holidays" in given else given


def _unsaved(step: BaseOffset) -> DataError:
    return DataError(f"freq {step!r} cannot be saved; give one that has an alias, or a CustomBusinessDay")


def alias(step: BaseOffset) -> str:
    """The plain alias that stands for a step: business months and dates within months count as months."""
    months = 1 if semi_monthly(step) else months_of(step)
    return str(step.freqstr) if months is None else _begin(months)


def semi_monthly(step: BaseOffset) -> bool:
    """Whether two dates of each month make a step."""
    return type(step).__name__.startswith("Semi")


def months_of(step: BaseOffset) -> int | None:
    """Months of a step that counts them, or quarters or years; None of any other."""
    if semi_monthly(step):
        return None
    name = type(step).__name__
    if isinstance(step, pd.DateOffset) and set(step.kwds) == {"months"}:
        return int(step.n * step.kwds["months"])
    units = (("Month", 1), ("Quarter", 3), ("Year", 12))
    return next((step.n * months for unit, months in units if unit in name), None)


@lru_cache(maxsize=256)  # also since `catch_warnings`, which belongs to the process, disturbs fits in other threads
def _offset(freq: str) -> BaseOffset:
    """The offset of an alias; old aliases such as "H" and "M" are taken as what they are called now."""
    weeks = re.fullmatch(r"(\d*)W", freq)
    if weeks:  # on whatever day the data have; for pandas it is Sunday
        return pd.offsets.Week(int(weeks[1] or 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return pd.tseries.frequencies.to_offset(freq)
    except ValueError:
        raise DataError(f"unknown pandas frequency {freq!r}; give e.g. 'h', 'D' or '15min'") from None


def in_wall_time(step: Step) -> bool:
    """Whether dates at this step are regular by the clock on the wall (days and longer), not in hours that pass."""
    return not isinstance(step, int) and (isinstance(step, pd.offsets.Day) or not isinstance(step, pd.offsets.Tick))


def _width(step: Step) -> int | None:
    """The length of a step in nanoseconds or rows, None for steps of the calendar (months, business days, ...)."""
    if isinstance(step, int):
        return step
    if isinstance(step, pd.offsets.Day):  # no tick any more in pandas 3
        return int(pd.Timedelta(days=step.n).value)
    return int(pd.Timedelta(step).value) if isinstance(step, pd.offsets.Tick) else None


# finding the step ----------------------------------------------------------------------------------------------------


def find_step(dates: pd.DatetimeIndex) -> BaseOffset | None:
    """The step of ascending dates of which some may be missing; None for fewer than two.

    One date per month, quarter or year is a step of the calendar, at the start, the end, the same day or the same
    weekday of each where there is such a rule, else the period itself, see `to_periods`. Weekdays alone are business
    days. Everything else goes by the most frequent difference.
    """
    gaps = np.diff(dates.to_numpy())
    if not len(gaps):
        return None
    usual = pd.Timedelta(pd.Series(gaps).mode().iloc[0])
    even = not (gaps % usual.to_timedelta64()).astype(np.int64).any()
    clock = dates - dates.normalize()
    if usual.days >= 28 and (found := _months(dates, usual.days, even)) is not None:
        return found
    if usual == pd.Timedelta(hours=1) and (found := _business_hours(dates)) is not None:
        return found
    if (clock != clock[0]).any() or usual.days < 1:
        return pd.tseries.frequencies.to_offset(usual)
    weekday = dates.dayofweek
    if usual.days == 1 and (weekday > 4).mean() < RARE and (dates[-1] - dates[0]).days >= 5 - weekday[0]:
        return pd.offsets.BDay()
    if usual.days % 7 == 0 and even:
        return pd.offsets.Week(usual.days // 7, weekday=int(weekday[0]))
    return pd.offsets.Day(usual.days)


def _business_hours(dates: pd.DatetimeIndex) -> BaseOffset | None:
    """Hours of the same part of every weekday, of more than a week and full but for a few."""
    first, last = int(dates.hour.min()), int(dates.hour.max())
    if last - first > 14 or (dates.dayofweek > 4).any() or (dates[-1] - dates[0]).days < 7 or dates.minute.any():
        return None
    step = pd.offsets.BusinessHour(start=f"{first:02d}:00", end=f"{last + 1:02d}:00")
    return step if len(dates) >= MOST * len(pd.date_range(dates[0], dates[-1], freq=step)) else None


def _months(dates: pd.DatetimeIndex, days: int, even: bool) -> BaseOffset | None:
    """The step of dates that fall one per month, or one per several months."""
    jumps = np.diff(dates.year * 12 + dates.month)
    # the most frequent distance, where one date is a month late
    lengths = (int(np.gcd.reduce(jumps)), int(pd.Series(jumps).mode().iloc[0]))
    months = next((each for each in lengths if 28 * each <= days <= 31 * each), None)
    if jumps.min() < 1 or months is None:
        return None
    few = len(jumps) < FEW
    steps = _month_steps(dates[0], months, few)
    starts = dates[:1].to_numpy().repeat(len(dates))
    shares = [(grid_place(dates.to_numpy(), starts, step) >= 0).mean() for step in steps]
    best = int(np.argmax(shares))
    if shares[best] == 1 or (shares[best] >= MOST and to_periods(starts[:1], steps[best]) is not None):
        return steps[best]
    return None if even and not few else _offset(_begin(months))


def _month_steps(first: pd.Timestamp, months: int, few: bool) -> list[BaseOffset]:
    """Every rule by which dates may lie `months` apart from the first one on; of few dates only the usual ones."""
    count, unit = _split(months)
    month = (first.month - 1) % 3 + 1 if unit == "Q" else first.month
    begin = "" if unit == "M" else f"-{_NAMES[month - 1]}"
    end = f"-{_NAMES[month + 8]}" if unit == "Q" else begin
    steps = [
        _offset(f"{count}{name}") for name in (f"{unit}S{begin}", f"{unit}E{end}", f"B{unit}S{begin}", f"B{unit}E{end}")
    ]
    if first.day <= 28:  # later days do not come every month
        steps.append(pd.DateOffset(months=months))
    if first.day <= 28 and not few:
        steps.append(pd.offsets.WeekOfMonth(months, week=(first.day - 1) // 7, weekday=first.dayofweek))
    if first.day > 21 and not few:
        steps.append(pd.offsets.LastWeekOfMonth(months, weekday=first.dayofweek))
    return steps


def _begin(months: int) -> str:
    count, unit = _split(months)
    return f"{count if count > 1 else ''}{unit}S"


def _split(months: int) -> tuple[int, str]:
    whole = next(each for each in _UNITS if months % each == 0)
    return months // whole, _UNITS[whole]


# grids ---------------------------------------------------------------------------------------------------------------


def grid_place(times: np.ndarray, starts: np.ndarray, step: Step) -> np.ndarray:
    """Steps from each row's start to the row, -1 where it is not on the grid that begins there."""
    width = _width(step)
    if width is not None:
        # unsigned: 292 years and more would wrap
        since = (times.view(np.int64) - starts.view(np.int64)).view(np.uint64)
        place, off = np.divmod(since, np.uint64(width))
        return np.where(off > 0, -1, place.astype(np.int64))
    place = np.empty(len(times), dtype=np.int64)
    for start in np.unique(starts):
        rows = starts == start
        grid = _dates(start, step, end=times[rows].max())
        # pandas drops a start that is not an anchor of the frequency
        on_grid = len(grid) > 0 and grid[0] == pd.Timestamp(start)
        place[rows] = grid.get_indexer(pd.DatetimeIndex(times[rows])) if on_grid else -1
    return place


def grid_times(starts: np.ndarray, steps: np.ndarray, step: Step) -> pd.Index:
    """The grids that begin at each start, one after another, with `steps` points each.

    Raises:
        DataError: they run beyond the year 2262.
    """
    width = _width(step)
    if width is not None:
        first = starts.view(np.int64)
        if (first.astype(np.float64) + (steps - 1) * float(width) >= 2.0**63).any():
            raise _beyond(starts.max(), step)
        place = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
        return pd.Index((np.repeat(first, steps) + place * width).view(starts.dtype))
    codes, stamps = pd.factorize(starts)
    grids = [_dates(stamp, step, periods=steps[codes == code].max()).to_numpy() for code, stamp in enumerate(stamps)]
    return pd.DatetimeIndex(np.concatenate([grids[code][:count] for code, count in zip(codes, steps, strict=True)]))


def future_times(last: pd.Index, steps: int, step: Step) -> pd.Index:
    """The `steps` grid points after each of N last ones, one after another: N * steps."""
    grids = grid_times(last.to_numpy(), np.full(len(last), steps + 1), step)
    return pd.Index(grids.to_numpy().reshape(len(last), -1)[:, 1:].ravel())


def to_periods(times: np.ndarray, step: Step) -> np.ndarray | None:
    """Dates as the starts (or ends) of the months, quarters or years they lie in; None for other steps."""
    if isinstance(step, int) or not type(step).__name__.endswith(("Begin", "End")):
        return None
    codes, stamps = pd.factorize(times)
    roll = step.rollback if "Begin" in type(step).__name__ else step.rollforward
    return pd.DatetimeIndex([roll(each) for each in pd.DatetimeIndex(stamps).normalize()]).to_numpy()[codes]


def _dates(start: Any, step: BaseOffset, **until: Any) -> pd.DatetimeIndex:
    try:
        return pd.date_range(start, freq=step, unit="ns", **until)
    except (pd.errors.OutOfBoundsDatetime, OverflowError):
        raise _beyond(start, step) from None


def _beyond(start: Any, step: Step) -> DataError:
    limit = "the largest number" if isinstance(step, int) else "the year 2262, the last that time stamps can hold"
    return DataError(f"steps of {step_text(step)} from {stamp_text(start)} run beyond {limit}; number the rows instead")


# text ----------------------------------------------------------------------------------------------------------------


def step_text(step: Step) -> str:
    return f"freq {step if isinstance(step, int) else step.freqstr!r}"


def stamp_text(time: Any) -> str:
    return str(pd.Timestamp(time)) if isinstance(time, np.datetime64) else str(time)
