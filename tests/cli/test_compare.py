"""Finished runs beside each other: the best of each column, what differs, and what is kept apart."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from titans_seq.cli.main import main

SMALL = ["model.dim=8", "model.layers=1", "trainer.limit_train_batches=1", "--epochs", "1", "--quiet"]
Made = Callable[..., str]


@pytest.fixture
def like(workdir: Path) -> Made:
    """Copy a run with other metrics and options; return the name of the copy."""

    def copy(run: Path, name: str, options: dict[str, Any] | None = None, **metrics: Any) -> str:
        shutil.copytree(run, name)
        path = Path(name, "metrics.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | metrics))
        config = OmegaConf.load(f"{name}/config.yaml")
        for key, value in (options or {}).items():
            OmegaConf.update(config, key, value)
        OmegaConf.save(config, f"{name}/config.yaml")
        return name

    return copy


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of three finished runs: a classifier of DNA, a language model of DNA, and one of text."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "genome.fa").write_text(">chr1\n" + "ACGGTCATTA" * 500 + "\n")
    source = str(folder / "genome.fa")
    for name, words in {
        "classifier": ["fit", "dna", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"],
        "bases": ["pretrain", "dna", "--fasta", source, "--length", "64"],
        "text": ["fit", "lm", "--text", source, "--length", "64"],
    }.items():
        assert main([*words, *SMALL, "--output", str(folder / name)]) == 0
    return folder


def _rows(out: str) -> list[list[str]]:
    """The cells of all tables that were printed."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]


def _marks(out: str, run: str) -> list[str]:
    """The numbers of a run that are marked as the best."""
    (row,) = (row for row in _rows(out) if row[0] == run and len(row) > 5)
    return [cell.removeprefix("* ") for cell in row if cell.startswith("* ")]


def test_the_best_of_each_column_and_what_differs(
    finished: Path, like: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"val_mse": 1.0, "val_mae": 0.7, "val_loss": 0.1, "test_loss": 0.1, "parameters": 10}
    one = like(finished, "one", {"seed": 1, "data.seed": 1, "model.depth": 1}, test_mse=0.5, test_mae=0.25, **good)
    two = like(finished, "two", test_mse=0.25, test_mae=0.25, **good | {"val_mse": 1.5})
    assert main(["compare", one, two, "--csv", "all.csv", "--output", "side.png"]) == 0
    out = capsys.readouterr().out
    assert "embedded, lookback 96, horizon 96" in out
    marked = {name: _marks(out, name) for name in ("one", "two")}
    assert {"0.2500", "1.0000", "0.7000"} <= set(marked["one"]) and "0.5000" not in marked["one"]
    assert "0.1000" not in marked["one"]  # not the loss, which need not be the same one
    assert marked["two"].count("0.2500") == 2 and "1.5000" not in marked["two"]
    assert "seed ┃ model.depth" in out.split("what differs")[1] and "data.seed" not in out
    assert ["one", "1", "1"] in _rows(out) and ["two", "0", "2"] in _rows(out)
    assert Path("side.png").read_bytes().startswith(b"\x89PNG")
    with Path("all.csv").open() as file:
        first, second = csv.DictReader(file)
    shown = [first[name] for name in ("run", "test_mse", "config.seed", "config.model.depth")]
    assert shown == ["one", "0.5", "1", "1"]
    assert second["run"] == "two" and second["group"] == first["group"]


@pytest.mark.parametrize(
    "options, metrics, title",
    [
        ({"data.lookback": 48, "model.lookback": 48}, {"lookback": 48}, "lookback 48, horizon 96"),
        ({"data.horizon": 24, "model.horizon": 24}, {"horizon": 24}, "lookback 96, horizon 24"),
        ({"data.dataset": "ETTh1"}, {"dataset": "ETTh1"}, "ETTh1, lookback 96, horizon 96"),
        ({}, {"test_windows": 5}, "lookback 96, horizon 96, test_windows 5"),
        ({"trainer.limit_test_batches": 3}, {}, "horizon 96, trainer.limit_test_batches 3"),
    ],
    ids=["lookback", "horizon", "dataset", "test-windows", "part-of-the-test"],
)
def test_other_protocols_are_kept_apart(
    options: dict[str, Any],
    metrics: dict[str, Any],
    title: str,
    finished: Path,
    like: Made,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [like(finished, "a", test_mse=0.5), like(finished, "b", test_mse=0.4)]
    runs.append(like(finished, "c", options, test_mse=0.1, **metrics))
    assert main(["compare", *runs]) == 0
    out = capsys.readouterr().out
    assert title in out
    assert "0.4000" in _marks(out, "b") and _marks(out, "c") == [] and "0.5000" not in _marks(out, "a")


@pytest.mark.parametrize(
    "name, metric", [("classifier", "test_mcc"), ("bases", "test_bits"), ("text", "test_loss")], ids=lambda x: x
)
def test_every_task_has_its_direction(
    name: str, metric: str, others: Path, like: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    low, high = like(others / name, "low", **{metric: 0.125}), like(others / name, "high", **{metric: 0.875})
    assert main(["compare", low, high]) == 0
    out = capsys.readouterr().out
    better, worse = ("high", "low") if metric == "test_mcc" else ("low", "high")
    value = {"low": "0.1250", "high": "0.8750"}
    assert value[better] in _marks(out, better) and value[worse] not in _marks(out, worse)
    assert Path("compare.png").is_file()


@pytest.mark.filterwarnings("default::titans_seq.datamodules.common.errors.DataWarning")
def test_the_jobs_of_a_sweep(finished: Path, like: Made, capsys: pytest.CaptureFixture[str]) -> None:
    for job in ("0", "1", "10"):
        like(finished, f"sweep/{job}")
    Path("sweep/10/metrics.json").unlink()
    like(finished, "alone")
    assert main(["compare", "sweep", "sweep/1", "alone"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 3 runs are not finished" in err
    assert [row[0] for row in _rows(out) if len(row) > 5] == ["sweep/0", "sweep/1", "work/alone"]
    assert main(["compare", "sweep"]) == 0 and Path("compare-2.png").is_file()


def test_what_cannot_be_compared(finished: Path, others: Path, like: Made, refused: Callable[[list[str]], str]) -> None:
    one, two = like(finished, "one"), like(finished, "two")
    assert "two runs or more" in refused(["compare", one, f"./{one}"])
    message = refused(["compare", one, str(others / "text")])
    assert "runs of different tasks cannot be compared: one holds a forecaster" in message
    assert "nothing was started there" in refused(["compare", one, "three"])
    assert "must end in .png" in refused(["compare", one, two, "--output", "x.txt"])
    assert "is there already" in refused(["compare", one, two, "--csv", "one/metrics.json"])
    Path("two/metrics.json").unlink()
    assert "two is not finished: it has no metrics.json" in refused(["compare", one, two])
    Path("one/metrics.json").write_text('{"test_mse": "low"}')
    assert "it has no val_mse" in refused(["compare", one, two])
