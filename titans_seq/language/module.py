"""Training of language models with Lightning.

B batch, T time, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor
from torchmetrics import MeanMetric

from titans_seq.blocks import ModelState, continued
from titans_seq.datamodules.language.tokenizers import IGNORED
from titans_seq.language.model import LanguageModel
from titans_seq.training import TrainedModule, adamw

Batch = dict[str, Tensor]


class LanguageModule(TrainedModule):
    """Loss, metrics and optimiser around a `LanguageModel`.

    Batches are dictionaries with `tokens` [B, T] and `targets` [B, T], the token that follows each, IGNORED where it is
    not asked for. With `carried` [B] the rows of a training batch for which it is True start from the state that the
    batch before left (truncated back-propagation). Logged per epoch: `train_loss`, `val_loss` and `test_loss`, nats per
    token that is asked for; for tasks with answers also `val_` and `test_` with `accuracy`, the share of samples all of
    whose targets are the most likely tokens, and `token_accuracy`, the share of targets.

    Args:
        network: What is trained.
        answers: Log the accuracies, and keep the epoch with the best `val_token_accuracy`; else the one with the least
            `val_loss`.
        learning_rate: Of AdamW, after the warm-up.
        weight_decay: Of AdamW; only linear maps and the embedding decay.
        beta1: Of AdamW.
        beta2: Of AdamW.
        final_rate: Share of the rate that is left at the end of a cosine over the training.
        warmup_steps: Steps in which the rate grows to `learning_rate`.
    """

    def __init__(
        self,
        network: LanguageModel,
        *,
        answers: bool = False,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.1,
        beta1: float = 0.9,
        beta2: float = 0.99,
        final_rate: float = 0.1,
        warmup_steps: int = 100,
    ) -> None:
        super().__init__(
            network,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            final_rate=final_rate,
            warmup_steps=warmup_steps,
        )
        self.betas, self.answers = (beta1, beta2), answers
        self._state: ModelState | None = None
        names = ("loss", "accuracy", "token_accuracy") if answers else ("loss",)
        self.shown = ("train_loss", *(f"val_{name}" for name in names))
        self.monitor, self.mode = ("val_token_accuracy", "max") if answers else ("val_loss", "min")
        for stage in ("val", "test"):
            metrics: dict[str, Any] = {name: MeanMetric().set_dtype(torch.float64) for name in names}
            self.add_module(f"{stage}_metrics", torch.nn.ModuleDict(metrics))

    def make_optimizer(self) -> torch.optim.Optimizer:
        """AdamW; only the weights of linear maps and of the embedding decay."""
        groups: dict[bool, list[Tensor]] = {True: [], False: []}
        for name, parameter in self.named_parameters():
            # not persistent tokens, taps, and the initial memory: a deep memory of small weights learns slowly
            groups[name.endswith(".weight") and parameter.ndim == 2].append(parameter)
        return adamw(
            [
                {"params": groups[True], "weight_decay": self.weight_decay},
                {"params": groups[False], "weight_decay": 0.0},
            ],
            lr=self.learning_rate,
            betas=self.betas,
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self._carry_on(batch) if "carried" in batch else self.network(batch["tokens"])[0]
        total, count = token_loss(logits, batch["targets"])
        loss = total / count.clamp(min=1)
        self.log_training(loss, int(count))
        return loss

    def on_train_epoch_start(self) -> None:
        self._state = None

    def _carry_on(self, batch: Batch) -> Tensor:
        """Logits of a batch whose rows continue those of the batch before; keeps their state for the next."""
        state = continued(self._state, batch["carried"], lambda: self.network(batch["tokens"][:, :0])[1])
        logits, state = self.network(batch["tokens"], state=state)
        self._state = state.detach()
        return logits

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._score("test", batch)

    def _score(self, stage: str, batch: Batch) -> None:
        metrics = getattr(self, f"{stage}_metrics")
        logits = self.network(batch["tokens"])[0]
        total, count = token_loss(logits, batch["targets"])
        if count:
            metrics["loss"].update(total.double() / count, weight=count)
        if self.answers:
            asked = batch["targets"] != IGNORED
            right = (logits.argmax(dim=-1) == batch["targets"]) | ~asked
            metrics["accuracy"].update(right.all(dim=1).double())
            metrics["token_accuracy"].update(right[asked].double())
        for name, metric in metrics.items():
            self.log(f"{stage}_{name}", metric, on_step=False, on_epoch=True, prog_bar=stage == "val")


def token_loss(
    logits: Float[Tensor, "B T V"], targets: Integer[Tensor, "B T"]
) -> tuple[Float[Tensor, ""], Integer[Tensor, ""]]:
    """Sum of the cross-entropies in nats, and how many tokens it is over."""
    total = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return total, (targets != IGNORED).sum()
