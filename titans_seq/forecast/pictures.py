"""Pictures of a forecaster: its training, a forecast, and what surprised its memory.

L lookback, H horizon, C channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from titans_seq import pictures
from titans_seq.forecast.anomalies import Span
from titans_seq.pictures import new_figure, save

# also of the report; they differ for colour-blind readers too, and the first three show on white and on black
HISTORY, TRUTH, FORECAST, SURPRISE = "#8a949c", "#1f6fe5", pictures.RED, pictures.ORANGE
CURVES = (
    ("train_loss", "training loss (on its own scale)"),
    ("val_mse", "validation MSE"),
    ("val_mae", "validation MAE"),
)
MAX_CHANNELS = 4  # panels of a picture


def plot_training(history: Sequence[Mapping[str, float]], best_epoch: int, path: str | Path) -> Path:
    """Draw training loss and validation error over the epochs; see `titans_seq.pictures.plot_training`."""
    return pictures.plot_training(history, best_epoch, path, curves=CURVES, ylabel="standardised values")


def plot_forecast(
    past: Float[np.ndarray, "L C"],
    forecast: Float[np.ndarray, "H C"],
    truth: Float[np.ndarray, "H C"] | None,
    columns: Sequence[str],
    axis: pd.Index,
    path: str | Path,
    *,
    title: str,
    intervals: Mapping[float, Float[np.ndarray, "2 H C"]] | None = None,
) -> Path:
    """Draw history, forecast and, where known, truth of some channels; NaN is a gap.

    Args:
        past: the rows before the forecast.
        forecast: the point forecast.
        truth: what came, where it is known.
        columns: a name for each channel.
        axis: L + H entries, dates or row numbers.
        path: the file, a PNG.
        title: one line.
        intervals: level in percent -> lower and upper bounds; infinite ones are left out.
    """
    chosen = shown_channels(len(columns))
    figure = new_figure(len(chosen))
    panels = figure.subplots(len(chosen), sharex=True, squeeze=False)[:, 0]
    for axes, channel in zip(panels, chosen, strict=True):
        here = {level: bounds[:, :, channel] for level, bounds in (intervals or {}).items()}
        known = None if truth is None else truth[:, channel]
        _forecast(axes, axis, past[:, channel], forecast[:, channel], known, here)
        axes.set_ylabel(columns[channel])
    time_axis(panels[-1], axis)
    _head(figure, panels[0], title, len(columns), chosen)
    return save(figure, path)


@dataclass(frozen=True)
class SeriesForecast:
    """A series before its forecast, and the forecast: what a panel of a picture shows.

    Args:
        name: of the series.
        axis: L + H time stamps or numbers.
        past: [L] values.
        forecast: [H] points.
        truth: [H], NaN where unknown; None: nothing is known.
        intervals: level in percent -> lower and upper bounds [2, H].
    """

    name: str
    axis: pd.Index
    past: Float[np.ndarray, " L"]
    forecast: Float[np.ndarray, " H"]
    truth: Float[np.ndarray, " H"] | None
    intervals: Mapping[float, Float[np.ndarray, "2 H"]]


def draw_series(shown: Sequence[SeriesForecast], *, title: str, count: int) -> Figure:
    """Draw series with times of their own, one below the other.

    Args:
        shown: the series.
        title: one line.
        count: how many series there are in all.
    """
    figure = new_figure(len(shown), height=1.2 + 2.2 * len(shown))
    panels = figure.subplots(len(shown), squeeze=False)[:, 0]
    for axes, each in zip(panels, shown, strict=True):
        _forecast(axes, each.axis, each.past, each.forecast, each.truth, each.intervals)
        axes.set_ylabel(each.name)
        time_axis(axes, each.axis)
    _head(figure, panels[0], title, count, list(range(len(shown))))
    return figure


def _forecast(
    axes: Axes,
    axis: pd.Index,
    past: Float[np.ndarray, " L"],
    forecast: Float[np.ndarray, " H"],
    truth: Float[np.ndarray, " H"] | None,
    intervals: Mapping[float, Float[np.ndarray, "2 H"]],
) -> None:
    """One series: intervals, the widest first, then the lines."""
    lookback = len(past)
    joined = slice(lookback - 1, None)  # lines start at the last row seen, so that nothing gapes
    bands = sorted(intervals.items(), reverse=True)
    for (level, bounds), alpha in zip(bands, np.linspace(0.12, 0.28, len(bands)), strict=True):
        low, high = (np.concatenate([past[-1:], bound]) for bound in bounds)
        label = f"{level:g} % interval"
        axes.fill_between(axis[joined], low, high, color=FORECAST, alpha=alpha, linewidth=0, label=label)
    _line(axes, axis[:lookback], past, HISTORY, "history")
    for values, colour, label in ((truth, TRUTH, "truth"), (forecast, FORECAST, "forecast")):
        if values is not None:
            _line(axes, axis[joined], np.concatenate([past[-1:], values]), colour, label)
    axes.axvspan(axis[lookback - 1], axis[-1], color=FORECAST, alpha=0.05, linewidth=0)


def plot_surprise(
    past: Float[np.ndarray, "L C"],
    surprise: Float[np.ndarray, "L C"],
    columns: Sequence[str],
    axis: pd.Index,
    path: str | Path,
    *,
    title: str,
    marked: Sequence[Span] = (),
) -> Path:
    """Draw, for some channels, the surprise above the series it belongs to.

    Args:
        axis: L entries, dates or row numbers.
        marked: spans to shade.
    """
    chosen = shown_channels(len(columns))
    figure = new_figure(len(chosen), height=1.0 + 2.3 * len(chosen))
    ratios = [1, 2] * len(chosen)
    panels = figure.subplots(2 * len(chosen), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    top = float(np.nan_to_num(surprise[:, chosen]).max()) * 1.05 or 1.0  # one scale, so that channels can be compared
    for above, below, channel in zip(panels[::2], panels[1::2], chosen, strict=True):
        above.fill_between(axis, surprise[:, channel], color=SURPRISE, alpha=0.35, linewidth=0)
        above.plot(axis, surprise[:, channel], color=SURPRISE, label="surprise")
        above.set(ylabel="surprise", ylim=(0, top))
        above.spines["bottom"].set_visible(False)
        above.tick_params(axis="x", length=0)
        _line(below, axis, past[:, channel], HISTORY, "series")
        below.set_ylabel(columns[channel])
        for span in marked:
            if span.channel == channel:
                for axes in (above, below):
                    axes.axvspan(axis[span.begin], axis[span.end - 1], color=FORECAST, alpha=0.25, linewidth=1)
    time_axis(panels[-1], axis)
    _head(figure, panels[0], title, len(columns), chosen, handles=[panels[0].lines[0], panels[1].lines[0]])
    return save(figure, path)


def plot_importance(table: pd.DataFrame, path: str | Path, *, title: str) -> Path:
    """Draw how much the loss grows without each covariate, the most important first, with the deviation over draws."""
    table = table.sort_values("share")
    figure = new_figure(1, height=1.2 + 0.35 * len(table))
    axes = figure.subplots()
    names = [f"{name} ({kind})" for name, kind in zip(table["covariate"], table["kind"], strict=True)]
    spread = table["deviation"] * (table["share"] / table["increase"].where(table["increase"] != 0)).abs()
    axes.barh(names, 100 * table["share"], xerr=100 * spread.fillna(0.0), color=TRUTH, height=0.6)
    axes.set(xlabel="increase of the loss, %", title=f"{title}: importance of covariates")
    return save(figure, path)


def shown_channels(count: int, most: int = MAX_CHANNELS) -> list[int]:
    """Which of so many channels to show: the first ones and the last, which the benchmark sets call their target."""
    return list(range(count)) if count <= most else [*range(most - 1), count - 1]


def _line(axes: Axes, axis: pd.Index, values: np.ndarray, colour: str, label: str) -> None:
    # a value between two gaps is no line: the marker shows it
    axes.plot(axis, values, color=colour, label=label, marker="o", markersize=2, markeredgewidth=0)


def _head(
    figure: Figure, axes: Axes, title: str, count: int, chosen: list[int], handles: list[Artist] | None = None
) -> None:
    shown = "" if len(chosen) == count else f"   ({len(chosen)} of {count} channels)"
    pictures.head(figure, title + shown, handles or axes.get_legend_handles_labels()[0])


def time_axis(axes: Axes, axis: pd.Index) -> None:
    """Label the panel below by dates or row numbers."""
    if isinstance(axis, pd.DatetimeIndex):
        locator = mdates.AutoDateLocator(minticks=4, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
        axes.set_xlabel("time")
    else:
        axes.set_xlabel("row")
    if len(axis) > 1:
        axes.set_xlim(axis[0], axis[-1])
