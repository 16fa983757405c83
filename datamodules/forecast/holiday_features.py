"""Holidays as covariates that are known ahead, from the package `holidays`.

R rows of all series, K covariates. Of steps of a day or less, and of business days: whether a row's day is a holiday,
whether one begins before the next day (business day), and whether one ended since the day before. Of longer steps: how
many holidays a step holds.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from pandas.tseries.offsets import BaseOffset

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.panel import Panel

Days = np.ndarray  # datetime64[D]
DAY = pd.Timedelta(days=1)
BUSINESS = (pd.offsets.BusinessDay, pd.offsets.CustomBusinessDay, pd.offsets.BusinessHour)


def checked_holidays(given: Any) -> tuple[str, ...]:
    """Codes such as "DE" or "DE-BY" (a country with a subdivision) of one code, a list of them, or None.

    Raises:
        DataError: the package is not installed.
        ValueError: a code is unknown.
    """
    codes = (given,) if isinstance(given, str) else () if given is None else given
    if not isinstance(codes, list | tuple) or not all(isinstance(code, str) for code in codes):
        raise ValueError(f"holidays must be a code such as 'DE' or 'DE-BY', or a list of them; got {given!r}")
    for code in codes:
        _days(code, 2024, 2024)
    return tuple(codes)


def holiday_features(panel: Panel, codes: Sequence[str]) -> Float[np.ndarray, "R K"]:
    """Covariates of every row, for each code.

    Raises:
        DataError: rows are numbered.
    """
    if not codes:
        return np.empty((len(panel.target), 0))
    step = panel.freq
    if isinstance(step, int):
        raise DataError("holidays need time stamps, and the rows are numbered; give holidays=None")
    times = panel.dates.tz_localize(None)  # holidays begin by the clock on the wall
    if not len(times):
        return np.empty((0, len(codes) * (3 if _is_daily(step) else 1)))
    years = times.year.min() - 1, times.year.max() + 1
    make = _of_days if _is_daily(step) else _of_steps
    parts = [make(times, step, _days(code, *years)) for code in codes]
    return np.concatenate(parts, axis=1).astype(np.float64)


def _is_daily(step: BaseOffset) -> bool:
    if isinstance(step, BUSINESS):
        return step.n == 1 or isinstance(step, pd.offsets.BusinessHour)
    return isinstance(step, pd.offsets.Tick | pd.offsets.Day) and pd.Timedelta(step) <= DAY


def _of_days(times: pd.DatetimeIndex, step: BaseOffset, holidays: Days) -> np.ndarray:
    stamps, place = np.unique(times.to_numpy().astype("datetime64[D]"), return_inverse=True)
    ahead, behind = (_shifted(stamps, step, sign) for sign in (1, -1))
    one = np.timedelta64(1, "D")
    is_one = _count(holidays, stamps, stamps + one)
    before, after = _count(holidays, stamps + one, ahead + one), _count(holidays, behind, stamps)
    return (np.stack([is_one, before, after], axis=-1) > 0)[place]


def _shifted(days: Days, step: BaseOffset, sign: int) -> Days:
    """The next day, or the one before; of business days the next that is one."""
    if not isinstance(step, BUSINESS):
        return days + sign * np.timedelta64(1, "D")
    rule = pd.offsets.BusinessDay() if isinstance(step, pd.offsets.BusinessHour) else step
    return np.array([pd.Timestamp(day) + sign * rule for day in days], dtype="datetime64[D]")


def _of_steps(times: pd.DatetimeIndex, step: BaseOffset, holidays: Days) -> np.ndarray:
    """Stamps at the end of their step (month ends, weeks) count what led up to them, others what follows."""
    stamps, place = np.unique(times, return_inverse=True)
    ends = type(step).__name__.endswith("End") or isinstance(step, pd.offsets.Week)
    others = np.array([stamp - step if ends else stamp + step for stamp in stamps], dtype="datetime64[D]")
    days, one = stamps.astype("datetime64[D]"), np.timedelta64(1, "D")
    first, behind = (others + one, days + one) if ends else (days, others)
    return _count(holidays, first, behind)[place, None]


def _count(holidays: Days, first: Days, behind: Days) -> np.ndarray:
    """Holidays from `first` to before `behind`."""
    return np.searchsorted(holidays, behind) - np.searchsorted(holidays, first)


@lru_cache(maxsize=64)
def _days(code: str, first: int, last: int) -> Days:
    """The holidays of some years, ascending."""
    try:
        import holidays
    except ModuleNotFoundError:
        raise DataError("holidays come from a package: pip install 'titans-seq[holidays]'") from None
    country, _, subdivision = code.partition("-")
    if country not in holidays.list_supported_countries():  # whose names alone are safe to look up in the package
        raise ValueError(f"holidays has no code {code!r}; give a country such as 'DE', or 'DE-BY' with a subdivision")
    try:
        found = holidays.country_holidays(country, subdiv=subdivision or None, years=range(first, last + 1))
    except NotImplementedError as error:
        raise ValueError(f"holidays has no code {code!r}: {error}") from None
    return np.sort(np.array(list(found), dtype="datetime64[D]"))
