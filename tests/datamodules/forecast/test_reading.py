"""Frames and files of series: what is read, what is missing, what is refused."""

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules import DataError, DataWarning, read_file
from titans_seq.datamodules.forecast.calendar import future_times
from titans_seq.datamodules.forecast.panel import Columns, Panel, join_panels, pack_panel, unpack_panel
from titans_seq.datamodules.forecast.reading import read_frame, read_future, read_panel

Read = Callable[..., Panel]


def long_frame(lengths=(5, 3), freq="h", **more) -> pd.DataFrame:
    parts = [
        pd.DataFrame({
            "unique_id": f"s{i}", "ds": pd.date_range("2024-01-31", periods=n, freq=freq), "y": 10.0 * i + np.arange(n),
        })
        for i, n in enumerate(lengths)
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True).assign(**more)


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
    assert panel.freq == 10 and not panel.wide
    np.testing.assert_array_equal(panel.target, [1, 2, np.nan, 4])
    assert list(future_times(panel.times[-1:], 2, panel.freq)) == [50, 60]


def test_phases_of_series_may_differ():
    """Hourly series at the full hour and at seven past are both on an hourly grid."""
    frame = long_frame((4, 4))
    frame.loc[frame["unique_id"] == "s1", "ds"] += pd.Timedelta("7min")
    assert list(read_panel(frame, Columns(), "h").times) == list(frame["ds"])


def test_rows_tails_and_rows_ahead():
    panel = read_panel(long_frame((5, 3), price=1.5), Columns(future_covariates=("price",)), "h")
    assert list(panel.until(3).target) == [0, 1] and list(panel.until(3).ids) == ["s0"]
    assert list(panel.tail(2).target) == [3, 4, 11, 12]
    ahead = panel.tail(1).extend(2, np.arange(4.0).reshape(2, 2, 1))
    np.testing.assert_array_equal(ahead.target, [4, np.nan, np.nan, 12, np.nan, np.nan])
    np.testing.assert_array_equal(ahead.future_covariates[:, 0], [1.5, 0, 1, 1.5, 2, 3])
    assert list(ahead.times[:3]) == list(pd.date_range("2024-01-31 04:00", periods=3, freq="h"))


def test_known_covariates_ahead_are_matched_by_series_and_time():
    panel = read_panel(long_frame((5, 3), price=0.0), Columns(future_covariates=("price",)), "h")
    future = pd.DataFrame({"unique_id": ["s1", "s1", "s0", "s0"], "price": [3.0, 4.0, 1.0, 2.0]})
    future["ds"] = pd.to_datetime(["2024-01-31 03:00", "2024-01-31 04:00", "2024-01-31 05:00", "2024-01-31 06:00"])
    np.testing.assert_array_equal(read_future(future, panel, 2)[..., 0], [[1, 2], [3, 4]])
    with pytest.raises(DataError, match="future has no row for series s1 at 2024-01-31 04:00:00"):
        read_future(future.drop(index=1), panel, 2)
    with pytest.raises(DataError, match="column 'price' is missing at series s0 at 2024-01-31 06:00:00"):
        read_future(future.assign(price=[3, 4, 1, np.nan]), panel, 2)
    with pytest.raises(DataError, match="the covariates price are needed over the horizon"):
        read_future(None, panel, 2)


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
    "no date": (lambda f: changed(f, "ds", 2, "soon"), r"column 'ds' \(row 2\): cannot parse 'soon' as a date"),
    "date missing": (lambda f: changed(f, "ds", 2, pd.NaT), r"column 'ds' \(row 2\) has no date"),
    "no name": (lambda f: changed(f, "unique_id", 3, None), "column 'unique_id' is empty in row 3"),
    "twice": (lambda f: pd.concat([f, f.iloc[[6]]]), r"s1: ds 2024-01-31 01:00:00 is given twice \(rows 6 and 8\)"),
    "off the grid": (
        lambda f: changed(f, "ds", 6, pd.Timestamp("2024-01-31 01:10")),
        r"series s1: ds 2024-01-31 01:10:00 \(row 6\) is not on the grid of freq 'h' from 2024-01-31 00:00:00",
    ),
    "far away": (
        lambda f: changed(f, "ds", 4, pd.Timestamp("2124-01-31")),
        "series s0: 5 rows lie over 876577 steps of freq 'h'; look for a wrong date",
    ),
    "two columns": (lambda f: pd.concat([f, f[["y"]]], axis=1), "duplicate column 'y' in the frame"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_wrong_frames_are_one_line(change, message):
    with pytest.raises(DataError, match=message) as caught:
        read_panel(change(long_frame()), Columns(), "h")
    assert "\n" not in str(caught.value)


MISREAD = {
    "unknown step": (long_frame(), {}, "hourly", "unknown pandas frequency 'hourly'"),
    "a number as step": (long_frame(), {}, 3, "freq=3 is for whole numbers"),
    "no step": (long_frame((1, 1)), {}, None, "no series has two rows"),
    "too fine a step": (long_frame((40, 30), "D"), {}, "h", "no two rows are one step of .* are 24 steps"),
    "a slip": (changed(long_frame((40, 30), "D"), "ds", 0, pd.Timestamp("1970-01-01")), {}, "D",
               "look for a wrong date"),
    "static that changes": (long_frame(kind=list("aaaaabbc")), {"static_covariates": ("kind",)}, "h",
                            r"static covariate 'kind' changes inside series s1 \(row 7\)"),
    "static that is empty": (long_frame(size=[np.nan] * 5 + [1.0] * 3), {"static_covariates": ("size",)}, "h",
                             "static covariate 'size' is empty in series s0"),
    "two roles": (long_frame(), {"past_covariates": ("y",)}, "h", "column 'y' has two roles"),
}  # fmt: skip


@pytest.mark.parametrize("frame, columns, freq, message", MISREAD.values(), ids=MISREAD)
def test_what_could_be_misread_is_refused(frame, columns, freq, message):
    with pytest.raises(DataError, match=message):
        read_panel(frame, Columns(**columns), freq)


def test_old_aliases():
    assert read_panel(long_frame((8, 6), "h"), Columns(), "1h").freq == "h"


# frames and files alike ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["frame", "long frame", "file"])
def read(request, tmp_path) -> Read:
    """Read rows of dates (as they are, or as text of a form) and values."""

    def made(dates, values=None, form=None, **options) -> Panel:
        dates = pd.DatetimeIndex(dates)
        texts = dates if form is None else dates.strftime(form)
        frame = pd.DataFrame({"ds": texts, "v": np.arange(float(len(dates))) if values is None else values})
        if request.param == "file":
            frame.to_csv(tmp_path / "own.csv", index=False)
            return read_file(tmp_path / "own.csv")
        return read_frame(frame, Columns(target="v" if request.param == "long frame" else "y"))

    return made


ROWS = {
    "month starts": ("MS", 14, 5, ["2005-03-01", "2005-04-01"]),
    "business days": ("B", 30, 12, ["2004-02-12", "2004-02-13"]),
    "hours": ("h", 30, 7, ["2004-01-02 06:00", "2004-01-02 07:00"]),
    "weeks": ("W-SUN", 30, 7, ["2004-08-01", "2004-08-08"]),
    "month ends": ("ME", 30, 7, ["2006-07-31", "2006-08-31"]),
    "days": ("D", 30, 7, ["2004-01-31", "2004-02-01"]),
    "quarter ends": ("QE", 30, 7, ["2011-09-30", "2011-12-31"]),
    "years": ("YS", 12, 3, ["2016-01-01", "2017-01-01"]),
}


@pytest.mark.parametrize(("freq", "rows", "lost", "following"), ROWS.values(), ids=ROWS)
def test_a_missing_row_is_masked_and_moves_no_date(read, freq, rows, lost, following):
    dates = pd.date_range("2004", periods=rows, freq=freq)
    panel = read(dates.delete(lost))
    assert list(panel.times) == list(dates)
    assert np.flatnonzero(np.isnan(panel.target)).tolist() == [lost]
    assert list(future_times(panel.times[-1:], 2, panel.freq)) == list(pd.to_datetime(following))


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d-%b-%Y", "%b %d %Y", "%b %Y"])
def test_text_of_dates(read, form):
    dates = pd.date_range("2000", periods=300, freq="MS")
    assert list(read(dates, form=form).times) == list(dates)


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y"])
def test_the_regular_parse_of_dates_wins(read, form):
    dates = pd.date_range("2000", periods=300, freq="MS")
    first = {"d": "day", "m": "month"}[form[1]]
    with pytest.warns(DataWarning, match=f"'01.01.2000' are read as {first}.*, which makes them regular, and not as"):
        assert list(read(dates, form=form).times) == list(dates)


def test_dates_that_can_be_read_in_two_ways_are_refused(read):
    days = pd.date_range("2024-01-02", periods=5)
    message = "'01/02/2024' can be month/day/year or day/month/year; .* give --day-first or --month-first .*day_first="
    with pytest.raises(DataError, match=message):
        read(days, form="%m/%d/%Y")


def test_covariates_ahead_can_be_written_with_the_day_first():
    """Five days of January or the first days of five months, by what is said."""
    columns = Columns(future_covariates=("price",))
    frame = pd.DataFrame({"ds": pd.date_range("2023-10-01", periods=3, freq="MS"), "y": 1.0, "price": 0.0})
    panel = read_frame(frame, columns)
    future = pd.DataFrame({"ds": [f"01/{month:02d}/2024" for month in range(1, 6)], "price": np.arange(5.0)})
    assert read_future(future, panel, 5, day_first=True).ravel().tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="future has two rows for 2024-01-01"):
        read_future(future, panel, 5, day_first=False)


@pytest.mark.parametrize(("day_first", "freq"), [(False, "D"), (True, "MS")])
def test_whether_the_day_comes_first_can_be_said(day_first, freq):
    frame = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=5).strftime("%m/%d/%Y"), "y": range(5)})
    assert read_frame(frame, Columns(), day_first=day_first).freq == freq
    with pytest.warns(DataWarning, match="read as month/day/year"):
        assert read_frame(frame, Columns(), "D").times[-1] == pd.Timestamp("2024-01-05")


@pytest.mark.parametrize("rows", [3, 20])
def test_one_date_per_quarter_is_the_quarter(read, rows):
    days = [f"{1970 + i // 4}-{('01-01', '04-02', '07-02', '10-01')[i % 4]}" for i in range(rows)]
    with pytest.warns(DataWarning, match="has one date per period, .* 1970-04-02 00:00:00 becomes 1970-04-01"):
        panel = read(days)
    assert list(panel.times) == list(pd.date_range("1970", periods=rows, freq="QS"))
    assert list(panel.target) == list(range(rows))


def test_a_row_off_the_grid_is_called_so(read):
    quarters = pd.date_range("2024-01-02 09:00", periods=19, freq="15min").append(
        pd.DatetimeIndex(["2024-01-02 13:46"])
    )
    message = r"2024-01-02 13:46:00 \((row 19|line 21)\) is not on the grid of freq '15min' from 2024-01-02 09:00:00"
    with pytest.raises(DataError, match=message):
        read(quarters)


@pytest.mark.parametrize("year", [1500, 3000])
def test_dates_out_of_reach_do_not_wrap(read, year):
    dates = pd.DatetimeIndex(np.arange(f"{year}-01", f"{year}-07", dtype="datetime64[M]").astype("datetime64[s]"))
    with pytest.raises(DataError, match=rf"\((row 0|line 2)\): '{year}-01-01.*' is not in the years 1678 to 2261"):
        read(dates)


def test_thousands_separators(read):
    dates = pd.date_range("2024", periods=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the file is read with marks between thousands")
        assert list(read(dates, ["1,234.5", "7", "-1,000,000"]).target) == [1234.5, 7, -1e6]
    with pytest.raises(DataError, match="'1,5' is not a number; write decimals with a point"):
        read(dates, ["1,5", "1,234.5", "2"])


def test_the_index_that_pandas_writes_is_no_series(tmp_path):
    frame = pd.DataFrame({"ds": pd.date_range("2024", periods=9), "v": range(9)}).iloc[2:]
    frame.to_csv(tmp_path / "own.csv")
    for read in (read_file, lambda path: read_frame(pd.read_csv(path), Columns())):
        with pytest.warns(DataWarning, match="first column 'Unnamed: 0' counts the rows and is left out"):
            panel = read(tmp_path / "own.csv")
        assert list(panel.ids) == ["v"]
        assert list(panel.times) == list(frame["ds"])


def test_rows_in_any_order(read):
    assert list(read(pd.date_range("2024", periods=5)[[3, 0, 4, 1]]).target[[0, 1, 3, 4]]) == [1, 3, 0, 2]


# shapes of frames ----------------------------------------------------------------------------------------------------

DAYS = pd.date_range("2024", periods=3)
VALUES = {"x": [1.0, np.nan, 3.0], "y": [4.0, 5.0, 6.0], "z": [7.0, 8.0, 9.0]}
LEVELS = pd.MultiIndex.from_product([["a", "b"], DAYS])
# frame, names of the series, whether it is wide
SHAPES = {
    "dates in the index": (pd.DataFrame(VALUES, DAYS), ["x", "y", "z"], True),
    "text in the index": (pd.DataFrame(VALUES, DAYS.strftime("%Y-%m-%d")), ["x", "y", "z"], True),
    "periods in the index": (pd.DataFrame(VALUES, DAYS.to_period()), ["x", "y", "z"], True),
    "dates in a column": (pd.DataFrame({**VALUES, "ds": DAYS}), ["x", "y", "z"], True),
    "names that are numbers": (pd.DataFrame({1: VALUES["x"], 2: VALUES["z"]}, DAYS), [1, 2], True),
    "a series": (pd.Series(VALUES["x"], DAYS, name="x"), ["x"], True),
    "one column": (pd.DataFrame({"y": VALUES["x"]}, DAYS), ["y"], False),
    "ids and dates in the index": (pd.DataFrame({"y": [1, np.nan, 3, 4, 5, 6]}, LEVELS), ["a", "b"], False),
    "a series of ids and dates": (pd.Series([1, np.nan, 3, 4, 5, 6], LEVELS), ["a", "b"], False),
    "dates and ids in the index": (pd.DataFrame({"y": [1, np.nan, 3, 4, 5, 6]}, LEVELS.swaplevel()), ["a", "b"], False),
}  # fmt: skip


@pytest.mark.parametrize(("frame", "ids", "wide"), SHAPES.values(), ids=SHAPES)
def test_every_column_of_a_frame_is_a_series(frame, ids, wide):
    panel = read_frame(frame, Columns())
    assert (list(panel.ids), panel.wide) == (ids, wide)
    assert list(panel.clock[:3]) == list(DAYS)
    assert (panel.times.dtype.kind == "O") == isinstance(frame.index, pd.PeriodIndex)
    np.testing.assert_array_equal(panel.target[:3], [1, np.nan, 3])
    kept = panel.tail(2).extend(1).take(np.array([0])).until(1)
    assert unpack_panel(*pack_panel(kept), Columns()).wide == wide


REFUSED = {
    "another library": ([1, 2], Columns(), "a frame of pandas, polars or Arrow is needed; got builtins.list"),
    "a target among others": (pd.DataFrame(VALUES, DAYS), Columns(target="z"), "beside 'z' .* columns x, y;"),
    "names of series": (pd.DataFrame({"y": 1.0, "store": "a"}, DAYS), Columns(),
                        r"'store', 2024-01-01 00:00:00 \(row 0\): 'a' is not a number; .* give --id-column store "),
    "another id": (pd.DataFrame(VALUES, DAYS), Columns(id="store"), "no column 'store'"),
    "dates as names": (pd.DataFrame({DAYS[0]: 1.0}, DAYS), Columns(), "must hold text or numbers as names of series"),
    "dates elsewhere": (pd.DataFrame({"when": DAYS, "v": 1.0}), Columns(), "by --time-column when .*time_col='when'"),
    "covariates": (pd.DataFrame({"v": 1.0}, DAYS), Columns(past_covariates=("p",)), "covariates need a long frame"),
    "levels": (pd.DataFrame({"y": 1.0}, pd.MultiIndex.from_product([["a"], ["b"], DAYS])), Columns(), "reset_index()"),
    "nothing": (pd.DataFrame(index=DAYS), Columns(), "no column of values"),
}  # fmt: skip


@pytest.mark.parametrize(("frame", "columns", "message"), REFUSED.values(), ids=REFUSED)
def test_frames_that_are_refused_say_what_to_write(frame, columns, message):
    with pytest.raises(DataError, match=message):
        read_frame(frame, columns)


def test_columns_of_a_table_share_their_clock():
    """Whatever is done with it, the table is as the long frame of its rows."""
    wide = pd.DataFrame(np.arange(40.0).reshape(10, 4), pd.date_range("2024", periods=10), list("abcd"))
    long = wide.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")
    one, other = read_frame(wide, Columns()), read_frame(long, Columns())
    assert len(one.clock) == 10 and len(other.clock) == 40
    some = np.array([2, 0])
    for change in (
        lambda p: p.tail(3), lambda p: p.until(9), lambda p: p.until(10), lambda p: p.take(some),
        lambda p: p.extend(2), lambda p: p.rows(np.arange(4), np.full(4, 6)).extend(1),
        lambda p: p.until(3).append(p.tail(3)), lambda p: join_panels([p.take(some), p.take(1 + some)]),
        lambda p: join_panels(list(p.split(20))).tail(2),
        lambda p: unpack_panel(*pack_panel(p.tail(4).take(some)), Columns()),
    ):  # fmt: skip
        mine, theirs = change(one), change(other)
        pd.testing.assert_index_equal(mine.times, theirs.times, check_names=False)
        pd.testing.assert_index_equal(mine.last, theirs.last, check_names=False)
        np.testing.assert_array_equal(mine.target, theirs.target)
        assert list(mine.ids) == list(theirs.ids)


def test_holidays_are_no_missing_rows():
    days = pd.offsets.CustomBusinessDay(holidays=["2024-01-15", "2024-02-02"])
    frame = pd.DataFrame({"v": 1.0}, pd.date_range("2024-01-01", periods=22, freq=days))
    panel = read_frame(frame, Columns(), days)
    assert not np.isnan(panel.target).any()
    again = unpack_panel(*pack_panel(panel.extend(1)), Columns())
    assert list(again.extend(1).times[-2:]) == list(pd.to_datetime(["2024-02-01", "2024-02-05"]))


def test_covariates_ahead_follow_periods():
    """Dates that drift within quarters find the quarters of the panel."""
    days = pd.to_datetime(["1970-01-01", "1970-04-02", "1970-07-02", "1970-10-01", "1971-01-02"])
    frame = pd.DataFrame({"ds": days, "y": 1.0, "price": range(5)})
    with pytest.warns(DataWarning, match="one date per period"):
        panel = read_frame(frame[:3], Columns(future_covariates=("price",)))
    np.testing.assert_array_equal(read_future(frame[3:], panel, 2), [[[3], [4]]])


def late(dates: pd.DatetimeIndex, row: int, days: int) -> pd.DatetimeIndex:
    return pd.DatetimeIndex([*dates[:row], dates[row] + pd.Timedelta(days=days), *dates[row + 1 :]])


@pytest.mark.parametrize(
    ("freq", "days", "follows"),
    [("ME", -2, "2002-07-31"), ("QE", -5, "2007-09-30"), ("YE", -5, "2030-12-31"), ("YS", 31, "2030-01-01")],
)
def test_one_date_early_or_late_moves_no_other(read, freq, days, follows):
    dates = pd.date_range("2000", periods=30, freq=freq)
    with pytest.warns(DataWarning, match="one date per period") as caught:
        panel = read(late(dates, 9, days))
    assert f"{dates[9] + pd.Timedelta(days=days)} becomes {dates[9]}" in str(caught[0].message)
    assert panel.extend(1).times[-1] == pd.Timestamp(follows) and panel.times[9] == dates[9]


def test_a_saturday_among_business_days_is_a_mistake(read):
    dates = [*pd.date_range("2020-01-01", periods=99, freq="B"), pd.Timestamp("2020-05-23")]
    with pytest.raises(DataError, match="2020-05-23 .* is not on the grid of freq 'B'"):
        read(dates)


def test_numbered_rows_in_every_shape():
    values = np.arange(20.0)
    for frame in (
        pd.Series(values),
        pd.Series(values, name="y"),
        pd.DataFrame({"y": values}),
        pd.DataFrame({"v": values}),
    ):
        panel = read_frame(frame, Columns())
        assert panel.wide and panel.freq == 1 and panel.target.tolist() == values.tolist()
    numbered = pd.DataFrame({"ds": np.arange(20.0), "y": values})
    assert read_frame(numbered, Columns()).times.tolist() == list(range(20))


def test_a_series_with_dates_is_one_column():
    for name in (None, "y", "sales"):
        panel = read_frame(pd.Series(np.arange(9.0), pd.date_range("2024", periods=9), name=name), Columns())
        assert panel.wide and panel.ids.tolist() == [name or "y"]


def test_an_index_of_which_rows_were_dropped_is_no_series(tmp_path):
    frame = pd.DataFrame({"date": pd.date_range("2024", periods=30), "v": np.sin(np.arange(30))})
    frame.drop(index=[3, 17]).to_csv(tmp_path / "own.csv")
    with pytest.warns(DataWarning, match="counts the rows and is left out"):
        assert read_file(tmp_path / "own.csv").ids.tolist() == ["v"]
