"""Training of any forecasting network `[B, L, C] -> [B, H, C]` with Lightning."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from titans_seq.training import TrainedModule

LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}

Batch = dict[str, Tensor]


class ForecastModule(TrainedModule):
    """Loss, metrics and optimiser around a network.

    Batches are dictionaries with `past_target` [B, L, C] and `future_target` [B, H, C], standardised. Logged per epoch:
    `train_loss`, `val_mse`, `val_mae`, `test_mse`, `test_mae`: means over all elements (windows, steps, channels) in
    float64, so that they do not depend on the batch size.

    Args:
        network: past_target -> forecast.
        loss: "mse", "mae" or "huber" (quadratic below an error of 1).
        learning_rate, weight_decay: of AdamW. The rate falls to `final_rate` of itself along a cosine over the epochs.
    """

    monitor, mode = "val_mse", "min"  # which epoch is the best
    shown = ("train_loss", "val_mse", "val_mae")

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: str = "huber",
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        final_rate: float = 0.1,
    ) -> None:
        super().__init__(network, learning_rate=learning_rate, weight_decay=weight_decay, final_rate=final_rate)
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
        self.loss = LOSSES[loss]
        for stage in ("val", "test"):
            for name, metric in (("mse", MeanSquaredError()), ("mae", MeanAbsoluteError())):
                self.add_module(f"{stage}_{name}", metric.set_dtype(torch.float64))

    def forward(self, past_target: Tensor) -> Tensor:
        return self.network(past_target)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        forecast = self(batch["past_target"])
        loss = self.loss(forecast, batch["future_target"])
        self.log_training(loss, len(forecast))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._score("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The forecast [B, H, C], standardised."""
        return self(batch["past_target"])

    def _score(self, stage: str, batch: Batch) -> None:
        forecast, truth = self(batch["past_target"]).double(), batch["future_target"].double()
        for name in ("mse", "mae"):
            metric: Metric = getattr(self, f"{stage}_{name}")
            metric.update(forecast.contiguous(), truth.contiguous())
            self.log(f"{stage}_{name}", metric, on_step=False, on_epoch=True, prog_bar=stage == "val")
