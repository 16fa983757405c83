"""Files in the shapes that people have, such as famous data sets and exports: each is read, or refused helpfully."""

import gzip
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules import DataError, DataWarning, FileForm, Names, read_file, read_table

MONTHS, DAYS = pd.date_range("1949", periods=40, freq="MS"), pd.date_range("1981", periods=40)
HOURS, MINUTES = pd.date_range("2011", periods=60, freq="h"), pd.date_range("2006-12-16 17:24", periods=40, freq="min")


def _lines(header: str, rows: Iterator[str]) -> str:
    return "\n".join([header, *rows, ""])


def _csv(header: str, row: Callable[[int, pd.Timestamp], str], times: pd.DatetimeIndex) -> str:
    return _lines(header, (row(i, time) for i, time in enumerate(times)))


ROSSMANN = _lines(
    '"Store","DayOfWeek","Date","Sales","Customers","Open","StateHoliday"',
    (f'{s},{d.dayofweek + 1},{d:%Y-%m-%d},{5000 + s},{500 + s},1,"{"a" if d.day == 1 else 0}"'
     for d in DAYS[::-1] for s in (1, 2, 3)),
)  # fmt: skip
M4 = _lines("unique_id,ds,y", (f"{name},{i + 1},{i}" for name in ("H1", "H2") for i in range(40)))
BIKES = _csv("instant,dteday,yr,mnth,hr,cnt", lambda i, t: f"{i + 1},{t:%Y-%m-%d},0,{t.month},{t.hour},{i}", HOURS)
BEIJING = _csv("No,year,month,day,hour,pm2.5", lambda i, t: f"{i},{t.year},{t.month},{t.day},{t.hour},{i}", HOURS)
SUNSPOTS = _lines('"time","sunspot.month"', (f"{1749 + i / 12:.6f},{i}" for i in range(40)))
WEEKS = _lines("time,co2", (f"{1958 + (i + 1) / 52:.6f},{i}" for i in range(39)))

# text, names, note, series, step, last time, values of the first series
READ = {
    "AirPassengers": (
        _csv('"Month","#Passengers"', lambda i, t: f'"{t:%Y-%m}",{i}', MONTHS),
        None, ["#Passengers"], "MS", MONTHS[-1],
    ),
    "daily temperatures": (
        _csv('"Date","Temp"', lambda i, t: f'"{t.month}/{t.day}/{t.year}",{i}', DAYS), None, ["Temp"], "D", DAYS[-1],
    ),
    "Jena": (
        _csv('"Date Time","p (mbar)","T (degC)"', lambda i, t: f"{t:%d.%m.%Y %H:%M:%S},{i},-8.02", MINUTES),
        None, ["p (mbar)", "T (degC)"], "min", MINUTES[-1],
    ),
    "household power": (
        _csv("Date;Time;Power;Voltage", lambda i, t: f"{t:%d/%m/%Y;%H:%M:%S};{i}.0;{'?' if i == 3 else 2}", MINUTES),
        "columns 'Date' and 'Time' are read as one", ["Power", "Voltage"], "min", MINUTES[-1],
    ),
    "LD2011": (
        _csv('"";"MT_001";"MT_002"', lambda i, t: f'"{t}";{i};{i},0355329949238579', HOURS),
        "read with decimal commas; if that is wrong give --decimal", ["MT_001", "MT_002"], "h", HOURS[-1],
    ),
    "monthly sunspots": (
        SUNSPOTS, "column 'time' is read as months of years in decimals", ["sunspot.month"], "MS", "1752-04-01",
    ),
    "yearly sunspots": (_lines("YEAR,SUN", (f"{1700 + i}.0,{i}" for i in range(40))), None, ["SUN"], "YS", "1739"),
    "quarters": (
        _csv("Quarter,v", lambda i, t: f"{2000 + i // 4}-Q{i % 4 + 1},{i}", MONTHS), None, ["v"], "QS", "2009-10-01",
    ),
    "quarters first": (
        _csv("Quarter,v", lambda i, t: f"Q{i % 4 + 1} {2000 + i // 4},{i}", MONTHS), None, ["v"], "QS", "2009-10-01",
    ),
    "names of months": (_csv("m,v", lambda i, t: f"{t:%b %Y},{i}", MONTHS), None, ["v"], "MS", MONTHS[-1]),
    "numbered steps": (_lines("step,v", (f"{i},{i}" for i in range(40))), None, ["v"], 1, 39),
    "an index from 5 on": (_lines(",v", (f"{i + 5},{i}" for i in range(40))), None, ["v"], 1, 44),
    "dates in the index": (_csv(",v", lambda i, t: f"{t},{i}", DAYS), None, ["v"], "D", DAYS[-1]),
    "an index beside dates": (
        _csv(",date,v", lambda i, t: f"{i + 7},{t},{i}", DAYS),
        "first column 'Unnamed: 0' counts the rows", ["v"], "D", DAYS[-1],
    ),
    "seconds since 1970": (
        _csv("timestamp,v", lambda i, t: f"{int(t.timestamp())},{i}", HOURS),
        "seconds since 1970", ["v"], "h", HOURS[-1],
    ),
    "an empty column": (
        _csv("date,v,w", lambda i, t: f"{t},{i},", DAYS), "w are empty and left out", ["v"], "D", DAYS[-1],
    ),
    "quoted decimals": (
        _csv("date,v,w", lambda i, t: f'{t},{i},"1.23{i % 10},5"', DAYS),
        "decimal commas, marks between thousands", ["v", "w"], "D", DAYS[-1],
    ),
    "bars": (_csv("date|v|w", lambda i, t: f"{t}|{i}|1.5", DAYS), None, ["v", "w"], "D", DAYS[-1]),
    "words for what is missing": (
        _csv("date,v", lambda i, t: f"{t},{['NA', '-', 'null', 'n/a'][i - 1] if 0 < i < 5 else i}", DAYS),
        None, ["v"], "D", DAYS[-1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("text, note, ids, freq, last", READ.values(), ids=READ)
def test_files_that_are_read(write_csv, text, note, ids, freq, last):
    path = write_csv(text)
    if note is None:
        panel = read_file(path)
    else:
        with pytest.warns(DataWarning, match=note):
            panel = read_file(path)
    assert (list(panel.ids), panel.freq) == (ids, freq)
    assert panel.times[-1] == (last if isinstance(last, int) else pd.Timestamp(last))
    first = panel.target[: panel.lengths[0]]
    np.testing.assert_array_equal(first[~np.isnan(first)], np.arange(len(first))[~np.isnan(first)])


REFUSED = {
    "Rossmann": (ROSSMANN, Names(), r"dates in 'Date' repeat, .* by --id-column Store \(id_col='Store' in Python\)"),
    "Rossmann without target": (ROSSMANN, Names(id="Store"), "give --target COLUMN .*: DayOfWeek, Sales, Custo"),
    "bikes": (BIKES, Names(), "'dteday' repeats, and the rest of the time is in 'hr': make one column"),
    "Beijing": (BEIJING, Names(), "'year' repeats, and the rest of the time is in 'month' and 'day' and 'hour'"),
    "weeks in decimals": (WEEKS, Names(), "column 'time' holds decimals such as 1958.75; write dates"),
    "no such column": (M4, Names(time="when"), "the file has no column 'when'; it has: unique_id, ds, y"),
    "two targets of a long file": (ROSSMANN, Names(id="Store", target=("Sales", "Open")), "a long file has one target"),
    "text beside numbers": (
        _csv("date,v,kind", lambda i, t: f"{t},{i},x", DAYS), Names(), "columns kind hold no numbers; .*--target .*: v",
    ),
    "decimals or thousands": (
        _csv("date;v", lambda i, t: f"{t};1,23{i % 10}", DAYS), Names(),
        "'1,230' may have decimals or thousands; give --decimal , .* or --thousands ,",
    ),
}  # fmt: skip


@pytest.mark.parametrize("text, names, message", REFUSED.values(), ids=REFUSED)
def test_files_that_are_refused(write_csv, text, names, message):
    path = write_csv(text)
    with pytest.raises(DataError, match=message) as caught:
        read_file(path, names)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_long_files_and_covariates(write_csv):
    names = Names(id="Store", target=("Sales",), past_covariates=("Customers",), future_covariates=("Open",))
    panel = read_file(write_csv(ROSSMANN), names)
    assert (list(panel.ids), panel.wide, panel.columns.target) == ([1, 2, 3], False, "Sales")
    np.testing.assert_array_equal(panel.past_covariates[:, 0], panel.target - 4500)
    assert read_file(write_csv(M4)).lengths.tolist() == [40, 40]
    one = read_file(
        write_csv(_csv("date,v,w,kind", lambda i, t: f"{t},{i},{2 * i},x", DAYS)),
        Names(target=("v",), past_covariates=("w",)),
    )
    assert (list(one.ids), one.columns.id, one.past_covariates[3, 0]) == (["v"], None, 6)


def test_names_of_series_stay_text(write_csv):
    text = "store,day,v\n" + "".join(f"{name},2024-01-0{d},{d}\n" for name in ("007", "NA") for d in (1, 2))
    assert list(read_file(write_csv(text), Names(id="store")).ids) == ["007", "NA"]


def test_target_chooses_series_and_leaves_text_unread(write_csv):
    path = write_csv(_csv("date,v,w,kind", lambda i, t: f"{t},{i},{2 * i},x", DAYS))
    assert list(read_file(path, Names(target=("w", "v"))).ids) == ["w", "v"]
    with pytest.raises(DataError, match=r"column 'kind', .* \(line 2\): 'x' is not a number"):
        read_file(path, Names(target=("kind",)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.filterwarnings("ignore:the file is read with encoding cp1252")
def test_encodings(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("date\tgr\xf6\xdfe\n2024-01-01\t1\n2024-01-02\t2\n".encode(encoding))
    assert list(read_file(tmp_path / "a.txt").ids) == ["gr\xf6\xdfe"]


def test_an_encoding_is_said_and_can_be_given(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("date,\xe9\n2024-01-01,1\n2024-01-02,2\n".encode("cp1252"))
    with pytest.warns(DataWarning, match=r"encoding cp1252 \(it is not UTF-8\); if that is wrong give --encoding"):
        read_file(path)
    assert list(read_file(path, form=FileForm(encoding="latin-1")).ids) == ["\xe9"]
    messages = {"utf-8": "is not utf-8 text; give its --encoding", "no": "unknown encoding 'no'"}
    messages["zlib_codec"] = "unknown encoding 'zlib_codec'; give e.g. --encoding cp1252"  # of bytes
    for encoding, message in messages.items():
        with pytest.raises(DataError, match=message):
            read_file(path, form=FileForm(encoding=encoding))


FORMS = {
    "decimal": ("date;v\n2024-01-01;1,234\n2024-01-02;2,0\n", FileForm(decimal=","), [1.234, 2]),
    "thousands": ("date;v\n2024-01-01;1,234\n2024-01-02;2\n", FileForm(thousands=","), [1234, 2]),
    "points in thousands": ("date;v\n2024-01-01;1.234\n2024-01-02;2\n", FileForm(thousands="."), [1234, 2]),
    "separator": ("date|v,w\n2024-01-01|1\n2024-01-02|2\n", FileForm(separator="|"), [1, 2]),
    "tab": ("date\tv\n2024-01-01\t1\n2024-01-02\t2\n", FileForm(separator="tab"), [1, 2]),
    "spaces": ("date   v\n2024-01-01 1\n2024-01-02     2\n", FileForm(separator="space"), [1, 2]),
    "day first": ("date,v\n01/02/2024,1\n01/03/2024,2\n", FileForm(day_first=True), [1, 2]),
}


@pytest.mark.parametrize("text, form, values", FORMS.values(), ids=FORMS)
@pytest.mark.filterwarnings("ignore:the file is read with")
def test_what_is_said_of_a_file_counts(write_csv, text, form, values):
    panel = read_file(write_csv(text), form=form)
    assert panel.target.tolist() == values
    assert panel.freq == ("MS" if form.day_first else "D")


def test_packed_files(tmp_path):
    text = b"date\tv\n2024-01-01\t1\n2024-01-02\t2\n"
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(text))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data/a.tsv", text)
        archive.writestr("__MACOSX/a.tsv", b"")
    for name in ("a.tsv.gz", "a.zip"):
        assert read_file(tmp_path / name).target.tolist() == [1, 2]
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("b.tsv", text)
    with pytest.raises(DataError, match=r"a.zip holds 2 files \(data/a.tsv, b.tsv\); unpack it"):
        read_file(tmp_path / "a.zip")
    (tmp_path / "b.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="b.zip is a zip file that cannot be read"):
        read_file(tmp_path / "b.zip")


def test_excel_as_a_german_writes_it(tmp_path):
    path = tmp_path / "b.xlsx"
    frame = pd.DataFrame({"Datum": DAYS, "Umsatz": np.arange(40) * 0.5, "Menge": [f"1.1{i:02d},5" for i in range(40)]})
    with pd.ExcelWriter(path) as book:
        frame.to_excel(book, sheet_name="Daten", index=False, startrow=1)
        frame.assign(Datum=DAYS.strftime("%d.%m.%Y")).set_index("Datum")[["Umsatz"]].to_excel(book, sheet_name="Text")
    with pytest.warns(DataWarning) as notes:
        panel = read_file(path)
    said = " ".join(str(note.message) for note in notes)
    assert "sheets Daten, Text; the first is read (give --sheet" in said and "decimal commas, marks between" in said
    assert (list(panel.ids), panel.freq, panel.times[-1]) == (["Umsatz", "Menge"], "D", DAYS[-1])
    np.testing.assert_array_equal(panel.target[40:], 1100.5 + np.arange(40))
    for sheet in ("Text", 1, "1"):
        assert read_file(path, form=FileForm(sheet=sheet)).times[-1] == DAYS[-1]
    with pytest.raises(DataError, match="has no sheet 'x'; it has: Daten, Text"):
        read_file(path, form=FileForm(sheet="x"))
    table, where = read_table(path, FileForm(sheet=0, decimal=",", thousands="."))
    assert where(0, 3) == " (lines 3 and 6)" and table["Umsatz"].dtype == np.float64
    (tmp_path / "no.xlsx").write_text("date;a")
    with pytest.raises(DataError, match="no.xlsx is no Excel file .*; if it holds text, call it .csv"):
        read_file(tmp_path / "no.xlsx")


@pytest.mark.parametrize("name", ["openpyxl", "xlrd"])
def test_excel_needs_an_extra(tmp_path, monkeypatch, name):
    path = tmp_path / f"a.{'xlsx' if name == 'openpyxl' else 'xls'}"
    pd.DataFrame({"date": DAYS, "v": 1}).to_excel(path.with_suffix(".xlsx"), index=False)
    path.with_suffix(".xlsx").rename(path)
    if name == "xlrd":
        path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600)
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(DataError, match=r"Excel files need an extra: pip install 'titans-seq\[excel\]'"):
        read_file(path)


def test_parquet_files_and_folders(tmp_path):
    frame = pd.DataFrame({"ds": DAYS, "v": np.arange(40.0)})
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    frame.set_index("ds").to_parquet(tmp_path / "index.parquet")
    for name in ("a", "index"):
        panel = read_file(tmp_path / f"{name}.parquet")
        assert (list(panel.ids), panel.wide, panel.times[-1]) == (["v"], True, DAYS[-1])
    for store in ("01", "02"):
        place: Path = tmp_path / "stores" / f"store={store}"
        place.mkdir(parents=True)
        frame.to_parquet(place / "a.parquet", index=False)
    assert list(read_file(tmp_path / "stores", Names(id="store")).ids) == ["01", "02"]
