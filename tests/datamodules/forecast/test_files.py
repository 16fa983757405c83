"""A user's file: what is read, and one line for each thing that may be wrong with it."""

import gzip
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules import DataError, DataWarning, Panel, read_file
from titans_seq.datamodules.forecast.files import Names, read_future_file
from titans_seq.datamodules.forecast.reading import read_future
from titans_seq.datamodules.forecast.text_tables import FileForm

Write = Callable[..., Path]


def _table(*rows: str, header: str = "date,a,b") -> str:
    return "\n".join([header, *rows, ""])


def _values(panel: Panel) -> np.ndarray:
    return panel.target.reshape(len(panel), -1).T


GOOD = _table("2024-01-01,1,2", "2024-01-02,3,4.5", "2024-01-03,-1e3,0")


def test_reads_values_columns_dates_and_step(write_csv: Write) -> None:
    panel = read_file(write_csv(GOOD))
    assert (list(panel.ids), panel.columns.time, panel.freq, panel.wide) == (["a", "b"], "date", "D", True)
    assert panel.target.dtype == np.float64
    np.testing.assert_array_equal(_values(panel), [[1, 2], [3, 4.5], [-1000, 0]])
    assert list(panel.times) == 2 * list(pd.date_range("2024-01-01", periods=3))


def test_gz_bom_crlf_and_blank_lines_read_alike(write_csv: Write, tmp_path: Path) -> None:
    expected = read_file(write_csv(GOOD)).target
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(("\ufeff" + GOOD.replace("\n", "\r\n") + "\r\n,,\r\n").encode()))
    panel = read_file(packed)
    assert list(panel.ids) == ["a", "b"]
    np.testing.assert_array_equal(panel.target, expected)
    for ends in ("\n\n", "\r"):
        np.testing.assert_array_equal(read_file(write_csv(GOOD.replace("\n", ends))).target, expected)


@pytest.mark.parametrize("name", ["date", "Timestamp", "DATETIME", "ds", " time", "Month", "utc", ""])
def test_date_column_may_stand_anywhere_under_any_name(write_csv: Write, name: str) -> None:
    panel = read_file(write_csv(_table("1,2024-01-01,2", "3,2024-01-02,4", header=f"a,{name},b")))
    assert (list(panel.ids), panel.columns.time) == (["a", "b"], name or "date")
    assert list(panel.times[:2]) == list(pd.date_range("2024-01-01", periods=2))


def test_years_are_dates_where_the_column_is_called_so(write_csv: Write) -> None:
    panel = read_file(write_csv(_table("1700,1,2", "1701,3,4", "1703,5,6", header="Year,a,b")))
    assert (panel.freq, panel.times[3], np.isnan(panel.target).sum()) == ("YS", pd.Timestamp("1703"), 2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2024-01-12 23:00", "2024-01-13 00:00"),
        ("2024-01-12T23:00:00", "2024-01-13T00:00:00"),
        ("2024/1/12 23:00", "2024/1/13 0:00"),
        ("01/12/2024 23:00", "01/13/2024 00:00"),
        ("12/01/2024 23:00", "13/01/2024 00:00"),
        ("12.01.2024 23:00:00", "13.01.2024 00:00:00"),
        ("2024-01-12T23:00:00+00:00", "2024-01-13T00:00:00+00:00"),
        ("2024-01-12 23:00:00Z", "2024-01-13 00:00:00Z"),
        ("1/12/2024 11:00 PM", "1/13/2024 12:00 AM"),
        ("Jan 12 2024 23:00", "Jan 13 2024 00:00"),
    ],
)
def test_date_formats(write_csv: Write, first: str, second: str) -> None:
    panel = read_file(write_csv(_table(f"{first},1,2", f"{second},3,4")))
    assert list(panel.times[:2].strftime("%Y-%m-%d %X")) == ["2024-01-12 23:00:00", "2024-01-13 00:00:00"]
    assert str(panel.times.tz) == ("UTC" if first.endswith(("Z", "+00:00")) else "None")


def test_clock_change_is_ordered_by_its_offsets(write_csv: Write) -> None:
    rows = [f"2024-10-27T{clock},1,2" for clock in ("01:00:00+02:00", "02:00:00+02:00", "02:00:00+01:00")]
    with pytest.warns(DataWarning, match="column 'date' has offsets that change; its times are read as UTC"):
        panel = read_file(write_csv(_table(*rows)))
    assert list(panel.times[:3]) == list(pd.date_range("2024-10-26 23:00", periods=3, freq="h", tz="UTC"))


def test_offsets_of_one_zone_are_kept_and_days_are_local(write_csv: Write) -> None:
    panel = read_file(write_csv(_table("2024-01-01 00:00+05:30,1,2", "2024-01-02 00:00+0530,3,4")))
    assert list(panel.extend(1).times[1:3].astype(str)) == ["2024-01-02 00:00:00+05:30", "2024-01-03 00:00:00+05:30"]
    rows = ("2024-03-30T00:00+01:00,1,2", "2024-03-31T00:00+01:00,1,2", "2024-04-01T00:00+02:00,1,2")
    with pytest.warns(DataWarning, match="offsets that change; its times are read as local days"):
        assert list(read_file(write_csv(_table(*rows))).times[:3]) == list(pd.date_range("2024-03-30", periods=3))


def test_empty_cells_and_missing_rows_are_missing(write_csv: Write) -> None:
    panel = read_file(write_csv(_table("2024-01-01,1,5", "2024-01-02,,6", "2024-01-05,NA,", "2024-01-04,7,8")))
    nan = np.nan
    np.testing.assert_array_equal(_values(panel), [[1, 5], [nan, 6], [nan, nan], [7, 8], [nan, nan]])


BAD = {
    "empty": ("", "is empty"),
    "header only": ("date,a,b\n", "has a header but no rows"),
    "no dates": (
        _table("1,2", header="a,b"),
        r"no column holds dates .* numbers them \(found: a, b\); give --time-column COLUMN",
    ),
    "no column": (_table("2024-01-01", header="date"), "no numeric column"),
    "no header": (_table("2024-01-02,3", header="2024-01-01,1"), "has no header: its first line is 2024-01-01, 1; put"),
    "no numeric column": (_table("2024-01-01,x,y", "2024-01-02,x,y"), "no numeric column"),
    "text": (
        _table("2024-01-01,1,2", "2024-01-02,3,high"),
        r"column 'b', 2024-01-02 00:00:00 \(line 3\): 'high' is not a number; correct it, or leave the column out",
    ),
    "text after a blank line": (_table("2024-01-01,1,2", "", "2024-01-02,x,3"), r"column 'a', .*\(line 4\)"),
    "two decimal marks": (
        _table('2024-01-01,"1,5",2', '2024-01-02,"1,234.5",3'),
        r"column 'a', .*\(line 2\): '1,5' is not a number; write decimals with a point, or give --decimal ,",
    ),
    "infinite": (
        _table("2024-01-01,1,2", "2024-01-02,1,-inf"),
        r"\(line 3\): -inf is not a finite number",
    ),
    "not a date": (_table("2024-01-01,1,2", "soon,3,4"), r"column 'date' \(line 3\): cannot parse 'soon' as a date"),
    "no date in a row": (_table("2024-01-01,1,2", ",3,4"), r"column 'date' \(line 3\) has no date"),
    "zone in one row": (_table("2024-01-01 00:00,1,2", "2024-01-02 00:00Z,3,4"), "line 3.*time zone or none"),
    "no zone in one row": (_table("2024-01-01 00:00Z,1,2", "2024-01-02 00:00,3,4"), "line 3.*time zone or none"),
    "impossible day": (_table("2024-01-01,1,2", "2024-02-30,3,4"), r"\(line 3\): cannot parse '2024-02-30' as a date"),
    "duplicate": (
        _table("2024-01-01,1,2", "2024-01-01,3,4"),
        r"date 2024-01-01 00:00:00 is given twice \(lines 2 and 3\); remove or",
    ),
    "long table": (
        _table("2024-01-01,a,2", "2024-01-01,b,3", header="date,shop,v"),
        r"dates in 'date' repeat, .* long: name .* series by --id-column shop \(id_col='shop' in Python\)",
    ),
    "long table of numbers": (
        _table("2024-01-01,1,2", "2024-01-01,2,3", header="date,shop,v"),
        r"twice \(lines 2 and 3\); .* of a long table name the column of series by --id-column COLUMN \(id_col=",
    ),
    "only empty": (_table("2024-01-01,,", "2024-01-02,,"), "no numeric column: every cell beside 'date' is empty"),
    "one row": (_table("2024-01-01,1,2"), "the step of 'date' is unknown"),
    "long row": (_table("2024-01-01,1,2", "2024-01-02,1,2,3"), "not a table: Expected 3 fields in line 3, saw 4"),
    "two columns of one name": (_table("2024-01-01,1,2", header="date,a,a"), "duplicate column 'a' in the header"),
    "all rows long": (_table("2024-01-01,1,2,3", "2024-01-02,1,2,3"), "more fields than its header"),
}


@pytest.mark.parametrize("fault", BAD)
def test_each_fault_is_one_line_that_says_what_and_where(write_csv: Write, fault: str) -> None:
    text, message = BAD[fault]
    path = write_csv(text)
    with pytest.raises(DataError, match=message) as caught:
        read_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mixed_line_endings(tmp_path: Path) -> None:
    ends = ("\n", "\r", "\r\n", "\n", "\r")
    rows = "".join(f"2024-01-{day:02d},{day}{ends[day % 5]}" for day in range(1, 29))
    path = tmp_path / "mixed.csv"
    path.write_bytes(f"date,a\r\n{rows}".encode())
    assert read_file(path).target.tolist() == list(range(1, 29))
    path.write_bytes(f"date,a\r\n{rows}2024-02-01,x\r".encode())
    with pytest.raises(DataError, match=r"\(line 30\)"):
        read_file(path)


def test_ten_thousand_columns(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = ",".join(f"c{i}" for i in range(10_000))
    row = ",".join(["0.5"] * 10_000)
    path.write_text(f"date,{names}\n" + "".join(f"2024-01-{day:02d},{row}\n" for day in range(1, 29)))
    start = time.process_time()
    assert read_file(path).target.shape == (280_000,)
    assert time.process_time() - start < 10


def test_an_error_does_not_repeat_a_huge_cell(tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    path.write_text(f"date,a\n2024-01-01,1\n2024-01-02,{'x' * 10**6}\n")
    with pytest.raises(DataError, match="correct it, or leave the column out") as caught:
        read_file(path)
    assert len(str(caught.value)) <= 1003


@pytest.mark.parametrize("names", [("7", "10"), ("07", "10"), ("a", "b")], ids=str)
def test_a_file_of_covariates_ahead(tmp_path, names):
    """Series are called as in the file of the rows, also by numbers and by numbers with zeros before them."""
    times = pd.date_range("2024-01-01", periods=8)
    rows = [pd.DataFrame({"shop": name, "day": times, "y": 1.0, "price": np.arange(8.0) + 10 * i})
            for i, name in enumerate(names)]  # fmt: skip
    whole = pd.concat(rows)
    whole[whole["day"] < times[5]].to_csv(tmp_path / "rows.csv", index=False)
    whole[whole["day"] >= times[5]].drop(columns="y").to_csv(tmp_path / "ahead.csv", index=False, sep=";")
    columns = Names(id="shop", future_covariates=("price",))
    panel = read_file(tmp_path / "rows.csv", replace(columns, target=("y",)))
    future = read_future_file(tmp_path / "ahead.csv", columns)
    assert set(future["shop"]) == set(names)
    assert read_future(future, panel, 3)[..., 0].tolist() == [[5, 6, 7], [15, 16, 17]]


def test_time_ahead_is_found_as_that_of_the_rows(tmp_path):
    years = pd.DataFrame({"year": range(2000, 2030), "y": 1.0, "price": np.arange(30.0)})
    years[:25].to_csv(tmp_path / "rows.csv", index=False)
    years[25:].to_csv(tmp_path / "ahead.csv", index=False)
    names = Names(target=("y",), future_covariates=("price",))
    panel = read_file(tmp_path / "rows.csv", names)
    assert read_future(read_future_file(tmp_path / "ahead.csv", names), panel, 5).ravel().tolist() == [*range(25, 30)]
    with pytest.raises(DataError, match="ahead.csv: the file has no column 'cost'; it has: year, y, price"):
        read_future_file(tmp_path / "ahead.csv", Names(future_covariates=("cost",)))


@pytest.mark.parametrize(
    "form, step", [("%Y %b", "MS"), ("%Y-%b", "MS"), ("%b-%y", "MS"), ("%b-%d-%Y", "MS"), ("%B %Y", "MS")]
)
def test_months_as_people_write_them(write_csv: Write, form: str, step: str) -> None:
    months = pd.date_range("1991-07", periods=20, freq="MS")
    panel = read_file(write_csv(_table(*(f"{day.strftime(form)},{i}" for i, day in enumerate(months)), header="d,y")))
    assert panel.freq == step and list(panel.times) == list(months)


@pytest.mark.parametrize("months, step", [(1, "MS"), (3, "QS"), (6, "2QS")])
def test_years_in_decimals_are_months(write_csv: Write, months: int, step: str) -> None:
    """As R writes them, with three decimals."""
    rows = [f"{i + 1},{round(1949 + i * months / 12, 3):g},{i}" for i in range(30)]
    with pytest.warns(DataWarning, match="column 'time' is read as months of years in decimals"):
        panel = read_file(write_csv(_table(*rows, header='"",time,y')), Names(target=("y",)))
    assert list(panel.times) == list(pd.date_range("1949-01", periods=30, freq=pd.DateOffset(months=months)))
    assert panel.freq == step


def test_one_cell_that_is_no_date_is_named(write_csv: Write) -> None:
    path = write_csv(_table(*(f"2024-01-{i:02d},1" for i in range(1, 20)), "Total,19", header="when,y"))
    with pytest.raises(DataError, match="column 'when' holds dates but for 'Total'; correct it, or leave its row out"):
        read_file(path)


@pytest.mark.parametrize("name, epoch", [("funds", False), ("odds", False), ("event_time", True), ("unixtime", True)])
def test_seconds_since_1970_are_told_by_whole_words(write_csv: Write, name: str, epoch: bool) -> None:
    path = write_csv(_table(*(f"{500_000_000 + 60 * i},{i}" for i in range(20)), header=f"{name},y"))
    if epoch:
        with pytest.warns(DataWarning, match="seconds since 1970"):
            assert read_file(path).columns.time == name
    else:
        with pytest.raises(DataError, match="no column holds dates in every row"):
            read_file(path)


def test_points_between_thousands(write_csv: Write) -> None:
    """15.403 and 924: fifteen thousand, or fifteen, and nothing else tells."""
    header = "date;rev"
    days, values = pd.date_range("2024-01-01", periods=12).strftime("%Y-%m-%d"), [15_403, 924, *range(1000, 1010)]
    german = _table(
        *(f"{day};{value:,}".replace(",", ".") for day, value in zip(days, values, strict=True)), header=header
    )
    with pytest.raises(
        DataError, match=r"'15.403' may have decimals or thousands; give --decimal \. .* --thousands \."
    ):
        read_file(write_csv(german))
    with pytest.warns(DataWarning):
        np.testing.assert_array_equal(read_file(write_csv(german), form=FileForm(thousands=".")).target, values)
    assert read_file(write_csv(german), form=FileForm(decimal=".")).target[:2].tolist() == [15.403, 924]
    fixed = _table(
        *(f"{day};{value / 1000:.3f}" for day, value in zip(days, range(1000, 1012), strict=True)), header=header
    )
    with pytest.warns(DataWarning, match="read with points before decimals; if that is wrong give --thousands"):
        assert read_file(write_csv(fixed)).target[3] == 1.003
    plain = _table(*(f"{day};{value}" for day, value in zip(days, np.arange(12) / 7, strict=True)), header=header)
    assert read_file(write_csv(plain)).target[7] == 1
    with pytest.raises(
        DataError, match="'2.000.000' is not a number; if points are between thousands give --thousands"
    ):
        read_file(write_csv(_table(*(f"{day},2.000.000" for day in days), header="date,rev")), Names(target=("rev",)))
