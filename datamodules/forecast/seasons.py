"""Which periods a series repeats in: those that its calendar suggests, and those that its spectrum shows.

T rows of a series.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.signal import detrend, find_peaks, periodogram

from titans_seq.datamodules.forecast.calendar import Step, months_of, semi_monthly

_SECONDS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0, "year": 31_556_952.0}
_BUSINESS_DAYS = {"week": 5, "year": 261}
_STRONGEST = 3  # peaks of the spectrum that are reported
_LEAST = 0.1  # autocorrelation of a period of the spectrum, and ten times its share of the variance
_NEAR = 0.05  # share by which a peak may miss a period of the calendar: frequencies are multiples of 1 / T
_REPEATS = 5  # times that a period of the spectrum alone fits into the series: slow drifts have peaks too
_FEWEST = 8  # values of a series that says anything


@dataclass(frozen=True)
class Season:
    """A period of a series.

    Args:
        rows: its length.
        name: of the calendar: hour, day, week, year; "" where only the spectrum shows it.
        autocorrelation: at this lag, the trend removed; 1: the series repeats itself, 0: it does not.
        power: share of the variance at about this period, the trend removed.
    """

    rows: int
    name: str
    autocorrelation: float
    power: float


def calendar_periods(times: pd.Index, step: Step) -> dict[str, int]:
    """Rows of an hour, day, week and year, where that is a whole number from two up; numbered rows have none."""
    if isinstance(step, int) or len(times) < 2:
        return {}
    if type(step).__name__ in ("BusinessDay", "CustomBusinessDay") and step.n == 1:
        return dict(_BUSINESS_DAYS)
    if isinstance(step, pd.offsets.BusinessHour):
        return of_business_hours(step)
    months = 0.5 if semi_monthly(step) else months_of(step)
    if months is not None:
        return {"year": int(12 / months)} if months < 12 and 12 % months == 0 else {}
    width = float(np.median(np.diff(times.to_numpy()).astype("timedelta64[ns]").astype(np.int64))) / 1e9
    exact = {name: seconds / width for name, seconds in _SECONDS.items()}
    whole = {name: round(rows) for name, rows in exact.items() if rows > 1.5}
    return {name: rows for name, rows in whole.items() if abs(rows - exact[name]) < _NEAR * exact[name]}


def of_business_hours(step: pd.offsets.BusinessHour) -> dict[str, int]:
    """Rows of a day, a week and a year, where a day is a whole number of them."""
    spans = zip(step.start, step.end, strict=True)
    minutes = sum((60 * end.hour + end.minute - 60 * start.hour - start.minute) % 1440 or 1440 for start, end in spans)
    day, rest = divmod(minutes, 60 * step.n)
    return {} if rest or day < 2 else {"day": day} | {name: day * days for name, days in _BUSINESS_DAYS.items()}


def seasons(values: Float[np.ndarray, " T"], calendar: dict[str, int]) -> list[Season]:
    """The periods of the calendar of which two fit into the series, and the strongest of its spectrum.

    Missing values are interpolated for the spectrum, and left out of autocorrelations.

    Args:
        values: of one series, NaN where missing.
        calendar: name -> rows, see `calendar_periods`.
    """
    plain = _without_trend(values)
    if plain is None:
        return []
    named = {rows: name for name, rows in calendar.items() if 2 * rows <= len(plain)}
    found = [rows for rows in _peaks(plain) if not any(abs(rows - each) <= max(1, _NEAR * each) for each in named)]
    seen = np.where(np.isnan(values), np.nan, plain)
    every = [Season(n, named.get(n, ""), _correlation(seen, n), _power(plain, n)) for n in (*named, *found)]
    repeating = [each for each in every if not each.name and min(each.autocorrelation, 10 * each.power) > _LEAST]
    return [season for season in every if season.name] + repeating[:_STRONGEST]


def spectrum(values: Float[np.ndarray, " T"]) -> tuple[np.ndarray, np.ndarray]:
    """Periods in rows, from two to half of the series, and the share of the variance at each; empty if it is flat."""
    plain = _without_trend(values)
    if plain is None:
        return np.empty(0), np.empty(0)
    frequency, power = _periodogram(plain)
    return 1 / frequency, power


def _without_trend(values: np.ndarray) -> np.ndarray | None:
    seen = ~np.isnan(values)
    if seen.sum() < _FEWEST:
        return None
    rows = np.arange(len(values))
    largest = np.abs(values[seen]).max() or 1.0  # squares of large values would overflow
    plain = detrend(np.interp(rows, rows[seen], values[seen] / largest))
    return plain if plain.std() > 1e-9 else None


def _periodogram(plain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frequency, power = periodogram(plain, window="hann")
    kept = frequency >= 2 / len(plain)
    return frequency[kept], power[kept] / power.sum()


def _peaks(plain: np.ndarray) -> list[int]:
    """Periods of the peaks of the spectrum that stand out, the strongest first."""
    frequency, power = _periodogram(plain)
    if not len(power):
        return []
    places, _ = find_peaks(np.concatenate([[0.0], power, [0.0]]), height=20 * np.median(power))
    places = places - 1
    periods = [round(1 / frequency[place]) for place in places[np.argsort(-power[places])]]
    return list(dict.fromkeys(rows for rows in periods if 2 <= rows <= len(plain) / _REPEATS))


def _power(plain: np.ndarray, rows: int) -> float:
    frequency, power = _periodogram(plain)
    width = 2 / len(plain)  # a pure wave lies in the nearest bins
    return float(power[np.abs(frequency - 1 / rows) <= width].sum())


def _correlation(values: np.ndarray, lag: int) -> float:
    products = values[lag:] * values[:-lag]
    if np.isnan(products).all():
        return float("nan")
    return float(np.nanmean(products) / np.nanvar(values))


def strongest(every: Sequence[Sequence[Season]]) -> list[Season]:
    """The periods of several series, each with its means over the series that have it: first those of the calendar,
    then the few that explain most of all series together.
    """
    by_rows: dict[int, list[Season]] = {}
    for season in (season for each in every for season in each):
        by_rows.setdefault(season.rows, []).append(season)
    of_calendar = [same for same in by_rows.values() if same[0].name]
    found = [same for same in by_rows.values() if not same[0].name]
    found.sort(key=lambda same: -sum(season.power for season in same))
    return [_mean(same) for same in (*of_calendar, *found[:_STRONGEST])]


def _mean(same: Sequence[Season]) -> Season:
    correlations, powers = zip(*((season.autocorrelation, season.power) for season in same), strict=True)
    return Season(same[0].rows, same[0].name, float(np.mean(correlations)), float(np.mean(powers)))
