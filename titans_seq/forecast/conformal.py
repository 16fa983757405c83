"""Split conformal intervals over any forecast.

    C(k) = [low - k, high + k]                                                     for k >= 0
    C(k) = [point - (1 + k)(point - low), point + (1 + k)(high - point)]           for -1 <= k < 0
    score = the least k with y in C(k)    of every calibration window and step
    k     = the ceil((n + 1) p)-th smallest score of n; the interval is C(k)

C grows with k, so y is in C(k) where its score is at most k, and coverage is that of the scores. Intervals that are too
narrow are widened in deviations of their series; those that are too wide are narrowed by a share of their width, which
never takes more than there is: after a quiet lookback, where the model's intervals are narrow, a constant would.

W windows, H horizon, P levels. A model of one value has low = high. Scores above 0 are not divided by the window's own
deviation: after a flat lookback that would be next to nothing, and one such window would widen all others without
bound. If windows were exchangeable, the interval would cover at least p of new ones; windows of a series follow one
another and overlap, so the coverage is to be measured.

Scores are kept as their order statistics at every whole level from 1 to 99, at 99.5 and 99.9, and at the levels that
were asked for. A level between two of these takes the interval of the next wider one: it covers at least what that one
does, so nothing is interpolated that could cover too little.

Source: Vovk et al. 2005; Romano et al. 2019 (arXiv 1905.03222) for the scores from 0 on; Gupta et al. 2019 (arXiv
1910.10562) for nested sets such as C.
"""

import math
import warnings
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gluonts.torch.distributions import Output
from jaxtyping import Float

from titans_seq.datamodules.common.errors import DataWarning
from titans_seq.forecast.outputs import PointOutput, require_levels

LEVEL = (80, 95)  # default intervals, in percent
GRID = (*map(float, range(1, 100)), 99.5, 99.9)  # calibrated whatever is asked


@dataclass(frozen=True, eq=False)
class Conformal:
    """How far intervals must be moved outwards, on the scale of the forecasts they were calibrated on.

    Args:
        levels: P percentages, ascending. margin: k [P, H]; negative where the model's own intervals were too wide.
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
        points: Float[np.ndarray, "W H"] | None = None,
    ) -> "Conformal":
        """Calibrate on windows whose targets are known; NaN targets do not count.

        Each step of the horizon has a margin of its own where it has enough scores, else one margin counts for all
        steps. Where even these are too few for a level, its intervals are infinite, and a warning says so.

        Args:
            target, bounds, levels, points: as of `margins`.
        """
        margin = margins(target, bounds, levels, points)
        lost = [level for level, row in zip(levels, margin, strict=True) if np.isinf(row).any()]
        if lost:
            warnings.warn(
                f"{int(np.isfinite(target).sum())} validation values are too few to calibrate intervals of "
                f"{' and '.join(f'{level:g}' for level in lost)} %: they are infinite; give more validation rows, or "
                "conformal=False in Python",
                DataWarning,
                stacklevel=2,
            )
        return cls(levels, margin)

    def joined(self, other: "Conformal") -> "Conformal":
        """These levels, and those of another calibration that are not among them."""
        more = [i for i, level in enumerate(other.levels) if level not in self.levels]
        levels = np.array([*self.levels, *(other.levels[i] for i in more)])
        order = np.argsort(levels)
        return Conformal(levels[order].tolist(), np.concatenate([self.margin, other.margin[more]])[order])

    def covering(self, levels: Sequence[float]) -> list[float]:
        """The calibrated level that stands for each of these: itself, or the next wider one.

        Raises:
            ValueError: there is none.
        """
        require_at_most(self.levels[-1], levels)
        return [self.levels[bisect_left(self.levels, level)] for level in levels]

    def apply(
        self,
        point: Float[np.ndarray, "W H"],
        bounds: Float[np.ndarray, "W H P 2"],
        levels: Sequence[float],
    ) -> Float[np.ndarray, "W H P 2"]:
        """Move the bounds of these levels; wider levels hold narrower ones, and all hold the point forecast."""
        margin = self.margin[[self.levels.index(level) for level in levels]].T  # [H, P]
        low, high = _around(point[..., None], bounds)
        share, added = np.clip(1 + margin, 0, 1), np.maximum(margin, 0)
        low, high = (point[..., None] + share * (side - point[..., None]) for side in (low, high))
        # each level has its margin, and margins may cross where levels are close
        low = np.minimum.accumulate(low - added, axis=-1)
        high = np.maximum.accumulate(high + added, axis=-1)
        return np.stack([low, high], axis=-1)


def _around(point: np.ndarray, bounds: Float[np.ndarray, "... 2"]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds that hold the point forecast."""
    return np.minimum(bounds[..., 0], point), np.maximum(bounds[..., 1], point)


def margins(
    target: Float[np.ndarray, "W H"],
    bounds: Float[np.ndarray, "W H P 2"],
    levels: Sequence[float],
    points: Float[np.ndarray, "W H"] | None = None,
) -> Float[np.ndarray, "P H"]:
    """The order statistic of each level and step or, where a step has too few scores, of all steps together; infinite
    where these are too few.

    Args:
        target: NaN where missing.
        bounds: the model's own intervals.
        levels: percentages.
        points: forecasts that intervals are narrowed towards; None: the middles of the intervals.
    """
    middle = bounds.mean(axis=-1) if points is None else np.broadcast_to(points[..., None], bounds.shape[:-1])
    scores = (_scores(target, middle[..., i], bounds[..., i, :]) for i in range(len(levels)))
    return np.stack([_margin(each, level / 100) for each, level in zip(scores, levels, strict=True)])


def _scores(
    target: Float[np.ndarray, "W H"], point: Float[np.ndarray, "W H"], bounds: Float[np.ndarray, "W H 2"]
) -> Float[np.ndarray, "W H"]:
    """The least k with the target in C(k)."""
    low, high = _around(point, bounds)
    beyond = np.maximum(low - target, target - high)
    error, width = np.abs(target - point), np.where(target < point, point - low, high - point)
    share = np.divide(error, width, out=0 * error, where=width > 0)  # 0: the target is the point itself
    return np.where(beyond > 0, beyond, share - 1)


def _margin(scores: Float[np.ndarray, "W H"], share: float) -> Float[np.ndarray, " H"]:
    """The order statistic of each step or, where one has too few scores, of all together; infinite where that has."""
    each = np.array([_order_statistic(column, share) for column in scores.T])
    return each if np.isfinite(each).all() else np.full(len(each), _order_statistic(scores.ravel(), share))


def _order_statistic(scores: Float[np.ndarray, " n"], share: float) -> float:
    """The ceil((n + 1) share)-th smallest, infinite beyond the last."""
    scores = np.sort(scores[~np.isnan(scores)])
    rank = math.ceil((len(scores) + 1) * share - 1e-9)
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


def chosen_levels(output: Output, calibrated: Sequence[float] | None, level: Sequence[float] | None) -> list[float]:
    """The asked percentages, ascending.

    Args:
        output: what a forecast is.
        calibrated: those that were asked of the conformal intervals; None without.
        level: `LEVEL` itself stands for what there is of it.

    Raises:
        ValueError: they cannot be had.
    """
    if level is None:
        return []
    if level is LEVEL:
        if calibrated is not None:
            level = [each for each in LEVEL if each in calibrated] or list(calibrated)
        elif isinstance(output, PointOutput):
            return []
    check_levels(level, "level")
    if calibrated is not None:  # margins carry levels beyond the learned quantiles
        require_at_most(max(GRID[-1], *calibrated), level)
    elif isinstance(output, PointOutput):
        raise ValueError("a forecast of one value without conformal has no intervals; ask with level=None")
    else:
        require_levels(output, level)
    return sorted(set(level))


def require_at_most(most: float, levels: Sequence[float]) -> None:
    """Raise a ValueError if a level is wider than the widest that was calibrated."""
    if levels and max(levels) > most:
        raise ValueError(f"level must be at most {most:g}, the widest that was calibrated (levels=); "
                         f"got {max(levels):g}")  # fmt: skip


def check_levels(levels: Any, name: str) -> None:
    """Raise a ValueError unless these are percentages."""
    if isinstance(levels, int | float | np.number) and not isinstance(levels, bool):
        raise ValueError(f"{name} must be a list of percentages: write ({levels:g},)")
    listed = isinstance(levels, Sequence | np.ndarray) and not isinstance(levels, str)
    if not listed or not all(isinstance(level, int | float | np.number) for level in levels):
        raise ValueError(f"{name} must be percentages such as (80, 95); got {levels!r}")
    wrong = [level for level in levels if not 1 <= level < 100]
    if wrong:
        share = f": write {100 * wrong[0]:g} for {wrong[0]:g}" if 0 < wrong[0] < 1 else ""
        raise ValueError(f"{name} must be percentages from 1 to below 100; got {wrong[0]:g}{share}")
