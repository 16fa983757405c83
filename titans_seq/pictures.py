"""What all pictures share, and the one of a training. Plain arrays in, a PNG out; no window, no global plotting
state.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator

from titans_seq.files import replacing
from titans_seq.printable import printable

LONGEST = 60  # characters of a label or a line of a title

GREY, INK, RED, ORANGE = "#5b6770", "#1b2a41", "#d1495b", "#e08e0b"
LINES = (GREY, RED, ORANGE, "#00798c", "#6a4c93", "#5a8f3d")  # of curves that have no meaning of their own


def plot_training(
    history: Sequence[Mapping[str, float]],
    best_epoch: int,
    path: str | Path,
    *,
    curves: Sequence[tuple[str, str]],
    ylabel: str = "",
) -> Path:
    """Draw some numbers of every epoch, with the best epoch marked.

    Args:
        history: rows with `epoch` and the keys of `curves`; their epochs count from 0 and are drawn from 1.
        best_epoch: counted from 1.
        curves: the key and the label of each, at most six.
    """
    figure = new_figure(1, height=4.0)
    axes = figure.subplots()
    epochs = [row["epoch"] + 1 for row in history]
    for (key, label), colour in zip(curves, LINES, strict=False):
        axes.plot(epochs, [row[key] for row in history], color=colour, label=label, marker="o", markersize=3.5)
    axes.axvline(best_epoch, color=INK, linewidth=1, linestyle=":", label=f"best epoch ({best_epoch})")
    axes.set(xlabel="epoch", ylabel=ylabel, title="Training", xlim=(0.5, max(epochs) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)
    return save(figure, path)


@dataclass(frozen=True)
class Comparison:
    """Runs that can be compared.

    Args:
        title: what they have in common.
        names: of the runs.
        scores: metric -> the value of each run.
        best: metric -> the best value; None: there is none.
    """

    title: str
    names: Sequence[str]
    scores: Mapping[str, Sequence[float]]
    best: Mapping[str, float | None]


def plot_comparison(groups: Sequence[Comparison], path: str | Path) -> Path:
    """Draw a row of panels for each group, one panel per metric and one point per run, the best in another colour."""
    sizes = [0.9 + 0.3 * len(group.names) for group in groups]
    figure = Figure(figsize=(11, sum(sizes)), dpi=130, layout="constrained")
    parts = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=sizes)[:, 0]
    for part, group in zip(parts, groups, strict=True):
        part.suptitle(group.title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        panels = part.subplots(1, len(group.scores), sharey=True, squeeze=False)[0]
        for axes, (metric, values) in zip(panels, group.scores.items(), strict=True):
            colours = [RED if value == group.best[metric] else GREY for value in values]
            axes.scatter(values, range(len(values)), c=colours, s=30)
            for place, value in enumerate(values):
                axes.annotate(
                    f"{value:.4g}", (value, place), (0, 5), textcoords="offset points", ha="center", fontsize=8
                )
            axes.set_title(metric, fontsize=9)
            axes.set_ylim(len(values) - 0.5, -0.7)
            axes.margins(x=0.15)
            axes.grid(alpha=0.25, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(4))
        panels[0].set_yticks(range(len(group.names)), group.names, fontsize=9)
    return write(figure, path)


def new_figure(panels: int, height: float | None = None) -> Figure:
    """A wide figure for some panels above each other; height in inches."""
    return Figure(figsize=(10, height or 1.2 + 1.7 * panels), dpi=130, layout="constrained")


def head(figure: Figure, title: str, handles: Sequence[Artist]) -> None:
    """The title over all panels, the legend under them."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    labels = [str(handle.get_label()) for handle in handles]
    figure.legend(handles, labels, loc="outside lower right", ncols=len(handles), frameon=False, fontsize=9)


def legend(axes: Axes) -> None:
    """A legend inside of a panel."""
    axes.legend(frameon=False, fontsize=9)


def save(figure: Figure, path: str | Path) -> Path:
    """Give the panels of lines their common look, and write the file."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.yaxis.set_major_locator(MaxNLocator(4)) if len(figure.axes) > 1 else None
        for line in axes.lines:
            line.set_linewidth(1.4)
    figure.align_ylabels()
    return write(figure, path)


def write(figure: Figure, path: str | Path) -> Path:
    """Write the file. Every text is shown as it is: names of columns, classes, records and files come from the user."""
    path = Path(path)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(_literal(text.get_text()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            if isinstance(formatter, FuncFormatter):  # of `set_xticks(places, labels)`: labels are set when drawn
                axis.set_major_formatter(FuncFormatter(partial(_literal_label, formatter)))
    with warnings.catch_warnings():
        # a name in a script that the font does not have is drawn as boxes; one warning per letter helps nobody
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
        with replacing(path) as part:
            figure.savefig(part, format=path.suffix.removeprefix("."))
    return path


def _literal_label(formatter: FuncFormatter, value: float, place: int | None) -> str:
    return _literal(formatter(value, place))


def _literal(text: str) -> str:
    """Text without formulas: not by `parse_math`, which would also take them from the ticks of logarithmic axes.

    The first line break stays one, as in the cells of a confusion matrix.
    """
    lines = (printable(line, LONGEST) for line in text.split("\n", 1))
    return "\n".join(lines).replace("$", r"\$")
