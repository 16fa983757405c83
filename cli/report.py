"""`titans-seq report`: one HTML page about a trained forecaster, and its numbers as a CSV."""

import argparse
import datetime
import json
import math
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from titans_seq.cli import runs
from titans_seq.cli.errors import UsageError
from titans_seq.cli.forecast import FORECAST
from titans_seq.cli.forecast_pictures import by_row, has_surprise
from titans_seq.cli.forecast_use import MARKED, about_of
from titans_seq.cli.tables import show_paths, show_record
from titans_seq.cli.tasks import history_of
from titans_seq.cli.trained import Trained, open_trained
from titans_seq.datamodules import ForecastDataModule
from titans_seq.datamodules.common.files import user_path
from titans_seq.datamodules.common.loaders import SPLITS
from titans_seq.datamodules.forecast.calendar import step_text
from titans_seq.files import replacing
from titans_seq.forecast.anomalies import spans
from titans_seq.forecast.inference import thinned
from titans_seq.forecast.pictures import shown_channels
from titans_seq.forecast.scores import MODEL, SHOWN, Scores, as_table
from titans_seq.forecast.scoring import Scored, forecasts_on, score
from titans_seq.forecast.stream import surprise_of

try:
    from titans_seq.forecast.report import figures
    from titans_seq.forecast.report.page import Report, render
    from titans_seq.forecast.report.plots import Plot, stamps
except ModuleNotFoundError as error:
    raise UsageError(f"a report needs the library {error.name}: pip install 'titans-seq[report]'") from None

# of metrics.json
NEEDED = ("test_mse", "val_mse", "best_epoch", "epochs", "seconds_per_epoch", "parameters")
MOST_CHANNELS = 8  # of the menus


def report_command(arguments: argparse.Namespace) -> None:
    """Measure, draw and write the page; nothing is trained, and no older report is written over."""
    trained = open_trained(arguments, "test")
    metrics = _metrics(trained)
    path = _place(arguments, trained.folder)
    table = None if arguments.scores is None else runs.new_file(user_path(arguments.scores))
    _say(trained, f"testing on {len(trained.series.windows('test')):,} windows")
    scored = score(trained.fitted, trained.series, season=arguments.season, progress=not trained.quiet)
    if table is not None:
        with replacing(table) as part:
            as_table(scored.scores).to_csv(part, index=False)
    report = _report(trained, scored, metrics)
    with replacing(path) as part:
        # names of files need not be UTF-8
        part.write_text(render(report), encoding="utf-8", errors="backslashreplace")
    show_record(FORECAST.title(report.about), {f"{name} ({note})": value for name, value, note, _ in report.tiles})
    if report.differs:
        print(f"titans-seq: {report.differs}", file=sys.stderr)
    show_paths("report", [path] if table is None else [path, table])


def _metrics(trained: Trained) -> dict[str, Any] | None:
    """Of a run; None: of a forecaster that was saved there are none."""
    run = trained.folder
    if trained.job is None:
        return None
    path = run / runs.METRICS
    if not path.is_file():
        raise UsageError(f"{run} is not finished: it has no {runs.METRICS}; go on with: "
                         f"titans-seq fit forecast --output {run} --resume")  # fmt: skip
    return runs.read_metrics(path, NEEDED)


def _place(arguments: argparse.Namespace, run: Path) -> Path:
    path = user_path(arguments.output) if arguments.output else run / "report.html"
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file, such as {path / 'report.html'}")
    runs.make_folder(path.parent)
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be written to: {error.strerror}") from None
    return runs.free(path)


def _report(trained: Trained, scored: Scored, metrics: Mapping[str, Any] | None) -> Report:
    data, scores = trained.series, scored.scores
    columns = [str(name) for name in data.panel.ids]
    shown = shown_channels(len(columns), MOST_CHANNELS)
    validation = data.windows("val")
    windows = _windows(trained, scores, shown)
    plots = {
        "forecast": figures.forecast_plot(windows, [columns[c] for c in shown] if data.panel.wide else [""]),
        "horizon": figures.horizon_plot(scores),
        "channels": figures.channel_plot(scores, columns, scored.baseline),
        "training": figures.training_plot(*_history(trained, metrics)),
    }
    return Report(
        about={"seed": "–"} | about_of(trained),
        made=datetime.datetime.now(datetime.UTC),
        columns=columns,
        hidden=len(columns) - len(shown) if data.panel.wide else 0,
        scores=scores,
        baseline=scored.baseline,
        season=scored.season,
        calibrated=thinned(validation).anchors.series.size,
        validation=validation.anchors.series.size,
        pooled=_pooled(trained),
        training=_training(trained, metrics),
        facts=_facts(data),
        config=_config(trained),
        differs=None if metrics is None or trained.known is not None else _differs(scores, metrics),
        **_surprise(trained, plots, shown),
    )


def _say(trained: Trained, words: str) -> None:
    if not trained.quiet:
        print(f"report: {words}", file=sys.stderr, flush=True)


# forecasts ------------------------------------------------------------------------------------------------------------


def _windows(trained: Trained, scores: Scores, shown: list[int]) -> list[figures.Window]:
    """Some windows of the test split with their forecasts, in the units of the series."""
    data, labels = trained.series, _labels(scores.each_window)
    every = data.windows("test")
    some = every.at(every.anchors.take(np.array(list(labels))))
    _, *found_on = zip(*forecasts_on(trained.fitted, data, some, SHOWN), strict=True)
    points, bounds = map(np.concatenate, found_on)
    found = []
    for i, (place, label) in enumerate(labels.items()):
        series, first = some.anchors.series[i], int(some.anchors.first[i])
        samples = slice(i * len(series), (i + 1) * len(series))
        chosen = shown if data.panel.wide else [0]
        name = "" if data.panel.wide else f"{data.panel.ids[series[0]]}, "
        past, truth, time = _rows(data, series[chosen], first)
        found.append(
            figures.Window(
                label=f"{label}: {name}{_words(stamps(time[len(past) :])[0])}, MSE {scores.each_window[place]:.3f}",
                time=time,
                past=past,
                truth=truth,
                forecast=points[samples][chosen].T,
                bounds=np.transpose(bounds[samples][chosen], (2, 3, 1, 0)),
            )
        )
    return found


def _rows(data: ForecastDataModule, series: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray, pd.Index]:
    """Values before and after the first row to forecast, [L, C] and [H, C], and their time stamps."""
    begin = max(0, first - data.lookback)
    rows = data.panel.offsets[series][:, None] + np.arange(begin, first + data.horizon)
    past, truth = np.split(data.panel.target[rows].T, [first - begin])
    return past, truth, data.panel.axis[rows[0]]


def _labels(errors: np.ndarray) -> dict[int, str]:
    """Place of a window -> what it is; one window may be several things."""
    count, order = len(errors), np.argsort(errors, kind="stable")
    order = order[: np.isfinite(errors).sum()]  # without those whose truth is missing
    places = {
        "first": 0, "middle": count // 2, "last": count - 1,
        "best": order[0], "median": order[len(order) // 2], "worst": order[-1],
    }  # fmt: skip
    labels: dict[int, str] = {}
    for name, place in places.items():
        labels[int(place)] = f"{labels[int(place)]}, {name}" if int(place) in labels else name
    return labels


def _words(stamp: str | int) -> str:
    return f"row {stamp:,}" if isinstance(stamp, int) else stamp.replace("T", " ")


def _pooled(trained: Trained) -> list[str]:
    """Levels that have one margin for all steps, since single steps had too few errors."""
    conformal = trained.fitted.conformal
    if conformal is None or trained.series.horizon == 1:
        return []
    margin = conformal.margin[[conformal.levels.index(level) for level in SHOWN]]
    alike = np.isfinite(margin).all(axis=1) & (margin == margin[:, :1]).all(axis=1)
    return [f"{level:g} %" for level, same in zip(SHOWN, alike, strict=True) if same]


# what else the page has -----------------------------------------------------------------------------------------------


def _surprise(trained: Trained, plots: dict[str, Plot], shown: list[int]) -> dict[str, Any]:
    """The plots, and the surprise of the test split where there is a memory.

    Of a long table the series are shown that have the test rows of the first one.
    """
    data, fitted = trained.series, trained.fitted
    if not has_surprise(fitted):
        return {"plots": plots}
    begin, end = data.protocol.bounds(data.panel, "test")
    starts = data.panel.stamps(data.panel.offsets[:-1] + np.minimum(begin, data.panel.lengths - 1))
    first = int(np.argmax(end - begin))
    alike = np.flatnonzero(np.asarray(starts == starts[first]) & (end - begin == end[first] - begin[first]))
    read = (
        data.panel.rows(np.zeros_like(end), end).take(alike) if len(alike) < len(end) else data.panel.rows(0 * end, end)
    )
    _say(trained, f"reading {len(read.target):,} rows for the surprise of the memory")
    rows = np.arange(begin[first] - end[first], 0)
    found, values = (
        by_row(read, each)[rows] for each in (surprise_of(fitted.network, read, data.scaling), read.target)
    )
    most, columns = spans(found)[:MARKED], [str(name) for name in read.ids]
    time = read.axis[read.offsets[1] + rows]
    usual = shown if len(alike) == len(end) else shown_channels(len(alike), MOST_CHANNELS)
    chosen = list(dict.fromkeys([*(span.channel for span in most), *usual]))[:MOST_CHANNELS]
    plot = figures.surprise_plot(values, found, {c: columns[c] for c in chosen}, time, most)
    dates = [_words(stamp) for stamp in stamps(time)]
    table = [(span.peak, columns[span.channel], dates[span.begin], dates[span.end - 1]) for span in most]
    return {"plots": {**plots, "surprise": plot}, "spans": table, "every": figures.rows_per_point(len(found))}


def _history(trained: Trained, metrics: Mapping[str, Any] | None) -> tuple[Sequence[Mapping[str, float]], int]:
    """Losses per epoch, and the best epoch, counted from 1."""
    if trained.job is not None and metrics is not None:
        return history_of(trained.folder, trained.job.module), metrics["best_epoch"]
    rows = [{"epoch": i} | row for i, row in enumerate(trained.history)]
    name = "val_loss" if all("val_loss" in row for row in rows) else "train_loss"
    return rows, 1 + min(range(len(rows)), key=lambda i: rows[i][name])


def _training(trained: Trained, metrics: Mapping[str, Any] | None) -> str:
    if metrics is None or trained.job is None:
        _, best = _history(trained, None)
        weights = sum(each.numel() for each in trained.fitted.network.parameters())
        return f"Epochs: {len(trained.history)}. The weights are those of epoch {best}. {weights:,} parameters."
    return (
        f"Epochs: {metrics['epochs']}, {metrics['seconds_per_epoch']:.1f} s each on average. The weights are "
        f"those of epoch {metrics['best_epoch']}, the best by {trained.job.module.monitor}, with validation MSE "
        f"{metrics['val_mse']:.4f}. {metrics['parameters']:,} parameters."
    )


def _config(trained: Trained) -> str:
    if trained.job is not None:
        return (trained.folder / runs.CONFIG).read_text(encoding="utf-8")
    return json.dumps(trained.arguments, indent=1)


def _facts(data: ForecastDataModule) -> list[tuple[str, str]]:
    panel, lengths = data.panel, data.panel.lengths
    long = f"{lengths[0]:,}" if not np.ptp(lengths) else f"{lengths.min():,} to {lengths.max():,}"
    facts = [("series", f"{long} rows of {len(panel):,} channels ({data.provenance})")]
    if missing := int(np.isnan(panel.target).sum()):
        facts.append(("missing", f"{missing:,} of {panel.target.size:,} values, which count nowhere"))
    if isinstance(axis := panel.axis, pd.DatetimeIndex):
        first, last = map(_words, stamps(pd.DatetimeIndex([axis.min(), axis.max()])))
        facts.append(("dates", f"{first} to {last}, {step_text(panel.freq)}"))
    facts.append(("windows", ", ".join(f"{split} {len(data.windows(split)):,}" for split in SPLITS)))
    packages = (f"{name} {version(name)}" for name in ("titans-seq", "torch", "lightning", "plotly"))
    return [*facts, ("versions", ", ".join([*packages, f"Python {platform.python_version()}"]))]


def _differs(scores: Scores, metrics: Mapping[str, Any]) -> str | None:
    before, now = metrics["test_mse"], scores.total(MODEL, "MSE")
    if math.isclose(before, now, rel_tol=1e-3):
        return None
    return f"The run's {runs.METRICS} has test MSE {before:.4f}: its data, weights or test windows have changed since."
