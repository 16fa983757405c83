"""Frames of many series, long or wide, as one panel: every series on a regular grid of time, what is missing left
missing.

R rows of all series one after another, N series, F known covariates, G past ones.
"""

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from titans_seq.datamodules.series import DataError, usual_step

MOST_STEPS = 10  # steps of the grid per row given, beyond which a date or the frequency must be wrong


@dataclass(frozen=True)
class Columns:
    """Names of a long frame's columns.

    Args:
        id: of the series; None where the frame holds one series without a name.
        time, target: time stamps or whole numbers; values.
        past: covariates known up to now. known: those known ahead. static: those of the series, one value each.
    """

    id: str | None = "unique_id"
    time: str = "ds"
    target: str = "y"
    past: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All that a table must have."""
        key = [] if self.id is None else [self.id]
        return [*key, self.time, self.target, *self.past, *self.known, *self.static]


def named(columns: Columns, names: Collection[Any]) -> Columns:
    """The columns of a table of these names: without an id column of the default name it holds one series."""
    return replace(columns, id=None) if columns.id == Columns().id and columns.id not in names else columns


@dataclass(frozen=True, eq=False)
class Panel:
    """N series, each a run of rows at a regular step, in the order of their first appearance.

    Args:
        ids: N names. freq: pandas alias of the step, or a whole number for numbered rows.
        times: R time stamps (or numbers), ascending inside a series.
        offsets: N + 1; series i has rows offsets[i] to offsets[i + 1].
        target: float64 [R], NaN where missing.
        past: float64 [R, G], known: float64 [R, F]; NaN where missing.
        static: one row per series.
        columns: the names it was read by.
    """

    ids: pd.Index
    freq: str | int
    times: pd.Index
    offsets: Int[np.ndarray, " N1"]
    target: Float[np.ndarray, " R"]
    past: Float[np.ndarray, "R G"]
    known: Float[np.ndarray, "R F"]
    static: pd.DataFrame
    columns: Columns = field(default_factory=Columns)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        return np.diff(self.offsets)

    @property
    def series(self) -> Int[np.ndarray, " R"]:
        """Which series a row belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def rows(self, begin: Int[np.ndarray, " N"], end: Int[np.ndarray, " N"]) -> "Panel":
        """The panel of the rows [begin, end) of each series, counted inside the series; series left without any are
        gone.
        """
        begin, end = np.clip(begin, 0, self.lengths), np.clip(end, 0, self.lengths)
        kept = np.flatnonzero(end > begin)
        return self._runs(kept, (self.offsets[:-1] + begin)[kept], (end - begin)[kept])

    def taken(self, which: Int[np.ndarray, " M"]) -> "Panel":
        """The panel of these series, in this order."""
        return self._runs(which, self.offsets[:-1][which], self.lengths[which])

    def divided(self, rows: int) -> Iterator["Panel"]:
        """Panels of whole series, in their order, each of about so many rows or of one longer series."""
        part = (self.offsets[1:] - 1) // rows
        for each in np.split(np.arange(len(self)), np.flatnonzero(np.diff(part)) + 1):
            yield self if len(each) == len(self) else self.taken(each)

    def _runs(
        self, which: Int[np.ndarray, " M"], first: Int[np.ndarray, " M"], lengths: Int[np.ndarray, " M"]
    ) -> "Panel":
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(first, lengths)
        return replace(
            self, ids=self.ids[which], times=self.times[rows], offsets=offsets, target=self.target[rows],
            past=self.past[rows], known=self.known[rows], static=self.static.iloc[which].reset_index(drop=True),
        )  # fmt: skip

    def until(self, steps: int) -> "Panel":
        """The panel without the last `steps` rows of each series."""
        return self.rows(np.zeros(len(self), dtype=np.int64), self.lengths - steps)

    def tail(self, steps: int) -> "Panel":
        """The last `steps` rows of each series."""
        return self.rows(self.lengths - steps, self.lengths)

    def followed(self, later: "Panel") -> "Panel":
        """The panel with the rows of `later`, whose series are among these, after its own.

        Raises:
            DataError: a series is new, or its first later row does not follow its last one here; the message names it
                and the time.
        """
        which = self.ids.get_indexer(later.ids)
        if (which < 0).any():
            raise DataError(
                f"series {later.ids[int(np.argmin(which))]} is new; only series observed from the start go on"
            )
        last = self.times[self.offsets[1:][which] - 1]
        wanted, first = future_times(last, 1, self.freq), later.times[later.offsets[:-1]]
        wrong = np.asarray(first != wanted)
        if wrong.any():
            i = int(np.argmax(wrong))
            what = "was observed already" if first[i] <= last[i] else f"leaves a gap after {_stamp(last[i])}"
            raise DataError(
                f"series {later.ids[i]}: {self.columns.time} {_stamp(first[i])} {what}; the next row is "
                f"{_stamp(wanted[i])} "
                "(give missing rows as NaN)"
            )
        order = np.argsort(np.concatenate([self.series, which[later.series]]), kind="stable")
        lengths = self.lengths.copy()
        lengths[which] += later.lengths

        def both(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            return np.concatenate([mine, theirs])[order]

        return replace(
            self,
            times=pd.Index(both(self.times.to_numpy(), later.times.to_numpy())),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            target=both(self.target, later.target),
            past=both(self.past, later.past),
            known=both(self.known, later.known),
        )

    def extended(self, steps: int, known: Float[np.ndarray, "N S F"] | None = None) -> "Panel":
        """The panel with `steps` more rows per series: target and past covariates missing, the known ones given [N,
        steps, F].
        """
        lengths = self.lengths + steps
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        old = np.arange(len(self.target)) + np.repeat(np.arange(len(self)) * steps, self.lengths)
        new = (offsets[1:, None] - steps + np.arange(steps)).ravel()

        def grown(values: np.ndarray) -> np.ndarray:
            out = np.full((offsets[-1], *values.shape[1:]), np.nan)
            out[old] = values
            return out

        grown_known = grown(self.known)
        if known is not None:
            grown_known[new] = known.reshape(len(new), -1)
        ahead = future_times(self.times[self.offsets[1:] - 1], steps, self.freq)
        times = np.empty(offsets[-1], dtype=self.times.dtype)
        times[old], times[new] = self.times.to_numpy(), ahead.to_numpy()
        return replace(
            self,
            times=pd.Index(times),
            offsets=offsets,
            target=grown(self.target),
            past=grown(self.past),
            known=grown_known,
        )


def joined(panels: Sequence[Panel]) -> Panel:
    """One panel of the series of several."""
    first, *others = panels
    if not others:
        return first
    lengths = np.concatenate([panel.lengths for panel in panels])
    return replace(
        first,
        ids=first.ids.append([panel.ids for panel in others]),
        times=first.times.append([panel.times for panel in others]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        target=np.concatenate([panel.target for panel in panels]),
        past=np.concatenate([panel.past for panel in panels]),
        known=np.concatenate([panel.known for panel in panels]),
        static=pd.concat([panel.static for panel in panels], ignore_index=True),
    )


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
        past=dense(columns.past),
        known=dense(columns.known),
        static=_static(frame, columns, codes, ids, order),
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


def future_times(last: pd.Index, steps: int, freq: str | int) -> pd.Index:
    """The `steps` grid points after each of N last ones, one after another: N * steps."""
    if isinstance(freq, int):
        return pd.Index((last.to_numpy()[:, None] + freq * np.arange(1, steps + 1)).ravel())
    step = _fixed_step(freq)
    if step is not None:
        return pd.DatetimeIndex((last.to_numpy()[:, None] + step * np.arange(1, steps + 1)).ravel())
    codes, stamps = pd.factorize(last)
    ahead = np.stack(
        [pd.date_range(stamp, periods=steps + 1, freq=freq)[1:].to_numpy() for stamp in pd.DatetimeIndex(stamps)]
    )
    return pd.DatetimeIndex(ahead[codes].ravel())


def known_ahead(future: pd.DataFrame | None, panel: Panel, steps: int) -> Float[np.ndarray, "N S F"] | None:
    """Covariates over the `steps` rows after each series' last one, from a long frame of id, time and those columns.

    Raises:
        DataError: the frame, a column, a series, a row or a value is missing; the message names it.
    """
    columns = panel.columns
    if not columns.known:
        if future is not None:
            raise DataError("future was given, but future_covariates names no column of it")
        return None
    if not isinstance(future, pd.DataFrame | None):
        raise DataError(f"future must be a DataFrame; got {type(future).__name__}")
    if future is None:
        raise DataError(f"the covariates {', '.join(columns.known)} are needed over the horizon; give them as future=")
    key = [columns.id] if columns.id is not None else []
    for name in (*key, columns.time, *columns.known):
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
    values = np.stack([_numbers(future, name, columns, what="future")[place] for name in columns.known], axis=-1)
    if np.isnan(values).any():
        row, column = np.argwhere(np.isnan(values))[0]
        raise DataError(f"future: column {columns.known[column]!r} is missing at {_shown(wanted[row])}")
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


def plain_freq(freq: Any) -> str | int | None:
    """A frequency as text or a whole number.

    Raises:
        DataError: it is neither, or not a step forward.
    """
    if freq is None or isinstance(freq, str):
        pass
    elif isinstance(freq, pd.tseries.offsets.BaseOffset):
        freq = freq.freqstr
    elif isinstance(freq, int | np.integer) and not isinstance(freq, bool):
        freq = int(freq)
    else:
        raise DataError(f"freq must be a frequency of pandas such as 'h', or a whole number; got {freq!r}")
    if isinstance(freq, str):
        offset = _known(freq)
        freq, steps = offset.freqstr, offset.n
    else:
        steps = freq
    if steps is not None and steps < 1:
        raise DataError(f"freq must be a step forward; got {freq!r}")
    return freq


def _known(freq: str) -> Any:
    """The offset of an alias; old aliases such as "H" and "M" are taken as what they are called now."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return pd.tseries.frequencies.to_offset(freq)
    except ValueError:
        raise DataError(f"freq {freq!r} is no frequency pandas knows; give e.g. 'h', 'D' or '15min'") from None


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
            f"series {ids[codes[at]]} has {columns.time} {_stamp(times[at])} twice (rows {order[at]} and "
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
    return _calendar_step(dates, found)


def _calendar_step(dates: pd.DatetimeIndex, found: str) -> str:
    """What the most frequent difference of days means where some rows are missing: months, quarters, years, business
    days.
    """
    days = pd.Timedelta(_fixed_step(found) or 0).days
    if not (dates == dates.normalize()).all():
        return found
    if days == 1 and len(dates) > 10 and (dates.dayofweek < 5).all():
        return "B"
    for least, most, name in ((28, 31, "month"), (90, 92, "quarter"), (365, 366, "year")):
        if least <= days <= most:
            for side, alias in (
                ("start", {"month": "MS", "quarter": "QS", "year": "YS"}),
                ("end", {"month": "ME", "quarter": "QE", "year": "YE"}),
            ):
                if getattr(dates, f"is_{name}_{side}").all():
                    return alias[name]
    return found


def _fixed_step(freq: str) -> np.timedelta64 | None:
    """The length of a step, None for steps of the calendar (months, business days, ...)."""
    offset = _known(freq)
    if isinstance(offset, pd.offsets.Day):  # no tick any more in pandas 3
        return np.timedelta64(offset.n, "D").astype("timedelta64[ns]")
    if isinstance(offset, pd.offsets.Tick):
        return np.timedelta64(pd.Timedelta(offset).value, "ns")
    return None


def _grid(
    codes: np.ndarray, times: np.ndarray, ids: pd.Index, freq: str | int, columns: Columns, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Place of every row on its series' grid, and steps of every series."""
    lengths = np.bincount(codes, minlength=len(ids))
    firsts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    step = freq if isinstance(freq, int) else _fixed_step(freq)
    if step is not None:
        since = times - times[firsts][codes]
        place, off = (since // step).astype(np.int64), (since % step).astype(np.int64) != 0
    else:
        place = _calendar_place(times, times[firsts][codes], str(freq))
        off = place < 0
    if off.any():
        row = int(np.argmax(off))
        raise DataError(
            f"series {ids[codes[row]]}: {columns.time} {_stamp(times[row])} (row {order[row]}) is not on the grid of "
            f"freq {freq!r}; give the right freq= or round the time stamps"
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


def _calendar_place(times: np.ndarray, starts: np.ndarray, freq: str) -> np.ndarray:
    """Steps of a calendar frequency from each row's start to the row, -1 where it is not on the grid that begins
    there.
    """
    place = np.empty(len(times), dtype=np.int64)
    for start in np.unique(starts):
        rows = starts == start
        grid = pd.date_range(start, times[rows].max(), freq=freq)
        # a start that is no anchor of the frequency would make a grid without it
        on_grid = len(grid) > 0 and grid[0] == pd.Timestamp(start)
        place[rows] = grid.get_indexer(pd.DatetimeIndex(times[rows])) if on_grid else -1
    return place


def _grid_times(times: np.ndarray, codes: np.ndarray, steps: np.ndarray, freq: str | int) -> pd.Index:
    firsts = np.searchsorted(codes, np.arange(len(steps)))
    starts = np.repeat(times[firsts], steps)
    place = np.arange(len(starts)) - np.repeat(np.cumsum(steps) - steps, steps)
    step = freq if isinstance(freq, int) else _fixed_step(freq)
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
    for name in columns.static:
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


def _stamp(time: Any) -> str:
    return str(pd.Timestamp(time)) if isinstance(time, np.datetime64) else str(time)


def _shown(key: Any) -> str:
    return f"series {key[0]} at {_stamp(key[1])}" if isinstance(key, tuple) else _stamp(key)
