"""Training of DNA networks with Lightning: language models on bases, classifiers on labels, by one module.

B batch, T time, N classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from titans_seq.blocks import ModelState, continued
from titans_seq.datamodules.genomics.alphabet import FIRST_BASE, KNOWN, MASK, START
from titans_seq.genomics.model import DNALanguageModel, base_loss, reverse_complement
from titans_seq.training import TrainedModule

Batch = dict[str, Tensor]
MASKED_SHARE = 0.15  # of the bases; 8 of 10 become MASK, 1 any base, 1 stays: BERT's recipe
NATS_PER_BIT = 0.6931471805599453
CHANCE_BITS = 2.0  # per base
CLASS_METRICS = ("mcc", "accuracy", "auroc", "f1")


class DNAModule(TrainedModule):
    """Loss, metrics and optimiser around a `DNALanguageModel` or a classifier `(tokens, mask) -> logits [B, N]`.

    Batches are dictionaries with `tokens` [B, T], `mask` [B, T] where something is padded and, for a classifier,
    `label` [B]. With `carried` [B] the rows of a next-base model's training batch for which it is True start from the
    state that the batch before left (truncated back-propagation: no gradient from one batch to the one before). The
    data then choose the strand, not `augment`.

    Logged per epoch: of a language model, in bits per base, `train_loss`, `val_bits` and `test_bits` (2 is chance; of a
    masked model over 15 % of the bases, all of them hidden and the same ones in every epoch); of a classifier
    `train_loss` in nats, and `val_` and `test_` with `mcc`, `accuracy`, `auroc` (mean of one class against the rest)
    and `f1` (mean over classes).

    Args:
        network: What is trained.
        monitor: The metric whose best epoch is kept. None: val_bits of a language model, val_mcc of a classifier.
        augment: Read every training sequence from either strand by chance.
        rc: "average": evaluation takes the mean of the probabilities (or of the bits per base) of both strands.
        learning_rate: Of AdamW, after the warm-up.
        weight_decay: Of AdamW.
        final_rate: Share of the rate that is left at the end of a cosine over the training.
        warmup_steps: Steps in which the rate grows to `learning_rate`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        monitor: str | None = None,
        augment: bool = True,
        rc: str = "none",
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-2,
        final_rate: float = 0.02,
        warmup_steps: int = 100,
    ) -> None:
        super().__init__(
            network,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            final_rate=final_rate,
            warmup_steps=warmup_steps,
        )
        if rc not in ("none", "average"):
            raise ValueError(f"rc must be none or average; got {rc!r}")
        self.augment, self.rc = augment, rc
        self._stream: tuple[Tensor | None, ModelState | None] = None, None  # the last token of each row, and its state
        names = ("bits",) if isinstance(network, DNALanguageModel) else CLASS_METRICS
        self.shown = ("train_loss", *(f"val_{name}" for name in names))
        self.monitor = monitor or self.shown[1]
        if self.monitor not in self.shown[1:]:
            raise ValueError(f"monitor must be one of {', '.join(self.shown[1:])}; got {monitor!r}")
        self.mode = "min" if self.monitor == "val_bits" else "max"
        for stage in ("val", "test"):
            self.add_module(f"{stage}_metrics", MetricCollection(self._make_metrics(), prefix=f"{stage}_"))

    def _make_metrics(self) -> dict[str, Any]:
        if isinstance(self.network, DNALanguageModel):
            return {"bits": MeanMetric().set_dtype(torch.float64)}
        classes: int = len(self.network.class_names)  # type: ignore[arg-type]
        return {
            "mcc": _MCC(classes),
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "auroc": _PresentAUROC(classes),
            "f1": MulticlassF1Score(classes),
        }

    def forward(self, batch: Batch) -> Float[Tensor, "B N"]:
        """Probabilities of the classes, of one strand or of both by `rc`."""
        tokens, mask = batch["tokens"], batch.get("mask")
        probabilities = self.network(tokens, mask=mask).softmax(dim=-1)
        if self.rc == "average":
            other = self.network(reverse_complement(tokens, _real(tokens, mask)), mask=mask).softmax(dim=-1)
            probabilities = (probabilities + other) / 2
        return probabilities

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        tokens, mask = batch["tokens"], batch.get("mask")
        if self.augment and "carried" not in batch:
            turned = reverse_complement(tokens, _real(tokens, mask))
            tokens = torch.where(torch.rand(len(tokens), 1, device=tokens.device) < 0.5, turned, tokens)
        if isinstance(self.network, DNALanguageModel):
            if "carried" in batch:
                total, count = self._stream_loss(self.network, batch)
            else:
                total, count = self._base_loss(self.network, tokens, mask, None)
            loss, weight = total / count.clamp(min=1), int(count)
            logged = loss / NATS_PER_BIT
        else:
            logged = loss = F.cross_entropy(self.network(tokens, mask=mask), batch["label"])
            weight = len(tokens)
        self.log_training(logged, weight)
        return loss

    def on_train_epoch_start(self) -> None:
        self._stream = None, None

    def _stream_loss(self, network: DNALanguageModel, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of a batch whose rows continue those of the batch before; keeps their state for the next."""
        tokens, carried = batch["tokens"], batch["carried"]
        real = _real(tokens, batch.get("mask"))
        previous, state = self._stream
        state = continued(state, carried, lambda: network(tokens[:, :0])[1])
        previous = None if previous is None else torch.where(carried, previous, START)
        logits, state = network(tokens, mask=batch.get("mask"), previous=previous, state=state)
        last = tokens.gather(1, real.sum(dim=1, keepdim=True) - 1)[:, 0]
        self._stream = last, state.detach()
        return base_loss(logits, tokens)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score("val", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._score("test", batch, batch_idx)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities [B, N]."""
        return self(batch)

    def _score(self, stage: str, batch: Batch, batch_idx: int) -> None:
        metrics: MetricCollection = getattr(self, f"{stage}_metrics")
        if isinstance(self.network, DNALanguageModel):
            for turned in (False, True) if self.rc == "average" else (False,):
                tokens, mask = batch["tokens"], batch.get("mask")
                tokens = reverse_complement(tokens, _real(tokens, mask)) if turned else tokens
                # the same bases are masked in every epoch and for every model
                random = torch.Generator().manual_seed(2 * batch_idx + turned)
                total, count = self._base_loss(self.network, tokens, mask, random)
                if count:
                    metrics.update(total.double() / count / NATS_PER_BIT, weight=count)
        else:
            metrics.update(self(batch), batch["label"])
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=stage == "val")

    def _base_loss(
        self, network: DNALanguageModel, tokens: Tensor, mask: Tensor | None, random: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        if not network.encoder.bidirectional:
            return base_loss(network(tokens, mask=mask)[0], tokens)
        hidden, chosen = mask_bases(tokens, random, corrupt=random is None)
        return base_loss(network(hidden, mask=mask)[0], tokens, chosen)


class _MCC(MulticlassConfusionMatrix):
    """Matthews' correlation of any number of classes; 0 for one answer to everything, as scikit-learn has it."""

    def compute(self) -> Tensor:
        matrix = self.confmat.double()
        truth, answer, right, rows = matrix.sum(dim=1), matrix.sum(dim=0), matrix.trace(), matrix.sum()
        square = (rows**2 - truth @ truth) * (rows**2 - answer @ answer)
        covariance = right * rows - truth @ answer
        return torch.where(square > 0, covariance / square.clamp(min=1).sqrt(), 0.0).float()


class _PresentAUROC(MulticlassAUROC):
    """Mean AUROC of one class against the rest, over classes that some but not all targets are; NaN if there is
    none.
    """

    def compute(self) -> Tensor:  # type: ignore[override]  # its parent is a curve
        probabilities, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        of_class = target[:, None] == torch.arange(self.num_classes, device=target.device)  # [S, N]
        present = [c for c in range(self.num_classes) if of_class[:, c].any() and not of_class[:, c].all()]
        values = [binary_auroc(probabilities[:, c], of_class[:, c].long()) for c in present]
        return torch.stack(values).mean() if values else torch.tensor(torch.nan, device=target.device)


def mask_bases(
    tokens: Integer[Tensor, "B T"], random: torch.Generator | None = None, *, corrupt: bool = True
) -> tuple[Integer[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Hide 15 % of A, C, G, T by MASK, and tell which.

    Args:
        random: on the CPU; None: the global one.
        corrupt: put any of the four bases in the place of a tenth of the chosen, and leave a tenth as they are: for
            training, so that a model looks at bases too. A score must not: it would show some of the answers.
    """
    chance, kind = (torch.rand(tokens.shape, generator=random).to(tokens.device) for _ in range(2))
    other = torch.randint(KNOWN, tokens.shape, generator=random).to(tokens) + FIRST_BASE
    known = (tokens >= FIRST_BASE) & (tokens < FIRST_BASE + KNOWN)
    chosen = known & (chance < MASKED_SHARE)
    kind = kind if corrupt else torch.zeros_like(kind)
    hidden = torch.where(chosen & (kind < 0.8), torch.full_like(tokens, MASK), tokens)
    return torch.where(chosen & (kind >= 0.9), other, hidden), chosen


def _real(tokens: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
