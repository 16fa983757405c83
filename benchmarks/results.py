"""The forecasting tables of docs/results.md: every mixer in the same frame, on ETTh1 and ETTh2.

    python benchmarks/results.py [--workers 2] [--folder runs/results] [--only NAME] [--dry-run] [--quick]

Each cell is one `titans-seq fit forecast` with default settings. docs/results.json keeps the metrics of finished runs
and the tables of docs/results.md are written from it; a run that stands there, or whose run folder is finished, is not
repeated (remove its entry to repeat it). Runs with an error are reported and left out. Data: $TITANS_SEQ_DATA, or
downloaded.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from cells import Command, arguments, publish, recorded, run_all
from pages import line, row

DOCS = Path(__file__).parent.parent / "docs"
RECORD = DOCS / "results.json"
HORIZONS = (96, 192, 336, 720)
MIXERS = ("memory", "attention", "ssm", "none")
DATASETS = ("ETTh1", "ETTh2")
SEEDS = (0, 1, 2)

# MSE, MAE as printed, lookback 96: SiMBA (arXiv 2403.15360, table 3), PatchTST from the iTransformer paper (arXiv
# 2310.06625). Titans (arXiv 2501.00663, table 3) prints only averages over the four horizons. All three may drop the
# last incomplete test batch, which ours never does.
PUBLISHED = {
    ("ETTh1", 96): ((0.379, 0.395), (0.414, 0.419)),
    ("ETTh1", 192): ((0.432, 0.424), (0.460, 0.445)),
    ("ETTh1", 336): ((0.473, 0.443), (0.501, 0.466)),
    ("ETTh1", 720): ((0.483, 0.469), (0.500, 0.488)),
    ("ETTh2", 96): ((0.290, 0.339), (0.302, 0.348)),
    ("ETTh2", 192): ((0.373, 0.390), (0.388, 0.400)),
    ("ETTh2", 336): ((0.376, 0.406), (0.426, 0.433)),
    ("ETTh2", 720): ((0.407, 0.431), (0.431, 0.446)),
}
PUBLISHED_MEAN = {
    "ETTh1": ((0.420, 0.421), (0.442, 0.433), (0.469, 0.455)),
    "ETTh2": ((0.336, 0.382), (0.362, 0.392), (0.387, 0.407)),
}


@dataclass(frozen=True, order=True)
class Cell:
    """One training run."""

    dataset: str
    lookback: int
    horizon: int
    mixer: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.dataset}-l{self.lookback}-h{self.horizon}-{self.mixer}-s{self.seed}"

    def command(self) -> Command:
        words = ["fit", "forecast", "--dataset", self.dataset, "--lookback", str(self.lookback)]
        words += ["--horizon", str(self.horizon), "--seed", str(self.seed), f"model={self.mixer}"]
        words += ["training.output=huber"]  # as all rows were trained
        return Command(self.name, tuple(words))


def cells() -> Iterator[Cell]:
    """All runs, those that matter most first."""
    for dataset, seed, mixer in product(DATASETS, SEEDS, MIXERS):
        yield Cell(dataset, 96, 96, mixer, seed)
    for horizon, dataset, mixer in product(HORIZONS[1:], DATASETS, MIXERS):
        yield Cell(dataset, 96, horizon, mixer, 0)
    for dataset, horizon, mixer in product(DATASETS, (96, 720), MIXERS):
        yield Cell(dataset, 512, horizon, mixer, 0)


def finished(root: Path, record: dict[str, dict]) -> dict[Cell, dict[str, float]]:
    """Metrics of every cell that is recorded or has a finished run folder; the folder counts first."""
    found = {cell: record[cell.name] for cell in cells() if cell.name in record}
    for cell in cells():
        path = root / cell.name / "metrics.json"
        if path.is_file():
            found[cell] = json.loads(path.read_text())
    return found


def tables(results: dict[Cell, dict[str, float]]) -> str:
    """Markdown: lookback 96 beside published numbers, the three seeds at horizon 96, lookback 512."""
    parts = ["### Lookback 96, MSE / MAE, seed 0\n", row("data", "H", *MIXERS, "SiMBA", "PatchTST", "Titans"), line(9)]
    for dataset in DATASETS:
        for horizon in HORIZONS:
            ours = [_score(results.get(Cell(dataset, 96, horizon, mixer, 0))) for mixer in MIXERS]
            published = [_pair(pair) for pair in PUBLISHED[dataset, horizon]]
            parts.append(row(dataset, horizon, *ours, *published, "n/p"))
        titans, simba, patchtst = (_pair(pair) for pair in PUBLISHED_MEAN[dataset])
        means = [_mean_over_horizons(results, dataset, mixer) for mixer in MIXERS]
        parts.append(row(f"**{dataset}**", "mean", *means, simba, patchtst, titans))
    parts += [
        "\n### Horizon 96, lookback 96: test MSE / MAE by seed\n",
        row("data", "mixer", *SEEDS, "mean", "val MSE, mean"),
    ]
    parts.append(line(7))
    for dataset, mixer in product(DATASETS, MIXERS):
        runs = [results.get(Cell(dataset, 96, 96, mixer, seed)) for seed in SEEDS]
        parts.append(row(dataset, mixer, *map(_score, runs), _score(_mean(runs)), _value(_mean(runs), "val_mse")))
    parts += ["\n### Lookback 512, MSE / MAE, seed 0\n", row("data", "H", *MIXERS), line(6)]
    for dataset, horizon in product(DATASETS, (96, 720)):
        runs = [results.get(Cell(dataset, 512, horizon, mixer, 0)) for mixer in MIXERS]
        parts.append(row(dataset, horizon, *map(_score, runs)))
    parts += ["\n### Size and epochs at horizon 96, lookback 96 (ETTh1, seed 0)\n"]
    parts += [row("mixer", "parameters", "epochs", "best epoch"), line(4)]
    for mixer in MIXERS:
        metrics = results.get(Cell("ETTh1", 96, 96, mixer, 0), {})
        parts.append(row(mixer, *(metrics.get(key, "-") for key in ("parameters", "epochs", "best_epoch"))))
    return "\n".join(parts) + "\n"


def _mean_over_horizons(results: dict[Cell, dict[str, float]], dataset: str, mixer: str) -> str:
    return _score(_mean([results.get(Cell(dataset, 96, horizon, mixer, 0)) for horizon in HORIZONS]))


def _mean(runs: list[dict[str, float] | None]) -> dict[str, float] | None:
    if not all(runs):
        return None
    return {key: statistics.mean(run[key] for run in runs) for key in ("test_mse", "test_mae", "val_mse")}  # type: ignore[index]


def _score(metrics: dict[str, float] | None) -> str:
    return "-" if not metrics else _pair((metrics["test_mse"], metrics["test_mae"]))


def _value(metrics: dict[str, float] | None, key: str) -> str:
    return "-" if not metrics else f"{metrics[key]:.4f}"


def _pair(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.3f} / {pair[1]:.3f}"


def main() -> None:
    given = arguments(__doc__, "runs/results")
    failed, record = [], recorded(RECORD, given)
    if not given.dry_run:
        done = finished(given.folder, record)
        todo = [cell.command() for cell in cells() if cell not in done and given.only in cell.name]
        failed = run_all(todo, given)
    results = finished(given.folder, record)
    publish(
        given, RECORD, {cell.name: metrics for cell, metrics in results.items()}, "forecast tables", tables(results)
    )
    print(f"{len(results)} of {len(list(cells()))} runs")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
