"""Weights of rows in the loss: a column that is read beside the past covariates, and is none of them.

R rows of all series, G past covariates.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.panel import Columns, Panel


def with_weight(columns: Columns, name: str) -> Columns:
    """The columns of a table that is read with weights.

    Raises:
        ValueError: the column already means something else.
    """
    if name in columns.names:
        raise ValueError(
            f"sample_weight must be a column of its own; {name!r} is used as target, id, time or covariate"
        )
    return replace(columns, past_covariates=(*columns.past_covariates, name))


def without_weight(panel: Panel, name: str | None) -> Panel:
    """The panel without the column of weights, where it has one."""
    if name is None or name not in panel.columns.past_covariates:
        return panel
    kept = [i for i, each in enumerate(panel.columns.past_covariates) if each != name]
    names = tuple(panel.columns.past_covariates[i] for i in kept)
    columns = replace(panel.columns, past_covariates=names)
    return replace(panel, past_covariates=panel.past_covariates[:, kept], columns=columns)


def usual_weight(panels: Iterable[Panel], name: str) -> float | None:
    """Mean of the weights above 0 of all rows of several panels, which are looked at one after the other; None without
    any.
    """
    total, count = 0.0, 0
    for panel in panels:
        weights = _column(panel, name)
        total, count = total + float(weights[weights > 0].sum()), count + int((weights > 0).sum())
    return total / count if count else None


def row_weights(panel: Panel, name: str | None, usual: float | None = None) -> Float[np.ndarray, " R"] | None:
    """Weights of the rows; None where the panel has no such column.

    Args:
        panel: the rows.
        name: the column.
        usual: the weight that counts as 1; None: the mean of those above 0.

    Raises:
        DataError: a row with a target has no weight, or one that is negative.
    """
    if name is None or name not in panel.columns.past_covariates:
        return None
    weights = _column(panel, name)
    wrong = (np.isnan(weights) & ~np.isnan(panel.target)) | (weights < 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        series = panel.ids[np.searchsorted(panel.offsets, row, side="right") - 1]
        raise DataError(
            f"column {name!r}, series {series}, {panel.columns.time} {panel.stamps(np.array([row]))[0]}: a weight must "
            f"be a number of at least 0; got {weights[row]:g}"
        )
    weights = np.nan_to_num(weights)
    usual = usual_weight([panel], name) if usual is None else usual
    return weights if usual is None else weights / usual


def _column(panel: Panel, name: str) -> Float[np.ndarray, " R"]:
    return panel.past_covariates[:, panel.columns.past_covariates.index(name)]
