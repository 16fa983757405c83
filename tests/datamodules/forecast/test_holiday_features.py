"""Holidays as covariates, against days named by hand."""

import sys

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast import holiday_features as module
from titans_seq.datamodules.forecast.holiday_features import checked_holidays, holiday_features
from titans_seq.datamodules.forecast.panel import Columns, Panel
from titans_seq.datamodules.forecast.reading import read_panel
from titans_seq.datamodules.forecast.scaling import PanelScaling


def panel(times, freq) -> Panel:
    return read_panel(pd.DataFrame({"unique_id": "a", "ds": times, "y": 1.0}), Columns(), freq)


def table(times, freq, codes=("DE",)) -> pd.DataFrame:
    return pd.DataFrame(holiday_features(panel(times, freq), codes), index=times)


def test_days_and_hours_around_christmas():
    """25 and 26 December are holidays; the 24th is before one, the 27th after one."""
    days = pd.date_range("2023-12-22", "2024-01-03")
    wanted = {
        0: ["2023-12-25", "2023-12-26", "2024-01-01"],
        1: ["2023-12-24", "2023-12-25", "2023-12-31"],
        2: ["2023-12-26", "2023-12-27", "2024-01-02"],
    }
    by_day = table(days, "D")
    hours = pd.date_range("2023-12-22", "2024-01-03 23:00", freq="6h")
    by_hour = table(hours, "6h")
    for column, dates in wanted.items():
        assert list(by_day.index[by_day[column] == 1]) == [pd.Timestamp(date) for date in dates]
        np.testing.assert_array_equal(by_hour[column], by_day[column].reindex(hours.normalize()))


def test_business_days_look_over_the_weekend():
    """Easter Monday, 1 April 2024: the Thursday before (Good Friday is next), Friday, and Tuesday after."""
    found = table(pd.bdate_range("2024-03-27", "2024-04-03"), "B")
    assert found[0].tolist() == [0, 0, 1, 1, 0, 0]
    assert found[1].tolist() == [0, 1, 1, 0, 0, 0]
    assert found[2].tolist() == [0, 0, 0, 1, 1, 0]


def test_every_business_hour_of_a_holiday_is_one():
    times = pd.date_range("2024-12-24 09:00", periods=16, freq="2bh")
    assert table(times, "2bh")[0].tolist() == (times.strftime("%d").isin(["25", "26"])).astype(float).tolist()


@pytest.mark.parametrize(
    "times, freq, counts",
    [
        (pd.date_range("2024-03-01", "2024-06-01", freq="MS"), "MS", [1, 1, 3, 0]),  # Friday; Monday; 1, 9 and 20 May
        (pd.date_range("2024-03-31", "2024-06-30", freq="ME"), "ME", [1, 1, 3, 0]),
        (pd.date_range("2024-04-28", "2024-05-26", freq="W-SUN"), "W-SUN", [0, 1, 1, 0, 1]),  # up to that Sunday
        (pd.date_range("2024-12-23", "2024-12-30", freq="7D"), "7D", [2, 1]),  # from that day on
        (pd.date_range("2024-01-01", "2024-07-01", freq="QS"), "QS", [2, 4, 0]),
    ],
    ids=["MS", "ME", "W-SUN", "7D", "QS"],
)
def test_longer_steps_count_theirs(times, freq, counts):
    assert table(times, freq)[0].tolist() == counts


def test_days_of_a_zone_begin_at_its_midnight():
    """Christmas in Berlin begins at 23:00 of the 24th in UTC."""
    hours = pd.date_range("2023-12-24", "2023-12-27 23:00", freq="h", tz="Europe/Berlin")
    found = table(hours, "h")[0]
    assert found.index[found == 1].equals(hours[24:72])
    days = pd.date_range("2023-12-24", "2023-12-27", tz="America/New_York")
    assert table(days, "D", ("US",))[0].tolist() == [0, 1, 0, 0]


def test_periods_hold_the_holidays_of_their_days():
    days = pd.period_range("2023-12-24", "2023-12-27", freq="D")
    assert table(days, "D")[0].tolist() == [0, 1, 1, 0]
    months = pd.period_range("2024-03", "2024-06", freq="M")
    assert table(months, "MS")[0].tolist() == table(months, "ME")[0].tolist() == [1, 1, 3, 0]


def test_several_codes_and_subdivisions_stand_side_by_side():
    """6 January is one in Bavaria only, 4 July in the United States."""
    days = pd.date_range("2024-01-01", "2024-07-31")
    found = table(days, "D", ("DE", "DE-BY", "US"))
    assert found.shape[1] == 9
    assert found.loc["2024-01-06", [0, 3, 6]].tolist() == [0, 1, 0]
    assert found.loc["2024-07-04", [0, 3, 6]].tolist() == [0, 0, 1]


def test_the_horizon_reaches_into_a_year_without_rows():
    ahead = panel(pd.date_range("2023-12-20", "2023-12-30"), "D").extend(3)
    scaling = PanelScaling.fit(panel(pd.date_range("2023-12-20", "2023-12-30"), "D"), calendar=False, holidays=("DE",))
    features, count = scaling.features(ahead)
    assert count == 3 and features[-3:, 0].tolist() == [0, 1, 0]  # 31 December, 1 and 2 January
    again = PanelScaling.unpack(*scaling.pack())
    np.testing.assert_array_equal(again.features(ahead)[0], features)


@pytest.mark.parametrize(
    "given, message",
    [
        ("XX", "holidays has no code 'XX'"),
        ("DE-QQ", "holidays has no code 'DE-QQ'"),
        ("utils", "holidays has no code 'utils'; give a country such as 'DE'"),
        ("country_holidays", "holidays has no code 'country_holidays'"),
        ("HolidayBase", "holidays has no code 'HolidayBase'"),
        (7, "holidays must be a code such as 'DE' or 'DE-BY', or a list of them; got 7"),
        ([1], "holidays must be a code"),
    ],
    ids=str,
)
def test_unknown_codes_are_named(given, message):
    with pytest.raises(ValueError, match=message) as error:
        checked_holidays(given)
    assert "\n" not in str(error.value)
    assert checked_holidays(None) == () and checked_holidays("DE-BY") == ("DE-BY",)


def test_numbered_rows_have_none():
    with pytest.raises(DataError, match="holidays need time stamps, and the rows are numbered"):
        holiday_features(panel(range(10), 1), ("DE",))


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "holidays", None)
    module._days.cache_clear()
    with pytest.raises(DataError, match=r"pip install 'titans-seq\[holidays\]'"):
        checked_holidays("DE")
