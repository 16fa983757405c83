"""Maps of the target that are learned on instead of the target itself: applied before a series is standardised, and
undone in forecasts.

R rows of all series.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.panel import Panel

Values = Float[np.ndarray, "..."]


class TargetTransform:
    """A map of the target that keeps the order of values.

    Attributes:
        name: by which a saved forecaster knows it; None: it cannot be saved.
        domain: what the target must be, in words.
        least: no target and no forecast is below it.
        whole: whether the target is counts: intervals end at whole numbers, and windows carry the units of their series
            for outputs that need the counts themselves.
    """

    name: str | None = None
    domain = "in the domain of the transform"
    least = -np.inf
    whole = False

    def forward(self, values: Values) -> Values:
        """Observed values -> what is learned; what is outside of the domain becomes NaN or infinite."""
        raise NotImplementedError

    def inverse(self, values: Values) -> Values:
        raise NotImplementedError

    def of_rows(self, panel: Panel, rows: slice) -> Float[np.ndarray, " r"]:
        """Some rows of a panel, NaN where missing.

        Raises:
            DataError: a value is outside of the domain; the message names series and row.
        """
        values = panel.target[rows]
        seen = ~np.isnan(values)
        with np.errstate(all="ignore"):
            found = np.full(len(values), np.nan)
            found[seen] = self.forward(values[seen])
        wrong = seen & (~np.isfinite(found) | (values < self.least))
        if wrong.any():
            row = (rows.start or 0) + int(np.argmax(wrong))
            series = panel.ids[np.searchsorted(panel.offsets, row, side="right") - 1]
            raise DataError(
                f"series {series}, {panel.columns.time} {panel.stamps(np.array([row]))[0]}: the target must be "
                f"{self.domain}; got {panel.target[row]:g}"
            )
        return found

    def to_units(self, values: Values) -> Values:
        """Forecasts in the units of the data."""
        with np.errstate(over="ignore"):
            return np.maximum(self.inverse(values), self.least)

    def interval(self, bounds: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... 2"]:
        """Lower and upper bounds in the units of the data."""
        return self.to_units(bounds)


class Log1p(TargetTransform):
    """z = log(1 + y): for targets of sizes from 0 to large."""

    name, domain, least = "log1p", "at least 0 for transform='log1p'", 0.0

    def forward(self, values: Values) -> Values:
        return np.log1p(values)

    def inverse(self, values: Values) -> Values:
        return np.expm1(values)


class Softplus(TargetTransform):
    """y = log(1 + e^z) - log 2: next to nothing happens to large values, and 0 stays 0."""

    name, domain, least = "softplus", "at least 0 for transform='softplus'", 0.0

    def forward(self, values: Values) -> Values:
        shifted = values + np.log(2)
        return shifted + np.log(-np.expm1(-shifted))

    def inverse(self, values: Values) -> Values:
        return np.logaddexp(0, values) - np.log(2)


class Counts(TargetTransform):
    """y itself, which must be whole numbers from 0 on."""

    name, domain, least, whole = "counts", "a whole number >= 0 for an output of counts", 0.0, True

    def forward(self, values: Values) -> Values:
        return np.where((values >= 0) & (values == np.floor(values)), values, np.nan)

    def inverse(self, values: Values) -> Values:
        return values

    def interval(self, bounds: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... 2"]:
        """Rounded outwards: an interval covers what it did."""
        low, high = bounds[..., 0], bounds[..., 1]
        # 3 that came back as 3.0000001 is 3
        rounded = np.stack([np.floor(low + 1e-6), np.ceil(high - 1e-6)], axis=-1)
        return np.maximum(rounded, self.least)


class OwnTransform(TargetTransform):
    """An object of the user's own, or a transformer of scikit-learn's (which takes columns)."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.in_columns = hasattr(given, "inverse_transform")

    def fit(self, values: Float[np.ndarray, " R"]) -> "OwnTransform":
        """Learn from observed values, where the object can; the user's object stays as it is."""
        if hasattr(self.given, "fit"):
            self.given = copy.deepcopy(self.given)
            self.given.fit(self._shaped(values))
        return self

    def forward(self, values: Values) -> Values:
        return self._flat(self.given.transform, values)

    def inverse(self, values: Values) -> Values:
        """Infinite bounds of intervals stay what they are: objects of scikit-learn refuse them."""
        undo = self.given.inverse_transform if self.in_columns else self.given.inverse
        found, finite = values.astype(np.float64), np.isfinite(values)
        found[finite] = self._flat(undo, values[finite])
        return found

    def interval(self, bounds: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... 2"]:
        return np.sort(self.to_units(bounds), axis=-1)  # a transform may turn the order of values around

    def _shaped(self, values: Values) -> Values:
        return values.reshape(-1, 1) if self.in_columns else values.ravel()

    def _flat(self, change: Callable[[Values], Any], values: Values) -> Values:
        if not values.size:  # scikit-learn takes no empty columns
            return values
        return np.asarray(change(self._shaped(values)), dtype=np.float64).reshape(values.shape)


TRANSFORMS: dict[str, type[TargetTransform]] = {each.name: each for each in (Log1p, Softplus, Counts)}  # type: ignore[misc]
NAMES = ("log1p", "softplus")  # that users ask for


def check_transform(given: Any) -> None:
    """Raise a ValueError unless this is None, a name, or an object that can be used."""
    if given is None or (isinstance(given, str) and given in NAMES):
        return
    usable = hasattr(given, "transform") and (hasattr(given, "inverse") or hasattr(given, "inverse_transform"))
    if isinstance(given, str) or not usable:
        raise ValueError(
            f"transform must be None, one of {', '.join(NAMES)}, or an object with transform and inverse (or "
            f"inverse_transform); got {given!r}"
        )


def fitted_transform(given: Any, panels: Iterable[Panel]) -> TargetTransform | None:
    """The transform of what `check_transform` accepts; an object that can be fitted learns from all these rows."""
    if given is None:
        return None
    if isinstance(given, str):
        return TRANSFORMS[given]()
    return OwnTransform(given).fit(np.concatenate([_observed(panel) for panel in panels]))


def transform_of(name: str | None) -> TargetTransform | None:
    """What a file names.

    Raises:
        ValueError: there is none of that name.
    """
    if name is None:
        return None
    if name not in TRANSFORMS:
        raise ValueError(f"transform must be one of {', '.join(TRANSFORMS)}; got {name!r}")
    return TRANSFORMS[name]()


def _observed(panel: Panel) -> Float[np.ndarray, " r"]:
    return panel.target[~np.isnan(panel.target)]


def plain_transform(transform: TargetTransform | None) -> str | None:
    """The name under which it is saved.

    Raises:
        ValueError: it has none.
    """
    if transform is None:
        return None
    if transform.name is None:
        raise ValueError(
            "a forecaster with a transform of your own cannot be saved, since nothing is pickled: use "
            "transform='log1p' or 'softplus', or transform the frame yourself"
        )
    return transform.name
