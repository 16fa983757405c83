"""`data describe`: what is printed of files of several kinds, what is refused after the columns, and the flags."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from titans_seq.cli.main import main

Printed = pytest.CaptureFixture[str]


def _cells(out: str) -> dict[str, list[str]]:
    """The rows of all tables by their first cell; of several the first."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in reversed(rows)}


@pytest.fixture
def days() -> pd.DataFrame:
    """800 days that repeat every week, 30 of them not there."""
    t = np.arange(800)
    date = pd.date_range("2023-01-01", periods=800, freq="D")
    values = 100 + 10 * np.sin(t * 2 * np.pi / 7) + np.random.default_rng(0).normal(0, 2, 800)
    return pd.DataFrame({"date": date, "sales": values, "visits": t % 50}).drop(index=range(100, 130))


def test_a_wide_file(days: pd.DataFrame, workdir: Path, capsys: Printed) -> None:
    days.to_csv("days.csv", index=False)
    assert main(["data", "describe", "days.csv", "--lookback", "32", "--horizon", "16"]) == 0
    out = capsys.readouterr().out
    rows = _cells(out)
    assert (rows["separator"], rows["decimal"], rows["encoding"]) == (["comma"], ["."], ["utf-8"])
    assert rows["date"][:3] == ["time", "dates", "0.0%"] and rows["visits"] == [
        "series",
        "whole numbers",
        "0.0%",
        "0",
        "49",
    ]
    assert (
        rows["step"] == ["freq 'D'"] and rows["rows on the grid"] == ["800"] and rows["rows not in the file"] == ["30"]
    )
    assert rows["count"] == ["2"] and rows["missing values"] == ["3.75%"]
    assert rows["train"] == ["2023-01-01 00:00:00", "2024-07-13 00:00:00", "560", "513"]  # 560 - 48 + 1
    assert rows["val"] == ["2024-07-14 00:00:00", "2024-10-01 00:00:00", "80", "65"]
    assert rows["test"] == ["2024-10-02 00:00:00", "2025-03-10 00:00:00", "160", "145"]
    assert rows["7"][0] == "week" and rows["365"][0] == "year" and "too few" not in out
    assert Path("days-described.png").read_bytes().startswith(b"\x89PNG")


def test_a_german_file_with_a_column_of_text(days: pd.DataFrame, workdir: Path, capsys: Printed) -> None:
    german = pd.DataFrame({
        "Datum": days["date"].dt.strftime("%d.%m.%Y"),
        "Umsatz": [f"{value:.2f}".replace(".", ",") for value in days["sales"]],
        "Ort": "Köln",
    })  # fmt: skip
    german.to_csv("german.csv", sep=";", encoding="cp1252", index=False)
    form = ["--separator", ";", "--decimal", ",", "--encoding", "cp1252", "--day-first"]
    assert main(["data", "describe", "german.csv", *form, "--output", "out/picture.png"]) == 0
    out = capsys.readouterr().out
    rows = _cells(out)
    assert (rows["separator"], rows["decimal"], rows["encoding"]) == (["semicolon"], ["comma"], ["cp1252"])
    assert rows["Ort"] == ["not read", "text, 1 different", "0.0%", "Köln", "Köln"] and rows["count"] == ["1"]
    assert "note: Ort: no numbers, and left out here; a fit needs --target Umsatz to leave them out" in out
    assert "it must have at least 951 rows" in out
    assert Path("out/picture.png").is_file()


def test_a_long_file(days: pd.DataFrame, workdir: Path, capsys: Printed) -> None:
    parts = [days[:600].assign(shop="a", sales=days["sales"] * 2), days.assign(shop="b")]
    pd.concat(parts).to_csv("long.csv", index=False, sep="\t")
    words = ["--id-column", "shop", "--target", "sales", "--future-covariates", "visits", "--horizon", "24"]
    assert main(["data", "describe", "long.csv", *words, "--separator", "tab"]) == 0
    out = capsys.readouterr().out
    rows = _cells(out)
    roles = {name: rows[name][0] for name in ("shop", "date", "sales", "visits")}
    assert roles == {"shop": "names of series", "date": "time", "sales": "target", "visits": "future covariate"}
    assert rows["count"] == ["2"] and rows["rows"] == ["1370"] and "600 to 800" not in rows["rows"]
    assert rows["a"][:1] == ["630"] and rows["b"][:1] == ["800"] and rows["b"][3:5] == ["1", "30"]
    assert rows["future covariates"] == ["visits"] and "of the longest series" in out


def test_excel_and_parquet(days: pd.DataFrame, workdir: Path, capsys: Printed) -> None:
    with pd.ExcelWriter("book.xlsx") as book:
        pd.DataFrame({"a": ["nothing"]}).to_excel(book, sheet_name="notes", index=False)
        days.to_excel(book, sheet_name="data", index=False)
    days.to_parquet("days.parquet")
    for words, kind in ((["book.xlsx", "--sheet", "data"], "xlsx"), (["days.parquet"], "parquet")):
        assert main(["data", "describe", *words]) == 0
        rows = _cells(capsys.readouterr().out)
        assert rows["format"] == [kind] and rows["rows on the grid"] == ["800"] and rows["7"][0] == "week"


def test_what_a_fit_refuses_is_refused_after_the_columns(workdir: Path, capsys: Printed) -> None:
    Path("long.csv").write_text("date,shop,y\n2024-01-01,a,1\n2024-01-01,b,2\n2024-01-02,a,3\n2024-01-02,b,4\n")
    assert main(["data", "describe", "long.csv"]) == 2
    out, err = capsys.readouterr()
    assert "text, 2 different" in out and "--id-column shop" in err and err.count("\n") == 1
    Path("text.csv").write_text("a,b\nx,1\ny,2\n")
    assert main(["data", "describe", "text.csv"]) == 2
    out, err = capsys.readouterr()
    assert "whole numbers" in out and "no column holds dates" in err
    assert not list(Path().glob("*.png"))


def test_flat_and_short_series(workdir: Path, capsys: Printed) -> None:
    date = pd.date_range("2024-01-01", periods=6, freq="MS")
    pd.DataFrame({"date": date, "flat": 1.0, "short": [1, 2, None, 4, 5, 6]}).to_csv("short.csv", index=False)
    assert main(["data", "describe", "short.csv"]) == 0
    out = capsys.readouterr().out
    assert "no period: the series are too short" in out and _cells(out)["step"] == ["freq 'MS'"]
    assert Path("short-described.png").is_file()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--day-first", "--month-first"], "--day-first and --month-first exclude each other"),
        (["--output", "x.txt"], "--output must end in .png"),
        (["--output", "own.csv"], "--output must end in .png"),
        (["--target", "nope"], "nope"),
    ],
    ids=" ".join,
)
def test_flags_that_cannot_be_meant(words: list[str], message: str, own_csv: Path, capsys: Printed) -> None:
    assert main(["data", "describe", own_csv.name, *words]) == 2
    assert message in capsys.readouterr().err


def test_no_such_file(workdir: Path, capsys: Printed) -> None:
    assert main(["data", "describe", "nowhere.csv"]) == 2
    assert "nowhere.csv" in capsys.readouterr().err


def test_columns_that_are_not_there_are_named(days: pd.DataFrame, workdir: Path, capsys: Printed) -> None:
    days.to_csv("days.csv", index=False)
    for flag in ("--time-column", "--id-column", "--target", "--past-covariates"):
        assert main(["data", "describe", "days.csv", flag, "Nothing"]) == 2
        assert "has no column 'Nothing'; it has: date" in capsys.readouterr().err


def test_a_time_column_without_a_name_is_shown_as_that(days: pd.DataFrame, workdir: Path, capsys: Printed) -> None:
    days.set_index("date").rename_axis(None).to_csv("days.csv")
    assert main(["data", "describe", "days.csv", "--output", "out.png"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "Unnamed: 0" in line)
    assert "time" in row and "not read" not in row
