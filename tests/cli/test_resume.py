"""Ctrl-C keeps the checkpoint, and a resumed run ends like one that was never interrupted."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from titans_seq.cli.constructors import build
from titans_seq.cli.main import main
from titans_seq.datamodules import ForecastDataModule
from titans_seq.forecast import ForecastModule

EPOCHS = 4
LONG = ["--epochs", str(EPOCHS), "early_stopping.patience=50", "model.dropout=0.3"]


@pytest.fixture
def options(tiny: list[str]) -> list[str]:
    return ["fit", "forecast", *[word for word in tiny if "max_epochs" not in word]]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def _interrupt_at(monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int) -> None:
    """Raise a real SIGINT in that training step."""
    step = ForecastModule.training_step

    def interrupted(self: ForecastModule, batch_: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if (self.trainer.current_epoch, batch_idx) == (epoch, batch):
            signal.raise_signal(signal.SIGINT)
        return step(self, batch_, batch_idx)

    monkeypatch.setattr(ForecastModule, "training_step", interrupted)


@pytest.mark.parametrize(
    ("epoch", "batch", "moved"),
    [(0, 0, False), (2, 0, False), (2, 1, True)],
    ids=["at-once", "between", "inside-moved"],
)
def test_resumed_equals_uninterrupted(
    epoch: int,
    batch: int,
    moved: bool,
    options: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    whole, cut = Path("whole"), Path("cut")
    assert main([*options, *LONG, "--output", "whole"]) == 0
    with monkeypatch.context() as patch:
        _interrupt_at(patch, epoch, batch)
        assert main([*options, *LONG, "--output", "cut"]) == 130
    assert "go on with: titans-seq fit forecast --output cut --resume" in capfd.readouterr().err
    assert (cut / "checkpoints" / "last.ckpt").exists() and not (cut / "metrics.json").exists()
    if moved:
        cut = cut.rename("elsewhere")
    assert main(["fit", "forecast", "--resume", "--quiet", "--output", str(cut)]) == 0
    torch.testing.assert_close(_weights(cut), _weights(whole), rtol=0, atol=0)
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (whole, cut))
    timed = {"fit_seconds", "seconds_per_epoch"}
    assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in second.items() if k not in timed}


def test_a_finished_run_can_be_given_more_epochs(options: list[str]) -> None:
    assert main([*options, "--epochs", "1"]) == 0
    assert main(["fit", "forecast", "--resume", "--quiet", "--epochs", "3"]) == 0  # the default folder is found again
    metrics = json.loads(Path("runs/forecast/embedded-h96-memory-s0/metrics.json").read_text())
    assert metrics["epochs"] == 3


@pytest.mark.parametrize("stopped", [False, True], ids=["to-its-end", "stopped-early"])
def test_extending_a_finished_run_can_be_interrupted(
    stopped: bool, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = ["early_stopping.patience=1", "early_stopping.min_delta=1000"] if stopped else []
    assert main([*options, "--epochs", "2", *patience, "--output", "run"]) == 0
    resume = ["fit", "forecast", "--resume", "--quiet", "--output", "run"]
    with monkeypatch.context() as patch:
        _interrupt_at(patch, 2, 1)
        assert main([*resume, "--epochs", "3"]) == 130
    assert not Path("run/metrics.json").exists()
    assert main(resume) == 0
    assert json.loads(Path("run/metrics.json").read_text())["epochs"] == 3


def test_metrics_are_those_of_the_best_epoch(options: list[str]) -> None:
    """A rate far too high after a good start: the last weights, averaged or not, are not those that are tested."""
    rising = ["--output-type", "huber", "training.learning_rate=0.3", "--epochs", "4"]
    rising += ["early_stopping.patience=50", "averaging.decay=0.5"]
    assert main([*options, *rising, "--output", "run"]) == 0
    path = Path("run/metrics.json")
    metrics = json.loads(path.read_text())
    assert metrics["best_epoch"] < metrics["epochs"] == 4

    config = OmegaConf.load("run/config.yaml")
    data = ForecastDataModule(batch_size=4)
    data.setup("fit")
    module = build(config.training, "training", network=build(config.model, "model")).eval()
    module.load_state_dict(torch.load("run/checkpoints/best.ckpt", weights_only=True)["state_dict"])
    for split in ("val", "test"):
        windows = data.windows(split)
        batch = windows.__getitems__(list(range(len(windows))))
        with torch.no_grad():
            (value,), loc, scale = module(batch["past_target"])
            error = (value[..., 0] * scale + loc - batch["future_target"]).double()
        assert metrics[f"{split}_mse"] == pytest.approx(error.square().mean().item(), rel=1e-5)
        assert metrics[f"{split}_mae"] == pytest.approx(error.abs().mean().item(), rel=1e-5)

    path.unlink()  # as if interrupted while it was tested
    assert main(["fit", "forecast", "--resume", "--quiet", "--output", "run"]) == 0
    assert json.loads(path.read_text()) == metrics


def test_averaging_and_early_stopping_can_be_switched_off(options: list[str]) -> None:
    off = ["averaging=null", "~early_stopping", "--epochs", "1"]
    assert main([*options, *off, "--output", "plain"]) == 0
    checkpoint = torch.load("plain/checkpoints/last.ckpt", weights_only=True)
    assert not [name for name in checkpoint["callbacks"] if name.startswith(("EMA", "EarlyStopping"))]
    assert "averaging_state" not in checkpoint
    assert main(["fit", "forecast", "--resume", "--quiet", "--epochs", "2", "--output", "plain", "averaging=null"]) == 0
    assert main(["test", "forecast", "--checkpoint", "plain", "--quiet"]) == 0


def test_a_run_that_stopped_early_is_not_trained_on(options: list[str]) -> None:
    stopping = ["--epochs", "30", "early_stopping.patience=1", "early_stopping.min_delta=1000"]  # nothing is an advance
    assert main([*options, *stopping, "--output", "early"]) == 0
    before = _weights(Path("early"))
    epochs = json.loads(Path("early/metrics.json").read_text())["epochs"]
    assert epochs == 2
    Path("early/metrics.json").unlink()  # as if interrupted while it was tested
    assert main(["fit", "forecast", "--resume", "--quiet", "--output", "early"]) == 0
    torch.testing.assert_close(_weights(Path("early")), before, rtol=0, atol=0)
    assert json.loads(Path("early/metrics.json").read_text())["epochs"] == epochs


def test_ctrl_c_in_a_terminal(options: list[str], finished: Path) -> None:
    command = [sys.executable, "-P", "-m", "titans_seq.cli.main", *options]
    command += ["--epochs", "100000", "early_stopping.patience=100000", "--output", "run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    best = Path("run/checkpoints/best.ckpt")
    deadline = time.monotonic() + 90
    while not best.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.count("\n") == 1 and "--resume" in err
    assert torch.load("run/checkpoints/last.ckpt", weights_only=True)["epoch"] >= 0
    shutil.rmtree("run")
