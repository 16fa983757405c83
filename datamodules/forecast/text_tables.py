"""Text files as tables: separator, encoding and the marks inside numbers are found out unless they are given.

Lines are numbered as an editor shows them: the header is line 1.
"""

import codecs
import csv
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.common.files import open_bytes
from titans_seq.datamodules.forecast.cells import GROUPED, is_number_text, read_numbers
from titans_seq.datamodules.forecast.options import option

SEPARATORS = (",", ";", "\t", "|")
_WORDS = {"tab": "\t", "\\t": "\t", "space": r"\s+", "whitespace": r"\s+", "comma": ",", "semicolon": ";", "pipe": "|"}
_MOST_COLUMNS = 50_000
_CHUNK_BYTES = 2**20
_SAMPLE_BYTES, _SAMPLE_LINES = 2**16, 50
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_ABOVE = "; the first line must be the header, with a name for each field: remove lines above it"


@dataclass(frozen=True)
class FileForm:
    """How a file is written; None: found out.

    Args:
        separator: between columns of a text file: a character, "tab" or "space".
        decimal: the mark before decimals, "." or ",".
        thousands: the mark between groups of three digits.
        encoding: of a text file, e.g. "utf-8" or "cp1252".
        sheet: name or number (from 0) of an Excel file's sheet.
        day_first: whether 01/02/2024 is the first of February.
    """

    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    sheet: str | int | None = None
    day_first: bool | None = None

    def __post_init__(self) -> None:
        if self.encoding is not None:
            object.__setattr__(self, "encoding", known_encoding(self.encoding))


ANY_FORM = FileForm()


def read_text_table(path: Path, form: FileForm, text: Collection[str]) -> tuple[pd.DataFrame, Int[np.ndarray, " R"]]:
    """Read a text file with a header, plain, gzipped or zipped.

    Args:
        path: the file.
        form: what is known of it.
        text: columns that stay text, such as names that look like numbers.

    Returns:
        Its rows, blank ones left out, and the line of each.

    Raises:
        DataError: no such file, empty, no table, a duplicate column, numbers that can be read in two ways.

    Warns:
        DataWarning: the encoding is not UTF-8, or numbers have decimal commas or marks between thousands.
    """
    notes: dict[str, str] = {}
    encoding = form.encoding or _encoding(path, notes)
    separator = _separator(path, encoding, form)
    names = _header(path, encoding, separator)
    reader = {"encoding": encoding, "sep": separator, "dtype": dict.fromkeys(set(text) & set(names), str)}
    frame = _parsed(path, names, reader, form.decimal or ".")
    decimal = form.decimal or decimal_mark(path, frame, form, text, alone=separator != ",")
    if decimal == "," and form.decimal is None:
        frame = _parsed(path, names, reader, decimal)  # 1.234 was read as a number with three decimals
        notes["decimal"] = "decimal commas"
    elif separator == ";" and form.decimal is None and form.thousands is None:
        _look_for_groups(path, frame, names, reader, notes)
    blank = frame.isna().all(axis=1).to_numpy()
    lines = np.flatnonzero(~blank) + 2
    frame = frame[~blank].reset_index(drop=True) if blank.any() else frame
    frame = with_numbers(frame, FileForm(decimal=decimal, thousands=form.thousands), text, notes)
    say(notes)
    return frame, lines


def known_encoding(name: str) -> str:
    """The name that Python has for an encoding of text.

    Raises:
        DataError: it knows none, or one of bytes such as base64.
    """
    try:
        "".encode(name)
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise DataError(f"unknown encoding {name!r}; give e.g. {option('encoding', 'cp1252')}") from None


def say(notes: dict[str, str]) -> None:
    """Tell what was understood and changes values, by the options that say otherwise."""
    if notes:
        flags = " or ".join(map(option, notes))
        warnings.warn(
            f"the file is read with {', '.join(notes.values())}; if that is wrong give {flags}",
            DataWarning,
            stacklevel=4,
        )


# numbers -------------------------------------------------------------------------------------------------------------


def _look_for_groups(
    path: Path, frame: pd.DataFrame, names: list[str], reader: dict[str, Any], notes: dict[str, str]
) -> None:
    """Where semicolons separate, 15.403 may be fifteen thousand, and nothing but the other cells tells.

    Raises:
        DataError: cells with a point all have three digits behind it, and others have no point: 15.403 and 924.
    """
    doubtful = [name for name, kind in zip(names, frame.dtypes, strict=True) if kind.kind == "f"]
    if not doubtful:
        return
    cells = _parsed(path, names, reader | {"dtype": str}, ".")[doubtful]
    for name in doubtful:
        here = cells[name].dropna().str.strip()
        points = here.str.contains(".", regex=False)
        if not points.any() or not here[points].str.fullmatch(r"[+-]?[1-9]\d{0,2}(\.\d{3})+").all():
            continue
        if not here[~points].str.fullmatch(r"[+-]?\d{1,3}").all():
            continue
        if not points.all():
            raise DataError(
                f"{path}: column {name!r}: {here[points].iloc[0]!r} may have decimals or thousands; give "
                f"{option('decimal', '.')} or {option('thousands', '.')}"
            )
        notes["thousands"] = "points before decimals"


def decimal_mark(path: Path, frame: pd.DataFrame, form: FileForm, text: Collection[str], *, alone: bool) -> str:
    """The mark before decimals, by the columns of text that hold nothing but numbers with commas.

    Args:
        path: of the file.
        form: what is known of it.
        frame: cells as text, or numbers where a point was read as the mark.
        text: columns that are none of numbers.
        alone: whether commas mean nothing else in the file, so that 1,234 can be either.
    """
    if form.thousands is not None:
        return "," if form.thousands == "." else "."
    doubtful = None
    for name in _texts(frame, text):
        cells = frame[name].dropna().astype(str).str.strip()
        commas = cells[cells.str.contains(",", regex=False)]
        if commas.empty or not is_number_text(cells).all():
            continue
        if commas.str.fullmatch(r"[+-]?\d{1,3}(,\d{3})+\.\d*|[+-]?\d{1,3}(,\d{3}){2,}").any():
            return "."
        if not commas.str.fullmatch(GROUPED[","]).all() or commas.str.match(r"[+-]?0,").any():
            return ","
        doubtful = doubtful or (name, commas.iloc[0])
    if doubtful and alone:
        name, cell = doubtful
        raise DataError(
            f"{path}: column {name!r}: {cell!r} may have decimals or thousands; give {option('decimal', ',')} or "
            f"{option('thousands', ',')}"
        )
    return "."


def with_numbers(frame: pd.DataFrame, form: FileForm, text: Collection[str], notes: dict[str, str]) -> pd.DataFrame:
    """The table with numbers for the text of columns that hold nothing else but words for what is missing."""
    changed: dict[str, Any] = {}
    grouped = False
    for name in _texts(frame, text):
        numbers, unread, groups = read_numbers(frame[name], form.decimal or ".", form.thousands)
        if not unread.any() and not np.isnan(numbers).all():
            changed[name] = numbers
            grouped |= groups
    if grouped and form.thousands is None:
        notes["thousands"] = "marks between thousands"
    return frame.assign(**changed) if changed else frame


def _texts(frame: pd.DataFrame, text: Collection[str]) -> list[str]:
    kinds = zip(frame.columns, frame.dtypes, strict=True)
    return [name for name, kind in kinds if (kind == object or isinstance(kind, pd.StringDtype)) and name not in text]


# form ----------------------------------------------------------------------------------------------------------------


def _encoding(path: Path, notes: dict[str, str]) -> str:
    with _opened(path) as file:
        head = file.read(100)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for chunk in _chunks(path):
            if b"\0" in chunk:
                return _wide_encoding(path, head)
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        notes["encoding"] = "encoding cp1252 (it is not UTF-8)"
        return "cp1252"
    return "utf-8"


def _wide_encoding(path: Path, head: bytes) -> str:
    """UTF-16 without its mark: every other byte of a header is zero."""
    for name, zeros, others in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if zeros.count(0) > len(zeros) / 2 and not others.count(0):
            return name
    raise DataError(f"{path} holds NUL characters; save it as CSV in UTF-8")


def _separator(path: Path, encoding: str, form: FileForm) -> str:
    if form.separator is not None:
        given = _WORDS.get(form.separator, form.separator)
        if given != r"\s+" and len(given) != 1:
            raise DataError(f"separator must be one character, 'tab' or 'space'; got {form.separator!r}")
        return given
    with _opened(path) as file:
        sample = file.read(_SAMPLE_BYTES)
    lines = sample.decode(encoding, errors="replace").splitlines()
    lines = [line for line in (lines if len(sample) < _SAMPLE_BYTES else lines[:-1] or lines) if line.strip()]
    return max(SEPARATORS, key=lambda each: _fit(lines[:_SAMPLE_LINES], each))


def _fit(lines: list[str], separator: str) -> tuple[float, int]:
    """How well a separator divides lines: the share with as many fields as the header, and how many those are."""
    try:
        counts = [len(row) for row in csv.reader(lines, delimiter=separator)]
    except csv.Error:
        return 0.0, 0
    if not counts or counts[0] < 2:
        return 0.0, 0
    return sum(count == counts[0] for count in counts) / len(counts), counts[0]


def _header(path: Path, encoding: str, separator: str) -> list[str]:
    # as a row: in a header pandas would call a second "a" "a.1"
    form: dict[str, Any] = {"encoding": encoding, "sep": separator, "skip_blank_lines": False}
    with _table_file(path, encoding) as file:
        first = file.readline().decode(encoding, errors="replace")
        if first.count(separator) >= _MOST_COLUMNS:  # pandas needs a second for some thousand
            raise DataError(f"{path} has {first.count(separator) + 1:,} columns; at most {_MOST_COLUMNS:,} are read")
    with _table_file(path, encoding) as file:
        row = pd.read_csv(file, nrows=1, header=None, dtype=str, keep_default_na=False, **form).iloc[0]
    return checked_header(row.tolist(), path)


def checked_header(given: list[str], path: Path) -> list[str]:
    """Names of columns; those without one are called as pandas calls them."""
    doubles = [name for name, count in Counter(given).items() if name and count > 1]
    if doubles:
        raise DataError(f"{path}: duplicate column {doubles[0]!r} in the header; give each column a name of its own")
    if all(re.fullmatch(r"[\s\d.:/+-]*\d[\s\d.:/+-]*", name) for name in given):
        raise DataError(f"{path} has no header: its first line is {', '.join(given[:4])}; put the columns' names first")
    return [name or f"Unnamed: {i}" for i, name in enumerate(given)]


def _parsed(path: Path, names: list[str], reader: dict[str, Any], decimal: str) -> pd.DataFrame:
    """The cells, blank lines kept so that row numbers stay file lines; words such as NA may be names of series."""
    if decimal == reader["sep"]:  # numbers in quotes
        reader, decimal = reader | {"dtype": str}, "."
    with _table_file(path, reader["encoding"]) as file:
        frame = pd.read_csv(
            file, **reader, decimal=decimal, low_memory=False, skip_blank_lines=False, keep_default_na=False,
            na_values=[""],
        )  # fmt: skip
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes surplus first fields for row labels
        raise DataError(f"{path} is not a table: its rows have more fields than its header{_ABOVE}")
    frame.columns = pd.Index(names)
    if frame.isna().all(axis=None):
        raise DataError(f"{path} has a header but no rows")
    return frame


# files ---------------------------------------------------------------------------------------------------------------


def _chunks(path: Path) -> Iterator[bytes]:
    with _opened(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked."""
    with open_bytes(path, "CSV file") as file:
        if path.suffix.lower() != ".zip":
            yield file  # type: ignore[misc]  # what gzip opens is as good
            return
        try:
            with zipfile.ZipFile(file) as archive, archive.open(_member(archive, path)) as member:  # type: ignore[arg-type]
                yield member
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{path} is a zip file that cannot be read: {error}") from None


def _member(archive: zipfile.ZipFile, path: Path) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise DataError(f"{path} holds {len(names)} files ({', '.join(names[:4])}); unpack it and give one of them")
    return names[0]


@contextmanager
def _table_file(path: Path, encoding: str) -> Iterator[IO[bytes]]:
    """The file for pandas."""
    with _opened(path) as file, parser_errors(path, encoding):
        yield file


@contextmanager
def parser_errors(path: Path, encoding: str = "utf-8") -> Iterator[None]:
    """What pandas raises over a file, as a DataError."""
    try:
        yield
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty") from None
    except pd.errors.ParserError as error:
        reason = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise DataError(f"{path} is not a table: {' '.join(reason.split())}{_ABOVE}") from None
    except UnicodeError:
        raise DataError(f"{path} is not {encoding} text; give its {option('encoding')}") from None


def found_form(path: Path, form: FileForm = ANY_FORM) -> FileForm:
    """How a text file is written, what is not given found out as `read_text_table` does.

    Args:
        path: the file.
        form: what is known of it.
    """
    encoding = form.encoding or _encoding(path, {})
    separator = _separator(path, encoding, form)
    names = _header(path, encoding, separator)
    frame = _parsed(path, names, {"encoding": encoding, "sep": separator}, form.decimal or ".")
    decimal = form.decimal or decimal_mark(path, frame, form, (), alone=separator != ",")
    return replace(form, encoding=encoding, separator=separator, decimal=decimal)
