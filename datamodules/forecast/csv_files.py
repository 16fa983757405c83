"""CSV files as panels: the published data sets row by row as they are, a user's own file with every row checked.

Both go through one reader that fills a preallocated array block by block: reading needs the array and one block, not
pandas' copies of the whole. Lines are numbered as an editor shows them: the header is line 1.
"""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import open_bytes, user_path
from titans_seq.datamodules.forecast.calendar import to_step
from titans_seq.datamodules.forecast.cells import is_date_text, not_a_number, read_dates, to_numbers
from titans_seq.datamodules.forecast.panel import Columns, Panel, from_columns
from titans_seq.datamodules.forecast.reading import wide_panel
from titans_seq.datamodules.forecast.registry import DatasetSpec

DATE_COLUMNS = ("date", "timestamp", "datetime", "ds", "time")
_MOST_COLUMNS = 50_000
_BLOCK_VALUES = 2**18  # numbers parsed at a time, 2 MB
_BLOCK_ROWS = 256  # at least this many rows: pandas spends time on every column of every block
_CHUNK_BYTES = 2**20
_FORM: dict[str, Any] = {"encoding": "utf-8-sig", "skip_blank_lines": False}
_SAMPLE = 50  # rows by which a column of dates is known that is not called so


@dataclass(frozen=True)
class _Table:
    """A CSV as read: T rows of C columns, their file lines, dates as text."""

    names: list[str]
    values: Float[np.ndarray, "C T"]
    dates: pd.Series
    lines: Int[np.ndarray, " T"]

    def where(self, *rows: int) -> str:
        return f" (line{'s' if len(rows) > 1 else ''} {' and '.join(str(self.lines[row]) for row in rows)})"


def read_csv(path: str | Path) -> Panel:
    """Read a user's wide CSV: a header, one column of dates, every other column a series.

    The column of dates has a name of DATE_COLUMNS (case ignored), or else is the first that holds nothing but dates.
    Rows come in any order; empty cells and missing rows are missing values.

    Args:
        path: a `.csv` or `.csv.gz` file in UTF-8.

    Raises:
        DataError: no file, empty, no column of dates or numbers, text or infinite values among numbers, dates that
            cannot be parsed, repeat or lie off their grid, a duplicate column name.

    Warns:
        DataWarning: as `wide_panel` and `read_dates`; dates stand for periods.
    """
    path = user_path(path)
    table = _read_table(path)
    with _said_of(path):
        if np.isnan(table.values).all():
            raise DataError(f"no numeric column: every cell beside {table.dates.name!r} is empty")
        times = read_dates(table.dates, table.where)
        columns = Columns(time=str(table.dates.name))
        return wide_panel(times, table.values, table.names, columns, None, table.where)


def read_published_csv(path: Path, spec: DatasetSpec) -> Panel:
    """Read a named data set row by row; its dates are kept as published and never sort, drop or reject a row.

    Raises:
        DataError: the file is not the published one (checksum where it is known, else rows and columns).
    """
    require_published(path, spec)
    table = _read_table(path)
    if np.isnan(table.values).any():
        raise DataError(f"{path} is not the published {spec.name}: it holds missing values; {_again(spec)}")
    with _said_of(path):
        times = pd.DatetimeIndex(read_dates(table.dates, table.where))
    step = to_step(spec.frequency)
    assert step is not None
    return from_columns(times, table.values, table.names, Columns(time=str(table.dates.name)), step)


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def require_published(path: Path, spec: DatasetSpec) -> None:
    """Raise a DataError unless the file is the published one, by checksum or, where none is known, by shape."""
    if spec.sha256 is not None:
        found = csv_sha256(path)
        if found != spec.sha256:
            raise DataError(
                f"{path} is not the published {spec.name}: sha256 is {found}, not {spec.sha256}; {_again(spec)}"
            )
        return
    rows, channels = csv_shape(path)
    if (rows, channels) != (spec.rows, spec.channels):
        raise DataError(
            f"{path} is not the published {spec.name}: {rows} rows x {channels} channels, not {spec.rows} x "
            f"{spec.channels}; {_again(spec)}"
        )


def _again(spec: DatasetSpec) -> str:
    get = f"remove it and run `titans-seq data download {spec.name}`" if spec.urls else "replace it"
    return f"{get}, or read it as your own file with csv="


def csv_sha256(path: Path) -> str:
    """Return the sha256 of the unpacked file."""
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def csv_shape(path: Path) -> tuple[int, int]:
    """Return (rows, channels) without parsing numbers; blank lines are not counted, the first column is the date."""
    header, rows = b"", -1
    with open_bytes(path, "CSV file") as file:
        for line in file:
            header = header or line
            rows += bool(line.strip())
    return max(rows, 0), header.count(b",")


def _read_table(path: Path) -> _Table:
    header = _header(path)
    date = _date_column(path, header)
    names = [name for name in header if name != date]
    if not names:
        raise DataError(f"{path} has no numeric column beside {date!r}")
    # at least as many as there are rows; pages that stay unwritten cost no memory
    values = np.empty((len(names), _line_count(path)))
    dates: list[pd.Series] = []
    lines: list[np.ndarray] = []
    filled = 0
    for block in _blocks(path, date, len(header)):
        block = block.dropna(how="all")  # blank lines
        values[:, filled : filled + len(block)] = _numbers(path, block, names, date)
        filled += len(block)
        dates.append(block[date])
        lines.append(block.index.to_numpy() + 2)
    if filled == 0:
        raise DataError(f"{path} has a header but no rows")
    whole = values.reshape(-1)
    for i in range(1, len(names)):  # to the left, in place: a copy would need the memory twice
        whole[i * filled : (i + 1) * filled] = values[i, :filled]
    values = whole[: len(names) * filled].reshape(-1, filled)
    time = "date" if re.fullmatch(r"Unnamed: \d+", date) else date
    return _Table(names, values, pd.concat(dates, ignore_index=True).rename(time), np.concatenate(lines))


def _header(path: Path) -> list[str]:
    with open_bytes(path, "CSV file") as file:
        columns = file.readline().count(b",") + 1
    if columns > _MOST_COLUMNS:  # pandas needs a second for some thousand
        raise DataError(f"{path} has {columns:,} columns; at most {_MOST_COLUMNS:,} are read")
    with _table_file(path) as file:  # as a row: in a header pandas would call a second "a" "a.1"
        given = pd.read_csv(file, nrows=1, header=None, dtype=str, keep_default_na=False, **_FORM).iloc[0]
    doubles = [name for name, count in Counter(given).items() if name and count > 1]
    if doubles:
        raise DataError(f"{path}: duplicate column {doubles[0]!r} in the header; give each column a name of its own")
    return [name or f"Unnamed: {i}" for i, name in enumerate(given)]


def _date_column(path: Path, header: list[str]) -> str:
    by_name = {str(name).strip().lower(): name for name in reversed(header)}
    found = next((by_name[name] for name in DATE_COLUMNS if name in by_name), None)
    if found is None:
        with _table_file(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # rows too long are refused where they are read
            sample = pd.read_csv(file, nrows=_SAMPLE, dtype=str, index_col=False, **_FORM)
        years = by_name.get("year")  # numbers alone are dates under this name only
        found = next((name for name in header if is_date_text(sample[name])), years)
    if found is not None:
        return found
    hint = "; are its columns separated by commas?" if len(header) == 1 else ""
    names = ", ".join(map(str, header[:6])) + (", ..." if len(header) > 6 else "")
    raise DataError(f"{path} has no column of dates: call it one of {', '.join(DATE_COLUMNS)} (found: {names}){hint}")


def _blocks(path: Path, date: str, width: int) -> Iterator[pd.DataFrame]:
    """Yield the rows in blocks, blank lines kept so that row numbers stay file lines."""
    form = _FORM | {"chunksize": max(_BLOCK_ROWS, _BLOCK_VALUES // width), "dtype": {date: str}, "low_memory": False}
    with _table_file(path) as file, pd.read_csv(file, **form) as blocks:
        for block in blocks:
            if not isinstance(block.index, pd.RangeIndex):  # pandas takes surplus first fields for row labels
                raise pd.errors.ParserError("its rows have more fields than its header")
            yield block


def _numbers(path: Path, block: pd.DataFrame, names: list[str], date: str) -> Float[np.ndarray, "C rows"]:
    out = np.empty((len(names), len(block)))
    texts = [name for name in names if not pd.api.types.is_numeric_dtype(block[name].dtype)]
    for i, name in enumerate(names):
        out[i], wrong = to_numbers(block[name])
        if not wrong.any():
            continue
        row = int(wrong.argmax())
        cell = block[name].iloc[row]
        if name in texts and len(texts) == len(names) and wrong.sum() == block[name].notna().sum():
            raise DataError(f"{path} has no numeric column: column {name!r} and the others hold text")
        do = "correct it or drop the column"
        if name in texts and block[date].duplicated().any():
            do = (
                "as dates repeat the file seems to be long: make one column per series (DataFrame.pivot), or give the "
                f"frame to TitansForecaster(id_col={name!r})"
            )
        raise DataError(f"{path}: column {name!r} in line {block.index[row] + 2}: {not_a_number(cell)}; {do}")
    return out


def _line_count(path: Path) -> int:
    """At least the number of lines: each may end in a line feed, a carriage return, or both."""
    lines = 1
    for chunk in _chunks(path):
        if b"\0" in chunk:  # pandas would take what stands before it for the whole cell
            raise DataError(f"{path} holds NUL characters; save it as CSV in UTF-8")
        lines += chunk.count(b"\n") + chunk.count(b"\r")
    return lines


def _chunks(path: Path) -> Iterator[bytes]:
    with open_bytes(path, "CSV file") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


@contextmanager
def _table_file(path: Path) -> Iterator[BinaryIO]:
    """The file for pandas, whose errors become a DataError."""
    with open_bytes(path, "CSV file") as file:
        try:
            yield cast(BinaryIO, file)
        except pd.errors.EmptyDataError:
            raise DataError(f"{path} is empty") from None
        except pd.errors.ParserError as error:
            reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
            raise DataError(f"{path} is not a table: {' '.join(reason.split())}") from None
