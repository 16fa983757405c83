"""A forecaster for people with frames, in scikit-learn's manner: fit, predict, backtest, save."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self, TypeAlias

import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.calendar import Step, to_step
from titans_seq.datamodules.forecast.panel import Columns, Panel
from titans_seq.datamodules.forecast.parquet import opened_panels
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.weights import with_weight
from titans_seq.forecast.arguments import ForecasterArguments, architecture, check_arguments, known_output
from titans_seq.forecast.backtests import backtest
from titans_seq.forecast.charts import draw_forecasts
from titans_seq.forecast.conformal import LEVEL, chosen_levels
from titans_seq.forecast.diagnostics import fitted_values, residuals
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.fitting import fit_panels
from titans_seq.forecast.forecaster_files import load_forecaster, save_forecaster
from titans_seq.forecast.importance import importance
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.native_frames import frames_as_given
from titans_seq.forecast.samples import draw_samples
from titans_seq.forecast.saving import WRONG, first_line, optional_text, output_of, plain_output
from titans_seq.forecast.stream import load_stream, save_stream
from titans_seq.forecast.weighted_frames import weighted, without_weight_column
from titans_seq.model_folders import CONFIG
from titans_seq.training import best_device

Frame: TypeAlias = pd.DataFrame | pd.Series
Data: TypeAlias = Frame | str | Path  # a path: of Parquet files


@frames_as_given(
    "fit", "predict", "observe", "surprise", "backtest", "make_future_frame", "fitted_values", "residuals",
    "importance", "plot",
)  # fmt: skip
class TitansForecaster(ForecasterArguments):
    """Forecast many series, each with gaps, covariates and a length of its own, by one network with the neural memory.

    Frames are long (columns `unique_id`, `ds`, `y`, names by argument; without an id column one series) or wide (time
    in the index or in the time column, one series per column), of pandas, polars or Arrow; forecasts come back in the
    same shape, library and units. Time stamps that are absent and values that are NaN are masked, never filled. Nothing
    after a cutoff enters any scaling, input or forecast before it. Long tables beyond memory are Parquet files by path.

        model = TitansForecaster(horizon=24, freq="h").fit(df)
        model.predict(level=(80, 95))

    The constructor's arguments: see `ForecasterArguments.__init__`, which `help` shows below.

    `fit` on a fitted forecaster continues from its weights and scaling; `sklearn.base.clone` gives a fresh one.

    Attributes, after fit:
        history_: training and validation loss per epoch. module_: the LightningModule. scaling_: what was learned of
            the data.
    """

    fitted_: FittedForecaster
    history_: list[dict[str, float]]
    fits_: int
    built_: dict[str, Any]
    weight_: str | None  # column of weights that `fit` was given by name

    # the interface ---------------------------------------------------------------------------------------------------

    def fit(self, df: Data, y: None = None, sample_weight: str | ArrayLike | None = None) -> Self:
        """Train on a frame; a fitted forecaster trains further.

        Args:
            df: long or wide frame, a series with dates in its index, or the path of Parquet files that hold a long
                table; memory then holds a part of the series at a time.
            y: not used; scikit-learn's pipelines pass it.
            sample_weight: of the rows in the loss: the name of a column, or a number of at least 0 for each row of a
                long frame. Only ratios count. A row of weight 0 trains nothing and selects no epoch; it is still seen
                as the past of later rows, and counts in scalings and calibration. Later frames may hold the column,
                which is then not read but by `backtest`.

        Raises:
            DataError: something in the frame is wrong; the message names column, series and row.
            ValueError: an argument of the constructor is wrong.
        """
        check_arguments(self)
        df, columns, weight = weighted(df, self.columns, sample_weight)
        with self._opened(df, self._known_step(), columns) as panels:
            self._fit_panels(panels, weight)
        self.weight_ = sample_weight if isinstance(sample_weight, str) else self._weight
        return self

    def predict(
        self,
        df: Data | None = None,
        future: pd.DataFrame | None = None,
        level: Sequence[float] | None = LEVEL,
        *,
        horizon: int | None = None,
        num_samples: int | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Forecast the steps after the last row of each series.

        Args:
            df: the series' rows up to now, of series known or new, as of `fit`; None: as they ended there.
            future: known covariates over the horizon (id, time and their columns), where there are any.
            level: percentages of intervals; None for none. With conformal any up to 99.9, also without refitting. The
                default falls back on `levels` where 80 and 95 are not among them, and on none for a model of one value
                without conformal.
            horizon: steps, at most the fitted horizon; None is that. `future` need not reach further.
            num_samples: sample paths of each series instead of points and intervals (`titans_seq.forecast.paths`): at
                each step they have the forecast's quantiles; how steps depend on each other was measured on the
                validation rows.
            seed: of these draws.

        Returns:
            Long: id, time, forecast, then `-lo-` and `-hi-` columns. Wide: one column per series, or with intervals
            columns (series, "forecast" | "lo-80" | ...). Of Parquet files in the order of the series' names. Samples
            are long: id, time, "sample", forecast.
        """
        fitted, asked = self._require_fitted(), self._levels(level)
        with self._rows(df) as panels:
            if num_samples is not None:
                found = draw_samples(fitted, num_samples, panels, future, horizon, seed)
            else:
                found = fitted.predict(panels, future, asked, horizon)
            return self._ordered(found, panels)

    def make_future_frame(self, df: Data | None = None, horizon: int | None = None) -> pd.DataFrame:
        """The rows to fill in for `predict(future=...)`: id, time, and NaN for each future covariate.

        Args:
            df, horizon: as of `predict`.
        """
        with self._rows(df) as panels:
            return self._ordered(self._require_fitted().future_frame(panels, horizon), panels)

    def fitted_values(self, df: Data, step: int = 1) -> pd.DataFrame:
        """Each row forecast from the rows up to `step` before it, beside what it is.

        No row has two fitted values. The forecaster keeps the last rows of the series only, so the rows are given
        again. Those of `fit` were trained on: their residuals are smaller than errors of forecasts, which `backtest`
        gives.

        Args:
            df: as of `fit`.
            step: how far ahead, at most the horizon.

        Returns:
            Long frame: id, time, the target, the forecast, and "residual", the target minus the forecast. Rows with
            nothing observed before them in reach of the lookback are absent.
        """
        fitted = self._require_fitted()
        with self._opened(df, fitted.tail.freq) as panels:
            return self._ordered(fitted_values(fitted, panels, step), panels)

    def residuals(self, df: Data, step: int = 1) -> pd.DataFrame:
        """Target minus fitted value, see `fitted_values`: id, time, "residual"."""
        fitted = self._require_fitted()
        with self._opened(df, fitted.tail.freq) as panels:
            return self._ordered(residuals(fitted, panels, step), panels)

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
        fitted.observe(self._read(df))
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
        fitted.require_one_memory()
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
        each); this one stays as it is. Where `fit` was given a column of weights, the rows need it here too.

        Args:
            df: rows with targets, as of `fit`, and the covariates.
            windows: how many cutoffs; the last window ends with the series.
            step: rows between them; None is the horizon.
            refit: train before every cutoff, instead of the first alone.
            level: of the intervals in percent; None or empty for none.

        Returns:
            Long frame: id, time, cutoff (the last time stamp seen), the target, the forecast and its intervals. Series
            too short for a window are absent from it.
        """
        check_arguments(self)
        asked, weight = self._levels(level), self._weight
        columns = self.columns if weight is None else with_weight(self.columns, weight)
        with self._opened(df, self._known_step(), columns) as panels:
            found = backtest(
                panels, lambda rows: clone(self)._fit_panels(rows, weight).fitted_,
                horizon=self.horizon, windows=windows, step=step, refit=refit, level=asked, weight=weight,
            )  # fmt: skip
            return pd.concat([self._ordered(part, panels) for part in found], ignore_index=True)

    def importance(self, df: Data, *, repeats: int = 5, seed: int = 0) -> pd.DataFrame:
        """How much the loss grows when a covariate's values are exchanged between windows (permutation importance).

        Args:
            df: rows with targets, as of `fit`; rows the network was not trained on tell more.
            repeats: permutations whose mean is taken.
            seed: of the permutations.

        Returns:
            "covariate" (also "calendar" and holidays), "kind", "increase" of the loss, its "deviation" between
            permutations, and its "share" of the loss; the largest first. About 0 or less: not used. Covariates that
            tell the same stand in for each other.
        """
        fitted = self._require_fitted()
        with self._opened(df, fitted.tail.freq) as panels:
            return importance(fitted, panels, repeats=repeats, seed=seed)

    def plot(
        self,
        df: Frame | None = None,
        forecast: pd.DataFrame | None = None,
        series: Sequence[Any] | None = None,
        level: Sequence[float] | None = LEVEL,
    ) -> Figure:
        """A picture of history, forecast and intervals; `figure.savefig("forecast.png")` writes it.

        Args:
            df: the rows; None: as they ended in `fit`, or as observed. Rows beyond the forecast's beginning are drawn
                as what came.
            forecast: what `predict` or `backtest` gave; None: `predict(df)`, which needs `future` where there are
                future covariates.
            series: names of the series to show; None: the first four.
            level: of the intervals, where `forecast` is None.
        """
        fitted = self._require_fitted()
        if isinstance(df, str | Path):
            raise DataError("plot takes a frame; read the series to be drawn first")
        kept = fitted.tail if fitted.stream is None else fitted.stream.rows
        panel = kept if df is None else self._read(df)
        if forecast is None:
            forecast = fitted.predict(None if df is None else [panel], None, self._levels(level))
        return draw_forecasts(panel, forecast, alias=self.alias, rows=fitted.network.lookback, series=series)

    def save(self, folder: str | Path) -> Path:
        """Write the fitted forecaster to a folder: JSON and safetensors; nothing is pickled."""
        fitted = self._require_fitted()
        if not str(folder):
            raise ValueError("folder must be a path; got ''")
        arguments = self.get_params() | {"output": plain_output(self.output)}
        if not isinstance(self.freq, str | int | None):
            arguments["freq"] = None  # the series keep it
        about = {"arguments": arguments, "fits": self.fits_, "history": self.history_, "weight": self._weight}
        return save_forecaster(fitted, Path(folder), about)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote, or the folder `model` of a run. Nothing is unpickled.

        Raises:
            ValueError: the folder or one of its files is missing, damaged or of another version.
        """
        fitted, about = load_forecaster(Path(folder))
        try:
            arguments = about["arguments"]
            model = cls(**arguments | {"output": output_of(arguments["output"])})
            check_arguments(model)
            model.fits_, model.history_ = about["fits"], about["history"]
            model.weight_ = optional_text(about.get("weight"), "weight")
            network = fitted.network
            if (model.lookback_rows, model.horizon) != (network.lookback, network.horizon):
                raise ValueError("lookback and horizon are not those of the network")
        except WRONG as error:
            raise ValueError(f"{Path(folder) / CONFIG} is damaged: {first_line(error)}") from None
        for module in fitted.modules:
            module.to(best_device(model.accelerator))
        model.fitted_, model.built_ = fitted, architecture(model)
        return model

    @property
    def module_(self) -> ForecastModule:
        return self.fitted_.module

    @property
    def scaling_(self) -> PanelScaling:
        return self.fitted_.scaling

    # reading ---------------------------------------------------------------------------------------------------------

    def _known_step(self) -> Step | None:
        return self.fitted_.tail.freq if hasattr(self, "fitted_") else None

    @property
    def _weight(self) -> str | None:
        return getattr(self, "weight_", None)

    def _opened(
        self, data: Data, freq: Step | None, columns: Columns | None = None
    ) -> AbstractContextManager[Sequence[Panel]]:
        step, columns = to_step(self.freq) if freq is None else freq, columns or self.columns
        data = without_weight_column(data, columns, self._weight)
        return opened_panels(data, columns, step, day_first=self.day_first, progress=self.progress)

    def _read(self, df: Frame) -> Panel:
        with self._opened(df, self._require_fitted().tail.freq) as panels:
            return panels[0]

    def _rows(self, df: Data | None) -> AbstractContextManager[Sequence[Panel] | None]:
        """The rows that are given; None: those the forecaster keeps."""
        step = self._require_fitted().tail.freq
        return nullcontext() if df is None else self._opened(df, step)

    def _ordered(self, frame: pd.DataFrame, panels: Sequence[Panel] | None) -> pd.DataFrame:
        if panels is None or len(panels) == 1:
            return frame
        return frame.sort_values(self.id_col, kind="stable", ignore_index=True)

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
        self.fitted_.alias, self.fitted_.day_first = self.alias, self.day_first
        return self.fitted_

    # training --------------------------------------------------------------------------------------------------------

    def _fit_panels(self, panels: Sequence[Panel], weight: str | None = None) -> Self:
        again, fits = (self._require_fitted(), self.fits_) if hasattr(self, "fitted_") else (None, 0)
        fitted, history = fit_panels(self, panels, again, fits, weight)
        # all at once: an error or Ctrl-C above leaves the forecaster as it was
        self.fitted_, self.fits_ = fitted, fits + 1
        self.history_ = [*getattr(self, "history_", []), *history]
        self.built_ = architecture(self)
        return self
