"""How the series and the covariates of a panel are standardised, by what was known when a model was trained.

R rows of all series, N series, F future covariates (calendar included), G past ones, E static ones.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from gluonts.time_feature import time_features_from_frequency_str
from jaxtyping import Bool, Float, Int
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.calendar import alias
from titans_seq.datamodules.forecast.holiday_features import checked_holidays, holiday_features
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.transforms import TargetTransform, plain_transform, transform_of
from titans_seq.datamodules.forecast.weights import without_weight

FEW = 8  # values: fewer say nothing of how far a series moves
BLOCK_ROWS = 2**18  # standardised at a time
FLAT = 1e-12  # of its mean: rounding leaves a constant series a deviation of some 1e-16
NEVER_MOVED = 1e-3  # of its mean: the scale of a constant series where no other one moves


@dataclass(frozen=True, eq=False)
class PanelScaling:
    """What was learned from the rows a model may see: nothing else ever enters it.

    Args:
        scales: columns `mean` and `scale` of each training series, by its name; NaN for one without a value.
        typical: deviation of a typical series, and its share of the size of its mean; NaN where none moves.
        covariates: fitted on past and future covariates; None without any.
        numeric: names of the numeric static covariates.
        numbers: fitted on them; None without any.
        categories: values of each textual static covariate.
        calendar: whether time stamps give covariates.
        transform: of the target, before it is standardised; None: the target itself.
        holidays: codes whose holidays are covariates, see `holiday_features`.
        weight: name of the column of sample weights, read with the past covariates but not one of them; None outside
            training.
        usual_weight: the weight that counts as 1; None: the mean of those above 0 of a panel.
    """

    scales: pd.DataFrame
    typical: tuple[float, float]
    covariates: StandardScaler | None
    numeric: list[str]
    numbers: StandardScaler | None
    categories: dict[str, list[str]]
    calendar: bool
    transform: TargetTransform | None = None
    holidays: tuple[str, ...] = ()
    weight: str | None = None
    usual_weight: float | None = None

    @classmethod
    def fit(
        cls,
        panels: Panel | Iterable[Panel],
        *,
        calendar: bool,
        transform: TargetTransform | None = None,
        holidays: tuple[str, ...] = (),
    ) -> "PanelScaling":
        """Learn from all rows of one panel or of several, which are looked at one after the other."""
        moments, covariates, numbers = [], _ColumnScalers(), _ColumnScalers()
        categories: dict[str, set[str]] = {}
        for panel in [panels] if isinstance(panels, Panel) else panels:
            moments.append(_moments(panel, transform))
            covariates.learn(np.concatenate([panel.past_covariates, panel.future_covariates], axis=1))
            numeric = list(panel.static_covariates.select_dtypes("number"))
            numbers.learn(panel.static_covariates[numeric].to_numpy(dtype=np.float64))
            for name in panel.static_covariates.columns.difference(numeric, sort=False):
                categories.setdefault(name, set()).update(panel.static_covariates[name].unique())
        found = pd.concat(moments)
        typical = _typical(found)
        return cls(
            scales=_scales(found, typical),
            typical=typical,
            covariates=covariates.scaler(),
            numeric=numeric,
            numbers=numbers.scaler(),
            categories={name: sorted(values) for name, values in categories.items()},
            calendar=calendar and not isinstance(panel.freq, int),
            transform=transform,
            holidays=holidays,
        )

    def with_series(self, history: Panel) -> "PanelScaling":
        """The same, with the scales of series that had no value in training, measured by their rows here."""
        new = self.scales.dropna().index.get_indexer(history.ids) < 0
        if not new.any():
            return self
        others = self.scales.drop(index=history.ids[new], errors="ignore")
        return replace(self, scales=pd.concat([others, _scales(_moments(history, self.transform), self.typical)[new]]))

    def of_target(self, panel: Panel) -> Float[np.ndarray, "N 2"]:
        """Mean and deviation of each series, NaN where it had no value or is unknown, see `with_series`."""
        return self.scales.reindex(panel.ids).to_numpy()

    def learned(self, panel: Panel, rows: slice) -> Float[np.ndarray, " r"]:
        """The target of some rows as it is learned, before it is standardised.

        Raises:
            DataError: a value is outside of the domain of the transform.
        """
        return _learned(panel, rows, self.transform)

    def to_units(self, moments: Float[np.ndarray, "B 2"], points: Float[np.ndarray, "B H"]) -> Float[np.ndarray, "B H"]:
        """Standardised forecasts in the units of the data; moments: of their series, see `of_target`."""
        mean, deviation = moments.T[..., None]
        values = points * deviation + mean
        return values if self.transform is None else self.transform.to_units(values)

    def samples(self, moments: Float[np.ndarray, "B 2"], values: Float[np.ndarray, "B M"]) -> Float[np.ndarray, "B M"]:
        """As `to_units`, for draws: those of counts are counts."""
        found = self.to_units(moments, values)
        return np.rint(found) if self.transform is not None and self.transform.whole else found

    def interval(
        self, moments: Float[np.ndarray, "B 2"], bounds: Float[np.ndarray, "B H P 2"]
    ) -> Float[np.ndarray, "B H P 2"]:
        """As `to_units`, for lower and upper bounds."""
        mean, deviation = moments.T[..., None, None, None]
        values = bounds * deviation + mean
        return values if self.transform is None else self.transform.interval(values)

    def features(self, panel: Panel) -> tuple[Float[np.ndarray, "R FG"], int]:
        """Covariates of every row, future ones first, and how many of those there are.

        Each covariate is followed by a mark, 1 where it is missing.
        """
        panel = without_weight(panel, self.weight)
        both = np.concatenate([panel.past_covariates, panel.future_covariates], axis=1)
        if self.covariates is not None:
            both = self.covariates.transform(both)
        past, future = np.split(both, [panel.past_covariates.shape[1]], axis=1)
        calendar = calendar_features(panel) if self.calendar else np.empty((len(both), 0))
        ahead = np.concatenate([calendar, holiday_features(panel, self.holidays), _marked(future)], axis=1)
        return np.concatenate([ahead, _marked(past)], axis=1), ahead.shape[1]

    def groups(self, panel: Panel) -> list[tuple[str, str, list[int]]]:
        """Name and kind ("past", "future", "static", "calendar") of each covariate, and its columns in `features` or,
        of static ones, in `static`.
        """
        columns = without_weight(panel, self.weight).columns
        one_row = panel.rows(np.zeros(len(panel), dtype=np.int64), np.ones(len(panel), dtype=np.int64))
        sizes = [("calendar", "calendar", calendar_features(one_row).shape[1])] if self.calendar else []
        each = [holiday_features(one_row, [code]).shape[1] for code in self.holidays]
        sizes += [(f"holidays {code}", "calendar", size) for code, size in zip(self.holidays, each, strict=True)]
        sizes += [(name, "future", 2) for name in columns.future_covariates]  # the value and its mark
        sizes += [(name, "past", 2) for name in columns.past_covariates]
        static = [(name, "static", 1) for name in self.numeric]
        static += [(name, "static", len(values)) for name, values in self.categories.items()]
        return [group for group in (*_placed(sizes), *_placed(static)) if group[2]]

    def static(self, panel: Panel) -> Float[np.ndarray, "N E"]:
        """Static covariates, standardised or one-hot; a category that training has not seen is all zeros.

        Raises:
            DataError: a covariate is a number here and text in training, or the other way round.
        """
        table = panel.static_covariates
        changed = sorted(set(table.select_dtypes("number")) ^ set(self.numeric))
        if changed:
            was, now = ("numbers", "text") if changed[0] in self.numeric else ("text", "numbers")
            raise DataError(f"static covariate {changed[0]!r} held {was} in training and holds {now} here")
        parts = [table[self.numeric].to_numpy(dtype=np.float64)]
        if self.numbers is not None:
            parts = [self.numbers.transform(parts[0])]
        for name, values in self.categories.items():
            encoder = OneHotEncoder(categories=[values], handle_unknown="ignore", sparse_output=False)
            column = table[[name]].to_numpy(dtype=object)
            parts.append(encoder.fit(np.array(values, dtype=object)[:, None]).transform(column))
        return np.concatenate(parts, axis=1)

    # files -----------------------------------------------------------------------------------------------------------

    def pack(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What JSON can hold, and arrays."""
        about = {
            "scale_ids": self.scales.index.tolist(),
            "numeric": self.numeric,
            "categories": self.categories,
            "calendar": self.calendar,
            "transform": plain_transform(self.transform),
            "holidays": list(self.holidays),
        }
        arrays = {"scales": self.scales.to_numpy(np.float64), "typical": np.array(self.typical)}
        for name, scaler in (("covariates", self.covariates), ("numbers", self.numbers)):
            if scaler is not None:
                arrays |= {f"{name}_mean": scaler.mean_, f"{name}_scale": scaler.scale_}
        return about, arrays

    @classmethod
    def unpack(cls, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> "PanelScaling":
        """What `pack` gave.

        Raises:
            KeyError, TypeError, ValueError: something is missing or does not fit.
        """
        ids, scales, typical = about["scale_ids"], arrays["scales"], arrays["typical"]
        if not isinstance(ids, list) or not all(isinstance(name, str | int | float) for name in ids):
            raise ValueError("ids must be texts or numbers")
        texts = [about["numeric"], list(about["categories"]), *about["categories"].values()]
        named = all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in texts)
        if not named or not isinstance(about["calendar"], bool):
            raise ValueError("the covariates are not named by text")
        given = scales[~np.isnan(scales).all(axis=-1)]
        if scales.shape != (len(ids), 2) or not np.isfinite(given).all() or (given[:, 1] <= 0).any():
            raise ValueError("the scales are not those of the series")
        if typical.shape != (2,) or (typical <= 0).any() or np.isinf(typical).any():
            raise ValueError("the typical scale is not a positive number")
        return cls(
            scales=pd.DataFrame(scales, index=pd.Index(ids), columns=["mean", "scale"]),
            typical=(float(typical[0]), float(typical[1])),
            covariates=_scaler_of(arrays, "covariates"),
            numeric=about["numeric"],
            numbers=_scaler_of(arrays, "numbers"),
            categories=about["categories"],
            calendar=about["calendar"],
            transform=transform_of(about["transform"]),
            holidays=checked_holidays(about["holidays"]),
        )


def _placed(sizes: Sequence[tuple[str, str, int]]) -> list[tuple[str, str, list[int]]]:
    """The column numbers of each group; groups follow one another."""
    ends = np.cumsum([size for *_, size in sizes], dtype=int)
    return [(name, kind, list(range(end - size, end))) for (name, kind, size), end in zip(sizes, ends, strict=True)]


def _learned(panel: Panel, rows: slice, transform: TargetTransform | None) -> Float[np.ndarray, " r"]:
    return panel.target[rows] if transform is None else transform.of_rows(panel, rows)


def _moments(panel: Panel, transform: TargetTransform | None) -> pd.DataFrame:
    """Number, mean and deviation (ddof 0) of the observed values of each series, NaN without any.

    Raises:
        DataError: values so large that their deviation overflows.
    """
    count, mean, deviation = np.empty((3, len(panel)))
    for which in blocks_of_series(panel.offsets):
        begin, end = panel.offsets[which.start], panel.offsets[which.stop]
        starts, lengths = panel.offsets[which] - begin, panel.lengths[which]
        rows = slice(int(begin), int(end))
        values = _learned(panel, rows, transform)
        seen = ~np.isnan(values)
        with np.errstate(over="ignore", invalid="ignore"):
            count[which] = np.add.reduceat(seen.astype(np.int64), starts)
            mean[which] = np.add.reduceat(np.where(seen, values, 0.0), starts) / count[which]
            centred = np.where(seen, values - np.repeat(mean[which], lengths), 0.0)
            deviation[which] = np.sqrt(np.add.reduceat(np.square(centred), starts) / count[which])
    wild = (count > 0) & ~(np.isfinite(mean) & np.isfinite(deviation))
    if wild.any():
        raise DataError(f"the values of series {panel.ids[int(np.argmax(wild))]} are too large to be standardised")
    return pd.DataFrame({"count": count, "mean": mean, "deviation": deviation}, index=panel.ids)


def blocks_of_series(offsets: Int[np.ndarray, " N1"], rows: int = BLOCK_ROWS) -> Iterator[slice]:
    """Runs of series with about `rows` rows together, so that temporaries stay small."""
    begin = 0
    while begin < len(offsets) - 1:
        end = max(begin + 1, int(np.searchsorted(offsets, offsets[begin] + rows, side="right")) - 1)
        yield slice(begin, end)
        begin = end


def _moves(moments: pd.DataFrame) -> Bool[np.ndarray, " N"]:
    return (moments["deviation"] > FLAT * moments["mean"].abs().clip(lower=1e-300)).to_numpy()


def _typical(moments: pd.DataFrame) -> tuple[float, float]:
    """Median of the deviations, and of their share of the mean's size, over series that move and are not short."""
    moving = moments[_moves(moments)]
    long = moving[moving["count"] >= FEW]
    chosen = long if len(long) else moving
    share = (chosen["deviation"] / chosen["mean"].abs())[chosen["mean"] != 0]
    return float(chosen["deviation"].median()), float(share.median())


def _scales(moments: pd.DataFrame, typical: tuple[float, float]) -> pd.DataFrame:
    """Mean and scale of each series: its own deviation, and what is typical of the panel where that says nothing.

    A flat series is scaled by the typical deviation, or by the typical share of its own size if that is less: neither
    a rate among sales nor sales among rates gets the other's unit. A short one has at least that scale.
    """
    size = moments["mean"].abs()
    by_share = (size * typical[1]).where(size > 0)
    stand_in = pd.concat([by_share, pd.Series(typical[0], moments.index)], axis=1).min(axis=1)  # NaN does not count
    stand_in = stand_in.fillna(NEVER_MOVED * size).where(lambda value: value > 0, 1.0)  # 1: all zeros in all series
    scale = moments["deviation"].where(_moves(moments), stand_in)
    scale = scale.where(moments["count"] >= FEW, np.maximum(scale, stand_in))
    scale = scale.where(moments["count"] > 0)
    return pd.DataFrame({"mean": moments["mean"], "scale": scale}, index=moments.index)


def calendar_features(panel: Panel) -> Float[np.ndarray, "R K"]:
    """GluonTS's features for the frequency (hour of the day, day of the week, ...), each in [-0.5, 0.5].

    Raises:
        DataError: it has none for this frequency.
    """
    freq = str(panel.freq) if isinstance(panel.freq, int) else alias(panel.freq)
    try:
        functions = time_features_from_frequency_str(freq)
    except (ValueError, RuntimeError):
        raise DataError(f"freq {freq!r} has no calendar covariates; give calendar=False") from None
    times = panel.dates
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
        return _scaler(*np.array(known).T)


def _scaler(mean: Float[np.ndarray, " K"], scale: Float[np.ndarray, " K"]) -> StandardScaler:
    """A fitted scaler with these numbers."""
    if not np.isfinite([mean, scale]).all():
        raise ValueError("the mean or the scale of a covariate is not finite")
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_ = np.array(mean, dtype=np.float64), np.array(scale, dtype=np.float64)
    scaler.var_, scaler.n_features_in_ = scaler.scale_**2, len(scaler.mean_)
    return scaler


def _scaler_of(arrays: dict[str, np.ndarray], name: str) -> StandardScaler | None:
    return _scaler(arrays[f"{name}_mean"], arrays[f"{name}_scale"]) if f"{name}_mean" in arrays else None
