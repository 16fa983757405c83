"""Training and scoring of a forecasting network."""

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from titans_seq.cli.config import compose
from titans_seq.cli.constructors import build
from titans_seq.cli.forecast import FORECAST
from titans_seq.forecast import ForecastModule
from titans_seq.forecast.outputs import make_output, raw_size
from titans_seq.training import quiet_training


class LastValue(nn.Module):
    """Repeats the last value; one weight, so that it can be trained."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon, self.gain = horizon, nn.Parameter(torch.ones(()))

    def forward(self, past_target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raw = (self.gain * past_target[:, -1:]).expand(-1, self.horizon)[..., None]
        nothing = torch.zeros_like(past_target[:, :1])
        return raw, nothing, nothing + 1


def batches(windows: torch.Tensor, size: int) -> DataLoader:
    return DataLoader([{"past_target": w[:8], "future_target": w[8:]} for w in windows], batch_size=size)


def quiet_trainer(**options) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def lightning_advice():
    with quiet_training():
        yield


@pytest.mark.parametrize("size", [1, 7, 32, 128])
def test_scores_are_means_over_elements_for_any_batch_size(size):
    """Against one numpy pass in float64; the last batch is smaller than the others."""
    windows = 5 + torch.randn(45, 12, generator=torch.Generator().manual_seed(0))
    exact = windows.double().numpy()
    error = exact[:, 8:] - exact[:, 7:8]
    scores = quiet_trainer().test(ForecastModule(LastValue(4)), batches(windows, size), verbose=False)[0]
    assert scores["test_mse"] == pytest.approx(np.mean(error**2), rel=1e-9)
    assert scores["test_mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-9)


def test_rate_falls_along_a_cosine_to_its_tenth():
    module = ForecastModule(LastValue(4), learning_rate=1e-2)
    rates = []

    class Watch(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    quiet_trainer(max_epochs=4, limit_val_batches=0, callbacks=[Watch()]).fit(module, batches(torch.randn(8, 12), 8))
    assert rates == pytest.approx([1e-2, 1e-3 + 9e-3 * 0.853553, 5.5e-3, 1e-3 + 9e-3 * 0.146447], rel=1e-4)


def test_missing_elements_do_not_count():
    windows = 5 + torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    seen = (torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) < 0.6).float()
    rows = [
        {"past_target": w[:8], "future_target": torch.where(s > 0, w[8:], torch.nan), "future_observed_values": s}
        for w, s in zip(windows, seen, strict=True)
    ]
    scores = quiet_trainer().test(ForecastModule(LastValue(4)), DataLoader(rows, batch_size=4), verbose=False)[0]
    error = (windows[:, 8:] - windows[:, 7:8]).double().numpy()[seen.numpy() > 0]
    assert scores["test_mse"] == pytest.approx(np.mean(error**2), rel=1e-9)
    assert scores["test_mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-9)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="output must be one of quantiles, .*, mse, mae, huber; got 'l3'"):
        ForecastModule(LastValue(4), output="l3")
    with pytest.raises(ValueError, match="monitor must be one of val_loss, val_mse, val_mae; got 'loss'"):
        ForecastModule(LastValue(4), monitor="loss")


def _embedded_score(*overrides: str, epochs: int = 8) -> tuple[float, int]:
    """Test MSE and parameters of the default configuration on the embedded series."""
    config = compose(FORECAST.schema, list(overrides))
    L.seed_everything(0, verbose=False)
    network = build(config.model, "model", outputs=raw_size(make_output(config.training.output)))
    data = build(config.data, "data")
    module = build(config.training, "training", network=network)
    averaging = build(config.averaging, "averaging")
    trainer = quiet_trainer(max_epochs=epochs, limit_val_batches=0, callbacks=[averaging])
    trainer.fit(module, datamodule=data)
    score = trainer.test(module, datamodule=data, verbose=False)[0]["test_mse"]
    return score, sum(p.numel() for p in network.parameters())


def test_the_memory_is_needed_on_the_embedded_series():
    """Motifs shown once return after their cue: without a memory, at no fewer parameters, the error is 1.25x or
    more.
    """
    with_memory, size = _embedded_score()
    without, control_size = _embedded_score("model=none", "model.dim=96")
    assert control_size >= size
    assert with_memory <= 0.8 * without, f"{with_memory:.4f} with, {without:.4f} without the memory"
