"""A trained forecaster: what the command, `TitansForecaster` and a saved folder have in common.

W windows, H horizon, P levels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from titans_seq.blocks import ModelState
from titans_seq.building import build_with_weights
from titans_seq.datamodules.common.errors import at_least
from titans_seq.datamodules.forecast.panel import Columns, Panel, pack_panel, unpack_panel
from titans_seq.datamodules.forecast.reading import read_future
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.windows import Anchors, Windows
from titans_seq.forecast.conformal import GRID, Conformal, level_margins
from titans_seq.forecast.frames import empty_series, require_known, warn_of_empty, warn_of_forgotten, wide_frame
from titans_seq.forecast.inference import forecasts
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import SimbaForecaster
from titans_seq.forecast.outputs import require_levels
from titans_seq.forecast.paths import error_correlation
from titans_seq.forecast.saving import (
    WRONG,
    first_line,
    joined_weights,
    output_of,
    plain_output,
    require_rows,
    split_weights,
)
from titans_seq.forecast.stream import Stream, surprise_of
from titans_seq.model_folders import WEIGHTS, read_folder, write_folder

KIND, VERSION, SERIES = "forecaster", 4, "series.safetensors"
MOST_CALIBRATED = 2_000_000  # steps of windows; more of them are thinned out evenly
GRID_CALIBRATED = 20_000  # for a hundred levels, at a microsecond per quantile of a Student-t
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
        known = read_future(future, past, steps)
        if known is not None:  # what lies beyond is not looked at
            known = np.pad(known, ((0, 0), (0, self.network.horizon - steps), (0, 0)), constant_values=np.nan)
        return past.extend(self.network.horizon, known)

    def backtest(self, panel: Panel, cut: int, level: Sequence[float]) -> pd.DataFrame:
        """Forecast the H rows that begin `cut` rows before the end of each series that is longer, beside what came."""
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
            ValueError: the model has not learned so many.
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
        """Columns of the forecast of every series from its row `first` on, in the units of the data, [N * H] each."""
        points, bounds = self.standardised(panel, first, scaling, level, state)
        points, bounds = scaling.to_units(panel, points), scaling.interval(panel, bounds)
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
        given = self._calibrated(level)
        points, bounds = forecasts(self.modules, windows, given, state)
        return points, bounds if self.conformal is None else self.conformal.apply(points, bounds, given)

    def frame(
        self, panel: Panel, first: np.ndarray, columns: dict[str, np.ndarray], steps: int | None = None
    ) -> pd.DataFrame:
        """The first steps of the forecasts from these rows on, or all."""
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
            found = surprise_of(self.network, panel, self.scaling.with_series(panel))
            columns = panel.columns
            key: dict[str, Any] = {} if columns.id is None else {columns.id: panel.ids.repeat(panel.lengths)}
            parts.append(pd.DataFrame(key | {columns.time: panel.times, "surprise": found}))
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
        """Move intervals until they cover as they should on these windows, or many of them.

        Args:
            windows: with targets the network was not trained on.
            levels: percentages that all windows count for; for the others of `GRID` fewer do.
        """
        exact, grid = sorted(levels), list(GRID)
        found = Conformal.fit(*self._scored(windows, exact, MOST_CALIBRATED), levels=exact)
        self.conformal = found.joined(
            Conformal(grid, level_margins(*self._scored(windows, grid, GRID_CALIBRATED), grid))
        )

    def learn_correlation(self, windows: Windows) -> None:
        """Measure how errors of neighbouring steps are correlated, on windows as of `calibrate`."""
        windows = self._some(windows, GRID_CALIBRATED)
        self.correlation = error_correlation(windows.targets() - forecasts(self.modules, windows, ())[0])

    def _some(self, windows: Windows, most: int) -> Windows:
        """So many of these windows that their series have at most `most` steps together."""
        steps = self.network.horizon * windows.anchors.series.shape[1]
        return windows.at(windows.anchors.thin(max(1, most // steps)))

    def _scored(self, windows: Windows, level: Sequence[float], most: int) -> tuple[np.ndarray, np.ndarray]:
        """Targets and bounds of at most so many steps."""
        windows = self._some(windows, most)
        return windows.targets(), forecasts(self.modules, windows, level)[1]

    # files -----------------------------------------------------------------------------------------------------------

    def save(self, folder: Path, about: dict[str, Any] | None = None) -> Path:
        """Write a folder that `load` reads.

        Args:
            about: what else to keep, as JSON can hold it.

        Raises:
            ValueError: a name or an option cannot be written as JSON.
            OSError: the disk is full, or refuses it.
        """
        header, arrays = pack_panel(self.tail)
        scaling, more = self.scaling.pack()
        arrays |= more
        if self.conformal is not None:
            arrays["margin"] = self.conformal.margin
        config = {
            **header,
            **scaling,
            "columns": vars(self.tail.columns),
            "network": self.network.options,
            "output": plain_output(self.module.output),
            "learning": {name: getattr(self.module, name) for name in ("learning_rate", "weight_decay")},
            "train_blocks": self.train_blocks,
            "levels": None if self.conformal is None else self.conformal.levels,
            "alias": self.alias,
            "correlation": self.correlation,
            "members": len(self.modules),
            "about": about or {},
        }
        series = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        tensors = {WEIGHTS: joined_weights([module.network for module in self.modules]), SERIES: series}
        write_folder(folder, KIND, VERSION, config, tensors)
        return folder

    @classmethod
    def load(cls, folder: Path) -> tuple["FittedForecaster", dict[str, Any]]:
        """What `save` wrote, on the CPU, and its `about`.

        Raises:
            ValueError: the folder or one of its files is missing, damaged or of another version.
        """
        config, (weights, series) = read_folder(folder, KIND, VERSION, [WEIGHTS, SERIES])
        arrays = {name: tensor.numpy() for name, tensor in series.items()}
        try:
            return cls._rebuilt(config, weights, arrays), dict(config["about"])
        except WRONG as error:
            raise ValueError(f"the files in {folder} do not fit each other: {first_line(error)}") from None

    @classmethod
    def _rebuilt(cls, config: dict[str, Any], weights: dict[str, Any], arrays: dict[str, Any]) -> "FittedForecaster":
        members = split_weights(weights, config["members"])
        network, *more = (build_with_weights(SimbaForecaster, config["network"], each) for each in members)
        names: dict[str, Any] = config["columns"]
        lists = {key: tuple(name) for key, name in names.items() if isinstance(name, list)}
        columns = Columns(**(names | lists))
        conformal = None
        if config["levels"] is not None:
            conformal = Conformal(config["levels"], arrays["margin"])
            if conformal.margin.shape != (len(conformal.levels), network.horizon) or np.isnan(conformal.margin).any():
                raise ValueError(f"margin must be {(len(conformal.levels), network.horizon)}, without NaN")
        require_rows(config["ids"], arrays)
        modules = [
            ForecastModule(each, output=output_of(config["output"]), **config["learning"]).eval()
            for each in (network, *more)
        ]
        return cls(
            module=modules[0],
            scaling=PanelScaling.unpack(config, arrays),
            tail=unpack_panel(config, arrays, columns),
            train_blocks=config["train_blocks"],
            conformal=conformal,
            alias=config["alias"],
            correlation=_correlation(config["correlation"]),
            others=tuple(modules[1:]),
        )


def _correlation(saved: Any) -> float | None:
    if saved is not None and not (isinstance(saved, float) and -1 < saved < 1):
        raise ValueError(f"correlation must be a number between -1 and 1; got {saved!r}")
    return saved
