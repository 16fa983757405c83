"""Pictures of a forecaster: its training, a forecast, and what surprised its memory.

Plain arrays in, a PNG out; no window, no global plotting state. L lookback, H horizon, C channels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PAST, TRUTH, FORECAST, SURPRISE = "#5b6770", "#1b2a41", "#d1495b", "#e08e0b"
MAX_CHANNELS = 4  # panels of a picture; the first ones and the last, which the benchmark sets call their target


def plot_training(history: Sequence[Mapping[str, float]], best_epoch: int, path: str | Path) -> Path:
    """Draw training loss and validation error over the epochs, with the best epoch marked.

    Args:
        history: rows with `epoch`, `train_loss`, `val_mse`, `val_mae`; their epochs count from 0 and
            are drawn from 1.
        best_epoch: counted from 1.
    """
    figure = _figure(1, height=4.0)
    axes = figure.subplots()
    epochs = [row["epoch"] + 1 for row in history]
    for key, label, colour in (
        ("train_loss", "training loss (a measure of its own)", PAST),
        ("val_mse", "validation MSE", FORECAST),
        ("val_mae", "validation MAE", SURPRISE),
    ):
        axes.plot(epochs, [row[key] for row in history], color=colour, label=label, marker="o", markersize=3.5)
    axes.axvline(best_epoch, color=TRUTH, linewidth=1, linestyle=":", label=f"best epoch ({best_epoch})")
    axes.set(xlabel="epoch", ylabel="standardised values", title="Training")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes)
    return _save(figure, path)


def plot_forecast(
    past: Float[np.ndarray, "L C"],
    forecast: Float[np.ndarray, "H C"],
    truth: Float[np.ndarray, "H C"] | None,
    columns: Sequence[str],
    axis: pd.Index,
    path: str | Path,
    *,
    title: str,
) -> Path:
    """Draw history, forecast and, where known, truth of some channels.

    Args:
        axis: L + H entries, dates or row numbers.
    """
    chosen = _channels(len(columns))
    figure = _figure(len(chosen))
    panels = figure.subplots(len(chosen), sharex=True, squeeze=False)[:, 0]
    lookback = len(past)
    joined = slice(lookback - 1, None)  # lines start at the last row seen, so that nothing gapes
    for axes, channel in zip(panels, chosen, strict=True):
        last = past[-1:, channel]
        axes.plot(axis[:lookback], past[:, channel], color=PAST, label="history")
        if truth is not None:
            axes.plot(axis[joined], np.concatenate([last, truth[:, channel]]), color=TRUTH, label="truth")
        axes.plot(axis[joined], np.concatenate([last, forecast[:, channel]]), color=FORECAST, label="forecast")
        axes.axvspan(axis[lookback - 1], axis[-1], color=FORECAST, alpha=0.05, linewidth=0)
        axes.set_ylabel(columns[channel])
    _time_axis(panels[-1], axis)
    _head(figure, panels[0], title, len(columns), chosen)
    return _save(figure, path)


def plot_surprise(
    past: Float[np.ndarray, "L C"],
    surprise: Float[np.ndarray, "L C"],
    columns: Sequence[str],
    axis: pd.Index,
    path: str | Path,
    *,
    title: str,
) -> Path:
    """Draw, for some channels, the surprise above the series it belongs to.

    Args:
        axis: L entries, dates or row numbers.
    """
    chosen = _channels(len(columns))
    figure = _figure(len(chosen), height=1.0 + 2.3 * len(chosen))
    ratios = [1, 2] * len(chosen)
    panels = figure.subplots(2 * len(chosen), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    top = float(surprise[:, chosen].max()) * 1.05 or 1.0  # one scale, so that channels can be compared
    for above, below, channel in zip(panels[::2], panels[1::2], chosen, strict=True):
        above.fill_between(axis, surprise[:, channel], color=SURPRISE, alpha=0.35, linewidth=0)
        above.plot(axis, surprise[:, channel], color=SURPRISE, label="surprise")
        above.set(ylabel="surprise", ylim=(0, top))
        above.spines["bottom"].set_visible(False)
        above.tick_params(axis="x", length=0)
        below.plot(axis, past[:, channel], color=PAST, label="series")
        below.set_ylabel(columns[channel])
    _time_axis(panels[-1], axis)
    _head(figure, panels[0], title, len(columns), chosen, handles=[panels[0].lines[0], panels[1].lines[0]])
    return _save(figure, path)


def _channels(count: int) -> list[int]:
    if count <= MAX_CHANNELS:
        return list(range(count))
    return [*range(MAX_CHANNELS - 1), count - 1]


def _figure(panels: int, height: float | None = None) -> Figure:
    return Figure(figsize=(10, height or 1.2 + 1.7 * panels), dpi=130, layout="constrained")


def _head(figure: Figure, axes: Axes, title: str, count: int, chosen: list[int], handles: list | None = None) -> None:
    shown = "" if len(chosen) == count else f"   ({len(chosen)} of {count} channels)"
    figure.suptitle(title + shown, x=0.01, ha="left", fontsize=12, fontweight="bold")
    handles = handles or axes.get_legend_handles_labels()[0]
    labels = [str(handle.get_label()) for handle in handles]
    figure.legend(handles, labels, loc="upper right", ncols=len(handles), frameon=False, fontsize=9)


def _time_axis(axes: Axes, axis: pd.Index) -> None:
    if isinstance(axis, pd.DatetimeIndex):
        locator = mdates.AutoDateLocator(minticks=4, maxticks=9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
        axes.set_xlabel("time")
    else:
        axes.set_xlabel("row")
    axes.set_xlim(axis[0], axis[-1])


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize=9)


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.yaxis.set_major_locator(MaxNLocator(4)) if len(figure.axes) > 1 else None
        for line in axes.lines:
            line.set_linewidth(1.4)
    figure.align_ylabels()
    figure.savefig(path)
    return path
