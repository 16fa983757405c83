"""The time axis: the usual step, and the dates after the last row."""

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules import Series, future_dates
from titans_seq.datamodules.forecast.calendar import usual_step


def _series(dates: pd.DatetimeIndex | None, freq: str | None) -> Series:
    rows = 5 if dates is None else len(dates)
    return Series("s", np.zeros((rows, 1)), ("a",), dates, freq)


@pytest.mark.parametrize(
    ("dates", "step"),
    [
        (pd.date_range("2024-01-01", periods=5, freq="15min"), "15min"),
        (pd.date_range("2024-01-01", periods=5, freq="MS"), "MS"),
        (pd.date_range("2024-01-01", periods=9, freq="h").delete([3, 4]), "h"),
        (pd.date_range("2024-01-01", periods=9, freq="10min").insert(4, pd.Timestamp("2024-01-01 00:30")), "10min"),
        (pd.DatetimeIndex(["2024-01-01", "2024-01-02"]), "D"),
        (pd.DatetimeIndex(["2024-01-01"]), None),
        (pd.DatetimeIndex(["2024-01-01"] * 4), None),
    ],
    ids=["regular", "calendar", "gap", "duplicate", "two", "one", "all equal"],
)
def test_usual_step(dates: pd.DatetimeIndex, step: str | None) -> None:
    assert usual_step(dates) == step


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (pd.date_range("2024-01-01", periods=4, freq="h"), ["2024-01-01 04:00", "2024-01-01 05:00"]),
        (pd.date_range("2024-01-31", periods=4, freq="MS"), ["2024-06-01", "2024-07-01"]),
        (pd.date_range("2024-01-03", periods=6, freq="B"), ["2024-01-11", "2024-01-12"]),
        (pd.date_range("2024-01-01", periods=9, freq="h").delete([3, 4]), ["2024-01-01 09:00", "2024-01-01 10:00"]),
    ],
    ids=["hour", "month", "business day", "gap"],
)
def test_future_dates_go_on_in_the_usual_step(dates: pd.DatetimeIndex, expected: list[str]) -> None:
    assert list(future_dates(_series(dates, usual_step(dates)), 2)) == list(pd.DatetimeIndex(expected))


def test_future_of_a_last_date_off_its_calendar_step() -> None:
    dates = pd.DatetimeIndex(["2024-01-01", "2024-02-01", "2024-02-15"])
    assert list(future_dates(_series(dates, "MS"), 2)) == list(pd.DatetimeIndex(["2024-03-01", "2024-04-01"]))


def test_future_without_dates_is_counted_in_rows() -> None:
    assert list(future_dates(_series(None, None), 3)) == [5, 6, 7]
