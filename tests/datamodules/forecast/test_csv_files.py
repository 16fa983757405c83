"""A user's CSV: what is read, and one line for each thing that may be wrong with it."""

import gzip
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules import DataError, DataWarning, read_user_csv
from titans_seq.datamodules.forecast import csv_files
from titans_seq.datamodules.forecast.csv_files import csv_shape

Write = Callable[..., Path]


def _table(*rows: str, header: str = "date,a,b") -> str:
    return "\n".join([header, *rows, ""])


GOOD = _table("2024-01-01,1,2", "2024-01-02,3,4.5", "2024-01-03,-1e3,0")


def test_reads_values_columns_dates_and_step(write_csv: Write) -> None:
    series = read_user_csv(write_csv(GOOD))
    assert (series.name, series.columns, series.freq, series.stride, series.origin) == ("own", ("a", "b"), "D", 1, 0)
    assert series.values.dtype == np.float64
    np.testing.assert_array_equal(series.values, [[1, 2], [3, 4.5], [-1000, 0]])
    assert list(series.dates) == list(pd.date_range("2024-01-01", periods=3))


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_blocks_do_not_change_what_is_read(write_csv: Write, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    path = write_csv(rows=23)
    monkeypatch.setattr(csv_files, "_BLOCK_VALUES", block)
    series = read_user_csv(path)
    whole = pd.read_csv(path, parse_dates=["date"])
    np.testing.assert_array_equal(series.values, whole[["c0", "c1", "c2"]].to_numpy())
    assert list(series.dates) == list(whole["date"])


def test_gz_bom_crlf_and_blank_lines_read_alike(write_csv: Write, tmp_path: Path) -> None:
    expected = read_user_csv(write_csv(GOOD)).values
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(("\ufeff" + GOOD.replace("\n", "\r\n") + "\r\n,,\r\n").encode()))
    series = read_user_csv(packed)
    assert (series.name, series.columns) == ("packed", ("a", "b"))
    np.testing.assert_array_equal(series.values, expected)
    for ends in ("\n\n", "\r"):
        np.testing.assert_array_equal(read_user_csv(write_csv(GOOD.replace("\n", ends))).values, expected)


@pytest.mark.parametrize("name", ["date", "Timestamp", "DATETIME", "ds", " time"])
def test_date_column_may_stand_anywhere_under_any_of_its_names(write_csv: Write, name: str) -> None:
    series = read_user_csv(write_csv(_table("1,2024-01-01,2", "3,2024-01-02,4", header=f"a,{name},b")))
    assert series.columns == ("a", "b")
    assert list(series.dates) == list(pd.date_range("2024-01-01", periods=2))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2024-01-12 23:00", "2024-01-13 00:00"),
        ("2024-01-12T23:00:00", "2024-01-13T00:00:00"),
        ("2024/1/12 23:00", "2024/1/13 0:00"),
        ("01/12/2024 23:00", "01/13/2024 00:00"),
        ("12/01/2024 23:00", "13/01/2024 00:00"),
        ("12.01.2024 23:00:00", "13.01.2024 00:00:00"),
        ("2024-01-13T00:00:00+01:00", "2024-01-13T01:00:00+01:00"),
        ("2024-01-12 23:00:00Z", "2024-01-13 00:00:00Z"),
    ],
)
def test_date_formats(write_csv: Write, first: str, second: str) -> None:
    series = read_user_csv(write_csv(_table(f"{first},1,2", f"{second},3,4")))
    assert [str(date.tz_localize(None)) for date in series.dates] == ["2024-01-12 23:00:00", "2024-01-13 00:00:00"]


def test_clock_change_is_ordered_by_its_offsets(write_csv: Write) -> None:
    rows = [f"2024-10-27T{clock},1,2" for clock in ("01:00:00+02:00", "02:00:00+02:00", "02:00:00+01:00")]
    assert read_user_csv(write_csv(_table(*rows))).freq == "h"


GAPS = _table("2024-01-01,1,5", "2024-01-02,,6", "2024-01-03,NA,", "2024-01-04,7,8")


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("ffill", [[1, 5], [1, 6], [1, 6], [7, 8]]),
        ("zero", [[1, 5], [0, 6], [0, 0], [7, 8]]),
        ("linear", [[1, 5], [3, 6], [5, 7], [7, 8]]),
    ],
)
def test_fill(write_csv: Write, fill: str, expected: list[list[float]]) -> None:
    np.testing.assert_array_equal(read_user_csv(write_csv(GAPS), fill).values, expected)


@pytest.mark.parametrize(("fill", "causal"), [("ffill", True), ("zero", True), ("linear", False)])
def test_causal_fills_ignore_the_future(write_csv: Write, fill: str, causal: bool) -> None:
    before = read_user_csv(write_csv(GAPS), fill).values[:3]
    after = read_user_csv(write_csv(GAPS.replace("7,8", "700,800")), fill).values[:3]
    assert np.array_equal(before, after) is causal
    assert csv_files.FILLS[fill].startswith("causal") is causal


def test_fill_leaves_complete_data_alone(write_csv: Write) -> None:
    np.testing.assert_array_equal(read_user_csv(write_csv(GOOD), "ffill").values, read_user_csv(write_csv(GOOD)).values)


BAD = {
    "empty": ("", "is empty"),
    "header only": ("date,a,b\n", "has a header but no rows"),
    "no dates": (_table("1,2", header="a,b"), r"no column of dates: call it one of date, .*\(found: a, b\)$"),
    "semicolons": (_table("2024-01-01;1", header="date;a"), "separated by commas"),
    "no column": (_table("2024-01-01", header="date"), "no numeric column"),
    "no numeric column": (_table("2024-01-01,x,y", "2024-01-02,x,y"), "no numeric column"),
    "text": (_table("2024-01-01,1,2", "2024-01-02,3,high"), "column 'b' holds text, 'high', in line 3"),
    "text after a blank line": (_table("2024-01-01,1,2", "", "2024-01-02,x,3"), "column 'a' .* in line 4"),
    "decimal comma": (_table('2024-01-01,"1,5",2', "2024-01-02,2,3"), "column 'a' holds text, '1,5', in line 2"),
    "missing": (
        _table("2024-01-01,1,2", "2024-01-02,,3"),
        r"column 'a' in line 3 \(2024-01-02\) has no value; .*--fill",
    ),
    "several missing": (_table("2024-01-01,1,2", "2024-01-02,,", "2024-01-03,,3"), r"\(2024-01-02\) and 1 more"),
    "short row": (_table("2024-01-01,1,2", "2024-01-02,1"), r"column 'b' in line 3 .* has no value"),
    "infinite": (_table("2024-01-01,1,2", "2024-01-02,1,-inf"), r"column 'b' in line 3 \(2024-01-02\) is infinite"),
    "not a date": (_table("2024-01-01,1,2", "soon,3,4"), r"no date in line 3 \(soon\)"),
    "no date in a row": (_table("2024-01-01,1,2", ",3,4"), "no date in line 3"),
    "epoch seconds": (_table("1704067200,1,2"), r"no date in line 2 \(1704067200\)"),
    "zone in one row": (_table("2024-01-01 00:00,1,2", "2024-01-02 00:00Z,3,4"), "line 3 .*time zone or none"),
    "no zone in one row": (_table("2024-01-01 00:00Z,1,2", "2024-01-02 00:00,3,4"), "line 3 .*time zone or none"),
    "impossible day": (_table("2024-01-01,1,2", "2024-02-30,3,4"), r"no date in line 3 \(2024-02-30\)"),
    "unsorted": (_table("2024-01-02,1,2", "2024-01-01,3,4"), "in line 3 is earlier than the one before .*; sort"),
    "duplicate": (_table("2024-01-01,1,2", "2024-01-01,3,4"), "in line 3 repeats the one before .*; remove or merge"),
    "long row": (_table("2024-01-01,1,2", "2024-01-02,1,2,3"), "not a table: Expected 3 fields in line 3, saw 4"),
    "all rows long": (_table("2024-01-01,1,2,3", "2024-01-02,1,2,3"), "more fields than its header"),
}


@pytest.mark.parametrize("fault", BAD)
def test_each_fault_is_one_line_that_says_what_and_where(write_csv: Write, fault: str) -> None:
    text, message = BAD[fault]
    path = write_csv(text)
    with pytest.raises(DataError, match=message) as caught:
        read_user_csv(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_names_the_causal_fills(write_csv: Write) -> None:
    with pytest.raises(DataError, match=r"--fill ffill or zero \(both use the past only\) or linear \(looks ahead\)"):
        read_user_csv(write_csv(GAPS))


def test_a_gap_at_the_start_has_no_past_to_fill_from(write_csv: Write) -> None:
    path = write_csv(_table("2024-01-01,,2", "2024-01-02,1,3"))
    with pytest.raises(DataError, match="column 'a' in line 2 .* no value before it .*--fill zero"):
        read_user_csv(path, "ffill")
    assert read_user_csv(path, "zero").values[0, 0] == 0


def test_unknown_fill_names_the_known(write_csv: Write) -> None:
    with pytest.raises(DataError, match="unknown fill 'mean'; choose one of ffill, zero, linear"):
        read_user_csv(write_csv(GOOD), "mean")


def test_file_faults(tmp_path: Path, write_csv: Write) -> None:
    with pytest.raises(DataError, match="no CSV file .*absent.csv"):
        read_user_csv(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="is a folder; give a file"):
        read_user_csv(tmp_path)
    latin = tmp_path / "latin.csv"
    latin.write_bytes(_table("2024-01-01,1,2", header="date,temp °,b").encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_user_csv(latin)
    damaged = tmp_path / "cut.csv.gz"
    damaged.write_bytes(gzip.compress(write_csv(rows=500).read_bytes())[:2000])
    with pytest.raises(DataError, match="damaged gzip"):
        read_user_csv(damaged)


def test_shape_counts_rows_not_line_ends(write_csv: Write) -> None:
    assert csv_shape(write_csv(GOOD)) == (3, 2)
    assert csv_shape(write_csv(GOOD.rstrip("\n"))) == (3, 2)
    assert csv_shape(write_csv(GOOD + "\n\n")) == (3, 2)
    assert csv_shape(write_csv("")) == (0, 0)


def test_a_jump_in_the_dates_is_said(write_csv: Write) -> None:
    rows = [f"2024-01-{day:02d},1,2" for day in (1, 2, 3, 7, 8, 10)]
    message = (
        r"2 of 5 steps between dates are not D, the first after line 4 \(2024-01-03 .* to 2024-01-07 .*\); "
        r"windows run across"
    )
    with pytest.warns(DataWarning, match=message):
        assert len(read_user_csv(write_csv(_table(*rows))).values) == 6
    months = [
        f"2024-{month:02d}-01,1,2" for month in (1, 2, 3, 4)
    ]  # of different lengths, but one step of the calendar
    read_user_csv(write_csv(_table(*months)))


def test_two_columns_of_one_name_are_refused(write_csv: Write) -> None:
    with pytest.raises(DataError, match="column 'a' stands twice in the header"):
        read_user_csv(write_csv(_table("2024-01-01,1,2", "2024-01-02,1,2", header="date,a,a")))


def test_mixed_line_endings(tmp_path: Path) -> None:
    ends = ("\n", "\r", "\r\n", "\n", "\r")
    rows = "".join(f"2024-01-{day:02d},{day}{ends[day % 5]}" for day in range(1, 29))
    path = tmp_path / "mixed.csv"
    path.write_bytes(f"date,a\r\n{rows}".encode())
    assert read_user_csv(path).values[:, 0].tolist() == list(range(1, 29))
    path.write_bytes(f"date,a\r\n{rows}2024-02-01,x\r".encode())
    with pytest.raises(DataError, match="in line 30"):
        read_user_csv(path)


def test_ten_thousand_columns(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = ",".join(f"c{i}" for i in range(10_000))
    row = ",".join(["0.5"] * 10_000)
    path.write_text(f"date,{names}\n" + "".join(f"2024-01-{day:02d},{row}\n" for day in range(1, 29)))
    start = time.process_time()
    assert read_user_csv(path).values.shape == (28, 10_000)
    assert time.process_time() - start < 10


def test_an_error_does_not_repeat_a_huge_cell(tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    path.write_text(f"date,a\n2024-01-01,1\n2024-01-02,{'x' * 10**6}\n")
    with pytest.raises(DataError, match="in line 3; correct it or drop the column") as caught:
        read_user_csv(path)
    assert len(str(caught.value)) <= 1003
