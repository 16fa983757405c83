"""Standardisation: scikit-learn's scaler, fed and applied in blocks so that no second float64 copy is made."""

from collections.abc import Iterator

import numpy as np
import sklearn
import torch
from jaxtyping import Float
from sklearn.preprocessing import StandardScaler
from torch import Tensor

_BLOCK_VALUES = 2**18


def fit_scaler(values: Float[np.ndarray, "T C"]) -> StandardScaler:
    """Return the scaler (population deviation, ddof 0) of these rows, every row given."""
    scaler = StandardScaler()
    for rows in _blocks(values):
        scaler.partial_fit(values[rows])
    return scaler


def scaler_from(mean: Float[np.ndarray, " C"], scale: Float[np.ndarray, " C"]) -> StandardScaler:
    """Return a fitted scaler with these numbers."""
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = np.array(mean, dtype=np.float64), np.array(scale, dtype=np.float64)
    scaler.var_, scaler.n_features_in_ = scaler.scale_**2, len(scaler.mean_)
    return scaler


def standardise(values: Float[np.ndarray, "T C"], scaler: StandardScaler) -> Float[Tensor, "T C"]:
    """Return the standardised values as float32. A row of the result depends on that row alone."""
    scaled = torch.empty(values.shape, dtype=torch.float32)
    with sklearn.config_context(assume_finite=True):  # readers have checked it
        for rows in _blocks(values):
            scaled[rows] = torch.from_numpy(scaler.transform(values[rows]))
    return scaled


def _blocks(values: np.ndarray) -> Iterator[slice]:
    rows, channels = values.shape
    step = max(1, _BLOCK_VALUES // channels)
    return (slice(start, start + step) for start in range(0, rows, step))
