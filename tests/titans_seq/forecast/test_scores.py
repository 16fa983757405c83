"""Scores against loops over windows and steps, and against GluonTS; the season is guessed where it can be."""

import numpy as np
import pandas as pd
import pytest
from gluonts.evaluation import metrics as gluonts
from gluonts.model.seasonal_naive import SeasonalNaivePredictor
from pandas.tseries.frequencies import to_offset

from titans_seq.datamodules.forecast.panel import Columns, Panel
from titans_seq.datamodules.forecast.reading import read_frame
from titans_seq.datamodules.forecast.windows import Anchors
from titans_seq.forecast.scores import (
    LEVELS,
    MEASURES,
    MODEL,
    NAIVE,
    SEASONAL,
    Naive,
    Scores,
    Season,
    as_metrics,
    as_table,
    verdict,
)

H, SEASON = 7, 5
LENGTHS = (60, 48, 70)
TRAINED = 20  # rows of each series


@pytest.fixture(params=[False, True], ids=["complete", "gaps"])
def panel(request: pytest.FixtureRequest) -> Panel:
    """Three series of their own units and lengths."""
    random = np.random.default_rng(0)
    parts = []
    for i, length in enumerate(LENGTHS):
        values = 10.0**i * random.standard_normal(length) + 5 * i
        if request.param:
            values[random.random(length) < 0.3] = np.nan
            values[[0, -1]] = 1.0  # the grid keeps its ends
        times = pd.date_range("2024-01-01", periods=length, freq="h")
        parts.append(pd.DataFrame({"unique_id": f"s{i}", "ds": times, "y": values}))
    return read_frame(pd.concat(parts), Columns())


def anchors() -> Anchors:
    series = np.repeat(np.arange(3), 20)
    return Anchors(series[:, None], np.tile(np.arange(20, 40), 3))


def scored(panel: Panel, batches: list[slice]) -> tuple[Scores, np.ndarray, np.ndarray, np.ndarray]:
    """The scores of noisy forecasts, and points, bounds and truth, [B, H] each."""
    random = np.random.default_rng(1)
    every = anchors()
    history = panel.rows(np.zeros(3, dtype=int), np.full(3, TRAINED))
    scales = np.array([[np.nanmean(y), np.nanstd(y)] for y in np.split(history.target, 3)])
    scores = Scores(panel, scales, history, H, SEASON)
    rows = panel.offsets[every.series] + every.first[:, None] + np.arange(H)
    truth = panel.target[rows]
    points = np.nan_to_num(truth) + scales[every.series[:, 0], 1:] * random.standard_normal(truth.shape)
    reach = scales[every.series[:, 0], 1][:, None, None, None] * np.array([0.7, 1.3, 1.6, 2.0])[:, None]
    bounds = points[..., None, None] + reach * np.array([-1, 1])
    assert scores.calibrate(every) in (NAIVE, SEASONAL)
    for batch in batches:
        scores.add(every.take(np.arange(60)[batch]), points[batch], bounds[batch])
    return scores, points, bounds, truth


def standardised(scores: Scores, values: np.ndarray) -> np.ndarray:
    mean, scale = scores.scales[anchors().series[:, 0]].T
    shape = (-1, *[1] * (values.ndim - 1))
    return (values - mean.reshape(shape)) / scale.reshape(shape)


@pytest.mark.parametrize("season", [1, 3, H, 12])
def test_the_naive_is_that_of_gluonts(season: int) -> None:
    values = np.random.default_rng(0).standard_normal(60)
    first = np.array([12, 30, 53])
    found = Naive(values, np.array([0, 60]), season).forecast(np.zeros(3, dtype=int), first, H)
    predictor = SeasonalNaivePredictor(H, season_length=season)
    for window, row in enumerate(first):
        repeated = predictor.predict_item({"target": values[:row], "start": pd.Period("2024-01-01", "h")}).samples[0]
        np.testing.assert_allclose(found[window], repeated, rtol=1e-6)  # GluonTS's are float32


def test_the_naive_takes_no_row_of_another_series() -> None:
    """Within the first season of its series it repeats the last value."""
    values = np.arange(20.0)
    naive = Naive(values, np.array([0, 10, 20]), 6)
    assert naive.forecast(np.array([1]), np.array([2]), 3).tolist() == [[11, 11, 11]]
    assert naive.forecast(np.array([1]), np.array([6]), 3).tolist() == [[10, 11, 12]]


def test_the_naive_repeats_no_missing_value() -> None:
    values = np.array([1.0, 2.0, np.nan, np.nan, np.nan, 6.0, np.nan, np.nan])
    naive = Naive(values, np.array([0, 8]), 3)
    # an earlier season, else the last value, else 0
    assert naive.forecast(np.array([0]), np.array([8]), 3).tolist() == [[6.0, 1.0, 2.0]]
    assert Naive(np.full(8, np.nan), np.array([0, 8]), 3).forecast(np.array([0]), np.array([8]), 2).tolist() == [[0, 0]]


@pytest.mark.parametrize("batches", [[slice(0, 60)], [slice(0, 1), slice(1, 33), slice(33, 60)]], ids=["one", "three"])
def test_measures_are_means_over_all_observed_elements(panel: Panel, batches: list[slice]) -> None:
    scores, points, bounds, truth = scored(panel, batches)
    error = standardised(scores, points) - standardised(scores, truth)
    seen = ~np.isnan(truth)
    assert scores.total(MODEL, "MSE") == pytest.approx(np.nanmean(error**2))
    assert scores.total(MODEL, "MAE") == pytest.approx(np.nanmean(np.abs(error)))
    assert scores.total(MODEL, "sMAPE") == pytest.approx(gluonts.smape(truth[seen], points[seen]))
    quantiles = {0.5: points} | {
        q: bounds[:, :, i, side] for i, level in enumerate(LEVELS)
        for side, q in enumerate((0.5 - level / 200, 0.5 + level / 200))
    }  # fmt: skip
    losses = [
        gluonts.quantile_loss(standardised(scores, truth)[seen], standardised(scores, value)[seen], q) / seen.sum()
        for q, value in quantiles.items()
    ]
    assert scores.total(MODEL, "CRPS") == pytest.approx(np.mean(losses))
    for i in range(len(LEVELS)):
        inside = (bounds[:, :, i, 0] <= truth) & (truth <= bounds[:, :, i, 1])
        assert scores.coverage(MODEL)[i] == pytest.approx(inside[seen].mean())
        each = [inside[s][seen[s]].mean() for s in np.split(np.arange(60), 3)]
        np.testing.assert_allclose(scores.coverage_by_series[i], each)
        width = standardised(scores, bounds[:, :, i, 1]) - standardised(scores, bounds[:, :, i, 0])
        assert scores.width(MODEL)[i] == pytest.approx(width[seen].mean())
    np.testing.assert_allclose(scores.tallies[MODEL].mean("MAE", axis=1), np.nanmean(np.abs(error), axis=0))
    np.testing.assert_allclose(scores.each_window, np.nanmean(error**2, axis=1))


def test_mase_is_that_of_gluonts(panel: Panel) -> None:
    """Errors over the seasonal error of the training rows, per series, then the mean."""
    scores, points, _, truth = scored(panel, [slice(0, 60)])
    each = []
    for i, rows in enumerate(np.split(np.arange(60), 3)):
        begin = panel.offsets[i]
        past = np.ma.masked_invalid(panel.target[begin : begin + TRAINED])
        seen = ~np.isnan(truth[rows])
        error = float(gluonts.calculate_seasonal_error(past, seasonality=SEASON))
        each.append(gluonts.mase(truth[rows][seen], points[rows][seen], error))
    assert scores.total(MODEL, "MASE") == pytest.approx(np.mean(each))


def test_baselines_are_measured_on_the_same_windows(panel: Panel) -> None:
    """Their intervals cover as they should on the windows they were calibrated on."""
    scores, _, _, truth = scored(panel, [slice(0, 60)])
    for name, season in ((NAIVE, 1), (SEASONAL, SEASON)):
        errors = []
        for w, (row, series) in enumerate(zip(anchors().first, anchors().series[:, 0], strict=True)):
            values = scores.values[panel.offsets[series] : panel.offsets[series] + row]
            for h in range(H):
                place = row - season + h % season
                known = [values[r] for step in (season, 1) for r in range(place if step > 1 else row - 1, -1, -step)
                         if not np.isnan(values[r])]  # fmt: skip
                errors.append((known[0] if known else 0.0) - standardised(scores, truth)[w, h])
        assert scores.total(name, "MSE") == pytest.approx(np.nanmean(np.square(errors)))
        shares = [level / 100 for level in LEVELS]
        np.testing.assert_allclose(scores.coverage(name), shares, atol=0.04)
    ratio = scores.total(MODEL, "MSE") / scores.total(SEASONAL, "MSE")
    assert scores.change(SEASONAL, "MSE") == pytest.approx(ratio - 1)


@pytest.mark.parametrize("better", [NAIVE, SEASONAL])
def test_the_better_baseline_is_that_of_the_data(better: str) -> None:
    """A random walk, as of exchange rates, is told by its last value; a cycle by the last one."""
    random = np.random.default_rng(0).standard_normal(200)
    values = random.cumsum() if better == NAIVE else random + 3 * np.sin(np.arange(200) * np.pi / 6)
    panel = read_frame(pd.DataFrame({"ds": pd.date_range("2024", periods=200, freq="h"), "y": values}), Columns())
    scores = Scores(panel, np.array([[0.0, 1.0]]), panel.tail(50), H, 12)
    assert scores.calibrate(Anchors(np.zeros((80, 1), dtype=int), np.arange(100, 180))) == better


def test_what_the_files_say(panel: Panel) -> None:
    scores, *_ = scored(panel, [slice(0, 60)])
    metrics = as_metrics(scores, SEASONAL)
    assert metrics["baseline"] == SEASONAL and metrics["season"] == SEASON
    for measure in MEASURES:
        assert metrics[f"baseline_{measure.lower()}"] == scores.total(SEASONAL, measure)
    assert metrics["test_coverage_80"] == scores.coverage(MODEL)[1]
    table = as_table(scores)
    assert table["forecast"].unique().tolist() == [MODEL, NAIVE, SEASONAL]
    assert table["series"].tolist() == ["all", "s0", "s1", "s2"] * 3
    own = table[(table["forecast"] == MODEL) & (table["series"] == "s1")].iloc[0]
    assert own["mse"] == scores.tallies[MODEL].mean("MSE", axis=0)[1]
    assert own["coverage_95"] == scores.coverage_by_series[3, 1]


def test_without_a_season_there_is_no_seasonal_naive(panel: Panel) -> None:
    assert list(Scores(panel, np.ones((3, 2)), panel, H, None).tallies) == [MODEL, NAIVE]


@pytest.mark.parametrize("words, level, coverages", [
    ("too narrow", 80, (0.45, 0.69)), ("", 80, (0.71, 0.80, 0.89)), ("too wide", 80, (0.91,)),
    ("too narrow", 95, (0.92,)), ("", 95, (0.93,)), ("too wide", 95, (0.98,)),
])  # fmt: skip
def test_a_coverage_far_from_its_level_is_named(words: str, level: float, coverages: tuple[float, ...]) -> None:
    assert {verdict(level, coverage) for coverage in coverages} == {words}


SEASONS = {
    "h": 24, "2h": 12, "15min": 96, "10min": 144, "30min": 48, "min": 1440, "30s": 120, "D": 7, "C": 5, "MS": 12,
    "QS-OCT": 4, "2MS": 6, "3MS": 4, "2QS-JAN": 2, "2ME": 6, "SMS-15": 24, "SME-15": 24, "WOM-2TUE": 12, "W-SUN": 52,
    "2W-SUN": 26, "bh": 8, "2bh": 4,
}  # fmt: skip


@pytest.mark.parametrize("freq, rows", SEASONS.items())
def test_a_season_is_guessed_from_the_step(freq: str, rows: int) -> None:
    step = pd.offsets.CustomBusinessDay(holidays=["2024-01-01"]) if freq == "C" else to_offset(freq)
    season = Season.of(step, 10_000)
    assert season.rows == rows and f"guessed from freq '{freq}'" in season.words


@pytest.mark.parametrize("freq", ["YS-JAN", "7min", "ms", 1])
def test_where_no_season_is_known_it_is_said(freq: str | int) -> None:
    step = freq if isinstance(freq, int) else to_offset(freq)
    season = Season.of(step, 10_000)
    assert season.rows is None and "give one by --season" in season.words
    assert Season.of(step, 10_000, asked=52) == Season(52, "Season of 52 rows, as asked")


def test_a_season_must_fit_before_the_first_window() -> None:
    assert Season.of(pd.offsets.Minute(), 1440).rows == 1440
    short = Season.of(pd.offsets.Minute(), 1439)
    assert short.rows is None and "1,440 rows" in short.words and "1,439 come before" in short.words
