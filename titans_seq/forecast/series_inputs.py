"""A series of a GluonTS dataset, checked and brought into the form the network reads."""

import numpy as np
import pandas as pd
from gluonts.core.component import validated
from gluonts.dataset.common import DataEntry
from gluonts.dataset.field_names import FieldName
from gluonts.time_feature import TimeFeature, norm_freq_str, time_features_from_frequency_str
from gluonts.transform import MapTransformation
from pandas.tseries.frequencies import to_offset

KNOWN, PAST, STATIC = FieldName.FEAT_DYNAMIC_REAL, FieldName.PAST_FEAT_DYNAMIC_REAL, FieldName.FEAT_STATIC_REAL
CATEGORIES = FieldName.FEAT_STATIC_CAT


class SeriesInputs(MapTransformation):
    """Checks the fields of a series and brings them into the form the network reads.

    The target and the covariates become float32, covariates are cut to the steps that are read, and numeric and one-hot
    categorical static covariates are joined to `static_features` [E].

    Args:
        prediction_length: H. Known covariates reach so many steps past the target when forecasting.
        num_feat_dynamic_real, num_past_feat_dynamic_real, num_feat_static_real: how many of each there are.
        cardinality: number of categories of each categorical static covariate.
        freq: pandas alias of the step that the series must have. None: any step.

    Raises:
        ValueError: a field is absent, has another shape or a value that cannot be used. NaN is a gap in the target and
            an error in a covariate.
    """

    @validated()
    def __init__(
        self,
        prediction_length: int,
        num_feat_dynamic_real: int,
        num_past_feat_dynamic_real: int,
        num_feat_static_real: int,
        cardinality: list[int],
        freq: str | None = None,
    ) -> None:
        self.prediction_length = prediction_length
        self.known, self.past, self.static = num_feat_dynamic_real, num_past_feat_dynamic_real, num_feat_static_real
        self.cardinality, self.freq = cardinality, freq

    def map_transform(self, data: DataEntry, is_train: bool) -> DataEntry:
        if self.freq is not None:
            _check_step(data, self.freq)
        target = _numbers(data, FieldName.TARGET)
        if target.ndim != 1 or np.isinf(target).any():
            raise _error(data, FieldName.TARGET, "be one row of finite numbers or NaN", target)
        data[FieldName.TARGET] = target
        steps = len(target)
        if self.known:
            data[KNOWN] = _covariates(data, KNOWN, self.known, steps + (0 if is_train else self.prediction_length))
        if self.past:
            data[PAST] = _covariates(data, PAST, self.past, steps)
        if self.static or self.cardinality:
            data["static_features"] = np.concatenate([self._numeric(data), self._one_hot(data)])
        return data

    def _numeric(self, data: DataEntry) -> np.ndarray:
        if not self.static:
            return np.empty(0, dtype=np.float32)
        values = _numbers(data, STATIC)
        if values.shape != (self.static,) or not np.isfinite(values).all():
            raise _error(data, STATIC, f"be {self.static} finite numbers", values)
        return values

    def _one_hot(self, data: DataEntry) -> np.ndarray:
        hot = np.zeros(sum(self.cardinality), dtype=np.float32)
        if self.cardinality:
            values, sizes = _numbers(data, CATEGORIES), np.array(self.cardinality)
            whole = values.shape == sizes.shape and (values == np.floor(values)).all()
            if not whole or (values < 0).any() or (values >= sizes).any():
                raise _error(data, CATEGORIES, f"be whole numbers from 0 to below {self.cardinality}", values)
            hot[np.cumsum(sizes) - sizes + values.astype(int)] = 1
        return hot


def time_features_of(freq: str) -> list[TimeFeature]:
    """GluonTS's time features of a pandas alias."""
    try:
        return time_features_from_frequency_str(freq)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"freq must be a frequency for which GluonTS has time features; got {freq!r}") from error


def _check_step(data: DataEntry, freq: str) -> None:
    start = data.get(FieldName.START)
    found = start.freqstr if isinstance(start, pd.Period) else None
    if found is None or _step(start.freq) != _step(to_offset(freq)):
        got = f"a step of {found!r}" if found else f"{start!r}, which has no step"
        raise ValueError(f"start must be a pandas Period of the estimator's freq {freq!r}; "
                         f"item {data.get(FieldName.ITEM_ID)!r} has {got}")  # fmt: skip


def _step(offset: pd.offsets.BaseOffset) -> tuple[int, str]:
    """The step without its anchor, which periods do not have: "MS" and "ME" are a month, "60min" is an hour."""
    return (offset.nanos, "") if isinstance(offset, pd.offsets.Tick) else (offset.n, norm_freq_str(offset.name))


def _numbers(data: DataEntry, field: str) -> np.ndarray:
    if data.get(field) is None:
        raise ValueError(f"{field} must be in every series; item {data.get(FieldName.ITEM_ID)!r} has none")
    return np.asarray(data[field], dtype=np.float32)


def _covariates(data: DataEntry, field: str, rows: int, steps: int) -> np.ndarray:
    """-> [rows, steps]; what lies beyond is not looked at."""
    values = _numbers(data, field)
    if values.ndim != 2 or len(values) != rows or values.shape[1] < steps:
        raise _error(data, field, f"be [{rows}, {steps}], or longer,", values)
    values = values[:, :steps]
    if not np.isfinite(values).all():
        raise _error(data, field, "be finite (fill gaps, and mark them by a covariate of their own)", values)
    return values


def _error(data: DataEntry, field: str, rule: str, values: np.ndarray) -> ValueError:
    wrong = values[~np.isfinite(values)]
    got = f"{wrong[0]}" if wrong.size else f"{values.tolist()}" if values.size <= 8 else f"shape {list(values.shape)}"
    return ValueError(f"{field} must {rule}; item {data.get(FieldName.ITEM_ID)!r} has {got}")
