"""The plots hold the numbers they are given, each in its place, as JSON."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from pandas.tseries.frequencies import to_offset

from titans_seq.datamodules.forecast.panel import Columns, from_columns
from titans_seq.datamodules.forecast.windows import Anchors
from titans_seq.forecast.anomalies import Span
from titans_seq.forecast.report import figures
from titans_seq.forecast.report.plots import Plot, label_of, numbers, stamps
from titans_seq.forecast.scores import LEVELS, MODEL, NAIVE, SEASONAL, Scores

L, H = 24, 12


def rows(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def y_of(plot: Plot, view: str, name: str) -> list[float]:
    names = [trace.get("name") for trace in plot.traces]
    return plot.views[view]["y"][names.index(name)]


def check(plot: Plot) -> None:
    """There is a view for every choice, and every trace has as many x as y."""
    json.dumps(plot.record, allow_nan=False)
    assert len(plot.views) == math.prod(len(options) for _, options in plot.menus)
    for view in plot.views.values():
        assert len(view["x"]) == len(view["y"]) == len(plot.traces)
        for pair in zip(view["x"], view["y"], strict=True):
            x, y = (plot.arrays[part] if isinstance(part, int) else part for part in pair)
            assert len(x) == len(y)


def window(label: str, time: pd.Index, bounds: np.ndarray | None = None) -> figures.Window:
    forecast = rows(H, 2)
    bounds = np.stack([[forecast - reach, forecast + reach] for reach in (1.0, 2.0)]) if bounds is None else bounds
    return figures.Window(label, time, rows(L, 2), rows(H, 2) + 1, forecast, bounds)


@pytest.mark.parametrize(
    "time",
    [pd.date_range("2024-01-01", periods=L + H, freq="h"), pd.RangeIndex(100, 100 + L + H)],
    ids=["dates", "rows"],
)
def test_forecast(time: pd.Index) -> None:
    windows = [window("first", time), window("last", time)]
    plot = figures.forecast_plot(windows, ["a", "b"])
    check(plot)
    assert plot.menus == [("Window", ["first", "last"]), ("Channel", ["a", "b"])]
    np.testing.assert_allclose(y_of(plot, "1,1", "history"), windows[1].past[:, 1], atol=1e-4)
    np.testing.assert_allclose(y_of(plot, "1,1", "truth")[1:], windows[1].truth[:, 1], atol=1e-4)
    np.testing.assert_allclose(y_of(plot, "1,0", "forecast")[1:], windows[1].forecast[:, 0], atol=1e-4)
    assert y_of(plot, "1,0", "forecast")[0] == y_of(plot, "1,0", "history")[-1]
    low95, high95, low80, high80, *_ = plot.views["0,1"]["y"]
    np.testing.assert_allclose(high80[1:], windows[0].bounds[0, 1, :, 1], atol=1e-4)
    np.testing.assert_allclose(low95[1:], windows[0].bounds[1, 0, :, 1], atol=1e-4)
    assert (np.array(low95) <= low80).all() and (np.array(high95) >= high80).all()
    dates = isinstance(time, pd.DatetimeIndex)
    assert plot.arrays[1][0] == ("2024-01-01T23:00" if dates else 123) and len(plot.arrays[1]) == H + 1
    assert plot.layout["xaxis"]["type"] == ("date" if dates else "linear")


def test_infinite_intervals_are_left_out() -> None:
    bounds = np.full((2, 2, H, 2), np.inf) * np.array([-1, 1])[:, None, None]
    plot = figures.forecast_plot([window("only", pd.RangeIndex(L + H), bounds)], ["a", "b"])
    check(plot)
    assert plot.views["0,0"]["y"][0][1:] == [None] * H


def scored(channels: int, season: int | None = 5) -> Scores:
    times = pd.date_range("2024-01-01", periods=80, freq="h")
    panel = from_columns(times, rows(channels, 80), range(channels), Columns(), to_offset("h"))
    scores = Scores(panel, np.tile([0.0, 1.0], (channels, 1)), panel, H, season)
    anchors = Anchors(np.tile(np.arange(channels), (40, 1)), np.arange(20, 60))
    scores.calibrate(anchors)
    truth = panel.target.reshape(channels, -1)[:, np.arange(20, 60)[:, None] + np.arange(H)]
    points = (truth + rows(channels, 1, 1)).swapaxes(0, 1).reshape(-1, H)
    scores.add(anchors, points, points[..., None, None] + np.zeros((len(LEVELS), 2)))
    return scores


def test_error_by_step() -> None:
    scores = scored(4)
    plot = figures.horizon_plot(scores)
    check(plot)
    assert plot.arrays == [list(range(1, H + 1))]
    for view, measure in (("0", "MSE"), ("1", "MAE")):
        found = y_of(plot, view, SEASONAL)
        np.testing.assert_allclose(found, scores.tallies[SEASONAL].mean(measure, axis=1), atol=1e-4)


@pytest.mark.parametrize("channels, season", [(1, None), (4, 5), (41, 5)])
def test_error_by_channel_is_sorted(channels: int, season: int | None) -> None:
    scores = scored(channels, season)
    names = [f"c{i}" for i in range(channels)]
    plot = figures.channel_plot(scores, names, NAIVE)
    check(plot)
    error = scores.tallies[MODEL].mean("MAE", axis=0)
    shown = plot.views["1"]["layout"]["yaxis"]["ticktext"]
    np.testing.assert_allclose(plot.views["1"]["x"][0], [error[int(name[1:])] for name in shown], atol=1e-4)
    assert plot.views["1"]["x"][0] == sorted(plot.views["1"]["x"][0], reverse=True)
    assert len(shown) == min(channels, figures.MOST_BARS)
    assert (shown[0], shown[-1]) == (f"c{error.argmax()}", f"c{error.argmin()}")


def test_training_marks_the_best_epoch() -> None:
    history = [{"epoch": i, "train_loss": 1 / (i + 1), "val_mse": 2.0, "val_mae": 1.0} for i in range(3)]
    plot = figures.training_plot(history, 2)
    check(plot)
    assert plot.arrays == [[1, 2, 3]] and plot.layout["shapes"][0]["x0"] == 2
    assert y_of(plot, "", "validation MSE") == [2.0] * 3


def test_surprise_keeps_its_peaks_and_marks_spans() -> None:
    """5,001 rows are thinned three to one; the peak lies between two of the points."""
    count = 5_001
    values, surprise = rows(count, 3), np.full((count, 3), 0.5)
    surprise[3_001, 2] = 9
    time = pd.date_range("2024-01-01", periods=count, freq="min")
    plot = figures.surprise_plot(values, surprise, {2: "c", 0: "a"}, time, [Span(2, 3_000, 3_004, 9.0)])
    check(plot)
    found = y_of(plot, "0", "surprise")
    assert len(found) == 1667 and max(found) == 9 and plot.arrays[0][found.index(9)] == "2024-01-03T02:00"
    (shape,) = plot.views["0"]["layout"]["shapes"]
    assert (shape["x0"], shape["x1"]) == ("2024-01-03T02:00", "2024-01-03T02:03")
    assert plot.views["1"]["layout"]["shapes"] == []


def test_names_are_shown_letter_by_letter() -> None:
    assert label_of("<script>alert(1)</script>") == "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert len(label_of("x" * 100)) == 28


@pytest.mark.parametrize(
    "time, expected",
    [
        (pd.date_range("2024-01-01", periods=2, freq="D"), "2024-01-02"),
        (pd.date_range("2024-01-01 00:00:05", periods=2, freq="5s"), "2024-01-01T00:00:10"),
        (pd.date_range("2024-01-01", periods=2, freq="10ms"), "2024-01-01T00:00:00.010000"),
        (pd.date_range("2024-01-01", periods=2, freq="h", tz="Europe/Berlin"), "2024-01-01T01:00"),
    ],
    ids=["days", "seconds", "milliseconds", "zone"],
)
def test_dates_are_as_short_as_they_are_exact(time: pd.Index, expected: str) -> None:
    assert stamps(time)[1] == expected


def test_numbers_keep_five_digits_of_their_range() -> None:
    """A small range far from 0 is not rounded away."""
    (found,) = numbers(np.array([1e9 + 0.123456, 1e9, np.nan]))
    assert found[0] - 1e9 == pytest.approx(0.123456, abs=1e-5) and found[2] is None
    assert numbers(np.array([123456.789, 0.0])) == [[123457.0, 0.0]]
