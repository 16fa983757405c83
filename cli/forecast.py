"""`titans-seq fit forecast`: what is the forecaster's own in a run."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from omegaconf import DictConfig

from titans_seq.cli import fitting, forecast_flags, members, registry, table_flags
from titans_seq.cli.config import Schema
from titans_seq.cli.constructors import build
from titans_seq.cli.errors import UsageError
from titans_seq.cli.forecast_pictures import draw_forecast, windows_of_a_picture
from titans_seq.cli.memory import PEAK_OF_MEMORY, require_memory
from titans_seq.cli.pictures import draw
from titans_seq.cli.scores import show_scores, without_scores
from titans_seq.cli.tables import show_record
from titans_seq.cli.tasks import History, Job, Task
from titans_seq.datamodules import ForecastDataModule, download_dataset
from titans_seq.datamodules.common.files import EMBEDDED, base_name
from titans_seq.datamodules.forecast.protocol import Known
from titans_seq.datamodules.forecast.registry import find_spec, locate
from titans_seq.datamodules.forecast.transforms import plain_transform
from titans_seq.datamodules.forecast.weights import without_weight
from titans_seq.forecast import ForecastModule, SimbaForecaster
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.forecaster_files import save_forecaster
from titans_seq.forecast.outputs import make_output, raw_size
from titans_seq.forecast.pictures import plot_training
from titans_seq.forecast.saving import plain_output
from titans_seq.forecast.scores import LEVELS, SHOWN, as_metrics
from titans_seq.forecast.scoring import score
from titans_seq.training import best_device

MOST_SAMPLES = 1024  # of a batch of a `TitansForecaster`
COUNTS = "negative_binomial"  # the output whose targets are counts
MODEL = "model"  # the folder of a run that `TitansForecaster.load` reads


def _named(name: str) -> list[str]:
    return [f"data={EMBEDDED if name.lower() == EMBEDDED else find_spec(name).name.lower()}"]


def _mixer(config: DictConfig) -> str:
    """The mixer's name, or the class of a network of the user's without one."""
    return str(config.model.get("mixer") or config.model._target_.rpartition(".")[2])


class ForecastTask(Task):
    """A forecaster of the series of one table."""

    verb, name, key = "fit", "forecast", "forecast"
    headline = ("val_mse", "test_mse", "test_mae")
    schema = Schema(
        module="titans_seq.configs.forecast",
        name="fit",
        flags=forecast_flags.FIT.settings,
        choices={"dataset": _named},
        exclusive=(("dataset", "csv", "parquet"), *table_flags.EXCLUSIVE),
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
        if config.training.get("output") == COUNTS:
            if config.data.get("transform") not in (None, "counts"):
                raise UsageError(f"--output-type {COUNTS} is of the counts themselves; drop --transform")
            config.data.transform = "counts"
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
        assert isinstance(data, ForecastDataModule)
        try:
            outputs = raw_size(make_output(config.training.get("output") or "huber"))
        except ValueError as error:
            raise UsageError(f"training: {error}") from None
        ours = registry.find(config.model._target_, "model") is SimbaForecaster
        own = {"outputs": outputs, **data.sizes} if ours else {}
        network = build(config.model, "model", **own)
        for name in ("lookback", "horizon"):
            if getattr(network, name, None) != config.data[name]:
                raise UsageError(
                    f"model: {type(network).__name__} must have the attribute {name}, here {config.data[name]}"
                )
        given = getattr(network, "outputs", 1)
        if given != outputs:
            raise UsageError(
                f"model: {type(network).__name__} gives {given} number{'s' if given > 1 else ''} per step, of which "
                f"training.output={config.training.output} needs {outputs}; give --output-type huber, or let the "
                "attribute `outputs` say how many it gives"
            )
        return build(config.training, "training", network=network)

    def begin(self, job: Job) -> None:
        data, module = series_of(job), module_of(job)
        members.check(job)
        if not isinstance(module.network, SimbaForecaster):  # one of the user's need not read each series for itself
            return
        window = data.windows("train").__getitems__([0])
        peak = PEAK_OF_MEMORY if module.network.has_memory else 1.0
        require_memory(module, window, data.batch_size, peak, job.trainer.strategy.root_device)

    def about(self, job: Job) -> dict[str, Any]:
        data = series_of(job)
        return {
            "dataset": data.name,
            "data": data.provenance,
            "series": len(data.panel),
            "lookback": data.lookback,
            "horizon": data.horizon,
            "mixer": _mixer(job.config),
            "output": _name_of(module_of(job).output),
            "seed": job.config.seed,
            "test_windows": len(data.windows("test")),
            "scale": "standardised",
            "drop_last": False,
        }

    def test(self, job: Job) -> dict[str, float]:
        return {}  # `more` measures the forecaster, with its intervals and beside the baselines

    def more(self, job: Job, tested: Mapping[str, float], folder: Path) -> dict[str, Any]:
        data = series_of(job)
        job.fitted = replace(fitted_of(job), others=members.others_of(job, folder))
        job.fitted.calibrate(data.windows("val"), LEVELS)
        job.fitted.learn_correlation(data.windows("val"))
        scored = score(job.fitted, data, progress=not job.config.quiet)
        found: dict[str, Any] = as_metrics(scored.scores, scored.baseline)
        return found | (members.together(job, folder) if job.fitted.others else {})

    def show(self, metrics: Mapping[str, Any]) -> None:
        show_record(self.title(metrics), without_scores(metrics))
        show_scores(metrics)

    def title(self, metrics: Mapping[str, Any]) -> str:
        return f"{metrics['dataset']}, horizon {metrics['horizon']}, {metrics['mixer']}"

    def export(self, job: Job, folder: Path) -> list[Path]:
        module = module_of(job)
        if not isinstance(module.network, SimbaForecaster) or callable(module.network.options["mixer"]):
            return []  # a network or a mixer of the user's, which no file of ours can name
        rows = fitting.history_of(folder, module)
        weight = series_of(job).sample_weight
        about = {"arguments": _arguments(job), "fits": 1, "history": rows, "seen": _seen(job), "weight": weight}
        save_forecaster(job.fitted, folder / MODEL, about)
        return [folder / MODEL]

    def pictures(self, job: Job, history: History, best_epoch: int, folder: Path) -> list[Path]:
        data = series_of(job)
        pictures = draw(plot_training, history, best_epoch, folder / "training.png")
        shown, first = windows_of_a_picture(data)
        return pictures + draw_forecast(job.fitted, str(data.name), shown, first, folder, job.fitted.scaling, SHOWN)


# options of the network that a forecaster decides by itself
_DECIDED = ("lookback", "horizon", "outputs", "past_features", "future_features", "static_features")
FORECAST = ForecastTask()


def _arguments(job: Job) -> dict[str, Any]:
    """The constructor of a `TitansForecaster` of the same network, outputs and covariates."""
    data, module = series_of(job), module_of(job)
    assert isinstance(module.network, SimbaForecaster)
    own = {name: value for name, value in module.network.options.items() if name not in _DECIDED}
    transform = data.scaling.transform
    samples = data.batch_size * (len(data.panel) if data.panel.wide else 1)  # those of a window count one by one there
    columns = job.fitted.tail.columns
    return {
        "horizon": data.horizon, "lookback": data.lookback, "output": plain_output(module.output), "levels": LEVELS,
        "calendar": data.scaling.calendar, "id_col": columns.id, "time_col": columns.time, "target_col": columns.target,
        "past_covariates": list(columns.past_covariates), "future_covariates": list(columns.future_covariates),
        "static_covariates": list(columns.static_covariates), "mixer": own.pop("mixer"), "network": own,
        "max_epochs": job.config.trainer.max_epochs, "batch_size": min(samples, MOST_SAMPLES), "seed": job.config.seed,
        "steps_per_epoch": data.steps_per_epoch or -(-len(data.train) // data.batch_size),
        "learning_rate": module.learning_rate, "weight_decay": module.weight_decay, "seeds": job.config.seeds,
        "transform": None if transform is None or transform.whole else plain_transform(transform),
        "holidays": list(data.scaling.holidays) or None,
    }  # fmt: skip


def _seen(job: Job) -> dict[str, Any]:
    """The last row of each series that the weights or the intervals have learned from, as the clock has it."""
    data = series_of(job)
    begin = data.protocol.bounds(data.panel, "test")[0]
    known = Known.of(data.panel.rows(np.zeros_like(begin), begin), 0)
    return {"ids": known.ids.tolist(), "last": known.last.to_numpy().astype(np.int64).tolist()}


def _name_of(output: Any) -> str:
    """As the command calls it."""
    plain = plain_output(output)
    names = {each: plain_output(make_output(each)) for each in forecast_flags.OUTPUTS}
    return next((name for name, known in names.items() if known == plain), type(output).__name__)


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
    """The run's network with the scales and the last rows of its data, without calibrated intervals."""
    data, module = series_of(job), module_of(job)
    tail = without_weight(data.panel.tail(data.lookback), data.sample_weight)
    return FittedForecaster(module.eval().to(best_device()), replace(data.scaling, weight=None), tail)
