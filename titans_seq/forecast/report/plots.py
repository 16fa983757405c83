"""What all plots of a report are made of: plotly's JSON, its looks once, numbers for each choice of its menus."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

LONGEST_NAME = 28  # of a channel on an axis
# steps in microseconds, and how dates are written that lie on them
_DATE_FORMS = ((86_400 * 10**6, "%Y-%m-%d"), (60 * 10**6, "%Y-%m-%dT%H:%M"), (10**6, "%Y-%m-%dT%H:%M:%S"))


@dataclass(frozen=True)
class Plot:
    """What the page needs to draw a plot.

    Args:
        name: its place in the page.
        height: in pixels.
        traces: plotly's, without numbers.
        layout: plotly's.
        views: the indices of the chosen options, joined by commas -> "x" and "y", for each trace an array or the index
            of one in `arrays`, and "layout", whole entries that replace those of `layout`.
        arrays: what several views share.
        menus: the label and the options of each.
    """

    name: str
    height: int
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    views: dict[str, dict[str, Any]]
    arrays: list[list[Any]] = field(default_factory=list)
    menus: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def record(self) -> dict[str, Any]:
        """What the script of the page reads."""
        return {"traces": self.traces, "layout": self.layout, "arrays": self.arrays, "views": self.views}


def line(name: str, colour: str, *, markers: bool = False, **more: Any) -> dict[str, Any]:
    """A trace of a line, without its numbers."""
    looks = {"line": {"color": colour, "width": 1.8}, "marker": {"size": 6 if markers else 3}}
    return as_json(go.Scatter(name=name, mode="lines+markers" if markers else "lines", **looks, **more))


def as_json(part: Any) -> dict[str, Any]:
    """A part of a figure, which plotly has checked, as it stands in the page."""
    return dict(part.to_plotly_json())


def layout_of(*, margin: Mapping[str, int] | None = None, **entries: Any) -> dict[str, Any]:
    """What all plots look like, and what one has of its own."""
    common = {
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 56, "r": 12, "t": 30, "b": 44} | dict(margin or {}),
    }
    return as_json(go.Layout(**(common | entries)))


def axis_of(title: str, **more: Any) -> dict[str, Any]:
    """An axis."""
    return {"title": {"text": title, "standoff": 8}, **more}


def time_axis(time: pd.Index) -> dict[str, Any]:
    """An axis of dates, or of row numbers."""
    dates = isinstance(time, pd.DatetimeIndex)
    return axis_of("" if dates else "row", type="date" if dates else "linear")


def label_of(name: str) -> str:
    """A channel's name as plotly, which reads tags in its texts, shows it letter by letter."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return html.escape(short, quote=False)


def stamps(time: pd.Index) -> list[Any]:
    """Dates as text, as short as they are exact, or row numbers."""
    if not isinstance(time, pd.DatetimeIndex):
        return [int(row) for row in time]
    plain = time.tz_localize(None)  # as it was on the wall
    microseconds = plain.as_unit("us").asi8
    exact = (form for step, form in _DATE_FORMS if not (microseconds % step).any())
    return plain.strftime(next(exact, "%Y-%m-%dT%H:%M:%S.%f")).tolist()


def numbers(*arrays: Float[np.ndarray, " N"]) -> list[list[float | None]]:
    """Arrays with five digits over the range of all of them, which is more than can be seen; None where not finite."""
    finite = np.concatenate([array[np.isfinite(array)] for array in arrays])
    with np.errstate(over="ignore"):
        spread = float(np.ptp(finite)) if len(finite) else 0.0
    digits = 5 - int(np.floor(np.log10(spread))) if 0 < spread < np.inf else 12
    return [[round(float(v), digits) if np.isfinite(v) else None for v in array] for array in arrays]
