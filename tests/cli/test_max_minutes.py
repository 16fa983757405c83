"""A training that ends after a time: whole results, and it can be taken up again."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from titans_seq.cli.main import main
from titans_seq.forecast import ForecastModule

pytestmark = pytest.mark.filterwarnings("default::titans_seq.datamodules.common.errors.DataWarning")
LEAST = ["--max-minutes", "0.001"]  # 60 ms
ENDLESS = ["--epochs", "1000", "early_stopping.patience=1000"]
RESUME = ["fit", "forecast", "--resume", "--quiet", "--output", "run"]


def metrics() -> dict:
    return json.loads(Path("run/metrics.json").read_text())


@pytest.fixture
def options(tiny: list[str]) -> list[str]:
    return ["fit", "forecast", *[word for word in tiny if "max_epochs" not in word], "--output", "run"]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every training step takes longer than LEAST; their places in their epochs."""
    places: list[int] = []
    step = ForecastModule.training_step

    def slow(self: ForecastModule, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        places.append(batch_idx)
        time.sleep(0.07)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ForecastModule, "training_step", slow)
    return places


def test_it_ends_inside_an_epoch_with_whole_results(
    options: list[str], steps: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, *ENDLESS, *LEAST]) == 0
    assert "the time limit ended the training after 1 of the 2 batches of its first epoch" in capsys.readouterr().err
    assert steps == [0]
    found = metrics()
    assert (found["stopped"], found["epochs"], found["best_epoch"]) == ("max_minutes", 1, 1)
    assert found["test_mse"] > 0 and found["val_mse"] > 0
    assert Path("run/training.png").exists() and Path("run/forecast.png").exists()
    assert OmegaConf.load("run/config.yaml").trainer.max_time == {"minutes": 0, "milliseconds": 60}
    assert main(["test", "forecast", "--checkpoint", "run", "--quiet"]) == 0


def test_it_goes_on_with_resume(options: list[str], steps: list[int]) -> None:
    assert main([*options, *ENDLESS, *LEAST]) == 0
    assert main(RESUME) == 0  # the same time again: one more step, of the next epoch
    assert (metrics()["epochs"], metrics()["stopped"], steps) == (2, "max_minutes", [0, 0])
    assert main([*options, *ENDLESS, "--resume", "--max-minutes", "0.002"]) == 0
    assert (metrics()["epochs"], steps[:3]) == (3, [0, 0, 0])
    config = OmegaConf.load("run/config.yaml")
    config.trainer.max_epochs = 4
    OmegaConf.save(config, "run/config.yaml")
    assert main([*RESUME, "--max-minutes", "1.5"]) == 0
    assert metrics()["epochs"] == 4 and "stopped" not in metrics()
    assert OmegaConf.load("run/config.yaml").trainer.max_time == {"minutes": 1, "milliseconds": 30000}


def test_a_run_that_ended_in_time_is_finished(options: list[str], refused: Callable[[list[str]], str]) -> None:
    assert main([*options, "--epochs", "1", "--max-minutes", "30"]) == 0
    assert "stopped" not in metrics()
    assert "run is finished; give more --epochs" in refused(RESUME)


def test_the_end_of_an_epoch_is_looked_at_too(
    options: list[str], steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    end = ForecastModule.on_validation_epoch_end

    def slow(self: ForecastModule) -> None:
        time.sleep(1.6)
        end(self)

    monkeypatch.setattr(ForecastModule, "on_validation_epoch_end", slow)
    assert main([*options, *ENDLESS, "--max-minutes", "0.025"]) == 0
    assert steps == [0, 1]


@pytest.mark.parametrize("words", [["pretrain", "dna", "--fasta", "genome.fa"], ["fit", "lm", "--text", "genome.fa"]])
def test_other_tasks(words: list[str]) -> None:
    Path("genome.fa").write_text(">chr1\n" + "ACGGTCATTA" * 500 + "\n")
    small = ["model.dim=8", "model.layers=1", "trainer.limit_train_batches=1", "--length", "64", "--quiet"]
    assert main([*words, *small, "--epochs", "1000", *LEAST, "--output", "run"]) == 0
    assert metrics()["stopped"] == "max_minutes" and metrics()["epochs"] < 1000


def test_a_sweep(tiny: list[str]) -> None:
    words = [word for word in tiny if "max_epochs" not in word]
    assert main(["fit", "forecast", "-m", *words, "seed=0,1", *ENDLESS, *LEAST, "--output", "sweep"]) == 0
    for job in ("0", "1"):
        assert json.loads(Path("sweep", job, "metrics.json").read_text())["stopped"] == "max_minutes"


def test_the_networks_of_an_ensemble_share_it(options: list[str], steps: list[int]) -> None:
    assert main([*options, *ENDLESS, *LEAST, "--seeds", "3"]) == 0
    assert metrics()["stopped"] == "max_minutes" and steps == [0, 0, 0]
    for number in ("1", "2"):
        own = OmegaConf.load(f"run/members/{number}/config.yaml").trainer.max_time
        assert own == {"milliseconds": 20}
    assert main([*RESUME, "--max-minutes", "0.0015"]) == 0  # all train on
    assert steps == [0, 0, 0] * 2


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e9", "soon"])
def test_no_time_is_refused(value: str, refused: Callable[[list[str]], str]) -> None:
    assert "--max-minutes" in refused(["fit", "forecast", f"--max-minutes={value}"])


def test_an_override_of_lightnings_own(options: list[str], refused: Callable[[list[str]], str]) -> None:
    assert main([*options, *ENDLESS, "trainer.max_time='00:00:00:01'"]) == 0
    assert metrics()["stopped"] == "max_minutes"
    clash = ["fit", "forecast", *LEAST, "trainer.max_time=null"]
    assert "trainer.max_time is set by --max-minutes and by an override" in refused(clash)
    assert "leaves no time to train" in refused(["fit", "forecast", "trainer.max_time={minutes:0}"])
    assert "trainer: max_time=soon" in refused(["fit", "forecast", "trainer.max_time=soon"])
