"""Windows of a panel: lookback rows, then horizon rows.

B samples, W windows, L lookback, H horizon, R rows of all series, N series, S series of a window; F future covariates
(calendar included), G past ones, E static ones.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.loaders import Batch
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.scaling import PanelScaling, blocks_of_series
from titans_seq.datamodules.forecast.weights import row_weights

EACH_TIME = 4096  # windows that are looked at together


@dataclass(frozen=True, eq=False)
class Anchors:
    """Where windows lie: which series each shows, and which of their rows is the first to forecast.

    Args:
        series: of panels whose windows show one series each, [W, 1]; of a table's, all of its columns, [W, N].
        first: counted inside the series.
    """

    series: Int[np.ndarray, "W S"]
    first: Int[np.ndarray, " W"]

    def __len__(self) -> int:
        return len(self.first)

    def take(self, which: Int[np.ndarray, " V"]) -> "Anchors":
        return Anchors(self.series[which], self.first[which])

    def thin(self, most: int) -> "Anchors":
        """At most `most` of them, spread over all."""
        return self if len(self) <= most else self.take(spread(max(1, most), len(self)))


def spread(count: int, whole: int) -> Int[np.ndarray, " count"]:
    """Ascending places among `whole`, one by chance in each of `count` equal parts.

    At equal distances they could all be of one hour of the day.
    """
    ends = np.arange(count + 1) * whole // count
    return ends[:-1] + (np.random.default_rng(0).random(count) * np.diff(ends)).astype(np.int64)


class Windows(Dataset[Batch]):
    """Windows of a panel, cut on demand: memory grows with the rows, not with the windows.

    A window that begins before its series, or ends after it, is unobserved there. The batch of some windows holds one
    sample per window and series, window after window: past_target [B, L], future_target [B, H], `index` [B] (the first
    row to forecast, counted inside the series); past_observed_values and future_observed_values, absent where every
    row of every window is observed; past_features [B, L, F + G], future_features [B, H, F] and static_features [B, E],
    absent where there are none; past_weights [B, L] and future_weights [B, H] where rows have weights; of counts `unit`
    [B, 2], the mean and deviation of the series.

    Args:
        panel: values.
        scaling: how they are standardised.
        lookback: L.
        horizon: H, or 0 for windows without a target.
        anchors: where they lie.

    Raises:
        DataError: a value is too far from those that its series is scaled by.
    """

    def __init__(self, panel: Panel, scaling: PanelScaling, lookback: int, horizon: int, anchors: Anchors) -> None:
        self.lookback, self.horizon = lookback, horizon
        # every series with room before and behind it, so that all windows are cut alike
        room = lookback + horizon
        self.begins = panel.offsets[:-1] + room * np.arange(len(panel)) + lookback
        self.lengths, size = panel.lengths, len(panel.target) + room * len(panel)
        features, self.ahead = scaling.features(panel)
        self.static = torch.from_numpy(scaling.static(panel).astype(np.float32))
        self.target, self.features = torch.zeros(size), torch.zeros(size, features.shape[1])
        self.moments = scales = scaling.of_target(panel)
        counts = scaling.transform is not None and scaling.transform.whole
        self.units = torch.from_numpy(np.nan_to_num(scales, nan=1.0)) if counts else None
        weights = row_weights(panel, scaling.weight, scaling.usual_weight)
        self.weights = torch.zeros(0 if weights is None else size)  # empty: all rows weigh the same
        blocks = list(blocks_of_series(panel.offsets))
        rows_of = [slice(panel.offsets[which.start], panel.offsets[which.stop]) for which in blocks]
        # a series without any value in training has no scale: what came of it later counts as missing
        gaps = np.isnan(scales).any() or any(np.isnan(panel.target[rows]).any() for rows in rows_of)
        self.observed = torch.zeros(size if gaps else 0, dtype=torch.bool)  # empty: every row is
        for which, rows in zip(blocks, rows_of, strict=True):
            place = torch.from_numpy(
                np.arange(rows.start, rows.stop)
                + np.repeat(self.begins[which] - panel.offsets[which], panel.lengths[which])
            )
            values, observed = _standardised(panel, scaling, scales, which, rows)
            self.target[place] = torch.from_numpy(values)
            self.features[place] = torch.from_numpy(features[rows].astype(np.float32))
            if weights is not None:
                self.weights[place] = torch.from_numpy(weights[rows].astype(np.float32))
            if gaps:
                self.observed[place] = torch.from_numpy(observed)
        self._show(anchors)

    def _show(self, anchors: Anchors) -> None:
        self.anchors = anchors
        length = self.lengths[anchors.series[:, 0]]
        assert (anchors.first >= 0).all() and (anchors.first <= length).all()  # else they would reach into other series
        inside = (anchors.first >= self.lookback) & (anchors.first + self.horizon <= length)
        self.whole = bool(inside.all()) and (not len(self.observed) or self._all_observed())

    def _all_observed(self) -> bool:
        seen = torch.cat([torch.zeros(1, dtype=torch.int64), self.observed.cumsum(0)]).numpy()
        size = self.lookback + self.horizon
        for begin in range(0, len(self.anchors), EACH_TIME):
            start = self._starts(slice(begin, begin + EACH_TIME))[0]
            if (seen[start + size] - seen[start] < size).any():
                return False
        return True

    def _starts(self, which: slice | Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each series of these windows: where the window begins, the series, its first row to forecast."""
        series = self.anchors.series[which]
        first = np.broadcast_to(self.anchors.first[which][:, None], series.shape)
        return self.begins[series] + first - self.lookback, series, first

    def at(self, anchors: Anchors) -> "Windows":
        """Other windows of the same rows, which are held once."""
        other = copy.copy(self)
        other._show(anchors)
        return other

    def __len__(self) -> int:
        return len(self.anchors)

    def __getitem__(self, index: int) -> Batch:
        """A window alone: of one series without the dimension of the batch."""
        batch = self.__getitems__([index])
        return {name: value[0] for name, value in batch.items()} if self.anchors.series.shape[1] == 1 else batch

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        start, series, first = (torch.from_numpy(each.flatten()) for each in self._starts(indices))
        batch = self._cut("target", self.target, start) | {"index": first}
        if not self.whole:
            batch |= self._observed(start, series, first)
        if self.features.shape[1]:
            batch |= self._cut("features", self.features, start)
            ahead = batch.pop("future_features")[..., : self.ahead]
            batch |= {"future_features": ahead} if self.ahead else {}
        if self.static.shape[1]:
            batch["static_features"] = self.static[series]
        if len(self.weights):
            batch |= self._cut("weights", self.weights, start)
        if self.units is not None:
            batch["unit"] = self.units[series].float()
        return batch

    def targets(self) -> Float[np.ndarray, "B H"]:
        """Standardised targets of all windows, NaN where missing."""
        places = tuple(torch.from_numpy(each.flatten()) for each in self._starts(slice(None)))
        found = self._cut("target", self.target, places[0])["future_target"].double()
        seen = torch.ones(1) if self.whole else self._observed(*places)["future_observed_values"]
        return torch.where(seen > 0, found, torch.nan).numpy()

    @property
    def weighed(self) -> Anchors:
        """Those with a target of a weight above 0; all where rows have no weights."""
        if not len(self.weights):
            return self.anchors
        first = self._starts(slice(None))[0].reshape(len(self), -1) + self.lookback
        total = np.concatenate([[0.0], self.weights.double().cumsum(0).numpy()])
        return self.anchors.take(np.flatnonzero((total[first + self.horizon] > total[first]).any(axis=1)))

    def standardised(self, counts: Float[np.ndarray, "B ..."]) -> Float[np.ndarray, "B ..."]:
        """Numbers in counts for each sample of these windows, on the scale of `targets`."""
        assert self.units is not None
        mean, deviation = self.units[self.anchors.series.ravel()].numpy().T.reshape(2, -1, *[1] * (counts.ndim - 1))
        return (counts - mean) / deviation

    def _observed(self, start: Tensor, series: Tensor, first: Tensor) -> Batch:
        if len(self.observed):
            cut = self._cut("observed_values", self.observed, start)
            return {name: value.float() for name, value in cut.items()}
        steps = first[:, None] + torch.arange(-self.lookback, self.horizon)
        inside = ((steps >= 0) & (steps < torch.from_numpy(self.lengths)[series, None])).float()
        return {
            "past_observed_values": inside[:, : self.lookback],
            "future_observed_values": inside[:, self.lookback :],
        }

    def _cut(self, name: str, rows: Tensor, start: Int[Tensor, " B"]) -> Batch:
        runs = rows.unfold(0, self.lookback + self.horizon, 1)[start]  # [B, L + H], or [B, F + G, L + H]
        runs = runs.mT if runs.ndim == 3 else runs
        return {f"past_{name}": runs[:, : self.lookback], f"future_{name}": runs[:, self.lookback :]}


def _standardised(
    panel: Panel, scaling: PanelScaling, scales: Float[np.ndarray, "N 2"], which: slice, rows: slice
) -> tuple[Float[np.ndarray, " r"], Bool[np.ndarray, " r"]]:
    """Standardised values of some series, 0 where missing, and which are observed."""
    mean, scale = np.repeat(scales[which], panel.lengths[which], axis=0).T
    values = scaling.learned(panel, rows)
    observed = ~np.isnan(values) & ~np.isnan(mean)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.where(observed, (values - mean) / scale, 0.0).astype(np.float32)
    if not np.isfinite(scaled).all():
        row = rows.start + int(np.argmin(np.isfinite(scaled)))
        raise DataError(
            f"series {panel.ids[np.searchsorted(panel.offsets, row, side='right') - 1]}, {panel.columns.time} "
            f"{panel.times[row]}: {panel.target[row]:g} is too far from the values the series is scaled by"
        )
    return scaled, observed
