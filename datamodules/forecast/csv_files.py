"""The CSV files of the published data sets, row by row as they are.

The reader fills a preallocated array block by block: reading needs the array and one block, not pandas' copies of the
whole. Lines are numbered as an editor shows them: the header is line 1.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import open_bytes
from titans_seq.datamodules.forecast.calendar import to_step
from titans_seq.datamodules.forecast.cells import not_a_number, to_numbers
from titans_seq.datamodules.forecast.dates import read_dates
from titans_seq.datamodules.forecast.panel import Columns, Panel, from_columns
from titans_seq.datamodules.forecast.registry import DatasetSpec
from titans_seq.datamodules.forecast.text_tables import parser_errors

_BLOCK_VALUES = 2**18  # numbers parsed at a time, 2 MB
_BLOCK_ROWS = 256  # at least this many rows: pandas spends time on every column of every block
_CHUNK_BYTES = 2**20
_FORM: dict[str, Any] = {"encoding": "utf-8-sig", "skip_blank_lines": False}


@dataclass(frozen=True)
class _Table:
    """A CSV as read: T rows of C columns, their file lines, dates as text."""

    names: list[str]
    values: Float[np.ndarray, "C T"]
    dates: pd.Series
    lines: Int[np.ndarray, " T"]

    def where(self, *rows: int) -> str:
        return f" (line{'s' if len(rows) > 1 else ''} {' and '.join(str(self.lines[row]) for row in rows)})"


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
        times = pd.DatetimeIndex(read_dates(table.dates, table.where).values)
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
    with _table_file(path) as file:
        date, *names = pd.read_csv(file, nrows=0, **_FORM).columns
    # at least as many as there are rows; pages that stay unwritten cost no memory
    values = np.empty((len(names), _line_count(path)))
    dates: list[pd.Series] = []
    lines: list[np.ndarray] = []
    filled = 0
    for block in _blocks(path, date, len(names)):
        block = block.dropna(how="all")  # blank lines
        values[:, filled : filled + len(block)] = _numbers(path, block, names)
        filled += len(block)
        dates.append(block[date])
        lines.append(block.index.to_numpy() + 2)
    whole = values.reshape(-1)
    for i in range(1, len(names)):  # to the left, in place: a copy would need the memory twice
        whole[i * filled : (i + 1) * filled] = values[i, :filled]
    values = whole[: len(names) * filled].reshape(-1, filled)
    return _Table(names, values, pd.concat(dates, ignore_index=True).rename(date), np.concatenate(lines))


def _blocks(path: Path, date: str, width: int) -> Iterator[pd.DataFrame]:
    """Yield the rows in blocks, blank lines kept so that row numbers stay file lines."""
    form = _FORM | {"chunksize": max(_BLOCK_ROWS, _BLOCK_VALUES // width), "dtype": {date: str}, "low_memory": False}
    with _table_file(path) as file, pd.read_csv(file, **form) as blocks:
        yield from blocks


def _numbers(path: Path, block: pd.DataFrame, names: list[str]) -> Float[np.ndarray, "C rows"]:
    out = np.empty((len(names), len(block)))
    for i, name in enumerate(names):
        out[i], wrong = to_numbers(block[name])
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(
                f"{path}: column {name!r} in line {block.index[row] + 2}: {not_a_number(block[name].iloc[row])}"
            )
    return out


def _line_count(path: Path) -> int:
    """At least the number of lines: each may end in a line feed, a carriage return, or both."""
    lines = 1
    for chunk in _chunks(path):
        lines += chunk.count(b"\n") + chunk.count(b"\r")
    return lines


def _chunks(path: Path) -> Iterator[bytes]:
    with open_bytes(path, "CSV file") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


@contextmanager
def _table_file(path: Path) -> Iterator[BinaryIO]:
    """The file for pandas, whose errors become a DataError."""
    with open_bytes(path, "CSV file") as file, parser_errors(path):
        yield cast(BinaryIO, file)
