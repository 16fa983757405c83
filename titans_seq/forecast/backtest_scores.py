"""Backtests beside the baselines: scores per series and cutoff, and a picture.

C cutoffs, H horizon.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.forecast.metrics import evaluate
from titans_seq.forecast.pictures import FORECAST, HISTORY, TRUTH, new_figure, save, shown_channels, time_axis
from titans_seq.forecast.scores import NAIVE, SEASONAL, Naive
from titans_seq.pictures import head

SCORES = ("mse", "mae", "mase", "smape", "crps")
HORIZONS_BEFORE = 2  # of history in the picture


def with_baselines(frame: pd.DataFrame, panel: Panel, season: int | None) -> pd.DataFrame:
    """The frame of a backtest with the forecasts of the last value and, with a season, of the last season.

    Args:
        frame: of one panel, as `FittedForecaster.backtest` returns it.
        panel: the rows it was made of.
        season: rows; None: no seasonal naive.
    """
    found, places = frame.copy(), {}
    for name, rows in ((NAIVE, 1), (SEASONAL, season)):
        if rows is not None:
            places[name] = Naive(panel.target, panel.offsets, rows)
            found[name] = np.nan
    for series, cutoff, part in windows_of(frame, panel):
        before = _before(panel, series, cutoff)
        for name, naive in places.items():
            if not np.isnan(before).all():  # else there is nothing to repeat
                forecast = naive.forecast(np.array([series]), np.array([len(before)]), len(part))[0]
                found.loc[part.index, name] = forecast
    return found


def windows_of(frame: pd.DataFrame, panel: Panel) -> Iterator[tuple[int, Any, pd.DataFrame]]:
    """Each forecast of a backtest: its series, its cutoff and its rows."""
    name = panel.columns.id
    series = np.zeros(len(frame), dtype=np.int64) if name is None else panel.ids.get_indexer(frame[name])
    for (place, cutoff), part in frame.groupby([series, "cutoff"], sort=False, observed=True):
        yield int(place), cutoff, part


def _before(panel: Panel, series: int, cutoff: Any) -> np.ndarray:
    """The values of a series up to a cutoff."""
    rows = slice(panel.offsets[series], panel.offsets[series + 1])
    times = panel.stamps(np.arange(rows.start, rows.stop))
    return panel.target[rows][: int(np.searchsorted(times, cutoff, side="right"))]


def scores_of(frame: pd.DataFrame, panel: Panel, model: str, season: int | None) -> pd.DataFrame:
    """Scores per series and cutoff of a model and the baselines, in the units of the data: one row of each.

    MASE divides by the mean change over a season of the rows before the cutoff. A window without any value is
    left out. `window` numbers them: the last one of every series has the same number, since series may end at different
    times.
    """
    id_name, target = panel.columns.id or "series", panel.columns.target
    models = [model, *(name for name in (NAIVE, SEASONAL) if name in frame)]
    rows = []
    windows = list(windows_of(frame, panel))
    left = Counter(series for series, _, _ in windows)
    most = max(left.values())
    for series, cutoff, part in windows:
        number = most - left[series] + 1
        left[series] -= 1
        if part[target].isna().all():
            continue
        name = panel.ids[series]
        history = {name: _before(panel, series, cutoff)}
        part = part.assign(**{id_name: name})
        for each in models:
            found = evaluate(part, history, model=each, seasonality=season or 1, id=id_name, target=target)
            rows.append({id_name: name, "window": number, "cutoff": cutoff, "model": each} | found)
    return pd.DataFrame(rows)


def by_cutoff(scores: pd.DataFrame) -> pd.DataFrame:
    """Means over the series of each window and model, and over all."""
    numbers = [name for name in scores.columns if name in SCORES or str(name).startswith("coverage")]
    names = {number: _cutoff(part) for number, part in scores["cutoff"].groupby(scores["window"])}
    each = (
        scores.groupby(["window", "model"], sort=False)[numbers]
        .mean()
        .reset_index()
        .sort_values("window", kind="stable")
    )
    means = each.assign(window=each["window"].map(names)).rename(columns={"window": "cutoff"})
    every = scores.groupby("model", sort=False)[numbers].mean().reset_index()
    return pd.concat([means, every.assign(cutoff="all")], ignore_index=True)


def _cutoff(stamps: pd.Series) -> str:
    first, last = stamps.min(), stamps.max()
    return str(first) if first == last else f"{first} to {last}"


def plot_backtest(
    frame: pd.DataFrame, panel: Panel, model: str, levels: Sequence[float], path: str | Path, *, title: str
) -> Path:
    """Draw some series with their forecasts of every cutoff and the widest of these intervals."""
    parts: dict[int, list[pd.DataFrame]] = {}
    for series, _, part in windows_of(frame, panel):
        parts.setdefault(series, []).append(part)
    chosen = [list(parts)[i] for i in shown_channels(len(parts))]
    figure = new_figure(len(chosen))
    every = figure.subplots(len(chosen), squeeze=False)[:, 0]
    for axes, series in zip(every, chosen, strict=True):
        _draw(axes, parts[series], panel, series, model, max(levels, default=None))
    more = "" if len(chosen) == len(parts) else f"   ({len(chosen)} of {len(parts)} series)"
    head(figure, title + more, every[0].get_legend_handles_labels()[0])
    return save(figure, path)


def _draw(
    axes: Axes, parts: Sequence[pd.DataFrame], panel: Panel, series: int, model: str, level: float | None
) -> None:
    axis, first = panel.axis, len(_before(panel, series, parts[0]["cutoff"].iloc[0]))
    begin = max(0, first - HORIZONS_BEFORE * len(parts[0]))
    rows = np.arange(panel.offsets[series] + begin, panel.offsets[series + 1])
    axes.plot(axis[rows], panel.target[rows], color=HISTORY, label="series", linewidth=1)
    for i, part in enumerate(parts):
        begin = panel.offsets[series] + len(_before(panel, series, part["cutoff"].iloc[0]))
        ahead = axis[begin : begin + len(part)]
        hidden = "_" if i else ""  # once in the legend
        if level is not None:
            low, high = (part[f"{model}-{side}-{level:g}"] for side in ("lo", "hi"))
            label = f"{hidden}{level:g} % interval"
            axes.fill_between(ahead, low, high, color=FORECAST, alpha=0.2, linewidth=0, label=label)
        axes.plot(ahead, part[model], color=FORECAST, label=f"{hidden}forecast")
        axes.axvline(axis[begin - 1], color=TRUTH, linewidth=0.8, linestyle=":", label=f"{hidden}cutoff")
    axes.set_ylabel(str(panel.ids[series]))
    time_axis(axes, axis[rows])
