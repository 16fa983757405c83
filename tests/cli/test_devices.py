"""A run on several devices: here two processes of one CPU, which speak by gloo."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from titans_seq.cli import checkpoints, runs
from titans_seq.cli.main import main


def fit(folder: Path, words: list[str]) -> None:
    assert main(["fit", *words, "--output", str(folder), "--quiet"]) == 0


def fit_in_processes(folder: Path, words: list[str]) -> str:
    """Train by a command of its own, which starts the other process; what was printed."""
    command = [sys.executable, "-P", "-m", "titans_seq.cli.main", "fit", *words, "--output", str(folder), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def history(folder: Path) -> list[dict[str, float]]:
    """A row per epoch."""
    callbacks = checkpoints.load_checkpoint(folder / runs.CHECKPOINTS / runs.LAST)["callbacks"]
    return next(state["rows"] for name, state in callbacks.items() if name.startswith("History"))


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def language(tmp_path: Path) -> list[str]:
    """A small language model of a small text."""
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog; " * 200)
    small = ["model.dim=16", "model.layers=1", "model.segment=16", "data.steps_per_epoch=4", "trainer.accelerator=cpu"]
    return ["lm", "--text", str(text), "--variant", "mac", "--length", "32", *small]


def test_two_processes_are_one_run(language: list[str], tmp_path: Path) -> None:
    """One folder, one table, and the weights of one process whose batches are twice as large."""
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    words = [*language, "--epochs", "1"]
    fit(one, [*words, "data.batch_size=8"])
    printed = fit_in_processes(two, [*words, "data.batch_size=4", "--devices", "2"])
    assert printed.count("test_perplexity") == 1
    assert json.loads((two / "metrics.json").read_text())["epochs"] == 1
    assert sorted(path.name for path in two.parent.iterdir()) == ["one", "two"]
    torch.testing.assert_close(exported(two), exported(one), rtol=1e-3, atol=1e-5)


def test_shared_weights_are_those_of_one_process(language: list[str], tmp_path: Path) -> None:
    """Also when the training goes on from a checkpoint. Gradients as small as AdamW's epsilon show if their clipping
    differs: otherwise it divides their scale out."""
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    words = [*language, "trainer.gradient_clip_val=1e-6"]
    fit(one, [*words, "data.batch_size=8", "--epochs", "1"])
    fit_in_processes(two, [*words, "data.batch_size=4", "--epochs", "1", "--devices", "2", "--strategy", "fsdp"])
    first = exported(two)
    torch.testing.assert_close(first, exported(one), rtol=1e-3, atol=1e-5)
    fit(one, ["lm", "--resume", "--epochs", "2"])
    printed = fit_in_processes(two, ["lm", "--resume", "--epochs", "2"])
    assert printed.count("test_perplexity") == 1
    assert files(two) == files(one) and sorted(path.name for path in two.parent.iterdir()) == ["one", "two"]
    torch.testing.assert_close(exported(two), exported(one), rtol=1e-3, atol=1e-5)
    assert any((value - first[name]).abs().max() > 1e-4 for name, value in exported(two).items())
    once, twice = (json.loads((folder / "metrics.json").read_text()) for folder in (one, two))
    assert twice["parameters"] == once["parameters"]
    assert twice["test_loss"] == pytest.approx(once["test_loss"], rel=1e-4)
    for both, alone in zip(history(two), history(one), strict=True):
        assert both["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-4)
        assert both["val_loss"] == pytest.approx(alone["val_loss"], rel=1e-4)


def test_losses_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    """In training, validation and test, whose windows do not go round: none counts twice."""
    values = np.sin(np.arange(400) / 5) + 0.1 * np.random.default_rng(0).standard_normal(400)
    csv = tmp_path / "series.csv"
    pd.DataFrame({"date": pd.date_range("2024-01-01", periods=400, freq="h"), "value": values}).to_csv(csv, index=False)
    # 280 rows of training are 256 windows, which two processes share evenly
    words = ["forecast", "--csv", str(csv), "--lookback", "16", "--horizon", "9", "--epochs", "2"]
    words += ["model.dropout=0", "model.head_dropout=0", "trainer.accelerator=cpu", "data.eval_batch_size=7"]
    words += ["data.least_steps=1"]  # each window once
    folders = one, two = tmp_path / "one", tmp_path / "two"
    fit(one, [*words, "data.batch_size=32"])
    fit_in_processes(two, [*words, "data.batch_size=16", "trainer.devices=2", "trainer.strategy=ddp"])
    once, twice = (json.loads((folder / "metrics.json").read_text()) for folder in folders)
    for name in ("test_mse", "test_mae", "val_mse"):
        assert twice[name] == pytest.approx(once[name], rel=1e-4), name
    for both, alone in zip(history(two), history(one), strict=True):
        assert both["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-4)
        assert both["val_mse"] == pytest.approx(alone["val_mse"], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--strategy", "zero", "--devices", "2"], "invalid choice: 'zero' (choose from 'ddp', 'fsdp')"),
        (["--devices", "0"], "must be at least 1"),
        (["--devices", "2", "trainer.devices=2"], "trainer.devices is set by --devices and by an override"),
        (
            ["--devices", "2", "--strategy", "fsdp", "trainer.strategy=ddp"],
            "trainer.strategy is set by --strategy and by",
        ),
        (["--strategy", "fsdp"], "give --devices N"),
        (["trainer.strategy=fsdp"], "give --devices N"),
        (["--devices", "2", "--strategy", "fsdp"], "give ~averaging or --strategy ddp"),
        (
            ["--devices", "2", "--strategy", "fsdp", "~averaging", "trainer.precision=64"],
            "Choose a different precision",
        ),
        (["--devices", "2", "-m", "seed=0,1"], "one command per job, without -m"),
    ],
)
def test_one_line_for_wrong_input(words: list[str], said: str, refused: Callable[[list[str]], str]) -> None:
    assert said in refused(["fit", "forecast", *words])


def test_a_resumed_run_keeps_its_strategy(finished: Path, refused: Callable[[list[str]], str]) -> None:
    resumed = ["fit", "forecast", "--output", str(finished), "--resume", "--epochs", "3"]
    assert "trainer.devices is 1 in the run" in refused([*resumed, "--devices", "2"])
    assert "trainer.strategy is auto in the run" in refused([*resumed, "--strategy", "fsdp"])


def test_one_device_is_enough_for_a_finished_run(
    finished: Path, workdir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, "run")
    config = OmegaConf.load("run/config.yaml")
    config.trainer.update({"devices": 2, "strategy": "fsdp"})
    OmegaConf.save(config, "run/config.yaml")
    assert main(["test", "forecast", "--checkpoint", "run", "--quiet"]) == 0
    assert capfd.readouterr().out.count("MSE, standardised") == 1
