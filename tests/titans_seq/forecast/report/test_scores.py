"""The naive forecasts are GluonTS's; sums over batches are the means over all; the season is guessed where it can
be.
"""

import math

import numpy as np
import pandas as pd
import pytest
from gluonts.model.seasonal_naive import SeasonalNaivePredictor
from pandas.tseries.frequencies import to_offset

from titans_seq.forecast.report.scores import (
    LEVELS,
    MODEL,
    NAIVE,
    SEASONAL,
    Scores,
    Season,
    margins,
    seasonal_naive,
    verdict,
)

H, C = 7, 3


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((60, C))


@pytest.mark.parametrize("season", [1, 3, H, 12])
def test_the_naive_is_that_of_gluonts(values: np.ndarray, season: int) -> None:
    first = np.array([12, 30, 53])
    found = seasonal_naive(values, first, H, season)
    predictor = SeasonalNaivePredictor(H, season_length=season)
    for window, row in enumerate(first):
        for channel in range(C):
            entry = {"target": values[:row, channel], "start": pd.Period("2024-01-01", "h")}
            repeated = predictor.predict_item(entry).samples[0]  # float32
            np.testing.assert_allclose(found[window, :, channel], repeated, rtol=1e-6)


def test_no_row_before_the_series_is_taken(values: np.ndarray) -> None:
    seasonal_naive(values, np.array([12]), H, 12)
    with pytest.raises(ValueError, match="at least season 12; got 11"):
        seasonal_naive(values, np.array([30, 11]), H, 12)


@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
def test_scores_are_means_over_all_observed_elements(values: np.ndarray, gaps: bool) -> None:
    """In batches of unequal length, against loops over windows and steps. A baseline repeats no missing value."""
    random = np.random.default_rng(1)
    first = np.arange(20, 50)
    forecast = np.stack([values[row : row + H] for row in first]) + random.standard_normal((30, H, C))
    if gaps:
        values = np.where(random.random(values.shape) < 0.4, np.nan, values)
        values[:, 2], values[:13, 0] = np.nan, np.nan
    truth = np.stack([values[row : row + H] for row in first])
    margin = random.uniform(0.5, 2, size=(2, H, C))
    scores = Scores(values, H, 5, margin)
    for batch in (slice(0, 1), slice(1, 20), slice(20, 30)):
        scores.add(first[batch], forecast[batch].astype(np.float32), truth[batch])

    def last(row: int, channel: int, step: int) -> float:
        """The last value in steps back from a row, else the last of all, else 0."""
        known = [values[r, channel] for s in (step, 1) for r in range(row, -1, -s) if not np.isnan(values[r, channel])]
        return known[0] if known else 0.0

    errors: dict[str, list[np.ndarray]] = {MODEL: [], NAIVE: [], SEASONAL: []}
    for w, row in enumerate(first):
        for h in range(H):
            errors[MODEL].append(forecast[w, h].astype(np.float32) - truth[w, h])
            errors[NAIVE].append(np.array([last(row - 1, c, 1) for c in range(C)]) - truth[w, h])
            errors[SEASONAL].append(np.array([last(row - 5 + h % 5, c, 5) for c in range(C)]) - truth[w, h])
    for name, each in errors.items():
        error = np.array(each).reshape(30, H, C)
        for measure, of in (("MSE", np.square(error)), ("MAE", np.abs(error))):
            assert scores.total(name, measure) == pytest.approx(np.nanmean(of))
            np.testing.assert_allclose(scores.errors[name].mean(measure, axis=1), np.nanmean(of, axis=(0, 2)))
            wanted = [np.nanmean(of[..., c]) for c in range(2)] + [np.nan if gaps else of[..., 2].mean()]
            np.testing.assert_allclose(scores.errors[name].mean(measure, axis=0), wanted)
    error = np.array(errors[MODEL]).reshape(30, H, C)
    np.testing.assert_allclose(scores.each_window, np.nanmean(error**2, axis=(1, 2)))
    inside = np.where(np.isnan(error), np.nan, np.abs(error) <= margin[:, None])
    found = [[np.nanmean(inside[p, ..., c]) for c in range(2 if gaps else C)] for p in range(2)]
    np.testing.assert_allclose(scores.coverage[:, : 2 if gaps else C], found)
    ratio = scores.total(MODEL, "MSE") / scores.total(SEASONAL, "MSE")
    assert scores.change(SEASONAL, "MSE") == pytest.approx(ratio - 1)


@pytest.mark.parametrize("better", [NAIVE, SEASONAL])
def test_the_better_baseline_is_that_of_the_data(better: str) -> None:
    """A random walk, as of exchange rates, is told by its last value; a cycle by the last one."""
    random = np.random.default_rng(0).standard_normal((200, C))
    values = random.cumsum(axis=0) if better == NAIVE else random + 3 * np.sin(np.arange(200)[:, None] * np.pi / 6)
    scores = Scores(values, H, 12, np.empty((0, H, C)))
    first = np.arange(100, 180)
    truth = np.stack([values[row : row + H] for row in first])
    scores.add(first, truth, truth)
    assert scores.baseline == better


@pytest.mark.parametrize("words, level, coverages", [
    ("too narrow", 80, (0.45, 0.69)), ("", 80, (0.71, 0.80, 0.89)), ("too wide", 80, (0.91,)),
    ("too narrow", 95, (0.92,)), ("", 95, (0.93,)), ("too wide", 95, (0.98,)),
])  # fmt: skip
def test_a_coverage_far_from_its_level_is_named(words: str, level: float, coverages: tuple[float, ...]) -> None:
    assert {verdict(level, coverage) for coverage in coverages} == {words}


def test_without_a_season_there_is_no_seasonal_naive(values: np.ndarray) -> None:
    assert list(Scores(values, H, None, np.ones((2, H, C))).errors) == [MODEL, NAIVE]


SEASONS = {
    "h": 24, "2h": 12, "15min": 96, "10min": 144, "30min": 48, "min": 1440, "30s": 120, "D": 7, "C": 5, "MS": 12,
    "QS-OCT": 4,
}  # fmt: skip


@pytest.mark.parametrize("freq, rows", SEASONS.items())
def test_a_season_is_guessed_from_the_step(freq: str, rows: int) -> None:
    step = pd.offsets.CustomBusinessDay(holidays=["2024-01-01"]) if freq == "C" else to_offset(freq)
    season = Season.of(step, 10_000)
    assert season.rows == rows and f"guessed from freq '{freq}'" in season.words


@pytest.mark.parametrize("freq", ["W-SUN", "YS-JAN", "7min", "ms", 1])
def test_where_no_season_is_known_it_is_said(freq: str | int) -> None:
    step = freq if isinstance(freq, int) else to_offset(freq)
    season = Season.of(step, 10_000)
    assert season.rows is None and "give one by --season" in season.words
    assert Season.of(step, 10_000, asked=52) == Season(52, "Season of 52 rows, as asked")


def test_a_season_must_fit_before_the_first_window() -> None:
    assert Season.of(pd.offsets.Minute(), 1440).rows == 1440
    short = Season.of(pd.offsets.Minute(), 1439)
    assert short.rows is None and "1,440 rows" in short.words and "1,439 come before" in short.words


def test_margins_are_order_statistics() -> None:
    errors = np.random.default_rng(0).standard_normal((50, 4, 3)).astype(np.float32)
    found = margins(errors)
    missing = np.concatenate([errors, np.full((5, 4, 3), np.nan, dtype=np.float32)])
    np.testing.assert_array_equal(margins(missing), found)
    assert found.shape == (len(LEVELS), 4, 3)
    for place, level in enumerate(LEVELS):
        rank = math.ceil(51 * level / 100)
        np.testing.assert_array_equal(found[place], np.sort(np.abs(errors), axis=0)[rank - 1])


def test_too_few_windows_share_a_margin_or_have_none() -> None:
    """Ten windows of 4 steps: the largest of eleven ranks is missing for 95 %, so that all 40 errors count together."""
    errors = np.random.default_rng(0).standard_normal((10, 4, 1))
    assert len(set(margins(errors)[1, :, 0])) == 1 and np.isfinite(margins(errors)).all()
    assert np.isinf(margins(errors[:2, :2])[1]).all()
