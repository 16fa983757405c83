"""The arguments of `TitansForecaster`: what they mean and may be, and which are built into a fitted one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from gluonts.torch.distributions import Output
from sklearn.base import BaseEstimator
from torch import nn

from titans_seq.datamodules.common.errors import at_least
from titans_seq.datamodules.forecast.holiday_features import checked_holidays
from titans_seq.datamodules.forecast.panel import Columns
from titans_seq.datamodules.forecast.transforms import check_transform
from titans_seq.forecast.conformal import check_levels
from titans_seq.forecast.outputs import OUTPUTS, CountOutput, make_output, output_arguments, require_levels

# arguments that are whole numbers, and the least they may be
LEAST = {
    "horizon": 1, "lookback": 1, "val_size": 0, "val_windows": 1, "train_blocks": 1,
    "max_epochs": 1, "steps_per_epoch": 1, "patience": 1, "batch_size": 1, "seed": 0,
    "seeds": 1,
}  # fmt: skip
# arguments that are built into a fitted forecaster
BUILT = (
    "horizon", "lookback", "output", "conformal", "levels", "past_covariates", "future_covariates",
    "static_covariates", "calendar", "holidays", "transform", "id_col", "time_col", "target_col", "mixer", "network",
    "train_blocks", "seeds",
)  # fmt: skip


class ForecasterArguments(BaseEstimator):
    """The settings of a `TitansForecaster`, which scikit-learn can read, set and clone."""

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
        holidays: str | Sequence[str] | None = None,
        transform: Any = None,
        id_col: str = "unique_id",
        time_col: str = "ds",
        target_col: str = "y",
        day_first: bool | None = None,
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
        seeds: int = 1,
        max_minutes: float | None = None,
        accelerator: str = "auto",
        progress: bool = False,
    ) -> None:
        """The settings; `fit` checks them.

        Args:
            horizon: steps to forecast.
            freq: pandas alias of the step, or a whole number where time is numbered; None finds it.
            lookback: steps the network sees, at least 16; None is the larger of 96 and two horizons. Shorter series are
                padded by mask.
            output: "quantiles" (pinball loss, never crossing), "student_t", "normal", "negative_binomial" (counts: the
                point is their mean, intervals end at whole numbers), "mse", "mae", "huber" (one value), or an `Output`
                of GluonTS's with a density over all numbers (Student-t, normal, Laplace) or with quantiles.
            conformal: whether intervals are widened or narrowed until they cover as they should on the validation rows
                (split conformal).
            levels: percentages of the intervals that all validation windows calibrate, for conformal; `predict` gives
                others too.
            val_size: last rows of each series for early stopping and calibration; None is the larger of two horizons
                and 15 % of the median length; 0 trains on all rows (conformal=False then).
            val_windows: windows of those rows that each epoch is validated on, evenly spread; None: as many as it
                trains on, at least 256. Calibration uses up to two million of their steps.
            past_covariates: columns known up to now.
            future_covariates: columns also known over the horizon.
            static_covariates: columns with one value per series.
            calendar: whether hour, weekday, ... of the time stamps are covariates.
            holidays: country ("DE"), country and subdivision ("DE-BY"), or a list of such codes, whose holidays are
                covariates, known ahead: of steps of a day or less and of business days whether the day is one, is
                before one, or after one; of longer steps how many they hold. Needs `titans-seq[holidays]`.
            transform: of the target, undone in forecasts. "log1p" (z = log(1 + y)) and "softplus" (y = log(1 + e^z) -
                log 2) are for targets of at least 0 and give such forecasts. Or an object with `transform` and
                `inverse` of arrays, or a transformer of scikit-learn's, which is fitted on the training rows; it cannot
                be saved. Quantiles keep their levels, so the point of a transformed quantile output is the median; that
                of "mse" is no longer a mean.
            id_col, time_col, target_col: names of a long frame's columns.
            day_first: whether text such as 01/02/2024 is the first of February; None: as it makes the dates regular.
            alias: name of the forecast's column.
            mixer: one of `titans_seq.mixers.MIXERS`, "none", or a callable that makes a module `[B, N, D] -> [B, N, D]`
                from the width D. With a module of your own, `fit` seeds PyTorch's global generators, from which its
                dropout draws, and sets them back at the end. This is not safe while other threads draw or fit such
                modules.
            network: more options of `SimbaForecaster` and of the mixer, e.g. {"dim": 64, "depth": 3}.
            max_epochs: maximum number of epochs.
            steps_per_epoch: batches per epoch.
            patience: epochs without a better validation loss after which training stops.
            train_blocks: consecutive lookbacks to train on, with the memory carried from one to the next as `observe`
                carries it; the context is then `train_blocks` lookbacks long.
            batch_size, learning_rate, weight_decay, seed: of training. The same seed on the same machine gives the same
                model, also beside fits in other threads, unless `mixer` is a callable.
            seeds: networks, trained from `seed`, `seed` + 1, ...; forecasts and the bounds of intervals are means over
                them, and intervals are calibrated on these means. `observe` and `surprise` take one network.
            max_minutes: of training, shared by the networks of several seeds; the best epoch so far counts, and the one
                that was cut short is validated too. None: no limit. How far a training comes depends on the machine.
            accelerator: as of Lightning's Trainer.
            progress: whether to draw a bar while training.
        """
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
        self.holidays = holidays
        self.transform = transform
        self.id_col = id_col
        self.time_col = time_col
        self.target_col = target_col
        self.day_first = day_first
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
        self.seeds = seeds
        self.max_minutes = max_minutes
        self.accelerator = accelerator
        self.progress = progress

    @property
    def columns(self) -> Columns:
        """Names of a long frame's columns."""
        return Columns(
            self.id_col, self.time_col, self.target_col,
            tuple(self.past_covariates), tuple(self.future_covariates), tuple(self.static_covariates),
        )  # fmt: skip

    @property
    def lookback_rows(self) -> int:
        """The lookback, or the default for the horizon."""
        return self.lookback if self.lookback is not None else max(96, 2 * self.horizon)


def check_arguments(forecaster: ForecasterArguments) -> None:
    """Raise a ValueError that names the first wrong argument of a `TitansForecaster`."""
    for name, least in LEAST.items():
        value = getattr(forecaster, name)
        if value is not None or name not in ("lookback", "val_size", "val_windows"):
            at_least(least, **{name: value})
    if forecaster.val_size is not None and 0 < forecaster.val_size < forecaster.horizon:
        raise ValueError(f"val_size must be 0 or at least the horizon {forecaster.horizon}; got {forecaster.val_size}")
    if forecaster.conformal and forecaster.val_size == 0:
        raise ValueError("conformal intervals are calibrated on validation rows: give val_size > 0 or conformal=False")
    for name in ("past_covariates", "future_covariates", "static_covariates"):
        if isinstance(getattr(forecaster, name), str):
            raise ValueError(f"{name} must be a list of columns; got {getattr(forecaster, name)!r}")
    for name in ("learning_rate", "weight_decay"):
        value = getattr(forecaster, name)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
            raise ValueError(f"{name} must be a number of at least 0; got {value!r}")
    minutes = forecaster.max_minutes
    if minutes is not None and (isinstance(minutes, bool) or not isinstance(minutes, int | float) or not minutes > 0):
        raise ValueError(f"max_minutes must be None or a number above 0; got {minutes!r}")
    for name, kind in (("calendar", bool), ("conformal", bool), ("progress", bool), ("alias", str)):
        value = getattr(forecaster, name)
        if not isinstance(value, kind) or value == "":
            words = "True or False" if kind is bool else "a name"
            raise ValueError(f"{name} must be {words}; got {value!r}")
    if not isinstance(forecaster.day_first, bool | None):
        raise ValueError(f"day_first must be True, False or None; got {forecaster.day_first!r}")
    check_transform(forecaster.transform)
    checked_holidays(forecaster.holidays)
    columns = forecaster.columns
    if forecaster.alias in (columns.id, columns.time, columns.target, "cutoff"):
        raise ValueError(
            f"alias names the column of the forecast, and another has that name already: {forecaster.alias!r}"
        )
    check_levels(forecaster.levels, "levels")
    output = known_output(forecaster.output)
    if forecaster.conformal and not len(forecaster.levels):
        raise ValueError("levels must name an interval to calibrate, e.g. (80, 95), or give conformal=False")
    require_levels(output, ())
    if isinstance(output, CountOutput) and forecaster.transform is not None:
        raise ValueError(f"transform must be None for an output of counts; got {forecaster.transform!r}")


def known_output(output: str | Output) -> Output:
    """The output, which must be one that a saved forecaster can name."""
    made = make_output(output)
    if type(made) not in OUTPUTS.values():
        raise ValueError(f"output must be a name or one of {', '.join(OUTPUTS)}; got {type(made).__name__}")
    return made


def architecture(forecaster: ForecasterArguments) -> dict[str, Any]:
    """The arguments that are built into a fitted forecaster, in a form that can be compared."""
    return {name: _plain(getattr(forecaster, name)) for name in BUILT}


def _plain(value: Any) -> Any:
    """For comparison: a list is as good as a tuple, an output as good as one with the same arguments."""
    if isinstance(value, Output):
        return type(value).__name__, output_arguments(value)
    return list(value) if isinstance(value, tuple | list | np.ndarray) else value
