"""Frames of forecasts, and what is said of rows that cannot be forecast well. R rows of all series."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.forecast.panel import Columns, Panel
from titans_seq.datamodules.forecast.scaling import PanelScaling


def wide_frame(frame: pd.DataFrame, columns: Columns, alias: str) -> pd.DataFrame:
    """A long frame of forecasts with one column per series."""
    id_name = columns.id or "unique_id"
    order = frame[id_name].unique()
    table = frame.pivot(index=columns.time, columns=id_name)
    table.columns = table.columns.swaplevel()
    plain = table.columns.get_level_values(1).unique()
    names = {name: "forecast" if name == alias else str(name).removeprefix(f"{alias}-") for name in plain}
    table = table.rename(columns=names, level=1).reindex(columns=[(s, names[n]) for s in order for n in plain])
    table.columns.names = [None, None]
    return table.droplevel(1, axis=1) if len(plain) == 1 else table


def surprise_frame(panel: Panel, surprise: Float[np.ndarray, " R"]) -> pd.DataFrame:
    """The surprise of all rows, long."""
    columns = panel.columns
    key: dict[str, Any] = {} if columns.id is None else {columns.id: panel.ids.repeat(panel.lengths)}
    return pd.DataFrame(key | {columns.time: panel.times, "surprise": surprise})


def empty_series(panel: Panel, scaling: PanelScaling) -> list[Any]:
    """Names of series without any value."""
    return panel.ids[np.isnan(scaling.of_target(panel)[:, 0])].tolist()


def warn_of_empty(names: list[Any]) -> None:
    """Say that these series' forecasts are missing."""
    if names:
        warnings.warn(
            f"{len(names)} series have no value at all, the first is {names[0]}: their forecasts are NaN",
            DataWarning,
            stacklevel=4,
        )


def require_known(panel: Panel, rows: np.ndarray) -> None:
    """A future covariate must be there where there is something to score, as `predict` demands it."""
    lost = np.isnan(panel.future_covariates[rows]).any(axis=-1) & ~np.isnan(panel.target[rows])
    if lost.any():
        i, step = np.argwhere(lost)[0]
        row = rows[i, step]
        name = panel.columns.future_covariates[int(np.argmax(np.isnan(panel.future_covariates[row])))]
        raise DataError(
            f"column {name!r} is missing in series {panel.ids[i]} at {panel.times[row]}, which is to be forecast"
        )


def warn_of_forgotten(first: Panel, fitted: Panel) -> None:
    place = fitted.ids.get_indexer(first.ids)
    later = (place >= 0) & np.asarray(first.first > fitted.last[place])
    if later.any():
        warnings.warn(
            f"{int(later.sum())} series begin after the rows of fit, the first is {first.ids[int(np.argmax(later))]}: "
            "the memory knows nothing of those; observe(df) the rows of fit first",
            DataWarning,
            stacklevel=4,
        )
