"""Training of a forecasting network with Lightning: the loss of its output, and the benchmark's metrics."""

from collections.abc import Iterator
from typing import Any

import torch
from gluonts.torch.distributions import Output
from torch import Tensor, nn
from torchmetrics import Metric

from titans_seq.blocks import ModelState
from titans_seq.forecast.network import blocks_of, inputs_of
from titans_seq.forecast.outputs import CountOutput, arguments, has_point, make_output, point, raw_size
from titans_seq.training import TrainedModule

Batch = dict[str, Tensor]
Arguments = tuple[tuple[Tensor, ...], Tensor, Tensor]  # of the output, loc [B, 1], scale [B, 1]


class WeightedMean(Metric):
    """The mean in float64. MeanMetric of torchmetrics 1.9 forgets the weights where a NaN is to be seen."""

    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: Tensor) -> None:
        self.total += (value.double() * weight.double()).sum()
        self.weight += weight.double().sum()

    def compute(self) -> Tensor:
        return self.total / self.weight


class ForecastModule(TrainedModule):
    """Loss, metrics and optimiser around a network. B series, L lookback, H horizon.

    Batches are dictionaries with the network's inputs (`network.INPUTS`; absent where there are none), `future_target`
    [B, H] and, where some of it is missing, `future_observed_values` [B, H]. A past of n lookbacks is read as n blocks
    of a stream, each with a forecast and a loss of its own, the memory carried with its gradient. With `future_weights`
    [B, H] (and `past_weights`, where n > 1) losses are means by these weights.

    The loss is the output's, on the scale of the targets; that of counts is of the counts themselves, for which batches
    have `unit` [B, 2], the mean and deviation of the series (see `Counts`). Logged per epoch: `train_loss`, and for
    `val` and `test` `_loss`, `_mse` and `_mae`, the errors of the point forecast after the last block: means over all
    observed elements (windows, steps, series) in float64, so that they do not depend on the batch size.

    Args:
        network: past -> (raw, loc, scale), see `SimbaForecaster`.
        output: what a forecast is, see `titans_seq.forecast.outputs.make_output`.
        monitor: the metric whose least value tells the best epoch.
        learning_rate: of AdamW; it falls to `final_rate` of itself along a cosine.
        weight_decay: of AdamW.
        final_rate: share of the rate that is left at the end.
    """

    mode = "min"
    shown = ("train_loss", "val_loss", "val_mse", "val_mae")

    def __init__(
        self,
        network: nn.Module,
        *,
        output: str | Output = "huber",
        monitor: str = "val_loss",
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        final_rate: float = 0.1,
    ) -> None:
        super().__init__(network, learning_rate=learning_rate, weight_decay=weight_decay, final_rate=final_rate)
        if monitor not in self.shown[1:]:
            raise ValueError(f"monitor must be one of {', '.join(self.shown[1:])}; got {monitor!r}")
        self.output, self.monitor = make_output(output), monitor
        wanted, outputs = raw_size(self.output), getattr(network, "outputs", None)
        if outputs is not None and outputs != wanted:
            raise ValueError(f"output needs {wanted} raw numbers per step; the network has {outputs}")
        self.scores = ("loss", "mse", "mae") if has_point(self.output) else ("loss",)
        for stage in ("val", "test"):
            for name in self.scores:
                self.add_module(f"{stage}_{name}", WeightedMean())

    def forward(self, *inputs: Tensor, **named: Tensor) -> Arguments:
        """Inputs of the network -> arguments of the output, loc, scale."""
        raw, loc, scale = self.network(*inputs, **named)
        return arguments(self.output, raw), loc, scale

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses, weights, _ = self._losses(batch)
        # not over the sum of the weights: a batch of small ones is a small step
        loss = (losses * weights).sum() / (weights > 0).sum().clamp(min=1)
        self.log_training(loss, len(losses))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._score("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The point forecast [B, H], on the scale of the input; of counts the mean count."""
        return point(self.output, *self.forecast(batch))

    def forecast(self, batch: Batch, state: ModelState | None = None) -> Arguments:
        """Arguments of the output, loc and scale after the last block of the past.

        Args:
            state: of the memory before the first block; None begins a stream.
        """
        *_, (found, _) = self._by_block(batch, state)
        return found

    def loss_of(self, batch: Batch) -> tuple[float, float]:
        """The mean loss of the forecast after the last block, and how many steps are observed."""
        losses, weights, (_, target, _) = self._losses(batch)
        steps = target.shape[1]
        losses, weights = losses[:, -steps:].double(), weights[:, -steps:].double()
        return float((losses * weights).sum() / weights.sum().clamp(min=1e-6)), float(weights.sum())

    def _score(self, stage: str, batch: Batch) -> None:
        losses, weights, (forecast, target, seen) = self._losses(batch)
        values = {"loss": (losses, weights)}
        if len(self.scores) > 1:
            error = (point(self.output, *forecast).double() - target.double()) / self._unit(batch)[1]
            values |= {"mse": (error.square(), seen), "mae": (error.abs(), seen)}
        for name, (value, weight) in values.items():
            metric: Any = getattr(self, f"{stage}_{name}")
            metric.update(value, weight)
            self.log(f"{stage}_{name}", metric, on_step=False, on_epoch=True, prog_bar=stage == "val")

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor, tuple[Arguments, Tensor, Tensor]]:
        """Loss of every step of each block, side by side, and its weight, 0 where unobserved; the last forecast, its
        target and what is observed of it.
        """
        losses, weights = [], []
        for found, part in self._by_block(batch):
            args, loc, scale = found
            target = part["future_target"]
            observed = part.get("future_observed_values", torch.ones_like(target)).to(loc.dtype)
            if self._counts:
                mean, deviation = self._unit(part)
                target = (target * deviation + mean).round()
            # a missing target may be NaN, and NaN * 0 is NaN; whole numbers, which outputs of counts want
            target = torch.where(observed > 0, target, loc.round())
            losses.append(self.output.loss(target, args, loc=loc, scale=scale))
            weights.append(observed * part.get("future_weights", 1.0))
        return torch.cat(losses, dim=1), torch.cat(weights, dim=1), (found, target, observed)

    def _by_block(self, batch: Batch, state: ModelState | None = None) -> Iterator[tuple[Arguments, Batch]]:
        """The forecast after each block of the past, the memory carried from block to block, and the block's batch."""
        network: Any = self.network
        length = getattr(network, "lookback", batch["past_target"].shape[1])
        if state is None and batch["past_target"].shape[1] == length:  # mixers without a state have a forecast too
            yield self._in_units(self(**inputs_of(batch)), batch), batch
            return
        for part in blocks_of(batch, length, network.horizon):
            (raw, loc, scale), state, _ = network.carry(**inputs_of(part), state=state)
            yield self._in_units((arguments(self.output, raw), loc, scale), part), part

    @property
    def _counts(self) -> bool:
        return isinstance(self.output, CountOutput)

    def _unit(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean and deviation [B, 1] of the series of counts; of others 0 and 1."""
        if not self._counts:
            return torch.zeros(()), torch.ones(())
        if "unit" not in batch:
            raise ValueError("output 'negative_binomial' needs windows of counts: fit PanelScaling with Counts()")
        mean, deviation = batch["unit"].unbind(dim=-1)
        return mean[:, None], deviation[:, None]

    def _in_units(self, found: Arguments, batch: Batch) -> Arguments:
        """What the output is relative to, in the units of its targets."""
        if not self._counts:
            return found
        (args, loc, scale), (mean, deviation) = found, self._unit(batch)
        return args, loc * deviation + mean, scale * deviation
