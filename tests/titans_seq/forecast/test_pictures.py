"""The pictures show the numbers they are given, at the right places."""

from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from titans_seq.forecast import pictures

L, H = 24, 12
# linear RGB -> what is seen (Machado, Oliveira, Fernandes 2009, severity 1)
SEEN = {
    "all colours": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


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


def _linear(colour: str) -> np.ndarray:
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def _lab(rgb: np.ndarray) -> np.ndarray:
    t = XYZ @ rgb.clip(0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", SEEN.values(), ids=SEEN)
def test_colours_differ_for_everybody(seen: np.ndarray) -> None:
    """By 20 in CIELAB, ten times what can just be told apart."""
    colours = [pictures.HISTORY, pictures.TRUTH, pictures.FORECAST, pictures.SURPRISE]
    for one, other in combinations(colours, 2):
        distance = _lab(np.array(seen) @ _linear(one)) - _lab(np.array(seen) @ _linear(other))
        assert np.linalg.norm(distance) > 20, (one, other)


@pytest.mark.parametrize("page", ["#ffffff", "#14191f"], ids=["light", "dark"])
def test_lines_show_on_the_page(page: str) -> None:
    """By the contrast that WCAG asks of graphics."""
    for colour in (pictures.HISTORY, pictures.TRUTH, pictures.FORECAST):
        dark, light = sorted(float(XYZ[1] @ _linear(c)) for c in (page, colour))
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_intervals_and_gaps(drawn: list[Figure], tmp_path: Path) -> None:
    """The widest band is drawn first; a masked value is no line, and one between two gaps is a marker."""
    past, forecast = _rows(L, 1), _rows(H, 1)
    past[[5, 6, 8, 9]] = np.nan
    truth = np.where(np.arange(H)[:, None] == 3, np.nan, _rows(H, 1))
    intervals = {level: np.stack([forecast - level / 50, forecast + level / 50]) for level in (80.0, 95.0)}
    intervals[99.0] = np.stack([forecast - np.inf, forecast + np.inf])
    axis, path = pd.RangeIndex(L + H), tmp_path / "f.png"
    pictures.plot_forecast(past, forecast, truth, ["a"], axis, path, title="T", intervals=intervals)
    axes = drawn[0].axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["history"].get_ydata(), past[:, 0])
    np.testing.assert_array_equal(lines["truth"].get_ydata()[1:], truth[:, 0])
    assert lines["history"].get_marker() == "o" and lines["history"].get_markersize() > 1.4
    bands = axes.collections[:3]
    assert [band.get_label() for band in bands] == ["99 % interval", "95 % interval", "80 % interval"]
    for band, level in zip(bands[1:], (95.0, 80.0), strict=True):
        (shape,) = band.get_paths()
        at_end = shape.vertices[shape.vertices[:, 0] == L + H - 1, 1]
        assert (at_end.min(), at_end.max()) == pytest.approx(tuple(intervals[level][:, -1, 0]))


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
    assert list(lines["training loss (on its own scale)"].get_xdata()) == [1, 2, 3]
    assert lines["best epoch (2)"].get_xdata()[0] == 2


def test_no_global_plotting_state(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    pictures.plot_surprise(_rows(L, 1), np.zeros((L, 1)), ["a"], pd.RangeIndex(L), tmp_path / "s.png", title="T")
    assert dict(matplotlib.rcParams) == before
