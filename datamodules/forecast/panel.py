"""The one type of time series: a panel, every series on a regular grid of time, what is missing left missing.

R rows of all series one after another, N series, F future covariates, G past ones.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.calendar import Step, future_times, in_wall_time, plain_step, stamp_text, to_step
from titans_seq.datamodules.forecast.dates import in_zone, known_period, known_zone, on_one_clock


@dataclass(frozen=True)
class Columns:
    """Names of a long frame's columns.

    Args:
        id: of the series; None where the frame holds one series without a name.
        time, target: time stamps or whole numbers; values.
        past_covariates, future_covariates, static_covariates: known up to now, known ahead, one value per series.
    """

    id: str | None = "unique_id"
    time: str = "ds"
    target: str = "y"
    past_covariates: tuple[str, ...] = ()
    future_covariates: tuple[str, ...] = ()
    static_covariates: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All that a table must have."""
        key = [] if self.id is None else [self.id]
        return [*key, self.time, self.target, *self.past_covariates, *self.future_covariates, *self.static_covariates]


def named(columns: Columns, names: Collection[Any]) -> Columns:
    """The columns of a table of these names: without an id column of the default name it holds one series."""
    return replace(columns, id=None) if columns.id == Columns().id and columns.id not in names else columns


@dataclass(frozen=True, eq=False)
class Panel:
    """N series, each a run of rows at a regular step, in the order of their first appearance.

    Args:
        ids: N names.
        freq: the step, an offset of pandas or a whole number for numbered rows.
        clock: R time stamps (or numbers), ascending inside a series; or those of one series if all have the same, as
            the columns of a table, which would take as much memory as their values otherwise. They are as `Stamps` has
            them, without zone or period.
        offsets: N + 1; series i has rows offsets[i] to offsets[i + 1].
        target: float64 [R], NaN where missing.
        past_covariates, future_covariates: float64 [R, G] and [R, F], NaN where missing.
        static_covariates: one row per series.
        columns: the names it was read by.
        wide: whether it was a wide table, one column per series; forecasts go back into one.
        zone: the name of the time zone that the time stamps had.
        period: the alias of the periods that they were.
    """

    ids: pd.Index
    freq: Step
    clock: pd.Index
    offsets: Int[np.ndarray, " N1"]
    target: Float[np.ndarray, " R"]
    past_covariates: Float[np.ndarray, "R G"]
    future_covariates: Float[np.ndarray, "R F"]
    static_covariates: pd.DataFrame
    columns: Columns = field(default_factory=Columns)
    wide: bool = False
    zone: str | None = None
    period: str | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Int[np.ndarray, " N"]:
        return np.diff(self.offsets)

    @property
    def times(self) -> pd.Index:
        """The time stamps of all R rows, as they were given: of a zone, or periods."""
        return self._given(self.on_the_clock)

    def stamps(self, rows: Int[np.ndarray, " M"]) -> pd.Index:
        """The time stamps of these rows, as they were given."""
        return self._given(self._at(rows))

    @property
    def dates(self) -> pd.DatetimeIndex:
        """The time stamps of all R rows on the calendar where they were taken: periods by their start or end."""
        return pd.DatetimeIndex(self.on_the_clock if self.zone is None else self.times)

    @property
    def axis(self) -> pd.Index:
        """The time stamps of all R rows as pictures take them: dates, or whole numbers."""
        return self.on_the_clock if np.issubdtype(self.clock.dtype, np.integer) else self.dates

    def on_clock(self, stamp: pd.Timestamp) -> pd.Timestamp:
        """A time stamp as the clock has it; one without a zone means that of the panel.

        Raises:
            TypeError: it has a zone, and the panel has none.
        """
        if self.zone is None:
            if stamp.tz is not None:
                raise TypeError("a time zone where the data have none")
            return stamp
        if stamp.tz is None:  # an hour that a clock change leaves out or repeats: the next one, the first one
            stamp = stamp.tz_localize(self.zone, ambiguous=True, nonexistent="shift_forward")
        return stamp.tz_convert(self.zone if in_wall_time(self.freq) else "UTC").tz_localize(None)

    @property
    def first(self) -> pd.Index:
        """The first time stamp of each series, as the clock has it."""
        return self._at(self.offsets[:-1])

    @property
    def last(self) -> pd.Index:
        """The last time stamp of each series, as the clock has it."""
        return self._at(self.offsets[1:] - 1)

    @property
    def on_the_clock(self) -> pd.Index:
        """The time stamps of all R rows as the clock has them."""
        return self.clock if len(self.clock) == len(self.target) else self._at(np.arange(len(self.target)))

    def _at(self, rows: Int[np.ndarray, " M"]) -> pd.Index:
        return self.clock[rows % max(1, len(self.clock))]

    def _given(self, clock: pd.Index) -> pd.Index:
        if self.period is not None:
            return pd.DatetimeIndex(clock).to_period(self.period)
        if self.zone is None:
            return clock
        dates = pd.DatetimeIndex(clock)
        return in_zone(dates, self.zone) if in_wall_time(self.freq) else dates.tz_localize("UTC").tz_convert(self.zone)

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

    def take(self, which: Int[np.ndarray, " M"]) -> "Panel":
        """The panel of these series, in this order."""
        return self._runs(which, self.offsets[:-1][which], self.lengths[which])

    def split(self, rows: int) -> Iterator["Panel"]:
        """Panels of whole series, in their order, each of about `rows` rows or of one longer series."""
        part = (self.offsets[1:] - 1) // rows
        for each in np.split(np.arange(len(self)), np.flatnonzero(np.diff(part)) + 1):
            yield self if len(each) == len(self) else self.take(each)

    def _runs(
        self, which: Int[np.ndarray, " M"], first: Int[np.ndarray, " M"], lengths: Int[np.ndarray, " M"]
    ) -> "Panel":
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        inside = first % max(1, len(self.clock))
        # series that share their clock give the same rows: no array with the number of each
        table = len(self.clock) < len(self.target) and len(which) and not np.ptp(inside) and not np.ptp(lengths)
        if table:
            rows: Any = slice(inside[0], inside[0] + lengths[0])
            clock = self.clock[rows]
        else:
            rows = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(first, lengths)
            clock = self._at(rows)

        def take(values: np.ndarray) -> np.ndarray:
            if not table:
                return values[rows]
            by_series = values.reshape(len(self), len(self.clock), *values.shape[1:])
            return by_series[which, rows].reshape(offsets[-1], *values.shape[1:])

        return replace(
            self,
            ids=self.ids[which],
            clock=clock,
            offsets=offsets,
            target=take(self.target),
            past_covariates=take(self.past_covariates),
            future_covariates=take(self.future_covariates),
            static_covariates=self.static_covariates.iloc[which].reset_index(drop=True),
        )

    def until(self, steps: int) -> "Panel":
        """The panel without the last `steps` rows of each series."""
        return self.rows(np.zeros(len(self), dtype=np.int64), self.lengths - steps)

    def tail(self, steps: int) -> "Panel":
        """The last `steps` rows of each series."""
        return self.rows(self.lengths - steps, self.lengths)

    def append(self, later: "Panel") -> "Panel":
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
        if not on_one_clock(later.zone, self.zone, self.freq):
            raise DataError(f"{self.columns.time!r} has a time zone in some rows only; give it to all or none")
        last, first = self.last[which], later.first
        wanted = future_times(last, 1, self.freq)
        wrong = np.asarray(first != wanted)
        if wrong.any():
            i = int(np.argmax(wrong))
            what = "was observed already" if first[i] <= last[i] else f"leaves a gap after {stamp_text(last[i])}"
            raise DataError(
                f"series {later.ids[i]}: {self.columns.time} {stamp_text(first[i])} {what}; the next row is "
                f"{stamp_text(wanted[i])} "
                "(give missing rows as NaN)"
            )
        return self._with_rows(
            which[later.series], later.on_the_clock, later.target, later.past_covariates, later.future_covariates
        )

    def extend(self, steps: int, known: Float[np.ndarray, "N S F"] | None = None) -> "Panel":
        """The panel with `steps` more rows per series: target and past covariates missing, the known ones given [N,
        steps, F].
        """
        series = np.repeat(np.arange(len(self)), steps)
        target, past, future = (
            np.full((len(series), *values.shape[1:]), np.nan)
            for values in (self.target, self.past_covariates, self.future_covariates)
        )
        future = future if known is None else known.reshape(future.shape)
        return self._with_rows(series, future_times(self.last, steps, self.freq), target, past, future)

    def _with_rows(
        self, series: Int[np.ndarray, " M"], times: pd.Index, target: np.ndarray, past: np.ndarray, future: np.ndarray
    ) -> "Panel":
        """The panel with M more rows, each behind those of its series."""
        order = np.argsort(np.concatenate([self.series, series]), kind="stable")
        lengths = self.lengths + np.bincount(series, minlength=len(self))

        def both(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            return np.concatenate([mine, theirs])[order]

        return replace(
            self,
            clock=pd.Index(both(self.on_the_clock.to_numpy(), times.to_numpy())),
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            target=both(self.target, target),
            past_covariates=both(self.past_covariates, past),
            future_covariates=both(self.future_covariates, future),
        )


def join_panels(panels: Sequence[Panel]) -> Panel:
    """One panel of the series of several."""
    first, *others = panels
    if not others:
        return first
    lengths = np.concatenate([panel.lengths for panel in panels])
    return replace(
        first,
        ids=first.ids.append([panel.ids for panel in others]),
        clock=first.on_the_clock.append([panel.on_the_clock for panel in others]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        target=np.concatenate([panel.target for panel in panels]),
        past_covariates=np.concatenate([panel.past_covariates for panel in panels]),
        future_covariates=np.concatenate([panel.future_covariates for panel in panels]),
        static_covariates=pd.concat([panel.static_covariates for panel in panels], ignore_index=True),
    )


def from_columns(
    times: pd.Index, values: Float[np.ndarray, "C T"], names: Sequence[Any], columns: Columns, step: Step
) -> Panel:
    """The wide panel of rows as they are."""
    ids = np.empty(len(names), dtype=object)
    ids[:] = list(names)
    rows = values.size
    return Panel(
        ids=pd.Index(ids),
        freq=step,
        clock=times,
        offsets=np.arange(len(values) + 1) * len(times),
        target=values.reshape(-1),
        past_covariates=np.empty((rows, 0)),
        future_covariates=np.empty((rows, 0)),
        static_covariates=pd.DataFrame(index=pd.RangeIndex(len(values))),
        columns=columns,
        wide=True,
    )


def pack_panel(panel: Panel) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What JSON can hold (names, step, static covariates), and arrays (times as whole numbers)."""
    about = {
        "ids": panel.ids.tolist(),
        "freq": plain_step(panel.freq),
        "wide": panel.wide,
        "dates": not np.issubdtype(panel.clock.dtype, np.integer),
        "static": {name: panel.static_covariates[name].tolist() for name in panel.static_covariates},
        "id": panel.columns.id,
        "zone": panel.zone,
        "period": panel.period,
    }
    arrays = {
        "times": panel.on_the_clock.to_numpy().astype(np.int64),
        "offsets": panel.offsets,
        "target": panel.target,
        "past_covariates": panel.past_covariates,
        "future_covariates": panel.future_covariates,
    }
    return about, arrays


def unpack_panel(about: dict[str, Any], arrays: dict[str, np.ndarray], columns: Columns) -> Panel:
    """The panel again; columns: its names, but for that of the series, which frames of one series lack.

    Raises:
        ValueError: the step, time zone or period is unknown.
    """
    times = arrays["times"]
    ids = pd.Index(about["ids"])
    return Panel(
        ids=ids,
        freq=to_step(about["freq"]),
        clock=pd.DatetimeIndex(times.view("datetime64[ns]")) if about["dates"] else pd.Index(times),
        offsets=arrays["offsets"],
        target=arrays["target"],
        past_covariates=arrays["past_covariates"],
        future_covariates=arrays["future_covariates"],
        static_covariates=pd.DataFrame(about["static"], index=pd.RangeIndex(len(ids))),
        columns=replace(columns, id=about["id"]),
        wide=about["wide"],
        zone=known_zone(about["zone"]),
        period=known_period(about["period"]),
    )
