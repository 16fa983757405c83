"""What tells one kind of training from another (`Task`), and the objects of a run."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from omegaconf import DictConfig

from titans_seq.cli import checkpoints, runs
from titans_seq.cli.config import Schema
from titans_seq.cli.errors import UsageError
from titans_seq.cli.tables import show_record
from titans_seq.training import TrainedModule

History = list[dict[str, float]]


@dataclass
class Job:
    """The objects of one run; fitted: what a task makes of the trained module, for all that follows."""

    task: "Task"
    config: DictConfig
    data: L.LightningDataModule
    module: TrainedModule
    trainer: L.Trainer
    fitted: Any = None


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

        checkpoint: of the run that is tested or resumed.
        download: whether to fetch a named data set that is missing; a configuration from a file must not decide that.
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

    def test(self, job: Job) -> dict[str, float]:
        """Measure the trained module on the test split."""
        return dict(job.trainer.test(job.module, datamodule=job.data, verbose=False)[0])

    def show(self, metrics: Mapping[str, Any]) -> None:
        """Print the metrics."""
        show_record(self.title(metrics), metrics)

    def more(self, job: Job, tested: Mapping[str, float], folder: Path) -> dict[str, Any]:
        """What follows from the metrics of the test; None takes one away."""
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


def history_of(folder: Path, module: TrainedModule) -> History:
    """The rows of a run's epochs; a UsageError if none of them can be the best."""
    path = folder / runs.CHECKPOINTS / runs.LAST
    checkpoint = checkpoints.load_checkpoint(path, finite=False)
    rows: History = checkpoints.rows_of(checkpoint, module, path)
    if not any(is_sound(row, module.monitor) for row in rows):
        raise UsageError(
            f"training diverged: no epoch has a finite {module.monitor}; try a smaller training.learning_rate"
        )
    return rows


def is_sound(row: Mapping[str, float], monitor: str) -> bool:
    """A metric of the best class can be finite where the loss is not."""
    return bool(np.isfinite([row[monitor], row["train_loss"]]).all())
