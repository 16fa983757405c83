"""Other levels and shorter horizons than those a forecaster was fitted for."""

import numpy as np
import pandas as pd
import pytest
from hourly_frames import COVARIATES, SMALL, H, ahead, frame
from sklearn.base import clone

from titans_seq import TitansForecaster
from titans_seq.forecast.conformal import GRID, Conformal, margins


@pytest.fixture(scope="module")
def fitted() -> TitansForecaster:
    return TitansForecaster(**SMALL, **COVARIATES).fit(frame())


@pytest.mark.parametrize("steps", [1, 4, H])
def test_a_shorter_horizon_is_the_beginning_of_the_whole_one(fitted, steps):
    whole = fitted.predict(future=ahead(frame()))
    near = ahead(frame()).groupby("unique_id", sort=False).head(steps)
    found = fitted.predict(future=near, horizon=steps)
    wanted = whole.groupby("unique_id", sort=False).head(steps).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, wanted)


def test_a_horizon_beyond_the_fitted_one_is_refused(fitted):
    with pytest.raises(ValueError, match="horizon must be at most 6, which the forecaster was fitted for; got 7"):
        fitted.predict(future=ahead(frame()), horizon=7)
    with pytest.raises(ValueError, match="horizon must be at least 1; got 0"):
        fitted.predict(future=ahead(frame()), horizon=0)


def test_levels_that_were_not_asked_for_lie_between_their_neighbours(fitted):
    """Also beyond the learned quantiles (95 %), where the margin alone widens; and after a file."""
    levels = (50, 62, 70.5, 80, 95, 98, 99)
    found = fitted.predict(future=ahead(frame()), level=levels)
    widths = np.stack([found[f"Titans-hi-{p:g}"] - found[f"Titans-lo-{p:g}"] for p in levels])
    assert np.isfinite(widths).all() and (np.diff(widths, axis=0) >= 0).all()
    assert (widths[1] > widths[0]).any() and (widths[5] > widths[4]).any()
    alone = fitted.predict(future=ahead(frame()), level=(71,))
    between = fitted.predict(future=ahead(frame()), level=(70.5,))
    np.testing.assert_array_equal(alone["Titans-lo-71"], between["Titans-lo-70.5"])
    with pytest.raises(ValueError, match="level must be at most 99.9, the widest .*; got 99.95"):
        fitted.predict(future=ahead(frame()), level=(99.95,))


def test_a_level_of_the_grid_is_what_it_would_be_if_it_had_been_asked_for(fitted):
    other = clone(fitted).set_params(levels=(80, 62)).fit(frame())
    wanted = other.predict(future=ahead(frame()), level=(62,))
    pd.testing.assert_frame_equal(fitted.predict(future=ahead(frame()), level=(62,)), wanted)


def test_levels_beyond_the_learned_quantiles_may_be_asked_for_in_fit():
    data = frame()[["unique_id", "ds", "y"]]
    found = TitansForecaster(**SMALL, levels=(50, 98)).fit(data).predict(level=(95, 98))
    widths = [(found[f"Titans-hi-{p}"] - found[f"Titans-lo-{p}"]).mean() for p in (95, 98)]
    assert widths[0] < widths[1] < np.inf


def test_any_level_survives_a_file(fitted, tmp_path):
    fitted.save(tmp_path)
    asked = {"future": ahead(frame()), "level": (33, 98.2), "horizon": 2}
    pd.testing.assert_frame_equal(TitansForecaster.load(tmp_path).predict(**asked), fitted.predict(**asked))


def test_no_level_covers_too_little():
    """Errors of a model whose own intervals are far too narrow: every level, on the grid or between, covers its share
    of new windows on average.
    """
    random, excess = np.random.default_rng(0), []
    asked = [10.0, 33.3, 62.0, 80.25, 98.7]
    for _ in range(200):
        errors = random.standard_t(3, size=(300, 2))
        middle, bounds = np.zeros_like(errors), np.tile([-0.3, 0.3], (300, 2, len(GRID), 1))
        grid = Conformal(list(GRID), margins(errors[:200], bounds[:200], GRID))
        used = grid.covering(asked)
        moved = grid.apply(middle[200:], bounds[200:, :, : len(used)], used)
        new = errors[200:, :, None]
        excess.append(((moved[..., 0] <= new) & (new <= moved[..., 1])).mean(axis=(0, 1)) - np.array(asked) / 100)
    assert (np.mean(excess, axis=0) > -0.01).all() and (np.mean(excess, axis=0)[2:] < 0.03).all()


def test_calibrations_are_joined():
    ones, others = Conformal([50.0, 90.0], np.array([[1.0], [3.0]])), Conformal([20.0, 50.0], np.array([[0.5], [9.0]]))
    both = ones.joined(others)
    assert both.levels == [20.0, 50.0, 90.0] and both.margin.ravel().tolist() == [0.5, 1.0, 3.0]
