"""What every task that trains has in common: the configuration becomes objects, the objects run, the results are shown.

A task says what is its own (`Task`): its data and its network, what its metrics are called, its pictures.
"""

import argparse
import copy
import os
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra.core.override_parser.types import Override, QuotedString
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, ListConfig, OmegaConf

from titans_seq.cli import checkpoints, recorded, registry, runs, sizes, training
from titans_seq.cli.config import GROUPS, Schema, compose, overrides_of, parse
from titans_seq.cli.constructors import CALLBACKS, SECTIONS, build, complete
from titans_seq.cli.errors import UsageError
from titans_seq.cli.tables import show_paths, show_record
from titans_seq.datamodules.common.files import data_folder, user_path
from titans_seq.kernels.support import Case, machine_of, resolve_backend
from titans_seq.sharding import ShardedStrategy, is_sharded, load_whole
from titans_seq.training import TrainedModule

History = list[dict[str, float]]
FSDP = "fsdp"  # of trainer.strategy
_MISSING = object()
_RUN_FOLDER = (
    "TITANS_SEQ_RUN_FOLDER"  # tells the other processes of a run on several devices what the first has claimed
)


@dataclass
class Job:
    """The objects of one run."""

    task: "Task"
    config: DictConfig
    data: L.LightningDataModule
    module: TrainedModule
    trainer: L.Trainer


class Task(ABC):
    """One kind of training, by the words `titans-seq VERB NAME`.

    verb, name: of the command. key: what `task:` in its config.yaml says. schema: of its configuration.
    headline: the metrics a sweep shows; the first is what it minimises or maximises.
    """

    verb: str
    name: str
    key: str
    schema: Schema
    headline: tuple[str, ...]

    @abstractmethod
    def default_folder(self, config: DictConfig) -> Path:
        """Where a run without --output goes, before -2, -3, ... are added."""

    def check(self, config: DictConfig) -> None:
        """Refuse what the sections say of each other, with a UsageError."""

    def at_once(self, config: DictConfig) -> bool:
        """Has the model no training that could be taken up? A run of it that was killed begins again."""
        return False

    @abstractmethod
    def data(
        self, config: DictConfig, stage: str, checkpoint: Mapping[str, Any] | None = None, *, download: bool
    ) -> L.LightningDataModule:
        """The data, set up for a stage.

        checkpoint: of the run that is tested or goes on. download: get a named data set that is not here; a
        configuration from a file must not decide that.
        """

    @abstractmethod
    def module(self, config: DictConfig, data: L.LightningDataModule) -> TrainedModule:
        """The network in its LightningModule."""

    @abstractmethod
    def about(self, job: Job) -> dict[str, Any]:
        """What the metrics begin with: data, protocol, seed."""

    @abstractmethod
    def title(self, metrics: Mapping[str, Any]) -> str:
        """The head of the table of metrics."""

    @abstractmethod
    def pictures(self, job: Job, history: History, best_epoch: int, folder: Path) -> list[Path]:
        """Draw what a finished training shows."""

    def more(self, job: Job, tested: Mapping[str, float]) -> dict[str, Any]:
        """What follows from the metrics of the test."""
        return {}

    def export(self, job: Job, folder: Path) -> list[Path]:
        """Write the trained network in a form of its own, beside the checkpoints."""
        return []

    def begin(self, job: Job) -> None:
        """What a new run does before it makes its folder, and a resumed one does not do again."""

    def train(self, job: Job, folder: Path, last: Path | None) -> History:
        """Train to the end, from the checkpoint `last` or from the start; one row per epoch."""
        if last is not None and checkpoints.load_checkpoint(last)["global_step"] == 0:
            last = None  # of the start: it holds the weights, which the module has already
        with nullcontext() if last is None else checkpoints.restoring(last):
            job.trainer.fit(job.module, datamodule=job.data, ckpt_path=last, weights_only=True)
        return history_of(folder, job.module)


def fit_command(task: Task, arguments: argparse.Namespace) -> None:
    """`titans-seq fit ...`, and `pretrain`: one run, a sweep, or an interrupted run that goes on."""
    if arguments.trust and not arguments.resume:
        raise UsageError("--trust goes with --resume: what a new run builds is on its command line")
    if arguments.multirun:
        from titans_seq.cli.sweep import sweep

        return sweep(task, arguments)
    words = overrides_of(task.schema, arguments)
    # by its folder alone: what is asked are keys of its own configuration
    own = arguments.resume and arguments.output and all(map(_sets_a_key, parse(words)))
    if own and not runs.is_unstarted(user_path(arguments.output)):
        return _resume(task, user_path(arguments.output), None, words, arguments.trust)
    config = compose(task.schema, words)
    folder = _folder_to_resume(task, config) if arguments.resume else None
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


def _first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def _claim(task: Task, config: DictConfig, folder: Path | None) -> Iterator[Path]:
    if not _first_process():
        yield _claimed(config)
        return
    explicit = folder is not None or config.output is not None
    if not explicit and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise _unknown_folder()
    wanted = folder or (user_path(config.output) if config.output else None)
    with runs.claim(wanted or task.default_folder(config), explicit=explicit) as claimed:
        runs.write_config(claimed, config)
        os.environ[_RUN_FOLDER] = str(claimed.absolute())
        try:
            yield claimed
        finally:
            del os.environ[_RUN_FOLDER]


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
        sizes.check(config.model, lambda: task.module(config, data), weights, folder)
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
    """Kernels say that they cannot run when they are called: ask now, before anything is written.

    trainer: what the model is used with; None: nothing, on `device`. place: the file that names the backend.
    """
    if model.get("backend") != "triton":
        return
    used_on = device() if trainer is None else trainer.strategy.root_device
    dtype = torch.float64 if trainer is not None and trainer.precision == "64-true" else torch.float32
    case = Case(dtype, (), model.get("chunk_size", 1))
    try:
        resolve_backend("triton", machine_of(used_on.type, used_on.index), case)
    except RuntimeError as error:
        raise UsageError(f"model.{error}" if place is None else f"{error}; {place} asks for it") from None


def device() -> torch.device:
    """Where models are used outside of a Trainer: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def make_trainer(config: DictConfig, callbacks: list[L.Callback]) -> L.Trainer:
    """The Trainer of the configuration, without what a run does itself."""
    # not Lightning's own "fsdp", which can clip no gradients by their norm and needs GPUs
    own = {"strategy": ShardedStrategy()} if config.trainer.get("strategy") == FSDP else {}
    trainer: L.Trainer = build(
        config.trainer,
        "trainer",
        **own,
        callbacks=callbacks,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=not config.quiet and sys.stderr.isatty(),
        num_sanity_val_steps=0,
        # Lightning's would repeat samples in validation and test; ours deal out the training
        use_distributed_sampler=False,
    )
    checkpoints.use_checkpoint_files(trainer)
    return trainer


def _asked(folder: Path, config: DictConfig, words: Sequence[str]) -> DictConfig:
    """What the words ask of a run that is resumed by its folder alone: its own configuration, but for them."""
    asked, known = copy.deepcopy(config), _completed(config)
    asked.quiet = False
    for override in parse(words):
        key, value = override.key_or_group, override.value()
        if OmegaConf.select(known, key, default=_MISSING) is _MISSING:
            raise UsageError(f"unknown override {key!r}; {folder / runs.CONFIG} shows all keys")
        OmegaConf.update(asked, key, value.text if isinstance(value, QuotedString) else value)
    return asked


def _completed(config: DictConfig) -> DictConfig:
    """The configuration of a run with the options of the Trainer that it left as they are."""
    known = config.copy()
    complete(known, ("trainer",))
    return known


def _sets_a_key(override: Override) -> bool:
    """And chooses no group, adds or takes away nothing, and is none of Hydra's own."""
    changes = override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override()
    key = override.key_or_group
    return not changes and key not in GROUPS and not key.startswith("hydra")


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


def _resume(task: Task, folder: Path, asked: DictConfig | None, words: Sequence[str], trust: Sequence[str]) -> None:
    """asked: the configuration of the words; None: they are only about the run's own."""
    if not (folder / runs.CONFIG).is_file():
        recorded.read_config(folder, task.key)  # says what is wrong with the folder
    with runs.locked(folder) if _first_process() else nullcontext():
        config = recorded.read_config(folder, task.key, trust=recorded.named_again(trust, words))
        _settle(folder, config, _asked(folder, config, words) if asked is None else asked, words)
        if task.at_once(config) and (folder / runs.METRICS).exists():
            raise UsageError(f"the model of {folder} is fitted at once; there is nothing to resume")
        again = task.at_once(config) or not runs.has_begun(folder)
        job = prepare(task, config, folder)
        if again:  # it was killed before its first checkpoint
            task.begin(job)
            if _first_process():
                runs.write_config(folder, config)
        metrics, pictures = _fit(job, folder, resume=not again)
    _show_fit(task, metrics, folder, pictures)


def _folder_to_resume(task: Task, config: DictConfig) -> Path:
    if config.output is not None:
        return user_path(config.output)
    found = first = task.default_folder(config)
    for candidate in runs.numbered(first):
        if not candidate.exists():
            break
        found = candidate
    if not found.exists():
        raise UsageError(f"nothing to resume: no run folder {first}; give the run's own flags, or --output RUN")
    return found


def _settle(folder: Path, config: DictConfig, asked: DictConfig, words: Sequence[str]) -> None:
    """Give the run's own configuration more epochs, if asked; anything else asked must agree with it."""
    known, keys = _completed(config), [word.lstrip("+~").split("=")[0] for word in words]
    nodes = config.trainer.get("num_nodes", 1)
    if nodes > 1 and "trainer.num_nodes" not in keys:
        raise UsageError(
            f"the run {folder} was on {nodes} nodes and would wait for all of them; if they are there, say so: "
            f"trainer.num_nodes={nodes}"
        )
    for key in keys:
        if key in ("trainer.max_epochs", "quiet", "output", "experiment"):
            continue
        if key == "trainer" or key.startswith("hydra"):  # no key of the run's record to compare with
            raise UsageError(f"{key}= does not go with --resume: the run {folder} keeps its configuration; drop it")
        mine, theirs = OmegaConf.select(asked, key), OmegaConf.select(known, key)
        if mine != theirs:
            what = "section differs from" if isinstance(mine, DictConfig) else f"is {theirs} in"
            raise UsageError(f"{key} {what} the run {folder}; a resumed run keeps its configuration, drop the option")
    if "experiment" in keys:
        _check_experiment(folder, _completed(asked), known)
    config.quiet = asked.quiet
    finished = (folder / runs.METRICS).exists()
    if "trainer.max_epochs" in keys:
        before, after = config.trainer.max_epochs, asked.trainer.max_epochs
        if after < before or (finished and after == before):
            raise UsageError(f"{folder} was started for {before} epochs; --epochs can only raise that, got {after}")
        config.trainer.max_epochs = after
    elif finished:
        raise UsageError(f"{folder} is finished; give more --epochs to train on")


def _check_experiment(folder: Path, asked: DictConfig, known: DictConfig) -> None:
    """An experiment sets keys of any section: all that is asked must be the run's own, but for the epochs."""
    for section in (*SECTIONS, "trainer", *CALLBACKS):
        mine, theirs = (OmegaConf.select(config, section) for config in (asked, known))
        keys = {*(mine or ()), *(theirs or ())} - {"max_epochs"}
        differ = next((key for key in sorted(keys) if (mine or {}).get(key) != (theirs or {}).get(key)), None)
        if differ is not None:
            raise UsageError(
                f"{section}.{differ} of the experiment is not that of the run {folder}; a resumed run keeps its "
                "configuration: "
                f"--output {folder} --resume"
            )


def _reopen(job: Job, folder: Path) -> bool:
    """Make a run unfinished again; tell whether its training had ended by itself and is not to go on.

    A finished run is only resumed for more epochs. From here on it is like any interrupted run: Ctrl-C leaves neither
    the metrics of the shorter training nor the mark that it stopped early.
    """
    last = folder / runs.CHECKPOINTS / runs.LAST
    checkpoint = checkpoints.load_checkpoint(last)
    load_weights(job.module, checkpoint, folder)
    if checkpoint["global_step"] > 0:
        checkpoints.check_resume(checkpoint, job.module, job.trainer, last)
        job.data.load_state_dict(checkpoint.get(type(job.data).__qualname__, {}))  # refuses that of other data
    state = checkpoints.callback_state(checkpoint, EarlyStopping)
    stopped, finished = bool(state.get("stopped_epoch")), (folder / runs.METRICS).exists()
    if stopped and finished and _first_process():
        state["stopped_epoch"] = 0
        checkpoints.write_checkpoint(last, checkpoint)
    if _first_process():
        (folder / runs.METRICS).unlink(missing_ok=True)
        runs.write_config(folder, job.config)
    return stopped and not finished


# fitting --------------------------------------------------------------------------------------------------------------


@rank_zero_only
def _show_fit(task: Task, metrics: dict[str, Any], folder: Path, pictures: list[Path]) -> None:
    show_record(task.title(metrics), metrics)
    show_paths("run", [folder, *pictures])


def _fit(job: Job, folder: Path, resume: bool = False) -> tuple[dict[str, Any], list[Path]]:
    """Train, test the best epoch, write the metrics and then the pictures; return metrics and what was made."""
    last, best = (folder / runs.CHECKPOINTS / name for name in (runs.LAST, runs.BEST))
    training.place(job.trainer, folder)
    ended = resume and _reopen(job, folder)
    go_on = f"go on with: titans-seq {job.task.verb} {job.task.name} --output {folder} --resume"
    with training.interruptible(job.trainer, go_on):
        history = history_of(folder, job.module) if ended else job.task.train(job, folder, last if resume else None)
        checkpoint = checkpoints.load_checkpoint(best)
        load_whole(job.module, checkpoint["state_dict"])
        tested = job.trainer.test(job.module, datamodule=job.data, verbose=False)[0]
    metrics = _metrics(job, history, tested)
    if not job.trainer.is_global_zero:
        return metrics, []
    if is_sharded(job.module.network):  # take a whole one, which this process can use without the others
        job.module = job.task.module(job.config, job.data)
        load_weights(job.module, checkpoint, folder)
    exported = job.task.export(job, folder)
    runs.write_json(folder / runs.METRICS, metrics)
    return metrics, exported + job.task.pictures(job, history, metrics["best_epoch"], folder)


def restored(
    config: DictConfig, make: Callable[[], TrainedModule], checkpoint: Mapping[str, Any], folder: Path
) -> TrainedModule:
    """The module of a run with its weights; one that does not fit them is refused before it takes memory."""
    sizes.check(config.model, make, checkpoint["state_dict"], folder)
    module = make()
    load_weights(module, checkpoint, folder)
    return module


def load_weights(module: TrainedModule, checkpoint: Mapping[str, Any], folder: Path) -> None:
    """Give the module the weights of a checkpoint of the run in `folder`."""
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError:
        raise UsageError(
            f"the checkpoint in {folder} does not fit the model of its {runs.CONFIG}, or is of another version of "
            "titans-seq"
        ) from None


def history_of(folder: Path, module: TrainedModule) -> History:
    """The rows of a run's epochs; a UsageError if none of them can be the best."""
    path = folder / runs.CHECKPOINTS / runs.LAST
    checkpoint = checkpoints.load_checkpoint(path, finite=False)
    rows: History = checkpoints.rows_of(checkpoint, module, path)
    if not any(_is_sound(row, module.monitor) for row in rows):
        raise UsageError(
            f"training diverged: no epoch has a finite {module.monitor}; try a smaller training.learning_rate"
        )
    return rows


def _is_sound(row: Mapping[str, float], monitor: str) -> bool:
    """A metric of the best class can be finite where the loss is not."""
    return bool(np.isfinite([row[monitor], row["train_loss"]]).all())


def finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics without those that are undefined, e.g. the AUROC where all sequences are of one class."""
    return {name: value for name, value in metrics.items() if not isinstance(value, float) or np.isfinite(value)}


def _metrics(job: Job, history: History, tested: Mapping[str, float]) -> dict[str, Any]:
    # validation as it was at the best epoch; measured again it would be of the last weights where they are averaged
    name, sign = job.module.monitor, -1 if job.module.mode == "max" else 1
    best = min(history, key=lambda row: sign * row[name] if _is_sound(row, name) else np.inf)
    seconds = sum(row["seconds"] for row in history)
    metrics = {
        **job.task.about(job),
        **tested,
        **job.task.more(job, tested),
        **{key: best[key] for key in job.module.shown if key.startswith("val_")},
        "epochs": len(history),
        "best_epoch": int(best["epoch"]) + 1,  # counted from 1, like epochs
        "parameters": sum(weights.numel() for weights in job.module.network.parameters()),
        "fit_seconds": round(seconds, 2),
        "seconds_per_epoch": round(seconds / len(history), 3),
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
