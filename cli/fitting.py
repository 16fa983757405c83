"""What all training has in common: the configuration becomes objects, the objects run, the results are shown."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, ListConfig

from titans_seq.cli import checkpoints, recorded, registry, resuming, runs, sizes, training
from titans_seq.cli.config import compose, overrides_of, parse
from titans_seq.cli.constructors import CALLBACKS, build
from titans_seq.cli.errors import UsageError
from titans_seq.cli.tables import show_paths
from titans_seq.cli.tasks import History, Job, Task, history_of, is_sound
from titans_seq.datamodules.common.files import data_folder, user_path
from titans_seq.kernels.support import Case, machine_of, resolve_backend
from titans_seq.sharding import ShardedStrategy, is_sharded, load_whole
from titans_seq.training import TrainedModule, accelerator_of, best_device

FSDP = "fsdp"  # of trainer.strategy
# tells the other processes of a run on several devices what the first has claimed
_RUN_FOLDER = "TITANS_SEQ_RUN_FOLDER"


def fit_command(task: Task, arguments: argparse.Namespace) -> None:
    """`titans-seq fit ...`, and `pretrain`: one run, a sweep, or an interrupted run that goes on."""
    if arguments.trust and not arguments.resume:
        raise UsageError("--trust goes with --resume: what a new run builds is on its command line")
    if arguments.multirun:
        from titans_seq.cli.sweep import sweep

        return sweep(task, arguments)
    words = overrides_of(task.schema, arguments)
    # by its folder alone: what is asked are keys of its own configuration
    own = arguments.resume and arguments.output and all(map(resuming.sets_a_key, parse(words)))
    if own and not runs.is_unstarted(user_path(arguments.output)):
        return _resume(task, user_path(arguments.output), None, words, arguments.trust)
    config = compose(task.schema, words)
    folder = resuming.folder_to_resume(task, config) if arguments.resume else None
    if folder is None or runs.is_unstarted(folder):
        fit(task, config, folder)
    else:
        _resume(task, folder, config, words, arguments.trust)
    return None


def fit(task: Task, config: DictConfig, folder: Path | None = None, *, show: bool = True) -> dict[str, Any]:
    """Train one configuration from the start and return its metrics.

    Args:
        folder: run folder; None is the configuration's `output`, or the first free default one.
        show: print the results.
    """
    job = prepare(task, config)
    task.begin(job)
    with _claim(task, config, folder) as claimed:
        metrics, pictures = _fit(job, claimed)
    if show:
        _show_fit(task, metrics, claimed, pictures)
    return metrics


def fit_or_resume(task: Task, config: DictConfig, folder: Path, *, more_time: bool = False) -> None:
    """Train a run that is part of another one, or what is left of it; a finished one stays as it is.

    more_time: whether one that its time limit ended is not finished.
    """
    done = (folder / runs.METRICS).is_file() and not (more_time and resuming.ran_out_of_time(folder))
    if done and recorded.read_config(folder, task.key).trainer.max_epochs == config.trainer.max_epochs:
        return
    if not folder.exists() or runs.is_unstarted(folder):
        fit(task, config, folder, show=False)
    else:
        _resume(task, folder, config, ("trainer.max_epochs=1", "trainer.max_time=null"), (), show=False)


@contextmanager
def _claim(task: Task, config: DictConfig, folder: Path | None) -> Iterator[Path]:
    if not runs.is_first_process():
        yield _claimed(config)
        return
    explicit = folder is not None or config.output is not None
    if not explicit and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise _unknown_folder()
    wanted = folder or (user_path(config.output) if config.output else None)
    with runs.claim(wanted or task.default_folder(config), explicit=explicit) as claimed:
        runs.write_config(claimed, config)
        with _environment(_RUN_FOLDER, str(claimed.absolute())):
            yield claimed


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable, which may be set already: a run may train others inside of its folder."""
    before, os.environ[name] = os.environ.get(name), value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _claimed(config: DictConfig) -> Path:
    """The folder of the first process: Lightning starts the others with its environment, a cluster does not."""
    known = config.output or os.environ.get(_RUN_FOLDER)
    if known is None:
        raise _unknown_folder()
    return user_path(known)


def _unknown_folder() -> UsageError:
    return UsageError("processes that something else has started need --output to write to the same run folder")


def prepare(task: Task, config: DictConfig, folder: Path | None = None) -> Job:
    """Build every object of a run, data included, and write nothing: what is wrong with the input shows here.

    folder: of a run that goes on, whose configuration asks for no more than its checkpoint holds.
    """
    training.hush(config.quiet)
    training.check(config.trainer)
    _check_sharding(config)
    task.check(config)
    recorded.require_readable(config)
    L.seed_everything(config.seed, workers=True, verbose=False)
    data = task.data(config, "fit", download=folder is None)
    if folder is not None:
        last = folder / runs.CHECKPOINTS / runs.LAST
        weights = checkpoints.load_checkpoint(last, finite=False)["state_dict"] if last.is_file() else None
        sizes.check(config, lambda: task.module(config, data), weights, folder)
    module = task.module(config, data)
    configured = [build(config[name], name) for name in CALLBACKS if config.get(name) is not None]
    callbacks = training.callbacks(config.seed, configured, config.quiet, module.monitor, module.mode)
    trainer = make_trainer(config, callbacks)
    _check_optimizer(module)
    _check_monitors(config.training, configured, module)
    check_backend(config.model, trainer)
    return Job(task, config, data, module, trainer)


def not_here(name: str, data_root: str | Path | None) -> UsageError:
    """The error for a named data set that a run from a file needs."""
    folder = data_folder(data_root)
    get = f"TITANS_SEQ_DATA={shlex.quote(str(folder))} titans-seq data download {name}"
    return UsageError(
        f"{name} is not in {folder}, and runs download nothing; get it with: {get} (or test on --csv FILE)"
    )


def _check_optimizer(module: TrainedModule) -> None:
    """PyTorch's optimisers check their options when they are made: make one now, before anything is written."""
    try:
        module.make_optimizer()
    except ValueError as error:
        raise UsageError(f"training: {error}") from None


def _check_monitors(options: DictConfig, callbacks: list[L.Callback], module: TrainedModule) -> None:
    """EarlyStopping looks its metric up after the first epoch: know now whether it is there."""
    if registry.find(options["_target_"], "training") is None:  # a module of the user's may log more than it shows
        return
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.strict and callback.monitor not in module.shown:
            raise UsageError(f"early_stopping: no metric {callback.monitor!r}; there are {', '.join(module.shown)}")


def check_backend(model: Mapping[str, Any], trainer: L.Trainer | None = None, *, place: Path | None = None) -> None:
    """Check backend support before anything is written: the kernels only raise when called.

    trainer: what the model is used with; None: nothing, on `device`. place: the file that names the backend.
    """
    if model.get("backend") != "triton":
        return
    used_on = best_device() if trainer is None else trainer.strategy.root_device
    dtype = torch.float64 if trainer is not None and trainer.precision == "64-true" else torch.float32
    case = Case(dtype, (), model.get("chunk_size", 1))
    try:
        resolve_backend("triton", machine_of(used_on.type, used_on.index), case)
    except RuntimeError as error:
        raise UsageError(f"model.{error}" if place is None else f"{error}; {place} asks for it") from None


def make_trainer(config: DictConfig, callbacks: list[L.Callback]) -> L.Trainer:
    """The Trainer of the configuration, without what a run does itself."""
    # not Lightning's own "fsdp", which can clip no gradients by their norm and needs GPUs
    own = {"strategy": ShardedStrategy()} if config.trainer.get("strategy") == FSDP else {}
    trainer: L.Trainer = build(
        config.trainer,
        "trainer",
        **own,
        callbacks=[*training.TimeLimit.of(config.trainer, config.get("seeds", 1)), *callbacks],
        accelerator=accelerator_of(config.trainer.get("accelerator", "auto")),
        max_time=None,  # Lightning's own limit would end a resumed run at once
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=not config.quiet and sys.stderr.isatty(),
        num_sanity_val_steps=0,
        # Lightning's would repeat samples in validation and test; ours deal out the training
        use_distributed_sampler=False,
    )
    checkpoints.use_checkpoint_files(trainer)
    return trainer


def check_streams(config: DictConfig) -> None:
    """Refuse training on streams where the states could not be carried."""
    if config.data.get("carry", 1) == 1:
        return
    if config.model.get("window", 0) is None:
        raise UsageError("--carry needs attention with a window; give model.window=128")
    if not on_one_device(config.trainer):
        raise UsageError("--carry trains on one device: the rows of a batch follow on one another; give --devices 1")


def _check_sharding(config: DictConfig) -> None:
    """Refuse to share weights out where nothing can be, or where they are needed whole."""
    if config.trainer.get("strategy") != FSDP:
        return
    if on_one_device(config.trainer):
        raise UsageError("strategy fsdp shares the weights out over several devices; give --devices N")
    if config.get("averaging") is not None:
        raise UsageError(
            "averaging needs whole weights, of which strategy fsdp has shares; give ~averaging or --strategy ddp"
        )


def on_one_device(options: DictConfig) -> bool:
    """Tell whether options of the Trainer are for one process."""
    devices = options.get("devices", 1)
    count = len(devices) if isinstance(devices, ListConfig) else devices
    return count in (1, "1") and options.get("num_nodes", 1) == 1


# resuming -------------------------------------------------------------------------------------------------------------


def _resume(
    task: Task, folder: Path, asked: DictConfig | None, words: Sequence[str], trust: Sequence[str], *, show: bool = True
) -> None:
    """asked: the configuration of the words; None: they are only about the run's own."""
    if not (folder / runs.CONFIG).is_file():
        recorded.read_config(folder, task.key)  # says what is wrong with the folder
    with runs.locked(folder) if runs.is_first_process() else nullcontext():
        config = recorded.read_config(folder, task.key, trust=recorded.named_again(trust, words))
        resuming.settle(folder, config, resuming.asked_of(folder, config, words) if asked is None else asked, words)
        if task.at_once(config) and (folder / runs.METRICS).exists():
            raise UsageError(f"the model of {folder} is fitted at once; there is nothing to resume")
        again = task.at_once(config) or not runs.has_begun(folder)
        job = prepare(task, config, folder)
        if again:  # it was killed before its first checkpoint
            task.begin(job)
            if runs.is_first_process():
                runs.write_config(folder, config)
        metrics, pictures = _fit(job, folder, resume=not again)
    if show:
        _show_fit(task, metrics, folder, pictures)


# fitting --------------------------------------------------------------------------------------------------------------


@rank_zero_only
def _show_fit(task: Task, metrics: dict[str, Any], folder: Path, pictures: list[Path]) -> None:
    task.show(metrics)
    show_paths("run", [folder, *pictures])


def _fit(job: Job, folder: Path, resume: bool = False) -> tuple[dict[str, Any], list[Path]]:
    """Train, test the best epoch, write the metrics and then the pictures; return metrics and what was made."""
    last, best = (folder / runs.CHECKPOINTS / name for name in (runs.LAST, runs.BEST))
    training.place(job.trainer, folder)
    ended = resume and resuming.reopen(job, folder)
    go_on = f"go on with: titans-seq {job.task.verb} {job.task.name} --output {folder} --resume"
    with training.interruptible(job.trainer, go_on):
        history = history_of(folder, job.module) if ended else job.task.train(job, folder, last if resume else None)
        checkpoint = checkpoints.load_checkpoint(best)
        load_whole(job.module, checkpoint["state_dict"])
        tested = job.task.test(job)
    metrics = _metrics(job, history, tested)
    if not job.trainer.is_global_zero:
        return metrics, []
    if is_sharded(job.module.network):  # take a whole one, which this process can use without the others
        job.module = job.task.module(job.config, job.data)
        sizes.load_weights(job.module, checkpoint, job.config, folder)
    metrics |= finite(job.task.more(job, tested, folder))
    metrics = {name: value for name, value in metrics.items() if value is not None}
    exported = job.task.export(job, folder)
    runs.write_json(folder / runs.METRICS, metrics)
    return metrics, exported + job.task.pictures(job, history, metrics["best_epoch"], folder)


def restored(
    config: DictConfig, make: Callable[[], TrainedModule], checkpoint: Mapping[str, Any], folder: Path
) -> TrainedModule:
    """The module of a run with its weights; one that does not fit them is refused before it takes memory."""
    sizes.check(config, make, checkpoint["state_dict"], folder)
    module = make()
    sizes.load_weights(module, checkpoint, config, folder)
    return module


def finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics without those that are undefined, e.g. the AUROC where all sequences are of one class."""
    return {name: value for name, value in metrics.items() if not isinstance(value, float) or np.isfinite(value)}


def _metrics(job: Job, history: History, tested: Mapping[str, float]) -> dict[str, Any]:
    # validation as it was at the best epoch; measured again it would be of the last weights where they are averaged
    name, sign = job.module.monitor, -1 if job.module.mode == "max" else 1
    best = min(history, key=lambda row: sign * row[name] if is_sound(row, name) else np.inf)
    seconds = sum(row["seconds"] for row in history)
    metrics = {
        **job.task.about(job),
        **tested,
        **{key: best[key] for key in job.module.shown if key.startswith("val_")},
        "epochs": len(history),
        "best_epoch": int(best["epoch"]) + 1,  # counted from 1, like epochs
        "parameters": sum(weights.numel() for weights in job.module.network.parameters()),
        "fit_seconds": round(seconds, 2),
        "seconds_per_epoch": round(seconds / len(history), 3),
        **training.stopped(job.trainer),
    }
    return finite(metrics)


# a finished run -------------------------------------------------------------------------------------------------------


# whatever the run was trained on, one device is enough to use it, and writes its files once
ALONE = {"devices": 1, "num_nodes": 1, "strategy": "auto", "profiler": None}


def make_tester(config: DictConfig, folder: Path) -> L.Trainer:
    """The Trainer that the finished run in a folder is used with."""
    training.check(config.trainer)
    config.trainer.update(ALONE)
    trainer = make_trainer(config, bar(config))
    check_backend(config.model, trainer, place=folder / runs.CONFIG)
    return trainer


def bar(config: DictConfig) -> list[L.Callback]:
    """The progress bar of a Trainer that does not train, where one can be drawn."""
    return [training.Progress()] if not config.quiet and sys.stderr.isatty() else []
