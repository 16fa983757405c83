"""The forecaster for series of all kinds: gaps, covariates, distributions. One series per sample.

Dimensions: B batch, L lookback, H horizon, N patches, D model width, P raw numbers per forecast step; F known
covariates, G past ones, E static ones.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from gluonts.torch.distributions import Output
from torch import Tensor, nn
from torchmetrics import MeanMetric

from titans_seq.blocks import ModelState
from titans_seq.forecast.outputs import arguments, make_output, raw_size
from titans_seq.forecast.simba import SimbaForecaster
from titans_seq.training import TrainedModule

Batch = dict[str, Tensor]
FEW = 8  # observed steps
INPUTS = ("past_target", "past_observed_values", "past_features", "future_features", "static_features")


class PanelForecaster(SimbaForecaster):
    """The Simba forecaster for one series per sample, with a mask of what was observed and with covariates.

    Mean and deviation are those of the observed steps. What is missing is the mean with a mark beside it, and patches
    without any observed step write nothing into the memory. Covariates of the past enter the patches, those known ahead
    also the steps of the forecast, those of the whole series both.

    Args:
        lookback: L. horizon: H.
        outputs: P, raw numbers per step of the forecast.
        past_features: F + G covariates of the lookback. future_features: F, those known over the horizon.
        static_features: E covariates of the series.
        min_scale: the least deviation a lookback is said to have, where targets have a size of about 1: without it a
            flat lookback makes whatever follows as large as its rounding is small.
        options: as of `SimbaForecaster`.
    """

    def __init__(
        self,
        lookback: int,
        horizon: int,
        *,
        outputs: int = 1,
        past_features: int = 0,
        future_features: int = 0,
        static_features: int = 0,
        min_scale: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(lookback, horizon, **options)
        dim, width = self.embed.out_features, self.head.in_features
        self.outputs = outputs
        self.sizes = {"past_features": past_features, "future_features": future_features}
        self.static_size, self.min_scale = static_features, min_scale
        self.embed_more = nn.Linear(
            self.patch_size * (1 + past_features), dim, bias=False
        )  # 1: the mark of missing steps
        self.embed_static = nn.Linear(static_features, dim) if static_features else None
        self.head = nn.Linear(width, horizon * outputs)
        self.summary = nn.Linear(width, dim) if future_features else None
        steps = (nn.Linear(dim + future_features, 2 * dim), nn.GELU(), nn.Linear(2 * dim, outputs))
        self.steps = nn.Sequential(*steps) if future_features else None

    def forward(  # type: ignore[override]
        self,
        past_target: Tensor,
        past_observed_values: Tensor,
        past_features: Tensor | None = None,
        future_features: Tensor | None = None,
        static_features: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Raw numbers of the forecast, and what they are relative to.

        Args:
            past_target: [B, L], finite; where not observed any number.
            past_observed_values: [B, L], 1 where observed.
            past_features: [B, L, F + G], future_features: [B, H, F], static_features: [B, E]; None where there are
                none.

        Returns:
            raw [B, H, P], loc [B, 1], scale [B, 1]: mean and deviation of the observed steps. A series without any has
            0 and 1.
        """
        self._check(past_target, past_observed_values, past_features, future_features, static_features)
        x, mask, loc, scale = self._embedded(past_target, past_observed_values, past_features, static_features)
        for block in self.blocks:
            x = block(x, mask)
        return self._forecast(x, future_features), loc, scale

    def carry(
        self,
        past_target: Tensor,
        past_observed_values: Tensor,
        past_features: Tensor | None = None,
        future_features: Tensor | None = None,
        static_features: Tensor | None = None,
        *,
        states: ModelState | None = None,
    ) -> tuple[tuple[Tensor, Tensor, Tensor], ModelState, Tensor]:
        """As forward, with the memory's states from the blocks of the stream before this one; None begins a stream.

        Returns:
            what forward returns; the states after this block; the surprise of every step [B, L], a patch's spread over
            its steps, the mean where patches overlap.
        """
        self._check(past_target, past_observed_values, past_features, future_features, static_features)
        x, mask, loc, scale = self._embedded(past_target, past_observed_values, past_features, static_features)
        x, after, steps = self._carried(x, mask, states, "a carried state")
        return (self._forecast(x, future_features), loc, scale), after, steps

    def fresh(self, batch: int) -> ModelState:
        """The states at the beginning of `batch` streams: what is learned, and the persistent tokens read."""
        nothing = self.position.new_empty(batch, 0, self.position.shape[-1])
        mixers = [block.mixer for block in self._memory_blocks("a carried state") if block.mixer is not None]
        layers = [mixer(nothing, return_state=True)[1] for mixer in mixers]
        return ModelState(tuple(layers))

    def _embedded(
        self, past_target: Tensor, observed: Tensor, past_features: Tensor | None, static_features: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Patch tokens [B, N, D], their mask [B, N], loc and scale [B, 1]."""
        observed = observed.to(past_target.dtype)
        x, loc, scale = masked_scaling(past_target, observed, self.min_scale)
        return *self._panel_tokens(x, observed, past_features, static_features), loc, scale

    def _forecast(self, x: Tensor, future_features: Tensor | None) -> Tensor:
        """Tokens after the blocks [B, N, D] -> raw numbers [B, H, P]."""
        x = self.head_dropout(self.norm(x).flatten(1))
        raw = self.head(x).unflatten(-1, (self.horizon, self.outputs))
        if self.steps is None or self.summary is None or future_features is None:
            return raw
        summary = self.summary(x)[:, None].expand(-1, self.horizon, -1)
        return raw + self.steps(torch.cat([summary, future_features], dim=-1))

    def _panel_tokens(
        self, x: Tensor, observed: Tensor, past_features: Tensor | None, static_features: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """-> patch tokens [B, N, D], and which of them hold an observed step [B, N]."""
        more = (1 - observed)[..., None]
        if past_features is not None:
            more = torch.cat([more, past_features], dim=-1)
        tokens = self.embed(self._patches(x[..., None])[:, :, 0]) + self.embed_more(self._patches(more).flatten(2))
        if self.embed_static is not None and static_features is not None:
            tokens = tokens + self.embed_static(static_features)[:, None]
        mask = self._patches(observed[..., None])[:, :, 0].amax(dim=-1) > 0
        return self.dropout(tokens + self.position), mask

    def _patches(self, x: Tensor) -> Tensor:
        """[B, L, C] -> [B, N, C, patch_size], the last step repeated as in `SimbaForecaster`."""
        x = F.pad(x.mT, (0, self.patch_stride), mode="replicate")
        return x.unfold(-1, self.patch_size, self.patch_stride).transpose(1, 2)

    def _check(
        self,
        past_target: Tensor,
        observed: Tensor,
        past_features: Tensor | None,
        future_features: Tensor | None,
        static_features: Tensor | None,
    ) -> None:
        batch = len(past_target)
        wanted = {
            "past_target": (past_target, (batch, self.lookback)),
            "past_observed_values": (observed, (batch, self.lookback)),
            "past_features": (past_features, (batch, self.lookback, self.sizes["past_features"])),
            "future_features": (future_features, (batch, self.horizon, self.sizes["future_features"])),
            "static_features": (static_features, (batch, self.static_size)),
        }
        for name, (given, shape) in wanted.items():
            if given is None and shape[-1] == 0:
                continue
            if given is None or tuple(given.shape) != shape:
                raise ValueError(f"{name} must be {list(shape)}; got {None if given is None else list(given.shape)}")


def masked_scaling(x: Tensor, observed: Tensor, least: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """[B, L] -> (x - loc) / scale with 0 where not observed, loc [B, 1], scale [B, 1].

    The scale is never below `least` (1 where fewer than 8 steps were observed), nor 1e-4 of the mean's size, so that a
    constant series is not blown up by rounding, nor 1e-5.
    """
    count = observed.sum(dim=1, keepdim=True)
    loc = torch.where(observed > 0, x, 0).sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(observed > 0, x - loc, 0)
    variance = centred.square().sum(dim=1, keepdim=True) / count.clamp(min=1)
    scale = torch.sqrt(variance + (1e-4 * loc).square() + 1e-10)
    if least > 0:  # a few steps say nothing of how far the next may lie
        scale = torch.maximum(scale, torch.where(count < FEW, 1.0, least))
    scale = torch.where(count > 0, scale, torch.ones_like(scale))
    return centred / scale, loc, scale


class PanelModule(TrainedModule):
    """Training of a `PanelForecaster`.

    Batches are dictionaries with the network's inputs (`INPUTS`; absent where there are none), `future_target` [B, H]
    and `future_observed_values` [B, H]. A past of n lookbacks is read as n blocks of a stream, each with a forecast and
    a loss of its own, the memory carried on with its gradient. The loss is the output's, on the scale of the targets,
    averaged over observed steps; the validation's average does not depend on the batch size. Logged per epoch:
    `train_loss`, `val_loss`.

    Args:
        network: past -> (raw, loc, scale).
        output: what a forecast is, see `titans_seq.forecast.outputs.make_output`.
        learning_rate, weight_decay, final_rate: as of `TrainedModule`.
    """

    monitor, mode = "val_loss", "min"
    shown = ("train_loss", "val_loss")

    network: PanelForecaster

    def __init__(
        self,
        network: PanelForecaster,
        *,
        output: str | Output = "quantiles",
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        final_rate: float = 0.1,
    ) -> None:
        super().__init__(network, learning_rate=learning_rate, weight_decay=weight_decay, final_rate=final_rate)
        self.output = make_output(output)
        if network.outputs != raw_size(self.output):
            raise ValueError(
                f"output needs {raw_size(self.output)} raw numbers per step; the network has {network.outputs}"
            )
        self.val_loss = MeanMetric(nan_strategy="disable").set_dtype(torch.float64)  # a loss that is NaN is to be seen

    def forward(self, *inputs: Tensor, **named: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Inputs of the network -> arguments of the output, loc [B, 1], scale [B, 1]."""
        raw, loc, scale = self.network(*inputs, **named)
        return arguments(self.output, raw), loc, scale

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses, observed = self._losses(batch)
        loss = (losses * observed).sum() / observed.sum().clamp(min=1)
        self.log_training(loss, len(losses))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        losses, observed = self._losses(batch)
        self.val_loss.update(losses.double(), observed.double())
        self.log("val_loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """The forecast after the last block."""
        return self.forecast(batch)

    def forecast(self, batch: Batch, states: ModelState | None = None) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Arguments of the output, loc and scale after the last block of the past; states: of the memory before the
        first one.
        """
        *_, (args, loc, scale, _) = self._by_block(batch, states)
        return args, loc, scale

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of every step [B, H] of each block, side by side, 0 where the target is missing, and which are
        observed.
        """
        found = [self._loss(part, args, loc, scale) for args, loc, scale, part in self._by_block(batch)]
        losses, observed = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        return losses, observed

    def _loss(self, part: Batch, args: tuple[Tensor, ...], loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        observed = part["future_observed_values"].to(loc.dtype)
        # a missing target may be NaN, and NaN * 0 is NaN; whole numbers, which outputs of counts want
        target = torch.where(observed > 0, part["future_target"], loc.round())
        return self.output.loss(target, args, loc=loc, scale=scale), observed

    def _by_block(
        self, batch: Batch, states: ModelState | None = None
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor, Tensor, Batch]]:
        """Forecast after each block of the past, the memory carried on from block to block; also each block's own
        batch.
        """
        parts = blocks_of(batch, self.network.lookback, self.network.horizon)
        if len(parts) == 1 and states is None:  # mixers that carry nothing have a forecast too
            yield *self(**inputs_of(batch)), batch
            return
        for part in parts:
            (raw, loc, scale), states, _ = self.network.carry(**inputs_of(part), states=states)
            yield arguments(self.output, raw), loc, scale, part


def blocks_of(batch: Batch, lookback: int, horizon: int) -> list[Batch]:
    """Cut a past of n lookbacks into n batches, each with the horizon that followed it."""
    length = batch["past_target"].shape[1]
    if length == lookback:
        return [batch]
    if length % lookback:
        raise ValueError(f"past_target must be of whole blocks of {lookback} steps; got {length}")
    whole = {
        name: torch.cat([batch[f"past_{name}"], batch[f"future_{name}"]], dim=1)
        for name in ("target", "observed_values") if f"future_{name}" in batch
    }  # fmt: skip
    if "future_features" in batch:
        known = batch["past_features"][..., : batch["future_features"].shape[-1]]
        whole["features"] = torch.cat([known, batch["future_features"]], dim=1)
    parts = []
    for begin in range(0, length, lookback):
        end = begin + lookback
        past = {name: value[:, begin:end] for name, value in batch.items() if name.startswith("past_")}
        future = {f"future_{name}": value[:, end : end + horizon] for name, value in whole.items()}
        parts.append({name: batch[name] for name in ("static_features",) if name in batch} | past | future)
    return parts


def inputs_of(batch: Batch) -> Batch:
    return {name: batch[name] for name in INPUTS if name in batch}


def on_device(batch: Batch, network: nn.Module) -> Batch:
    device = next(network.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}
