"""Training of a forecaster in memory: the best epoch's weights, no files left behind."""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import lightning as L
import numpy as np
from gluonts.torch.distributions import Output
from lightning.pytorch.callbacks import Callback, EarlyStopping

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.forecast.data import PanelData
from titans_seq.datamodules.forecast.holiday_features import checked_holidays
from titans_seq.datamodules.forecast.panel import Panel, join_panels
from titans_seq.datamodules.forecast.protocol import HoldOut
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.transforms import Counts, fitted_transform
from titans_seq.datamodules.forecast.weights import usual_weight, without_weight
from titans_seq.draws import Draws
from titans_seq.forecast.arguments import ForecasterArguments, known_output
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import SimbaForecaster
from titans_seq.forecast.outputs import CountOutput, raw_size
from titans_seq.training import accelerator_of, best_device, keeping_best, quiet_training

LEAST_VALIDATED = 256  # windows per epoch
History = list[dict[str, float]]


def fit_panels(
    settings: ForecasterArguments,
    panels: Sequence[Panel],
    again: FittedForecaster | None = None,
    fits: int = 0,
    weight: str | None = None,
) -> tuple[FittedForecaster, History]:
    """Train on all rows of these panels, and calibrate.

    Args:
        settings: checked.
        panels: parts of the series, one after the other.
        again: a forecaster to go on from, which stays as it is.
        fits: how often that was trained; another number gives other draws.
        weight: column of the panels, among their past covariates, that weights rows in the loss.

    Returns:
        The forecaster, and its losses per epoch.

    Raises:
        DataError: no window to train on, or too few rows to calibrate.
        ValueError: training diverged, or an option of the network is wrong.
    """
    protocol = HoldOut.of(panels, settings.horizon, settings.val_size)
    scaling = _scaling(settings, partial(_learned, protocol, weight), panels) if again is None else again.scaling
    usual = None if weight is None else usual_weight(panels, weight)  # one for all panels, whose rows may weigh less
    scaling, modules = replace(scaling, weight=weight, usual_weight=usual), []
    history: History = []
    for member in range(settings.seeds):
        draws = Draws(int(settings.seed) + fits * settings.seeds + member)
        data = _data(settings, panels, protocol, scaling, draws)
        module = _module(settings, data, None if again is None else again.modules[member], draws)
        losses = _train_member(settings, module, data, draws)
        modules.append(module)
        history += losses if settings.seeds == 1 else [{"member": member} | epoch for epoch in losses]
    context = settings.lookback_rows * settings.train_blocks
    tail = join_panels([without_weight(panel.tail(context), weight) for panel in panels])
    tail = tail if len(panels) == 1 else tail.take(tail.ids.argsort())
    fitted = FittedForecaster(
        modules[0], replace(data.scaling, weight=None, usual_weight=None), tail, settings.train_blocks,
        alias=settings.alias, others=tuple(modules[1:]),
    )  # fmt: skip
    if data.val is not None:
        fitted.learn_correlation(data.val)
        if settings.conformal:
            fitted.calibrate(data.val, settings.levels)
    return fitted, history


def _train_member(settings: ForecasterArguments, module: ForecastModule, data: PanelData, draws: Draws) -> History:
    minutes = None if settings.max_minutes is None else settings.max_minutes / settings.seeds
    with quiet_training(), draws.dropping(module.network):
        return train(
            module, data, max_epochs=settings.max_epochs, patience=settings.patience, max_minutes=minutes,
            accelerator=settings.accelerator, progress=settings.progress,
        )  # fmt: skip


def _data(
    settings: ForecasterArguments, panels: Sequence[Panel], protocol: HoldOut, scaling: PanelScaling, draws: Draws
) -> PanelData:
    data = PanelData(
        panels, protocol, lookback=settings.lookback_rows * settings.train_blocks, horizon=settings.horizon,
        scaling=scaling, batch_size=settings.batch_size,
        steps_per_epoch=settings.steps_per_epoch, seed=draws.seed, generator=draws.on("cpu"),
        val_windows=settings.val_windows or max(LEAST_VALIDATED, settings.steps_per_epoch * settings.batch_size),
    )  # fmt: skip
    if settings.conformal and data.val is None:
        raise DataError(
            f"no series has the {protocol.val_rows + 2 * settings.horizon} rows that it takes to hold some out and "
            "calibrate intervals on them: give conformal=False, a smaller val_size, or longer series"
        )
    return data


def _learned(protocol: HoldOut, weight: str | None, panel: Panel) -> Panel:
    """The rows that scaling may see."""
    return without_weight(protocol.learned(panel), weight)


def _scaling(settings: ForecasterArguments, learned: Callable[[Panel], Panel], panels: Sequence[Panel]) -> PanelScaling:
    counts = isinstance(known_output(settings.output), CountOutput)
    transform = Counts() if counts else fitted_transform(settings.transform, map(learned, panels))
    holidays = checked_holidays(settings.holidays)
    return PanelScaling.fit(map(learned, panels), calendar=settings.calendar, transform=transform, holidays=holidays)


def _module(
    settings: ForecasterArguments, data: PanelData, again: ForecastModule | None, draws: Draws
) -> ForecastModule:
    """A fresh network, or a copy of the one to go on with."""
    options = {"mixer": settings.mixer, **(settings.network or {})}
    with draws.building():
        if again is None:
            module = make_module(data, known_output(settings.output), settings.lookback_rows, options)
        else:
            module = copy.deepcopy(again).train()
    module.learning_rate, module.weight_decay = settings.learning_rate, settings.weight_decay
    return module


def make_module(data: PanelData, output: Output, lookback: int, options: dict[str, Any]) -> ForecastModule:
    """A network for the covariates of these data, in its module.

    Args:
        data: windows of whole blocks of `lookback` rows.
        output: what a forecast is.
        lookback: of the network.
        options: more of `SimbaForecaster`.

    Raises:
        ValueError: an option is wrong.
    """
    windows = data.train
    sizes: dict[str, Any] = {
        "outputs": raw_size(output),
        "past_features": windows.features.shape[1],
        "future_features": windows.ahead,
        "static_features": windows.static.shape[1],
    }
    try:
        network = SimbaForecaster(lookback, data.horizon, **sizes, **options)
    except TypeError as error:
        raise ValueError(f"network has a wrong option: {error}") from None
    return ForecastModule(network, output=output)


def train(
    module: ForecastModule,
    data: PanelData,
    *,
    max_epochs: int,
    patience: int,
    accelerator: str,
    progress: bool,
    max_minutes: float | None = None,
) -> list[dict[str, float]]:
    """Train, leave the best weights in the module, and return the losses per epoch.

    Args:
        module: what is trained.
        data: its windows; without validation the training loss tells the best epoch.
        max_epochs: maximum number of epochs.
        patience: epochs without a better validation loss after which the training ends.
        accelerator: as of Lightning's Trainer.
        progress: whether to draw a bar.
        max_minutes: after which the training ends, with a last validation; None: no limit.

    Raises:
        ValueError: no epoch has a finite loss.
    """
    name = "train_loss" if data.val is None else "val_loss"
    losses = _Losses()
    stopping = [] if data.val is None else [EarlyStopping(name, patience=patience)]
    with keeping_best(module, None if data.val is None else name) as best:
        trainer = L.Trainer(
            max_epochs=max_epochs,
            callbacks=[losses, best, *stopping],
            gradient_clip_val=1.0,
            enable_progress_bar=progress,
            accelerator=accelerator_of(accelerator),
            devices=1,
            logger=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            max_time=None if max_minutes is None else timedelta(minutes=max_minutes),
        )
        trainer.fit(module, datamodule=data)
        if max_minutes is not None and trainer.global_step < trainer.num_training_batches:
            warnings.warn(
                f"max_minutes={max_minutes:g} ended the training after {trainer.global_step} of the "
                f"{trainer.num_training_batches} batches of its first epoch",
                DataWarning,
                stacklevel=2,
            )
        if not any(np.isfinite(epoch.get(name, np.nan)) for epoch in losses.epochs):
            raise ValueError(f"training diverged: no epoch has a finite {name}; try a smaller learning_rate")
    module.to(best_device(accelerator)).eval()
    return losses.epochs


class _Losses(Callback):
    """Keeps what was logged per epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})
