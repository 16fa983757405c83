"""Names of files, columns, classes and records that no table, picture or terminal expects."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from titans_seq.cli.main import main

COLUMNS = ["a $x_$ b", "100%_$", r"$\frac{", "\x1b[31m", "[/red]", "_\u4e2d\u6587"]
# not UTF-8, half a formula, markup, an escape; a quote and what Hydra would read as more than a name
FILE = os.fsdecode(b"\xff $x_$ [red] \x1b[2J '$now, {a=b}")


@pytest.fixture
def odd_csv(workdir: Path) -> Path:
    days = pd.date_range("2024-01-30", periods=150, freq="D")
    values = np.sin(np.arange(150)[:, None] / np.arange(3, 3 + len(COLUMNS)))
    path = workdir / f"{FILE}.csv"
    pd.DataFrame(values, index=days.rename("date"), columns=COLUMNS).to_csv(path)
    return path


def _printed(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert out.replace("\n", "").isprintable() and err.replace("\n", "").isprintable()
    return out


def test_a_forecaster_of_such_columns(odd_csv: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--lookback", "16", "--horizon", "8"]
    assert main(["fit", "forecast", *tiny, "--csv", odd_csv.name, *sizes]) == 0
    assert r"\udcff $x_$ [red] \x1b[2J" in _printed(capsys)
    (run,) = Path("runs/forecast").iterdir()
    assert json.loads((run / "metrics.json").read_text())["dataset"] == FILE
    assert {path.name for path in run.glob("*.png")} == {"training.png", "forecast.png", "surprise.png"}
    for command in (["predict", "forecast"], ["surprise", "forecast"], ["test", "forecast"]):
        for own in ([], ["--csv", odd_csv.name]):
            assert main([*command, "--quiet", "--checkpoint", str(run), *own]) == 0
            assert r"\udcff" in _printed(capsys)
    bounds = [f"-{side}-{level}" for level in (80, 95) for side in ("lo", "hi")]
    columns = list(pd.read_csv(run / "predict" / "forecast.csv").columns[1:])
    assert columns == [f"{name}{bound}" for name in COLUMNS for bound in ("", *bounds)]
    assert main(["report", str(run), "--quiet"]) == 0
    assert "$x_$" in _printed(capsys)
    assert r"\udcff $x_$ [red]" in (run / "report.html").read_text(encoding="utf-8")
    assert main(["fit", "forecast", "--resume", "--quiet", "--output", str(run), "--epochs", "3"]) == 0


def test_a_classifier_of_such_classes(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    rows = [("".join(random.choice(list("ACGT"), 20)), COLUMNS[i % 4]) for i in range(80)]
    pd.DataFrame(rows, columns=["sequence", "label"]).to_csv(f"{FILE}.csv", index=False)
    small = ["model.dim=8", "model.heads=1", "model.layers=1", "data.batch_size=16", "--epochs", "1", "--quiet"]
    assert main(["fit", "dna", *small, "--csv", f"{FILE}.csv"]) == 0
    assert r"\x1b[31m" in _printed(capsys)
    (run,) = Path("runs/dna").iterdir()
    assert (run / "metrics.json").is_file() and (run / "confusion.png").is_file() and (run / "roc.png").is_file()
    assert main(["test", "dna", "--quiet", "--checkpoint", str(run), "--csv", f"{FILE}.csv"]) == 0
    assert main(["predict", "dna", "--quiet", "--checkpoint", str(run), "--csv", f"{FILE}.csv"]) == 0
    assert r"$\frac{" in _printed(capsys)


def test_a_long_cell_is_not_echoed(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("long.csv").write_text("date,a\n2024-01-01,1\n2024-01-02," + "x" * 10**6 + "\n")
    assert main(["fit", "forecast", "--csv", "long.csv"]) == 2
    err = capsys.readouterr().err
    assert len(err) < 2100 and "column 'a'" in err and "(line 3)" in err and "is not a number; correct it" in err


def test_an_encoding_without_the_character(workdir: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    command = [sys.executable, "-P", "-m", "titans_seq.cli.main"]
    done = subprocess.run([*command, "fit", "é\udcff"], capture_output=True, env=environment, check=False)
    assert done.returncode == 2 and rb"invalid choice: '\xe9\udcff'" in done.stderr
    done = subprocess.run([*command, "data", "list"], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"") and b"ETTh1" in done.stdout


def test_a_description_of_such_columns_and_a_comparison_of_such_runs(
    odd_csv: Path, tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "describe", odd_csv.name]) == 0
    assert r"\x1b[31m" in _printed(capsys)
    assert len(list(Path().glob("*-described.png"))) == 1
    runs = [f"{COLUMNS[0]}-{seed}" for seed in (0, 1)]
    for seed, run in enumerate(runs):
        words = ["--csv", odd_csv.name, "--lookback", "16", "--horizon", "8", "--seed", str(seed), "--output", run]
        assert main(["fit", "forecast", *tiny, *words]) == 0
    assert main(["compare", *runs, "--csv", "compared.csv"]) == 0
    assert "a $x_$ b-0" in _printed(capsys)
    assert Path("compare.png").is_file() and "a $x_$ b-1" in Path("compared.csv").read_text(encoding="utf-8")
