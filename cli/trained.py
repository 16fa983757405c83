"""A trained forecaster for the commands that use one: that of a run, or one that `TitansForecaster.save` wrote."""

import argparse
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from omegaconf import DictConfig

from titans_seq.cli import checkpoints, fitting, recorded, runs, training
from titans_seq.cli.errors import UsageError
from titans_seq.cli.forecast import FORECAST, MODEL, fitted_of
from titans_seq.cli.table_flags import FORM, asked
from titans_seq.cli.tasks import History, Job
from titans_seq.datamodules import ForecastDataModule
from titans_seq.datamodules.common.errors import DataWarning
from titans_seq.datamodules.common.files import user_path
from titans_seq.datamodules.forecast.calendar import plain_step
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.protocol import Known
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.forecaster_files import load_forecaster
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.saving import WRONG, first_line
from titans_seq.forecast.scores import LEVELS
from titans_seq.model_folders import CONFIG
from titans_seq.training import best_device

Saved: TypeAlias = tuple[FittedForecaster, dict[str, Any]]  # and what its folder says of it


@dataclass
class Trained:
    """A forecaster and the series it is used on.

    Args:
        folder: that it came from.
        fitted: the forecaster.
        data: set up; None: those rows alone that a saved forecaster ends with.
        quiet: no bars.
        known: rows that were learned from; None: the data are the run's own, with its split.
        job: of a run.
        history: of a saved forecaster's training, a row per epoch.
        arguments: of its constructor.
    """

    folder: Path
    fitted: FittedForecaster
    data: ForecastDataModule | None
    quiet: bool
    known: Known | None = None
    job: Job | None = None
    history: History = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the series."""
        return self.folder.name if self.data is None else str(self.data.name)

    @property
    def series(self) -> ForecastDataModule:
        """The data, which a saved forecaster needs a file for.

        Raises:
            UsageError: there is none.
        """
        if self.data is None:
            raise UsageError(f"{self.folder} is a saved forecaster without data; give them by --csv FILE")
        return self.data

    def unseen(self, panel: Panel) -> Int[np.ndarray, " N"]:
        """The first row of each series that neither the weights nor the intervals have learned from."""
        if self.known is None:
            return self.series.protocol.bounds(panel, "test")[0]
        return self.known.seen(panel)


def open_trained(arguments: argparse.Namespace, stage: str) -> Trained:
    """The forecaster of --checkpoint, on the rows of --csv or those it was trained on.

    Args:
        arguments: of the command line.
        stage: "test" or "predict", what the data are set up for.
    """
    path = user_path(arguments.checkpoint)
    if (path / CONFIG).is_file() and not (path / runs.CONFIG).is_file():
        return _saved(path, arguments, stage)
    job, folder, checkpoint, saved = _load_run(arguments, stage)
    assert isinstance(job.data, ForecastDataModule)
    job.fitted = _calibrated(job, saved and saved[0], checkpoint, arguments.csv is None)
    known = None
    if arguments.csv is not None:
        nothing = Known(pd.Index([]), pd.Index([]), False, 0)
        known = nothing if saved is None else _known(folder / MODEL, *saved)
    return Trained(folder, job.fitted, job.data, job.config.quiet, known, job)


def _saved(folder: Path, arguments: argparse.Namespace, stage: str) -> Trained:
    try:
        fitted, about = load_forecaster(folder)
    except ValueError as error:
        raise UsageError(error) from None
    for module in fitted.modules:
        module.to(best_device())
    training.hush(arguments.quiet)
    known = _known(folder, fitted, about)
    data = None if arguments.csv is None else _data_for(fitted, known, arguments)
    if data is not None:
        data.setup(stage)
    given = {name: about[name] for name in ("history", "arguments")}
    return Trained(folder, fitted, data, arguments.quiet, known, **given)


def _known(folder: Path, fitted: FittedForecaster, about: Mapping[str, Any]) -> Known:
    """The rows that a saved forecaster has learned from: all it was fitted on, of a run those before its test rows."""
    try:
        known = Known.of(fitted.tail, about["arguments"].get("val_size") or 2 * fitted.network.horizon)
        if "seen" not in about:
            return known
        last = pd.Index(np.asarray(about["seen"]["last"], dtype=np.int64).astype(fitted.tail.clock.dtype))
        ids = pd.Index(about["seen"]["ids"])
        if len(ids) != len(last) or not isinstance(known.held_out, int):
            raise ValueError("the rows that were learned from are not those of the series")
    except WRONG as error:
        raise UsageError(f"{folder / CONFIG} is damaged: {first_line(error)}") from None
    return replace(known, ids=ids, last=last)


def _data_for(fitted: FittedForecaster, known: Known, arguments: argparse.Namespace) -> ForecastDataModule:
    """A file's rows as a saved forecaster reads them."""
    columns, names = fitted.tail.columns, dict[str, Any](freq=fitted.tail.freq)
    if not fitted.tail.wide:
        names |= {"id_column": columns.id, "time_column": columns.time, "target": (columns.target,)}
        kinds = ("past_covariates", "future_covariates", "static_covariates")
        names |= {kind: getattr(columns, kind) for kind in kinds}
    data = ForecastDataModule(
        csv=str(user_path(arguments.csv)), lookback=fitted.context, horizon=fitted.network.horizon,
        **names | asked(arguments),
    )  # fmt: skip
    data.cut = known
    data.restore(fitted.scaling)
    return data


def _load_run(arguments: argparse.Namespace, stage: str) -> tuple[Job, Path, Path, Saved | None]:
    """The objects of a run with its weights, on its own series or on those of a file; its folder, its checkpoint, and
    what it has saved.
    """
    folder, path = checkpoints.split_checkpoint(user_path(arguments.checkpoint))
    config = recorded.read_config(folder, FORECAST.key, trust=recorded.named_again(arguments.trust))
    FORECAST.check(config)
    config.quiet, saved = arguments.quiet, _model_of(folder)
    _place(config, folder, arguments, saved and saved[0])
    checkpoint = checkpoints.load_checkpoint(path)
    training.hush(config.quiet)
    # a file of one's own is tested on the scale of its own train split, as the published numbers are
    own_scale = stage == "test" and arguments.csv
    data = FORECAST.data(config, stage, None if own_scale else checkpoint, download=False)
    if own_scale:
        data.read_covariates_as(checkpoint.get(ForecastDataModule.__qualname__) or {})
    module = fitting.restored(config, lambda: FORECAST.module(config, data), checkpoint, folder)
    return Job(FORECAST, config, data, module, fitting.make_tester(config, folder)), folder, path, saved


def _place(config: DictConfig, folder: Path, arguments: argparse.Namespace, saved: FittedForecaster | None) -> None:
    """Let the configuration name the file that is read, which has the step of the run's."""
    if arguments.csv:
        step = None if saved is None else plain_step(saved.tail.freq)
        if config.data.freq is None and isinstance(step, str | int):
            config.data.freq = step
        config.data.update({name: None for name in FORM})
        config.data.dataset, config.data.csv = None, str(user_path(arguments.csv).absolute())
    elif config.data.csv is not None and not Path(config.data.csv).exists():
        gone = f"{config.data.csv}, which {folder} was trained on, is not there any more"
        raise UsageError(f"{gone}; {'put it back' if arguments.verb == 'report' else 'give it by --csv FILE'}")
    config.data.update(asked(arguments))


def _model_of(folder: Path) -> Saved | None:
    """What the run has saved for `TitansForecaster.load`; nothing of a network of the user's own."""
    if not (folder / MODEL).is_dir():
        return None
    try:
        return load_forecaster(folder / MODEL)
    except ValueError as error:
        raise UsageError(error) from None


def _same_weights(one: ForecastModule, other: ForecastModule) -> bool:
    """Not so where a run has been trained on since."""
    mine, theirs = one.network.state_dict(), other.network.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name].cpu(), theirs[name].cpu()) for name in mine)


def _calibrated(job: Job, saved: FittedForecaster | None, checkpoint: Path, own: bool) -> FittedForecaster:
    """The run's forecaster, with its intervals where the weights are those they were calibrated for.

    A network of the user's own is calibrated again, where the run's own rows are at hand.
    """
    fitted = fitted_of(job)
    assert isinstance(job.data, ForecastDataModule)
    if job.data.restored is not None:  # without the file's series, which are scaled by what comes before a forecast
        fitted = replace(fitted, scaling=job.data.restored)
    if checkpoint.name != runs.BEST:
        return fitted
    if saved is not None and _same_weights(saved.module, fitted.module):
        others = tuple(module.to(best_device()) for module in saved.others)
        return replace(saved, module=fitted.module, scaling=fitted.scaling, tail=fitted.tail, others=others)
    if not (checkpoint.parents[1] / runs.METRICS).exists():
        which = "its first network, at the best epoch" if job.config.seeds > 1 else "its best epoch"
        warnings.warn(f"this run has not finished: forecasts are those of {which} so far", DataWarning, stacklevel=2)
    if own:
        job.data.setup("fit")
        fitted.calibrate(job.data.windows("val"), LEVELS)
    return fitted
