"""The picture of a file of series: what it holds over time, where it is split, what is missing, and its periods.

T rows of a series.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from titans_seq.forecast.pictures import FORECAST, HISTORY, SURPRISE, time_axis
from titans_seq.pictures import INK, head, new_figure, save

MOST_POINTS = 4000  # of a line: more than there are pixels
SHADES = {"val": SURPRISE, "test": FORECAST}


@dataclass(frozen=True)
class Shown:
    """A series to draw.

    Args:
        name: of the series.
        times: dates or numbers.
        values: NaN where missing.
        splits: "val" and "test" -> their first row and the row after the last.
        spectrum: periods in rows, and the share of the variance at each.
    """

    name: str
    times: pd.Index
    values: Float[np.ndarray, " T"]
    splits: Mapping[str, tuple[int, int]]
    spectrum: tuple[np.ndarray, np.ndarray]


def plot_description(shown: Sequence[Shown], periods: Mapping[int, str], path: str | Path, *, title: str) -> Path:
    """Draw each series with its splits and its missing rows, and under them all spectra.

    Args:
        shown: a few series.
        periods: rows -> name of the periods to mark in the spectra.
        path: the file, a PNG.
        title: one line.
    """
    figure = new_figure(len(shown) + 1, height=3.2 + 1.7 * len(shown))
    *panels, below = figure.subplots(len(shown) + 1, squeeze=False, height_ratios=[1] * len(shown) + [1.3])[:, 0]
    for axes, series in zip(panels, shown, strict=True):
        _draw(axes, series)
        time_axis(axes, series.times)
        axes.set_xlabel("")
    _draw_spectra(below, shown, periods)
    handles = {handle.get_label(): handle for axes in panels for handle in axes.get_legend_handles_labels()[0]}
    head(figure, title, list(handles.values()))
    return save(figure, path)


def _draw(axes: Axes, series: Shown) -> None:
    for split, (begin, end) in series.splits.items():
        if begin < end:
            axes.axvspan(
                series.times[begin], series.times[end - 1], color=SHADES[split], alpha=0.12, linewidth=0, label=split
            )
    every = -(-len(series.values) // MOST_POINTS)
    axes.plot(series.times[::every], series.values[::every], color=HISTORY, label="series")
    missing = np.flatnonzero(np.isnan(series.values))
    if len(missing):
        few = missing[:: -(-len(missing) // MOST_POINTS)]
        low = np.full(len(few), 0.02)
        axes.scatter(
            series.times[few], low, marker="|", s=40, color=INK, transform=axes.get_xaxis_transform(), label="missing"
        )
    axes.set_ylabel(series.name)


def _draw_spectra(axes: Axes, shown: Sequence[Shown], periods: Mapping[int, str]) -> None:
    for series in shown:
        if len(series.spectrum[0]):
            axes.plot(*series.spectrum, color=HISTORY, alpha=0.8)
    for rows, name in periods.items():
        axes.axvline(rows, color=FORECAST, linewidth=1, linestyle=":")
        text = f"{name} ({rows})" if name else f"{rows}"
        axes.annotate(
            text, (rows, 1), (3, -10), xycoords=axes.get_xaxis_transform(), textcoords="offset points", size=8
        )
    axes.set_xscale("log")
    axes.set(xlabel="period in rows", ylabel="share of variance")
