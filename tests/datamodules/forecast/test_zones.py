"""Time zones and periods: regular where clocks change, and given back as they came."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules import Columns, DataError, read_file, read_frame
from titans_seq.datamodules.forecast.panel import Panel, join_panels, pack_panel, unpack_panel
from titans_seq.datamodules.forecast.reading import read_future
from titans_seq.datamodules.forecast.scaling import calendar_features

KNOWN, AHEAD = 40, 20
# first time, step, zone; a clock change lies among the rows known and ahead, or between them
ZONES = {
    "days in spring": ("2024-03-29", "D", "Europe/Berlin"),
    "days in autumn": ("2024-09-20", "D", "Europe/Berlin"),
    "hours in spring": ("2024-03-30", "h", "Europe/Berlin"),
    "hours in autumn": ("2024-10-25 12:00", "h", "Europe/Berlin"),
    "business days": ("2024-02-01", "B", "America/New_York"),
    "month ends": ("2020-01-31", "ME", "Asia/Tokyo"),
    "weeks": ("2024-01-03", "W-WED", "Europe/London"),
    "minutes": ("2024-01-01", "15min", "UTC"),
    "an offset": ("2024-01-01", "h", "UTC+05:30"),
}


def kept(panel: Panel) -> Panel:
    return unpack_panel(*pack_panel(panel), panel.columns)


@pytest.mark.parametrize("shape", ["wide", "long", "parquet"])
@pytest.mark.parametrize(("first", "freq", "zone"), ZONES.values(), ids=ZONES)
def test_times_of_a_zone_follow_those_of_pandas(tmp_path, first, freq, zone, shape):
    times = pd.date_range(first, periods=KNOWN + AHEAD, freq=freq, tz=zone)
    frame = pd.DataFrame({"ds": times[:KNOWN], "y": np.arange(KNOWN)})
    if shape == "parquet":
        frame.to_parquet(tmp_path / "a.parquet")
        panel = read_file(tmp_path / "a.parquet")
    else:
        panel = read_frame(frame.assign(unique_id="a") if shape == "long" else frame.set_index("ds"), Columns())
    for each in (panel, read_frame(frame, Columns(), panel.freq)):
        assert not np.isnan(each.target).any()
        ahead = kept(each).extend(AHEAD).times
        assert list(ahead) == list(times) and str(ahead.tz) == str(times.tz)


def test_a_midnight_that_is_left_out_is_a_day():
    times = pd.date_range("2018-10-30", periods=20).tz_localize("America/Sao_Paulo", nonexistent="shift_forward")
    assert times[5].hour == 1
    panel = read_frame(pd.DataFrame({"v": np.arange(10)}, times[:10]), Columns())
    assert list(panel.extend(10).times) == list(times)


def test_features_of_the_calendar_are_local():
    times = pd.date_range("2024-03-30", periods=48, freq="h", tz="Europe/Berlin")
    hours = (calendar_features(read_frame(pd.DataFrame({"v": 1.0}, times), Columns()))[:, 0] + 0.5) * 23
    np.testing.assert_allclose(hours, times.hour)


def test_rows_that_are_joined_agree_on_the_zone():
    times = pd.date_range("2024-10-26", periods=60, freq="h", tz="Europe/Berlin")
    panel = read_frame(pd.DataFrame({"v": np.arange(60)}, times), Columns())
    first, later = panel.until(20), panel.tail(20)
    for whole in (first.append(later), join_panels([panel])):
        assert list(whole.times) == list(times)
    with pytest.raises(DataError, match="'ds' has a time zone in some rows only"):
        first.append(replace(later, zone=None))


@pytest.mark.parametrize(("freq", "zone"), [("h", "Europe/Berlin"), ("D", "Europe/Berlin")])
def test_covariates_ahead_may_be_in_another_zone(freq, zone):
    times = pd.date_range("2024-03-25", periods=20, freq=freq, tz=zone)
    frame = pd.DataFrame({"ds": times, "y": 1.0, "price": np.arange(20.0)})
    panel = read_frame(frame[:15], Columns(future_covariates=("price",)))
    ahead = frame[15:].assign(ds=frame["ds"][15:].dt.tz_convert("Asia/Tokyo"))
    assert read_future(ahead, panel, 5).ravel().tolist() == [15, 16, 17, 18, 19]
    with pytest.raises(DataError, match="must both have a time zone in 'ds', or neither"):
        read_future(ahead.assign(ds=ahead["ds"].dt.tz_localize(None)), panel, 5)


@pytest.mark.filterwarnings("ignore:column 'ds' has offsets that change")
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Europe/London"])
@pytest.mark.parametrize(
    ("known", "later"), [(330, 20), (20, 20), (20, 200)], ids=["a year", "a season", "into spring"]
)
def test_days_with_offsets_follow_each_other(zone, known, later):
    """The offsets of a year change, those of a season do not: covariates ahead and later rows fit either way."""
    times = pd.date_range("2024-01-10", periods=known + later, tz=zone)
    text = times.map(lambda time: time.isoformat())
    frame = pd.DataFrame({"ds": text, "y": np.arange(len(text)), "price": np.arange(float(len(text)))})
    columns = Columns(future_covariates=("price",))
    past, rest = read_frame(frame[:known], columns), read_frame(frame[known:], columns, "D")
    assert read_future(frame[known:], past, later).ravel().tolist() == frame["price"][known:].tolist()
    both = past.append(rest)
    assert list(both.dates.tz_localize(None)) == list(times.tz_localize(None)) and both.zone == past.zone


@pytest.mark.parametrize("period", ["M", "Q-DEC", "Q-NOV", "Y-DEC", "D", "W-SUN", "h"])
def test_periods_come_back(period):
    periods = pd.period_range("2020", periods=40, freq=period)
    wide = pd.DataFrame({"v": np.arange(30)}, periods[:30])
    for frame in (wide, wide.rename_axis("ds").reset_index().rename(columns={"v": "y"})):
        ahead = kept(read_frame(frame, Columns())).extend(10).times
        assert ahead.equals(periods)


def test_periods_end_where_the_step_does():
    panel = read_frame(pd.DataFrame({"v": np.arange(9)}, pd.period_range("2020", periods=9, freq="M")), Columns(), "ME")
    assert panel.dates[0] == pd.Timestamp("2020-01-31") and panel.times[0] == pd.Period("2020-01")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"zone": "Europe/Atlantis"}, "zone must be the name of a time zone; got 'Europe/Atlantis'"),
        ({"zone": "../etc"}, "zone must be the name of a time zone; got '../etc'"),
        ({"zone": 7}, "zone must be the name of a time zone; got 7"),
        ({"zone": ""}, "zone must be the name of a time zone; got ''"),
        ({"period": "nonsense"}, "period must be an alias of periods such as M or Q-DEC; got 'nonsense'"),
        ({"period": 3}, "period must be an alias of periods such as M or Q-DEC; got 3"),
    ],
    ids=str,
)
def test_what_a_file_says_of_zone_and_period_is_checked(wrong, message):
    panel = read_frame(pd.DataFrame({"v": np.arange(9)}, pd.date_range("2024", periods=9, freq="h")), Columns())
    about, arrays = pack_panel(panel)
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.") + "$"):
        unpack_panel(about | wrong, arrays, panel.columns)
