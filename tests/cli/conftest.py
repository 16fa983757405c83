"""A folder to run in, options that make a run small, and one finished run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from titans_seq.cli.main import main

TINY = [
    "model.dim=8", "model.blocks=1", "model.heads=2", "trainer.limit_train_batches=2", "trainer.max_epochs=2",
    "data.batch_size=4", "--quiet",
]  # fmt: skip


@pytest.fixture
def tiny() -> list[str]:
    return list(TINY)


@pytest.fixture(autouse=True)
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, without data sets."""
    monkeypatch.setenv("TITANS_SEQ_DATA", str(tmp_path / "no-data"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on the embedded series; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(["fit", "forecast", *TINY, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def refused(workdir: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Run a command that must end with exit code 2, one line on stderr, and nothing written; return the line."""

    def run(words: list[str]) -> str:
        before = sorted(workdir.rglob("*"))
        capsys.readouterr()
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1 and err.startswith("titans-seq: ")
        assert sorted(workdir.rglob("*")) == before
        return err

    return run


@pytest.fixture
def with_triton(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """Copy a finished run, whose configuration then asks for the kernels, where they cannot run; return its name."""

    def copy(run: Path) -> str:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # tests interpret them
        shutil.copytree(run, "run")
        config = OmegaConf.load("run/config.yaml")
        config.model.backend = "triton"
        OmegaConf.save(config, "run/config.yaml")
        return "run"

    return copy


@pytest.fixture
def own_csv(workdir: Path) -> Path:
    """A daily series of two columns, long enough for lookback 16 and horizon 8."""
    days = pd.date_range("2024-01-30", periods=150, freq="D")
    t = np.arange(150)
    frame = pd.DataFrame({"date": days, "sales": 1000 + 100 * np.sin(t / 7), "visits": 5 + np.cos(t / 3)})
    path = workdir / "own.csv"
    frame.to_csv(path, index=False)
    return path
