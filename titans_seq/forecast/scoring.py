"""A fitted forecaster on the windows of its data, beside the baselines.

B samples, P levels, H horizon.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from rich.progress import track

from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.table_data import ForecastDataModule
from titans_seq.datamodules.forecast.windows import Anchors, Windows
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.inference import thinned
from titans_seq.forecast.scores import LEVELS, Scores, Season

HELD = 2**22  # numbers of the forecasts that are held at a time
LONG = 200_000  # steps of windows, from which on progress is shown


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores on the windows of a split, the better baseline on the validation windows, and the season."""

    scores: Scores
    baseline: str
    season: Season


def score(
    fitted: FittedForecaster,
    data: ForecastDataModule,
    *,
    split: str = "test",
    season: int | None = None,
    progress: bool = False,
) -> Scored:
    """Measure a forecaster whose intervals are calibrated on all windows of a split.

    Args:
        fitted: the forecaster.
        data: set up, with the scales that the network was trained on.
        split: "val" or "test".
        season: rows; None guesses them from the step.
        progress: whether to draw a bar.
    """
    windows, validation = data.windows(split), data.windows("val")
    found = Season.of(data.panel.freq, _rows_before(validation.anchors), season)
    history = data.protocol.learned(data.panel)
    scores = Scores(data.panel, _moments(data, history), history, data.horizon, found.rows)
    baseline = scores.calibrate(thinned(validation).anchors)
    for part, points, bounds in forecasts_on(fitted, data, windows, LEVELS, progress=progress):
        scores.add(part.anchors, points, bounds)
    return Scored(scores, baseline, found)


def forecasts_on(
    fitted: FittedForecaster,
    data: ForecastDataModule,
    windows: Windows,
    levels: Sequence[float],
    *,
    progress: bool = False,
) -> Iterator[tuple[Windows, Float[np.ndarray, "B H"], Float[np.ndarray, "B H P 2"]]]:
    """Some windows at a time, with the points and bounds of their forecasts in the units of the data."""
    steps = windows.horizon * windows.anchors.series.shape[1]
    each = max(1, HELD // (steps * (1 + 2 * len(levels))))
    short = len(windows) * steps < LONG
    begins = range(0, len(windows), each)
    for begin in track(begins, "testing", disable=not progress or short, transient=True):
        part = windows.at(windows.anchors.take(np.arange(begin, min(begin + each, len(windows)))))
        yield part, *fitted.on(part, data.scaling, levels)


def _rows_before(anchors: Anchors) -> int:
    """How many rows come before the first window of a series, where they are most."""
    return int(pd.Series(anchors.first).groupby(anchors.series[:, 0]).min().max())


def _moments(data: ForecastDataModule, history: Panel) -> Float[np.ndarray, "N 2"]:
    """Mean and deviation of the training rows of each series, in the units of the data; NaN without any."""
    plain = data.scaling.transform is None
    scaling = data.scaling if plain else PanelScaling.fit(history, calendar=False)
    return scaling.of_target(data.panel)
