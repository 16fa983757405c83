"""Frames of many series, long or wide, as one panel: every series on a regular grid of time, what is missing left
missing.

R rows of all series one after another, N series, F known covariates, G past ones.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.calendar import (
    calendar_place,
    calendar_step,
    fixed_step,
    future_times,
    plain_freq,
    stamp_text,
    usual_step,
)
from titans_seq.datamodules.forecast.panel import Columns, Panel

MOST_STEPS = 10  # steps of the grid per row given, beyond which a date or the frequency must be wrong


# reading -------------------------------------------------------------------------------------------------------------


def read_panel(frame: pd.DataFrame, columns: Columns, freq: str | int | None = None) -> Panel:
    """Read a long frame.

    Rows may come in any order; a time stamp that is absent between a series' first and last row is a missing row. NaN
    is missing.

    Args:
        freq: pandas alias of the step, or for whole numbers the difference; None finds it in the longest series.

    Raises:
        DataError: a column is absent or not numeric, a value is infinite, a time stamp is missing, double or off the
            grid, a static covariate changes inside its series; the message names column, series and row.
    """
    if not isinstance(frame, pd.DataFrame):
        raise DataError(f"a pandas DataFrame is needed; got {type(frame).__name__}")
    if not len(frame):
        raise DataError("the frame has no rows")
    freq = plain_freq(freq)
    require_columns(frame.columns, columns)
    codes, ids = _codes(frame, columns)
    times = _times(frame[columns.time], columns, freq)
    order = np.lexsort((times, codes))
    codes, times = codes[order], times[order]
    _no_doubles(codes, times, ids, columns, order)
    lengths = np.bincount(codes, minlength=len(ids))
    step = freq if freq is not None else _find_freq(times, codes, lengths, columns)
    place, steps = _grid(codes, times, ids, step, columns, order)
    offsets = np.concatenate([[0], np.cumsum(steps)])
    rows = offsets[codes] + place

    def dense(names: Sequence[str]) -> Float[np.ndarray, "R K"]:
        out = np.full((offsets[-1], len(names)), np.nan)
        for i, name in enumerate(names):
            out[rows, i] = _numbers(frame, name, columns)[order]
        return out

    return Panel(
        ids=ids,
        freq=step,
        times=_grid_times(times, codes, steps, step),
        offsets=offsets,
        target=dense([columns.target])[:, 0],
        past_covariates=dense(columns.past_covariates),
        future_covariates=dense(columns.future_covariates),
        static_covariates=_static(frame, columns, codes, ids, order),
        columns=columns,
    )


def long_from_wide(frame: pd.DataFrame | pd.Series, columns: Columns) -> pd.DataFrame:
    """One series per column, the time in the index or in the time column -> the long frame.

    Raises:
        DataError: no time, no column, a name that stands twice, a column that holds no numbers.
    """
    if isinstance(frame, pd.Series):
        frame = frame.to_frame(frame.name if frame.name is not None else columns.target)
    if columns.time in frame.columns:
        frame = frame.set_index(columns.time)
    elif not isinstance(frame.index, pd.DatetimeIndex):
        dates = [name for name in frame.columns if _dated(frame[name])]
        if dates:
            raise DataError(f"column {dates[0]!r} holds dates; say so by time_col={dates[0]!r}")
        if not pd.api.types.is_integer_dtype(frame.index.dtype):
            raise DataError(f"a wide frame needs dates in its index or a column {columns.time!r}")
    doubles = frame.columns[frame.columns.duplicated()]
    if len(doubles):
        raise DataError(f"column {doubles[0]!r} stands twice in the frame; give each series a name of its own")
    if not len(frame.columns):
        raise DataError("the frame has no column of values")
    if isinstance(frame.columns, pd.MultiIndex):
        raise DataError(f"a wide frame needs one name per series; it has {frame.columns.nlevels} levels of names")
    for name in frame.columns:
        if frame[name].dtype.kind in "mMc":
            raise DataError(f"column {name!r} must hold numbers; it holds {frame[name].dtype}")
        wrong = pd.to_numeric(frame[name], errors="coerce").isna() & frame[name].notna()
        if wrong.any():
            row = int(np.argmax(wrong.to_numpy()))
            raise DataError(
                f"column {name!r}, {frame.index[row]} (row {row}): {frame[name].iloc[row]!r} is not a number"
            )
    names = np.empty(len(frame.columns), dtype=object)
    names[:] = list(frame.columns)
    return pd.DataFrame(
        {
            columns.id or "unique_id": np.repeat(names, len(frame)),
            columns.time: np.tile(frame.index.to_numpy(), len(frame.columns)),
            columns.target: np.concatenate([frame[name].to_numpy() for name in frame.columns]),
        }
    )


def _dated(column: pd.Series) -> bool:
    if column.dtype.kind == "M":
        return True
    text = column.dropna().head(5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no common format: then these are hardly dates
        return (
            len(text) > 0
            and not pd.api.types.is_numeric_dtype(column.dtype)
            and pd.to_datetime(text, errors="coerce").notna().all()
        )


def known_ahead(future: pd.DataFrame | None, panel: Panel, steps: int) -> Float[np.ndarray, "N S F"] | None:
    """Covariates over the `steps` rows after each series' last one, from a long frame of id, time and those columns.

    Raises:
        DataError: the frame, a column, a series, a row or a value is missing; the message names it.
    """
    columns = panel.columns
    if not columns.future_covariates:
        if future is not None:
            raise DataError("future was given, but future_covariates names no column of it")
        return None
    if not isinstance(future, pd.DataFrame | None):
        raise DataError(f"future must be a DataFrame; got {type(future).__name__}")
    if future is None:
        raise DataError(
            f"the covariates {', '.join(columns.future_covariates)} are needed over the horizon; give them as future="
        )
    key = [columns.id] if columns.id is not None else []
    for name in (*key, columns.time, *columns.future_covariates):
        if name not in future.columns:
            raise DataError(f"future has no column {name!r}; it has: {_listed(future.columns)}")
    ahead = future_times(panel.times[panel.offsets[1:] - 1], steps, panel.freq)
    names = panel.ids.repeat(steps)
    given_times = pd.Index(_times(future[columns.time], columns, panel.freq))
    if columns.id is not None:
        given = pd.MultiIndex.from_arrays([future[columns.id], given_times])
        wanted: pd.Index = pd.MultiIndex.from_arrays([names, ahead])
    else:
        given, wanted = given_times, ahead
    if given.has_duplicates:
        raise DataError(f"future has two rows for {_shown(given[given.duplicated()][0])}")
    place = given.get_indexer(wanted)
    if (place < 0).any():
        lost = int(np.argmax(place < 0))
        raise DataError(
            f"future has no row for {_shown(wanted[lost])}; it must cover the {steps} steps after each series' end"
        )
    values = np.stack(
        [_numbers(future, name, columns, what="future")[place] for name in columns.future_covariates], axis=-1
    )
    if np.isnan(values).any():
        row, column = np.argwhere(np.isnan(values))[0]
        raise DataError(f"future: column {columns.future_covariates[column]!r} is missing at {_shown(wanted[row])}")
    return values.reshape(len(panel), steps, -1)


# pieces --------------------------------------------------------------------------------------------------------------


def require_columns(names: pd.Index, columns: Columns, what: str = "the frame") -> None:
    """Refuse names that are absent, that stand twice, or that have two roles."""
    doubles = names[names.duplicated()]
    if len(doubles):
        raise DataError(f"column {doubles[0]!r} stands twice in {what}")
    for name in columns.names:
        if name not in names:
            raise DataError(f"{what} has no column {name!r}; it has: {_listed(names)}")
    twice = [name for name in columns.names if columns.names.count(name) > 1]
    if twice:
        raise DataError(f"column {twice[0]!r} has two roles; name each column once")


def _codes(frame: pd.DataFrame, columns: Columns) -> tuple[np.ndarray, pd.Index]:
    if columns.id is None:
        return np.zeros(len(frame), dtype=np.int64), pd.Index([columns.target])
    codes, ids = pd.factorize(frame[columns.id])
    if (codes < 0).any():
        raise DataError(f"column {columns.id!r} is empty in row {int(np.argmax(codes < 0))}")
    odd = [
        name
        for name in ids
        if not isinstance(name, str | int | float | np.integer | np.floating) or isinstance(name, bool)
    ]
    if odd:
        raise DataError(f"column {columns.id!r} must hold text or numbers; it holds {odd[0]!r}")
    return codes, pd.Index(np.asarray(ids))


def _times(column: pd.Series, columns: Columns, freq: str | int | None) -> np.ndarray:
    """Time stamps as datetime64[ns], or whole numbers."""
    if column.isna().any():
        row = int(np.argmax(column.isna().to_numpy()))
        raise DataError(f"column {columns.time!r}, row {row}: {column.iloc[row]!r} is no date")
    if pd.api.types.infer_dtype(column) == "integer":
        if isinstance(freq, str):
            raise DataError(
                f"column {columns.time!r} holds whole numbers, so freq must be a whole number too; got {freq!r}"
            )
        numbers = column.to_numpy(dtype=np.int64)
        if _like_dates(numbers):
            hint = f"pd.to_datetime(df[{columns.time!r}], format='%Y%m%d')"
            raise DataError(
                f"column {columns.time!r} holds dates written as whole numbers such as {numbers[0]}; convert it: {hint}"
            )
        return numbers
    if isinstance(freq, int):
        raise DataError(f"freq={freq} is for whole numbers in column {columns.time!r}; it holds {column.dtype}")
    if pd.api.types.is_numeric_dtype(column.dtype):
        raise DataError(f"column {columns.time!r} must hold dates or whole numbers; it holds {column.dtype}")
    text = pd.api.types.infer_dtype(column) == "string"
    # pandas would guess which number is the day, for each file anew
    dates = pd.to_datetime(column, errors="coerce", format="ISO8601" if text else None)
    if dates.isna().any():
        row = int(np.argmax(dates.isna().to_numpy()))
        hint = (
            "; text must be like 2024-01-31 13:00, anything else goes through pd.to_datetime(..., format=...) first"
            if text
            else ""
        )
        raise DataError(f"column {columns.time!r}, row {row}: {column.iloc[row]!r} is no date{hint}")
    if getattr(dates.dtype, "tz", None) is not None:
        raise DataError(f"column {columns.time!r} has a time zone; drop it with .dt.tz_localize(None)")
    return dates.to_numpy(dtype="datetime64[ns]")


def _like_dates(numbers: Int[np.ndarray, " R"]) -> bool:
    month, day = numbers // 100 % 100, numbers % 100
    return bool(
        ((numbers >= 19000101) & (numbers <= 21001231) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all()
    )


def _numbers(frame: pd.DataFrame, name: str, columns: Columns, what: str = "") -> Float[np.ndarray, " R"]:
    if frame[name].dtype.kind in "mMc":
        raise DataError(f"{what + ': ' if what else ''}column {name!r} must hold numbers; it holds {frame[name].dtype}")
    numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = (np.isnan(numbers) & frame[name].notna().to_numpy()) | np.isinf(numbers)
    if wrong.any():
        row = int(np.argmax(wrong))
        where = frame[columns.time].iloc[row]
        series = "" if columns.id is None else f"series {frame[columns.id].iloc[row]}, "
        value = frame[name].iloc[row]
        value = value.item() if isinstance(value, np.generic) else value
        raise DataError(
            f"{what + ': ' if what else ''}column {name!r}, {series}{columns.time} {where} (row {row}): "
            f"{value!r} is not a finite number"
        )
    return numbers


def _no_doubles(codes: np.ndarray, times: np.ndarray, ids: pd.Index, columns: Columns, order: np.ndarray) -> None:
    same = (codes[1:] == codes[:-1]) & (times[1:] == times[:-1])
    if same.any():
        at = int(np.argmax(same))
        hint = (
            ""
            if columns.id is not None
            else "; if the frame holds several series, name the column that tells them apart: id_col="
        )
        raise DataError(
            f"series {ids[codes[at]]} has {columns.time} {stamp_text(times[at])} twice (rows {order[at]} and "
            f"{order[at + 1]}){hint}"
        )


def _find_freq(times: np.ndarray, codes: np.ndarray, lengths: np.ndarray, columns: Columns) -> str | int:
    longest = times[codes == int(np.argmax(lengths))]
    if len(longest) < 2:
        raise DataError(f"no series has two rows, so the step of {columns.time!r} is unknown; give freq=")
    if np.issubdtype(times.dtype, np.integer):
        return int(pd.Series(np.diff(longest)).mode().iloc[0])
    dates = pd.DatetimeIndex(longest)
    found = usual_step(dates)
    assert found is not None  # two different time stamps
    return calendar_step(dates, found)


def _grid(
    codes: np.ndarray, times: np.ndarray, ids: pd.Index, freq: str | int, columns: Columns, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Place of every row on its series' grid, and steps of every series."""
    lengths = np.bincount(codes, minlength=len(ids))
    firsts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    step = freq if isinstance(freq, int) else fixed_step(freq)
    if step is not None:
        since = times - times[firsts][codes]
        place, off = (since // step).astype(np.int64), (since % step).astype(np.int64) != 0
    else:
        place = calendar_place(times, times[firsts][codes], str(freq))
        off = place < 0
    if off.any():
        row = int(np.argmax(off))
        raise DataError(
            f"series {ids[codes[row]]}: {columns.time} {stamp_text(times[row])} (row {order[row]}) is not on the "
            f"grid of freq {freq!r}; give the right freq= or round the time stamps"
        )
    inside = np.diff(place)[np.diff(codes) == 0]
    if len(inside) and inside.min() > 1:
        raise DataError(
            f"no two rows are one step of freq {freq!r} apart, the nearest are {inside.min()} steps; give a freq= "
            "that fits the data"
        )
    steps = place[firsts + lengths - 1] + 1
    sparse = steps > MOST_STEPS * lengths + 1000
    if sparse.any():
        worst = int(np.argmax(sparse))
        raise DataError(
            f"series {ids[worst]} has {lengths[worst]} rows over {steps[worst]} steps of freq {freq!r}; "
            "look for a wrong date, or give the right freq="
        )
    return place, steps


def _grid_times(times: np.ndarray, codes: np.ndarray, steps: np.ndarray, freq: str | int) -> pd.Index:
    firsts = np.searchsorted(codes, np.arange(len(steps)))
    starts = np.repeat(times[firsts], steps)
    place = np.arange(len(starts)) - np.repeat(np.cumsum(steps) - steps, steps)
    step = freq if isinstance(freq, int) else fixed_step(freq)
    if step is not None:
        return pd.Index(starts + place * step)
    found = np.empty(len(starts), dtype="datetime64[ns]")
    for start in np.unique(times[firsts]):
        rows = starts == start
        grid = pd.date_range(start, periods=int(place[rows].max()) + 1, freq=freq)
        found[rows] = grid.to_numpy()[place[rows]]
    return pd.DatetimeIndex(found)


def _static(frame: pd.DataFrame, columns: Columns, codes: np.ndarray, ids: pd.Index, order: np.ndarray) -> pd.DataFrame:
    """One row per series: numbers stay numbers, all else is text."""
    found: dict[str, Any] = {}
    firsts = np.searchsorted(codes, np.arange(len(ids)))
    for name in columns.static_covariates:
        values = frame[name].iloc[order].reset_index(drop=True)
        empty = values.isna().to_numpy()
        if empty.any():
            row = int(np.argmax(empty))
            raise DataError(f"static covariate {name!r} is empty in series {ids[codes[row]]} (row {order[row]})")
        changed = (values != values.iloc[firsts[codes]].reset_index(drop=True)).to_numpy()
        if changed.any():
            row = int(np.argmax(changed))
            raise DataError(
                f"static covariate {name!r} changes inside series {ids[codes[row]]} (row {order[row]}); "
                "it must have one value per series"
            )
        first = values.iloc[firsts].reset_index(drop=True)
        numeric = pd.api.types.is_numeric_dtype(first.dtype) and not pd.api.types.is_bool_dtype(first.dtype)
        if numeric and np.isinf(first.to_numpy(dtype=np.float64)).any():
            raise DataError(f"static covariate {name!r} is infinite in series {ids[int(np.argmax(np.isinf(first)))]}")
        found[name] = first.astype(np.float64) if numeric else first.astype(str)
    return pd.DataFrame(found, index=pd.RangeIndex(len(ids)))


def _listed(names: pd.Index) -> str:
    return ", ".join(map(str, names[:12])) + (", ..." if len(names) > 12 else "")


def _shown(key: Any) -> str:
    return f"series {key[0]} at {stamp_text(key[1])}" if isinstance(key, tuple) else stamp_text(key)
