"""Networks of runs and their quantiles, built without the commands under test.

B samples, L lookback, H horizon, Q quantiles.
"""

import math
from pathlib import Path

import numpy as np
import torch

from titans_seq.forecast import SimbaForecaster

QUANTILES = [0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975]
MIDDLE = 6


def network_of(run: Path) -> SimbaForecaster:
    """The network of a small run, lookback 16 and horizon 8, from its checkpoint alone."""
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    network = SimbaForecaster(16, 8, dim=8, blocks=1, heads=2, outputs=len(QUANTILES)).eval()
    network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})
    return network


def quantiles_of(network: SimbaForecaster, past: np.ndarray) -> np.ndarray:
    """Standardised quantiles [B, H, Q] after a lookback [B, L]: the middle one, and softplus steps away from it."""
    with torch.no_grad():
        raw, loc, scale = (each.double().numpy() for each in network(torch.tensor(past, dtype=torch.float32)))
    middle, step = raw[..., MIDDLE : MIDDLE + 1], np.logaddexp(0, raw)
    below = middle - np.flip(np.flip(step[..., :MIDDLE], -1).cumsum(-1), -1)
    found = np.concatenate([below, middle, middle + step[..., MIDDLE + 1 :].cumsum(-1)], axis=-1)
    return found * scale[..., None] + loc[..., None]


def bounds_of(quantiles: np.ndarray, level: float) -> np.ndarray:
    """The model's own interval [B, H, 2] of a level, between its quantiles."""
    places = [np.interp(0.5 + side * level / 200, QUANTILES, range(len(QUANTILES))) for side in (-1, 1)]
    below = [min(int(place + 1e-9), len(QUANTILES) - 2) for place in places]
    sides = [
        quantiles[..., i] * (1 - (place - i)) + quantiles[..., i + 1] * (place - i)
        for i, place in zip(below, places, strict=True)
    ]
    return np.stack(sides, axis=-1)


def margins_of(quantiles: np.ndarray, truth: np.ndarray, level: float) -> np.ndarray:
    """How far each step's interval is moved outwards to hold its share of these values [B, H]; with too few values for
    that, all steps as far.
    """
    bounds = bounds_of(quantiles, level)
    scores = np.maximum(bounds[..., 0] - truth, truth - bounds[..., 1])
    rank = math.ceil((len(scores) + 1) * level / 100)
    if rank <= len(scores):
        return np.sort(scores, axis=0)[rank - 1]
    rank = math.ceil((scores.size + 1) * level / 100)
    return np.full(scores.shape[1], np.sort(scores, axis=None)[rank - 1])


def intervals_of(quantiles: np.ndarray, margins: dict[float, np.ndarray]) -> dict[float, np.ndarray]:
    """The moved intervals [B, H, 2] of ascending levels: each holds the point forecast and the narrower ones."""
    low = high = quantiles[..., MIDDLE]
    found = {}
    for level, margin in margins.items():
        bounds = bounds_of(quantiles, level)
        low, high = np.minimum(low, bounds[..., 0] - margin), np.maximum(high, bounds[..., 1] + margin)
        found[level] = np.stack([low, high], axis=-1)
    return found
