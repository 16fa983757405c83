"""The floor under every DNA classifier: logistic regression on k-mer frequencies."""

import numpy as np
from jaxtyping import Float, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from titans_seq.genomics.alphabet import FIRST_BASE, KNOWN


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


def kmer_classifier(k: int = 4) -> Pipeline:
    """A scikit-learn classifier of token sequences: frequencies times 4^k / 10, then logistic regression with C = 0.1."""
    features = FunctionTransformer(lambda rows: np.stack([kmer_frequencies(row, k) for row in rows]) * KNOWN**k / 10)
    return Pipeline([("frequencies", features), ("regression", LogisticRegression(C=0.1, max_iter=300))])
