"""The floor under every DNA classifier: logistic regression on k-mer frequencies."""

import numpy as np
from jaxtyping import Float, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from titans_seq.genomics.alphabet import FIRST_BASE

BASES = 4  # windows that hold an N are not counted


def kmer_frequencies(tokens: UInt8[np.ndarray, " T"], k: int) -> Float[np.ndarray, " 4**k"]:
    """How often each of the 4^k words of ACGT starts in the sequence, divided by how many do; zeros if none does."""
    codes = tokens.astype(np.int64) - FIRST_BASE
    if len(codes) < k:
        return np.zeros(BASES**k)
    windows = np.lib.stride_tricks.sliding_window_view(codes, k)
    words = windows[((windows >= 0) & (windows < BASES)).all(axis=1)] @ BASES ** np.arange(k - 1, -1, -1)
    return np.bincount(words, minlength=BASES**k) / max(len(words), 1)


def kmer_classifier(k: int = 4) -> Pipeline:
    """A scikit-learn classifier of token sequences: frequencies times 4^k / 10, then logistic regression with C = 0.1."""
    features = FunctionTransformer(lambda rows: np.stack([kmer_frequencies(row, k) for row in rows]) * BASES**k / 10)
    return Pipeline([("frequencies", features), ("regression", LogisticRegression(C=0.1, max_iter=300))])
