"""A trained forecaster: what the command, `TitansForecaster` and a saved folder have in common.

W windows, H horizon, P levels.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from titans_seq.blocks import ModelState
from titans_seq.building import build_with_weights
from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.forecast.panel import Columns, Panel, pack_panel, unpack_panel
from titans_seq.datamodules.forecast.reading import read_future
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.windows import Anchors, Windows
from titans_seq.forecast.conformal import Conformal
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import SimbaForecaster, on_device
from titans_seq.forecast.outputs import PointOutput, point, quantiles
from titans_seq.forecast.saving import WRONG, first_line, output_of, plain_output
from titans_seq.forecast.stream import Stream, surprise_of
from titans_seq.model_folders import WEIGHTS, read_folder, write_folder

KIND, VERSION, SERIES = "forecaster", 3, "series.safetensors"
EVAL_SAMPLES = 1024  # per step of prediction
MOST_CALIBRATED = 2_000_000  # steps of windows; more of them are thinned out evenly
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
    """

    module: ForecastModule
    scaling: PanelScaling
    tail: Panel
    train_blocks: int = 1
    conformal: Conformal | None = None
    stream: Stream | None = None
    alias: str = "Titans"

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
    ) -> pd.DataFrame:
        """Forecast the H steps after the last row of each series.

        Args:
            panels: the series' rows up to now, of series known or new; None: as they ended in training, or as observed.
            future: future covariates over the horizon, where there are any.
            level: percentages of intervals, ascending.

        Returns:
            Long: id, time, forecast, then `-lo-` and `-hi-` columns. Of a wide panel one column per series, or with
            intervals columns (series, "forecast" | "lo-80" | ...).
        """
        if panels is None and self.stream is not None:
            stream = self.stream
            warn_of_empty(_empty(stream.rows, stream.scaling))
            return self.to_frame(self._predicted(stream.rows, future, level, stream.scaling, stream.older))
        parts, empty, wide = [], [], False
        for panel in [self.tail] if panels is None else panels:
            wide = panel.wide
            for part in panel.split(AT_ONCE):
                scaling = self.scaling.with_series(part)
                empty += _empty(part, scaling)
                parts.append(self._predicted(part.tail(self.context), future, level, scaling))
        warn_of_empty(empty)
        return self.to_frame(pd.concat(parts, ignore_index=True), wide)

    def backtest(self, panel: Panel, cut: int, level: Sequence[float]) -> pd.DataFrame:
        """Forecast the H rows that begin `cut` rows before the end of each series that is longer, beside what came."""
        long_enough = panel.rows(np.where(panel.lengths > cut, 0, panel.lengths), panel.lengths)
        history = long_enough.until(cut)
        past = history.tail(self.context)
        horizon = self.network.horizon
        rows = (long_enough.offsets[:-1] + long_enough.lengths - cut)[:, None] + np.arange(horizon)
        _require_known(long_enough, rows)
        ahead = past.extend(horizon, long_enough.future_covariates[rows])
        found = self.at(ahead, past.lengths, self.scaling.with_series(history), level)
        frame = self._frame(ahead, past.lengths, found)
        place = frame.columns.get_loc(self.alias)
        frame.insert(place, "cutoff", np.repeat(past.times[past.offsets[1:] - 1], horizon))
        frame.insert(place, panel.columns.target, long_enough.target[rows.ravel()])
        return frame

    def to_frame(self, frame: pd.DataFrame, wide: bool | None = None, alias: str | None = None) -> pd.DataFrame:
        """A long frame of forecasts as the data came: wide where they were."""
        wide = self.tail.wide if wide is None else wide
        return wide_frame(frame, self.tail.columns, alias or self.alias) if wide else frame

    def _predicted(
        self,
        past: Panel,
        future: pd.DataFrame | None,
        level: Sequence[float],
        scaling: PanelScaling,
        state: ModelState | None = None,
    ) -> pd.DataFrame:
        horizon = self.network.horizon
        ahead = past.extend(horizon, read_future(future, past, horizon))
        return self._frame(ahead, past.lengths, self.at(ahead, past.lengths, scaling, level, state))

    def at(
        self,
        panel: Panel,
        first: np.ndarray,
        scaling: PanelScaling,
        level: Sequence[float],
        state: ModelState | None = None,
    ) -> dict[str, np.ndarray]:
        """Columns of the forecast of every series from its row `first` on, in the units of the data, [N * H] each."""
        past = self.context if state is None else 2 * self.network.lookback
        anchors = Anchors(np.arange(len(panel))[:, None], first)
        windows = Windows(panel, scaling, past, self.network.horizon, anchors)
        points, bounds = forecasts(self.module, windows, level, state)
        if self.conformal is not None:
            bounds = self.conformal.apply(points, bounds, level)
        mean, deviation = scaling.of_target(panel).T
        points = points * deviation[:, None] + mean[:, None]
        bounds = bounds * deviation[:, None, None, None] + mean[:, None, None, None]
        columns = {self.alias: points.ravel()}
        for i, percent in enumerate(level):
            for j, side in enumerate(("lo", "hi")):
                columns[f"{self.alias}-{side}-{percent:g}"] = bounds[:, :, i, j].ravel()
        return columns

    def _frame(self, panel: Panel, first: np.ndarray, columns: dict[str, np.ndarray]) -> pd.DataFrame:
        horizon = self.network.horizon
        rows = ((panel.offsets[:-1] + first)[:, None] + np.arange(horizon)).ravel()
        key: dict[str, Any] = {} if panel.columns.id is None else {panel.columns.id: panel.ids.repeat(horizon)}
        return pd.DataFrame(key | {panel.columns.time: panel.times[rows]} | columns)

    # the memory ------------------------------------------------------------------------------------------------------

    def observe(self, panel: Panel) -> None:
        """Let the memory learn from new rows, without training; all or nothing."""
        if self.stream is None:
            _warn_of_forgotten(panel, self.tail)
            begun = Stream.begin(self.network, panel, self.scaling.with_series(panel))
            self.stream = begun.catch_up(self.network)
        else:
            self.stream = self.stream.observe(self.network, panel)

    def surprise(self, panels: Iterable[Panel]) -> pd.DataFrame:
        """How much each row surprised a memory that reads every series from its first row on.

        Returns:
            Long: id, time, "surprise". Of a wide panel one column per series.
        """
        parts, wide = [], False
        for panel in panels:
            wide = panel.wide
            found = surprise_of(self.network, panel, self.scaling.with_series(panel))
            columns = panel.columns
            key: dict[str, Any] = {} if columns.id is None else {columns.id: panel.ids.repeat(panel.lengths)}
            parts.append(pd.DataFrame(key | {columns.time: panel.times, "surprise": found}))
        return self.to_frame(pd.concat(parts, ignore_index=True), wide, "surprise")

    # intervals -------------------------------------------------------------------------------------------------------

    def calibrate(self, windows: Windows, levels: Sequence[float]) -> None:
        """Move intervals of these percentages until they cover as they should on these windows, or many of them."""
        asked = sorted(levels)
        windows = windows.at(windows.anchors.thin(max(1, MOST_CALIBRATED // self.network.horizon)))
        _, bounds = forecasts(self.module, windows, asked)
        self.conformal = Conformal.fit(windows.targets(), bounds, levels=asked)

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
            "about": about or {},
        }
        series = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        tensors = {WEIGHTS: self.network.state_dict(), SERIES: series}
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
        network = build_with_weights(SimbaForecaster, config["network"], weights)
        names: dict[str, Any] = config["columns"]
        lists = {key: tuple(name) for key, name in names.items() if isinstance(name, list)}
        columns = Columns(**(names | lists))
        conformal = None
        if config["levels"] is not None:
            conformal = Conformal(config["levels"], arrays["margin"])
            if conformal.margin.shape != (len(conformal.levels), network.horizon) or np.isnan(conformal.margin).any():
                raise ValueError(f"margin must be {(len(conformal.levels), network.horizon)}, without NaN")
        _require_rows(config["ids"], arrays)
        return cls(
            module=ForecastModule(network, output=output_of(config["output"]), **config["learning"]).eval(),
            scaling=PanelScaling.unpack(config, arrays),
            tail=unpack_panel(config, arrays, columns),
            train_blocks=config["train_blocks"],
            conformal=conformal,
            alias=config["alias"],
        )


@torch.inference_mode()
def forecasts(
    module: ForecastModule, windows: Windows, level: Sequence[float], state: ModelState | None = None
) -> tuple[Float[np.ndarray, "W H"], Float[np.ndarray, "W H P 2"]]:
    """Standardised point forecasts, and bounds of intervals.

    Args:
        module: of the network.
        windows: of one series each, or as many samples as there are.
        level: percentages of the intervals.
        state: of the memory before each window; None begins anew.
    """
    output, sides = module.output, [side for p in level for side in (0.5 - p / 200, 0.5 + p / 200)]
    points, bounds = [], []
    each = max(1, EVAL_SAMPLES // windows.anchors.series.shape[1])
    for begin in range(0, len(windows), each):
        chosen = slice(begin, min(begin + each, len(windows)))
        batch = on_device(windows.__getitems__(range(chosen.start, chosen.stop)), module.network)
        found = module.forecast(batch, None if state is None else state.select(chosen))
        here = point(output, *found)
        points.append(here.double().cpu().numpy())
        if isinstance(output, PointOutput):
            bounds.append(np.repeat(points[-1][..., None], len(sides), axis=-1))
        elif sides:
            bounds.append(quantiles(output, *found, sides).double().cpu().numpy())
    together = np.concatenate(points)
    both = np.concatenate(bounds) if sides else np.empty((*together.shape, 0))
    return together, both.reshape(*together.shape, len(level), 2)


def wide_frame(frame: pd.DataFrame, columns: Columns, alias: str) -> pd.DataFrame:
    """A long frame of forecasts with one column per series."""
    id_name = columns.id or "unique_id"
    order = frame[id_name].unique()
    table = frame.pivot(index=columns.time, columns=id_name)
    table.columns = table.columns.swaplevel()
    plain = table.columns.get_level_values(1).unique()
    names = {name: "forecast" if name == alias else str(name).removeprefix(f"{alias}-") for name in plain}
    table = table.rename(columns=names, level=1).reindex(columns=[(s, names[n]) for s in order for n in plain])
    table.columns.names = [None, None]
    return table.droplevel(1, axis=1) if len(plain) == 1 else table


def _empty(panel: Panel, scaling: PanelScaling) -> list[Any]:
    """Names of series without any value."""
    return panel.ids[np.isnan(scaling.of_target(panel)[:, 0])].tolist()


def warn_of_empty(names: list[Any]) -> None:
    """Say that these series' forecasts are missing."""
    if names:
        warnings.warn(
            f"{len(names)} series have no value at all, the first is {names[0]}: their forecasts are NaN",
            DataWarning,
            stacklevel=4,
        )


def _require_known(panel: Panel, rows: np.ndarray) -> None:
    """A future covariate must be there where there is something to score, as `predict` demands it."""
    lost = np.isnan(panel.future_covariates[rows]).any(axis=-1) & ~np.isnan(panel.target[rows])
    if lost.any():
        i, step = np.argwhere(lost)[0]
        row = rows[i, step]
        name = panel.columns.future_covariates[int(np.argmax(np.isnan(panel.future_covariates[row])))]
        raise DataError(
            f"column {name!r} is missing in series {panel.ids[i]} at {panel.times[row]}, which is to be forecast"
        )


def _warn_of_forgotten(first: Panel, fitted: Panel) -> None:
    place = fitted.ids.get_indexer(first.ids)
    later = (place >= 0) & np.asarray(first.first > fitted.last[place])
    if later.any():
        warnings.warn(
            f"{int(later.sum())} series begin after the rows of fit, the first is {first.ids[int(np.argmax(later))]}: "
            "the memory knows nothing of those; observe(df) the rows of fit first",
            DataWarning,
            stacklevel=4,
        )


def _require_rows(ids: Any, arrays: dict[str, np.ndarray]) -> None:
    """The arrays must have one entry per row, and rows for every series."""
    if not all(isinstance(name, str | int | float) for name in ids):
        raise ValueError("ids must be texts or numbers")
    times, offsets = arrays["times"], arrays["offsets"]
    rising = offsets.dtype == times.dtype == np.int64 and offsets.shape == (len(ids) + 1,) and times.ndim == 1
    if not rising or offsets[0] != 0 or offsets[-1] != len(times) or (np.diff(offsets) < 1).any():
        raise ValueError("the rows are not those of the series")
    for name in ("target", "past_covariates", "future_covariates"):
        if len(arrays[name]) != len(times):
            raise ValueError(f"{name} has {len(arrays[name])} rows; there are {len(times)} times")
