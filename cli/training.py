"""What a run adds to Lightning's Trainer: exact resumption, a history for the picture, quiet terminals."""

import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar, Timer
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from titans_seq.cli.errors import Interrupted, UsageError
from titans_seq.cli.runs import BEST, CHECKPOINTS, LAST
from titans_seq.datamodules.common.errors import DataWarning
from titans_seq.training import TrainedModule


class EpochSeed(Callback):
    """Restarts the random numbers at each epoch from seed and epoch: a resumed run draws the same dropout masks."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # not on_train_epoch_start: making a loader's iterator draws a number, and a resumed run makes it earlier
        if batch_idx == 0:
            # a hash of both: seed + epoch would give seed 1 the numbers of seed 0, one epoch later
            mixed = np.random.SeedSequence([self.seed, trainer.current_epoch]).generate_state(1)[0]
            torch.manual_seed(int(mixed))


class History(Callback):
    """One row per finished epoch: epoch, the module's `shown` metrics, seconds. Kept in the checkpoint."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._started = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainedModule)
        metrics = {name: trainer.callback_metrics[name].item() for name in pl_module.shown}
        self.rows.append({"epoch": trainer.current_epoch, **metrics, "seconds": time.perf_counter() - self._started})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


class EpochLines(Callback):
    """A line per epoch on stderr, where no bar can be drawn: a log file, a batch job."""

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, TrainedModule)
        words = (f"{name} {trainer.callback_metrics[name].item():.4f}" for name in pl_module.shown)
        print(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}:", *words, file=sys.stderr, flush=True)


class TimeLimit(Timer):
    """Ends a training after `trainer.max_time`, inside an epoch too: that epoch is validated, and counts as one.

    Each command has the whole time: a resumed run would otherwise end at once.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._check_time_remaining(trainer)  # else another epoch would begin for one batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore."""

    @property
    def is_over(self) -> bool:
        """Has it ended the training, or would it have?"""
        return (self.time_remaining() or 0.0) <= 0

    @classmethod
    def of(cls, options: Mapping[Any, Any], networks: int = 1) -> list["TimeLimit"]:
        """The limit that options of the Trainer ask for, if they do; several networks share the time."""
        duration = options.get("max_time")
        if duration is None:
            return []
        try:
            duration = dict(duration) if isinstance(duration, Mapping) else duration
            limit = cls(duration, verbose=False)
        except (TypeError, OverflowError, MisconfigurationException) as error:
            raise UsageError(f"trainer: max_time={duration}: {' '.join(str(error).split())}") from None
        if limit.is_over:
            raise UsageError(f"trainer.max_time={duration} leaves no time to train; give more, or null for no limit")
        return [cls(limit.share(networks), verbose=False) if networks > 1 else limit]

    def share(self, networks: int) -> dict[str, int]:
        """The time for each of several networks, as `trainer.max_time`."""
        left = self.time_remaining()
        assert left is not None
        return {"milliseconds": max(1, round(1000 * (left + self.time_elapsed()) / networks))}


STOPPED = "max_minutes"  # what `stopped` in the metrics says of a training that a TimeLimit ended


def stopped(trainer: L.Trainer) -> dict[str, str]:
    """What the metrics say of a training that ended before its last epoch for want of time."""
    over = any(each.is_over for each in trainer.callbacks if isinstance(each, TimeLimit))  # type: ignore[attr-defined]
    if over and trainer.global_step < trainer.num_training_batches:
        warnings.warn(
            f"the time limit ended the training after {trainer.global_step} of the {trainer.num_training_batches} "
            "batches of its first epoch",
            DataWarning,
            stacklevel=2,
        )
    return {"stopped": STOPPED} if over else {}


class BestCheckpoint(ModelCheckpoint):
    """The best epoch by one metric, as best.ckpt. Its score survives when the run folder is moved."""

    def __init__(self, monitor: str, mode: str) -> None:
        super().__init__(
            filename=Path(BEST).stem,
            monitor=monitor,
            mode=mode,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert self.dirpath is not None
        scores = {str(Path(self.dirpath, BEST)): score for score in state_dict["best_k_models"].values()}
        here = next(iter(scores), "")  # empty before the first epoch has ended
        paths = {"best_model_path": here, "kth_best_model_path": here, "best_k_models": scores}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath})


class LastCheckpoint(ModelCheckpoint):
    """last.ckpt: the start of the training, then the end of each epoch; never inside one, where resuming is not
    exact.
    """

    def __init__(self) -> None:
        super().__init__(filename=Path(LAST).stem, enable_version_counter=False, save_on_train_epoch_end=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        assert self.dirpath is not None
        path = Path(self.dirpath, LAST)
        # all processes or none: saving waits for all, and the first may have written before another looks.
        # Weights only: to save AdamW before its first step would count a step under FSDP
        if not trainer.strategy.broadcast(path.exists()):
            trainer.save_checkpoint(path, weights_only=True)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore: it keeps one file, wherever the run folder now is."""


class Progress(RichProgressBar):
    """Lightning's rich bar, on stderr: stdout is for results."""

    def __init__(self) -> None:
        theme = RichProgressBarTheme(progress_bar="cyan", progress_bar_finished="cyan", metrics_format=".4f")
        super().__init__(theme=theme, console_kwargs={"stderr": True})


_EVERY_EPOCH = "the best epoch is chosen by validation at the end of each epoch"
# option of the Trainer -> whether a value suits a run, and what to do instead
_REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "logger": (lambda value: False, "a run keeps its history in checkpoints/; use `titans-seq lightning` for loggers"),
    "callbacks": (lambda value: False, "use the sections early_stopping and averaging"),
    "enable_progress_bar": (lambda value: False, "use --quiet"),
    "enable_model_summary": (lambda value: False, "metrics.json counts the parameters"),
    "barebones": (lambda value: not value, "a run logs its metrics and keeps its checkpoints"),
    "num_sanity_val_steps": (lambda value: False, "everything is checked before training anyway"),
    "enable_checkpointing": (lambda value: value in (True, None), "a run keeps its best and its last epoch; drop it"),
    "fast_dev_run": (lambda value: not value, "use trainer.max_epochs=1 trainer.limit_train_batches=1"),
    "default_root_dir": (lambda value: value is None, "a run writes to its own folder; use --output"),
    "max_epochs": (lambda value: value is not None and value != 0, "give at least 1"),
    "max_steps": (lambda value: value == -1, f"{_EVERY_EPOCH}; use trainer.max_epochs or trainer.limit_train_batches"),
    "check_val_every_n_epoch": (lambda value: value == 1, _EVERY_EPOCH),
    "val_check_interval": (lambda value: value in (None, 1.0), _EVERY_EPOCH),
    "accumulate_grad_batches": (lambda value: isinstance(value, int) and value >= 1, "give at least 1"),
    "gradient_clip_val": (
        lambda value: value is None or (isinstance(value, int | float) and value >= 0),
        "give at least 0; null clips nothing",
    ),
    "limit_train_batches": (lambda value: value != 0, "there is nothing to learn from"),
    "limit_val_batches": (lambda value: value != 0, _EVERY_EPOCH),
    "limit_test_batches": (lambda value: value != 0, "a run ends with the test of its best epoch"),
}


def check(options: Mapping[Any, Any]) -> None:
    """Refuse options of the Trainer that a run decides itself, or with which it could not choose its best epoch."""
    for name, (suits, advice) in _REFUSED.items():
        if name in options and not suits(options[name]):
            raise UsageError(f"trainer.{name}={options[name]} does not go with a run: {advice}")


def callbacks(seed: int, configured: list[Callback], quiet: bool, monitor: str, mode: str) -> list[Callback]:
    """Return the callbacks of a training; `place` tells them the run folder before it starts."""
    bar: list[Callback] = [] if quiet else [Progress() if sys.stderr.isatty() else EpochLines()]
    return [EpochSeed(seed), History(), *configured, *bar, BestCheckpoint(monitor, mode), LastCheckpoint()]


def place(trainer: L.Trainer, folder: Path) -> None:
    """Tell the callbacks where the run writes, and Lightning where it may look for files of its own."""
    # under SLURM it looks for hpc_ckpt files; in the current folder they could be those of another run
    trainer._default_root_dir = str(folder.absolute())  # type: ignore[attr-defined]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = str((folder / CHECKPOINTS).absolute())


@contextmanager
def interruptible(trainer: L.Trainer, message: str) -> Iterator[None]:
    """Turn Ctrl-C, and Lightning's way of ending on it (SystemExit, with SIGINT ignored), into Interrupted."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except MisconfigurationException as error:  # some options are only looked at when the data are there
        raise UsageError(f"trainer: {' '.join(str(error).split())}") from None
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        raise Interrupted(message) from None
    finally:
        signal.signal(signal.SIGINT, handler)


def hush(quiet: bool) -> None:
    """Keep Lightning's notes from the terminal, and with quiet its warnings too."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR if quiet else logging.WARNING)
    # Lightning's own use of PyTorch
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*deprecated")
    # advice that does not hold here: windows are views in memory, and the run folder is ours
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    # under FSDP: states of blocks are views, but nothing here writes into what a block returns
    warnings.filterwarnings("ignore", message=".*FSDP2-wrapped module .* returned a view tensor.*")
    warnings.filterwarnings(
        "ignore", message=".*The number of training batches.*is smaller than the logging interval.*"
    )
    if quiet:
        warnings.filterwarnings("ignore", module=r"lightning\.")
