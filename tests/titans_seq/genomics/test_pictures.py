"""The pictures of DNA models show the numbers they are given."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from titans_seq.genomics.pictures import TRACK_POINTS, plot_confusion, plot_roc, plot_track


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


def is_picture(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG" and min(image.size) > 400


@pytest.mark.parametrize("count", [2, 3, 8])
def test_confusion_names_every_cell(count: int, drawn: list[Figure], tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).integers(0, 5000, (count, count))
    matrix[1] = 0
    names = [f"class {i}" for i in range(count)]
    assert is_picture(plot_confusion(matrix, names, tmp_path / "c.png", "Confusion"))
    (axes,) = drawn[0].axes
    shown = {text.get_position()[::-1]: text.get_text() for text in axes.texts}  # (row, column)
    assert len(shown) == count**2
    for place, text in shown.items():
        assert text == f"{matrix[place]:,}\n{matrix[place] / max(matrix[place[0]].sum(), 1):.1%}"
    for axis in (axes.xaxis, axes.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == names
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


@pytest.mark.parametrize("count", [2, 3, 9])
def test_roc_curves(count: int, drawn: list[Figure], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, count, 200)
    probabilities = random.random((200, count)) + 0.5 * np.eye(count)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert is_picture(plot_roc(labels, probabilities, [f"c{i}" for i in range(count)], tmp_path / "r.png", "ROC"))
    (axes,) = drawn[0].axes
    *curves, chance = axes.lines
    assert chance.get_label() == "chance"
    assert len(curves) == (1 if count == 2 else count)
    for number, curve in zip([1] if count == 2 else range(count), curves, strict=True):
        truth, score = labels == number, probabilities[:, number]
        assert curve.get_label() == f"AUROC {roc_auc_score(truth, score):.3f}  c{number}"
        x, y, _ = roc_curve(truth, score)
        np.testing.assert_array_equal(curve.get_data(), (x, y))
    assert len({(curve.get_color(), curve.get_linestyle()) for curve in curves}) == len(curves)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 2, 0, 2]])
def test_a_class_that_none_or_all_have_is_named(labels: list[int], drawn: list[Figure], tmp_path: Path) -> None:
    probabilities = np.full((4, 3), 1 / 3)
    plot_roc(np.array(labels), probabilities, ["a", "b", "c"], tmp_path / "r.png", "ROC")
    shown = [line.get_label() for line in drawn[0].axes[0].lines]
    for number, name in enumerate("abc"):
        area = "undefined" if number not in labels or len(set(labels)) == 1 else "0.500"
        assert f"AUROC {area}  {name}" in shown


def test_a_track_has_a_panel_each_with_its_means(drawn: list[Figure], tmp_path: Path) -> None:
    length = 3 * TRACK_POINTS
    random = np.random.default_rng(0)
    tracks = {"surprise": random.random(length), "bits per base": random.random(length)}
    tracks["bits per base"][600:900] = np.nan
    positions = 1000 + 10 * np.arange(length)
    assert is_picture(plot_track(positions, tracks, tmp_path / "t.png", "Track"))
    (figure,) = drawn
    assert [axes.get_ylabel() for axes in figure.axes] == list(tracks)
    for axes, values in zip(figure.axes, tracks.values(), strict=True):
        means, smooth = axes.lines
        np.testing.assert_allclose(means.get_xdata(), positions.reshape(-1, 3).mean(axis=1))
        np.testing.assert_allclose(means.get_ydata(), values.reshape(-1, 3).mean(axis=1))  # whole groups are NaN
        y = means.get_ydata()
        assert smooth.get_ydata()[1000] == pytest.approx(y[975:1026].mean())
        assert smooth.get_ydata()[0] == pytest.approx(y[:26].mean())
        np.testing.assert_array_equal(np.isnan(smooth.get_ydata()), np.isnan(y))
        assert smooth.get_ydata()[199] == pytest.approx(np.nanmean(y[174:225]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mean of 30 bp", "mean of 1,530 bp"]


@pytest.mark.parametrize("length", [1, 2, 3, TRACK_POINTS, TRACK_POINTS + 1, 2 * TRACK_POINTS + 1])
def test_tracks_of_any_length(length: int, drawn: list[Figure], tmp_path: Path) -> None:
    plot_track(np.arange(length), {"surprise": np.ones(length)}, tmp_path / "t.png", "Track")
    for line in drawn[0].axes[0].lines:
        assert 1 <= len(line.get_xdata()) <= TRACK_POINTS
        np.testing.assert_allclose(line.get_ydata(), 1)
