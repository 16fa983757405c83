"""What every LightningModule here has: a network, a best epoch, and AdamW whose rate falls along a cosine."""

import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn


def adamw(parameters: Iterable[Any], **options: Any) -> torch.optim.AdamW:
    """AdamW over parameters or groups of them, on a CPU by PyTorch's one kernel for all (docs/LOG.md).

    That kernel reads numbers in the order of memory: a gradient that is set by hand must lie as its parameter does.
    Those of `backward` do.
    """
    optimizer = torch.optim.AdamW(parameters, **options)
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    if all(type(p.data) is Tensor and p.device.type == "cpu" and p.is_floating_point() for p in weights):
        # as an argument, `fused` also promises that the optimiser unscales gradients, and Lightning would not clip them
        for group in (optimizer.defaults, *optimizer.param_groups):
            group["fused"] = True
    return optimizer


class TrainedModule(L.LightningModule):
    """Base of the tasks' modules.

    The learning rate falls to `final_rate` of itself along a cosine over the whole training. Its length is not kept in
    the
    checkpoint: a run resumed for more epochs takes up the longer cosine. A training without an end (`max_epochs` of -1)
    keeps the full rate.

    Attributes:
        monitor, mode: the metric that tells which epoch is the best, and whether by its "min" or "max".
        shown: what is logged per epoch for people to see.

    Args:
        network: what is trained.
        learning_rate, weight_decay: of AdamW.
        final_rate: share of the rate that is left at the end.
        warmup_steps: None: one rate per epoch, the first one the full rate. Else the rate changes with every step and
            grows from near 0 for so many steps first, at most a fifth of all.
    """

    monitor: str
    mode: str
    shown: tuple[str, ...]

    def __init__(
        self,
        network: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        final_rate: float,
        warmup_steps: int | None = None,
    ) -> None:
        super().__init__()
        if warmup_steps is not None and warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0; got {warmup_steps}")
        if not 0 <= weight_decay < math.inf:
            raise ValueError(f"weight_decay must be finite and at least 0; got {weight_decay}")
        if not 0 <= final_rate <= 1:
            raise ValueError(f"final_rate must be in [0, 1], a share of the rate; got {final_rate}")
        self.network: nn.Module = network
        self.learning_rate, self.weight_decay, self.final_rate = learning_rate, weight_decay, final_rate
        self.warmup_steps = warmup_steps

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW over all parameters; its options are checked here."""
        return adamw(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

    def log_training(self, loss: Tensor, weight: int) -> None:
        """`train_loss`: the mean over an epoch's batches, and over processes, by their weights."""
        self.log(
            "train_loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True, sync_dist=True, batch_size=weight
        )

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer()
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:  # no end to anneal to
            return optimizer
        # not CosineAnnealingLR: it keeps its length in the checkpoint, and a run resumed for longer would turn around
        by_step = self.warmup_steps is not None
        share = self._share_of_step() if by_step else lambda epoch: self._cosine(epoch / epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return [optimizer], [{"scheduler": schedule, "interval": "step" if by_step else "epoch"}]

    def _share_of_step(self) -> Callable[[int], float]:
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = min(self.warmup_steps or 0, steps // 5)

        def share(step: int) -> float:
            return (step + 1) / warmup if step < warmup else self._cosine((step - warmup) / max(steps - warmup, 1))

        return share

    def _cosine(self, share: float) -> float:
        return self.final_rate + (1 - self.final_rate) * (1 + math.cos(math.pi * min(share, 1))) / 2


class _Quiet:
    """How many trainings are going on quietly, and what ends with the last of them."""

    lock, trainings, undo = threading.Lock(), 0, ExitStack()


@contextmanager
def quiet_training() -> Iterator[None]:
    """Keep Lightning's list of devices and its advice from the terminal.

    The settings belong to the process: where several threads train, the first sets them and the last sets them back.
    """
    with _Quiet.lock:
        if _Quiet.trainings == 0:
            _be_quiet(_Quiet.undo)
        _Quiet.trainings += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.trainings -= 1
            if _Quiet.trainings == 0:
                _Quiet.undo.close()


def _be_quiet(undo: ExitStack) -> None:
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    undo.callback(logger.setLevel, logger.level)
    logger.setLevel(logging.ERROR)
    undo.enter_context(warnings.catch_warnings())
    # windows are cut from memory, so workers would only cost
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
    warnings.filterwarnings("ignore", message=".*Total length of .* across ranks is zero.*")
    # Lightning's own use of PyTorch
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt, which a notebook survives; Lightning makes a SystemExit of it."""
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        raise stop.__context__ from None


@contextmanager
def keeping_best(module: L.LightningModule, monitor: str | None, *, in_root: bool = False) -> Iterator[ModelCheckpoint]:
    """Give a callback for the training in the block; when that ends without an error, the best weights are in the
    module. Ctrl-C is a KeyboardInterrupt, see `interruptible`.

    Args:
        module: what is trained.
        monitor: the metric whose least value tells the best epoch; None: the last one.
        in_root: whether the weights stay in the Trainer's `default_root_dir`; else they leave no files behind.
    """
    with TemporaryDirectory() as folder:
        best = ModelCheckpoint(None if in_root else folder, monitor=monitor, save_weights_only=True)
        with interruptible():
            yield best
        if best.best_model_path:  # none in a fast_dev_run, for one
            kept = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
            module.load_state_dict(kept["state_dict"])


def accelerator_of(asked: str = "auto") -> str:
    """What to ask Lightning's Trainer for: its "auto" takes a Mac's MPS, which has no float64 for the metrics."""
    by_itself = asked == "auto" and torch.backends.mps.is_available() and not torch.cuda.is_available()
    return "cpu" if by_itself else asked


def best_device(accelerator: str = "auto") -> torch.device:
    """Where models are used outside of a Trainer: a GPU of CUDA where training would take one, else the CPU."""
    return torch.device("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")
