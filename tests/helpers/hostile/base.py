"""The finished tiny runs that hostile inputs are made from."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hostile.case import Base

from titans_seq import NeuralMemory, TitansForecaster, save_state
from titans_seq.cli.main import main

TINY = ("model.dim=8", "model.heads=1", "data.batch_size=4", "--epochs", "1", "--quiet")
LAYER = {"dim": 8, "heads": 1, "chunk_size": 4}  # whose state is saved
RUNS = ("forecast", "dna", "dna_lm", "lm")


def letters(length: int, seed: int) -> str:
    """Bases."""
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def write_series(path: Path, rows: int = 150, columns: tuple[str, ...] = ("a", "b")) -> None:
    """A daily series of waves."""
    t = np.arange(rows)
    values = {name: np.sin(t / (5 + i)) + i for i, name in enumerate(columns)}
    pd.DataFrame({"date": pd.date_range("2024-01-01", periods=rows), **values}).to_csv(path, index=False)


def make_base(folder: Path) -> Base:
    """Train what is needed, which takes seconds, and return where it lies."""
    base = Base(folder)
    write_series(base.series)
    base.genome.write_text(f">one\n{letters(1500, 1)}\n>two\n{letters(700, 2)}\n")
    rows = (f"{letters(30, seed)},{'no' if seed % 2 else 'yes'}\n" for seed in range(60))
    base.sequences.write_text("sequence,label\n" + "".join(rows))
    base.book.write_text("the cat and the hat and the bat sat on a mat. " * 40)
    commands = {
        "forecast": (
            *("fit", "forecast", "--csv", base.series, "--lookback", "16", "--horizon", "4", "model.blocks=1"),
            "trainer.limit_train_batches=2",
        ),
        "dna": ("fit", "dna", "--csv", base.sequences, "model.layers=1"),
        "dna_lm": ("pretrain", "dna", "--fasta", base.genome, "--length", "64", "model.layers=1"),
        "lm": (
            *("fit", "lm", "--text", base.book, "--length", "16", "model.layers=1", "model.chunk_size=8"),
            "data.steps_per_epoch=3",
        ),
    }
    for name, words in commands.items():
        assert main([*map(str, words), *TINY, "--output", str(base / name)]) == 0
    state = ("--prompt", "the cat", "--tokens", "3", "--save-state", str(base / "talk.state"), "--quiet")
    assert main(["generate", "lm", "--checkpoint", str(base / "lm"), *state]) == 0
    _layer_state(base)
    _forecaster(base)
    return base


def _layer_state(base: Base) -> None:
    torch.manual_seed(0)
    layer = NeuralMemory(**LAYER)  # type: ignore[arg-type]
    _, state = layer(torch.randn(1, 6, 8), return_state=True)
    save_state(base / "layer.state", state, model=layer)
    torch.save(layer.state_dict(), base / "layer.pt")


def _forecaster(base: Base) -> None:
    frame = pd.DataFrame({"ds": pd.date_range("2024", periods=120, freq="h"), "y": np.sin(np.arange(120.0) / 4)})
    options = {"max_epochs": 1, "steps_per_epoch": 2, "batch_size": 8, "val_size": 24, "accelerator": "cpu"}
    model = TitansForecaster(horizon=4, lookback=16, network={"dim": 8}, **options)  # type: ignore[arg-type]
    model.fit(frame).save(base / "forecaster")


def model_options(base: Base) -> dict:
    """The shape in the folder of the saved language model."""
    return json.loads((base / "lm" / "model" / "config.json").read_text())["model"]
