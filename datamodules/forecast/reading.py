"""Frames of many series, long or wide, as one panel: every series on a regular grid of time, what is missing left
missing.

R rows of all series one after another, N series, F future covariates, G past ones, T time stamps, C columns of values.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.forecast.calendar import Step, future_times, stamp_text, to_periods, to_step
from titans_seq.datamodules.forecast.cells import Where, frame_rows, not_a_number, to_numbers
from titans_seq.datamodules.forecast.dates import is_date_text, on_one_clock, read_times
from titans_seq.datamodules.forecast.grid import lay_out
from titans_seq.datamodules.forecast.native import to_pandas
from titans_seq.datamodules.forecast.options import option
from titans_seq.datamodules.forecast.panel import Columns, Panel, from_columns, named
from titans_seq.datamodules.forecast.time_columns import UNNAMED, counts_rows

TEXT_COVARIATE = "; covariates that change in time are numbers: make a column of 0 and 1 for each of its values"
WHOLE = r"0|-?[1-9]\d{0,17}"  # text that is the same as a number

# reading -------------------------------------------------------------------------------------------------------------


def read_frame(
    df: pd.DataFrame | pd.Series, columns: Columns, freq: Any = None, day_first: bool | None = None
) -> Panel:
    """Read a frame of any shape: long; wide (one series per column); or a series of values.

    A frame is long if it has the id column, or if beside time, target and covariates it has no column. Time may stand
    in the index, also as periods, and beside the ids in an index of two levels. Columns of a long frame that `columns`
    does not name are not read.

    Args:
        df: the frame, of pandas, polars, or any library that narwhals knows or that exports Arrow.
        columns: names of a long frame's columns; the id column may be absent unless it was renamed.
        freq: the step as `to_step` reads it; None finds it in the longest series.
        day_first: whether 01/02/2024 is the first of February; None: as it makes the dates regular.

    Raises:
        DataError: something in the frame is wrong; the message names column, series and row.

    Warns:
        DataWarning: as `read_wide` and `read_dates`; dates stand for periods.
    """
    frame = _with_columns(df, columns)
    _once(frame.columns, "the frame")
    table = isinstance(df, pd.Series) and not isinstance(df.index, pd.MultiIndex)  # of one column
    if not table and _is_long(frame, columns):
        return read_panel(frame, named(columns, frame.columns), freq, day_first=day_first)
    if columns.past_covariates or columns.future_covariates or columns.static_covariates:
        raise DataError(
            f"covariates need a long frame with columns {columns.id!r}, {columns.time!r} and {columns.target!r}"
        )
    return _read_table(frame, columns, to_step(freq), day_first)


def read_panel(
    frame: pd.DataFrame,
    columns: Columns,
    freq: Any = None,
    where: Where = frame_rows,
    day_first: bool | None = None,
) -> Panel:
    """Read a long frame.

    Rows may come in any order; a time stamp that is absent between a series' first and last row is a missing row. NaN
    is missing.

    Args:
        frame: its rows.
        columns: names of its columns.
        freq: the step as `to_step` reads it; None finds it in the longest series.
        where: names rows in messages.
        day_first: as of `read_frame`.

    Raises:
        DataError: a column is absent or not numeric, a value is infinite, a time stamp is missing, double or off the
            grid, a static covariate changes inside its series; the message names column, series and row.
    """
    if not len(frame):
        raise DataError("the frame has no rows")
    step = to_step(freq)
    require_columns(frame.columns, columns.names)
    codes, ids = _codes(frame, columns)
    stamps = read_times(frame[columns.time], step, where, day_first)
    grid = lay_out(stamps.values, step, columns.time, where, codes, ids)

    def dense(names: Sequence[str]) -> Float[np.ndarray, "R K"]:
        out = np.empty((grid.offsets[-1], len(names)))
        for i, name in enumerate(names):
            out[:, i] = grid.dense(_numbers(frame, name, columns, where))
        return out

    return Panel(
        ids=ids,
        freq=grid.step,
        clock=grid.times,
        offsets=grid.offsets,
        target=dense([columns.target])[:, 0],
        past_covariates=dense(columns.past_covariates),
        future_covariates=dense(columns.future_covariates),
        static_covariates=_static(frame, columns, codes[grid.order], ids, grid.order, where),
        columns=columns,
        zone=stamps.zone,
        period=stamps.period,
    )


def read_wide(
    frame: pd.DataFrame,
    columns: Columns,
    step: Step | None,
    where: Where = frame_rows,
    day_first: bool | None = None,
) -> Panel:
    """Read a wide frame: time in its column, each other column a series; rows may come in any order.

    Raises:
        DataError: as `read_panel`.

    Warns:
        DataWarning: the first column is the index that pandas writes (it has no name and numbers the rows, of which
            some may have been dropped since); it is left out.
    """
    times = frame[columns.time]
    frame = frame.drop(columns=columns.time)
    if len(frame.columns) and frame.columns[0] == UNNAMED and counts_rows(frame[UNNAMED]):
        warnings.warn(
            f"the first column {UNNAMED!r} counts the rows and is left out; write files by to_csv(..., index=False)",
            DataWarning,
            stacklevel=4,
        )
        frame = frame.drop(columns=UNNAMED)
    if not len(frame.columns):
        raise DataError("the frame has no column of values")
    _require_names(frame.columns, "the header of a wide frame")
    stamps = read_times(times, step, where, day_first)
    values = np.empty((len(frame.columns), len(frame)))
    for i, name in enumerate(frame.columns):
        values[i], wrong = to_numbers(frame[name])
        if wrong.any():
            row = int(np.argmax(wrong))
            # that of the names of series, in a long frame
            text = f"if it names the series give {option('id_col', name)}" if wrong.all() else "correct it"
            raise DataError(
                f"column {name!r}, {stamp_text(stamps.values[row])}{where(row)}: "
                f"{not_a_number(frame[name].iloc[row])}; "
                f"{text}, or leave the column out: in a wide frame every column is a series"
            )
    grid = lay_out(stamps.values, step, columns.time, where)
    panel = from_columns(grid.times, grid.dense(values), frame.columns, columns, grid.step)
    return replace(panel, zone=stamps.zone, period=stamps.period)


def read_future(
    future: pd.DataFrame | None, panel: Panel, steps: int, day_first: bool | None = None
) -> Float[np.ndarray, "N S F"] | None:
    """Covariates over the `steps` rows after each series' last one, from a long frame of id, time and those columns.

    Args:
        future: the frame; None where there are no future covariates.
        panel: the rows before.
        steps: how many rows of each series.
        day_first: as of `read_frame`.

    Raises:
        DataError: the frame, a column, a series, a row or a value is missing; the message names it.
    """
    columns = panel.columns
    if not columns.future_covariates:
        if future is not None:
            raise DataError("future rows were given, but there are no future covariates; leave them out")
        return None
    if future is None:
        raise DataError(
            f"the covariates {', '.join(columns.future_covariates)} are needed over the horizon; give their rows by "
            "--future FILE (future= in Python)"
        )
    future = _with_columns(future, columns)
    key = [columns.id] if columns.id is not None else []
    for name in (*key, columns.time, *columns.future_covariates):
        if name not in future.columns:
            raise DataError(f"future has no column {name!r}; it has: {listed(future.columns)}")
    ahead = future_times(panel.last, steps, panel.freq)
    names = panel.ids.repeat(steps)
    stamps = read_times(_in_zone_of(panel, future[columns.time]), panel.freq, frame_rows, day_first)
    if not on_one_clock(stamps.zone, panel.zone, panel.freq):
        raise DataError(f"future and the data must both have a time zone in {columns.time!r}, or neither")
    times = stamps.values
    if not ahead.isin(times).all() and (periods := to_periods(times, panel.freq)) is not None:
        times = periods
    given, wanted = pd.Index(times), ahead
    if columns.id is not None:
        given = pd.MultiIndex.from_arrays([_names_as_in(panel, future[columns.id]), times])
        wanted = pd.MultiIndex.from_arrays([names, ahead])
    if given.has_duplicates:
        raise DataError(f"future has two rows for {_shown(given[given.duplicated()][0])}")
    place = given.get_indexer(wanted)
    if (place < 0).any():
        lost = int(np.argmax(place < 0))
        raise DataError(
            f"future has no row for {_shown(wanted[lost])}; it must cover the {steps} steps after each series' end"
        )
    values = np.stack(
        [_numbers(future, name, columns, frame_rows, "future: ")[place] for name in columns.future_covariates],
        axis=-1,
    )
    if np.isnan(values).any():
        row, column = np.argwhere(np.isnan(values))[0]
        raise DataError(f"future: column {columns.future_covariates[column]!r} is missing at {_shown(wanted[row])}")
    return values.reshape(len(panel), steps, -1)


def _names_as_in(panel: Panel, column: pd.Series) -> pd.Series:
    """Names of series: a file may have them as text where those of the panel are whole numbers."""
    text = column.astype(str)
    if not pd.api.types.is_integer_dtype(panel.ids.dtype) or not text.str.fullmatch(WHOLE).all():
        return column
    return text.astype(np.int64)


def _in_zone_of(panel: Panel, column: pd.Series) -> pd.Series:
    zoned = isinstance(column.dtype, pd.DatetimeTZDtype) and panel.zone is not None
    return column.dt.tz_convert(panel.zone) if zoned else column


# shapes of frames ----------------------------------------------------------------------------------------------------


def _with_columns(df: Any, columns: Columns) -> pd.DataFrame:
    """The frame, of any library, with ids and time in columns, where its index holds them."""
    df, _ = to_pandas(df)
    if isinstance(df, pd.Series):
        target = columns.target if df.name is None or isinstance(df.index, pd.MultiIndex) else df.name
        df = df.to_frame(target)
    if not isinstance(df, pd.DataFrame):
        raise DataError(f"a frame of pandas, polars or Arrow is needed; got {type(df).__module__}.{type(df).__name__}")
    if not len(df):
        raise DataError("the frame has no rows")
    if isinstance(df.columns, pd.MultiIndex):
        raise DataError(f"a frame needs one name per column; it has {df.columns.nlevels} levels of names")
    if isinstance(df.index, pd.MultiIndex):
        if df.index.nlevels != 2:
            raise DataError(f"the index has {df.index.nlevels} levels; use reset_index() and name the columns")
        first = isinstance(df.index.levels[0], pd.DatetimeIndex | pd.PeriodIndex)
        name = columns.id or Columns().id
        df = df.rename_axis([columns.time, name] if first else [name, columns.time])
        lost = [each for each in df.index.names if each in df.columns]
        if lost:
            raise DataError(f"{lost[0]!r} is in the index and a column; drop one of them")
        return df.reset_index()
    if columns.time not in df.columns and _holds_dates(df.index.to_series()):
        return df.rename_axis(columns.time).reset_index()
    return df


def _is_long(frame: pd.DataFrame, columns: Columns) -> bool:
    usual = Columns()
    others = [name for name in frame.columns if name not in columns.names]
    covariates = columns.past_covariates or columns.future_covariates or columns.static_covariates
    if columns.id is not None and columns.id in frame.columns or columns.target in frame.columns and covariates:
        return True
    if columns.target not in frame.columns or columns.time not in frame.columns:
        return False
    if others and columns.target != usual.target and columns.id == usual.id:
        raise DataError(
            f"beside {columns.target!r} the frame has columns {listed(others)}; drop them, name them as "
            f"covariates, or the column of series by {option('id_col')}; to forecast each column leave target_col= out"
        )
    return not others or columns.id != usual.id


def _read_table(frame: pd.DataFrame, columns: Columns, step: Step | None, day_first: bool | None) -> Panel:
    """A wide frame with time in its column or index."""
    if columns.time not in frame.columns:
        dates = [name for name in frame.columns if _holds_dates(frame[name])]
        if dates:
            raise DataError(f"column {dates[0]!r} holds dates; say so by {option('time_col', dates[0])}")
        if not pd.api.types.is_integer_dtype(frame.index.dtype):
            raise DataError(f"a wide frame needs dates in its index or a column {columns.time!r}")
        frame = frame.rename_axis(columns.time).reset_index()
    return read_wide(frame, columns, step, day_first=day_first)


def _holds_dates(column: pd.Series) -> bool:
    if column.dtype.kind == "M" or isinstance(column.dtype, pd.PeriodDtype):
        return True
    return pd.api.types.infer_dtype(column.head(5)) in ("string", "date", "datetime") and is_date_text(column.head(5))


def _numbers(frame: pd.DataFrame, name: str, columns: Columns, where: Where, what: str = "") -> Float[np.ndarray, " R"]:
    numbers, wrong = to_numbers(frame[name])
    if wrong.any():
        row = int(np.argmax(wrong))
        series = "" if columns.id is None else f"series {frame[columns.id].iloc[row]}, "
        raise DataError(
            f"{what}column {name!r}, {series}{columns.time} {frame[columns.time].iloc[row]}{where(row)}: "
            f"{not_a_number(frame[name].iloc[row])}{'' if name == columns.target else TEXT_COVARIATE}"
        )
    return numbers


# pieces --------------------------------------------------------------------------------------------------------------


def require_columns(names: pd.Index, wanted: Sequence[str], what: str = "the frame") -> None:
    """Refuse absent and duplicate names, and names with two roles."""
    _once(names, what)
    for name in wanted:
        if name not in names:
            raise DataError(f"{what} has no column {name!r}; it has: {listed(names)}")
    twice = [name for name in wanted if wanted.count(name) > 1]
    if twice:
        raise DataError(f"column {twice[0]!r} has two roles; name each column once")


def _once(names: pd.Index, what: str) -> None:
    doubles = names[names.duplicated()]
    if len(doubles):
        raise DataError(f"duplicate column {doubles[0]!r} in {what}; give each a name of its own")


def _codes(frame: pd.DataFrame, columns: Columns) -> tuple[np.ndarray, pd.Index]:
    if columns.id is None:
        return np.zeros(len(frame), dtype=np.int64), pd.Index([columns.target])
    codes, ids = pd.factorize(frame[columns.id])
    if (codes < 0).any():
        raise DataError(f"column {columns.id!r} is empty in row {int(np.argmax(codes < 0))}")
    _require_names(ids, f"column {columns.id!r}")
    return codes, pd.Index(np.asarray(ids))


def _require_names(ids: pd.Index, what: str) -> None:
    """Names of series go into JSON."""
    for name in ids:
        if not isinstance(name, str | int | float | np.integer | np.floating) or isinstance(name, bool):
            raise DataError(f"{what} must hold text or numbers as names of series; it holds {name!r}")


def _static(
    frame: pd.DataFrame, columns: Columns, codes: np.ndarray, ids: pd.Index, order: np.ndarray, where: Where
) -> pd.DataFrame:
    """One row per series: numbers stay numbers, all else is text."""
    found: dict[str, Any] = {}
    firsts = np.searchsorted(codes, np.arange(len(ids)))
    for name in columns.static_covariates:
        values = frame[name].iloc[order].reset_index(drop=True)
        empty = values.isna().to_numpy()
        if empty.any():
            row = int(np.argmax(empty))
            raise DataError(f"static covariate {name!r} is empty in series {ids[codes[row]]}{where(int(order[row]))}")
        changed = (values != values.iloc[firsts[codes]].reset_index(drop=True)).to_numpy()
        if changed.any():
            row = int(np.argmax(changed))
            raise DataError(
                f"static covariate {name!r} changes inside series {ids[codes[row]]}{where(int(order[row]))}; "
                "it must have one value per series"
            )
        first = values.iloc[firsts].reset_index(drop=True)
        numeric = pd.api.types.is_numeric_dtype(first.dtype) and not pd.api.types.is_bool_dtype(first.dtype)
        if numeric and np.isinf(first.to_numpy(dtype=np.float64)).any():
            raise DataError(f"static covariate {name!r} is infinite in series {ids[int(np.argmax(np.isinf(first)))]}")
        found[name] = first.astype(np.float64) if numeric else first.astype(str)
    return pd.DataFrame(found, index=pd.RangeIndex(len(ids)))


def listed(names: Sequence[Any] | pd.Index) -> str:
    return ", ".join(map(str, names[:12])) + (", ..." if len(names) > 12 else "")


def _shown(key: Any) -> str:
    return f"series {key[0]} at {stamp_text(key[1])}" if isinstance(key, tuple) else stamp_text(key)
