"""The probabilistic tables of docs/results.md: the memory beside GluonTS's PatchTST and DeepAR and a seasonal naive.

    TITANS_SEQ_DATA=<folder> python benchmarks/probabilistic.py [--only NAME] [--dataset ETTh1] [--dry-run] [--quick]

Every model forecasts 24 steps of each channel as a series of its own, standardised by the rows before the first cutoff.
The memory and PatchTST read 96 steps; DeepAR reads 96 and its usual lags, 721 steps back in hourly and 1,009 in
ten-minute data; the naive a season. The cutoffs are the same 40 for all, spread over the benchmark's test part. Each is
trained once, before the first cutoff, on at most 2,000 batches of 64 windows. The memory holds back 15 % of those rows
and keeps its epoch of the best validation loss; GluonTS's estimators, used as they come, train on all rows and keep the
epoch of the best training loss. docs/results_probabilistic.json keeps the scores of finished ones, which are not
repeated.
"""

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from arguments import QUICK, one_line
from gluonts.dataset.pandas import PandasDataset
from gluonts.dataset.split import split
from gluonts.model.seasonal_naive import SeasonalNaivePredictor
from gluonts.torch import DeepAREstimator, PatchTSTEstimator
from pages import line, replace_part, row
from sklearn.preprocessing import StandardScaler

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.csv_files import read_published_csv
from titans_seq.datamodules.forecast.registry import find_spec, locate, missing
from titans_seq.forecast.metrics import evaluate

DOCS = Path(__file__).parent.parent / "docs"
RECORD = DOCS / "results_probabilistic.json"
L, H, SEED, BATCH = 96, 24, 0, 64
DECILES, LEVELS = (20, 40, 60, 80), (20, 40, 60, 80, 95)  # the levels' bounds and the median are the nine deciles
SEASON = {"ETTh1": 24, "Weather": 144}
COUNTED = ("mse", "mae", "smape", "mase", "crps", "coverage_80", "coverage_95", "width_80")


class Budget(NamedTuple):
    """windows: as many cutoffs. steps: batches of an epoch."""

    windows: int = 40
    epochs: int = 10
    steps: int = 200


class Data(NamedTuple):
    """frame: wide, standardised, up to the end of the test part. step: rows between cutoffs."""

    frame: pd.DataFrame
    step: int
    season: int
    budget: Budget

    @property
    def rows_to_forecast(self) -> int:
        """From the first cutoff on."""
        return H + (self.budget.windows - 1) * self.step


def load(name: str, budget: Budget) -> Data:
    """A data set of the registry.

    Its time stamps are made on a regular grid: the published ones of Weather hold a gap and a duplicate, which the
        protocol ignores.
    """
    spec = find_spec(name)
    path = locate(spec, None)
    if path is None:
        raise missing(spec, None)
    panel = read_published_csv(path, spec)
    published = panel.target.reshape(len(panel), -1).T
    rows = sum(spec.split) if spec.split else len(published)
    test = spec.split[2] if spec.split else int(0.2 * rows)
    step = (test - H) // (budget.windows - 1)
    cutoff = rows - H - (budget.windows - 1) * step
    values = StandardScaler().fit(published[:cutoff]).transform(published[:rows])
    index = pd.date_range("2016-07-01", periods=rows, freq=spec.frequency)
    frame = pd.DataFrame(values, index=index, columns=[f"{i:02d}" for i in range(values.shape[1])])
    return Data(frame, step, SEASON[name], budget)


def generated(budget: Budget) -> Data:
    """Three noisy daily cycles, long enough for DeepAR's lags: what a quick run takes."""
    hours = np.arange(1200)[:, None]
    values = np.sin(2 * np.pi * hours / 24 + np.arange(3)) + 0.1 * np.random.default_rng(0).standard_normal((1200, 3))
    index = pd.date_range("2016-07-01", periods=len(values), freq="h")
    return Data(pd.DataFrame(values, index=index, columns=["00", "01", "02"]), H, 24, budget)


def ours(data: Data, output: str) -> dict[str, pd.DataFrame]:
    """One training; its own intervals, and the conformal ones over them."""
    frame, first = data.frame, len(data.frame) - data.rows_to_forecast
    model = TitansForecaster(
        horizon=H,
        lookback=L,
        output=output,
        levels=LEVELS,
        max_epochs=data.budget.epochs,
        steps_per_epoch=data.budget.steps,
        batch_size=BATCH,
        seed=SEED,
        id_col="series",
    )
    model.fit(frame.iloc[:first])
    calibrated, tables = model.fitted_.conformal, {}
    for name, conformal in (("", None), (", conformal", calibrated)):
        model.fitted_.conformal = conformal
        parts = []
        for cutoff in range(first, len(frame) - H + 1, data.step):
            found = model.predict(frame.iloc[:cutoff], level=LEVELS).stack(level=0, future_stack=True).reset_index()
            found.columns = ["ds", "series", *(_plain(name) for name in found.columns[2:])]
            parts.append(found.assign(y=frame.to_numpy()[cutoff : cutoff + H].ravel()))
        tables[f"memory, {output}{name}"] = pd.concat(parts, ignore_index=True)
    return tables


def _plain(name: str) -> str:
    return "Titans" if name == "forecast" else f"Titans-{name}"


def gluonts(data: Data, make: Callable[[str], object]) -> pd.DataFrame:
    """Train an estimator of GluonTS's (or take a predictor as it is) and forecast the same windows."""
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    frames = {name: data.frame[[name]].astype(np.float32).rename(columns={name: "target"}) for name in data.frame}
    dataset = PandasDataset(frames, target="target")
    training, test = split(dataset, offset=-data.rows_to_forecast)
    model = make(str(dataset.freq))
    predictor = model.train(training, cache_data=True) if hasattr(model, "train") else model
    pairs = test.generate_instances(prediction_length=H, windows=data.budget.windows, distance=data.step)
    parts = []
    for (past, future), forecast in zip(pairs, predictor.predict(pairs.input, **_samples(model)), strict=True):
        columns = {"series": past["item_id"], "y": future["target"]}
        plain = isinstance(model, SeasonalNaivePredictor)
        columns["Titans"] = forecast.mean if plain else forecast.quantile(0.5)
        for level in () if plain else LEVELS:
            columns[f"Titans-lo-{level}"] = forecast.quantile(0.5 - level / 200)
            columns[f"Titans-hi-{level}"] = forecast.quantile(0.5 + level / 200)
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _samples(model: object) -> dict[str, int]:
    return {"num_samples": 200} if isinstance(model, DeepAREstimator) else {}


def _training(budget: Budget) -> dict[str, object]:
    trainer = {
        "max_epochs": budget.epochs,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "default_root_dir": "runs/probabilistic",
    }
    return {"batch_size": BATCH, "num_batches_per_epoch": budget.steps, "trainer_kwargs": trainer}


Run = Callable[[Data], dict[str, pd.DataFrame]]
RUNS: dict[str, Run] = {
    "quantiles": lambda data: ours(data, "quantiles"),
    "student_t": lambda data: ours(data, "student_t"),
    "PatchTST": lambda data: {
        "PatchTST (GluonTS)": gluonts(
            data, lambda freq: PatchTSTEstimator(H, 16, context_length=L, stride=8, **_training(data.budget))
        )
    },
    "DeepAR": lambda data: {
        "DeepAR (GluonTS)": gluonts(
            data, lambda freq: DeepAREstimator(freq, H, context_length=L, **_training(data.budget))
        )
    },
    "naive": lambda data: {
        "seasonal naive (GluonTS)": gluonts(data, lambda freq: SeasonalNaivePredictor(H, season_length=data.season))
    },
}
MODELS = {
    "memory, quantiles": "quantiles", "memory, quantiles, conformal": "quantiles", "memory, student_t": "student_t",
    "memory, student_t, conformal": "student_t", "PatchTST (GluonTS)": "PatchTST", "DeepAR (GluonTS)": "DeepAR",
    "seasonal naive (GluonTS)": "naive",
}  # fmt: skip


def score(data: Data, found: pd.DataFrame) -> dict[str, float]:
    history = {name: data.frame[name].to_numpy()[: -data.rows_to_forecast] for name in data.frame}
    scores = evaluate(found, history, seasonality=data.season, id="series")
    outside = [name for name in found if name.startswith("Titans-") and int(name.rsplit("-", 1)[1]) not in DECILES]
    crps = evaluate(found.drop(columns=outside)).get("crps", scores["mae"])  # that of one value is its MAE
    return scores | {"crps": crps}


def tables(results: dict[str, dict], names: Iterable[str] = SEASON) -> str:
    parts = []
    for name in names:
        parts += [
            f"### {name}, 24 steps from 96, standardised\n",
            row("model", *COUNTED, "minutes"),
            line(len(COUNTED) + 2),
        ]
        for model in MODELS:
            cell = results.get(f"{name}: {model}", {})
            shown = [f"{cell[metric]:.3f}" if metric in cell else "-" for metric in COUNTED]
            parts.append(row(model, *shown, f"{cell['seconds'] / 60:.1f}" if cell else "-"))
        parts.append("")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default="", help="trainings whose name holds this: quantiles, student_t, PatchTST, DeepAR, naive"
    )
    parser.add_argument("--dataset", choices=list(SEASON))
    parser.add_argument("--dry-run", action="store_true", help="run nothing, write the tables of what is finished")
    parser.add_argument("--quick", action="store_true", help=QUICK)
    given = parser.parse_args()
    budget = Budget(2, 1, 2) if given.quick else Budget()
    warnings.filterwarnings("ignore", module=r"lightning|gluonts")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    results = json.loads(RECORD.read_text()) if RECORD.is_file() and not given.quick else {}
    names = [given.dataset] if given.dataset else ["generated"] if given.quick else list(SEASON)
    for name in [] if given.dry_run else names:
        with one_line(DataError):
            data = generated(budget) if name == "generated" else load(name, budget)
        for key, run in RUNS.items():
            wanted = [f"{name}: {model}" for model, made_by in MODELS.items() if made_by == key]
            if given.only not in key or all(cell in results for cell in wanted):
                continue
            start = time.perf_counter()
            tables_of = run(data)
            seconds = time.perf_counter() - start
            for model, found in tables_of.items():
                scores = score(data, found) | {"seconds": seconds}
                results[f"{name}: {model}"] = {metric: float(value) for metric, value in scores.items()}
                print(name, model, results[f"{name}: {model}"], flush=True)
            if not given.quick:
                RECORD.write_text(json.dumps(results, indent=1) + "\n")
    if given.quick:
        print(tables(results, names))
        return
    replace_part(DOCS / "results.md", "probabilistic tables", tables(results))


if __name__ == "__main__":
    main()
