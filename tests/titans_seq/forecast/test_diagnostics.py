"""Fitted values, residuals, and frames of the horizon."""

import numpy as np
import pandas as pd
import pytest
from hourly_frames import COVARIATES, SMALL, H, ahead, frame

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataError


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return frame()


@pytest.fixture(scope="module")
def fitted(data) -> TitansForecaster:
    return TitansForecaster(**SMALL, **COVARIATES).fit(data)


@pytest.mark.parametrize("step", [1, 4])
def test_a_fitted_value_is_the_forecast_of_that_step_from_the_rows_before(data, fitted, step):
    found = fitted.fitted_values(data, step=step)
    assert not found.duplicated(["unique_id", "ds"]).any()
    row = found[found["unique_id"] == "s1"].iloc[60]
    before = data[(data["unique_id"] == "s1") & (data["ds"] <= row["ds"] - pd.Timedelta(hours=step))]
    # grid rows that are absent end the history there; take one whose history ends on time
    assert before["ds"].max() == row["ds"] - pd.Timedelta(hours=step)
    known = pd.DataFrame({"unique_id": "s1", "ds": pd.date_range(before["ds"].max(), periods=H + 1, freq="h")[1:]})
    prices = known.merge(data[["unique_id", "ds", "price"]], how="left").fillna(0.0)
    forecast = fitted.predict(before, prices, level=None)
    assert row["Titans"] == pytest.approx(forecast["Titans"].iloc[step - 1], rel=1e-4)


def test_targets_and_residuals_are_those_of_the_rows(data, fitted):
    found = fitted.fitted_values(data)
    known = found.merge(data, on=["unique_id", "ds"], how="left", suffixes=("", "_given"))
    np.testing.assert_array_equal(known["y"], known["y_given"])
    np.testing.assert_array_equal(found["residual"], found["y"] - found["Titans"])
    assert (
        found.groupby("unique_id")["ds"].min().eq(data.groupby("unique_id")["ds"].min() + pd.Timedelta(hours=1)).all()
    )
    assert found.groupby("unique_id")["ds"].max().eq(data.groupby("unique_id")["ds"].max()).all()
    pd.testing.assert_frame_equal(fitted.residuals(data), found[["unique_id", "ds", "residual"]])


def test_rows_after_a_row_do_not_change_its_fitted_value(data, fitted):
    bad = data.copy()
    late = bad["ds"] >= "2024-01-04"
    bad.loc[late, ["y", "temp"]] = 1e4
    one, two = (fitted.fitted_values(each) for each in (data, bad))
    early = one["ds"] < "2024-01-04"
    pd.testing.assert_series_equal(one.loc[early, "Titans"], two.loc[early, "Titans"])
    assert not np.allclose(one.loc[~early, "Titans"], two.loc[~early, "Titans"])


def test_further_ahead_is_harder():
    data = frame((300, 300), gaps=False)[["unique_id", "ds", "y"]].assign(
        y=lambda f: f.groupby("unique_id")["y"].cumsum()
    )
    model = TitansForecaster(**(SMALL | {"max_epochs": 4, "steps_per_epoch": 40})).fit(data)
    near, far = (model.residuals(data, step)["residual"].abs().median() for step in (1, H))
    assert near < far


def test_wrong_steps_and_rows_are_named(data, fitted):
    with pytest.raises(ValueError, match="horizon must be at most 6, .*; got 7"):
        fitted.fitted_values(data, step=7)
    with pytest.raises(DataError, match="no series has an observed row 1 steps before another one"):
        fitted.fitted_values(data.iloc[:1])


def test_a_frame_of_the_horizon_is_what_predict_asks_for(data, fitted):
    found = fitted.make_future_frame()
    pd.testing.assert_frame_equal(found[["unique_id", "ds"]], ahead(data)[["unique_id", "ds"]])
    assert list(found) == ["unique_id", "ds", "price"] and found["price"].isna().all()
    filled = fitted.predict(future=found.assign(price=0.0))
    pd.testing.assert_frame_equal(filled, fitted.predict(future=ahead(data)))
    with pytest.raises(DataError, match="future: column 'price' is missing at"):
        fitted.predict(future=found)
    new = frame((50,), seed=3).assign(unique_id="new")
    near = fitted.make_future_frame(new, horizon=2)
    assert len(near) == 2 and len(fitted.predict(new, near.assign(price=1.0), horizon=2)) == 2


def test_a_frame_of_the_horizon_follows_what_was_observed(data, fitted):
    model = TitansForecaster(**SMALL).fit(data)
    assert list(model.make_future_frame()) == ["unique_id", "ds"]
    more = ahead(data).assign(y=1.0)
    model.observe(data).observe(more)
    assert model.make_future_frame()["ds"].min() == more["ds"].min() + pd.Timedelta(hours=H)
