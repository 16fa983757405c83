"""Pictures of DNA models: which classes are taken for which, how well they are told apart, and tracks along a record.

N classes, T positions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from sklearn.metrics import roc_auc_score, roc_curve

from titans_seq.genomics.stream import bin_mean
from titans_seq.pictures import GREY, INK, LINES, ORANGE, head, new_figure, save, write

TRACK_POINTS = 2000  # more than there are pixels
SMOOTHING = 1 / 40  # of the record, under the smoothed line


def plot_confusion(matrix: Int[np.ndarray, "N N"], class_names: Sequence[str], path: str | Path, title: str) -> Path:
    """Draw how many examples of each class (rows) were taken for which (columns), and their share of the row."""
    count = len(class_names)
    share = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    side = max(4.5, 1.5 + 0.9 * count)
    figure = Figure(figsize=(side + 1, side), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(count, count):
        dark = share[row, column] > 0.5
        text = f"{matrix[row, column]:,}\n{share[row, column]:.1%}"
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else INK)
    long = max(map(len, class_names)) > 10
    axes.set_xticks(range(count), class_names, rotation=30 if long else 0, ha="right" if long else "center")
    axes.set_yticks(range(count), class_names)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(title, fontsize=11, fontweight="bold", wrap=True)
    return write(figure, path)


def plot_roc(
    labels: Int[np.ndarray, " T"],
    probabilities: Float[np.ndarray, "T N"],
    class_names: Sequence[str],
    path: str | Path,
    title: str,
) -> Path:
    """Draw the receiver operating curve of each class against the rest, of two classes that of the second.

    Args:
        labels: 0 to N - 1. A class that none, or all, of the examples have is named and has no curve.
    """
    figure = Figure(figsize=(6.5, 6), dpi=130, layout="constrained")
    axes = figure.subplots()
    classes = [1] if len(class_names) == 2 else range(len(class_names))
    for i, number in enumerate(classes):
        truth = labels == number
        x, y, area = [], [], "undefined"
        if truth.any() and not truth.all():
            x, y, _ = roc_curve(truth, probabilities[:, number])
            area = f"{roc_auc_score(truth, probabilities[:, number]):.3f}"
        colour, style = LINES[(i + 1) % len(LINES)], ("-", "--", ":")[i // len(LINES) % 3]
        axes.plot(x, y, color=colour, linestyle=style, label=f"AUROC {area}  {class_names[number]}")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (1, 3)), label="chance")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set(aspect="equal", title=title)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return save(figure, path)


def plot_track(
    positions: Int[np.ndarray, " T"],
    tracks: Mapping[str, Float[np.ndarray, " T"]],
    path: str | Path,
    title: str,
    chance: Mapping[str, float] | None = None,
) -> Path:
    """Draw values along a record, a panel for each: means of equal stretches, and a smoothed line through them.

    A panel shows 99 % of its values; the rest, such as a peak at the beginning of the record, may leave it.

    Args:
        positions: from 0, increasing in equal steps, e.g. the left edges of bins.
        tracks: label and values, NaN where there is none: the line has a gap there.
        chance: of tracks that have one, the value of a guess.
    """
    figure = new_figure(len(tracks), height=1.2 + 2.2 * len(tracks))
    panels = figure.subplots(len(tracks), sharex=True, squeeze=False)[:, 0]
    group = -(-len(positions) // TRACK_POINTS)
    x = bin_mean(positions, 0, group)[1]
    half = max(1, int(len(x) * SMOOTHING / 2))
    step = group * int(positions[1] - positions[0]) if len(positions) > 1 else 1
    for axes, (label, values) in zip(panels, tracks.items(), strict=True):
        y = bin_mean(values, 0, group)[1]
        axes.plot(x, y, color=ORANGE, alpha=0.35, label="each base" if step == 1 else f"mean of {step:,} bp")
        axes.plot(x, _smoothed(y, half), color=ORANGE, label=f"mean of {(2 * half + 1) * step:,} bp")
        axes.set_ylabel(label)
        limits = list(np.quantile(y[~np.isnan(y)], [0.005, 0.995])) if not np.isnan(y).all() else []
        if chance is not None and label in chance:
            axes.axhline(chance[label], color=GREY, linestyle=(0, (1, 3)), label="chance")
            axes.annotate("chance", (1, chance[label]), xycoords=("axes fraction", "data"), fontsize=8, color=GREY)
            limits.append(chance[label])
        if limits:
            room = 0.08 * (max(limits) - min(limits)) or 0.1
            axes.set_ylim(min(limits) - room, max(limits) + room)
    panels[-1].set(xlabel="position (bp, from 0)", xlim=(positions[0], max(positions[-1], positions[0] + 1)))
    panels[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    panels[-1].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    head(figure, title, panels[0].lines)
    return save(figure, path)


def _smoothed(values: Float[np.ndarray, " T"], half: int) -> Float[np.ndarray, " T"]:
    """Mean of each value and up to `half` on both sides; NaN stays and is left out of the others."""
    valid = ~np.isnan(values)
    window = np.ones(2 * half + 1)
    total, count = (
        np.convolve(np.pad(x.astype(float), half), window, mode="valid") for x in (np.where(valid, values, 0), valid)
    )
    return np.where(valid, total / count.clip(min=1), np.nan)
