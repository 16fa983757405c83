"""Pictures of language models. Plain numbers in, a PNG out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from titans_seq.pictures import LINES, legend, new_figure, save


def plot_by_length(
    lengths: Sequence[int], curves: Mapping[str, Sequence[float]], path: str | Path, *, title: str, trained: int | None
) -> Path:
    """Draw accuracies against the length of the sample, on a logarithmic axis, with the length of training marked."""
    figure = new_figure(1, height=4.0)
    axes = figure.subplots()
    for (label, values), colour in zip(curves.items(), LINES, strict=False):
        axes.plot(lengths, values, color=colour, label=label, marker="o", markersize=3.5)
    if trained is not None:
        axes.axvline(trained, linewidth=1, linestyle=":", color="#1b2a41", label=f"trained at {trained}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(lengths), [f"{length:,}" for length in lengths])
    axes.set(xlabel="tokens", ylabel="share right", title=title, ylim=(-0.03, 1.03))
    legend(axes)
    return save(figure, path)
