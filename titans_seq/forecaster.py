"""A forecaster for people with frames: fit, predict, backtest, save.

W windows, H horizon, N series.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Self, TypeAlias

import lightning as L
import numpy as np
import pandas as pd
import torch
from gluonts.torch.distributions import Output
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from torch import nn

from titans_seq.blocks import ModelState
from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.common.files import user_path
from titans_seq.datamodules.forecast.calendar import plain_freq
from titans_seq.datamodules.forecast.panel import Columns, Panel, joined, named
from titans_seq.datamodules.forecast.panel_data import PanelData
from titans_seq.datamodules.forecast.panel_windows import PanelScaling, PanelWindows
from titans_seq.datamodules.forecast.parquet import Parts, sort_parquet
from titans_seq.datamodules.forecast.reading import known_ahead, long_from_wide, read_panel
from titans_seq.draws import Draws
from titans_seq.forecast.conformal import Conformal
from titans_seq.forecast.online import Stream, surprise_of
from titans_seq.forecast.outputs import (
    OUTPUTS,
    PointOutput,
    centre,
    make_output,
    output_arguments,
    quantiles,
    raw_size,
    require_levels,
)
from titans_seq.forecast.panel import PanelForecaster, PanelModule, on_device
from titans_seq.forecast.saving import load_fitted, load_stream, save_fitted, save_stream
from titans_seq.training import interruptible, quiet_training

Frame: TypeAlias = pd.DataFrame | pd.Series
Data: TypeAlias = Frame | str | Path  # a path: of Parquet files
LEVEL = (80, 95)  # intervals that are given unless others are asked for
EVAL_BATCH = 1024  # windows per step of prediction
AT_ONCE = 1_000_000  # rows of series that are made ready for prediction together
MIN_SCALE = 0.05  # of a lookback, in deviations of its series; see `PanelForecaster`
# arguments that are whole numbers, and the least they may be
LEAST = {
    "horizon": 1,
    "lookback": 1,
    "val_size": 0,
    "train_blocks": 1,
    "max_epochs": 1,
    "steps_per_epoch": 1,
    "patience": 1,
    "batch_size": 1,
    "seed": 0,
}
# arguments that are built into a fitted forecaster
BUILT = (
    "horizon",
    "lookback",
    "output",
    "conformal",
    "levels",
    "past_covariates",
    "future_covariates",
    "static_covariates",
    "calendar",
    "id_col",
    "time_col",
    "target_col",
    "mixer",
    "network",
    "train_blocks",
)


class TitansForecaster(BaseEstimator):
    """Forecast many series, each with gaps, covariates and a length of its own, by one network with the neural memory.

    Frames are long (columns `unique_id`, `ds`, `y`, names by argument; without an id column one series) or wide (time
    in the index or in the time column, one series per column); forecasts come back in the same shape and in the units
    of the data. Time stamps that are absent and values that are NaN are masked, never filled. Nothing after a cutoff
    enters any scaling, input or forecast before it. Long tables that do not fit into memory are given as the path of a
    folder of Parquet files.

        model = TitansForecaster(horizon=24, freq="h").fit(df)
        model.predict(level=(80, 95))

    Args:
        horizon: steps to forecast.
        freq: pandas alias of the step, or a whole number where time is numbered; None finds it.
        lookback: steps the network sees, at least 16; None is the larger of 96 and two horizons. Shorter series are
            padded by mask.
        output: "quantiles" (pinball loss, never crossing), "student_t", "mse", "mae", "huber" (one value), or an
            `Output` of GluonTS's with a density over all numbers (Student-t, normal, Laplace) or with quantiles.
        conformal: whether intervals are widened or narrowed until they cover as they should on the validation rows
            (split conformal).
        levels: percentages of the intervals to calibrate, for conformal.
        val_size: last rows of each series for early stopping and calibration; None is the larger of two horizons and 15
            % of the median length; 0 trains on all rows (conformal=False then).
        past_covariates, future_covariates, static_covariates: columns known up to now, known ahead, and constant per
            series.
        calendar: whether hour, weekday, ... of the time stamps are covariates.
        id_col, time_col, target_col: names of a long frame's columns. alias: name of the forecast's column.
        mixer: "memory", "attention", "ssm" or "none", or a callable that makes a module `[B, N, D] -> [B, N, D]` from
            the width D. With a module of your own, `fit` seeds PyTorch's global generators, from which its dropout
            draws, and sets them back at the end. This is not safe while other threads draw or fit such modules.
        network: more options of `SimbaForecaster` and of the mixer, e.g. {"dim": 64, "depth": 3}.
        max_epochs, steps_per_epoch, patience: an epoch is so many batches; training ends early after `patience` epochs
            without a better validation loss.
        train_blocks: train on so many consecutive lookbacks with the memory carried on from one to the next, as
            `observe` carries it; forecasts then begin so many lookbacks ago.
        batch_size, learning_rate, weight_decay, seed: of training; the same seed on the same machine gives the same
            model, also beside fits in other threads, unless `mixer` is a callable.
        accelerator: as of Lightning's Trainer. progress: whether to draw a bar while training.

    `fit` on a fitted forecaster goes on with its weights and scalings; `sklearn.base.clone` gives a fresh one.

    Attributes, after fit:
        history_: training and validation loss per epoch. module_: the LightningModule. scaling_: what was learned of
            the data.
    """

    module_: PanelModule
    scaling_: PanelScaling
    freq_: str | int
    history_: list[dict[str, float]]
    fits_: int
    wide_: bool
    tail_: Panel  # the last rows of each series
    conformal_: Conformal | None
    built_: dict[str, Any]
    stream_: Stream | None  # what was observed

    def __init__(
        self,
        horizon: int = 24,
        freq: str | int | None = None,
        *,
        lookback: int | None = None,
        output: str | Output = "quantiles",
        conformal: bool = True,
        levels: Sequence[float] = (50, 80, 90, 95),
        val_size: int | None = None,
        past_covariates: Sequence[str] = (),
        future_covariates: Sequence[str] = (),
        static_covariates: Sequence[str] = (),
        calendar: bool = True,
        id_col: str = "unique_id",
        time_col: str = "ds",
        target_col: str = "y",
        alias: str = "Titans",
        mixer: str | Callable[[int], nn.Module] = "memory",
        network: dict[str, Any] | None = None,
        train_blocks: int = 1,
        max_epochs: int = 20,
        steps_per_epoch: int = 200,
        patience: int = 3,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        seed: int = 0,
        accelerator: str = "auto",
        progress: bool = False,
    ) -> None:
        self.horizon = horizon
        self.freq = freq
        self.lookback = lookback
        self.output = output
        self.conformal = conformal
        self.levels = levels
        self.val_size = val_size
        self.past_covariates = past_covariates
        self.future_covariates = future_covariates
        self.static_covariates = static_covariates
        self.calendar = calendar
        self.id_col = id_col
        self.time_col = time_col
        self.target_col = target_col
        self.alias = alias
        self.mixer = mixer
        self.network = network
        self.train_blocks = train_blocks
        self.max_epochs = max_epochs
        self.steps_per_epoch = steps_per_epoch
        self.patience = patience
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.seed = seed
        self.accelerator = accelerator
        self.progress = progress

    # the interface ---------------------------------------------------------------------------------------------------

    def fit(self, df: Data, y: None = None) -> Self:
        """Train on a frame; on a fitted forecaster, go on training.

        Args:
            df: long or wide frame, a series with dates in its index, or the path of Parquet files that hold a long
                table: they are sorted into the folder for temporary files, and memory holds a part of the series at a
                    time.
            y: not used; scikit-learn's pipelines pass it.

        Raises:
            DataError: something in the frame is wrong; the message names column, series and row.
            ValueError: an argument of the constructor is wrong.
        """
        self._check_arguments()
        with self._opened(df, getattr(self, "freq_", None)) as (panels, wide):
            return self._fit_panels(panels, wide)

    def predict(
        self, df: Data | None = None, future: pd.DataFrame | None = None, level: Sequence[float] | None = LEVEL
    ) -> pd.DataFrame:
        """Forecast the `horizon` steps after the last row of each series.

        Args:
            df: the series' rows up to now, of series known or new, as of `fit`; None: as they ended there.
            future: known covariates over the horizon (id, time and their columns), where there are any.
            level: percentages of intervals; None for none. The default falls back on the calibrated `levels` where 80
                and 95 are not among them, and on none for a model of one value without conformal.

        Returns:
            Long: id, time, forecast, then `-lo-` and `-hi-` columns. Wide: one column per series, or with intervals
            columns (series, "forecast" | "lo-80" | ...). Of Parquet files in the order of the series' names.
        """
        self._require_fitted()
        asked = self._levels(level)
        if df is None and self.stream_ is not None:
            stream = self.stream_
            _warn_of_empty(_empty(stream.rows, stream.scaling))
            return self._shaped(self._predicted(stream.rows, future, asked, stream.scaling, stream.older), self.wide_)
        with nullcontext(([self.tail_], self.wide_)) if df is None else self._opened(df, self.freq_) as (panels, wide):
            parts, empty = [], []
            for part in (part for panel in panels for part in panel.divided(AT_ONCE)):
                scaling = self.scaling_.with_series(part)
                empty += _empty(part, scaling)
                parts.append(self._predicted(part.tail(self._context), future, asked, scaling))
            _warn_of_empty(empty)
            return self._shaped(self._ordered(pd.concat(parts, ignore_index=True), panels), wide)

    def observe(self, df: Frame) -> Self:
        """Let the memory learn from new rows, without training: `predict()` goes on from them.

        The first call begins the streams, of any series: give it the rows of `fit` too if they are to be remembered.
        Later calls give the rows that follow. Rows are read in blocks of `lookback`; what is left over waits for more,
        and counts in forecasts all the same. All or nothing: after an error nothing has changed.

        Raises:
            DataError: a row was observed already, rows are missing in between, a series is new, a column is absent.
            ValueError: the forecaster has no memory (mixer).
        """
        self._require_fitted()
        if isinstance(df, str | Path):
            raise DataError("observe takes a frame: the memories of all its series are held at once")
        panel, _ = self._read(df, self.freq_)
        network = self.module_.network
        if self.stream_ is None:
            _warn_of_forgotten(panel, self.tail_)
            self.stream_ = Stream.begin(network, panel, self.scaling_.with_series(panel)).caught_up(network)
        else:
            self.stream_ = self.stream_.observed(network, panel)
        return self

    def reset(self) -> Self:
        """Forget what was observed: forecasts begin from the learned memory again."""
        self._require_fitted()
        self.stream_ = None
        return self

    def save_state(self, path: str | Path) -> Path:
        """Write what was observed to one file, apart from the weights."""
        self._require_fitted()
        if self.stream_ is None:
            raise ValueError("nothing was observed yet; call observe(df) first")
        return save_stream(self.stream_, self.module_.network, Path(path))

    def load_state(self, path: str | Path) -> Self:
        """Go on from what `save_state` wrote, with the same weights.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no such state, a damaged one, or that of another model.
        """
        self._require_fitted()
        self.stream_ = load_stream(Path(path), self.module_.network, self._columns, self.scaling_)
        return self

    def surprise(self, df: Data) -> pd.DataFrame:
        """How much each row surprised the memory, which reads every series from its first row on.

        The norm of the gradient the memory learns by, the mean over blocks and heads, spread over the steps of its
        patch. The first rows of a series surprise a memory that knows nothing yet.

        Returns:
            Long: id, time, "surprise". Wide: one column per series.
        """
        self._require_fitted()
        with self._opened(df, self.freq_) as (panels, wide):
            frame = self._ordered(pd.concat(map(self._surprised, panels), ignore_index=True), panels)
            return _wide(frame, self._columns, "surprise") if wide else frame

    def _surprised(self, panel: Panel) -> pd.DataFrame:
        found = surprise_of(self.module_.network, panel, self.scaling_.with_series(panel))
        key: dict[str, Any] = {} if panel.columns.id is None else {self.id_col: panel.ids.repeat(panel.lengths)}
        return pd.DataFrame(key | {self.time_col: panel.times, "surprise": found})

    def backtest(
        self,
        df: Data,
        windows: int = 1,
        step: int | None = None,
        *,
        refit: bool = False,
        level: Sequence[float] | None = LEVEL,
    ) -> pd.DataFrame:
        """Forecast the last `windows` cutoffs of each series as if each were now, and set them beside what came.

        A fresh forecaster with these settings is trained on the rows before the first cutoff (with `refit`, before
        each); this one stays as it is.

        Args:
            windows: how many cutoffs. step: rows between them; None is the horizon. The last window ends with the
                series.

        Returns:
            Long frame: id, time, cutoff (the last time stamp seen), the target, the forecast and its intervals. Series
            too short for a window are absent from it.
        """
        if windows < 1 or (step is not None and step < 1):
            raise ValueError(f"windows and step must be at least 1; got windows {windows}, step {step}")
        self._check_arguments()
        asked = self._levels(level)
        step = self.horizon if step is None else step
        cuts = [self.horizon + (windows - 1 - i) * step for i in range(windows)]
        model, parts = self, []
        with self._opened(df, getattr(self, "freq_", None)) as (panels, wide):
            longest = max(int(panel.lengths.max()) for panel in panels)
            if longest <= cuts[0]:
                raise DataError(
                    f"no series is longer than the {cuts[0]} rows that {windows} windows of step {step} and horizon "
                    f"{self.horizon} take; the longest has {longest}"
                )
            for cut in cuts:
                if model is self or refit:
                    model = clone(self)._fit_panels(_until(panels, cut), wide)
                found = [model._backtest_window(panel, cut, asked) for panel in panels if (panel.lengths > cut).any()]
                parts.append(self._ordered(pd.concat(found, ignore_index=True), panels))
        return pd.concat(parts, ignore_index=True)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted forecaster to a folder: JSON and safetensors; nothing is pickled."""
        self._require_fitted()
        if not str(folder):
            raise ValueError("folder must be a path; got ''")
        return save_fitted(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote. Nothing is unpickled.

        Raises:
            ValueError: the folder or one of its files is missing, damaged or of another version.
        """
        model = load_fitted(cls, Path(folder))
        model.module_.to(best_device(model.accelerator))
        return model

    # reading ---------------------------------------------------------------------------------------------------------

    @property
    def _columns(self) -> Columns:
        return Columns(
            self.id_col, self.time_col, self.target_col,
            tuple(self.past_covariates), tuple(self.future_covariates), tuple(self.static_covariates),
        )  # fmt: skip

    @property
    def _lookback(self) -> int:
        return self.lookback if self.lookback is not None else max(96, 2 * self.horizon)

    @property
    def _context(self) -> int:
        """Rows a forecast without observing begins at."""
        return self._lookback * self.train_blocks

    @contextmanager
    def _opened(self, data: Data, freq: str | int | None) -> Iterator[tuple[Sequence[Panel], bool]]:
        """The panels of a frame or of Parquet files, and whether the frame was wide."""
        if isinstance(data, str | Path):
            if not str(data) or "://" in str(data):
                raise DataError(f"{str(data)!r} is no path of Parquet files on this machine")
            with tempfile.TemporaryDirectory(prefix="titans-seq-") as folder:
                freq = plain_freq(self.freq if freq is None else freq)
                yield (
                    sort_parquet(user_path(data), self._columns, freq, Path(folder), progress=self.progress),
                    False,
                )
        else:
            panel, wide = self._read(data, freq)
            yield [panel], wide

    def _ordered(self, frame: pd.DataFrame, panels: Sequence[Panel]) -> pd.DataFrame:
        """Series of several panels by name; those of one as they are."""
        return frame if len(panels) == 1 else frame.sort_values(self.id_col, kind="stable", ignore_index=True)

    def _read(self, df: Frame, freq: str | int | None = None) -> tuple[Panel, bool]:
        """The panel of a frame, and whether the frame was wide."""
        columns = self._columns
        untimed = isinstance(df, pd.DataFrame) and self.target_col in df.columns and self.time_col not in df.columns
        if untimed and isinstance(df.index, pd.DatetimeIndex):
            df = df.rename_axis(self.time_col).reset_index()
        wide = isinstance(df, pd.Series) or (
            isinstance(df, pd.DataFrame) and self.target_col not in df.columns and self.id_col not in df.columns
        )
        if wide:
            if columns.past_covariates or columns.future_covariates or columns.static_covariates:
                raise DataError(
                    f"covariates need a long frame with columns {self.id_col!r}, {self.time_col!r} and "
                    f"{self.target_col!r}"
                )
            df = long_from_wide(df, columns)
        elif isinstance(df, pd.DataFrame):
            columns = named(columns, df.columns)
        return read_panel(df, columns, self.freq if freq is None else freq), wide

    def _check_arguments(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is None and name in ("lookback", "val_size"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}")
        if self.val_size is not None and 0 < self.val_size < self.horizon:
            raise ValueError(f"val_size must be 0 or at least the horizon {self.horizon}; got {self.val_size}")
        if self.conformal and self.val_size == 0:
            raise ValueError(
                "conformal intervals are calibrated on validation rows: give val_size > 0 or conformal=False"
            )
        for name in ("past_covariates", "future_covariates", "static_covariates"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a list of columns; got {getattr(self, name)!r}")
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
                raise ValueError(f"{name} must be a number of at least 0; got {value!r}")
        columns = self._columns
        if self.alias in (columns.id, columns.time, columns.target, "cutoff"):
            raise ValueError(
                f"alias names the column of the forecast, and another has that name already: {self.alias!r}"
            )
        _check_levels(self.levels, "levels")
        output = self._output()
        if self.conformal:
            if not len(self.levels):
                raise ValueError("levels must name an interval to calibrate, e.g. (80, 95), or give conformal=False")
            require_levels(output, self.levels)
        require_levels(output, ())

    def _output(self) -> Output:
        output = make_output(self.output)
        if type(output) not in OUTPUTS.values():
            raise ValueError(f"output must be a name or one of {', '.join(OUTPUTS)}; got {type(output).__name__}")
        return output

    def _levels(self, level: Sequence[float] | None) -> list[float]:
        """The asked levels, ascending; a ValueError where they cannot be had."""
        if level is None:
            return []
        output = self._output()
        if level is LEVEL:  # as not asked for: what there is
            if self.conformal:
                level = [each for each in LEVEL if each in self.levels] or list(self.levels)
            elif isinstance(output, PointOutput):
                return []
        _check_levels(level, "level")
        if self.conformal:
            unknown = [each for each in level if each not in self.levels]
            if unknown:
                known = ", ".join(f"{each:g}" for each in sorted(self.levels))
                raise ValueError(f"level {unknown[0]:g} was not calibrated; there are {known} (levels=...)")
        elif isinstance(output, PointOutput):
            raise ValueError(f"output={self.output!r} without conformal has no intervals; ask with level=None")
        require_levels(output, level)
        return sorted(set(level))

    def _architecture(self) -> dict[str, Any]:
        return {name: _plain(getattr(self, name)) for name in BUILT}

    def _require_fitted(self) -> None:
        if not hasattr(self, "module_"):
            raise NotFittedError("this TitansForecaster is not fitted yet; call fit(df) first")
        changed = [name for name, value in self._architecture().items() if value != self.built_[name]]
        if changed:
            raise ValueError(
                f"{changed[0]} was {self.built_[changed[0]]!r} when the forecaster was fitted; set it back, or "
                "clone() and fit anew"
            )

    # training --------------------------------------------------------------------------------------------------------

    def _fit_panels(self, panels: Sequence[Panel], wide: bool) -> Self:
        again = hasattr(self, "module_")
        if again:
            self._require_fitted()
        val_rows = self._val_rows(panels)
        draws = Draws(self.seed + getattr(self, "fits_", 0))
        data = PanelData(
            panels, lookback=self._context, horizon=self.horizon, val_rows=val_rows, calendar=self.calendar,
            scaling=self.scaling_ if again else None, batch_size=self.batch_size, steps_per_epoch=self.steps_per_epoch,
            seed=draws.seed, generator=draws.on("cpu"),
        )  # fmt: skip
        if self.conformal and (data.val is None or not len(data.val)):
            raise DataError(
                f"no series has rows to spare for the calibration of intervals (it takes {val_rows + 2 * self.horizon} "
                "rows): give conformal=False, a smaller val_size, or longer series"
            )
        with draws.building():
            module = copy.deepcopy(self.module_).train() if again else self._make_module(data)
        module.learning_rate, module.weight_decay = self.learning_rate, self.weight_decay
        with quiet_training(), draws.dropping(module.network):
            history = self._train(module, data)
            conformal = self._calibrate(module, data.val) if self.conformal and data.val is not None else None
        # all at once: an error or Ctrl-C above leaves the forecaster as it was
        self.module_, self.scaling_, self.freq_, self.conformal_ = module, data.scaling, panels[0].freq, conformal
        self.history_ = [*getattr(self, "history_", []), *history]
        self.fits_ = getattr(self, "fits_", 0) + 1
        tail = joined([panel.tail(self._context) for panel in panels])
        self.tail_ = tail if len(panels) == 1 else tail.taken(tail.ids.argsort())
        self.wide_, self.stream_ = wide, None
        self.built_ = self._architecture()
        return self

    def _val_rows(self, panels: Sequence[Panel]) -> int:
        if self.val_size is not None:
            return self.val_size
        lengths = np.concatenate([panel.lengths for panel in panels])
        return max(2 * self.horizon, int(0.15 * np.median(lengths)))

    def _make_module(self, data: PanelData) -> PanelModule:
        windows, output = data.train, self._output()
        try:
            network = PanelForecaster(
                self._lookback,
                self.horizon,
                outputs=raw_size(output),
                past_features=windows.features.shape[1],
                future_features=windows.ahead,
                static_features=windows.static.shape[1],
                min_scale=MIN_SCALE,
                mixer=self.mixer,
                **(self.network or {}),
            )
        except TypeError as error:
            raise ValueError(f"network has a wrong option: {error}") from None
        return PanelModule(network, output=output, learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    def _train(self, module: PanelModule, data: PanelData) -> list[dict[str, float]]:
        """Train, leave the best weights in the module, and return the losses per epoch."""
        watched = data.val is not None and len(data.val) > 0
        losses = _Losses()
        callbacks: list[Callback] = [losses]
        with tempfile.TemporaryDirectory() as folder:
            best = ModelCheckpoint(folder, monitor="val_loss" if watched else None, save_weights_only=True)
            callbacks += [best, *([EarlyStopping("val_loss", patience=self.patience)] if watched else [])]
            trainer = L.Trainer(
                max_epochs=self.max_epochs,
                callbacks=callbacks,
                gradient_clip_val=1.0,
                enable_progress_bar=self.progress,
                default_root_dir=folder,
                **self._trainer_options(),
            )
            with interruptible():
                trainer.fit(module, datamodule=data)
            name = "val_loss" if watched else "train_loss"
            if not any(np.isfinite(epoch.get(name, np.nan)) for epoch in losses.epochs):
                raise ValueError(f"training diverged: no epoch has a finite {name}; try a smaller learning_rate")
            weights = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict(weights)
        module.to(best_device(self.accelerator)).eval()
        return losses.epochs

    def _trainer_options(self) -> dict[str, Any]:
        return {
            "accelerator": self.accelerator,
            "devices": 1,
            "logger": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }

    def _calibrate(self, module: PanelModule, windows: PanelWindows) -> Conformal:
        """Compare the validation windows' intervals with what came."""
        levels = sorted(self.levels)
        _, bounds = _run(module, windows, levels)
        return Conformal.fit(_targets(windows), bounds, levels=levels)

    # forecasting -----------------------------------------------------------------------------------------------------

    def _predicted(
        self,
        past: Panel,
        future: pd.DataFrame | None,
        level: list[float],
        scaling: PanelScaling,
        states: ModelState | None = None,
    ) -> pd.DataFrame:
        ahead = past.extended(self.horizon, known_ahead(future, past, self.horizon))
        found = self._forecast(ahead, past.lengths, scaling, level, states)
        return self._frame(ahead, past.lengths, found)

    def _shaped(self, frame: pd.DataFrame, wide: bool) -> pd.DataFrame:
        return _wide(frame, self._columns, self.alias) if wide else frame

    def _forecast(
        self,
        panel: Panel,
        first: np.ndarray,
        scaling: PanelScaling,
        level: list[float],
        states: ModelState | None = None,
    ) -> dict[str, np.ndarray]:
        """Columns of the forecast of every series at its row `first`, in the units of the data, [N * H] each."""
        past = self._context if states is None else 2 * self._lookback
        windows = PanelWindows(panel, scaling, past, self.horizon, (np.arange(len(panel)), first))
        middle, bounds = _run(self.module_, windows, level, states)
        if self.conformal_ is not None:
            bounds = self.conformal_.apply(middle, bounds, level)
        mean, deviation = scaling.of_target(panel).T
        middle = middle * deviation[:, None] + mean[:, None]
        bounds = bounds * deviation[:, None, None, None] + mean[:, None, None, None]
        columns = {self.alias: middle.ravel()}
        for i, percent in enumerate(level):
            for j, side in enumerate(("lo", "hi")):
                columns[f"{self.alias}-{side}-{percent:g}"] = bounds[:, :, i, j].ravel()
        return columns

    def _frame(self, panel: Panel, first: np.ndarray, columns: dict[str, np.ndarray]) -> pd.DataFrame:
        rows = ((panel.offsets[:-1] + first)[:, None] + np.arange(self.horizon)).ravel()
        key: dict[str, Any] = {} if panel.columns.id is None else {self.id_col: panel.ids.repeat(self.horizon)}
        return pd.DataFrame(key | {self.time_col: panel.times[rows]} | columns)

    def _backtest_window(self, panel: Panel, cut: int, level: list[float]) -> pd.DataFrame:
        long_enough = panel.rows(np.where(panel.lengths > cut, 0, panel.lengths), panel.lengths)
        history = long_enough.until(cut)
        past = history.tail(self._context)
        first = long_enough.lengths - cut
        rows = (long_enough.offsets[:-1] + first)[:, None] + np.arange(self.horizon)
        _require_known(long_enough, rows)
        ahead = past.extended(self.horizon, long_enough.future_covariates[rows])
        found = self._forecast(ahead, past.lengths, self.scaling_.with_series(history), level)
        frame = self._frame(ahead, past.lengths, found)
        frame.insert(
            frame.columns.get_loc(self.alias), "cutoff", np.repeat(past.times[past.offsets[1:] - 1], self.horizon)
        )
        frame.insert(frame.columns.get_loc(self.alias), self.target_col, long_enough.target[rows.ravel()])
        return frame


class _Losses(Callback):
    """Keeps what was logged per epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@torch.inference_mode()
def _run(
    module: PanelModule, windows: PanelWindows, level: list[float], states: ModelState | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Standardised forecasts [W, H] and bounds [W, H, levels, 2]; states: of the memory before each window, None begins
    anew.
    """
    output, sides = module.output, [side for p in level for side in (0.5 - p / 200, 0.5 + p / 200)]
    found, bounds = [], []
    for begin in range(0, len(windows), EVAL_BATCH):
        chosen = slice(begin, min(begin + EVAL_BATCH, len(windows)))
        batch = on_device(windows.__getitems__(range(chosen.start, chosen.stop)), module.network)
        args, loc, scale = module.forecast(batch, None if states is None else states.select(chosen))
        middle = centre(output, args, loc, scale)
        found.append(middle)
        if isinstance(output, PointOutput):
            bounds.append(np.repeat(middle[..., None], len(sides), axis=-1))
        elif sides:
            bounds.append(quantiles(output, args, loc, scale, sides))
    middle = np.concatenate(found)
    both = np.concatenate(bounds) if sides else np.empty((*middle.shape, 0))
    return middle, both.reshape(*middle.shape, len(level), 2)


def _targets(windows: PanelWindows) -> np.ndarray:
    """Standardised targets [W, H] of windows, NaN where missing."""
    rows = windows.offsets[windows.series, None] + windows.first[:, None] + torch.arange(windows.horizon)
    return torch.where(windows.observed[rows], windows.target[rows].double(), torch.nan).numpy()


def _plain(value: Any) -> Any:
    """For comparison: a list is as good as a tuple, an output as good as one with the same arguments."""
    if isinstance(value, Output):
        return type(value).__name__, output_arguments(value)
    return list(value) if isinstance(value, tuple | list | np.ndarray) else value


def _wide(frame: pd.DataFrame, columns: Columns, alias: str) -> pd.DataFrame:
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


def _warn_of_empty(names: list[Any]) -> None:
    if names:
        warnings.warn(
            f"{len(names)} series have no value at all, the first is {names[0]}: their forecasts are NaN",
            DataWarning,
            stacklevel=3,
        )


def _require_known(panel: Panel, rows: np.ndarray) -> None:
    """A covariate that is known ahead must be known where there is something to score, as `predict` demands it."""
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
    last = fitted.times[fitted.offsets[1:][place] - 1]
    later = (place >= 0) & np.asarray(first.times[first.offsets[:-1]] > last)
    if later.any():
        warnings.warn(
            f"{int(later.sum())} series begin after the rows of fit, the first is {first.ids[int(np.argmax(later))]}: "
            "the memory knows "
            "nothing of those; observe(df) the rows of fit first",
            DataWarning,
            stacklevel=3,
        )


def _until(panels: Sequence[Panel], steps: int) -> Sequence[Panel]:
    """The panels without the last `steps` rows of each series."""
    return panels.until(steps) if isinstance(panels, Parts) else [panel.until(steps) for panel in panels]


def best_device(accelerator: str) -> torch.device:
    """Where forecasts are made: a GPU of CUDA where training would take one, else the CPU."""
    return torch.device("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")


def _check_levels(levels: Any, name: str) -> None:
    if isinstance(levels, str) or not isinstance(levels, Sequence | np.ndarray):
        raise ValueError(f"{name} must be percentages such as (80, 95); got {levels!r}")
    if not all(isinstance(level, int | float | np.number) for level in levels):
        raise ValueError(f"{name} must be percentages such as (80, 95); got {levels!r}")
    wrong = [level for level in levels if not 0 < level < 100]
    if wrong:
        raise ValueError(f"{name} must lie between 0 and 100; got {wrong[0]}")
