"""-m: Hydra's multirun, one complete run folder per job, with the basic and the joblib launcher."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from titans_seq.cli.main import main


def test_every_job_gets_its_folder(tiny: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    words = ["model.depth=1,2", "seed=3"]
    small = [word for word in tiny if not word.startswith("trainer.max")]
    assert main(["fit", "forecast", "-m", *small, "--epochs", "1", *words, "--output", "sweep"]) == 0
    configs = [OmegaConf.load(f"sweep/{job}/config.yaml") for job in range(2)]
    assert [(c.model.depth, c.seed, c.data.seed) for c in configs] == [(1, 3, 3), (2, 3, 3)]
    tested = {json.loads(Path(f"sweep/{job}/metrics.json").read_text())["test_mse"] for job in range(2)}
    assert len(tested) == 2
    out = capfd.readouterr().out
    assert "model.depth" in out and out.splitlines()[-1].split()[-1] == "sweep"


def test_a_launcher_of_hydra(tiny: list[str]) -> None:
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
    assert main(["fit", "forecast", "-m", *tiny, *joblib, "model=memory,attention"]) == 0
    (folder,) = Path("runs/forecast").iterdir()
    mixers = [OmegaConf.load(folder / str(job) / "config.yaml").model.mixer for job in range(2)]
    assert folder.name.startswith("sweep-") and mixers == ["memory", "attention"]


def test_a_sweep_job_is_the_single_run(tiny: list[str], finished: Path) -> None:
    assert main(["fit", "forecast", "-m", *tiny, "--output", "it's a sweep"]) == 0
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (finished, Path("it's a sweep/0")))
    assert first["test_mse"] == second["test_mse"]
