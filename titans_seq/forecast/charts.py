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
    table = forecast.set_index(columns.time).filter(regex=f"^{re.escape(alias)}(-lo-|-hi-|$)")
    return table.rename(columns=lambda each: "forecast" if each == alias else each.removeprefix(f"{alias}-"))


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
    history = own.times[before][-rows:]
    return SeriesForecast(
        name=printable(str(name)) if panel.columns.id is not None or panel.wide else Columns().target,
        axis=history.append(pd.Index(table.index)),
        past=own.target[before][-rows:],
        forecast=table["forecast"].to_numpy(),
        truth=None if later.isna().all() else later.to_numpy(),
        intervals={level: both for level, both in bounds.items() if np.isfinite(both).all()},
    )
