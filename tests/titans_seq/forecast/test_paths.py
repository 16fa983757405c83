"""Sample paths: their marginals are the forecast's quantiles, their steps depend on each other as errors did."""

import numpy as np
import pandas as pd
import pytest
from hourly_frames import SMALL, H, frame
from scipy.stats import norm

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataWarning
from titans_seq.forecast.paths import KNOTS, error_correlation, sample_paths

LEVELS = (50, 80, 95)


def plain() -> pd.DataFrame:
    return frame((160, 130))[["unique_id", "ds", "y"]]


@pytest.mark.parametrize("output", ["quantiles", "student_t", "mse"])
@pytest.mark.parametrize("conformal", [True, False], ids=["conformal", "plain"])
def test_marginals_are_the_predicted_quantiles(output, conformal):
    model = TitansForecaster(**SMALL, output=output, conformal=conformal).fit(plain())
    if output == "mse" and not conformal:
        with pytest.raises(ValueError, match="a forecast of one value without conformal has no samples"):
            model.predict(num_samples=5)
        return
    drawn = model.predict(num_samples=4000, seed=1)
    assert list(drawn) == ["unique_id", "ds", "sample", "Titans"] and len(drawn) == 2 * H * 4000
    values = drawn["Titans"].to_numpy().reshape(2, 4000, H).swapaxes(1, 2).reshape(2 * H, 4000)
    # crossing levels are widened to hold each other, so all of them are asked for
    wanted = model.predict(level=[p for p in KNOTS if p <= 95])
    for level in LEVELS:
        for side, share in (("lo", 0.5 - level / 200), ("hi", 0.5 + level / 200)):
            bound = wanted[f"Titans-{side}-{level}"].to_numpy()[:, None]
            near = 1e-9 * np.abs(bound)  # margins may leave several levels on one value
            below, up_to = (values < bound - near).mean(axis=1), (values <= bound + near).mean(axis=1)
            assert (below < share + 0.03).all() and (up_to > share - 0.03).all()


def test_the_seed_decides(tmp_path):
    model = TitansForecaster(**SMALL).fit(plain())
    one = model.predict(num_samples=3, seed=4)
    pd.testing.assert_frame_equal(model.predict(num_samples=3, seed=4), one)
    assert not np.allclose(model.predict(num_samples=3, seed=5)["Titans"], one["Titans"])
    near = model.predict(num_samples=3, horizon=2)
    assert near.groupby(["unique_id", "sample"]).size().eq(2).all()
    model.save(tmp_path)
    pd.testing.assert_frame_equal(TitansForecaster.load(tmp_path).predict(num_samples=3, seed=4), one)
    with pytest.raises(ValueError, match="num_samples must be at least 1; got 0"):
        model.predict(num_samples=0)


@pytest.mark.parametrize("correlation", [-0.5, 0.0, 0.8])
def test_the_correlation_is_measured_and_drawn(correlation):
    random = np.random.default_rng(0)
    bounds = np.broadcast_to(norm.ppf([[0.25, 0.75], [0.1, 0.9]]) * 3, (500, 8, 2, 2))
    paths = sample_paths(bounds, [50.0, 80.0], correlation, 20, random).reshape(-1, 8)
    assert error_correlation(paths) == pytest.approx(correlation, abs=0.02)
    assert np.std(paths, axis=0) == pytest.approx(3, rel=0.05)  # also beyond the last bounds
    paths[random.random(paths.shape) < 0.3] = np.nan
    assert error_correlation(paths) == pytest.approx(correlation, abs=0.03)


def test_few_errors_say_nothing_and_infinite_bounds_are_passed_over():
    assert error_correlation(np.full((50, 3), np.nan)) is None
    assert error_correlation(np.zeros((50, 1))) is None
    bounds = np.array([[[[-1.0, 1.0], [-np.inf, np.inf]]]])
    assert np.isfinite(sample_paths(bounds, [50.0, 90.0], None, 10, np.random.default_rng(0))).all()
    with pytest.raises(ValueError, match="all intervals are infinite"):
        sample_paths(bounds[:, :, 1:], [90.0], None, 10, np.random.default_rng(0))


def test_paths_of_errors_that_last_stay_on_one_side():
    """Random walks: the error of a step is nearly that of the step before."""
    steps = np.random.default_rng(0).standard_normal((400, 2)).cumsum(axis=0)
    walk = pd.DataFrame(steps, index=pd.date_range("2024", periods=400, freq="h"), columns=["a", "b"])
    model = TitansForecaster(**SMALL, output="student_t").fit(walk)
    assert model.fitted_.correlation > 0.5
    drawn = model.predict(num_samples=500)["Titans"].to_numpy().reshape(2, 500, H)
    steps = np.diff(drawn, axis=-1).std()
    assert steps < np.std(drawn - drawn.mean(axis=1, keepdims=True))


def test_a_series_without_a_value_has_no_paths():
    empty = pd.DataFrame({"unique_id": "empty", "ds": pd.date_range("2024", periods=50, freq="h"), "y": np.nan})
    model = TitansForecaster(**SMALL).fit(pd.concat([plain(), empty]))
    with pytest.warns(DataWarning, match="1 series have no value at all, the first is empty"):
        drawn = model.predict(num_samples=3).set_index("unique_id")["Titans"]
    assert drawn["empty"].isna().all() and drawn.drop(index="empty").notna().all()


@pytest.mark.parametrize("output, transform", [("negative_binomial", None), ("quantiles", "log1p")])
def test_paths_keep_to_what_the_target_can_be(output, transform):
    data = plain().assign(y=lambda f: np.random.default_rng(0).poisson(1.0, len(f)))
    drawn = TitansForecaster(**SMALL, output=output, transform=transform).fit(data).predict(num_samples=200)["Titans"]
    assert (drawn >= 0).all() and drawn.nunique() > 3
    assert output == "quantiles" or (drawn == drawn.round()).all()
