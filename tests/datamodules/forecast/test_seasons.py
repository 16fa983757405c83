"""Periods of series that are known."""

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules.forecast.calendar import to_step
from titans_seq.datamodules.forecast.seasons import calendar_periods, seasons, spectrum, strongest


@pytest.mark.parametrize(
    "freq, expected",
    [
        ("h", {"day": 24, "week": 168, "year": 8766}),
        ("15min", {"hour": 4, "day": 96, "week": 672, "year": 35063}),
        ("D", {"week": 7, "year": 365}),
        ("B", {"week": 5, "year": 261}),
        ("W-MON", {"year": 52}),
        ("MS", {"year": 12}),
        ("QS", {"year": 4}),
        ("YS", {}),
        ("2MS", {"year": 6}),
        ("5MS", {}),
        ("SMS", {"year": 24}),
        ("WOM-2TUE", {"year": 12}),
        ("bh", {"day": 8, "week": 40, "year": 2088}),
    ],
)
def test_the_calendar(freq: str, expected: dict[str, int]) -> None:
    step = to_step(freq)
    assert step is not None
    assert calendar_periods(pd.date_range("2020-01-01", periods=100, freq=freq), step) == expected


def test_numbered_rows_have_no_calendar() -> None:
    assert calendar_periods(pd.RangeIndex(100), 1) == {}


def _wave(rows: float, count: int = 1000) -> np.ndarray:
    return np.sin(np.arange(count) * 2 * np.pi / rows)


def test_a_wave_is_found_under_trend_noise_and_gaps() -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, 1000)
    values = 1e6 * (_wave(24) + 0.5 * _wave(50) + noise + np.arange(1000) / 100)
    values[300:340] = np.nan
    day, found = seasons(values, {"day": 24})[:2]
    assert (day.rows, day.name) == (24, "day") and day.autocorrelation > 0.5 and day.power > 0.5
    assert (found.rows, found.name) == (50, "") and found.power < day.power


def test_a_period_of_the_calendar_is_told_also_where_nothing_repeats() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 1000)
    (season,) = seasons(noise, {"week": 7, "year": 600})  # two years do not fit
    assert season.name == "week" and abs(season.autocorrelation) < 0.1 and season.power < 0.05


@pytest.mark.parametrize(
    "values", [np.full(100, 3.0), np.full(100, np.nan), np.array([1.0, 2.0, 3.0]), np.arange(100.0)]
)
def test_flat_empty_short_and_straight_series_have_none(values: np.ndarray) -> None:
    assert seasons(values, {"week": 7}) == [] and len(spectrum(values)[0]) == 0


def test_the_spectrum_peaks_at_the_period() -> None:
    rows, power = spectrum(_wave(20))
    assert rows[power.argmax()] == pytest.approx(20) and power.sum() <= 1 + 1e-9


def test_several_series_share_their_periods() -> None:
    every = [seasons(_wave(20), {"day": 20}), seasons(_wave(20) + _wave(33), {"day": 20})]
    first, second = strongest(every)  # the calendar first
    assert (first.rows, second.rows) == (20, 33) and first.autocorrelation > second.autocorrelation


def test_only_the_few_strongest_of_many_series_are_told() -> None:
    found = strongest([seasons(_wave(rows) + _wave(11), {}) for rows in (20, 33, 47, 61, 77)])
    assert len(found) == 3 and found[0].rows == 11  # which all of them share
