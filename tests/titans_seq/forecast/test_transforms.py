"""Forecasts of a transformed target, in the units of the data."""

import numpy as np
import pandas as pd
import pytest
from hourly_frames import SMALL, frame
from sklearn.base import clone
from sklearn.preprocessing import FunctionTransformer, PowerTransformer, StandardScaler

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataError, DataWarning


def near_zero() -> pd.DataFrame:
    """Series that are often 0, so that plain intervals reach below."""
    data = frame((150, 130), gaps=False)[["unique_id", "ds", "y"]]
    return data.assign(y=np.random.default_rng(0).poisson(0.7, len(data)) * data["y"])


@pytest.mark.parametrize("transform", ["log1p", "softplus"])
@pytest.mark.parametrize("output", ["quantiles", "student_t", "mse"])
def test_named_transforms_give_no_negative_forecasts(transform, output, tmp_path):
    data = near_zero()
    model = TitansForecaster(**SMALL, transform=transform, output=output).fit(data)
    found = model.predict(level=(80, 99))
    assert (found.iloc[:, 2:] >= 0).all().all() and np.isfinite(found.iloc[:, 2:]).all().all()
    model.save(tmp_path)
    again = TitansForecaster.load(tmp_path)
    assert again.transform == transform
    pd.testing.assert_frame_equal(again.predict(level=(80, 99)), found)
    assert (model.backtest(data).filter(like="-lo-") >= 0).all().all()


def test_without_a_transform_they_are_negative():
    found = TitansForecaster(**SMALL).fit(near_zero()).predict()
    assert (found.filter(like="-lo-") < 0).any().any()


@pytest.mark.parametrize("output", ["quantiles", "student_t"])
def test_a_transform_is_the_same_as_one_of_the_frame(output):
    """Median and bounds: fitting on log(1 + y), then undoing it by hand."""
    data = frame((140, 120))[["unique_id", "ds", "y"]]
    found = TitansForecaster(**SMALL, transform="log1p", output=output).fit(data).predict()
    by_hand = TitansForecaster(**SMALL, output=output).fit(data.assign(y=np.log1p(data["y"]))).predict()
    for name in found.columns[2:]:
        np.testing.assert_allclose(found[name], np.expm1(by_hand[name]), rtol=1e-6)


def test_transformers_of_scikit_learn(tmp_path):
    data = frame((140, 120))[["unique_id", "ds", "y"]]
    model = TitansForecaster(**SMALL, transform=FunctionTransformer(np.log1p, np.expm1))
    found = clone(model).fit(data).predict()
    named = clone(model).set_params(transform="log1p").fit(data).predict()
    np.testing.assert_allclose(found["Titans"], named["Titans"], rtol=1e-6)
    learned = clone(model).set_params(transform=PowerTransformer()).fit(data)
    assert np.isfinite(learned.predict(level=None)["Titans"]).all()
    with pytest.raises(ValueError, match="cannot be saved, since nothing is pickled"):
        learned.save(tmp_path)


def test_wrong_transforms_and_values_are_one_line():
    data = near_zero()
    with pytest.raises(ValueError, match="transform must be None, one of log1p, softplus"):
        TitansForecaster(**SMALL, transform="sqrt").fit(data)
    model = TitansForecaster(**SMALL, transform="log1p").fit(data)
    bad = data.assign(y=data["y"].where(data.index != 145, -2.0))
    message = "series s0, ds 2024-01-07 01:00:00: the target must be at least 0 for .*; got -2"
    for use in (clone(model).fit, model.predict, model.observe):
        with pytest.raises(DataError, match=message):
            use(bad)


def test_infinite_intervals_pass_through_transformers():
    """An interval of 99.9 % needs more validation values than there are."""
    data = pd.DataFrame({"ds": pd.date_range("2024", periods=60), "y": np.random.default_rng(0).random(60)})
    with pytest.warns(DataWarning, match="too few to calibrate intervals of 99.9 %"):
        model = TitansForecaster(**SMALL | {"levels": (80, 99.9)}, transform=StandardScaler()).fit(data)
    found = model.predict(level=(80, 99.9))
    assert np.isneginf(found["Titans-lo-99.9"]).all() and np.isposinf(found["Titans-hi-99.9"]).all()
    assert np.isfinite(found[["Titans-lo-80", "Titans-hi-80"]]).all(None)
