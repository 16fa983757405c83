"""Resuming a run: which folder, which options may change, and how a finished run is reopened."""

import copy
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override, QuotedString
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig, OmegaConf

from titans_seq.cli import checkpoints, runs, sizes
from titans_seq.cli.config import GROUPS, parse
from titans_seq.cli.constructors import CALLBACKS, SECTIONS, complete
from titans_seq.cli.errors import UsageError
from titans_seq.cli.tasks import Job, Task
from titans_seq.cli.training import STOPPED
from titans_seq.datamodules.common.files import user_path

_MISSING = object()


def asked_of(folder: Path, config: DictConfig, words: Sequence[str]) -> DictConfig:
    """What the words ask of a run that is resumed by its folder alone: its own configuration, but for them."""
    asked, known = copy.deepcopy(config), _completed(config)
    asked.quiet = False
    for override in parse(words):
        key, value = override.key_or_group, override.value()
        if OmegaConf.select(known, key, default=_MISSING) is _MISSING:
            raise UsageError(f"unknown override {key!r}; {folder / runs.CONFIG} shows all keys")
        OmegaConf.update(asked, key, value.text if isinstance(value, QuotedString) else value, merge=False)
    return asked


def _completed(config: DictConfig) -> DictConfig:
    """The configuration of a run with the defaults of the Trainer's options."""
    known = config.copy()
    complete(known, ("trainer",))
    return known


def sets_a_key(override: Override) -> bool:
    """And chooses no group, adds or takes away nothing, and is none of Hydra's own."""
    changes = override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override()
    key = override.key_or_group
    return not changes and key not in GROUPS and not key.startswith("hydra")


def folder_to_resume(task: Task, config: DictConfig) -> Path:
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


def settle(folder: Path, config: DictConfig, asked: DictConfig, words: Sequence[str]) -> None:
    """Give the run's own configuration more epochs or time, if asked; anything else asked must agree with it."""
    known, keys = _completed(config), [word.lstrip("+~").split("=")[0] for word in words]
    nodes = config.trainer.get("num_nodes", 1)
    if nodes > 1 and "trainer.num_nodes" not in keys:
        raise UsageError(
            f"the run {folder} was on {nodes} nodes and would wait for all of them; if they are there, say so: "
            f"trainer.num_nodes={nodes}"
        )
    for key in keys:
        if key in ("trainer.max_epochs", "trainer.max_time", "quiet", "output", "experiment"):
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
    if "trainer.max_time" in keys and "max_time" in asked.trainer:
        config.trainer.max_time = asked.trainer.max_time
    finished = (folder / runs.METRICS).exists() and not ran_out_of_time(folder)
    if "trainer.max_epochs" in keys:
        before, after = config.trainer.max_epochs, asked.trainer.max_epochs
        if finished and after == before:
            raise UsageError(f"{folder} is finished; give more than its {before} --epochs to train on")
        if after < before:
            raise UsageError(f"{folder} was started for {before} epochs; --epochs can only raise that, got {after}")
        config.trainer.max_epochs = after
    elif finished:
        raise UsageError(f"{folder} is finished; give more --epochs to train on")


def ran_out_of_time(folder: Path) -> bool:
    """Was the training of a finished run ended by its time limit?"""
    return runs.read_metrics(folder / runs.METRICS, ()).get("stopped") == STOPPED


def _check_experiment(folder: Path, asked: DictConfig, known: DictConfig) -> None:
    """An experiment sets keys of any section: all that is asked must be the run's own, but for its length."""
    for section in (*SECTIONS, "trainer", *CALLBACKS):
        mine, theirs = (OmegaConf.select(config, section) for config in (asked, known))
        keys = {*(mine or ()), *(theirs or ())} - {"max_epochs", "max_time"}
        differ = next((key for key in sorted(keys) if (mine or {}).get(key) != (theirs or {}).get(key)), None)
        if differ is not None:
            raise UsageError(
                f"{section}.{differ} of the experiment is not that of the run {folder}; a resumed run keeps its "
                "configuration: "
                f"--output {folder} --resume"
            )


def reopen(job: Job, folder: Path) -> bool:
    """Mark a run as unfinished; return whether its training has ended by itself and must not continue.

    A finished run is only resumed for more epochs. From here on it is an interrupted run: Ctrl-C leaves neither the
    metrics of the shorter training nor the mark that it stopped early.
    """
    last = folder / runs.CHECKPOINTS / runs.LAST
    checkpoint = checkpoints.load_checkpoint(last)
    sizes.load_weights(job.module, checkpoint, job.config, folder)
    if checkpoint["global_step"] > 0:
        checkpoints.check_resume(checkpoint, job.module, job.trainer, last)
        job.data.load_state_dict(checkpoint.get(type(job.data).__qualname__, {}))  # refuses that of other data
    state = checkpoints.callback_state(checkpoint, EarlyStopping)
    stopped, finished = bool(state.get("stopped_epoch")), (folder / runs.METRICS).exists()
    if stopped and finished and runs.is_first_process():
        state["stopped_epoch"] = 0
        checkpoints.write_checkpoint(last, checkpoint)
    if runs.is_first_process():
        (folder / runs.METRICS).unlink(missing_ok=True)
        runs.write_config(folder, job.config)
    return stopped and not finished
