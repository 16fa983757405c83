"""A run on several devices: here two processes of one CPU, which speak by gloo."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from titans_seq.cli import runs


def fit(folder: Path, words: list[str], devices: int) -> str:
    """Train in so many processes; what was printed."""
    strategy = "ddp" if devices > 1 else "auto"
    trainer = ["trainer.accelerator=cpu", f"trainer.devices={devices}", f"trainer.strategy={strategy}"]
    command = [
        sys.executable,
        "-P",
        "-m",
        "titans_seq.cli.main",
        "fit",
        *words,
        "--output",
        str(folder),
        "--quiet",
        *trainer,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_are_one_run(tmp_path: Path) -> None:
    """One folder, one table, and the weights of one process whose batches are twice as large."""
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog; " * 200)
    words = [
        "lm", "--text", str(text), "--variant", "mac", "model.dim=16", "model.layers=1", "model.segment=16", "--length", "32",
        "data.steps_per_epoch=4", "--epochs", "1",
    ]  # fmt: skip
    weights = []
    for devices in (2, 1):
        folder = tmp_path / "runs" / str(devices)
        printed = fit(folder, [*words, f"data.batch_size={8 // devices}"], devices)
        assert printed.count("test_perplexity") == 1
        assert json.loads((folder / "metrics.json").read_text())["epochs"] == 1
        weights.append(load_file(folder / "model" / "model.safetensors"))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["1", "2"]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-5)


def test_losses_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    """In training, validation and test, whose windows do not go round: none counts twice."""
    values = np.sin(np.arange(400) / 5) + 0.1 * np.random.default_rng(0).standard_normal(400)
    csv = tmp_path / "series.csv"
    pd.DataFrame({"date": pd.date_range("2024-01-01", periods=400, freq="h"), "value": values}).to_csv(csv, index=False)
    # 280 rows of training are 256 windows, which two processes share evenly
    words = [
        "forecast",
        "--csv",
        str(csv),
        "--lookback",
        "16",
        "--horizon",
        "9",
        "--epochs",
        "2",
        "model.dropout=0",
        "model.head_dropout=0",
    ]
    found = []
    for devices in (2, 1):
        folder = tmp_path / str(devices)
        fit(folder, [*words, f"data.batch_size={32 // devices}", "data.eval_batch_size=7"], devices)
        callbacks = runs.load_checkpoint(folder / runs.CHECKPOINTS / runs.LAST)["callbacks"]
        history = next(state["rows"] for name, state in callbacks.items() if name.startswith("History"))
        found.append((json.loads((folder / "metrics.json").read_text()), history))
    (two, twice), (one, once) = found
    for name in ("test_mse", "test_mae", "val_mse"):
        assert two[name] == pytest.approx(one[name], rel=1e-4), name
    for both, alone in zip(twice, once, strict=True):
        assert both["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-4)
        assert both["val_mse"] == pytest.approx(alone["val_mse"], rel=1e-4)
