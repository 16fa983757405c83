"""`titans-seq report RUN`: one HTML page about a finished run of `fit forecast`."""

import argparse
import datetime
import logging
import math
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from titans_seq.cli import runs, training
from titans_seq.cli.errors import UsageError
from titans_seq.cli.forecast import FORECAST, MARKED, by_row, fitted_of, has_surprise, load_run, module_of, series_of
from titans_seq.cli.tables import show_paths, show_record
from titans_seq.cli.tasks import Job, history_of
from titans_seq.datamodules import ForecastDataModule
from titans_seq.datamodules.common.files import user_path
from titans_seq.datamodules.common.loaders import SPLITS, as_is
from titans_seq.datamodules.forecast.calendar import step_text
from titans_seq.datamodules.forecast.windows import Windows
from titans_seq.files import replacing
from titans_seq.forecast.anomalies import spans
from titans_seq.forecast.pictures import shown_channels
from titans_seq.forecast.report.scores import MODEL, Scores, Season, margins
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
BATCH_VALUES = 2**22  # rows x channels of a batch; a network needs many times that
# of the windows to calibrate on; neighbours share all rows but one, so that leaving some out loses little
MOST_WINDOWS = 2_000
MOST_VALUES = 2**25  # float32, 128 MB
HELD_VALUES = 2**24  # forecasts held at a time


def report_command(arguments: argparse.Namespace) -> None:
    """Measure, draw and write the page; nothing is trained, and no older report is written over."""
    job, run = load_run(arguments, "test")
    metrics = _metrics(run)
    path = _place(arguments, run)
    logging.getLogger("gluonts").setLevel(logging.ERROR)  # its note on steps that divide no day: the page says it
    job.trainer.limit_predict_batches = 1.0  # whatever the run was trained with: every window once
    report = _report(job, run, metrics, arguments.season)
    with replacing(path) as part:
        # names of files need not be UTF-8
        part.write_text(render(report), encoding="utf-8", errors="backslashreplace")
    show_record(FORECAST.title(report.about), {f"{name} ({note})": value for name, value, note, _ in report.tiles})
    if report.differs:
        print(f"titans-seq: {report.differs}", file=sys.stderr)
    show_paths("report", [path])


def _metrics(run: Path) -> dict[str, Any]:
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


def _report(job: Job, run: Path, metrics: Mapping[str, Any], asked: int | None) -> Report:
    data, module = series_of(job), module_of(job)
    windows, validation = data.windows("test"), data.windows("val")
    columns = [str(name) for name in data.panel.ids]
    shown = shown_channels(len(columns), MOST_CHANNELS)
    season = Season.of(data.panel.freq, int(validation.anchors.first[0]), asked)

    most = max(1, min(MOST_WINDOWS, MOST_VALUES // (data.horizon * len(columns))))
    picked = validation.at(validation.anchors.thin(most))
    margin, baseline = _calibrated(job, picked, season)
    scores = Scores(_standardised(data), data.horizon, season.rows, margin)
    _say(job, f"testing on {len(windows):,} windows")
    for some in _forecasts(job, windows):
        scores.add(*some)

    history = history_of(run, module)
    plots = {
        "forecast": figures.forecast_plot(_windows(job, scores, shown), [columns[c] for c in shown]),
        "horizon": figures.horizon_plot(scores),
        "channels": figures.channel_plot(scores, columns, baseline),
        "training": figures.training_plot(history, metrics["best_epoch"]),
    }
    return Report(
        about=FORECAST.about(job),
        made=datetime.datetime.now(datetime.UTC),
        columns=columns,
        hidden=len(columns) - len(shown),
        scores=scores,
        baseline=baseline,
        season=season,
        calibrated=len(picked),
        validation=len(validation),
        training=_training(metrics, module.monitor),
        facts=_facts(data),
        config=(run / runs.CONFIG).read_text(encoding="utf-8"),
        differs=_differs(scores, metrics),
        **_surprise(job, plots, shown),
    )


def _say(job: Job, words: str) -> None:
    if not job.config.quiet:
        print(f"report: {words}", file=sys.stderr, flush=True)


# forecasts ------------------------------------------------------------------------------------------------------------


def _forecasts(job: Job, windows: Windows) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Forecast windows as the run tests them, on its device and at its precision, some at a time.

    Yields:
        first target rows [B], forecasts and truth [B, H, C], standardised; truth is NaN where missing.
    """
    data, channels = series_of(job), len(series_of(job).panel)
    size = min(data.eval_batch_size, max(1, BATCH_VALUES // ((data.lookback + data.horizon) * channels)))
    held = max(1, HELD_VALUES // (data.horizon * channels))
    for begin in range(0, len(windows), held):
        some = windows.at(windows.anchors.take(np.arange(begin, min(begin + held, len(windows)))))
        with training.interruptible(job.trainer, "nothing was written"):
            found: Any = job.trainer.predict(job.module, DataLoader(some, batch_size=size, collate_fn=as_is))
        forecast, truth = torch.cat(found).float().cpu().numpy(), some.targets().astype(np.float32)
        # a sample for each window and channel [B C, H] -> [B, H, C]
        forecast, truth = (each.reshape(len(some), channels, -1).swapaxes(1, 2) for each in (forecast, truth))
        yield some.anchors.first, forecast, truth


def _calibrated(job: Job, validation: Windows, season: Season) -> tuple[np.ndarray, str]:
    """Half widths [P, H, C] of the intervals, and the better baseline: from validation windows."""
    _say(job, f"calibrating intervals on {len(validation):,} validation windows")
    data, errors = series_of(job), list[np.ndarray]()
    scores = Scores(_standardised(data), data.horizon, season.rows, np.empty((0, data.horizon, len(data.panel))))
    for first, forecast, truth in _forecasts(job, validation):
        errors.append(forecast - truth)
        scores.add(first, forecast, truth)
    return margins(np.concatenate(errors)), scores.baseline


def _windows(job: Job, scores: Scores, shown: list[int]) -> list[figures.Window]:
    """Some windows of the test split with their forecasts, in the units of the series."""
    data, labels, time = series_of(job), _labels(scores.each_window), _time(series_of(job))
    windows = data.windows("test")
    windows = windows.at(windows.anchors.take(np.array(list(labels))))
    forecasts = [each for _, some, _ in _forecasts(job, windows) for each in some.astype(np.float64)]
    first = windows.anchors.first
    values, (mean, scale) = by_row(data.panel, data.panel.target), data.scaling.of_target(data.panel).T
    found = []
    for (place, label), row, date, forecast in zip(labels.items(), first, stamps(time[first]), forecasts, strict=True):
        rows = slice(row - data.lookback, row + data.horizon)
        past, truth = np.split(values[rows, shown], [data.lookback])
        bounds = np.stack([forecast - scores.margin, forecast + scores.margin], axis=1) * scale + mean
        found.append(
            figures.Window(
                label=f"{label}: {_words(date)}, MSE {scores.each_window[place]:.3f}",
                time=time[rows],
                past=past,
                truth=truth,
                forecast=(forecast * scale + mean)[:, shown],
                bounds=bounds[..., shown],
            )
        )
    return found


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


def _time(data: ForecastDataModule) -> pd.Index:
    return data.panel.times[: data.panel.lengths[0]]


def _standardised(data: ForecastDataModule) -> np.ndarray:
    """[T, C], NaN where missing."""
    mean, scale = data.scaling.of_target(data.panel).T
    return (by_row(data.panel, data.panel.target) - mean) / scale


# what else the page has -----------------------------------------------------------------------------------------------


def _surprise(job: Job, plots: dict[str, Plot], shown: list[int]) -> dict[str, Any]:
    """The plots, and the surprise of the test split where there is a memory."""
    data = series_of(job)
    if not has_surprise(module_of(job)):
        return {"plots": plots}
    fitted, length = fitted_of(job), int(data.panel.lengths[0])
    begin, end = data.protocol.ranges(length, data.lookback)["test"]
    _say(job, f"reading {end:,} rows for the surprise of the memory")
    rows, read = slice(begin + data.lookback, end), data.panel.until(length - end)
    found = by_row(read, surprise_of(fitted.network, read, fitted.scaling))[rows]
    most, time, columns = spans(found)[:MARKED], _time(data)[rows], [str(name) for name in read.ids]
    chosen = list(dict.fromkeys([*(span.channel for span in most), *shown]))[:MOST_CHANNELS]
    names = {channel: columns[channel] for channel in chosen}
    plot = figures.surprise_plot(by_row(read, read.target)[rows], found, names, time, most)
    dates = [_words(stamp) for stamp in stamps(time)]
    table = [(span.peak, columns[span.channel], dates[span.begin], dates[span.end - 1]) for span in most]
    return {"plots": {**plots, "surprise": plot}, "spans": table, "every": figures.rows_per_point(len(found))}


def _training(metrics: Mapping[str, Any], monitor: str) -> str:
    return (
        f"Epochs: {metrics['epochs']}, {metrics['seconds_per_epoch']:.1f} s each on average. The weights are "
        f"those of epoch {metrics['best_epoch']}, the best by {monitor}, with validation MSE {metrics['val_mse']:.4f}. "
        f"{metrics['parameters']:,} parameters."
    )


def _facts(data: ForecastDataModule) -> list[tuple[str, str]]:
    panel, time = data.panel, _time(data)
    facts = [("series", f"{len(time):,} rows of {len(panel):,} channels ({data.provenance})")]
    if missing := int(np.isnan(panel.target).sum()):
        facts.append(("missing", f"{missing:,} of {panel.target.size:,} values, which count nowhere"))
    if isinstance(time, pd.DatetimeIndex):
        first, last = map(_words, stamps(time[[0, -1]]))
        facts.append(("dates", f"{first} to {last}, {step_text(panel.freq)}"))
    facts.append(("windows", ", ".join(f"{split} {len(data.windows(split)):,}" for split in SPLITS)))
    packages = (f"{name} {version(name)}" for name in ("titans-seq", "torch", "lightning", "plotly"))
    return [*facts, ("versions", ", ".join([*packages, f"Python {platform.python_version()}"]))]


def _differs(scores: Scores, metrics: Mapping[str, Any]) -> str | None:
    before, now = metrics["test_mse"], scores.total(MODEL, "MSE")
    if math.isclose(before, now, rel_tol=1e-3):
        return None
    return f"The run's {runs.METRICS} has test MSE {before:.4f}: its data, weights or test windows have changed since."
