"""fit: what a run folder holds, how folders are chosen, and what the keys mean."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from titans_seq.cli import runs
from titans_seq.cli.config import compose
from titans_seq.cli.forecast import FORECAST
from titans_seq.cli.main import main
from titans_seq.datamodules import embedded_series
from titans_seq.datamodules.forecast import csv_files, download, registry
from titans_seq.datamodules.forecast.registry import DatasetSpec, find_spec

DATA = os.environ.get("TITANS_SEQ_DATA")  # before the tests' own folder takes its place
METRICS = {
    "dataset", "data", "series", "lookback", "horizon", "mixer", "output", "seed", "test_windows", "scale", "drop_last",
    "test_mse", "test_mae", "test_mase", "test_smape", "test_crps", "test_coverage_80", "test_coverage_95",
    "baseline", "season", "baseline_mse", "baseline_mae", "baseline_mase", "baseline_smape", "baseline_crps",
    "baseline_coverage_80", "baseline_coverage_95", "val_loss", "val_mse", "val_mae", "epochs", "best_epoch",
    "parameters", "fit_seconds", "seconds_per_epoch",
}  # fmt: skip


def test_run_folder_is_complete(finished: Path) -> None:
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    pictures = {"training.png", "forecast.png", "surprise.png"}
    kept = {"config.yaml", "metrics.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt", ".lock"}
    model = {f"model/{name}" for name in ("config.json", "model.safetensors", "series.safetensors")}
    assert names == kept | pictures | model
    assert all((finished / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_metrics_say_what_was_measured(finished: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics) == METRICS
    assert (metrics["dataset"], metrics["mixer"], metrics["epochs"]) == ("embedded", "memory", 2)
    assert (metrics["data"], metrics["series"], metrics["output"]) == ("generated", 16, "quantiles")
    assert metrics["scale"] == "standardised" and metrics["drop_last"] is False
    assert 1 <= metrics["best_epoch"] <= 2 and metrics["test_windows"] > 0 and metrics["parameters"] > 0


def test_config_is_resolved_and_complete(finished: Path) -> None:
    text = (finished / "config.yaml").read_text()
    assert "${" not in text
    config = OmegaConf.create(text)
    assert config.task == "forecast" and config.model.lookback == config.data.lookback
    assert config.model.depth >= 1 and config.training.learning_rate > 0  # no yaml names them


def test_checkpoints_load_without_pickle_and_hold_the_scale(finished: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(finished / "checkpoints" / name, weights_only=True)
        assert checkpoint["ForecastDataModule"]["about"]["scale_ids"] == embedded_series().ids.tolist()


def test_default_folder_names_the_run_and_counts(workdir: Path) -> None:
    words = ["fit", "forecast", "model=none", "model.dim=8", "trainer.max_epochs=1", "--quiet", "--seed", "3"]
    assert main(words) == 0 and main(words) == 0
    names = sorted(path.name for path in (workdir / "runs" / "forecast").iterdir())
    assert names == ["embedded-h96-none-s3", "embedded-h96-none-s3-2"]
    assert not (workdir / "runs/forecast/embedded-h96-none-s3/surprise.png").exists()


def test_results_are_last_on_stdout_also_when_quiet(tiny: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "forecast", *tiny, "--output", "out"]) == 0
    out, err = capfd.readouterr()
    metrics = json.loads(Path("out/metrics.json").read_text())
    row = next(line for line in out.splitlines() if "MSE, standardised" in line)
    change = 100 * (metrics["test_mse"] / metrics["baseline_mse"] - 1)
    said = f"{abs(change):.1f} % {'better' if change < 0 else 'worse'}"
    scores = [f"{metrics[name]:.4f}" for name in ("test_mse", "baseline_mse")]
    assert [cell.strip() for cell in row.split("│")[2:-1]] == [*scores, said]
    assert out.splitlines()[-1].split()[-1] == "out/surprise.png"
    assert err == ""


def test_a_line_per_epoch_where_no_bar_can_be_drawn(tiny: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Under pytest stderr is no terminal, as in a log file; stdout stays for the results."""
    tiny.remove("--quiet")
    assert main(["fit", "forecast", *tiny]) == 0
    out, err = capfd.readouterr()
    assert [line.partition(":")[0] for line in err.splitlines() if line.startswith("epoch ")] == [
        "epoch 1 of 2",
        "epoch 2 of 2",
    ]
    assert "epoch 1 of" not in out


def test_two_claims_never_get_one_folder(workdir: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: runs.make_new_folder(workdir / "a"), range(24)))
    assert len(set(folders)) == 24


@pytest.mark.parametrize(("name", "data"), [("ETTh1", "verified"), ("ECL", "unverified")])
def test_metrics_say_whether_the_data_are_the_published_ones(
    name: str, data: str, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the right shape is all that can be asked where no checksum is known."""
    spec = find_spec(name)
    rows = [
        f"{date:%Y-%m-%d %H:%M:%S},{i % 7},{i % 5}"
        for i, date in enumerate(pd.date_range("2024", periods=700, freq="h"))
    ]
    content = "\n".join(["date,a,b", *rows]) + "\n"
    place = tmp_path / "data" / "forecast" / spec.file
    place.parent.mkdir(parents=True)
    place.write_text(content)
    sha256 = spec.sha256 and hashlib.sha256(content.encode()).hexdigest()
    small = replace(spec, rows=700, channels=2, split=None, sha256=sha256)
    monkeypatch.setattr(registry, "DATASETS", (small,))
    monkeypatch.setenv("TITANS_SEQ_DATA", str(tmp_path / "data"))
    assert (
        main(["fit", "forecast", *tiny, "--dataset", name, "--horizon", "12", "--lookback", "24", "--output", "a"]) == 0
    )
    assert json.loads(Path("a", "metrics.json").read_text())["data"] == data
    assert main(["test", "forecast", "--checkpoint", "a", "--csv", str(place), "--quiet"]) == 0
    assert json.loads(next(Path("a").glob("test_metrics-*.json")).read_text())["data"] == "own file"


@pytest.mark.data
def test_a_named_data_set_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checksum is taken when it is read, and not again before fit and test."""
    if DATA is None or not Path(DATA, "forecast").is_dir():
        pytest.skip(f"$TITANS_SEQ_DATA ({DATA}) has no folder forecast")
    monkeypatch.setenv("TITANS_SEQ_DATA", DATA)
    checked = []
    require = csv_files.require_published

    def counted(path: Path, spec: DatasetSpec) -> None:
        checked.append(path)
        require(path, spec)

    for module in (csv_files, download):
        monkeypatch.setattr(module, "require_published", counted)
    words = ["model=none", "model.dim=8", "--epochs", "1", "--quiet", "--dataset", "ETTh1", "--horizon", "24"]
    limits = [f"trainer.limit_{split}_batches=1" for split in ("train", "val", "test")]
    assert main(["fit", "forecast", *words, *limits]) == 0
    assert len(checked) == 1
    assert [path.name for path in Path("runs/forecast").iterdir()] == ["ETTh1-h24-none-s0"]


def test_data_set_names_ignore_case() -> None:
    assert compose(FORECAST.schema, ["data=etth1"]).data.dataset == "ETTh1"
    from titans_seq.cli.config import overrides_of
    from titans_seq.cli.main import parse

    arguments = parse(["fit", "forecast", "model.depth=3", "--dataset", "eTTH1", "model.dim=16", "--seed", "0"])
    assert overrides_of(FORECAST.schema, arguments) == ["model.depth=3", "model.dim=16", "data=etth1", "seed=0"]


def test_options_of_constructors_are_keys() -> None:
    config = compose(FORECAST.schema, ["model.depth=3", "trainer.limit_val_batches=0.5", "training.learning_rate=1"])
    assert config.model.depth == 3 and config.trainer.limit_val_batches == 0.5 and config.training.learning_rate == 1
    assert compose(FORECAST.schema, ["model.mixer=ssm", "model.states=4"]).model.states == 4


def test_same_seed_same_numbers(tiny: list[str], finished: Path) -> None:
    assert main(["fit", "forecast", *tiny, "--output", "again"]) == 0
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (finished, Path("again")))
    same = METRICS - {"fit_seconds", "seconds_per_epoch"}
    assert {key: first[key] for key in same} == {key: second[key] for key in same}
