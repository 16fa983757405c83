"""Training of a forecaster in memory: the best epoch's weights, no files left behind."""

from typing import Any

import lightning as L
import numpy as np
from gluonts.torch.distributions import Output
from lightning.pytorch.callbacks import Callback, EarlyStopping

from titans_seq.datamodules.forecast.data import PanelData
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import SimbaForecaster
from titans_seq.forecast.outputs import raw_size
from titans_seq.training import accelerator_of, best_device, keeping_best


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
    module: ForecastModule, data: PanelData, *, max_epochs: int, patience: int, accelerator: str, progress: bool
) -> list[dict[str, float]]:
    """Train, leave the best weights in the module, and return the losses per epoch.

    Args:
        module: what is trained.
        data: its windows; without validation the training loss tells the best epoch.
        max_epochs: maximum number of epochs.
        patience: epochs without a better validation loss after which the training ends.
        accelerator: as of Lightning's Trainer.
        progress: whether to draw a bar.

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
        )
        trainer.fit(module, datamodule=data)
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
