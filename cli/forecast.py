"""`titans-seq fit|test|predict|surprise forecast`: what is the forecaster's own in a run."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig

from titans_seq import NeuralMemory
from titans_seq.cli import checkpoints, fitting, forecast_flags, recorded, runs, training
from titans_seq.cli.config import Schema
from titans_seq.cli.constructors import build
from titans_seq.cli.errors import UsageError
from titans_seq.cli.memory import PEAK_OF_MEMORY, require_memory
from titans_seq.cli.pictures import draw
from titans_seq.cli.tables import show_paths, show_record
from titans_seq.cli.tasks import History, Job, Task
from titans_seq.datamodules import ForecastDataModule, download_dataset, future_dates
from titans_seq.datamodules.common.files import EMBEDDED, user_path
from titans_seq.datamodules.forecast.registry import find_spec, locate
from titans_seq.files import replacing
from titans_seq.forecast import ForecastModule, SimbaForecaster
from titans_seq.forecast.anomalies import Span, spans, surprise_of_values
from titans_seq.forecast.pictures import plot_forecast, plot_surprise, plot_training
from titans_seq.printable import printable

MARKED = 10  # spans that surprise shows
PREDICTION = ("forecast.csv", "forecast.png", "surprise.png")  # what predict writes


def _named(name: str) -> list[str]:
    return [f"data={EMBEDDED if name.lower() == EMBEDDED else find_spec(name).name.lower()}"]


class ForecastTask(Task):
    """A forecaster of one series."""

    verb, name, key = "fit", "forecast", "forecast"
    headline = ("val_mse", "test_mse", "test_mae")
    schema = Schema(
        module="titans_seq.configs.forecast",
        name="fit",
        flags=forecast_flags.FIT.settings,
        choices={"dataset": _named},
        exclusive=(("dataset", "csv"),),
    )

    def default_folder(self, config: DictConfig) -> Path:
        if config.data.csv is not None:
            dataset = Path(config.data.csv).name.removesuffix(".gz").removesuffix(".csv")
        elif config.data.dataset is None or config.data.dataset.lower() == EMBEDDED:
            dataset = EMBEDDED
        else:
            dataset = find_spec(config.data.dataset).name
        return Path("runs", "forecast", f"{dataset}-h{config.data.horizon}-{config.model.mixer}-s{config.seed}")

    def check(self, config: DictConfig) -> None:
        for name in ("lookback", "horizon"):
            mine, theirs = config.model[name], config.data[name]
            if mine != theirs:
                raise UsageError(
                    f"model.{name} is {mine}, but the windows have {theirs}; set data.{name}, the model follows"
                )

    def data(
        self, config: DictConfig, stage: str, checkpoint: Mapping[str, Any] | None = None, *, download: bool
    ) -> ForecastDataModule:
        data: ForecastDataModule = build(config.data, "data")
        # a file that is here is checked when it is read; prepare_data would check it once more
        if data.spec is not None and data.spec.urls and locate(data.spec, data.data_root) is None:
            if not download:
                raise fitting.not_here(data.spec.name, data.data_root)
            download_dataset(data.spec.name, data_root=data.data_root, quiet=config.quiet)
        data.load_state_dict((checkpoint or {}).get(ForecastDataModule.__qualname__) or {})
        data.setup(stage)
        return data

    def module(self, config: DictConfig, data: L.LightningDataModule) -> ForecastModule:
        return build(config.training, "training", network=build(config.model, "model"))

    def begin(self, job: Job) -> None:
        data, module = series_of(job), module_of(job)
        if not isinstance(module.network, SimbaForecaster):  # one of the user's need not read each channel for itself
            return
        past = data.dataset_for("train")[0]["past_target"]
        peak = PEAK_OF_MEMORY if has_surprise(module) else 1.0
        require_memory(module, past, data.batch_size, peak, job.trainer.strategy.root_device)

    def about(self, job: Job) -> dict[str, Any]:
        data = series_of(job)
        return {
            "dataset": data.series.name,
            "data": data.provenance,
            "lookback": data.lookback,
            "horizon": data.horizon,
            "mixer": job.config.model.mixer,
            "seed": job.config.seed,
            "test_windows": len(data.dataset_for("test")),
            "scale": "standardised",
            "drop_last": False,
        }

    def title(self, metrics: Mapping[str, Any]) -> str:
        return f"{metrics['dataset']}, horizon {metrics['horizon']}, {metrics['mixer']}"

    def pictures(self, job: Job, history: History, best_epoch: int, folder: Path) -> list[Path]:
        data = series_of(job)
        windows = data.dataset_for("test")
        window = windows[len(windows) // 2]
        past, truth = window["past_target"], window["future_target"]
        first = int(window["index"])
        pictures = draw(plot_training, history, best_epoch, folder / "training.png")
        return pictures + _draw(data, module_of(job), past, truth, _axis(data, first), folder)


FORECAST = ForecastTask()


def fit_command(arguments: argparse.Namespace) -> None:
    """`titans-seq fit forecast`."""
    fitting.fit_command(FORECAST, arguments)


def series_of(job: Job) -> ForecastDataModule:
    assert isinstance(job.data, ForecastDataModule)
    return job.data


def module_of(job: Job) -> ForecastModule:
    assert isinstance(job.module, ForecastModule)
    return job.module


# pictures -------------------------------------------------------------------------------------------------------------


def _axis(data: ForecastDataModule, first: int) -> pd.Index:
    """Return the time axis of the window whose first target row is `first`: past and horizon."""
    rows = np.arange(first - data.lookback, first + data.horizon)
    dates = data.series.dates
    if first >= len(data.series.values):
        future = future_dates(data.series, data.horizon)
        past = pd.RangeIndex(rows[0], first) if dates is None or data.series.freq is None else dates[rows[0] : first]
        return past.append(future)
    return pd.Index(rows) if dates is None else dates[rows]


def _draw(
    data: ForecastDataModule,
    module: ForecastModule,
    past: torch.Tensor,
    truth: torch.Tensor | None,
    axis: pd.Index,
    folder: Path,
) -> list[Path]:
    """Draw forecast.png, and surprise.png where the mixer is the memory, in original units."""
    forecast, surprise = _look(module, past)
    original = data.scaler.inverse_transform
    columns, seen = data.series.columns, original(past.numpy())
    title = f"{data.series.name}: {data.horizon} steps ahead"
    future = None if truth is None else original(truth.numpy())
    values = (seen, original(forecast), future)
    made = draw(plot_forecast, *values, columns, axis, folder / "forecast.png", title=title)
    if surprise is not None:
        title = f"{data.series.name}: what surprised the memory"
        past_axis, path = axis[: len(seen)], folder / "surprise.png"
        made += draw(plot_surprise, seen, surprise, columns, past_axis, path, title=title)
    return made


@torch.inference_mode()
def _look(module: ForecastModule, past: torch.Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Return forecast [H, C] and, for the memory, surprise [L, C] of one window [L, C], standardised."""
    module.eval().to(fitting.device())
    past = past.to(module.device)
    forecast = module(past[None])[0].double().cpu().numpy()
    if not has_surprise(module):
        return forecast, None
    assert isinstance(module.network, SimbaForecaster)
    return forecast, module.network.surprise(past[None])[0].double().cpu().numpy()


def has_surprise(module: ForecastModule) -> bool:
    return any(isinstance(part, NeuralMemory) for part in module.network.modules())


# test and predict -----------------------------------------------------------------------------------------------------


def load_run(arguments: argparse.Namespace, stage: str) -> tuple[Job, Path]:
    """Rebuild the objects of a run with its weights, on its own series or on --csv."""
    folder, path = checkpoints.split_checkpoint(user_path(arguments.checkpoint))
    config = recorded.read_config(folder, FORECAST.key, trust=recorded.named_again(arguments.trust))
    FORECAST.check(config)
    config.quiet = arguments.quiet
    if arguments.csv:
        config.data.dataset, config.data.csv = None, str(user_path(arguments.csv).absolute())
    checkpoint = checkpoints.load_checkpoint(path)
    training.hush(config.quiet)
    # a file of one's own is tested on the scale of its own train split, as the published numbers are
    own_scale = stage == "test" and arguments.csv
    data = FORECAST.data(config, stage, None if own_scale else checkpoint, download=False)
    module = fitting.restored(config, lambda: FORECAST.module(config, data), checkpoint, folder)
    return Job(FORECAST, config, data, module, fitting.make_tester(config, folder)), folder


def test_command(arguments: argparse.Namespace) -> None:
    """`titans-seq test forecast`: metrics on the test split, to RUN/test_metrics.json."""
    job, folder = load_run(arguments, "test")
    with training.interruptible(job.trainer, "nothing was written"):
        tested = job.trainer.test(job.module, datamodule=job.data, verbose=False)[0]
    metrics = {**FORECAST.about(job), **tested}
    name = f"test_metrics-{metrics['dataset']}.json" if arguments.csv else "test_metrics.json"
    runs.write_json(folder / name, metrics)
    show_record(FORECAST.title(metrics), metrics)
    show_paths("metrics", [folder / name])


def predict_command(arguments: argparse.Namespace) -> None:
    """`titans-seq predict forecast`: the rows after the last one, in original units."""
    job, run = load_run(arguments, "predict")
    data, module = series_of(job), module_of(job)
    past = next(iter(data.predict_dataloader()))["past_target"][0]
    forecast, _ = _look(module, past)
    dates = future_dates(data.series, data.horizon)
    table = pd.DataFrame(data.scaler.inverse_transform(forecast), index=dates, columns=list(data.series.columns))
    folder = _output_for_prediction(arguments, run)
    with replacing(folder / "forecast.csv") as part:
        table.rename_axis(dates.name or "date").to_csv(part)
    axis = _axis(data, len(data.series.values))
    pictures = _draw(data, module, past, None, axis, folder)
    about = {
        "series": data.series.name,
        "rows": data.horizon,
        "columns": len(data.series.columns),
        "from": str(dates[0]),
        "to": str(dates[-1]),
    }
    show_record(f"forecast of {data.series.name}", about)
    show_paths("files", [folder / "forecast.csv", *pictures])


def _output_for_prediction(arguments: argparse.Namespace, run: Path) -> Path:
    if arguments.output is None:
        return runs.make_new_folder(run / "predict")
    folder = user_path(arguments.output)
    for name in (*PREDICTION, runs.CONFIG):  # with a config.yaml it is a run, whose pictures have these names
        if (folder / name).exists():
            raise UsageError(f"{folder} holds {name} already; choose another --output")
    return runs.make_folder(folder)


# surprise -------------------------------------------------------------------------------------------------------------


def _standing_out(found: np.ndarray, lookback: int, share: float) -> list[Span]:
    """The most surprising spans, but for the first block's, which surprises a memory that knows nothing yet."""
    skipped = lookback if len(found) > 2 * lookback else 0
    return [
        replace(span, begin=span.begin + skipped, end=span.end + skipped)
        for span in spans(found[skipped:], share=share)
    ]


def surprise_command(arguments: argparse.Namespace) -> None:
    """`titans-seq surprise forecast`: how much each row surprised the memory, and where most."""
    job, run = load_run(arguments, "predict")
    data, module = series_of(job), module_of(job)
    if not isinstance(module.network, SimbaForecaster) or not has_surprise(module):
        raise UsageError(f"{run} has no memory to surprise; train one with model=memory")
    found = surprise_of_values(module.network.eval().to(fitting.device()), data.standardised)
    series, most = data.series, _standing_out(found, module.network.lookback, arguments.share)
    axis = pd.RangeIndex(len(found), name="row") if series.dates is None else pd.Index(series.dates, name="date")
    path = runs.free(user_path(arguments.output) if arguments.output else run / f"surprise-{series.name}.csv")
    runs.make_folder(path.parent)
    table = pd.DataFrame(found, index=axis, columns=list(series.columns))
    with replacing(path) as part:
        table.to_csv(part)
    shown = most[:MARKED]
    title = f"{series.name}: what surprised the memory"
    place = path.with_suffix(".png")
    pictures = draw(plot_surprise, series.values, found, series.columns, axis, place, title=title, marked=shown)
    for span in shown:
        rows = f"{axis[span.begin]} to {axis[span.end - 1]}"
        print(f"{span.peak:8.3f}  {printable(series.columns[span.channel])}  {rows}")
    show_paths("files", [path, *pictures])
