"""A picture of forecasts in a frame, beside the rows they follow."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.panel import Columns, Panel
from titans_seq.forecast.pictures import MAX_CHANNELS, SeriesForecast, draw_series
from titans_seq.printable import printable


def draw_forecasts(
    panel: Panel, forecast: pd.DataFrame, *, alias: str, rows: int, series: Sequence[Any] | None = None
) -> Figure:
    """Draw history, forecast, its intervals and, where the rows reach that far, what came.

    Args:
        panel: the series' rows.
        forecast: as `predict` gives it, long or wide, or as `backtest` does: then the last cutoff is shown.
        alias: name of the forecast's column.
        rows: how many rows of history to show.
        series: names of those to show; None: the first four.

    Raises:
        DataError: a series is unknown, or the forecast has no rows for it.
    """
    names = list(panel.ids[:MAX_CHANNELS]) if series is None else list(series)
    if not names:
        raise DataError("series must name at least one series to draw; got []")
    shown = [_series(panel, _table(forecast, name, panel, alias), name, rows) for name in names]
    return draw_series(shown, title="Forecast", count=len(panel) if series is None else len(names))


def _table(forecast: pd.DataFrame, name: Any, panel: Panel, alias: str) -> pd.DataFrame:
    """The forecast of one series by time: columns "forecast", "lo-80", ..."""
    columns = panel.columns
    if columns.time in forecast.columns and alias not in forecast and str(name) in forecast:  # wide, of polars or Arrow
        return _of(str(name), forecast, columns.time)
    if columns.time not in forecast.columns:  # wide
        if name not in forecast.columns.get_level_values(0):
            raise DataError(f"the forecast has no series {name!r}")
        table = forecast[name]
        return table.to_frame("forecast") if isinstance(table, pd.Series) else table
    if columns.id is not None:
        forecast = forecast[forecast[columns.id] == name]
    if not len(forecast) or alias not in forecast:
        raise DataError(f"the forecast has no rows of column {alias!r} for series {name!r}")
    if "cutoff" in forecast:
        forecast = forecast[forecast["cutoff"] == forecast["cutoff"].max()]
    return _of(alias, forecast, columns.time)


def _of(name: str, forecast: pd.DataFrame, time: str) -> pd.DataFrame:
    """The columns of a forecast of this name, by time."""
    table = forecast.set_index(time).filter(regex=f"^{re.escape(name)}(-lo-|-hi-|$)")
    return table.rename(columns=lambda each: "forecast" if each == name else each.removeprefix(f"{name}-"))


def _series(panel: Panel, table: pd.DataFrame, name: Any, rows: int) -> SeriesForecast:
    place = panel.ids.get_indexer([name])[0]
    if place < 0:
        raise DataError(f"series {name!r} is not among the rows; there are {', '.join(map(str, panel.ids[:5]))}, ...")
    own = panel.take(np.array([place]))
    before = np.asarray(own.times < table.index[0])
    if not before.any():
        raise DataError(f"series {name!r} has no row before its forecast, which begins at {table.index[0]}")
    later = pd.Series(own.target[~before], index=own.times[~before]).reindex(table.index)
    levels = [each.removeprefix("lo-") for each in table if each.startswith("lo-")]
    bounds = {float(p): table[[f"lo-{p}", f"hi-{p}"]].to_numpy().T for p in levels}
    axis = own.times[before][-rows:].append(pd.Index(table.index))
    return SeriesForecast(
        name=printable(str(name)) if panel.columns.id is not None or panel.wide else Columns().target,
        axis=axis.to_timestamp() if isinstance(axis, pd.PeriodIndex) else axis,
        past=own.target[before][-rows:],
        forecast=table["forecast"].to_numpy(),
        truth=None if later.isna().all() else later.to_numpy(),
        intervals={level: both for level, both in bounds.items() if np.isfinite(both).all()},
    )
