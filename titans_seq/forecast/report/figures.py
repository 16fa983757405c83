"""The plots of a report.

L lookback, H horizon, C channels, P levels, N rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from titans_seq.forecast.anomalies import Span
from titans_seq.forecast.pictures import CURVES, FORECAST, HISTORY, SURPRISE, TRUTH
from titans_seq.forecast.report.plots import (
    Plot,
    as_json,
    axis_of,
    label_of,
    layout_of,
    line,
    numbers,
    stamps,
    time_axis,
)
from titans_seq.forecast.scores import MODEL, NAIVE, SEASONAL, SHOWN, Scores

BANDS = ("rgba(209, 73, 91, 0.26)", "rgba(209, 73, 91, 0.14)")  # of SHOWN
SHADE = "rgba(209, 73, 91, 0.25)"
LINES = {MODEL: FORECAST, NAIVE: HISTORY, SEASONAL: TRUTH}
MEASURES = ("MSE", "MAE")
MOST_BARS = 40  # channels of the bars
MOST_POINTS = 2_000  # of a track


@dataclass(frozen=True, eq=False)
class Window:
    """A window of some channels, in their units.

    Args:
        label: for the menu.
        time: L + H dates or row numbers.
        past: values before the forecast, NaN where missing.
        truth: values that came, NaN where missing.
        forecast: point forecasts.
        bounds: of SHOWN, lower and upper.
    """

    label: str
    time: pd.Index
    past: Float[np.ndarray, "L C"]
    truth: Float[np.ndarray, "H C"]
    forecast: Float[np.ndarray, "H C"]
    bounds: Float[np.ndarray, "P 2 H C"]


def forecast_plot(windows: Sequence[Window], columns: Sequence[str]) -> Plot:
    """Past, truth and forecast with its intervals: a menu of windows and one of channels."""
    arrays = [
        part
        for window in windows
        for part in (stamps(window.time[: len(window.past)]), stamps(window.time[len(window.past) - 1 :]))
    ]
    views = {}
    for (w, window), (c, name) in product(enumerate(windows), enumerate(columns)):
        bands = [_from_now(window, side, c) for level in window.bounds[::-1] for side in level]  # as `_bands`
        future = [_from_now(window, values, c) for values in (window.truth, window.forecast)]
        x = [2 * w + 1] * len(bands) + [2 * w, 2 * w + 1, 2 * w + 1]
        y = numbers(*bands, window.past[:, c], *future)
        views[f"{w},{c}"] = {"x": x, "y": y, "layout": {"yaxis": axis_of(label_of(name))}}
    menus = [("Window", [window.label for window in windows]), ("Channel", list(columns))]
    traces = _bands() + [line("history", HISTORY), line("truth", TRUTH), line("forecast", FORECAST)]
    return Plot("forecast", 440, traces, layout_of(xaxis=time_axis(windows[0].time)), views, arrays, menus)


def _from_now(window: Window, values: np.ndarray, channel: int) -> np.ndarray:
    """Lines into the future start at the last row seen, so that nothing gapes."""
    return np.concatenate([window.past[-1:, channel], values[:, channel]])


def _bands() -> list[dict[str, Any]]:
    """Two traces of each level, the widest first: the second fills down to the first."""
    traces = []
    for level, colour in list(zip(SHOWN, BANDS, strict=True))[::-1]:
        common = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "legendgroup": f"{level:g}"}
        traces.append(as_json(go.Scatter(**common, showlegend=False)))
        traces.append(as_json(go.Scatter(**common, fill="tonexty", fillcolor=colour, name=f"{level:g} % interval")))
    return traces


def horizon_plot(scores: Scores) -> Plot:
    """Error by step of the horizon, of the model and of the baselines: a menu of measures."""
    errors = scores.tallies
    views = {}
    for i, measure in enumerate(MEASURES):
        lines = numbers(*(error.mean(measure, axis=1) for error in errors.values()))
        title = axis_of(f"{measure}, standardised", rangemode="tozero")
        views[str(i)] = {"x": [0] * len(errors), "y": lines, "layout": {"yaxis": title}}
    steps = list(range(1, scores.horizon + 1))
    traces = [line(name, LINES[name], markers=scores.horizon < 3) for name in errors]
    menus = [("Error", list(MEASURES))]
    return Plot("horizon", 360, traces, layout_of(xaxis=axis_of("steps ahead")), views, [steps], menus)


def channel_plot(scores: Scores, columns: Sequence[str], baseline: str) -> Plot:
    """Error of each channel, the greatest first: a menu of measures. Of many channels, MOST_BARS."""
    names = [MODEL, baseline]
    bars = min(len(columns), MOST_BARS)
    views = {str(i): _bars(scores, names, measure, columns) for i, measure in enumerate(MEASURES)}
    traces = [as_json(go.Bar(name=name, orientation="h", marker={"color": LINES[name]})) for name in names]
    layout = layout_of(hovermode="y unified", bargap=0.25, bargroupgap=0.05)
    menus = [("Error", list(MEASURES))]
    return Plot("channels", 150 + 26 * bars, traces, layout, views, [list(range(bars))], menus)


def _bars(scores: Scores, names: Sequence[str], measure: str, columns: Sequence[str]) -> dict[str, Any]:
    errors = {name: scores.tallies[name].mean(measure, axis=0) for name in names}
    order = _ends(np.argsort(-errors[MODEL], kind="stable"))
    ticks = {"tickvals": list(range(len(order))), "ticktext": [label_of(columns[c]) for c in order]}
    layout = {
        "xaxis": axis_of(f"{measure}, standardised"),
        "yaxis": axis_of("", autorange="reversed", automargin=True, showgrid=False, **ticks),
    }
    return {"x": numbers(*(errors[name][order] for name in names)), "y": [0] * len(names), "layout": layout}


def _ends(order: np.ndarray) -> np.ndarray:
    half = MOST_BARS // 2
    return order if len(order) <= MOST_BARS else np.concatenate([order[:half], order[-half:]])


def training_plot(history: Sequence[Mapping[str, float]], best_epoch: int) -> Plot:
    """Training loss and validation errors of every epoch, the best one marked; epochs count from 1."""
    epochs = [int(row["epoch"]) + 1 for row in history]
    known = [(key, label) for key, label in CURVES if all(key in row for row in history)]
    curves = [numbers(np.array([row[key] for row in history]))[0] for key, _ in known]
    step = {"dtick": 1} if len(epochs) <= 12 else {"nticks": 12}
    layout = layout_of(
        shapes=[_upright("line", best_epoch, best_epoch, line={"color": HISTORY, "dash": "dot"})],
        annotations=[{
            "x": best_epoch, "xref": "x", "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False,
            "text": f"best epoch ({best_epoch})",
        }],
        margin={"t": 54}, legend={"orientation": "h", "x": 0, "y": 1.12, "yanchor": "bottom"},  # above the mark
        xaxis=axis_of("epoch", tickformat="d", range=[min(epochs) - 0.5, max(epochs) + 0.5], **step),
        yaxis=axis_of("standardised values"),
    )  # fmt: skip
    colours = (HISTORY, FORECAST, TRUTH)
    traces = [line(label, colour, markers=True) for (_, label), colour in zip(known, colours, strict=False)]
    return Plot("training", 380, traces, layout, {"": {"x": [0] * len(curves), "y": curves}}, [epochs])


def surprise_plot(
    values: Float[np.ndarray, "N C"],
    surprise: Float[np.ndarray, "N C"],
    columns: Mapping[int, str],
    time: pd.Index,
    marked: Sequence[Span],
) -> Plot:
    """The series below, its surprise above, with some spans shaded: a menu of channels.

    Args:
        values: the series, NaN where missing.
        surprise: of each row.
        columns: channel -> name, of those in the menu, in this order.
        time: N dates or row numbers.
        marked: spans to shade.
    """
    begins = np.arange(0, len(values), rows_per_point(len(values)))
    dates, views = stamps(time), {}
    for i, (channel, name) in enumerate(columns.items()):
        # the greatest of the rows that a point stands for: a mean would hide what is looked for
        peaks = np.maximum.reduceat(surprise[:, channel], begins)
        spans = [(dates[span.begin], dates[span.end - 1]) for span in marked if span.channel == channel]
        layout = {"shapes": [_shade(*span) for span in spans], "yaxis": axis_of(label_of(name), domain=[0, 0.58])}
        views[str(i)] = {"x": [0, 0], "y": [*numbers(values[begins, channel]), *numbers(peaks)], "layout": layout}
    traces = [line("series", HISTORY), line("surprise", SURPRISE, yaxis="y2", fill="tozeroy")]
    # one scale, so that channels can be compared
    top = float(np.nan_to_num(surprise[:, list(columns)]).max()) * 1.05 or 1.0
    layout = layout_of(xaxis=time_axis(time), yaxis2=axis_of("surprise", domain=[0.66, 1], range=[0, top]))
    menus = [("Channel", list(columns.values()))]
    return Plot("surprise", 460, traces, layout, views, [[dates[begin] for begin in begins]], menus)


def rows_per_point(rows: int) -> int:
    """How many rows of a track are one point."""
    return -(-rows // MOST_POINTS)


def _shade(begin: Any, end: Any) -> dict[str, Any]:
    # a line of its own shows also where the span is narrower than a pixel
    return _upright("rect", begin, end, fillcolor=SHADE, line={"color": SHADE, "width": 1})


def _upright(kind: str, begin: Any, end: Any, **looks: Any) -> dict[str, Any]:
    """A shape from the bottom to the top of the plot."""
    return as_json(go.layout.Shape(type=kind, xref="x", yref="paper", x0=begin, x1=end, y0=0, y1=1, **looks))
