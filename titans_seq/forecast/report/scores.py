"""What a report measures: a forecaster beside two baselines on the same windows, and how often its intervals hold the
truth.

Missing values are NaN and count nowhere. Only sums are kept, so that memory does not grow with the number of windows,
but for one number of each.

B batch, H horizon, C channels, P levels, T rows, W windows.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from gluonts.time_feature import get_seasonality
from gluonts.time_feature.seasonality import DEFAULT_SEASONALITIES
from jaxtyping import Float, Int

from titans_seq.datamodules.forecast.calendar import Step, alias, step_text
from titans_seq.forecast import conformal

MODEL, NAIVE, SEASONAL = "model", "last value", "seasonal naive"
LEVELS = [80.0, 95.0]  # of the intervals
# GluonTS counts no season in days; what is measured daily mostly has a week
SEASONS = DEFAULT_SEASONALITIES | {"D": 7, "C": 5}


@dataclass(frozen=True)
class Season:
    """Rows of a season, None where there is no seasonal naive, and in words where it comes from."""

    rows: int | None
    words: str

    @classmethod
    def of(cls, step: Step, before: int, asked: int | None = None) -> "Season":
        """The season that was asked for, or guessed from the step (an hour: 24 rows, 15 minutes: 96).

        Args:
            step: of the series.
            before: rows before the first validation window, which must hold the season.
            asked: rows.
        """
        rows = asked or (1 if isinstance(step, int) else get_seasonality(alias(step), SEASONS))
        known = "as asked" if asked else f"guessed from {step_text(step)}"
        if rows > before:
            words = f"a season has {rows:,} rows, {known}, and {before:,} come before the first validation window"
            return cls(None, f"No seasonal naive: {words}")
        if rows == 1 and not asked:
            return cls(None, f"No seasonal naive: {step_text(step)} has no usual season; give one by --season")
        return cls(rows, f"Season of {rows:,} rows, {known}")


def seasonal_naive(
    values: Float[np.ndarray, "T C"], first: Int[np.ndarray, " B"], horizon: int, season: int
) -> Float[np.ndarray, "B H C"]:
    """The season before the rows `first`, repeated to the horizon; a season of 1 repeats the last value.

    Raises:
        ValueError: a window begins within the first season.
    """
    if first.min() < season:
        raise ValueError(f"first must be at least season {season}; got {first.min()}")
    return values[first[:, None] - season + np.arange(horizon) % season]


@dataclass
class Errors:
    """Sums of squared and absolute errors, in float64.

    Args:
        squared: over all windows so far.
        absolute: the same.
        count: of observed values.
        each: MSE of every window, batch by batch.
    """

    squared: Float[np.ndarray, "H C"]
    absolute: Float[np.ndarray, "H C"]
    count: Int[np.ndarray, "H C"]
    each: list[Float[np.ndarray, " B"]] = field(default_factory=list)

    @classmethod
    def none(cls, horizon: int, channels: int) -> "Errors":
        shape = horizon, channels
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64))

    def add(self, error: Float[np.ndarray, "B H C"]) -> None:
        seen = ~np.isnan(error)
        error = np.where(seen, error, 0.0)
        self.squared += (error**2).sum(axis=0)
        self.absolute += np.abs(error).sum(axis=0)
        self.count += seen.sum(axis=0)
        self.each.append(_share((error**2).sum(axis=(1, 2)), seen.sum(axis=(1, 2))))

    def mean(self, measure: str, axis: int | None = None) -> Float[np.ndarray, " *K"]:
        """ "MSE" or "MAE" of all observed values; axis 1: by step, 0: by channel."""
        total = {"MSE": self.squared, "MAE": self.absolute}[measure]
        return _share(total.sum(axis=axis), self.count.sum(axis=axis))


class Scores:
    """The forecaster, the last value and, with a season, the last season, over the windows of the test split.

    Args:
        values: the series, standardised.
        horizon: H.
        season: rows; None: no seasonal naive.
        margin: half widths of the intervals around the forecast; one level per row of `inside`.
    """

    def __init__(
        self,
        values: Float[np.ndarray, "T C"],
        horizon: int,
        season: int | None,
        margin: Float[np.ndarray, "P H C"],
    ) -> None:
        self.horizon, self.margin = horizon, margin
        self.seasons = {NAIVE: 1} | ({} if season is None else {SEASONAL: season})
        self.values = {name: _filled(values, season) for name, season in self.seasons.items()}
        self.errors = {name: Errors.none(horizon, values.shape[1]) for name in (MODEL, *self.seasons)}
        self.inside = np.zeros(margin.shape, dtype=np.int64)

    def add(
        self,
        first: Int[np.ndarray, " B"],
        forecast: Float[np.ndarray, "B H C"],
        truth: Float[np.ndarray, "B H C"],
    ) -> None:
        """Count windows by their first target rows; everything standardised."""
        truth = truth.astype(np.float64)
        error = forecast.astype(np.float64) - truth
        self.errors[MODEL].add(error)
        for name, season in self.seasons.items():
            self.errors[name].add(seasonal_naive(self.values[name], first, self.horizon, season) - truth)
        for inside, margin in zip(self.inside, self.margin, strict=True):
            inside += (np.abs(error) <= margin).sum(axis=0)

    def total(self, name: str, measure: str) -> float:
        return float(self.errors[name].mean(measure))

    def change(self, name: str, measure: str) -> float:
        """The model's error against that of a baseline, as a share of that: negative where the model is better."""
        other = self.total(name, measure)
        return self.total(MODEL, measure) / other - 1 if other > 0 else float("nan")

    @property
    def baseline(self) -> str:
        """The baseline with the lower MSE."""
        return min(self.seasons, key=lambda name: self.total(name, "MSE"))

    @property
    def coverage(self) -> Float[np.ndarray, "P C"]:
        """Share of the values of each channel that lie inside of the interval; NaN without a value or an interval."""
        share = _share(self.inside.sum(axis=1), self.errors[MODEL].count.sum(axis=0))
        return np.where(np.isfinite(self.margin).all(axis=1), share, np.nan)

    @property
    def windows(self) -> int:
        return len(self.each_window)

    @property
    def each_window(self) -> Float[np.ndarray, " W"]:
        """The model's MSE of every window, in the order they came."""
        return np.concatenate(self.errors[MODEL].each)


def margins(errors: Float[np.ndarray, "W H C"]) -> Float[np.ndarray, "P H C"]:
    """Half widths at LEVELS of each step and channel, from the errors of the validation windows, NaN where missing."""
    scores = np.moveaxis(np.abs(errors), -1, 0)
    return np.stack([np.stack([conformal.margins(s, p / 100) for s in scores], axis=-1) for p in LEVELS])


def verdict(level: float, coverage: float) -> str:
    """ "too narrow" where more than one and a half times as many values lie outside of an interval as its level allows,
    "too wide" where less than half as many do, else "".
    """
    outside = (1 - coverage) / (1 - level / 100)
    return "too narrow" if outside > 1.5 else "too wide" if outside < 0.5 else ""


def _filled(values: Float[np.ndarray, "T C"], season: int) -> Float[np.ndarray, "T C"]:
    """What a baseline takes for a missing value: that of an earlier season, else the last one, else the mean."""
    table = pd.DataFrame(values)
    earlier = table.groupby(np.arange(len(table)) % season).ffill()
    return earlier.fillna(table.ffill()).fillna(0.0).to_numpy()


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where there is nothing."""
    with np.errstate(invalid="ignore"):
        return part / whole
