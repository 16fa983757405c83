"""Frames of sample paths of a forecaster.

N series, S samples, H horizon.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from jaxtyping import Float

from titans_seq.datamodules.common.errors import at_least
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.frames import empty_series, warn_of_empty
from titans_seq.forecast.outputs import PointOutput, learned_level
from titans_seq.forecast.paths import KNOTS, sample_paths


def draw_samples(
    fitted: FittedForecaster,
    samples: int,
    panels: Iterable[Panel] | None = None,
    future: pd.DataFrame | None = None,
    horizon: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Draw paths of a forecast; see `titans_seq.forecast.paths`.

    Args:
        fitted: the forecaster.
        samples: how many of each series.
        panels, future, horizon: as of `FittedForecaster.predict`.
        seed: of the draws.

    Returns:
        Long frame, also of wide panels: id, time, "sample" (from 0), and the path's value in the forecast's column.

    Raises:
        ValueError: the model has no intervals.
    """
    at_least(1, num_samples=samples)
    at_least(0, seed=seed)
    steps, knots, random = fitted.steps(horizon), _knots(fitted), np.random.default_rng(seed)
    parts, empty = [], []
    for past, scaling, state in fitted.histories(panels):
        empty += empty_series(past, scaling)
        ahead = fitted.ahead(past, future, steps)
        _, bounds = fitted.standardised(ahead, past.lengths, scaling, knots, state)
        drawn = sample_paths(bounds[:, :steps], knots, fitted.correlation, samples, random)
        values = scaling.samples(scaling.of_target(ahead), drawn.reshape(len(past), -1)).reshape(drawn.shape)
        parts.append(_frame(fitted, ahead, past.lengths, values))
    warn_of_empty(empty)
    return pd.concat(parts, ignore_index=True)


def _knots(fitted: FittedForecaster) -> list[float]:
    """Levels of the intervals that the paths go through."""
    output = fitted.module.output
    if fitted.conformal is None and isinstance(output, PointOutput):
        raise ValueError("a forecast of one value without conformal has no samples; train with another output")
    most = learned_level(output) if fitted.conformal is None else 100.0
    return [level for level in KNOTS if level <= most + 1e-9]


def _frame(
    fitted: FittedForecaster, panel: Panel, first: np.ndarray, values: Float[np.ndarray, "N S H"]
) -> pd.DataFrame:
    size, samples, steps = values.shape
    keys = fitted.frame(panel, first, {}, steps)
    rows = np.arange(size * steps).reshape(size, 1, steps).repeat(samples, axis=1).ravel()
    number = np.tile(np.repeat(np.arange(samples), steps), size)
    return keys.iloc[rows].reset_index(drop=True).assign(sample=number, **{fitted.alias: values.ravel()})
