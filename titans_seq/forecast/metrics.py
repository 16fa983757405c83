"""Scores of forecasts in a frame, by GluonTS's formulas, on observed steps, in the units of the data.

MASE    mean |y - f| / mean |y_t - y_{t-m}| over the history, per series, then averaged over series
CRPS    2 mean_q of the pinball loss, over the quantiles that the frame's finite intervals give and the point forecast
cover   share of observed values inside of the interval
"""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from gluonts.evaluation import metrics as gluonts

BOUND = re.compile(r"(?P<model>.+)-(?P<side>lo|hi)-(?P<level>\d+(\.\d+)?)")


def evaluate(
    forecasts: pd.DataFrame,
    history: Mapping[object, np.ndarray] | None = None,
    *,
    model: str = "Titans",
    seasonality: int = 1,
    id: str = "unique_id",
    target: str = "y",
) -> dict[str, float]:
    """Score the columns `model`, `model-lo-80`, ... against the column `target`.

    Args:
        forecasts: one row per forecast step, as `TitansForecaster.backtest` returns it. Rows without a target are left
            out.
        history: the training values of each series, for MASE; without it MASE is left out.
        seasonality: m, steps of a season.

    Returns:
        mse, mae, smape, mase, crps, and per interval level L: coverage_L, width_L. A series whose history is no longer
        than a season, or never changes over one, has no MASE and does not count there.

    Raises:
        ValueError: a column or a history is absent, or no row has a target.
    """
    for column in (target, model):
        if column not in forecasts.columns:
            raise ValueError(f"forecasts has no column {column!r}; it has: {', '.join(map(str, forecasts.columns))}")
    rows = forecasts[forecasts[target].notna()]
    if not len(rows):
        raise ValueError(f"no row has a value in column {target!r}: nothing can be scored")
    truth, found = rows[target].to_numpy(np.float64), rows[model].to_numpy(np.float64)
    scores = {
        "mse": float(gluonts.mse(truth, found)),
        "mae": float(gluonts.abs_error(truth, found) / len(truth)),
        "smape": _smape(truth, found),
    }
    if history is not None:
        scores["mase"] = _mase(rows, history, model, seasonality, id, target)
    intervals = _intervals(rows, model)
    if intervals:
        quantiles = {0.5: found}
        for level, (low, high) in intervals.items():
            if np.isfinite(high - low).all():
                quantiles |= {0.5 - level / 200: low, 0.5 + level / 200: high}
        scores["crps"] = float(
            np.mean([gluonts.quantile_loss(truth, value, q) / len(truth) for q, value in quantiles.items()])
        )
    for level, (low, high) in intervals.items():
        finite = np.isfinite(high - low).all()
        scores[f"coverage_{level:g}"] = float(np.mean((low <= truth) & (truth <= high))) if finite else float("nan")
        scores[f"width_{level:g}"] = float(np.mean(high - low))
    return scores


def _smape(truth: np.ndarray, found: np.ndarray) -> float:
    """Where both are 0 there is no error."""
    both_zero = (truth == 0) & (found == 0)
    return (
        float(gluonts.smape(truth[~both_zero], found[~both_zero]) * np.mean(~both_zero)) if not both_zero.all() else 0.0
    )


def _mase(
    rows: pd.DataFrame, history: Mapping[object, np.ndarray], model: str, seasonality: int, id: str, target: str
) -> float:
    names = rows[id] if id in rows else pd.Series(target, index=rows.index)
    scaled = []
    for name, part in rows.groupby(names, sort=False):
        if name not in history:
            raise ValueError(f"history has no series {name!r}")
        past = np.ma.masked_invalid(np.asarray(history[name], dtype=np.float64))
        # GluonTS would take steps of 1 where the history is shorter than a season
        error = (
            gluonts.calculate_seasonal_error(past, seasonality=seasonality) if len(past) > seasonality else np.ma.masked
        )
        if error is not np.ma.masked and error > 0:
            scaled.append(
                gluonts.mase(part[target].to_numpy(np.float64), part[model].to_numpy(np.float64), float(error))
            )
    return float(np.mean(scaled)) if scaled else float("nan")


def _intervals(rows: pd.DataFrame, model: str) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """Level -> lower and upper bounds, of the columns that are there."""
    names = (BOUND.fullmatch(str(name)) for name in rows.columns)
    levels = sorted({float(name["level"]) for name in names if name is not None and name["model"] == model})
    return {
        level: (rows[f"{model}-lo-{level:g}"].to_numpy(np.float64), rows[f"{model}-hi-{level:g}"].to_numpy(np.float64))
        for level in levels
    }
