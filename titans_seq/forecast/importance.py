"""How much a forecaster relies on each covariate: the loss that is added when its values are exchanged between windows.

W windows, K columns of covariates.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch

from titans_seq.datamodules.common.errors import DataError, at_least
from titans_seq.datamodules.common.loaders import Batch
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.protocol import HoldOut
from titans_seq.datamodules.forecast.windows import Windows
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.inference import EVAL_SAMPLES, thinned
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import on_device

MOST_WINDOWS = 2048  # evenly spread over all that the rows give


def importance(
    fitted: FittedForecaster,
    panels: Iterable[Panel | Windows],
    *,
    repeats: int = 5,
    windows: int = MOST_WINDOWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Permutation importance of every covariate, of the calendar and of holidays.

    The covariate's values, those of the lookback and of the horizon together, go from each window to another one drawn
    at random; the rest of the window stays. Covariates that tell the same stand in for each other, and each then seems
    to matter little.

    Args:
        fitted: the forecaster.
        panels: rows with targets, or windows of them; those it was not trained on tell more.
        repeats: permutations whose mean is taken.
        windows: the most that are measured of each part of the rows.
        seed: of the permutations.

    Returns:
        "covariate", "kind" ("past", "future", "static" or "calendar"), "increase" (of the output's loss, a mean over
        steps and permutations; about 0 or less: not used), "deviation" (between permutations) and "share" (increase by
        the loss as it is). The largest increase first.

    Raises:
        DataError: no covariates, or no window.
    """
    at_least(1, repeats=repeats)
    at_least(2, windows=windows)
    at_least(0, seed=seed)
    groups = fitted.scaling.groups(fitted.tail)
    if not groups:
        raise DataError("the forecaster has no covariates and no calendar, so there is nothing to measure")
    random, plain, permuted, weights = np.random.default_rng(seed), [], [], []
    for panel in panels:
        every = panel if isinstance(panel, Windows) else _windows(fitted, panel)
        found = thinned(every, windows * every.horizon)
        batch = found.__getitems__(range(len(found)))
        samples = len(batch["past_target"])
        if samples < 2:
            continue
        orders = [_exchanged(samples, random) for _ in range(repeats)]
        plain.append(_loss(fitted.modules, batch))
        permuted.append(
            [
                [_loss(fitted.modules, _mixed(batch, kind, columns, order)) for order in orders]
                for _, kind, columns in groups
            ]
        )
        weights.append(samples)
    if not weights:
        raise DataError("the rows give no two windows with an observed row before a horizon with one; give more rows")
    return _table([group[:2] for group in groups], np.array(plain), np.array(permuted), np.array(weights))


def _windows(fitted: FittedForecaster, panel: Panel) -> Windows:
    anchors = HoldOut(0, fitted.network.horizon).anchors(panel, "train", fitted.context, fitted.network.horizon)
    scaling = fitted.scaling.with_series(panel)
    return Windows(panel, scaling, fitted.context, fitted.network.horizon, anchors)


def _exchanged(size: int, random: np.random.Generator) -> torch.Tensor:
    """A permutation in which no window keeps its own values: a cycle in random order."""
    order, other = random.permutation(size), np.empty(size, dtype=np.int64)
    other[order] = np.roll(order, 1)
    return torch.from_numpy(other)


def _mixed(batch: Batch, kind: str, columns: Sequence[int], order: torch.Tensor) -> Batch:
    """The batch with some columns of its covariates from other windows."""
    mixed, at = dict(batch), list(columns)
    for name in ("static_features",) if kind == "static" else ("past_features", "future_features"):
        if name in batch and max(at) < batch[name].shape[-1]:
            mixed[name] = batch[name].clone()
            mixed[name][..., at] = batch[name][order][..., at]
    return mixed


@torch.inference_mode()
def _loss(modules: Sequence[ForecastModule], batch: Batch) -> float:
    """The mean loss over observed steps, and over the networks."""
    total, count = 0.0, 0.0
    for module in modules:
        for begin in range(0, len(batch["past_target"]), EVAL_SAMPLES):
            part = {name: value[begin : begin + EVAL_SAMPLES] for name, value in batch.items()}
            loss, observed = module.loss_of(on_device(part, module.network))
            total, count = total + loss * observed, count + observed
    return total / count


def _table(
    names: Sequence[Sequence[object]], plain: np.ndarray, permuted: np.ndarray, weights: np.ndarray
) -> pd.DataFrame:
    """Means over the parts [parts, groups, repeats] by their windows."""
    before = float(np.average(plain, weights=weights))
    increase = np.average(permuted, axis=0, weights=weights) - before
    frame = pd.DataFrame(names, columns=["covariate", "kind"])
    frame["increase"], frame["deviation"] = increase.mean(axis=1), increase.std(axis=1)
    frame["share"] = frame["increase"] / abs(before)
    return frame.sort_values("increase", ascending=False, ignore_index=True, kind="stable")
