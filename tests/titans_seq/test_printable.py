"""Names from files and data, on the terminal and in pictures: shown as they are, whatever they are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from titans_seq.forecast.pictures import plot_forecast, plot_surprise
from titans_seq.genomics.pictures import plot_confusion, plot_roc, plot_track
from titans_seq.language.pictures import plot_by_length
from titans_seq.pictures import LONGEST, new_figure, save
from titans_seq.printable import printable

NAMES = [
    "a $x_$ b", "100%_$", r"$\frac{", r"$\frac{$", "\\$", "\udcff", "\x1b[31m", "\x9b31m", "a\nb\nc", "x" * 300, "",
    "_hidden", "[/red]", "100 %", "~", "\u05e9\u05dc\u05d5\u05dd", "\u4e2d\u6587", "\U0001f600", "a\u202eb",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 中", "plain é 中"),
        ("\x1b[31m\x07", r"\x1b[31m\x07"),
        ("\udcff\x9b\u202e", r"\udcff\x9b\u202e"),
        ("a\tb\nc", r"a\tb\nc"),
        ("x" * 301, "x" * 197 + "..." + "x" * 100),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text, None) == shown or len(text) > 300


@pytest.mark.parametrize("first", range(0, len(NAMES), 4))
def test_every_picture_takes_every_name(first: int, tmp_path: Path) -> None:
    """Warnings are errors here: a missing glyph is none."""
    names = NAMES[first : first + 4]
    count, title = len(names), names[0]
    values = np.arange(8.0 * count).reshape(8, count)
    plot_forecast(values, values[:4], None, names, pd.RangeIndex(12), tmp_path / "f.png", title=title)
    plot_surprise(values, values, names, pd.RangeIndex(8), tmp_path / "s.png", title=title)
    plot_confusion(np.eye(count, dtype=int), names, tmp_path / "c.png", title=title)
    plot_roc(np.arange(count), np.eye(count), names, tmp_path / "r.png", title=title)
    plot_track(np.arange(8), {names[-1]: values[:, 0]}, tmp_path / "t.png", title=title)
    plot_by_length([1, 2], {"samples": [0.0, 1.0]}, tmp_path / "l.png", title=title, trained=None)
    assert len(list(tmp_path.glob("*.png"))) == 6


def test_texts_are_literal_and_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: drawn.append(self))
    plot_roc(np.arange(3), np.eye(3), ["_hidden", "$x$", "y" * 300], tmp_path / "r.png", title="$t$")
    plot_confusion(np.eye(2, dtype=int), ["$x$", "\x1b"], tmp_path / "c.png", title="")
    roc, confusion = (figure.axes[0] for figure in drawn)
    legend = roc.get_legend()
    assert legend is not None
    shown = [text._preprocess_math(text.get_text()) for text in (roc.title, *legend.get_texts())]
    assert not any(is_math for _, is_math in shown)
    assert [text.split()[-1] for text, _ in shown][:3] == ["$t$", "_hidden", "$x$"]
    assert len(shown[3][0]) == LONGEST
    ticks = [label._preprocess_math(label.get_text()) for label in confusion.get_xticklabels()]
    assert ticks == [("$x$", False), (r"\x1b", False)]


def test_logarithmic_axes_keep_their_powers(tmp_path: Path) -> None:
    figure = new_figure(1)
    axes = figure.subplots()
    axes.plot([1, 1000], [1, 2])
    axes.set_xscale("log")
    save(figure, tmp_path / "log.png")
    assert any(label._preprocess_math(label.get_text())[1] for label in axes.get_xticklabels())
