"""Split conformal intervals over any forecast.

    score = max(low - y, y - high)        of every calibration window and step, in deviations of its series
    k     = the ceil((n + 1) p)-th smallest score of n
    interval = [low - k, high + k]

W windows, H horizon, P levels. A model of one value has low = high. Scores are not divided by the window's own
deviation: after a flat lookback that would be next to nothing, and one such window would widen all others without
bound. If windows were exchangeable, the interval would cover at least p of new ones; windows of a series follow one
another and overlap, so the coverage is to be measured.

Source: Vovk et al. 2005; Romano et al. 2019 (arXiv 1905.03222) for the scores.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Conformal:
    """How far intervals must be moved outwards, on the scale of the forecasts they were calibrated on.

    Args:
        levels: P percentages, ascending. margin: [P, H]; negative where the model's own intervals were too wide.
    """

    levels: list[float]
    margin: Float[np.ndarray, "P H"]

    @classmethod
    def fit(
        cls,
        target: Float[np.ndarray, "W H"],
        bounds: Float[np.ndarray, "W H P 2"],
        *,
        levels: list[float],
    ) -> "Conformal":
        """Calibrate on windows whose targets are known; NaN targets do not count.

        Each step of the horizon has a margin of its own where it has enough scores, else one margin counts for all
        steps. Where even these are too few for a level, its intervals are infinite, and a warning says so.
        """
        scores = np.maximum(bounds[..., 0] - target[..., None], target[..., None] - bounds[..., 1])
        margin = np.stack([_margins(scores[..., i], level / 100) for i, level in enumerate(levels)])
        lost = [level for level, row in zip(levels, margin, strict=True) if np.isinf(row).any()]
        if lost:
            warnings.warn(
                f"{int(np.isfinite(target).sum())} validation values are too few to calibrate an interval of "
                f"{lost[0]:g} %: "
                "it is infinite; give more validation rows or conformal=False",
                stacklevel=2,
            )
        return cls(levels, margin)

    def apply(
        self,
        middle: Float[np.ndarray, "W H"],
        bounds: Float[np.ndarray, "W H P 2"],
        levels: list[float],
    ) -> Float[np.ndarray, "W H P 2"]:
        """Move the bounds of these levels, at the most to the forecast `middle`; wider levels hold narrower ones."""
        margin = self.margin[[self.levels.index(level) for level in levels]].T  # [H, P]
        low, high = bounds[..., 0] - margin, bounds[..., 1] + margin
        # each level has its margin, and margins may cross where levels are close
        low = np.minimum.accumulate(np.minimum(low, middle[..., None]), axis=-1)
        high = np.maximum.accumulate(np.maximum(high, middle[..., None]), axis=-1)
        return np.stack([low, high], axis=-1)


def _margins(scores: Float[np.ndarray, "W H"], share: float) -> Float[np.ndarray, " H"]:
    each = np.array([_order_statistic(column, share) for column in scores.T])
    return each if np.isfinite(each).all() else np.full(len(each), _order_statistic(scores.ravel(), share))


def _order_statistic(scores: Float[np.ndarray, " n"], share: float) -> float:
    """The ceil((n + 1) share)-th smallest, infinite beyond the last."""
    scores = np.sort(scores[~np.isnan(scores)])
    rank = math.ceil((len(scores) + 1) * share - 1e-9)
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf
