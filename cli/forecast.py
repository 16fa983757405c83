"""`titans-seq fit|test|predict|surprise forecast`: what is the forecaster's own in a run."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
from omegaconf import DictConfig

from titans_seq.cli import checkpoints, fitting, forecast_flags, recorded, registry, runs, training
from titans_seq.cli.config import Schema
from titans_seq.cli.constructors import build
from titans_seq.cli.errors import UsageError
from titans_seq.cli.memory import PEAK_OF_MEMORY, require_memory
from titans_seq.cli.pictures import draw
from titans_seq.cli.tables import show_paths, show_record
from titans_seq.cli.tasks import History, Job, Task
from titans_seq.datamodules import ForecastDataModule, download_dataset
from titans_seq.datamodules.common.files import EMBEDDED, base_name, user_path
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.registry import find_spec, locate
from titans_seq.files import replacing
from titans_seq.forecast import ForecastModule, SimbaForecaster
from titans_seq.forecast.anomalies import Span, spans
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.outputs import make_output, raw_size
from titans_seq.forecast.pictures import plot_forecast, plot_surprise, plot_training
from titans_seq.forecast.saving import plain_output
from titans_seq.forecast.stream import surprise_of
from titans_seq.printable import printable
from titans_seq.training import best_device

MARKED = 10  # spans that surprise shows
MODEL = "model"  # the folder of a run that `TitansForecaster.load` reads
PREDICTION = ("forecast.csv", "forecast.png", "surprise.png")  # what predict writes


def _named(name: str) -> list[str]:
    return [f"data={EMBEDDED if name.lower() == EMBEDDED else find_spec(name).name.lower()}"]


def _mixer(config: DictConfig) -> str:
    """The mixer's name, or the class of a network of the user's without one."""
    return str(config.model.get("mixer") or config.model._target_.rpartition(".")[2])


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
            dataset = base_name(config.data.csv)
        elif config.data.dataset is None or config.data.dataset.lower() == EMBEDDED:
            dataset = EMBEDDED
        else:
            dataset = find_spec(config.data.dataset).name
        return Path("runs", "forecast", f"{dataset}-h{config.data.horizon}-{_mixer(config)}-s{config.seed}")

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
        try:
            outputs = raw_size(make_output(config.training.get("output") or "huber"))
        except ValueError as error:
            raise UsageError(f"training: {error}") from None
        own = {"outputs": outputs} if registry.find(config.model._target_, "model") is SimbaForecaster else {}
        network = build(config.model, "model", **own)
        for name in ("lookback", "horizon"):
            if getattr(network, name, None) != config.data[name]:
                raise UsageError(
                    f"model: {type(network).__name__} must have the attribute {name}, here {config.data[name]}"
                )
        return build(config.training, "training", network=network)

    def begin(self, job: Job) -> None:
        data, module = series_of(job), module_of(job)
        if not isinstance(module.network, SimbaForecaster):  # one of the user's need not read each series for itself
            return
        past = data.windows("train").__getitems__([0])["past_target"]
        peak = PEAK_OF_MEMORY if module.network.has_memory else 1.0
        require_memory(module, past, data.batch_size, peak, job.trainer.strategy.root_device)

    def about(self, job: Job) -> dict[str, Any]:
        data = series_of(job)
        return {
            "dataset": data.name,
            "data": data.provenance,
            "lookback": data.lookback,
            "horizon": data.horizon,
            "mixer": _mixer(job.config),
            "seed": job.config.seed,
            "test_windows": len(data.windows("test")),
            "scale": "standardised",
            "drop_last": False,
        }

    def title(self, metrics: Mapping[str, Any]) -> str:
        return f"{metrics['dataset']}, horizon {metrics['horizon']}, {metrics['mixer']}"

    def export(self, job: Job, folder: Path) -> list[Path]:
        data, module = series_of(job), module_of(job)
        if not isinstance(module.network, SimbaForecaster) or callable(module.network.options["mixer"]):
            return []  # a network or a mixer of the user's, which no file of ours can name
        own = {name: value for name, value in module.network.options.items() if name not in _DECIDED}
        arguments = {
            "horizon": data.horizon, "lookback": data.lookback, "output": plain_output(module.output),
            "conformal": False, "val_size": 0, "calendar": False, "id_col": data.panel.columns.id,
            "time_col": data.panel.columns.time, "target_col": data.panel.columns.target, "mixer": own.pop("mixer"),
            "network": own,
            "max_epochs": job.config.trainer.max_epochs, "batch_size": data.batch_size, "seed": job.config.seed,
            "learning_rate": module.learning_rate, "weight_decay": module.weight_decay,
        }  # fmt: skip
        rows = fitting.history_of(folder, module)
        fitted_of(job).save(folder / MODEL, {"arguments": arguments, "fits": 1, "history": rows})
        return [folder / MODEL]

    def pictures(self, job: Job, history: History, best_epoch: int, folder: Path) -> list[Path]:
        data = series_of(job)
        firsts = data.windows("test").anchors.first
        first = int(firsts[len(firsts) // 2])
        pictures = draw(plot_training, history, best_epoch, folder / "training.png")
        rows = np.full(len(data.panel), first)
        shown = data.panel.rows(rows - data.lookback, rows + data.horizon)
        return pictures + _draw(job, shown, folder)


# options of the network that a forecaster decides by itself
_DECIDED = ("lookback", "horizon", "outputs", "past_features", "future_features", "static_features")
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


def fitted_of(job: Job) -> FittedForecaster:
    """The run's network with the scales and the last rows of its data."""
    data, module = series_of(job), module_of(job)
    return FittedForecaster(module.eval().to(best_device()), data.scaling, data.panel.tail(data.lookback))


def by_row(panel: Panel, values: np.ndarray) -> np.ndarray:
    """Values of all rows of a table, series after series -> [T, C]."""
    return values.reshape(len(panel), -1).T


# pictures -------------------------------------------------------------------------------------------------------------


def _draw(job: Job, shown: Panel, folder: Path) -> list[Path]:
    """Draw forecast.png, and surprise.png where there is a memory, in original units.

    Args:
        shown: a lookback and a horizon; the values of the latter are NaN where they are not known yet.
    """
    data, fitted = series_of(job), fitted_of(job)
    first = shown.lengths - data.horizon
    forecast = by_row(shown, fitted.at(shown, first, fitted.scaling, ())[fitted.alias])
    seen, future = np.split(by_row(shown, shown.target), first[:1])
    columns, axis = [str(name) for name in shown.ids], pd.Index(shown.times[: shown.lengths[0]])
    title = f"{data.name}: {data.horizon} steps ahead"
    truth = None if np.isnan(future).all() else future
    made = draw(plot_forecast, seen, forecast, truth, columns, axis, folder / "forecast.png", title=title)
    if has_surprise(fitted.module):
        past = shown.until(data.horizon)
        surprise = by_row(past, surprise_of(fitted.network, past, fitted.scaling))
        title, path = f"{data.name}: what surprised the memory", folder / "surprise.png"
        made += draw(plot_surprise, seen, surprise, columns, axis[: len(seen)], path, title=title)
    return made


def has_surprise(module: ForecastModule) -> bool:
    return isinstance(module.network, SimbaForecaster) and module.network.has_memory


# test and predict -----------------------------------------------------------------------------------------------------


def load_run(arguments: argparse.Namespace, stage: str, csv: str | None = None) -> tuple[Job, Path]:
    """Rebuild the objects of a run with its weights, on its own series or on those of a file."""
    folder, path = checkpoints.split_checkpoint(user_path(arguments.checkpoint))
    config = recorded.read_config(folder, FORECAST.key, trust=recorded.named_again(arguments.trust))
    FORECAST.check(config)
    config.quiet = arguments.quiet
    if csv:
        config.data.dataset, config.data.csv = None, str(user_path(csv).absolute())
    elif config.data.csv is not None and not Path(config.data.csv).exists():
        gone = f"{config.data.csv}, which {folder} was trained on, is not there any more"
        raise UsageError(f"{gone}; {'put it back' if arguments.verb == 'report' else 'give it by --csv FILE'}")
    checkpoint = checkpoints.load_checkpoint(path)
    training.hush(config.quiet)
    # a file of one's own is tested on the scale of its own train split, as the published numbers are
    own_scale = stage == "test" and csv
    data = FORECAST.data(config, stage, None if own_scale else checkpoint, download=False)
    module = fitting.restored(config, lambda: FORECAST.module(config, data), checkpoint, folder)
    return Job(FORECAST, config, data, module, fitting.make_tester(config, folder)), folder


def test_command(arguments: argparse.Namespace) -> None:
    """`titans-seq test forecast`: metrics on the test split, to RUN/test_metrics.json."""
    job, folder = load_run(arguments, "test", arguments.csv)
    with training.interruptible(job.trainer, "nothing was written"):
        tested = job.trainer.test(job.module, datamodule=job.data, verbose=False)[0]
    metrics = {**FORECAST.about(job), **tested}
    name = f"test_metrics-{metrics['dataset']}.json" if arguments.csv else "test_metrics.json"
    runs.write_json(folder / name, metrics)
    show_record(FORECAST.title(metrics), metrics)
    show_paths("metrics", [folder / name])


def predict_command(arguments: argparse.Namespace) -> None:
    """`titans-seq predict forecast`: the rows after the last one, in original units."""
    job, run = load_run(arguments, "predict", arguments.csv)
    data = series_of(job)
    fitted = fitted_of(job)
    table = fitted.predict()
    folder, file = _output_for_prediction(arguments, run)
    with replacing(file) as part:
        table.to_csv(part, index=not isinstance(table.index, pd.RangeIndex))
    pictures = _draw(job, fitted.tail.extend(data.horizon), folder) if folder is not None else []
    about = {
        "series": data.name,
        "rows": data.horizon,
        "columns": len(data.panel),
        "from": str(table.index[0]),
        "to": str(table.index[-1]),
    }
    show_record(f"forecast of {data.name}", about)
    show_paths("files", [file, *pictures])


def _output_for_prediction(arguments: argparse.Namespace, run: Path) -> tuple[Path | None, Path]:
    """The folder of the pictures, None without, and the file of the forecast: --output names either."""
    if arguments.output is None:
        folder = runs.make_new_folder(run / "predict")
        return folder, folder / PREDICTION[0]
    place = user_path(arguments.output)
    if place.suffix.lower() == ".csv":
        return None, runs.new_file(place)
    for name in (*PREDICTION, runs.CONFIG):  # with a config.yaml it is a run, whose pictures have these names
        if (place / name).exists():
            raise UsageError(f"{place} holds {name} already; choose another --output")
    return runs.make_folder(place), place / PREDICTION[0]


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
    job, run = load_run(arguments, "predict", arguments.csv)
    data = series_of(job)
    if not has_surprise(module_of(job)):
        raise UsageError(f"{run} has no memory to surprise; train one with model=memory")
    fitted, panel = fitted_of(job), data.panel
    found = by_row(panel, surprise_of(fitted.network, panel, fitted.scaling))
    most, columns = _standing_out(found, data.lookback, arguments.share), [str(name) for name in panel.ids]
    axis = pd.Index(panel.times[: len(found)], name=panel.columns.time)
    path = runs.free(user_path(arguments.output) if arguments.output else run / f"surprise-{data.name}.csv")
    runs.make_folder(path.parent)
    with replacing(path) as part:
        pd.DataFrame(found, index=axis, columns=columns).to_csv(part)
    shown = most[:MARKED]
    title = f"{data.name}: what surprised the memory"
    place, values = path.with_suffix(".png"), by_row(panel, panel.target)
    pictures = draw(plot_surprise, values, found, columns, axis, place, title=title, marked=shown)
    for span in shown:
        rows = f"{axis[span.begin]} to {axis[span.end - 1]}"
        print(f"{span.peak:8.3f}  {printable(columns[span.channel])}  {rows}")
    show_paths("files", [path, *pictures])
