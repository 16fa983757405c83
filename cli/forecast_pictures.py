"""forecast.png and surprise.png of a run: a few series, in their units.

S series shown, L rows before the forecast, H horizon.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from titans_seq.cli.pictures import draw
from titans_seq.datamodules import ForecastDataModule
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.weights import without_weight
from titans_seq.forecast import SimbaForecaster
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.pictures import plot_forecast, plot_surprise
from titans_seq.forecast.stream import surprise_of


def windows_of_a_picture(data: ForecastDataModule) -> tuple[Panel, Int[np.ndarray, " S"]]:
    """The rows of the test window in the middle, of all series that have it, and where its horizon begins in each."""
    anchors = data.windows("test").anchors
    middle = len(anchors) // 2
    series, first = anchors.series[:, 0], anchors.first
    if data.panel.wide:
        series, first = anchors.series[middle], np.full(len(data.panel), first[middle])
    else:  # the same time for all
        times = data.panel.stamps(data.panel.offsets[series] + first)
        at_once = np.asarray(times == times[middle])
        series, first = series[at_once], first[at_once]
    chosen = without_weight(data.panel.take(series), data.sample_weight)
    which = alike(first, data.lookback)
    before = min(data.lookback, int(first[which].min()))
    rows = chosen.take(which).rows(first[which] - before, first[which] + data.horizon)
    return rows, np.full(len(which), before)


def alike(first: Int[np.ndarray, " S"], lookback: int) -> Int[np.ndarray, " M"]:
    """Series that can be drawn side by side: those with a whole lookback before this row, else the longest alone."""
    whole = np.flatnonzero(first >= lookback)
    return whole if len(whole) else np.array([int(np.argmax(first))])


def draw_forecast(
    fitted: FittedForecaster,
    name: str,
    shown: Panel,
    first: Int[np.ndarray, " S"],
    folder: Path,
    scaling: PanelScaling,
    levels: Sequence[float],
    steps: int | None = None,
) -> list[Path]:
    """Draw forecast.png, and surprise.png where there is a memory.

    Args:
        fitted: the forecaster.
        name: of the data.
        shown: series of the same time stamps; what is not known yet is NaN.
        first: the row of each at which the forecast begins.
        folder: of the pictures.
        scaling: of these series.
        levels: percentages of intervals.
        steps: to show; None: all of the horizon.
    """
    found = fitted.at(shown, first, scaling, levels)
    found = {name: values.reshape(len(shown), -1)[:, :steps].T for name, values in found.items()}
    shown = shown.until(fitted.network.horizon - (steps or fitted.network.horizon))
    intervals = {
        level: np.stack([found[f"{fitted.alias}-{side}-{level:g}"] for side in ("lo", "hi")]) for level in levels
    }
    seen, future = np.split(by_row(shown, shown.target), first[:1])
    columns, axis = [str(each) for each in shown.ids], shown.axis[: shown.lengths[0]]
    truth = None if np.isnan(future).all() else future
    title, path = f"{name}: {len(future)} steps ahead", folder / "forecast.png"
    made = draw(plot_forecast, seen, found[fitted.alias], truth, columns, axis, path, title=title, intervals=intervals)
    if has_surprise(fitted):
        past = shown.until(len(future))
        surprise = by_row(past, surprise_of(fitted.network, past, scaling))
        title, path = f"{name}: what surprised the memory", folder / "surprise.png"
        made += draw(plot_surprise, seen, surprise, columns, axis[: len(seen)], path, title=title)
    return made


def has_surprise(fitted: FittedForecaster) -> bool:
    """Tell whether there is one memory that can be surprised."""
    network = fitted.module.network
    return isinstance(network, SimbaForecaster) and network.has_memory and not fitted.others


def by_row(panel: Panel, values: np.ndarray) -> np.ndarray:
    """Values of all rows -> [T, C], NaN after the end of shorter series."""
    table = np.full((len(panel), int(panel.lengths.max())), np.nan)
    table[np.arange(table.shape[1]) < panel.lengths[:, None]] = values
    return table.T
