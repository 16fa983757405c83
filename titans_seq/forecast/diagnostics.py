"""What a forecaster makes of rows that are known: fitted values and residuals.

W windows, H horizon.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.windows import Anchors, Windows
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.inference import forecasts

AT_ONCE = 100_000  # rows that are forecast together: each of them is a window


def fitted_values(fitted: FittedForecaster, panels: Iterable[Panel], step: int = 1) -> pd.DataFrame:
    """Each row forecast from the rows up to `step` before it, beside what it is.

    Of every window that ends `step` rows before a row, the forecast of that row alone counts: no row has two fitted
    values. The network has been trained on these rows, and they entered the scaling, so the residuals are smaller than
    the errors of forecasts; `backtest` gives those. What was observed as a stream does not count.

    Args:
        fitted: the forecaster.
        panels: the rows, of series known or new.
        step: how far ahead, at most the horizon.

    Returns:
        Long frame: id, time, the target, the forecast, and "residual" (target minus forecast, NaN where the target is
        missing). Rows with nothing observed before them in reach of the lookback are absent.

    Raises:
        DataError: no row has a row to be forecast from.
        ValueError: the model has learned fewer steps.
    """
    fitted.steps(step)
    parts = [_of_part(fitted, part, step) for panel in panels for part in panel.split(AT_ONCE)]
    found = [part for part in parts if part is not None]
    if not found:
        raise DataError(f"no series has an observed row {step} steps before another one; give longer series")
    return pd.concat(found, ignore_index=True)


def residuals(fitted: FittedForecaster, panels: Iterable[Panel], step: int = 1) -> pd.DataFrame:
    """Target minus fitted value, see `fitted_values`: id, time, "residual"."""
    frame = fitted_values(fitted, panels, step)
    return frame.drop(columns=[fitted.tail.columns.target, fitted.alias])


def _of_part(fitted: FittedForecaster, panel: Panel, step: int) -> pd.DataFrame | None:
    series, first, rows = _places(panel, step, fitted.context)
    if not len(rows):
        return None
    scaling = fitted.scaling.with_series(panel)
    windows = Windows(panel, scaling, fitted.context, fitted.network.horizon, Anchors(series[:, None], first))
    points = forecasts(fitted.modules, windows, ())[0][:, step - 1 : step]
    columns, target = panel.columns, panel.target[rows]
    found = scaling.to_units(scaling.of_target(panel)[series], points)[:, 0]
    key = {} if columns.id is None else {columns.id: panel.ids[series]}
    values = {columns.target: target, fitted.alias: found, "residual": target - found}
    return pd.DataFrame(key | {columns.time: panel.stamps(rows)} | values)


def _places(panel: Panel, step: int, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each window: its series, the first row it forecasts, counted in the series, and the row that is looked at."""
    begins = np.repeat(panel.offsets[:-1], panel.lengths)
    rows = np.arange(len(panel.target))
    at = rows - step + 1  # the window's first row to forecast
    seen = np.concatenate([[0], np.cumsum(~np.isnan(panel.target))])
    inside = at > begins
    known = np.zeros(len(rows), dtype=bool)
    known[inside] = seen[at[inside]] > seen[np.maximum(at - context, begins)[inside]]
    return panel.series[known], (at - begins)[known], rows[known]
