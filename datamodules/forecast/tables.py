"""Files of any kind as tables: text, Excel, Parquet."""

import warnings
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.common.files import open_bytes, user_path
from titans_seq.datamodules.forecast.cells import Where, frame_rows
from titans_seq.datamodules.forecast.options import option
from titans_seq.datamodules.forecast.panel import Columns
from titans_seq.datamodules.forecast.parquet import read_parquet
from titans_seq.datamodules.forecast.text_tables import (
    ANY_FORM,
    FileForm,
    checked_header,
    decimal_mark,
    read_text_table,
    say,
    with_numbers,
)

EXCEL = (".xlsx", ".xlsm", ".xls")
PARQUET = (".parquet", ".pq")
TEXT = (".csv", ".tsv", ".txt", ".gz", ".zip")


def read_table(path: str | Path, form: FileForm = ANY_FORM, text: Collection[str] = ()) -> tuple[pd.DataFrame, Where]:
    """Read a file of any kind.

    Args:
        path: text with a header (.csv, .tsv, .txt, as they are or in .gz or .zip), Excel (.xlsx, .xls), or Parquet, a
            file or a folder.
        form: how it is written; what it leaves open is found out.
        text: columns that stay text, such as names of series that look like numbers.

    Returns:
        The table, and a function that names its rows as lines of the file.

    Raises:
        DataError: no such file, a damaged or empty one, no table, a duplicate column.

    Warns:
        DataWarning: what was found out and changes values.
    """
    path = user_path(path)
    kind = path.suffix.lower()
    if kind in PARQUET or (path.is_dir() and kind not in TEXT):
        frame = read_parquet(path, {*text, str(Columns().id)})
        if not len(frame):
            raise DataError(f"{path} has no rows")
        return frame, frame_rows
    if kind in EXCEL:
        frame, lines = _read_excel(path, form, text)
    else:
        frame, lines = read_text_table(path, form, text)

    def where(*rows: int) -> str:
        return f" (line{'s' if len(rows) > 1 else ''} {' and '.join(str(lines[row]) for row in rows)})"

    return frame, where


def _read_excel(path: Path, form: FileForm, text: Collection[str]) -> tuple[pd.DataFrame, np.ndarray]:
    with open_bytes(path, "Excel file") as file, _excel_errors(path), pd.ExcelFile(file) as book:  # type: ignore[arg-type]
        sheet = _sheet(book, path, form)
        cells = book.parse(sheet, header=None, keep_default_na=False, na_values=[""], dtype=object)
    cells = cells.dropna(how="all").dropna(how="all", axis="columns")
    if not len(cells):
        raise DataError(f"{path} is empty")
    if len(cells) < 2:
        raise DataError(f"{path} has a header but no rows")
    names = checked_header(["" if pd.isna(cell) else str(cell) for cell in cells.iloc[0]], path)
    frame = cells.iloc[1:].set_axis(names, axis="columns")
    lines = frame.index.to_numpy() + 1
    frame = frame.reset_index(drop=True).infer_objects()
    frame = frame.assign(**{name: _text_of(frame[name]) for name in text if name in names})
    notes: dict[str, str] = {}
    decimal = form.decimal or decimal_mark(path, frame, form, text, alone=True)
    if decimal == "," and form.decimal is None:
        notes["decimal"] = "decimal commas"
    frame = with_numbers(frame, FileForm(decimal=decimal, thousands=form.thousands), text, notes)
    say(notes)
    return frame, lines


def _text_of(cells: pd.Series) -> pd.Series:
    return cells.map(lambda cell: cell if pd.isna(cell) else str(cell)).astype(object)


def _sheet(book: pd.ExcelFile, path: Path, form: FileForm) -> str:
    names = [str(name) for name in book.sheet_names]
    given = form.sheet
    if isinstance(given, str) and given not in names and given.isdecimal():
        given = int(given)
    if given is None:
        if len(names) > 1:
            warnings.warn(
                f"{path} has the sheets {', '.join(names[:6])}; the first is read (give {option('sheet')} for another)",
                DataWarning,
                stacklevel=4,
            )
        return names[0]
    if given in names:
        return str(given)
    if isinstance(given, int) and 0 <= given < len(names):
        return names[given]
    raise DataError(f"{path} has no sheet {given!r}; it has: {', '.join(names[:12])}")


@contextmanager
def _excel_errors(path: Path) -> Iterator[None]:
    """What openpyxl and xlrd raise, in one line."""
    try:
        yield
    except ImportError:
        raise DataError(f"{path}: Excel files need an extra: pip install 'titans-seq[excel]'") from None
    except DataError:
        raise
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise DataError(f"{path} is no Excel file ({error}); if it holds text, call it .csv") from None
