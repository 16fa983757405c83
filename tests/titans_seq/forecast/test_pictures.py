"""The pictures show the numbers they are given, at the right places."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from titans_seq.forecast import pictures

L, H = 24, 12


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved, while the real saving goes on."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def keep(self: Figure, *arguments: object, **options: object) -> None:
        figures.append(self)
        savefig(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def _rows(count: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, channels))


@pytest.mark.parametrize(
    "axis", [pd.date_range("2024-01-01", periods=L + H, freq="h"), pd.RangeIndex(L + H)], ids=["dates", "rows"]
)
@pytest.mark.parametrize("channels", [1, 7])
def test_forecast_lines(axis: pd.Index, channels: int, drawn: list[Figure], tmp_path: Path) -> None:
    past, truth, forecast = _rows(L, channels), _rows(H, channels), _rows(H, channels)
    names = [f"c{i}" for i in range(channels)]
    path = pictures.plot_forecast(past, forecast, truth, names, axis, tmp_path / "f.png", title="T")
    (figure,) = drawn
    shown = {axes.get_ylabel(): axes for axes in figure.axes}
    assert list(shown) == (["c0"] if channels == 1 else ["c0", "c1", "c2", "c6"])
    for name, axes in shown.items():
        channel = names.index(name)
        lines = {line.get_label(): line.get_ydata() for line in axes.lines}
        np.testing.assert_array_equal(lines["history"], past[:, channel])
        np.testing.assert_array_equal(lines["truth"][1:], truth[:, channel])
        np.testing.assert_array_equal(lines["forecast"][1:], forecast[:, channel])
        assert len(lines["forecast"]) == H + 1 and lines["forecast"][0] == past[-1, channel]
    with Image.open(path) as image:
        assert image.size[0] >= 1000


def test_forecast_without_truth(drawn: list[Figure], tmp_path: Path) -> None:
    pictures.plot_forecast(
        _rows(L, 2), _rows(H, 2), None, ["a", "b"], pd.RangeIndex(L + H), tmp_path / "f.png", title="T"
    )
    assert [line.get_label() for line in drawn[0].axes[0].lines] == ["history", "forecast"]


def test_surprise_lies_above_its_series(drawn: list[Figure], tmp_path: Path) -> None:
    past, surprise = _rows(L, 2), np.abs(_rows(L, 2))
    pictures.plot_surprise(past, surprise, ["a", "b"], pd.RangeIndex(L), tmp_path / "s.png", title="T")
    for channel in range(2):
        above, below = drawn[0].axes[2 * channel : 2 * channel + 2]
        assert above.get_position().y0 > below.get_position().y0
        np.testing.assert_array_equal(above.lines[0].get_ydata(), surprise[:, channel])
        np.testing.assert_array_equal(below.lines[0].get_ydata(), past[:, channel])


def test_training_marks_the_best_epoch(drawn: list[Figure], tmp_path: Path) -> None:
    history = [{"epoch": i, "train_loss": 1 / (i + 1), "val_mse": 2.0, "val_mae": 1.0} for i in range(3)]
    pictures.plot_training(history, 2, tmp_path / "t.png")
    lines = {line.get_label(): line for line in drawn[0].axes[0].lines}
    assert list(lines["training loss (a measure of its own)"].get_xdata()) == [1, 2, 3]
    assert lines["best epoch (2)"].get_xdata()[0] == 2


def test_no_global_plotting_state(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    pictures.plot_surprise(_rows(L, 1), np.zeros((L, 1)), ["a"], pd.RangeIndex(L), tmp_path / "s.png", title="T")
    assert dict(matplotlib.rcParams) == before
