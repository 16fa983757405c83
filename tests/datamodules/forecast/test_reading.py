"""Frames of many series: what is read, what is missing, what is refused."""

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules import DataError
from titans_seq.datamodules.forecast.calendar import future_times
from titans_seq.datamodules.forecast.panel import Columns
from titans_seq.datamodules.forecast.reading import known_ahead, long_from_wide, read_panel


def long_frame(lengths=(5, 3), freq="h", **more) -> pd.DataFrame:
    parts = [
        pd.DataFrame({
            "unique_id": f"s{i}", "ds": pd.date_range("2024-01-31", periods=n, freq=freq), "y": 10.0 * i + np.arange(n),
        })
        for i, n in enumerate(lengths)
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True).assign(**more)


@pytest.mark.parametrize("freq", ["h", "15min", "D", "W-SUN", "MS", "ME", "QE", "B", "YS"])
def test_grids_of_pandas(freq):
    """Times come back as pandas made them, for ticks and for steps of the calendar, with the freq given or found."""
    frame = long_frame((7, 5), freq)
    for given in (freq, None):
        panel = read_panel(frame, Columns(), given)
        assert list(panel.times) == list(frame["ds"])
        assert list(panel.target) == list(frame["y"])
        ahead = future_times(panel.times[panel.offsets[1:] - 1], 3, panel.freq)
        wanted = [
            pd.date_range(part["ds"].iloc[-1], periods=4, freq=freq)[1:] for _, part in frame.groupby("unique_id")
        ]
        assert list(ahead) == [time for part in wanted for time in part]


def test_rows_in_any_order_and_absent_ones_are_missing():
    frame = long_frame((6, 4))
    panel = read_panel(frame.drop(index=[2, 7]).sample(frac=1, random_state=0), Columns(), "h")
    by_name = {name: panel.target[panel.series == i] for i, name in enumerate(panel.ids)}
    np.testing.assert_array_equal(by_name["s0"], [0, 1, np.nan, 3, 4, 5])
    np.testing.assert_array_equal(by_name["s1"], [10, np.nan, 12, 13])
    assert set(panel.times[panel.series == list(panel.ids).index("s0")]) == set(frame["ds"].iloc[:6])


def test_series_keep_the_order_of_their_first_appearance():
    frame = long_frame((3, 3)).iloc[::-1]
    assert list(read_panel(frame, Columns(), "h").ids) == ["s1", "s0"]


def test_whole_numbers_as_time():
    frame = pd.DataFrame({"ds": [10, 20, 40], "y": [1.0, 2.0, 4.0]})
    panel = read_panel(frame, Columns(id=None))
    assert panel.freq == 10
    np.testing.assert_array_equal(panel.target, [1, 2, np.nan, 4])
    assert list(future_times(panel.times[-1:], 2, panel.freq)) == [50, 60]


def test_phases_of_series_may_differ():
    """Hourly series at the full hour and at seven past are both on an hourly grid."""
    frame = long_frame((4, 4))
    frame.loc[frame["unique_id"] == "s1", "ds"] += pd.Timedelta("7min")
    assert list(read_panel(frame, Columns(), "h").times) == list(frame["ds"])


def test_wide_frames():
    index = pd.date_range("2024", periods=3, freq="D")
    wide = pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": [4.0, 5.0, 6.0]}, index=index)
    for frame in (wide, wide.rename_axis("ds").reset_index()):
        panel = read_panel(long_from_wide(frame, Columns()), Columns())
        np.testing.assert_array_equal(panel.target, [1, np.nan, 3, 4, 5, 6])
        assert list(panel.ids) == ["a", "b"]


def test_rows_tails_and_rows_ahead():
    panel = read_panel(long_frame((5, 3), price=1.5), Columns(future_covariates=("price",)), "h")
    assert list(panel.until(3).target) == [0, 1] and list(panel.until(3).ids) == ["s0"]
    assert list(panel.tail(2).target) == [3, 4, 11, 12]
    ahead = panel.tail(1).extended(2, np.arange(4.0).reshape(2, 2, 1))
    np.testing.assert_array_equal(ahead.target, [4, np.nan, np.nan, 12, np.nan, np.nan])
    np.testing.assert_array_equal(ahead.future_covariates[:, 0], [1.5, 0, 1, 1.5, 2, 3])
    assert list(ahead.times[:3]) == list(pd.date_range("2024-01-31 04:00", periods=3, freq="h"))


def test_known_covariates_ahead_are_matched_by_series_and_time():
    panel = read_panel(long_frame((5, 3), price=0.0), Columns(future_covariates=("price",)), "h")
    future = pd.DataFrame({"unique_id": ["s1", "s1", "s0", "s0"], "price": [3.0, 4.0, 1.0, 2.0]})
    future["ds"] = pd.to_datetime(["2024-01-31 03:00", "2024-01-31 04:00", "2024-01-31 05:00", "2024-01-31 06:00"])
    np.testing.assert_array_equal(known_ahead(future, panel, 2)[..., 0], [[1, 2], [3, 4]])
    with pytest.raises(DataError, match="future has no row for series s1 at 2024-01-31 04:00:00"):
        known_ahead(future.drop(index=1), panel, 2)
    with pytest.raises(DataError, match="column 'price' is missing at series s0 at 2024-01-31 06:00:00"):
        known_ahead(future.assign(price=[3, 4, 1, np.nan]), panel, 2)
    with pytest.raises(DataError, match="the covariates price are needed over the horizon"):
        known_ahead(None, panel, 2)


def changed(frame: pd.DataFrame, column: str, row: int, value) -> pd.DataFrame:
    frame = frame.copy()
    if isinstance(value, str):
        frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return frame


WRONG = {
    "no column": (lambda f: f.drop(columns="y"), "no column 'y'; it has: unique_id, ds"),
    "empty": (lambda f: f.iloc[:0], "has no rows"),
    "text": (lambda f: changed(f, "y", 6, "high"), (r"column 'y', series s1, ds 2024-01-31 01:00:00 \(row 6\): 'high' "
                                                   r"is not")),
    "infinite": (lambda f: changed(f, "y", 1, np.inf), (r"column 'y', series s0, .*\(row 1\): .*inf.* is not a finite "
                                                       r"number")),
    "no date": (lambda f: changed(f, "ds", 2, "soon"), "column 'ds', row 2: 'soon' is no date"),
    "date missing": (lambda f: changed(f, "ds", 2, pd.NaT), "column 'ds', row 2: NaT is no date"),
    "no name": (lambda f: changed(f, "unique_id", 3, None), "column 'unique_id' is empty in row 3"),
    "twice": (lambda f: pd.concat([f, f.iloc[[6]]]), "series s1 has ds 2024-01-31 01:00:00 twice"),
    "off the grid": (
        lambda f: changed(f, "ds", 6, pd.Timestamp("2024-01-31 01:10")),
        r"series s1: ds 2024-01-31 01:10:00 \(row 6\) is not on the grid of freq 'h'",
    ),
    "far away": (
        lambda f: changed(f, "ds", 4, pd.Timestamp("2124-01-31")),
        "series s0 has 5 rows over 876577 steps of freq 'h'; look for a wrong date",
    ),
    "zone": (lambda f: f.assign(ds=f["ds"].dt.tz_localize("UTC")), "has a time zone"),
    "two columns": (lambda f: pd.concat([f, f[["y"]]], axis=1), "column 'y' stands twice"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_wrong_frames_are_one_line(change, message):
    with pytest.raises(DataError, match=message) as caught:
        read_panel(change(long_frame()), Columns(), "h")
    assert "\n" not in str(caught.value)


def test_wrong_frequencies_and_static_covariates():
    with pytest.raises(DataError, match="freq 'hourly' is no frequency"):
        read_panel(long_frame(), Columns(), "hourly")
    with pytest.raises(DataError, match="freq=3 is for whole numbers"):
        read_panel(long_frame(), Columns(), 3)
    with pytest.raises(DataError, match="no series has two rows"):
        read_panel(long_frame((1, 1)), Columns())
    with pytest.raises(DataError, match=r"static covariate 'kind' changes inside series s1 \(row 7\)"):
        read_panel(long_frame(kind=list("aaaaabbc")), Columns(static_covariates=("kind",)), "h")
    with pytest.raises(DataError, match=r"static covariate 'size' is empty in series s0"):
        read_panel(long_frame(size=[np.nan] * 5 + [1.0] * 3), Columns(static_covariates=("size",)), "h")
    with pytest.raises(DataError, match="column 'y' has two roles"):
        read_panel(long_frame(), Columns(past_covariates=("y",)), "h")


@pytest.mark.parametrize("freq, lost", [("B", 60), ("MS", 5), ("ME", 7), ("QS", 3), ("YE", 4), ("D", 5), ("h", 5)])
def test_a_missing_row_does_not_change_the_step(freq, lost):
    frame = long_frame((120,) if freq == "B" else (30,), freq).drop(index=lost)
    panel = read_panel(frame, Columns())
    assert panel.freq.split("-")[0] == freq
    assert np.isnan(panel.target).sum() == 1 and np.isnan(panel.target[lost])


MISREAD = {
    "day or month first": (
        lambda f: f.assign(ds=f["ds"].dt.strftime("%d/%m/%Y")),
        None,
        "'31/01/2024' is no date; text must be like 2024-01-31",
    ),
    "dates as numbers": (
        lambda f: f.assign(ds=f["ds"].dt.strftime("%Y%m%d").astype(int)),
        None,
        "dates written as whole numbers such as 20240131",
    ),
    "too fine a step": (lambda f: f, "h", r"no two rows are one step of freq 'h' apart, the nearest are 24 steps"),
    "a slip": (lambda f: changed(f, "ds", 0, pd.Timestamp("1970-01-01")), "D", "look for a wrong date"),
}


@pytest.mark.parametrize("change, freq, message", MISREAD.values(), ids=MISREAD)
def test_what_could_be_misread_is_refused(change, freq, message):
    with pytest.raises(DataError, match=message):
        read_panel(change(long_frame((40, 30), "D")), Columns(), freq)


def test_dates_as_iso_text_and_old_aliases():
    frame = long_frame((8, 6), "D")
    panel = read_panel(frame.assign(ds=frame["ds"].dt.strftime("%Y-%m-%d")), Columns(), "D")
    assert list(panel.times) == list(frame["ds"])
    assert read_panel(long_frame((8, 6), "h"), Columns(), "1h").freq == "h"


def test_text_in_a_wide_frame_is_named_by_its_column():
    wide = pd.DataFrame({"a": [1.0, 2.0], "note": ["x", "y"]}, index=pd.date_range("2024", periods=2))
    with pytest.raises(DataError, match=r"column 'note', 2024-01-01 00:00:00 \(row 0\): 'x' is not a number"):
        long_from_wide(wide, Columns())
