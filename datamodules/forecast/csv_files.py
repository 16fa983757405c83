"""CSV files to `Series`: the published data sets row by row as they are, a user's own file with every row checked.

Both go through one reader that fills a preallocated array block by block: reading needs the array and one block, not
pandas' copies of the whole. Lines are numbered as an editor shows them: the header is line 1.
"""

import gzip
import hashlib
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.common.files import cannot_read, require_file, user_path
from titans_seq.datamodules.forecast.calendar import usual_step
from titans_seq.datamodules.forecast.registry import DatasetSpec
from titans_seq.datamodules.forecast.series import Series

DATE_COLUMNS = ("date", "timestamp", "datetime", "ds", "time")
FILLS = {  # what --fill may be: does it look only at earlier rows?
    "ffill": "causal: the last value before the gap",
    "zero": "causal: 0",
    "linear": "NOT causal: a line to the next value, which a forecaster could not know",
}
FILL_HINT = "fill it with --fill ffill or zero (both use the past only) or linear (looks ahead)"

_MOST_COLUMNS = 50_000
_LARGEST = 1e150  # of a value: its square is a number
_BLOCK_VALUES = 2**18  # numbers parsed at a time, 2 MB
_BLOCK_ROWS = 256  # at least this many rows: pandas spends time on every column of every block
_CHUNK_BYTES = 2**20
# tried in order; month before day is how a date like 01/02/2020 is read unless a later row rules it out
_DATE_FORMATS = ["ISO8601"] + [
    day + time for day in ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y") for time in ("", " %H:%M", " %H:%M:%S")
]
_UTC_OFFSET = r":\d\d\S*?(?:Z|[+-]\d\d:?\d\d)$"


@dataclass(frozen=True)
class _Table:
    """A CSV as read: T rows, their file lines, dates as text; values may hold NaN and inf."""

    columns: tuple[str, ...]
    values: Float[np.ndarray, "T C"]
    dates: pd.Series
    lines: Int[np.ndarray, " T"]


def read_user_csv(path: str | Path, fill: str | None = None) -> Series:
    """Read a user's CSV: a header, one column of dates (see DATE_COLUMNS, case ignored), every other column numeric.

    Args:
        path: a `.csv` or `.csv.gz` file in UTF-8.
        fill: how missing values are filled, one of FILLS; None refuses them.

    Raises:
        DataError: no file, empty, no date column, no numeric column, text or inf in a numeric column, missing values
            without `fill`, dates that cannot be read, or that are not strictly increasing, a column name that stands
            twice.

    Warns:
        DataWarning: steps between dates differ, since windows run across them as if no row were missing.
    """
    path = user_path(path)
    if fill is not None and fill not in FILLS:
        raise DataError(f"unknown fill {fill!r}; choose one of {', '.join(FILLS)}")
    require_file(path, "CSV file")
    table = _read_table(path)
    dates = _parse_dates(path, table)
    _require_increasing(path, table, dates)
    _require_no_inf(path, table)
    _fill_missing(path, table, fill)
    step = usual_step(dates)
    _warn_of_jumps(path, table, dates, step)
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    return Series(name, table.values, table.columns, dates, step)


def read_published_csv(path: Path, spec: DatasetSpec) -> Series:
    """Read a named data set row by row; its dates are kept as published and never sort, drop or reject a row.

    Raises:
        DataError: the file is not the published one (checksum where it is known, else rows and columns).
    """
    require_published(path, spec)
    table = _read_table(path)
    if not np.isfinite(table.values).all():
        raise DataError(f"{path} is not the published {spec.name}: it holds missing or infinite values; {_again(spec)}")
    return Series(spec.name, table.values, table.columns, _parse_dates(path, table), spec.frequency)


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
    with _readable(path), _opened(path) as file:
        for line in file:
            header = header or line
            rows += bool(line.strip())
    return max(rows, 0), header.count(b",")


def _read_table(path: Path) -> _Table:
    header = _header(path)
    date = _date_column(path, header)
    columns = [name for name in header if name != date]
    if not columns:
        raise DataError(f"{path} has no numeric column beside {date!r}")
    # at least as many as there are rows; pages that stay unwritten cost no memory
    values = np.empty((_line_count(path), len(columns)))
    dates: list[pd.Series] = []
    lines: list[np.ndarray] = []
    filled = 0
    for block in _blocks(path, date, len(header)):
        block = block.dropna(how="all")  # blank lines
        rows = slice(filled, filled + len(block))
        values[rows] = _numbers(path, block, columns)
        dates.append(block[date])
        lines.append(block.index.to_numpy() + 2)
        filled = rows.stop
    if filled == 0:
        raise DataError(f"{path} has a header but no rows")
    return _Table(tuple(map(str, columns)), values[:filled], pd.concat(dates, ignore_index=True), np.concatenate(lines))


def _header(path: Path) -> list[str]:
    with _readable(path), _opened(path) as file:
        columns = file.readline().count(b",") + 1
    if columns > _MOST_COLUMNS:  # pandas needs a second for some thousand
        raise DataError(f"{path} has {columns:,} columns; at most {_MOST_COLUMNS:,} are read")
    with _readable(path), _opened(path) as file:
        names = list(pd.read_csv(file, nrows=0, encoding="utf-8-sig", skip_blank_lines=False).columns)
    with _readable(path), _opened(path) as file:  # pandas calls a second "a" "a.1"
        given = pd.read_csv(file, nrows=1, header=None, dtype=str, encoding="utf-8-sig", skip_blank_lines=False)
    counts = Counter(name for name in given.to_numpy().ravel() if isinstance(name, str))
    doubles = [name for name, count in counts.items() if count > 1]
    if doubles:
        raise DataError(f"{path}: column {doubles[0]!r} stands twice in the header; give each column a name of its own")
    return names


def _date_column(path: Path, header: list[str]) -> str:
    by_name = {str(name).strip().lower(): name for name in reversed(header)}
    found = next((by_name[name] for name in DATE_COLUMNS if name in by_name), None)
    if found is not None:
        return found
    hint = "; are its columns separated by commas?" if len(header) == 1 else ""
    names = ", ".join(map(str, header[:6])) + (", ..." if len(header) > 6 else "")
    raise DataError(f"{path} has no column of dates: call it one of {', '.join(DATE_COLUMNS)} (found: {names}){hint}")


def _blocks(path: Path, date: str, width: int) -> Iterator[pd.DataFrame]:
    """Yield the rows in blocks, blank lines kept so that row numbers stay file lines."""
    with _readable(path), _opened(path) as file:
        blocks = pd.read_csv(
            file,
            chunksize=max(_BLOCK_ROWS, _BLOCK_VALUES // width),
            dtype={date: str},
            encoding="utf-8-sig",
            skip_blank_lines=False,
            low_memory=False,
        )
        for block in blocks:
            if not isinstance(block.index, pd.RangeIndex):  # pandas takes surplus first fields for row labels
                raise pd.errors.ParserError("its rows have more fields than its header")
            yield block


def _numbers(path: Path, block: pd.DataFrame, columns: list[str]) -> Float[np.ndarray, "rows C"]:
    numeric = {name for name, dtype in block.dtypes.items() if pd.api.types.is_numeric_dtype(dtype)}
    texts = [name for name in columns if name not in numeric]
    for name in texts:
        numbers = pd.to_numeric(block[name], errors="coerce")
        wrong = numbers.isna() & block[name].notna()
        if not wrong.any():
            block = block.assign(**{name: numbers})
            continue
        if len(texts) == len(columns) and wrong.sum() == block[name].notna().sum():
            raise DataError(f"{path} has no numeric column: column {name!r} and the others hold text")
        row = wrong.idxmax()
        raise DataError(
            f"{path}: column {name!r} holds text, {block[name][row]!r}, in line {row + 2}; correct it "
            "or drop the column"
        )
    return block[columns].to_numpy(dtype=np.float64)


def _line_count(path: Path) -> int:
    """At least the number of lines: each may end in a line feed, a carriage return, or both."""
    return sum(chunk.count(b"\n") + chunk.count(b"\r") for chunk in _chunks(path)) + 1


def _parse_dates(path: Path, table: _Table) -> pd.DatetimeIndex:
    with_offset = table.dates.str.contains(_UTC_OFFSET, na=False).to_numpy()
    if with_offset.any() and not with_offset.all():
        row = int((with_offset != with_offset[0]).argmax())
        raise DataError(
            f"{path}: the date in line {table.lines[row]} ({table.dates[row]}) differs from those before in having a "
            "time zone or none; write all with one or all without"
        )
    furthest = 0  # the form that reads furthest is the one that was meant
    for form in _DATE_FORMATS:
        # offsets may change within a file (clock changes): UTC orders them
        dates = pd.to_datetime(table.dates, format=form, errors="coerce", utc=bool(with_offset.all()))
        unread = dates.isna().to_numpy()
        if not unread.any():
            return pd.DatetimeIndex(dates, name="date")
        furthest = max(furthest, int(unread.argmax()))
    raise DataError(
        f"{path}: no date in line {table.lines[furthest]} ({table.dates[furthest]}); write dates as 2024-01-31 or "
        "2024-01-31 13:45:00"
    )


def _require_increasing(path: Path, table: _Table, dates: pd.DatetimeIndex) -> None:
    wrong = np.flatnonzero(dates[1:] <= dates[:-1])
    if not wrong.size:
        return
    row = int(wrong[0]) + 1
    same = dates[row] == dates[row - 1]
    what = "repeats" if same else "is earlier than"
    do = "remove or merge the duplicates" if same or dates.has_duplicates else "sort the rows by date"
    raise DataError(
        f"{path}: the timestamp {dates[row]} in line {table.lines[row]} {what} the one before ({dates[row - 1]}); {do}"
    )


def _warn_of_jumps(path: Path, table: _Table, dates: pd.DatetimeIndex, step: str | None) -> None:
    offset = pd.tseries.frequencies.to_offset(step)
    if not isinstance(offset, pd.offsets.Tick | pd.offsets.Day):
        return  # one step of the calendar all through, or fewer than two rows
    usual = pd.Timedelta(days=offset.n) if isinstance(offset, pd.offsets.Day) else pd.Timedelta(offset)
    odd = np.flatnonzero(np.diff(dates.to_numpy()) != usual.to_timedelta64())
    if odd.size:
        first = int(odd[0])
        warnings.warn(
            f"{path}: {odd.size} of {len(dates) - 1} steps between dates are not {step}, the first after line "
            f"{table.lines[first]} ({dates[first]} to {dates[first + 1]}); windows run across them as if no row were "
            "missing",
            DataWarning,
            stacklevel=3,
        )


def _require_no_inf(path: Path, table: _Table) -> None:
    for column, name in enumerate(table.columns):
        large = np.abs(table.values[:, column]) > _LARGEST
        if large.any():
            raise DataError(
                f"{path}: {_place(table, name, large)} is infinite, or beyond {_LARGEST:.0e}; correct it, or leave it "
                "empty and fill"
            )


def _fill_missing(path: Path, table: _Table, fill: str | None) -> None:
    for column, name in enumerate(table.columns):
        values = table.values[:, column]
        gaps = np.isnan(values)
        if not gaps.any():
            continue
        if fill is None:
            more = f" and {gaps.sum() - 1} more" if gaps.sum() > 1 else ""
            raise DataError(f"{path}: {_place(table, name, gaps)}{more} has no value; {FILL_HINT}")
        values[:] = _filled(pd.Series(values), fill)
        gaps = np.isnan(values)
        if gaps.any():
            raise DataError(f"{path}: {_place(table, name, gaps)} has no value before it to fill from; use --fill zero")


def _filled(values: pd.Series, fill: str) -> pd.Series:
    if fill == "ffill":
        return values.ffill()
    if fill == "zero":
        return values.fillna(0.0)
    return values.interpolate("linear")


def _place(table: _Table, column: str, cells: np.ndarray) -> str:
    row = int(cells.argmax())
    return f"column {column!r} in line {table.lines[row]} ({table.dates[row]})"


@contextmanager
def _opened(path: Path) -> Iterator[gzip.GzipFile | BufferedReader]:
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        yield file


def _chunks(path: Path) -> Iterator[bytes]:
    with _readable(path), _opened(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what can go wrong while a CSV is read into a DataError."""
    try:
        yield
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty") from None
    except pd.errors.ParserError as error:
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise DataError(f"{path} is not a table: {' '.join(reason.split())}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file ({error})") from None
    except OSError as error:
        raise cannot_read(path, error) from None
