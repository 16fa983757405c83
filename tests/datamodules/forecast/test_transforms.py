"""Maps of the target: there and back, their domains, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import PowerTransformer, QuantileTransformer

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.panel import Columns, Panel
from titans_seq.datamodules.forecast.reading import read_panel
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.transforms import (
    Counts,
    Log1p,
    OwnTransform,
    Softplus,
    check_transform,
    fitted_transform,
    plain_transform,
    transform_of,
)

KINDS = {"log1p": Log1p(), "softplus": Softplus(), "counts": Counts()}


class Halved:
    """A transform of a user's own, for arrays, which turns the order around."""

    def transform(self, values):
        return -values / 2

    def inverse(self, values):
        return -2 * values


class Logarithm(Halved):
    def transform(self, values):
        return np.log(values)


def panel(values) -> Panel:
    days = pd.date_range("2024", periods=len(values))
    return read_panel(pd.DataFrame({"unique_id": "a", "ds": days, "y": values}), Columns(), "D")


@pytest.mark.parametrize(
    "transform", [Log1p(), Softplus(), Counts(), OwnTransform(Halved())], ids=lambda t: str(t.name)
)
def test_there_and_back(transform):
    values = np.array([0.0, 1.0, 2.0, 700.0, 1e6])
    np.testing.assert_allclose(transform.to_units(transform.forward(values)), values, rtol=1e-9, atol=1e-9)


def test_named_ones_by_hand_and_never_below_zero():
    np.testing.assert_allclose(Log1p().forward(np.array([0.0, np.e - 1])), [0, 1])
    np.testing.assert_allclose(Softplus().inverse(np.array([0.0, 100.0])), [0, 100 - np.log(2)], atol=1e-12)
    for transform in (Log1p(), Softplus(), Counts()):
        assert (transform.to_units(np.array([-50.0, -1.0])) == 0).all()


def test_intervals_of_counts_are_rounded_outwards():
    found = Counts().interval(np.array([[1.2, 2.2], [2.9999999, 3.0000001], [-4.0, 0.0]]))
    assert found.tolist() == [[1, 3], [3, 3], [0, 0]]


def test_intervals_of_a_decreasing_transform_are_turned_around():
    assert OwnTransform(Halved()).interval(np.array([[1.0, 3.0]])).tolist() == [[-6, -2]]


@pytest.mark.parametrize(
    "transform, value, message",
    [
        (Log1p(), -0.1, "series a, ds 2024-01-03 00:00:00: .* must be at least 0 for transform='log1p'; got -0.1"),
        (Log1p(), -1.0, "must be at least 0 for transform='log1p'; got -1"),
        (Softplus(), -1e-6, "must be at least 0 for transform='softplus'; got -1e-06"),
        (Counts(), 1.5, "must be a whole number >= 0 for an output of counts; got 1.5"),
        (Counts(), -1.0, "must be a whole number .*; got -1"),
        (
            OwnTransform(type("Log", (Halved,), {"transform": lambda self, v: np.log(v)})()),
            0.0,
            "domain of the .*got 0",
        ),
    ],
    ids=["log1p", "infinite", "softplus", "half", "negative", "own"],
)
def test_values_outside_of_the_domain_are_named(transform, value, message):
    with pytest.raises(DataError, match=message):
        PanelScaling.fit(panel([2.0, np.nan, value, 3.0]), calendar=False, transform=transform)


def test_scaling_is_that_of_the_transformed_values_and_comes_back_from_a_file():
    data = panel([1.0, np.nan, 7.0, 3.0])
    scaling = PanelScaling.fit(data, calendar=False, transform=Log1p())
    logs = np.log1p([1.0, 7.0, 3.0])
    assert scaling.scales.loc["a", "mean"] == pytest.approx(logs.mean())
    again = PanelScaling.unpack(*scaling.pack())
    points = np.array([[0.0, 1.0]])
    moments = scaling.of_target(data)
    np.testing.assert_array_equal(again.to_units(moments, points), scaling.to_units(moments, points))
    with pytest.raises(ValueError, match="transform must be one of log1p, .*; got 'exec'"):
        PanelScaling.unpack(scaling.pack()[0] | {"transform": "exec"}, scaling.pack()[1])
    assert transform_of(None) is None and plain_transform(None) is None


@pytest.mark.parametrize("given", [PowerTransformer(), QuantileTransformer(n_quantiles=50)], ids=str)
def test_transformers_of_scikit_learn_are_fitted_on_observed_values(given):
    values = np.random.default_rng(0).lognormal(size=200)
    data = panel(np.where(np.arange(200) % 7 == 0, np.nan, values))
    found = fitted_transform(given, [data, replace(data)])
    assert not hasattr(given, "n_features_in_")  # the user's own stays as it was
    inside = values[np.arange(200) % 7 != 0]
    np.testing.assert_allclose(found.to_units(found.forward(inside)), inside, rtol=1e-6)
    with pytest.raises(ValueError, match="a transform of your own cannot be saved, since nothing is pickled"):
        plain_transform(found)


@pytest.mark.parametrize("given", ["log", 3, "counts", object()], ids=["log", "3", "counts", "object"])
def test_what_is_no_transform_is_refused(given):
    with pytest.raises(ValueError, match="transform must be None, one of log1p, softplus, or an object with") as error:
        check_transform(given)
    assert "\n" not in str(error.value)
