"""The naive forecasts are GluonTS's; sums over batches are the means over all; the season is guessed where it can
be.
"""

import numpy as np
import pandas as pd
import pytest
from gluonts.model.seasonal_naive import SeasonalNaivePredictor

from titans_seq.forecast.report.scores import MODEL, NAIVE, SEASONAL, Scores, Season, seasonal_naive, verdict

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


def test_scores_are_means_over_all_elements(values: np.ndarray) -> None:
    """In batches of unequal length, against loops over windows and steps."""
    random = np.random.default_rng(1)
    first = np.arange(20, 50)
    truth = np.stack([values[row : row + H] for row in first])
    forecast = truth + random.standard_normal(truth.shape)
    margin = random.uniform(0.5, 2, size=(2, H, C))
    scores = Scores(values, H, 5, margin)
    for batch in (slice(0, 1), slice(1, 20), slice(20, 30)):
        scores.add(first[batch], forecast[batch].astype(np.float32), truth[batch])

    expected = {name: np.zeros((H, C)) for name in (MODEL, NAIVE, SEASONAL)}
    inside = np.zeros((2, C))
    for w, row in enumerate(first):
        for h in range(H):
            error = forecast[w, h].astype(np.float32) - truth[w, h]
            expected[MODEL][h] += error**2 / len(first)
            expected[NAIVE][h] += (values[row - 1] - truth[w, h]) ** 2 / len(first)
            expected[SEASONAL][h] += (values[row - 5 + h % 5] - truth[w, h]) ** 2 / len(first)
            inside += (np.abs(error) <= margin[:, h]) / (len(first) * H)
    for name, errors in expected.items():
        np.testing.assert_allclose(scores.errors[name].mean("MSE"), errors)
        assert scores.total(name, "MSE") == pytest.approx(errors.mean())
    np.testing.assert_allclose(scores.coverage, inside)
    np.testing.assert_allclose(scores.each_window, ((forecast.astype(np.float32) - truth) ** 2).mean(axis=(1, 2)))
    assert scores.total(MODEL, "MAE") == pytest.approx(np.abs(forecast.astype(np.float32) - truth).mean())
    ratio = expected[MODEL].mean() / expected[SEASONAL].mean()
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


@pytest.mark.parametrize(
    "level, coverage, words",
    [
        (80, 0.45, "too narrow"),
        (80, 0.69, "too narrow"),
        (80, 0.71, ""),
        (80, 0.80, ""),
        (80, 0.89, ""),
        (80, 0.91, "too wide"),
        (95, 0.92, "too narrow"),
        (95, 0.93, ""),
        (95, 0.98, "too wide"),
    ],
)
def test_a_coverage_far_from_its_level_is_named(level: float, coverage: float, words: str) -> None:
    assert verdict(level, coverage) == words


def test_without_a_season_there_is_no_seasonal_naive(values: np.ndarray) -> None:
    assert list(Scores(values, H, None, np.ones((2, H, C))).errors) == [MODEL, NAIVE]


@pytest.mark.parametrize(
    "freq, rows",
    [
        ("h", 24),
        ("2h", 12),
        ("15min", 96),
        ("10min", 144),
        ("30min", 48),
        ("min", 1440),
        ("30s", 120),
        ("D", 7),
        ("MS", 12),
        ("QS-OCT", 4),
    ],
)
def test_a_season_is_guessed_from_the_step(freq: str, rows: int) -> None:
    season = Season.of(freq, 10_000)
    assert season.rows == rows and f"guessed from the step {freq}" in season.words


@pytest.mark.parametrize("freq", ["W-SUN", "YS-JAN", "7min", "ms", None])
def test_where_no_season_is_known_it_is_said(freq: str | None) -> None:
    season = Season.of(freq, 10_000)
    assert season.rows is None and "give one by --season" in season.words
    assert Season.of(freq, 10_000, asked=52) == Season(52, "Season of 52 rows, as asked")


def test_a_season_must_fit_before_the_first_window() -> None:
    assert Season.of("min", 1440).rows == 1440
    short = Season.of("min", 1439)
    assert short.rows is None and "1,440 rows" in short.words and "1,439 come before" in short.words
