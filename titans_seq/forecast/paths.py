"""Sample paths whose marginals are the forecast's quantiles and whose steps depend on each other.

    z_1 ~ N(0, 1),    z_h = r z_{h-1} + sqrt(1 - r^2) e_h         a stationary AR(1): every z_h is standard normal
    y_h = Q_h(Phi(z_h))                                         Q_h: the quantile function of step h

N series, S samples, H horizon, P levels, W windows. The forecast says nothing of how steps depend on each other, so the
one number r is measured on the calibration windows: the correlation of the normal scores of the errors of neighbouring
steps. Where it is unknown, steps are independent. Series are independent.
"""

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, rankdata

# intervals whose bounds the quantile function goes through
KNOTS = (*map(float, range(10, 100, 10)), 95.0, 99.0, 99.9)
FEW = 30  # pairs of neighbouring steps: fewer say nothing of a correlation
MOST = 0.99


def error_correlation(errors: Float[np.ndarray, "W H"]) -> float | None:
    """Correlation of neighbouring steps' errors, each step's ranks over the windows taken as normal scores; None where
    too few are known.
    """
    with np.errstate(invalid="ignore"):
        ranks = rankdata(errors, axis=0, nan_policy="omit")
    scores = norm.ppf((ranks - 0.5) / np.maximum(1, (~np.isnan(errors)).sum(axis=0)))
    one, next_one = scores[:, :-1].ravel(), scores[:, 1:].ravel()
    both = ~np.isnan(one) & ~np.isnan(next_one)
    if both.sum() < FEW:
        return None
    one, next_one = one[both], next_one[both]
    size = np.sqrt((one**2).sum() * (next_one**2).sum())
    return float(np.clip((one * next_one).sum() / size, -MOST, MOST)) if size > 0 else None


def sample_paths(
    bounds: Float[np.ndarray, "N H P 2"],
    levels: list[float],
    correlation: float | None,
    samples: int,
    random: np.random.Generator,
) -> Float[np.ndarray, "N S H"]:
    """Paths through these intervals.

    Args:
        bounds: lower and upper bounds; infinite ones are passed over.
        levels: percentages, ascending.
        correlation: r; None: independent steps.
        samples: S.
        random: what is drawn from.

    Returns:
        Paths. Between bounds values are linear in the normal score, and so they go on beyond the last ones.
    """
    size, horizon = bounds.shape[:2]
    finite = np.isfinite(bounds) | np.isnan(bounds)  # NaN: a series without any value
    kept = finite.all(axis=(0, 1, 3))
    if not kept.any():
        raise ValueError("all intervals are infinite, so there is nothing to draw from; give more validation rows")
    share = np.array(levels)[kept] / 200
    knots = norm.ppf(np.concatenate([0.5 - share[::-1], 0.5 + share]))
    values = np.concatenate([bounds[:, :, kept, 0][..., ::-1], bounds[:, :, kept, 1]], axis=-1)  # [N, H, 2 P]
    scores = _normal_scores((size, samples, horizon), correlation or 0.0, random)
    at = np.clip(np.searchsorted(knots, scores), 1, len(knots) - 1)
    series, step = np.arange(size)[:, None, None], np.arange(horizon)
    low, high = values[series, step, at - 1], values[series, step, at]
    return low + (high - low) * (scores - knots[at - 1]) / (knots[at] - knots[at - 1])


def _normal_scores(shape: tuple[int, int, int], correlation: float, random: np.random.Generator) -> np.ndarray:
    scores = random.standard_normal(shape)
    for step in range(1, shape[-1]):
        new = np.sqrt(1 - correlation**2) * scores[..., step]
        scores[..., step] = correlation * scores[..., step - 1] + new
    return scores
