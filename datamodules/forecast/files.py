"""A user's file as a panel: which column is what is given by name, or found out.

R rows.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.forecast.calendar import to_step
from titans_seq.datamodules.forecast.cells import to_numbers
from titans_seq.datamodules.forecast.options import option
from titans_seq.datamodules.forecast.panel import Columns, Panel
from titans_seq.datamodules.forecast.reading import WHOLE, listed, read_panel, read_wide, require_columns
from titans_seq.datamodules.forecast.tables import read_table
from titans_seq.datamodules.forecast.text_tables import ANY_FORM, FileForm
from titans_seq.datamodules.forecast.time_columns import find_time, require_one_time_column

__all__ = ["FileForm", "Names", "read_file", "read_future_file", "read_table"]


MOST = 0.5  # of a column's cells, by which it is told what the column is
ID = "unique_id"  # what a column with the names of series is called most often


@dataclass(frozen=True)
class Names:
    """Which columns of a file are what; None or (): found out.

    Args:
        id: names of the series, of a long file; without, a column called unique_id.
        time: dates or numbered steps; without, the first column that holds nothing but dates.
        target: the values. Several columns of a wide file are as many series.
        past_covariates, future_covariates, static_covariates: known up to now, known ahead, one value per series.
    """

    id: str | None = None
    time: str | None = None
    target: tuple[str, ...] = ()
    past_covariates: tuple[str, ...] = ()
    future_covariates: tuple[str, ...] = ()
    static_covariates: tuple[str, ...] = ()

    @property
    def covariates(self) -> tuple[str, ...]:
        return (*self.past_covariates, *self.future_covariates, *self.static_covariates)

    @property
    def given(self) -> list[str]:
        """All that the file must have."""
        return [name for name in (self.id, self.time, *self.target, *self.covariates) if name is not None]


def read_file(path: str | Path, names: Names = Names(), freq: Any = None, form: FileForm = ANY_FORM) -> Panel:
    """Read a user's file, as `read_table` reads it, in one of three shapes.

    With an id column it is long: many series under each other. Without, every numeric column is a series of a wide
    table. Without, but with covariates, it is one series.

    Args:
        path: the file.
        names: which columns are what.
        freq: the step as `to_step` reads it; None finds it.
        form: how the file is written.

    Raises:
        DataError: the file, a column or a cell is wrong; one line names it, and what to do.

    Warns:
        DataWarning: what was found out and changes values, or columns that are left out.
    """
    step = to_step(freq)
    table, where = read_table(path, form, (names.id or ID,))
    with _said_of(path):
        require_columns(table.columns, names.given, "the file")
        id_name = names.id or (ID if ID in table.columns else None)
        others = {name for name in (id_name, *names.given) if name is not None and name != names.time}
        table, time = find_time(table, names.time, others, id_name is not None)
        if id_name is None:
            require_one_time_column(table, time, [str(name) for name in table if name != time])
        if id_name is None and not names.covariates:
            columns = Columns(time=time)
            chosen = table[[time, *(names.target or _series(table, time))]]
            return read_wide(chosen, columns, step, where, form.day_first)
        table = table if id_name is None else table.assign(**{id_name: _plain_names(table[id_name])})
        columns = Columns(
            id_name, time, _one_target(table, names, id_name, time),
            names.past_covariates, names.future_covariates, names.static_covariates,
        )  # fmt: skip
        return read_panel(table, columns, step, where, form.day_first)


def read_future_file(path: str | Path, names: Names = Names(), form: FileForm = ANY_FORM) -> pd.DataFrame:
    """Read a file of future covariates as the frame that `read_future` takes, which checks its rows.

    Args:
        path: the file, which `read_table` reads.
        names: columns of id, time and future covariates, as of `read_file`; others of them are not looked at.
        form: how the file is written; `read_future` takes its `day_first`.

    Returns:
        The table, with names of series as text and time as `read_file` finds it.

    Raises:
        DataError: the file or a column is wrong; one line names it, and what to do.
    """
    table, _ = read_table(path, form, (names.id or ID,))
    with _said_of(path):
        known = [name for name in (names.id, *names.future_covariates) if name is not None]
        require_columns(table.columns, known if names.time is None else [names.time, *known], "the file")
        return find_time(table, names.time, {names.id or ID, *known}, (names.id or ID) in table)[0]


@contextmanager
def _said_of(path: str | Path) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _one_target(table: pd.DataFrame, names: Names, id_name: str | None, time: str) -> str:
    if len(names.target) == 1:
        return names.target[0]
    if names.target:
        what = "a file with covariates" if id_name is None else "a long file"
        raise DataError(f"{what} has one target; got {listed(names.target)}")
    known = {id_name, time, *names.covariates}
    left = [name for name in table if name not in known and pd.api.types.is_numeric_dtype(table[name].dtype)]
    usual = Columns().target
    if usual in left or len(left) == 1:
        return usual if usual in left else str(left[0])
    raise DataError(
        f"which column is to be forecast? give {option('target_col')}; numeric ones are: {listed(left) or 'none'}"
    )


def _series(table: pd.DataFrame, time: str) -> list[str]:
    """The columns of a wide table that are series."""
    names = [str(name) for name in table if name != time]
    # of all columns at once: a table may have thousands
    nothing, numeric = table.isna().all(), set(table.select_dtypes("number").columns)
    empty = [name for name in names if nothing[name]]
    names = [name for name in names if name not in set(empty)]
    if not names:
        raise DataError(f"no numeric column: every cell beside {time!r} is empty")
    require_one_time_column(table, time, names)
    text = [name for name in names if name not in numeric]
    wrong = dict.fromkeys(names, 0.0)
    wrong |= {name: to_numbers(table[name])[1].sum() / table[name].notna().sum() for name in text}
    repeated = table[time].duplicated(keep=False).mean() > MOST
    if repeated and (found := _id_of(table, time, [name for name in names if wrong[name] > 0])):
        raise DataError(
            f"dates in {time!r} repeat, so the file seems to be long: name the column of the series by "
            f"{option('id_col', found)}"
        )
    texts = [name for name in names if wrong[name] > MOST]
    if texts == names:
        raise DataError(
            f"no numeric column beside {time!r}: {listed(texts)} hold text; write plain numbers, such as 5605.88"
        )
    if texts:
        kept = [name for name in names if name not in set(texts)]
        raise DataError(
            f"columns {listed(texts)} hold no numbers; name what to forecast by {option('target_col')}: {listed(kept)}"
        )
    if empty:
        warnings.warn(f"columns {listed(empty)} are empty and left out", DataWarning, stacklevel=3)
    return names


def _id_of(table: pd.DataFrame, time: str, texts: Sequence[str]) -> str | None:
    """The column that seems to name the series: beside it no date repeats."""
    whole = [name for name in table if pd.api.types.is_integer_dtype(table[name].dtype)]
    for name in (*texts, *(name for name in whole if table[name].duplicated().any() and name != time)):
        if not table[[time, name]].duplicated().any():
            return str(name)
    return texts[0] if texts else None


def _plain_names(column: pd.Series) -> pd.Series:
    """Names of series: whole numbers where text would be the same."""
    if not pd.api.types.is_object_dtype(column.dtype) or column.isna().any():
        return column
    whole = column.astype(str).str.fullmatch(WHOLE)
    return column.astype(np.int64) if whole.all() else column
