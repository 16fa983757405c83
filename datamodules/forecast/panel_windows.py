"""Windows of a panel of series, standardised by what was known when a model was trained.

B batch, L lookback, H horizon, R rows of all series, N series, F known covariates (calendar included), G past ones, E
static ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from gluonts.time_feature import time_features_from_frequency_str
from jaxtyping import Bool, Float, Int
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor
from torch.utils.data import Dataset

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.loaders import Batch
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.scaling import scaler_from


@dataclass(frozen=True, eq=False)
class PanelScaling:
    """What was learned from the rows a model may see: nothing else ever enters it.

    Args:
        scales: mean and deviation of each training series by its name, as two columns.
        covariates: fitted on past and known covariates; None without any.
        numeric: names of the numeric static covariates; numbers: fitted on them. categories: values of each textual
            one.
        calendar: whether time stamps give covariates.
    """

    scales: pd.DataFrame
    covariates: StandardScaler | None
    numeric: list[str]
    numbers: StandardScaler | None
    categories: dict[str, list[str]]
    calendar: bool

    @classmethod
    def fit(cls, panels: Panel | Iterable[Panel], *, calendar: bool) -> "PanelScaling":
        """Learn from all rows of one panel or of several, which are looked at one after the other."""
        scales, covariates, numbers = [], _ColumnScalers(), _ColumnScalers()
        categories: dict[str, set[str]] = {}
        for panel in [panels] if isinstance(panels, Panel) else panels:
            scales.append(series_scales(panel))
            covariates.learn(np.concatenate([panel.past_covariates, panel.future_covariates], axis=1))
            numeric = list(panel.static_covariates.select_dtypes("number"))
            numbers.learn(panel.static_covariates[numeric].to_numpy(dtype=np.float64))
            for name in panel.static_covariates.columns.difference(numeric, sort=False):
                categories.setdefault(name, set()).update(panel.static_covariates[name].unique())
        return cls(
            scales=pd.concat(scales),
            covariates=covariates.scaler(),
            numeric=numeric,
            numbers=numbers.scaler(),
            categories={name: sorted(values) for name, values in categories.items()},
            calendar=calendar and not isinstance(panel.freq, int),
        )

    def with_series(self, history: Panel) -> "PanelScaling":
        """The same, with the scales of series that had no value in training, measured by their rows here."""
        known = self.scales.dropna()
        new = known.index.get_indexer(history.ids) < 0
        return replace(self, scales=pd.concat([known, series_scales(history)[new]])) if new.any() else self

    def of_target(self, panel: Panel) -> Float[np.ndarray, "N 2"]:
        """Mean and deviation of each series, NaN where it has no value; all must be known, see `with_series`."""
        place = self.scales.index.get_indexer(panel.ids)
        if (place < 0).any():
            raise KeyError(f"no scale of series {panel.ids[int(np.argmin(place))]!r}")
        return self.scales.to_numpy()[place]

    def features(self, panel: Panel) -> tuple[Float[np.ndarray, "R FG"], int]:
        """Covariates of every row, known ones first, and how many are known ahead.

        A column that has gaps in training or here would need a mark of its own: each covariate is followed by one, 1
            where missing.
        """
        both = np.concatenate([panel.past_covariates, panel.future_covariates], axis=1)
        if self.covariates is not None:
            both = self.covariates.transform(both)
        past, known = both[:, : panel.past_covariates.shape[1]], both[:, panel.past_covariates.shape[1] :]
        calendar = calendar_features(panel) if self.calendar else np.empty((len(both), 0))
        ahead = np.concatenate([calendar, _marked(known)], axis=1)
        return np.concatenate([ahead, _marked(past)], axis=1), ahead.shape[1]

    def static(self, panel: Panel) -> Float[np.ndarray, "N E"]:
        """Static covariates, standardised or one-hot; a category that training has not seen is all zeros.

        Raises:
            DataError: a covariate is a number here and text in training, or the other way round.
        """
        found = set(panel.static_covariates.select_dtypes("number"))
        changed = sorted(found ^ set(self.numeric))
        if changed:
            was, now = ("numbers", "text") if changed[0] in self.numeric else ("text", "numbers")
            raise DataError(f"static covariate {changed[0]!r} held {was} in training and holds {now} here")
        parts = [panel.static_covariates[self.numeric].to_numpy(dtype=np.float64)]
        if self.numbers is not None:
            parts = [self.numbers.transform(parts[0])]
        for name, values in self.categories.items():
            encoder = OneHotEncoder(categories=[values], handle_unknown="ignore", sparse_output=False)
            column = panel.static_covariates[[name]].to_numpy(dtype=object)
            parts.append(encoder.fit(np.array(values, dtype=object)[:, None]).transform(column))
        return np.concatenate(parts, axis=1)


def series_scales(panel: Panel) -> pd.DataFrame:
    """Mean and deviation (ddof 0) of the observed rows; NaN for a series without any, deviation 1 for one without
    spread.

    Raises:
        DataError: values so large that their deviation overflows.
    """
    groups = pd.Series(panel.target).groupby(panel.series)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = groups.mean().to_numpy(), groups.std(ddof=0).to_numpy()
    observed = groups.count().to_numpy() > 0
    wild = observed & ~(np.isfinite(mean) & np.isfinite(deviation))
    if wild.any():
        raise DataError(f"the values of series {panel.ids[int(np.argmax(wild))]} are too large to be standardised")
    # rounding leaves a constant series a deviation of some 1e-16 of its size
    flat = observed & ~(deviation > 1e-12 * np.maximum(np.abs(mean), 1e-300))
    return pd.DataFrame({"mean": mean, "scale": np.where(flat, 1.0, deviation)}, index=panel.ids)


def calendar_features(panel: Panel) -> Float[np.ndarray, "R K"]:
    """GluonTS's features for the frequency (hour of the day, day of the week, ...), each in [-0.5, 0.5].

    Raises:
        DataError: it has none for this frequency.
    """
    try:
        functions = time_features_from_frequency_str(str(panel.freq))
    except (ValueError, RuntimeError):
        raise DataError(f"there are no calendar covariates for freq {panel.freq!r}; give calendar=False") from None
    times = pd.DatetimeIndex(panel.times)
    stacked = [np.asarray(function(times), dtype=np.float64) for function in functions]
    return np.stack(stacked, axis=-1) if stacked else np.empty((len(times), 0))


def _marked(values: Float[np.ndarray, "R K"]) -> Float[np.ndarray, "R K2"]:
    """Each column followed by its mark: 1 and the value 0 where missing."""
    missing = np.isnan(values)
    return np.stack([np.where(missing, 0.0, values), missing], axis=-1).reshape(len(values), -1)


class _ColumnScalers:
    """A scaler for every column: one for all would keep the NaN that it makes of rows in which a column is empty."""

    def __init__(self) -> None:
        self.columns: list[StandardScaler] = []

    def learn(self, values: Float[np.ndarray, "R K"]) -> None:
        self.columns = self.columns or [StandardScaler() for _ in range(values.shape[1])]
        for scaler, column in zip(self.columns, values.T, strict=True):
            if len(known := column[~np.isnan(column)]):
                scaler.partial_fit(known[:, None])

    def scaler(self) -> StandardScaler | None:
        """One scaler of all columns, None without any; a column without a number is missing wherever it is used: 0 and
        1.
        """
        if not self.columns:
            return None
        known = [(one.mean_[0], one.scale_[0]) if hasattr(one, "mean_") else (0.0, 1.0) for one in self.columns]
        mean, scale = np.array(known).T
        return scaler_from(mean, scale)


class PanelWindows(Dataset[Batch]):
    """Windows of a panel, cut when they are asked for: memory grows with the rows, not with the windows.

    Args:
        panel: values; scaling: how they are standardised.
        lookback, horizon: L and H. A window that begins before its series is unobserved there.
        anchors: which series, and which of its rows is the first to forecast, for every window.

    A batch holds past_target, past_observed_values [B, L], future_target, future_observed_values [B, H],
    `past_features` [B, L, F + G], `future_features` [B, H, F], `static_features` [B, E] where there are any, and
    `index` [B].
    """

    def __init__(
        self,
        panel: Panel,
        scaling: PanelScaling,
        lookback: int,
        horizon: int,
        anchors: tuple[Int[np.ndarray, " W"], Int[np.ndarray, " W"]],
    ) -> None:
        self.lookback, self.horizon = lookback, horizon
        self.series, self.first = (torch.from_numpy(part.astype(np.int64)) for part in anchors)
        self.offsets = torch.from_numpy(panel.offsets)
        mean, scale = scaling.of_target(panel).T[:, panel.series]
        # a series without any value in training has no scale: what came of it later counts as missing
        self.observed: Bool[Tensor, " R"] = torch.from_numpy(~np.isnan(panel.target) & ~np.isnan(mean))
        with np.errstate(over="ignore"):
            scaled = np.where(self.observed.numpy(), (panel.target - mean) / scale, 0.0).astype(np.float32)
        if np.isinf(scaled).any():
            row = int(np.argmax(np.isinf(scaled)))
            raise DataError(
                f"series {panel.ids[panel.series[row]]}, {panel.columns.time} {panel.times[row]}: "
                f"{panel.target[row]:g} is too far from the "
                "values the series is scaled by"
            )
        self.target = torch.from_numpy(scaled)
        features, self.ahead = scaling.features(panel)
        self.features = torch.from_numpy(features.astype(np.float32))
        self.static = torch.from_numpy(scaling.static(panel).astype(np.float32))

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: int) -> Batch:
        return {name: batch[0] for name, batch in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        series = self.series[chosen]
        begin, end = self.offsets[series, None], self.offsets[series + 1, None]
        rows = begin + self.first[chosen, None] + torch.arange(-self.lookback, self.horizon)  # [B, L + H]
        inside = (rows >= begin) & (rows < end)
        rows = rows.clamp(0, len(self.target) - 1)
        observed = self.observed[rows] & inside
        target = torch.where(observed, self.target[rows], 0.0)
        batch = {
            "past_target": target[:, : self.lookback],
            "past_observed_values": observed[:, : self.lookback].float(),
            "future_target": target[:, self.lookback :],
            "future_observed_values": observed[:, self.lookback :].float(),
            "index": chosen,
        }
        if self.features.shape[1]:
            features = torch.where(inside[..., None], self.features[rows], 0.0)
            batch["past_features"] = features[:, : self.lookback]
            if self.ahead:
                batch["future_features"] = features[:, self.lookback :, : self.ahead]
        if self.static.shape[1]:
            batch["static_features"] = self.static[series]
        return batch


def training_anchors(panel: Panel, lookback: int, horizon: int, last: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """First rows to forecast of every window a model may learn from, whole horizons only.

    A window begins with its whole lookback, or, in a series shorter than two lookbacks, at the middle of what it has.
    Windows without an observed row on either side are left out.

    Args:
        last: only windows whose horizon ends within so many last rows (0: all).
    """
    latest = panel.lengths - horizon
    earliest = np.minimum(lookback, np.maximum(1, latest // 2))
    if last:
        earliest = np.maximum(earliest, panel.lengths - last)
    counts = np.maximum(latest - earliest + 1, 0)
    series = np.repeat(np.arange(len(panel)), counts)
    first = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(earliest, counts)
    seen = np.concatenate([[0], np.cumsum(~np.isnan(panel.target))])
    at, start = panel.offsets[series] + first, panel.offsets[series]
    past = seen[at] - seen[np.maximum(at - lookback, start)]
    future = seen[at + horizon] - seen[at]
    kept = (past > 0) & (future > 0)
    return series[kept], first[kept]
