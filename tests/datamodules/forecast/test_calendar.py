"""The calendar: which step dates have, what follows them, and how a step is kept."""

import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from dateutil.relativedelta import MO
from pandas.tseries.holiday import USFederalHolidayCalendar

from titans_seq.datamodules import DataError
from titans_seq.datamodules.forecast.calendar import alias, find_step, future_times, grid_place, plain_step, to_step


def dates(begin: str, periods: int, freq, lost: int | None = None) -> pd.DatetimeIndex:
    made = pd.date_range(begin, periods=periods, freq=freq)
    return made if lost is None else made.delete(lost)


MONTHLY = pd.DateOffset(months=1)
EXCHANGE = pd.offsets.BusinessHour(start="10:00", end="16:00")
QUARTERS = pd.to_datetime([f"{year}-{day}" for year in (1970, 1971) for day in ("01-01", "04-02", "07-02", "10-01")])
STEPS = {
    "15 minutes": (dates("2024", 5, "15min"), "15min", "2024-01-01 01:15"),
    "hours with a gap": (dates("2024", 9, "h", 3), "h", "2024-01-01 09:00"),
    "hour starts late": (dates("2024-01-01 00:07", 4, "h"), "h", "2024-01-01 04:07"),
    "two days": (dates("2024", 2, "D"), "D", "2024-01-03"),
    "business days": (dates("2024-01-01", 30, "B", 12), "B", "2024-02-12"),
    "three business days": (dates("2024-01-04", 3, "B"), "B", "2024-01-09"),
    "weekdays of one week": (dates("2024-01-01", 5, "D"), "D", "2024-01-06"),
    "weeks": (dates("2024", 20, "W-WED", 3), "W-WED", "2024-05-22"),
    "four weeks": (dates("2000-01-02", 20, "28D", 3), "4W-SUN", "2001-07-15"),
    "thirteen weeks": (dates("2000-01-02", 20, "91D"), "13W-SUN", "2004-12-26"),
    "month starts": (dates("2004", 14, "MS", 5), "MS", "2005-03-01"),
    "month starts at six": (dates("2004-01-01 06:00", 14, "MS", 5), "MS", "2005-03-01 06:00"),
    "month ends": (dates("2000", 20, "ME", 3), "ME", "2001-09-30"),
    "two month ends": (dates("2001", 2, "ME"), "ME", "2001-03-31"),
    "business month ends": (dates("2000", 40, "BME", 3), "BME", "2003-05-30"),
    "the 15th": (dates("2020-01-15", 12, MONTHLY, 4), MONTHLY, "2021-01-15"),
    "third Fridays": (dates("2000", 30, "WOM-3FRI", 4), "WOM-3FRI", "2002-07-19"),
    "last Fridays": (dates("2000", 60, pd.offsets.LastWeekOfMonth(weekday=4)), pd.offsets.LastWeekOfMonth(weekday=4),
                     "2005-01-28"),
    "quarter ends": (dates("1990-12-31", 9, "QE", 3), "QE-DEC", "1993-03-31"),
    "quarters from November": (dates("1990-11-01", 9, "QS-NOV", 3), "QS-FEB", "1993-02-01"),
    "half years": (dates("1990", 9, "6MS", 3), "2QS-JAN", "1994-07-01"),
    "years": (dates("1990-06-30", 9, "YE-JUN", 3), "YE-JUN", "1999-06-30"),
    "quarters that drift": (QUARTERS, "QS-JAN", "1972-01-01"),
    "three quarters that drift": (QUARTERS[:3], "QS-JAN", "1970-10-01"),
    "business hours": (dates("2024-01-01 09:00", 90, "bh", 5), "bh", "2024-01-16 11:00"),
    "exchange hours": (dates("2024-01-01 10:00", 90, EXCHANGE), EXCHANGE, "2024-01-22 10:00"),
    "300 years": (dates("1700", 300, "YS"), "YS-JAN", "2000-01-01"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "step", "following"), STEPS.values(), ids=STEPS)
def test_the_step_of_dates_and_what_follows(given, step, following):
    found = find_step(given)
    assert found == to_step(step)
    if not given.equals(QUARTERS) and not given.equals(QUARTERS[:3]):  # their last date is that of a period
        assert list(future_times(given[-1:], 1, found)) == [pd.Timestamp(following)]


def test_one_date_has_no_step():
    assert find_step(dates("2024", 1, "D")) is None


HOLIDAYS = pd.offsets.CustomBusinessDay(holidays=["2024-01-15", "2024-02-02"])
KEPT = [
    "15min", "2B", "QS-FEB", "WOM-3FRI", 7, MONTHLY, HOLIDAYS, pd.offsets.CustomBusinessDay(2, weekmask="Sun Mon Tue"),
    "W", "3W", timedelta(hours=2), pd.Timedelta("90s"), np.timedelta64(1, "D"), EXCHANGE,
    pd.offsets.CustomBusinessHour(holidays=["2024-02-01"]),
    pd.offsets.CustomBusinessDay(calendar=USFederalHolidayCalendar()), pd.offsets.LastWeekOfMonth(weekday=4),
]  # fmt: skip


@pytest.mark.parametrize("step", KEPT, ids=lambda step: str(getattr(step, "freqstr", step)))
def test_steps_are_kept_in_json(step):
    step = to_step(step)
    again = to_step(json.loads(json.dumps(plain_step(step))))
    assert again == step
    last = pd.Index([4, 5]) if isinstance(step, int) else dates("2024-01-31", 2, step)
    assert list(future_times(last, 5, again)) == list(future_times(last, 5, step))


@pytest.mark.parametrize("first", ["2024-01-31", "2024-02-01", "2024-02-04"])
def test_weeks_are_those_of_the_data(first):
    assert list(future_times(pd.DatetimeIndex([first]), 2, to_step("W"))) == list(dates(first, 3, "7D")[1:])


def test_holidays_are_no_business_days():
    ahead = future_times(pd.DatetimeIndex(["2024-01-12", "2024-02-01"]), 2, to_step(HOLIDAYS))
    assert list(ahead) == list(pd.to_datetime(["2024-01-16", "2024-01-17", "2024-02-05", "2024-02-06"]))


@pytest.mark.parametrize(
    ("freq", "message"),
    [
        ("hourly", "unknown pandas frequency 'hourly'"),
        (0, "freq must be a step forward; got 0"),
        ("-1D", "freq must be a step forward"),
        (True, "or a whole number; got True"),
        (1.5, "or a whole number; got 1.5"),
        (pd.DateOffset(weekday=MO(1)), "cannot be saved"),
    ],
)
def test_what_is_no_step(freq, message):
    with pytest.raises(DataError, match=message):
        to_step(freq)


@pytest.mark.parametrize("freq", ["D", "MS", 2**61], ids=str)
def test_nothing_wraps_at_the_end_of_time(freq):
    last = pd.Index([2**62]) if isinstance(freq, int) else dates("2261-01-01", 1, "D")
    assert len(future_times(last, 1, to_step(freq))) == 1
    with pytest.raises(DataError, match="run beyond the (year 2262|largest number)"):
        future_times(last, 600, to_step(freq))


def test_four_centuries_do_not_wrap():
    days = dates("1700", 2, "D").append(dates("2100", 1, "D")).to_numpy()
    assert grid_place(days, days[:1].repeat(3), to_step("D")).tolist() == [0, 1, 146097]


@pytest.mark.parametrize(
    ("step", "plain"),
    [(HOLIDAYS, "C"), ("BME", "MS"), ("BQE-DEC", "QS"), ("BYS-JAN", "YS"), ("WOM-3FRI", "MS"), (MONTHLY, "MS"),
     (pd.DateOffset(months=12), "YS"), ("15min", "15min"), ("W-SUN", "W-SUN")],
    ids=str,
)  # fmt: skip
def test_plain_aliases(step, plain):
    assert alias(to_step(step)) == plain
