"""Forecasters of several seeds, and of a limited time."""

import time

import numpy as np
import pandas as pd
import pytest
import torch
from hourly_frames import SMALL, frame
from signed import change_config
from sklearn.base import clone

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataWarning


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return frame((140, 120))[["unique_id", "ds", "y"]]


@pytest.fixture(scope="module")
def three(data) -> TitansForecaster:
    return TitansForecaster(**SMALL, seeds=3, seed=5).fit(data)


def test_members_are_the_networks_of_their_seeds_and_forecasts_their_means(data, three):
    alone = [TitansForecaster(**SMALL, seed=seed).fit(data) for seed in (5, 6, 7)]
    for mine, one in zip(three.fitted_.modules, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), one.module_.parameters(), strict=True))
    each = [one.predict(level=None)["Titans"].to_numpy() for one in alone]
    np.testing.assert_allclose(three.predict(level=None)["Titans"], np.mean(each, axis=0), rtol=1e-6)
    assert np.ptp(each, axis=0).min() > 0


def test_intervals_are_calibrated_on_the_means(data, three):
    raw = [TitansForecaster(**SMALL, seed=seed, conformal=False).fit(data).predict() for seed in (5, 6, 7)]
    plain = TitansForecaster(**SMALL, seeds=3, seed=5, conformal=False).fit(data)
    for name in ("Titans-lo-80", "Titans-hi-95"):
        np.testing.assert_allclose(plain.predict()[name], np.mean([one[name] for one in raw], axis=0), rtol=1e-6)
    found, scales = three.predict(), three.scaling_.scales["scale"].repeat(SMALL["horizon"]).to_numpy()
    place = three.fitted_.conformal.levels.index(80)
    margin, point = np.tile(three.fitted_.conformal.margin[place], 2), found["Titans"]
    own = np.minimum(plain.predict()["Titans-lo-80"], point)
    wanted = np.where(margin < 0, point - (1 + margin) * (point - own), own - margin * scales)
    np.testing.assert_allclose(found["Titans-lo-80"], wanted, rtol=1e-6)


def test_saved_loaded_and_trained_further(data, three, tmp_path):
    three.save(tmp_path)
    again = TitansForecaster.load(tmp_path)
    pd.testing.assert_frame_equal(again.predict(), three.predict())
    again.fit(data)
    assert len(again.fitted_.modules) == 3 and [e["member"] for e in again.history_] == [0, 0, 1, 1, 2, 2] * 2
    with pytest.raises(ValueError, match="seeds was 3 when the forecaster was fitted"):
        again.set_params(seeds=2).predict()


@pytest.mark.parametrize("members", [0, 1, 4, "3", -1])
def test_another_number_of_networks_than_the_file_has_is_refused(three, tmp_path, members):
    three.save(tmp_path)
    change_config(tmp_path, lambda config: config.update(members=members))
    with pytest.raises(ValueError, match="do not fit each other: .*network") as error:
        TitansForecaster.load(tmp_path)
    assert "\n" not in str(error.value)


def test_what_needs_one_memory_says_so(data, three, tmp_path):
    TitansForecaster(**SMALL).fit(data).observe(data).save_state(tmp_path / "state")
    for use in (
        lambda: three.observe(data),
        lambda: three.surprise(data),
        lambda: three.load_state(tmp_path / "state"),
    ):
        with pytest.raises(ValueError, match="need one memory, and a forecaster of 3 seeds has as many; use seeds=1"):
            use()


def test_samples_fitted_values_and_backtests_of_an_ensemble(data, three):
    assert np.isfinite(three.predict(num_samples=4)["Titans"]).all()
    assert np.isfinite(three.fitted_values(data)["Titans"]).all()
    assert len(clone(three).set_params(seeds=2).backtest(data)) == 2 * SMALL["horizon"]


# a limited time ------------------------------------------------------------------------------------------------------

LONG = SMALL | {"max_epochs": 10_000, "patience": 10_000, "steps_per_epoch": 20}


@pytest.mark.parametrize("seeds", [1, 2])
def test_training_ends_in_time_with_the_best_epoch(data, seeds):
    start = time.perf_counter()
    model = TitansForecaster(**LONG, max_minutes=6 / 60, seeds=seeds).fit(data)
    assert time.perf_counter() - start < 60
    assert 1 < len(model.history_) < 10_000
    assert np.isfinite(model.predict().iloc[:, 2:]).all().all()


@pytest.mark.parametrize("validated", [True, False], ids=["validated", "all rows"])
def test_a_time_too_short_for_an_epoch_still_gives_a_forecaster_and_a_warning(data, validated):
    more = {} if validated else {"val_size": 0, "conformal": False}
    with pytest.warns(DataWarning, match="max_minutes=1e-05 ended the training after 1 of the 20 batches of its first"):
        model = TitansForecaster(**LONG | more, max_minutes=1e-5).fit(data)
    assert len(model.history_) == 1 and ("val_loss" in model.history_[0]) == validated
    assert np.isfinite(model.predict().iloc[:, 2:]).all().all()


def test_a_limit_that_is_not_reached_changes_nothing(data):
    one, two = (TitansForecaster(**SMALL, max_minutes=limit).fit(data).predict() for limit in (None, 60))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"seeds": 0}, "seeds must be at least 1; got 0"),
        ({"max_minutes": 0}, "max_minutes must be None or a number above 0; got 0"),
        ({"max_minutes": "5"}, "max_minutes must be None or a number above 0; got '5'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(data, changed, message):
    with pytest.raises(ValueError, match=message):
        TitansForecaster(**SMALL | changed).fit(data)
