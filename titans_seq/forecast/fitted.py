"""A trained forecaster: what the command, `TitansForecaster` and a saved folder have in common.

W windows, H horizon, P levels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from jaxtyping import Float

from titans_seq.blocks import ModelState
from titans_seq.datamodules.common.errors import at_least
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.reading import read_future
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.windows import Anchors, Windows
from titans_seq.forecast.conformal import GRID, Conformal, margins
from titans_seq.forecast.frames import (
    empty_series,
    require_known,
    surprise_frame,
    warn_of_empty,
    warn_of_forgotten,
    wide_frame,
)
from titans_seq.forecast.inference import MOST_CALIBRATED, forecasts, thinned
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import SimbaForecaster
from titans_seq.forecast.outputs import require_levels
from titans_seq.forecast.paths import error_correlation
from titans_seq.forecast.stream import Stream, surprise_of

GRID_CALIBRATED = 100_000  # steps for a hundred levels, at a microsecond per quantile of a Student-t
MOST_BOUNDS = 20_000_000  # numbers: those of all steps are held at once
AT_ONCE = 1_000_000  # rows of series that are made ready for prediction together


@dataclass(eq=False)
class FittedForecaster:
    """A network with its weights, the scales of its series, their last rows, and what it has observed since.

    Args:
        module: the network and its output.
        scaling: what was learned of the data.
        tail: the last rows of each series, from which `predict` goes on; it also knows the columns and the step.
        train_blocks: lookbacks of a context: the memory is carried from block to block.
        conformal: how far intervals are moved; None: they are the model's own.
        stream: what was observed; None: nothing.
        alias: name of the forecast's column.
        correlation: of the errors of neighbouring steps, for sample paths; None: unknown.
        others: further networks, trained from other seeds; forecasts are means over all.
        day_first: whether 01/02/2024 is the first of February in frames of future covariates; None: as it makes the
            dates regular.
    """

    module: ForecastModule
    scaling: PanelScaling
    tail: Panel
    train_blocks: int = 1
    conformal: Conformal | None = None
    stream: Stream | None = None
    alias: str = "Titans"
    correlation: float | None = None
    others: tuple[ForecastModule, ...] = ()
    day_first: bool | None = None

    @property
    def modules(self) -> tuple[ForecastModule, ...]:
        """All members of the ensemble; one without `others`."""
        return (self.module, *self.others)

    @property
    def network(self) -> SimbaForecaster:
        """The network, or one of the user's own with its `lookback` and `horizon`, which can forecast only."""
        return cast(SimbaForecaster, self.module.network)

    @property
    def context(self) -> int:
        """Rows that a forecast begins with where nothing was observed."""
        return self.network.lookback * self.train_blocks

    # forecasts -------------------------------------------------------------------------------------------------------

    def predict(
        self,
        panels: Iterable[Panel] | None = None,
        future: pd.DataFrame | None = None,
        level: Sequence[float] = (),
        horizon: int | None = None,
    ) -> pd.DataFrame:
        """Forecast the steps after the last row of each series.

        Args:
            panels: the series' rows up to now, of series known or new; None: as they ended in training, or as observed.
            future: future covariates over the horizon, where there are any.
            level: percentages of intervals, ascending. With conformal any up to 99.9.
            horizon: steps, at most H; None is H. The first steps are the same whatever it is.

        Returns:
            Long: id, time, forecast, then `-lo-` and `-hi-` columns. Of a wide panel one column per series, or with
            intervals columns (series, "forecast" | "lo-80" | ...).
        """
        steps, parts, empty, wide = self.steps(horizon), [], [], False
        for past, scaling, state in self.histories(panels):
            wide = past.wide
            empty += empty_series(past, scaling)
            ahead = self.ahead(past, future, steps)
            parts.append(self.frame(ahead, past.lengths, self.at(ahead, past.lengths, scaling, level, state), steps))
        warn_of_empty(empty)
        return self.to_frame(pd.concat(parts, ignore_index=True), wide)

    def future_frame(self, panels: Iterable[Panel] | None = None, horizon: int | None = None) -> pd.DataFrame:
        """The rows that `predict(future=...)` asks for: id, time, and NaN for each future covariate.

        Args:
            panels, horizon: as of `predict`.
        """
        steps = self.steps(horizon)
        parts = []
        for past, _, _ in self.histories(panels):
            ahead = past.extend(steps)
            empty = {name: np.full(len(past) * steps, np.nan) for name in past.columns.future_covariates}
            parts.append(self.frame(ahead, past.lengths, empty, steps))
        return pd.concat(parts, ignore_index=True)

    def histories(self, panels: Iterable[Panel] | None) -> Iterator[tuple[Panel, PanelScaling, ModelState | None]]:
        """The rows that a forecast begins with, a part of the series after the other, how they are standardised, and
        the memory's state before them.
        """
        if panels is None and self.stream is not None:
            yield self.stream.rows, self.stream.scaling, self.stream.older
            return
        for panel in [self.tail] if panels is None else panels:
            for part in panel.split(AT_ONCE):
                yield part.tail(self.context), self.scaling.with_series(part), None

    def ahead(self, past: Panel, future: pd.DataFrame | None, steps: int) -> Panel:
        """The rows with the horizon behind them."""
        known = read_future(future, past, steps, self.day_first)
        if known is not None:  # what lies beyond is not looked at
            known = np.pad(known, ((0, 0), (0, self.network.horizon - steps), (0, 0)), constant_values=np.nan)
        return past.extend(self.network.horizon, known)

    def backtest(self, panel: Panel, cut: int, level: Sequence[float]) -> pd.DataFrame:
        """Forecast the H rows that begin `cut` rows before the end of each series that is longer, beside what came.

        Args:
            panel: with the columns of the training.
            cut: at least H.
            level: percentages of intervals, ascending.

        Returns:
            long frame: id, time, the target, cutoff (the last time stamp seen), the forecast and its intervals.
        """
        long_enough = panel.rows(np.where(panel.lengths > cut, 0, panel.lengths), panel.lengths)
        history = long_enough.until(cut)
        past = history.tail(self.context)
        horizon = self.network.horizon
        rows = (long_enough.offsets[:-1] + long_enough.lengths - cut)[:, None] + np.arange(horizon)
        require_known(long_enough, rows)
        ahead = past.extend(horizon, long_enough.future_covariates[rows])
        found = self.at(ahead, past.lengths, self.scaling.with_series(history), level)
        frame = self.frame(ahead, past.lengths, found)
        place = frame.columns.get_loc(self.alias)
        frame.insert(place, "cutoff", np.repeat(past.times[past.offsets[1:] - 1], horizon))
        frame.insert(place, panel.columns.target, long_enough.target[rows.ravel()])
        return frame

    def to_frame(self, frame: pd.DataFrame, wide: bool | None = None, alias: str | None = None) -> pd.DataFrame:
        """A long frame of forecasts as the data came: wide where they were."""
        wide = self.tail.wide if wide is None else wide
        return wide_frame(frame, self.tail.columns, alias or self.alias) if wide else frame

    def steps(self, horizon: int | None) -> int:
        """How many steps are asked for; None: all that were learned.

        Raises:
            ValueError: the model has learned fewer steps.
        """
        most = self.network.horizon
        if horizon is None:
            return most
        at_least(1, horizon=horizon)
        if horizon > most:
            raise ValueError(f"horizon must be at most {most}, which the forecaster was fitted for; got {horizon}")
        return horizon

    def _calibrated(self, level: Sequence[float]) -> list[float]:
        """The levels whose intervals are given for these."""
        if self.conformal is not None:
            return self.conformal.covering(level)
        require_levels(self.module.output, level)
        return list(level)

    def at(
        self,
        panel: Panel,
        first: np.ndarray,
        scaling: PanelScaling,
        level: Sequence[float],
        state: ModelState | None = None,
    ) -> dict[str, np.ndarray]:
        """Columns of the forecast of every series, in the units of the data, [N * H] each.

        Args:
            panel: of N series, with at least H rows from `first` on, whose targets are not read.
            first: the first row of each forecast, counted in its series, [N].
            scaling: that knows these series.
            level: percentages of intervals, ascending.
            state: of the memory before the rows that are read; None begins a stream.
        """
        points, bounds = self.standardised(panel, first, scaling, level, state)
        moments = scaling.of_target(panel)
        points, bounds = scaling.to_units(moments, points), scaling.interval(moments, bounds)
        columns = {self.alias: points.ravel()}
        for i, percent in enumerate(level):
            for j, side in enumerate(("lo", "hi")):
                columns[f"{self.alias}-{side}-{percent:g}"] = bounds[:, :, i, j].ravel()
        return columns

    def standardised(
        self,
        panel: Panel,
        first: np.ndarray,
        scaling: PanelScaling,
        level: Sequence[float],
        state: ModelState | None,
    ) -> tuple[Float[np.ndarray, "N H"], Float[np.ndarray, "N H P 2"]]:
        """As `at`, points and bounds of intervals as they were learned: standardised."""
        past = self.context if state is None else 2 * self.network.lookback
        anchors = Anchors(np.arange(len(panel))[:, None], first)
        windows = Windows(panel, scaling, past, self.network.horizon, anchors)
        return self._standardised(windows, level, state)

    def _standardised(
        self, windows: Windows, level: Sequence[float], state: ModelState | None = None
    ) -> tuple[Float[np.ndarray, "B H"], Float[np.ndarray, "B H P 2"]]:
        given = self._calibrated(level)
        points, bounds = forecasts(self.modules, windows, given, state)
        return points, bounds if self.conformal is None else self.conformal.apply(points, bounds, given)

    def on(
        self, windows: Windows, scaling: PanelScaling, level: Sequence[float]
    ) -> tuple[Float[np.ndarray, "B H"], Float[np.ndarray, "B H P 2"]]:
        """Points and bounds of the forecast of every sample of some windows, in the units of the data.

        Args:
            windows: as the network sees them.
            scaling: that they were made with.
            level: percentages of intervals, ascending.
        """
        points, bounds = self._standardised(windows, level)
        moments = windows.moments[windows.anchors.series.ravel()]
        return scaling.to_units(moments, points), scaling.interval(moments, bounds)

    def frame(
        self, panel: Panel, first: np.ndarray, columns: dict[str, np.ndarray], steps: int | None = None
    ) -> pd.DataFrame:
        """Forecasts as a long frame: id, time, and the columns.

        Args:
            panel: as of `at`.
            first: as of `at`.
            columns: what `at` returned.
            steps: how many of the H; None: all.
        """
        steps = steps or self.network.horizon
        rows = ((panel.offsets[:-1] + first)[:, None] + np.arange(steps)).ravel()
        key: dict[str, Any] = {} if panel.columns.id is None else {panel.columns.id: panel.ids.repeat(steps)}
        first_steps = {name: values.reshape(len(panel), -1)[:, :steps].ravel() for name, values in columns.items()}
        return pd.DataFrame(key | {panel.columns.time: panel.times[rows]} | first_steps)

    # the memory ------------------------------------------------------------------------------------------------------

    def observe(self, panel: Panel) -> None:
        """Let the memory learn from new rows, without training; all or nothing.

        Raises:
            ValueError: there are several networks.
        """
        self.require_one_memory()
        if self.stream is None:
            warn_of_forgotten(panel, self.tail)
            begun = Stream.begin(self.network, panel, self.scaling.with_series(panel))
            self.stream = begun.catch_up(self.network)
        else:
            self.stream = self.stream.observe(self.network, panel)

    def surprise(self, panels: Iterable[Panel]) -> pd.DataFrame:
        """How much each row surprised a memory that reads every series from its first row on.

        Returns:
            Long: id, time, "surprise". Of a wide panel one column per series.

        Raises:
            ValueError: there are several networks.
        """
        self.require_one_memory()
        parts, wide = [], False
        for panel in panels:
            wide = panel.wide
            parts.append(surprise_frame(panel, surprise_of(self.network, panel, self.scaling.with_series(panel))))
        return self.to_frame(pd.concat(parts, ignore_index=True), wide, "surprise")

    def require_one_memory(self) -> None:
        """Raise a ValueError if there are several networks: each has a memory of its own."""
        if self.others:
            raise ValueError(
                f"observe and surprise need one memory, and a forecaster of {len(self.modules)} seeds has as many; "
                "use seeds=1"
            )

    # intervals -------------------------------------------------------------------------------------------------------

    def calibrate(self, windows: Windows, levels: Sequence[float]) -> None:
        """Move intervals until they cover as they should on these windows, or many samples of them.

        Args:
            windows: with targets the network was not trained on.
            levels: percentages that all windows count for, up to two million steps; for the others of `GRID` fewer do.
        """
        exact, grid = sorted(levels), list(GRID)
        target, points, bounds = self._scored(windows, exact, MOST_CALIBRATED)
        found = Conformal.fit(target, bounds, levels=exact, points=points)
        target, points, bounds = self._scored(windows, grid, GRID_CALIBRATED)
        self.conformal = found.joined(Conformal(grid, margins(target, bounds, grid, points)))

    def learn_correlation(self, windows: Windows) -> None:
        """Measure how errors of neighbouring steps are correlated, on windows as of `calibrate`."""
        windows = thinned(windows, GRID_CALIBRATED)
        self.correlation = error_correlation(windows.targets() - forecasts(self.modules, windows, ())[0])

    def _scored(self, windows: Windows, level: Sequence[float], most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Targets, points and bounds of windows with at most `most` steps together, fewer for many levels."""
        windows = thinned(windows, min(most, MOST_BOUNDS // (2 * len(level))))
        return windows.targets(), *forecasts(self.modules, windows, level)
