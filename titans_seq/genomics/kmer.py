"""The baseline of every DNA classifier: logistic regression on k-mer frequencies."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from titans_seq.datamodules.genomics.alphabet import FIRST_BASE, KNOWN


def kmer_frequencies(tokens: UInt8[np.ndarray, " T"], k: int) -> Float[np.ndarray, " 4**k"]:
    """How often each of the 4^k words of ACGT starts in the sequence, divided by how many do; zeros if none does.

    Words that hold an N are not counted.
    """
    codes = tokens.astype(np.int64) - FIRST_BASE
    if len(codes) < k:
        return np.zeros(KNOWN**k)
    windows = np.lib.stride_tricks.sliding_window_view(codes, k)
    words = windows[((windows >= 0) & (windows < KNOWN)).all(axis=1)] @ KNOWN ** np.arange(k - 1, -1, -1)
    return np.bincount(words, minlength=KNOWN**k) / max(len(words), 1)


class KmerClassifier(nn.Module):
    """Logits of classes [B, N]: linear in the k-mer frequencies times 4^k / 10. Fitted at once (`fit`), not by gradient
    steps.

    Args:
        class_names: N names.
        k: Length of the words, 1 to 8.
        inverse_penalty: C of scikit-learn's LogisticRegression.
    """

    def __init__(self, class_names: Sequence[str], *, k: int = 4, inverse_penalty: float = 0.1) -> None:
        super().__init__()
        if not 1 <= k <= 8:
            raise ValueError(f"k must be 1 to 8; got {k}")
        if not inverse_penalty > 0:
            raise ValueError(f"inverse_penalty must be positive; got {inverse_penalty}")
        self.class_names, self.k, self.inverse_penalty = tuple(class_names), k, inverse_penalty
        self.head = nn.Linear(KNOWN**k, len(self.class_names))

    def fit(self, sequences: Sequence[UInt8[np.ndarray, " _"]], labels: Int[np.ndarray, " S"]) -> None:
        """Set the weights by scikit-learn's solver, at most 300 iterations.

        Raises:
            ValueError: a class without a sequence.
        """
        missing = set(range(len(self.class_names))) - set(labels.tolist())
        if missing:
            raise ValueError(f"class {self.class_names[min(missing)]} has no sequence to fit")
        features = np.stack([self._features(sequence) for sequence in sequences])
        model = LogisticRegression(C=self.inverse_penalty, max_iter=300).fit(features, labels)
        weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
        if len(weight) == 1:  # two classes: the logit of the second against the first
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)

    def forward(
        self, tokens: Integer[Tensor, "B T"], *, mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B N"]:
        rows = tokens.cpu().numpy().astype(np.uint8)
        real = np.ones_like(rows, dtype=bool) if mask is None else mask.cpu().numpy()
        features = np.stack([self._features(row[kept]) for row, kept in zip(rows, real, strict=True)])
        return self.head(torch.from_numpy(features).to(self.head.weight))

    def _features(self, tokens: UInt8[np.ndarray, " T"]) -> Float[np.ndarray, " 4**k"]:
        return kmer_frequencies(tokens, self.k) * KNOWN**self.k / 10
