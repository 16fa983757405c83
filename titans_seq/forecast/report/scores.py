"""What a report measures: a forecaster beside two naive ones on the same windows, and how often its intervals hold the
truth.

Only sums are kept, so that memory does not grow with the number of windows, but for one number of each.

B batch, H horizon, C channels, P levels, T rows, W windows.
"""

from dataclasses import dataclass, field

import numpy as np
from gluonts.time_feature import get_seasonality
from gluonts.time_feature.seasonality import DEFAULT_SEASONALITIES
from jaxtyping import Bool, Float, Int

MODEL, NAIVE, SEASONAL = "model", "last value", "seasonal naive"
# GluonTS counts no season in days; what is measured daily mostly has a week
SEASONS = DEFAULT_SEASONALITIES | {"D": 7}


@dataclass(frozen=True)
class Season:
    """Rows of a season, None where there is no seasonal naive, and in words where it comes from."""

    rows: int | None
    words: str

    @classmethod
    def of(cls, freq: str | None, before: int, asked: int | None = None) -> "Season":
        """The season that was asked for, or guessed from a step of pandas's ("h": 24 rows, "15min": 96).

        before: rows before the first validation window, which must hold it.
        """
        rows = asked or (1 if freq is None else get_seasonality(freq, SEASONS))
        known = "as asked" if asked else f"guessed from the step {freq}"
        if rows > before:
            words = f"a season has {rows:,} rows, {known}, and {before:,} come before the first validation window"
            return cls(None, f"No seasonal naive: {words}")
        if rows == 1 and not asked:
            step = "the series has no usual step" if freq is None else f"the step {freq} tells of no season"
            return cls(None, f"No seasonal naive: {step}; give one by --season")
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
        squared, absolute: [H, C] over all windows so far.
        each: MSE of every window, batch by batch.
    """

    squared: Float[np.ndarray, "H C"]
    absolute: Float[np.ndarray, "H C"]
    windows: int = 0
    each: list[Float[np.ndarray, " B"]] = field(default_factory=list)

    @classmethod
    def none(cls, horizon: int, channels: int) -> "Errors":
        return cls(np.zeros((horizon, channels)), np.zeros((horizon, channels)))

    def add(self, error: Float[np.ndarray, "B H C"]) -> None:
        squared = error**2
        self.squared += squared.sum(axis=0)
        self.absolute += np.abs(error).sum(axis=0)
        self.windows += len(error)
        self.each.append(squared.mean(axis=(1, 2)))

    def mean(self, measure: str) -> Float[np.ndarray, "H C"]:
        """ "MSE" or "MAE" by step and channel; every element of the windows counts the same, so its mean is that of
        all.
        """
        return {"MSE": self.squared, "MAE": self.absolute}[measure] / self.windows


class Scores:
    """The forecaster, the last value and, with a season, the last season, over the windows of the test part.

    Args:
        values: the series as the windows hold it.
        season: rows; None, or more than there are before the first window: no seasonal naive.
        margin: half widths of the intervals around the forecast; one level per row of `inside`.
    """

    def __init__(
        self,
        values: Float[np.ndarray, "T C"],
        horizon: int,
        season: int | None,
        margin: Float[np.ndarray, "P H C"],
    ) -> None:
        self.values, self.horizon, self.margin = values, horizon, margin
        self.seasons = {NAIVE: 1} | ({} if season is None else {SEASONAL: season})
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
            self.errors[name].add(seasonal_naive(self.values, first, self.horizon, season) - truth)
        for inside, margin in zip(self.inside, self.margin, strict=True):
            inside += _within(error, margin).sum(axis=0)

    def total(self, name: str, measure: str) -> float:
        return float(self.errors[name].mean(measure).mean())

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
        """Share of the values of each channel that lie inside of the interval."""
        return self.inside.mean(axis=1) / self.errors[MODEL].windows

    @property
    def each_window(self) -> Float[np.ndarray, " W"]:
        """The model's MSE of every window, in the order they came."""
        return np.concatenate(self.errors[MODEL].each)


def verdict(level: float, coverage: float) -> str:
    """ "too narrow" where more than one and a half times as many values lie outside of an interval as its level allows,
    "too wide" where less than half as many do, else "".
    """
    outside = (1 - coverage) / (1 - level / 100)
    return "too narrow" if outside > 1.5 else "too wide" if outside < 0.5 else ""


def _within(error: Float[np.ndarray, "B H C"], margin: Float[np.ndarray, "H C"]) -> Bool[np.ndarray, "B H C"]:
    return np.abs(error) <= margin
