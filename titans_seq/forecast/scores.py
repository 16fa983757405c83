"""How good forecasts are: a forecaster beside two baselines on the same windows, each with conformal intervals.

Missing values count nowhere. Only sums are kept, so that memory does not grow with the number of windows, but for one
number of each. Everything is standardised by the training rows of its series, but for sMAPE and MASE.

MSE, MAE  means over all observed values
MASE      mean |y - f| / mean |y_t - y_{t-m}| over the training rows, per series, then the mean over series
sMAPE     mean 2 |y - f| / (|y| + |f|), in the units of the data, 0 where both are 0
CRPS      2 mean_q of the pinball loss, over the middle and the bounds of LEVELS
coverage  share of the observed values inside of the interval

B samples (a window of one series each), H horizon, N series, P levels, R rows of all series, W windows.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from gluonts.time_feature import get_seasonality
from gluonts.time_feature.seasonality import DEFAULT_SEASONALITIES
from jaxtyping import Float, Int
from scipy.sparse import csc_array

from titans_seq.datamodules.forecast.calendar import Step, alias, semi_monthly, step_text
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.seasons import of_business_hours
from titans_seq.datamodules.forecast.windows import Anchors
from titans_seq.forecast.conformal import margins

MODEL, NAIVE, SEASONAL = "model", "last value", "seasonal naive"
LEVELS = [50.0, 80.0, 90.0, 95.0]  # of the intervals
SHOWN = [80.0, 95.0]  # of LEVELS, in tables and pictures
# GluonTS counts no season in days or weeks; what is measured daily mostly has a week, weekly a year
SEASONS = DEFAULT_SEASONALITIES | {"D": 7, "C": 5, "W": 52}


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
            before: rows before the first validation window of the longest series, which must hold the season.
            asked: rows.
        """
        rows = asked or cls._guess(step)
        known = "as asked" if asked else f"guessed from {step_text(step)}"
        if rows > before:
            words = f"a season has {rows:,} rows, {known}, and {before:,} come before the first validation window"
            return cls(None, f"No seasonal naive: {words}")
        if rows == 1 and not asked:
            return cls(None, f"No seasonal naive: {step_text(step)} has no usual season; give one by --season")
        return cls(rows, f"Season of {rows:,} rows, {known}")

    @staticmethod
    def _guess(step: Step) -> int:
        if isinstance(step, int):
            return 1
        if isinstance(step, pd.offsets.BusinessHour):
            return of_business_hours(step).get("day", 1)
        return 24 if semi_monthly(step) else int(get_seasonality(alias(step), SEASONS))


class Naive:
    """The last season of each series, repeated to the horizon; a season of 1 repeats the last value.

    A missing value is filled with that of an earlier season, else with the last one, else with 0, the mean. Windows
    within the first season of their series repeat the last value.

    Args:
        values: standardised, NaN where missing.
        offsets: of the series.
        season: rows.
    """

    def __init__(self, values: Float[np.ndarray, " R"], offsets: Int[np.ndarray, " N1"], season: int) -> None:
        self.offsets, self.season = offsets, season
        self.values = _filled(values, offsets, season)

    def forecast(
        self, series: Int[np.ndarray, " B"], first: Int[np.ndarray, " B"], horizon: int
    ) -> Float[np.ndarray, "B H"]:
        """From the row `first` of each sample's series on."""
        season = np.where(first < self.season, 1, self.season)[:, None]
        rows = (self.offsets[series] + first)[:, None] - season + np.arange(horizon) % season
        return self.values[rows]


@dataclass
class Tally:
    """Sums over the windows of one forecaster, in float64.

    Args:
        squared, absolute: errors. count: of observed values.
        symmetric: of sMAPE. pinball: of CRPS. inside: of the intervals. width: of them.
        each: MSE of every window, batch by batch.
    """

    squared: Float[np.ndarray, "H N"]
    absolute: Float[np.ndarray, "H N"]
    count: Int[np.ndarray, "H N"]
    inside: Int[np.ndarray, "P N"]
    width: Float[np.ndarray, " P"]
    symmetric: float = 0.0
    pinball: float = 0.0
    each: list[Float[np.ndarray, " W"]] = field(default_factory=list)

    @classmethod
    def none(cls, horizon: int, series: int) -> "Tally":
        shape, levels = (horizon, series), len(LEVELS)
        whole = np.zeros((levels, series), dtype=np.int64)
        return cls(np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64), whole, np.zeros(levels))

    def mean(self, measure: str, axis: int | None = None) -> Float[np.ndarray, " *K"]:
        """ "MSE" or "MAE" of all observed values; axis 1: by step, 0: by series."""
        total = {"MSE": self.squared, "MAE": self.absolute}[measure]
        return _share(total.sum(axis=axis), self.count.sum(axis=axis))


class Scores:
    """The forecaster, the last value and, with a season, the last season, over the same windows.

    Args:
        panel: the series, with the windows' targets.
        scales: mean and deviation of the training rows of each series.
        history: the training rows, of the same series, for MASE.
        horizon: H.
        season: rows; None: no seasonal naive.
    """

    def __init__(
        self, panel: Panel, scales: Float[np.ndarray, "N 2"], history: Panel, horizon: int, season: int | None
    ) -> None:
        self.panel, self.scales, self.horizon = panel, scales, horizon
        self.seasons = {NAIVE: 1} | ({} if season is None else {SEASONAL: season})
        mean, scale = np.repeat(scales, panel.lengths, axis=0).T
        self.values = (panel.target - mean) / scale
        self.naives = {name: Naive(self.values, panel.offsets, rows) for name, rows in self.seasons.items()}
        self.margins: dict[str, Float[np.ndarray, "P H"]] = {}
        self.tallies = {name: Tally.none(horizon, len(panel)) for name in (MODEL, *self.seasons)}
        self.naive_error = _naive_error(history, panel, season or 1) / scales[:, 1]
        self.season = season

    def calibrate(self, anchors: Anchors) -> str:
        """Give the baselines' intervals their width, on validation windows; return the one with the lower MSE there."""
        series, first = _samples(anchors)
        truth = self._truth(series, first)
        errors = {}
        for name, naive in self.naives.items():
            found = naive.forecast(series, first, self.horizon)
            bounds = np.broadcast_to(found[..., None, None], (*found.shape, len(LEVELS), 2))
            self.margins[name] = margins(truth, bounds, LEVELS)
            errors[name] = float(np.nanmean((found - truth) ** 2))
        return min(errors, key=errors.__getitem__)

    def add(self, anchors: Anchors, points: Float[np.ndarray, "B H"], bounds: Float[np.ndarray, "B H P 2"]) -> None:
        """Count the forecasts of windows, in the units of the data; bounds of LEVELS."""
        series, first = _samples(anchors)
        truth = self._truth(series, first)
        mean, scale = (each[:, None] for each in self.scales[series].T)
        points, bounds = (points - mean) / scale, (bounds - mean[..., None, None]) / scale[..., None, None]
        self._count(MODEL, anchors, truth, points, bounds)
        for name, naive in self.naives.items():
            points = naive.forecast(series, first, self.horizon)
            margin = self.margins[name].T
            bounds = np.stack([points[..., None] - margin, points[..., None] + margin], axis=-1)
            self._count(name, anchors, truth, points, bounds)

    def _count(
        self,
        name: str,
        anchors: Anchors,
        truth: Float[np.ndarray, "B H"],
        points: Float[np.ndarray, "B H"],
        bounds: Float[np.ndarray, "B H P 2"],
    ) -> None:
        series, tally = anchors.series.ravel(), self.tallies[name]
        seen, error = ~np.isnan(truth), points - truth
        squared = np.where(seen, error**2, 0.0)
        tally.squared += _by_series(series, squared, len(self.panel))
        tally.absolute += _by_series(series, np.where(seen, np.abs(error), 0.0), len(self.panel))
        tally.count += _by_series(series, seen, len(self.panel)).astype(np.int64)
        known: Any = slice(None) if seen.all() else seen
        losses = [_pinball(0.5, points[known], truth[known])]
        for i, level in enumerate(LEVELS):
            low, high = bounds[..., i, 0], bounds[..., i, 1]
            inside = ((low <= truth) & (truth <= high)).sum(axis=1)
            tally.inside[i] += np.bincount(series, inside, len(self.panel)).astype(np.int64)
            width = (high[known] - low[known]).sum()
            tally.width[i] += width
            if np.isfinite(width):
                sides = (0.5 - level / 200, low), (0.5 + level / 200, high)
                losses += [_pinball(share, side[known], truth[known]) for share, side in sides]
        tally.pinball += 2 * float(np.mean(losses))
        tally.symmetric += self._symmetric(series, points, truth)
        each = squared.reshape(len(anchors), -1).sum(axis=1), seen.reshape(len(anchors), -1).sum(axis=1)
        tally.each.append(_share(*each))

    def _symmetric(self, series: np.ndarray, points: np.ndarray, truth: np.ndarray) -> float:
        mean, scale = (each[:, None] for each in self.scales[series].T)
        forecast, came = points * scale + mean, truth * scale + mean
        with np.errstate(invalid="ignore"):
            each = 2 * np.abs(forecast - came) / (np.abs(forecast) + np.abs(came))
        return float(np.nansum(each))  # 0 / 0 counts as 0

    def _truth(self, series: np.ndarray, first: np.ndarray) -> Float[np.ndarray, "B H"]:
        rows = first[:, None] + np.arange(self.horizon)
        inside = rows < self.panel.lengths[series][:, None]
        return np.where(inside, self.values[np.where(inside, self.panel.offsets[series][:, None] + rows, 0)], np.nan)

    # what came out ---------------------------------------------------------------------------------------------------

    def total(self, name: str, measure: str) -> float:
        """One of MSE, MAE, MASE, sMAPE, CRPS of a forecaster; NaN where nothing could be measured."""
        tally = self.tallies[name]
        if measure in ("MSE", "MAE"):
            return float(tally.mean(measure))
        if measure == "MASE":
            known = self.naive_error > 0
            scaled = tally.mean("MAE", axis=0)[known] / self.naive_error[known]
            return float(np.nanmean(scaled)) if np.isfinite(scaled).any() else float("nan")
        total = {"sMAPE": tally.symmetric, "CRPS": tally.pinball}[measure]
        return float(_share(np.array(total), tally.count.sum()))

    def coverage(self, name: str) -> Float[np.ndarray, " P"]:
        """Share of all observed values inside of the intervals; NaN where they are infinite."""
        tally = self.tallies[name]
        return np.where(np.isfinite(tally.width), _share(tally.inside.sum(axis=1), tally.count.sum()), np.nan)

    @property
    def coverage_by_series(self) -> Float[np.ndarray, "P N"]:
        """The same of the model, for each series; NaN without a value or an interval."""
        tally = self.tallies[MODEL]
        return np.where(np.isfinite(tally.width)[:, None], _share(tally.inside, tally.count.sum(axis=0)), np.nan)

    def width(self, name: str) -> Float[np.ndarray, " P"]:
        """Mean width of the intervals, standardised."""
        return _share(self.tallies[name].width, np.full(len(LEVELS), self.tallies[name].count.sum()))

    def change(self, name: str, measure: str) -> float:
        """The model's error against that of a baseline, as a share of that: negative where the model is better."""
        other = self.total(name, measure)
        return self.total(MODEL, measure) / other - 1 if other > 0 else float("nan")

    @property
    def windows(self) -> int:
        return len(self.each_window)

    @property
    def each_window(self) -> Float[np.ndarray, " W"]:
        """The model's MSE of every window, in the order they came."""
        return np.concatenate(self.tallies[MODEL].each)


MEASURES = ("MSE", "MAE", "MASE", "sMAPE", "CRPS")


def as_metrics(scores: Scores, baseline: str) -> dict[str, float | str | int]:
    """What metrics.json says beyond the errors: each measure of the model and of a baseline."""
    found: dict[str, float | str | int] = {"baseline": baseline, "season": scores.season or 1}
    for prefix, name in (("test", MODEL), ("baseline", baseline)):
        found |= {f"{prefix}_{measure.lower()}": scores.total(name, measure) for measure in MEASURES}
        coverage = dict(zip(LEVELS, scores.coverage(name).tolist(), strict=True))
        found |= {f"{prefix}_coverage_{level:g}": coverage[level] for level in SHOWN}
    return found


def as_table(scores: Scores) -> pd.DataFrame:
    """Every measure of every forecaster: of all series, then of each MSE, MAE, MASE and the model's coverage."""
    rows = []
    for name, tally in scores.tallies.items():
        coverage = {f"coverage_{level:g}": share for level, share in zip(LEVELS, scores.coverage(name), strict=True)}
        total = {measure.lower(): scores.total(name, measure) for measure in MEASURES}
        rows.append(pd.DataFrame([{"series": "all", "forecast": name} | total | coverage]))
        each = {"mse": tally.mean("MSE", axis=0), "mae": tally.mean("MAE", axis=0)}
        each["mase"] = _share(each["mae"], scores.naive_error)
        if name == MODEL:
            each |= {
                f"coverage_{level:g}": share for level, share in zip(LEVELS, scores.coverage_by_series, strict=True)
            }
        rows.append(pd.DataFrame({"series": scores.panel.ids, "forecast": name} | each))
    return pd.concat(rows, ignore_index=True)


def verdict(level: float, coverage: float) -> str:
    """ "too narrow" where more than one and a half times as many values lie outside of an interval as its level allows,
    "too wide" where less than half as many do, else "".
    """
    outside = (1 - coverage) / (1 - level / 100)
    return "too narrow" if outside > 1.5 else "too wide" if outside < 0.5 else ""


def _samples(anchors: Anchors) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " B"]]:
    """Series and first row of every sample."""
    series = anchors.series
    return series.ravel(), np.broadcast_to(anchors.first[:, None], series.shape).ravel()


def _by_series(series: Int[np.ndarray, " B"], values: np.ndarray, count: int) -> np.ndarray:
    """Sums [K, N] over the samples of each series of values [B, K]."""
    samples = len(series)
    chosen = csc_array((np.ones(samples), series, np.arange(samples + 1)), shape=(count, samples))
    return (chosen @ values).T


def _pinball(share: float, quantiles: np.ndarray, truth: np.ndarray) -> float:
    """Sum over values of the pinball loss: `share` of what the truth lies above, 1 - share of what it lies below."""
    above = truth - quantiles
    return float(share * above.sum() - np.minimum(above, 0).sum())


def _naive_error(history: Panel, panel: Panel, season: int) -> Float[np.ndarray, " N"]:
    """Mean |y_t - y_{t-m}| of the training rows of each series of a panel; NaN where there is none."""
    inside = np.arange(len(history.target)) - np.repeat(history.offsets[:-1], history.lengths)
    rows = np.flatnonzero(inside >= season)
    change = np.abs(history.target[rows] - history.target[rows - season])
    seen = ~np.isnan(change)
    series = history.series[rows][seen]
    total, count = (np.bincount(series, weights, len(history)) for weights in (change[seen], None))
    found = np.full(len(panel), np.nan)
    found[panel.ids.get_indexer(history.ids)] = _share(total, count)
    return found


def _filled(values: Float[np.ndarray, " R"], offsets: Int[np.ndarray, " N1"], season: int) -> Float[np.ndarray, " R"]:
    if not np.isnan(values).any():
        return values
    lengths = np.diff(offsets)
    series = np.repeat(np.arange(len(lengths)), lengths)
    phase = (np.arange(len(values)) - np.repeat(offsets[:-1], lengths)) % season
    column = pd.Series(values)
    earlier = column.groupby([series, phase]).ffill()
    return earlier.fillna(column.groupby(series).ffill()).fillna(0.0).to_numpy()


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """NaN where there is nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)
