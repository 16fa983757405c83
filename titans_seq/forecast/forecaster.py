"""A forecaster for people with frames, in scikit-learn's manner: fit, predict, backtest, save."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self, TypeAlias

import pandas as pd
from gluonts.torch.distributions import Output
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from torch import nn

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.calendar import Step, to_step
from titans_seq.datamodules.forecast.data import PanelData
from titans_seq.datamodules.forecast.panel import Columns, Panel, join_panels
from titans_seq.datamodules.forecast.parquet import opened_panels
from titans_seq.datamodules.forecast.protocol import HoldOut
from titans_seq.datamodules.forecast.reading import read_frame
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.draws import Draws
from titans_seq.forecast.arguments import architecture, check_arguments, known_output
from titans_seq.forecast.backtests import backtest
from titans_seq.forecast.conformal import LEVEL, chosen_levels
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.fitting import make_module, train
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.native_frames import frames_as_given
from titans_seq.forecast.saving import WRONG, first_line, output_of, plain_output
from titans_seq.forecast.stream import load_stream, save_stream
from titans_seq.model_folders import CONFIG
from titans_seq.training import best_device, quiet_training

Frame: TypeAlias = pd.DataFrame | pd.Series
Data: TypeAlias = Frame | str | Path  # a path: of Parquet files
LEAST_VALIDATED = 256  # windows per epoch


@frames_as_given("fit", "predict", "observe", "surprise", "backtest")
class TitansForecaster(BaseEstimator):
    """Forecast many series, each with gaps, covariates and a length of its own, by one network with the neural memory.

    Frames are long (columns `unique_id`, `ds`, `y`, names by argument; without an id column one series) or wide (time
    in the index or in the time column, one series per column), of pandas, polars or Arrow; forecasts come back in the
    same shape, library and units. Time stamps that are absent and values that are NaN are masked, never filled. Nothing
    after a cutoff enters any scaling, input or forecast before it. Long tables beyond memory are Parquet files by path.

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
        val_windows: windows of those rows that each epoch is validated on, evenly spread; None: as many as it trains
            on, at least 256. Calibration uses up to two million of their steps.
        past_covariates: columns known up to now.
        future_covariates: columns also known over the horizon.
        static_covariates: columns with one value per series.
        calendar: whether hour, weekday, ... of the time stamps are covariates.
        id_col, time_col, target_col: names of a long frame's columns.
        alias: name of the forecast's column.
        mixer: one of `titans_seq.mixers.MIXERS`, "none", or a callable that makes a module `[B, N, D] -> [B, N, D]`
            from the width D. With a module of your own, `fit` seeds PyTorch's global generators, from which its dropout
            draws, and sets them back at the end. This is not safe while other threads draw or fit such modules.
        network: more options of `SimbaForecaster` and of the mixer, e.g. {"dim": 64, "depth": 3}.
        max_epochs: maximum number of epochs.
        steps_per_epoch: batches per epoch.
        patience: epochs without a better validation loss after which training stops.
        train_blocks: consecutive lookbacks to train on, with the memory carried from one to the next as `observe`
            carries it; the context is then `train_blocks` lookbacks long.
        batch_size, learning_rate, weight_decay, seed: of training. The same seed on the same machine gives the same
            model, also beside fits in other threads, unless `mixer` is a callable.
        accelerator: as of Lightning's Trainer.
        progress: whether to draw a bar while training.

    `fit` on a fitted forecaster continues from its weights and scaling; `sklearn.base.clone` gives a fresh one.

    Attributes, after fit:
        history_: training and validation loss per epoch. module_: the LightningModule. scaling_: what was learned of
            the data.
    """

    fitted_: FittedForecaster
    history_: list[dict[str, float]]
    fits_: int
    built_: dict[str, Any]

    def __init__(
        self,
        horizon: int = 24,
        freq: str | int | pd.tseries.offsets.BaseOffset | None = None,
        *,
        lookback: int | None = None,
        output: str | Output = "quantiles",
        conformal: bool = True,
        levels: Sequence[float] = (50, 80, 90, 95),
        val_size: int | None = None,
        val_windows: int | None = None,
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
        self.val_windows = val_windows
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
        """Train on a frame; a fitted forecaster trains further.

        Args:
            df: long or wide frame, a series with dates in its index, or the path of Parquet files that hold a long
                table; memory then holds a part of the series at a time.
            y: not used; scikit-learn's pipelines pass it.

        Raises:
            DataError: something in the frame is wrong; the message names column, series and row.
            ValueError: an argument of the constructor is wrong.
        """
        check_arguments(self)
        with self._opened(df, self._known_step()) as panels:
            return self._fit_panels(panels)

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
        fitted, asked = self._require_fitted(), self._levels(level)
        if df is None:
            return fitted.predict(None, future, asked)
        with self._opened(df, fitted.tail.freq) as panels:
            return self._ordered(fitted.predict(panels, future, asked), panels)

    def observe(self, df: Frame) -> Self:
        """Let the memory learn from new rows, without training: `predict()` then follows them.

        The first call begins the streams, of any series: give it the rows of `fit` too if they are to be remembered.
        Later calls give the rows that follow. Rows are read in blocks of `lookback`; what is left over waits for more,
        and counts in forecasts all the same. All or nothing: after an error nothing has changed.

        Raises:
            DataError: a row was observed already, rows are missing in between, a series is new, a column is absent.
            ValueError: the forecaster has no memory (mixer).
        """
        fitted = self._require_fitted()
        if isinstance(df, str | Path):
            raise DataError("observe takes a frame: the memories of all its series are held at once")
        fitted.observe(read_frame(df, self.columns, fitted.tail.freq))
        return self

    def reset(self) -> Self:
        """Forget what was observed: forecasts begin from the learned memory again."""
        self._require_fitted().stream = None
        return self

    def save_state(self, path: str | Path) -> Path:
        """Write what was observed to one file, apart from the weights."""
        fitted = self._require_fitted()
        if fitted.stream is None:
            raise ValueError("nothing was observed yet; call observe(df) first")
        return save_stream(fitted.stream, fitted.network, Path(path))

    def load_state(self, path: str | Path) -> Self:
        """Go on from what `save_state` wrote, with the same weights.

        Raises:
            FileNotFoundError: no such file.
            ValueError: no such state, a damaged one, or that of another model.
        """
        fitted = self._require_fitted()
        fitted.stream = load_stream(Path(path), fitted.network, self.columns, fitted.scaling)
        return self

    def surprise(self, df: Data) -> pd.DataFrame:
        """How much each row surprised the memory, which reads every series from its first row on.

        The norm of the gradient the memory learns by, the mean over blocks and heads, spread over the steps of its
        patch. The first rows of a series surprise a memory that knows nothing yet.

        Returns:
            Long: id, time, "surprise". Wide: one column per series.
        """
        fitted = self._require_fitted()
        with self._opened(df, fitted.tail.freq) as panels:
            return self._ordered(fitted.surprise(panels), panels)

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
        check_arguments(self)
        asked = self._levels(level)
        with self._opened(df, self._known_step()) as panels:
            found = backtest(
                panels, lambda rows: clone(self)._fit_panels(rows).fitted_,
                horizon=self.horizon, windows=windows, step=step, refit=refit, level=asked,
            )  # fmt: skip
            return pd.concat([self._ordered(part, panels) for part in found], ignore_index=True)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted forecaster to a folder: JSON and safetensors; nothing is pickled."""
        fitted = self._require_fitted()
        if not str(folder):
            raise ValueError("folder must be a path; got ''")
        arguments = self.get_params() | {"output": plain_output(self.output)}
        if isinstance(self.freq, pd.tseries.offsets.BaseOffset):
            arguments["freq"] = None  # the series keep it
        about = {"arguments": arguments, "fits": self.fits_, "history": self.history_}
        return fitted.save(Path(folder), about)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote, or the folder `model` of a run. Nothing is unpickled.

        Raises:
            ValueError: the folder or one of its files is missing, damaged or of another version.
        """
        fitted, about = FittedForecaster.load(Path(folder))
        try:
            arguments = about["arguments"]
            model = cls(**arguments | {"output": output_of(arguments["output"])})
            check_arguments(model)
            model.fits_, model.history_ = about["fits"], about["history"]
            network = fitted.network
            if (model._lookback, model.horizon) != (network.lookback, network.horizon):
                raise ValueError("lookback and horizon are not those of the network")
        except WRONG as error:
            raise ValueError(f"{Path(folder) / CONFIG} is damaged: {first_line(error)}") from None
        fitted.module.to(best_device(model.accelerator))
        model.fitted_, model.built_ = fitted, architecture(model)
        return model

    @property
    def module_(self) -> ForecastModule:
        return self.fitted_.module

    @property
    def scaling_(self) -> PanelScaling:
        return self.fitted_.scaling

    # reading ---------------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> Columns:
        """Names of a long frame's columns."""
        return Columns(
            self.id_col, self.time_col, self.target_col,
            tuple(self.past_covariates), tuple(self.future_covariates), tuple(self.static_covariates),
        )  # fmt: skip

    @property
    def _lookback(self) -> int:
        return self.lookback if self.lookback is not None else max(96, 2 * self.horizon)

    def _known_step(self) -> Step | None:
        return self.fitted_.tail.freq if hasattr(self, "fitted_") else None

    def _opened(self, data: Data, freq: Step | None) -> AbstractContextManager[Sequence[Panel]]:
        step = to_step(self.freq) if freq is None else freq
        return opened_panels(data, self.columns, step, progress=self.progress)

    def _ordered(self, frame: pd.DataFrame, panels: Sequence[Panel]) -> pd.DataFrame:
        return frame if len(panels) == 1 else frame.sort_values(self.id_col, kind="stable", ignore_index=True)

    def _levels(self, level: Sequence[float] | None) -> list[float]:
        return chosen_levels(known_output(self.output), self.levels if self.conformal else None, level)

    def _require_fitted(self) -> FittedForecaster:
        if not hasattr(self, "fitted_"):
            raise NotFittedError("this TitansForecaster is not fitted yet; call fit(df) first")
        changed = [name for name, value in architecture(self).items() if value != self.built_[name]]
        if changed:
            raise ValueError(
                f"{changed[0]} was {self.built_[changed[0]]!r} when the forecaster was fitted; set it back, or "
                "clone() and fit anew"
            )
        self.fitted_.alias = self.alias
        return self.fitted_

    # training --------------------------------------------------------------------------------------------------------

    def _fit_panels(self, panels: Sequence[Panel]) -> Self:
        again = self._require_fitted() if hasattr(self, "fitted_") else None
        draws = Draws(self.seed + getattr(self, "fits_", 0))
        protocol = HoldOut.of(panels, self.horizon, self.val_size)
        options = {"mixer": self.mixer, **(self.network or {})}
        data = PanelData(
            panels, protocol, lookback=self._lookback * self.train_blocks, horizon=self.horizon,
            calendar=self.calendar, scaling=None if again is None else again.scaling, batch_size=self.batch_size,
            steps_per_epoch=self.steps_per_epoch, seed=draws.seed, generator=draws.on("cpu"),
            val_windows=self.val_windows or max(LEAST_VALIDATED, self.steps_per_epoch * self.batch_size),
        )  # fmt: skip
        if self.conformal and data.val is None:
            raise DataError(
                f"no series has the {protocol.val_rows + 2 * self.horizon} rows that it takes to hold some out and "
                "calibrate intervals on them: give conformal=False, a smaller val_size, or longer series"
            )
        with draws.building():
            fresh = None if again else make_module(data, known_output(self.output), self._lookback, options)
            module = fresh or copy.deepcopy(again.module).train()  # type: ignore[union-attr]
        module.learning_rate, module.weight_decay = self.learning_rate, self.weight_decay
        tail = join_panels([panel.tail(self._lookback * self.train_blocks) for panel in panels])
        tail = tail if len(panels) == 1 else tail.take(tail.ids.argsort())
        fitted = FittedForecaster(module, data.scaling, tail, self.train_blocks, alias=self.alias)
        with quiet_training(), draws.dropping(module.network):
            history = train(
                module, data, max_epochs=self.max_epochs, patience=self.patience, accelerator=self.accelerator,
                progress=self.progress,
            )  # fmt: skip
            if self.conformal and data.val is not None:
                fitted.calibrate(data.val, self.levels)
        # all at once: an error or Ctrl-C above leaves the forecaster as it was
        self.fitted_ = fitted
        self.history_ = [*getattr(self, "history_", []), *history]
        self.fits_ = getattr(self, "fits_", 0) + 1
        self.built_ = architecture(self)
        return self
