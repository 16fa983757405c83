"""fit, test and predict for forecasting: the configuration becomes objects, the objects run, the results are shown."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig, OmegaConf

from titans_seq import NeuralMemory
from titans_seq.cli import runs, training
from titans_seq.cli.config import CALLBACKS, build, compose, overrides_of
from titans_seq.cli.errors import UsageError
from titans_seq.cli.tables import show_paths, show_record
from titans_seq.datamodules import ForecastDataModule, download_dataset, future_dates
from titans_seq.datamodules.registry import locate
from titans_seq.forecast import ForecastModule, SimbaForecaster
from titans_seq.forecast.pictures import plot_forecast, plot_surprise, plot_training

TASK = "forecast"
PREDICTION = ("forecast.csv", "forecast.png", "surprise.png")  # what predict writes


@dataclass
class Job:
    """The objects of one run."""

    config: DictConfig
    data: ForecastDataModule
    module: ForecastModule
    trainer: L.Trainer


def fit_command(arguments: argparse.Namespace) -> None:
    """`titans-seq fit forecast`."""
    if arguments.multirun:
        from titans_seq.cli.sweep import sweep

        return sweep(arguments)
    config = compose(overrides_of(arguments))
    if arguments.resume:
        folder = _folder_to_resume(config)
        config = _resumed_config(folder, config, arguments)
        metrics, pictures = _fit(prepare(config), folder, resume=True)
        _show_fit(metrics, folder, pictures)
    else:
        fit(config)
    return None


def fit(config: DictConfig, folder: Path | None = None, *, show: bool = True) -> dict[str, Any]:
    """Train one configuration from the start and return its metrics.

    Args:
        folder: run folder; None is the configuration's `output`, or the first free default one.
        show: print the results.
    """
    job = prepare(config)
    explicit = folder is not None or config.output is not None
    wanted = folder or (Path(config.output).expanduser() if config.output else None)
    folder = runs.claim(wanted or runs.default_folder(config), explicit=explicit)
    runs.write_config(folder, config)
    metrics, pictures = _fit(job, folder)
    if show:
        _show_fit(metrics, folder, pictures)
    return metrics


def prepare(config: DictConfig) -> Job:
    """Build every object of a run, data included, and write nothing: what is wrong with the input shows here."""
    training.hush(config.quiet)
    training.check(config.trainer)
    _check_lengths(config)
    L.seed_everything(config.seed, workers=True, verbose=False)
    data = _data(config, "fit")
    module = _module(config)
    configured = [build(config[name], name) for name in CALLBACKS if config.get(name) is not None]
    callbacks = training.callbacks(config.seed, configured, config.quiet)
    trainer = _trainer(config, callbacks)
    _check_optimizer(module, trainer)
    return Job(config, data, module, trainer)


def _check_lengths(config: DictConfig) -> None:
    for name in ("lookback", "horizon"):
        mine, theirs = config.model[name], config.data[name]
        if mine != theirs:
            raise UsageError(
                f"model.{name} is {mine}, but the windows have {theirs}; set data.{name}, the model follows"
            )


def _check_optimizer(module: ForecastModule, trainer: L.Trainer) -> None:
    """PyTorch's optimisers check their options when they are made: make one now, before anything is written."""
    module.trainer = trainer
    try:
        module.configure_optimizers()
    except ValueError as error:
        raise UsageError(f"training: {error}") from None


def _data(config: DictConfig, stage: str, state: dict[str, Any] | None = None) -> ForecastDataModule:
    """Return the series, set up for a stage; state: the scale of a checkpoint."""
    data: ForecastDataModule = build(config.data, "data")
    # a file that is here is checked when it is read; prepare_data would check it once more
    if data.spec is not None and locate(data.spec, data.data_root) is None:
        download_dataset(data.spec.name, data_root=data.data_root, quiet=config.quiet)
    data.load_state_dict(state or {})
    data.setup(stage)
    return data


def _module(config: DictConfig) -> ForecastModule:
    return build(config.training, "training", network=build(config.model, "model"))


def _trainer(config: DictConfig, callbacks: list[L.Callback]) -> L.Trainer:
    return build(
        config.trainer,
        "trainer",
        callbacks=callbacks,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=not config.quiet and sys.stderr.isatty(),
        num_sanity_val_steps=0,
    )


# resuming --------------------------------------------------------------------------------------------------------------


def _folder_to_resume(config: DictConfig) -> Path:
    if config.output is not None:
        return Path(config.output).expanduser()
    found = first = runs.default_folder(config)
    for candidate in runs.numbered(first):
        if not candidate.exists():
            break
        found = candidate
    if not found.exists():
        raise UsageError(f"nothing to resume: no run folder {first}; give the run's own flags, or --output RUN")
    return found


def _resumed_config(folder: Path, asked: DictConfig, arguments: argparse.Namespace) -> DictConfig:
    """Return the run's own configuration, with more epochs if asked; anything else asked must agree with it."""
    config = runs.read_config(folder, TASK)
    keys = [word.lstrip("+~").split("=")[0] for word in overrides_of(arguments)]
    for key in keys:
        if key in ("trainer.max_epochs", "quiet", "output"):
            continue
        if key in ("experiment", "trainer") or key.startswith("hydra"):  # no key of the run's record to compare with
            raise UsageError(f"{key}= does not go with --resume: the run {folder} keeps its configuration; drop it")
        mine, theirs = OmegaConf.select(asked, key), OmegaConf.select(config, key)
        if mine != theirs:
            what = "section differs from" if isinstance(mine, DictConfig) else f"is {theirs} in"
            raise UsageError(f"{key} {what} the run {folder}; a resumed run keeps its configuration, drop the option")
    config.quiet = asked.quiet
    finished = (folder / runs.METRICS).exists()
    if "trainer.max_epochs" in keys:
        before, after = config.trainer.max_epochs, asked.trainer.max_epochs
        if after < before or (finished and after == before):
            raise UsageError(f"{folder} was started for {before} epochs; --epochs can only raise that, got {after}")
        config.trainer.max_epochs = after
    elif finished:
        raise UsageError(f"{folder} is finished; give more --epochs to train on")
    return config


# fitting ---------------------------------------------------------------------------------------------------------------


def _show_fit(metrics: dict[str, Any], folder: Path, pictures: list[Path]) -> None:
    show_record(f"{metrics['dataset']}, horizon {metrics['horizon']}, {metrics['mixer']}", metrics)
    show_paths("run", [folder, *pictures])


def _fit(job: Job, folder: Path, resume: bool = False) -> tuple[dict[str, Any], list[Path]]:
    """Train, test the best epoch, write metrics and pictures; return both."""
    checkpoints = folder / runs.CHECKPOINTS
    training.place(job.trainer, folder)
    last = checkpoints / runs.LAST
    ended = resume and _reopen(job, folder)
    go_on = f"go on with: titans-seq fit forecast --output {folder} --resume"
    with training.interruptible(job.trainer, go_on):
        if not ended:
            path = last if resume else None
            job.trainer.fit(job.module, datamodule=job.data, ckpt_path=path, weights_only=True)
        history = _history(last)
        job.module.load_state_dict(runs.load_checkpoint(checkpoints / runs.BEST)["state_dict"])
        tested = job.trainer.test(job.module, datamodule=job.data, verbose=False)[0]
    metrics = _metrics(job, history, tested)
    pictures = _fit_pictures(job, history, metrics["best_epoch"], folder)
    runs.write_json(folder / runs.METRICS, metrics)
    return metrics, pictures


def _reopen(job: Job, folder: Path) -> bool:
    """Make a run unfinished again; tell whether its training had ended by itself and is not to go on.

    A finished run is only resumed for more epochs. From here on it is like any interrupted run: Ctrl-C leaves neither the
    metrics of the shorter training nor the mark that it stopped early.
    """
    last = folder / runs.CHECKPOINTS / runs.LAST
    checkpoint = runs.load_checkpoint(last)
    _load_weights(job.module, checkpoint, folder)
    state = _callback_state(checkpoint, EarlyStopping)
    stopped, finished = bool(state.get("stopped_epoch")), (folder / runs.METRICS).exists()
    if stopped and finished:
        state["stopped_epoch"] = 0
        runs.write_checkpoint(last, checkpoint)
    (folder / runs.METRICS).unlink(missing_ok=True)
    runs.write_config(folder, job.config)
    return stopped and not finished


def _load_weights(module: ForecastModule, checkpoint: dict[str, Any], folder: Path) -> None:
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError:
        raise UsageError(f"the checkpoint in {folder} does not fit the model of its {runs.CONFIG}") from None


def _callback_state(checkpoint: dict[str, Any], kind: type) -> dict[str, Any]:
    states = checkpoint.get("callbacks", {})
    return next((state for key, state in states.items() if key.startswith(kind.__qualname__)), {})


def _history(last: Path) -> list[dict[str, float]]:
    rows = _callback_state(runs.load_checkpoint(last), training.History).get("rows", [])
    if not rows or not np.isfinite([row["val_mse"] for row in rows]).any():
        raise UsageError("training diverged: no epoch has a finite val_mse; try a smaller training.learning_rate")
    return rows


def _metrics(job: Job, history: list[dict[str, float]], tested: Mapping[str, float]) -> dict[str, Any]:
    # validation as it was at the best epoch; measured again it would be of the last weights where they are averaged
    best = min(history, key=lambda row: row["val_mse"] if np.isfinite(row["val_mse"]) else np.inf)
    seconds = sum(row["seconds"] for row in history)
    return {
        **_about(job.data, job.config),
        **tested,
        "val_mse": best["val_mse"],
        "val_mae": best["val_mae"],
        "epochs": len(history),
        "best_epoch": int(best["epoch"]) + 1,  # counted from 1, like epochs
        "parameters": sum(weights.numel() for weights in job.module.network.parameters()),
        "fit_seconds": round(seconds, 2),
        "seconds_per_epoch": round(seconds / len(history), 3),
    }


def _about(data: ForecastDataModule, config: DictConfig) -> dict[str, Any]:
    return {
        "dataset": data.series.name,
        "lookback": data.lookback,
        "horizon": data.horizon,
        "mixer": config.model.mixer,
        "seed": config.seed,
        "test_windows": len(data.dataset_for("test")),
        "scale": "standardised",
        "drop_last": False,
    }


# pictures --------------------------------------------------------------------------------------------------------------


def _fit_pictures(job: Job, history: list[dict[str, float]], best_epoch: int, folder: Path) -> list[Path]:
    windows = job.data.dataset_for("test")
    window = windows[len(windows) // 2]
    past, truth = window["past_target"], window["future_target"]
    first = int(window["index"])
    pictures = [plot_training(history, best_epoch, folder / "training.png")]
    pictures += _draw(job.data, job.module, past, truth, _axis(job.data, first), folder)
    return pictures


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
    made = [plot_forecast(seen, original(forecast), future, columns, axis, folder / "forecast.png", title=title)]
    if surprise is not None:
        title = f"{data.series.name}: what surprised the memory"
        made.append(plot_surprise(seen, surprise, columns, axis[: len(seen)], folder / "surprise.png", title=title))
    return made


@torch.inference_mode()
def _look(module: ForecastModule, past: torch.Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Return forecast [H, C] and, for the memory, surprise [L, C] of one window [L, C], standardised."""
    module.eval().to("cpu")
    forecast = module(past[None])[0].double().numpy()
    if not _has_surprise(module):
        return forecast, None
    assert isinstance(module.network, SimbaForecaster)
    return forecast, module.network.surprise(past[None])[0].double().numpy()


def _has_surprise(module: ForecastModule) -> bool:
    return any(isinstance(part, NeuralMemory) for part in module.network.modules())


# test and predict ------------------------------------------------------------------------------------------------------


def _load_run(arguments: argparse.Namespace, stage: str) -> tuple[Job, Path]:
    """Rebuild the objects of a run with its weights, on its own series or on --csv."""
    folder, path = runs.split_checkpoint(Path(arguments.checkpoint).expanduser())
    config = runs.read_config(folder, TASK)
    config.quiet = arguments.quiet
    if arguments.fill and not arguments.csv:
        raise UsageError("--fill goes with --csv")
    if arguments.csv:
        config.data.dataset, config.data.csv = None, str(Path(arguments.csv).expanduser().absolute())
        config.data.fill = arguments.fill
    checkpoint = runs.load_checkpoint(path)
    training.hush(config.quiet)
    module = _module(config)
    _load_weights(module, checkpoint, folder)
    # a file of one's own is tested on the scale of its own train split, as the published numbers are
    own_scale = stage == "test" and arguments.csv
    data = _data(config, stage, None if own_scale else checkpoint.get(ForecastDataModule.__qualname__))
    bar: list[L.Callback] = [training.Progress()] if not config.quiet and sys.stderr.isatty() else []
    return Job(config, data, module, _trainer(config, bar)), folder


def test_command(arguments: argparse.Namespace) -> None:
    """`titans-seq test forecast`: metrics on the test split, to RUN/test_metrics.json."""
    job, folder = _load_run(arguments, "test")
    with training.interruptible(job.trainer, "nothing was written"):
        tested = job.trainer.test(job.module, datamodule=job.data, verbose=False)[0]
    metrics = {**_about(job.data, job.config), **tested}
    name = f"test_metrics-{job.data.series.name}.json" if arguments.csv else "test_metrics.json"
    runs.write_json(folder / name, metrics)
    show_record(f"{metrics['dataset']}, horizon {metrics['horizon']}, {metrics['mixer']}", metrics)
    show_paths("metrics", [folder / name])


def predict_command(arguments: argparse.Namespace) -> None:
    """`titans-seq predict forecast`: the rows after the last one, in original units."""
    job, run = _load_run(arguments, "predict")
    data = job.data
    past = next(iter(data.predict_dataloader()))["past_target"][0]
    forecast, _ = _look(job.module, past)
    dates = future_dates(data.series, data.horizon)
    table = pd.DataFrame(data.scaler.inverse_transform(forecast), index=dates, columns=list(data.series.columns))
    folder = _output_for_prediction(arguments, run)
    table.rename_axis(dates.name or "date").to_csv(folder / "forecast.csv")
    axis = _axis(data, len(data.series.values))
    pictures = _draw(data, job.module, past, None, axis, folder)
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
        return runs.claim(run / "predict", explicit=False)
    folder = Path(arguments.output).expanduser()
    for name in (*PREDICTION, runs.CONFIG):  # with a config.yaml it is a run, whose pictures have these names
        if (folder / name).exists():
            raise UsageError(f"{folder} holds {name} already; choose another --output")
    return runs.make_folder(folder)
