"""`titans-seq test|predict|surprise forecast`: what a trained forecaster is used for.

T rows, C series.
"""

import argparse
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from titans_seq.cli import fitting, runs
from titans_seq.cli.errors import UsageError
from titans_seq.cli.forecast import FORECAST
from titans_seq.cli.forecast_pictures import alike, by_row, draw_forecast, has_surprise
from titans_seq.cli.pictures import draw
from titans_seq.cli.table_flags import form_of
from titans_seq.cli.tables import show_paths, show_record
from titans_seq.cli.trained import Trained, open_trained
from titans_seq.datamodules import DataError
from titans_seq.datamodules.common.errors import DataWarning
from titans_seq.datamodules.common.files import user_path
from titans_seq.datamodules.forecast.files import FileForm, Names, read_future_file
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.files import replacing
from titans_seq.forecast.anomalies import Span, spans
from titans_seq.forecast.conformal import LEVEL, chosen_levels
from titans_seq.forecast.diagnostics import fitted_values
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.frames import surprise_frame
from titans_seq.forecast.pictures import plot_surprise
from titans_seq.forecast.samples import draw_samples
from titans_seq.forecast.scores import as_metrics
from titans_seq.forecast.scoring import score
from titans_seq.forecast.stream import surprise_of
from titans_seq.printable import printable

MARKED = 10  # spans that surprise shows
SAMPLES, FITTED = "samples.csv", "fitted.csv"
PREDICTION = ("forecast.csv", "forecast.png", "surprise.png", SAMPLES, FITTED)  # what predict writes


def test_command(arguments: argparse.Namespace) -> None:
    """`titans-seq test forecast`: metrics on the test split, to RUN/test_metrics.json."""
    trained = open_trained(arguments, "test")
    scored = score(trained.fitted, trained.series, season=arguments.season, progress=not trained.quiet)
    metrics = fitting.finite(about_of(trained) | as_metrics(scored.scores, scored.baseline))
    name = f"test_metrics-{trained.name}.json" if arguments.csv else "test_metrics.json"
    runs.write_json(trained.folder / name, metrics)
    FORECAST.show(metrics)
    show_paths("metrics", [trained.folder / name])


def about_of(trained: Trained) -> dict[str, Any]:
    """What the metrics begin with."""
    data = trained.series
    if trained.job is not None:
        return FORECAST.about(trained.job)
    return {
        "dataset": data.name, "data": data.provenance, "series": len(data.panel), "lookback": data.lookback,
        "horizon": data.horizon, "mixer": str(trained.fitted.network.options["mixer"]),
        "test_windows": len(data.windows("test")), "scale": "standardised", "drop_last": False,
    }  # fmt: skip


# predict --------------------------------------------------------------------------------------------------------------


def predict_command(arguments: argparse.Namespace) -> None:
    """`titans-seq predict forecast`: the rows after the last one, in original units."""
    trained = open_trained(arguments, "predict")
    fitted, data = trained.fitted, trained.data
    levels = levels_for(trained, arguments.level)
    with _said_in_a_line():
        steps = fitted.steps(arguments.horizon)
    if arguments.future_frame is not None:
        return _write_frame(trained, arguments)
    fitted.day_first = form_of(arguments).get("day_first")
    panels, future = None if data is None else [data.panel], _future(trained, arguments)
    with _said_in_a_line():  # all of it before anything is written
        table = fitted.predict(panels, future, levels, steps)
        more = dict[str, pd.DataFrame]()
        if arguments.samples is not None:
            more[SAMPLES] = draw_samples(fitted, arguments.samples, panels, future, steps)
        if arguments.fitted:
            more[FITTED] = fitted_values(fitted, [trained.series.panel])
    warn_of_infinite(table, levels)
    folder, file = _output_for_prediction(arguments, trained.folder)
    files = [file, *(file.with_name(name) for name in more)]
    for path, frame in zip(files, (_flat(table), *more.values()), strict=True):
        _write(frame, path)
    panel, pictures = fitted.tail if data is None else data.panel, []
    if folder is not None:
        shown, first, scaling = _ahead(fitted, panels, future, steps)
        some = "" if len(shown) == len(panel) else f" ({len(shown)} of {len(panel)} series, which end together)"
        pictures = draw_forecast(fitted, trained.name + some, shown, first, folder, scaling, levels, steps)
    times = table.index if panel.wide else table[panel.columns.time]
    about = {
        "data": trained.name, "steps": steps, "series": len(panel),
        "from": str(times.min()), "to": str(times.max()),
        "intervals": ", ".join(f"{level:g} %" for level in levels) or "none",
    }  # fmt: skip
    show_record(f"forecast of {trained.name}", about)
    show_paths("files", [*files, *pictures])


@contextmanager
def _said_in_a_line() -> Iterator[None]:
    """What a forecaster says of wrong arguments are the user's."""
    try:
        yield
    except DataError:
        raise
    except ValueError as error:
        raise UsageError(error) from None


def _write_frame(trained: Trained, arguments: argparse.Namespace) -> None:
    """The rows of the horizon with empty future covariates, to be filled in and given by --future."""
    file = runs.new_file(user_path(arguments.future_frame))
    panels = None if trained.data is None else [trained.data.panel]
    frame = trained.fitted.future_frame(panels, arguments.horizon)
    if not trained.fitted.tail.columns.future_covariates:
        raise UsageError(f"{trained.folder} has no future covariates, so there is nothing to fill in")
    _write(frame, file)
    show_paths("files", [file])


def _write(table: pd.DataFrame, file: Path) -> None:
    with replacing(file) as part:
        table.to_csv(part, index=not isinstance(table.index, pd.RangeIndex))


def warn_of_infinite(table: pd.DataFrame, levels: Sequence[float]) -> None:
    """Say which intervals of a frame of forecasts hold everything."""
    lost = [level for level in levels if _infinite(table, f"-lo-{level:g}")]
    if lost:
        warnings.warn(
            f"intervals of {' and '.join(f'{level:g}' for level in lost)} % are infinite: there were too few "
            "validation values to calibrate them; give a lower --level, or train with more validation rows",
            DataWarning,
            stacklevel=2,
        )


def _infinite(table: pd.DataFrame, ending: str) -> bool:
    columns = [i for i, name in enumerate(_flat(table).columns) if str(name).endswith(ending)]
    return bool(np.isinf(table.iloc[:, columns].to_numpy(dtype=np.float64)).any())


def levels_for(trained: Trained, asked_for: Sequence[float] | None) -> list[float]:
    """The intervals to give: 80 and 95 %, or those that were asked for."""
    fitted = trained.fitted
    calibrated = None if fitted.conformal is None else fitted.conformal.levels
    with _said_in_a_line():
        return chosen_levels(fitted.module.output, calibrated, LEVEL if asked_for is None else asked_for)


def _future(trained: Trained, arguments: argparse.Namespace) -> pd.DataFrame | None:
    """The rows of --future: covariates over the horizon."""
    if arguments.future is None:
        return None
    columns = trained.fitted.tail.columns
    names = Names(columns.id, columns.time, future_covariates=columns.future_covariates)
    return read_future_file(user_path(arguments.future), names, FileForm(**form_of(arguments)))


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """A wide table of forecasts with one line of names: OT, OT-lo-80, OT-hi-80, ..."""
    if table.columns.nlevels == 1:
        return table
    names = [name if kind == "forecast" else f"{name}-{kind}" for name, kind in table.columns]
    return table.set_axis(names, axis=1)


def _ahead(
    fitted: FittedForecaster, panels: Sequence[Panel] | None, future: pd.DataFrame | None, steps: int
) -> tuple[Panel, np.ndarray, PanelScaling]:
    """The last rows of the series that end together with the first one and the horizon after them, where that begins,
    and their scaling.
    """
    past, scaling, _ = next(fitted.histories(panels))
    ahead = fitted.ahead(past, future, steps)
    together = np.flatnonzero(np.asarray(past.last == past.last[0]))
    chosen = together[alike(past.lengths[together], fitted.context)]
    return ahead.take(chosen), past.lengths[chosen], scaling


def _output_for_prediction(arguments: argparse.Namespace, run: Path) -> tuple[Path | None, Path]:
    """The folder of the pictures, None without, and the file of the forecast: --output names either."""
    if arguments.output is None:
        folder = runs.make_new_folder(run / "predict")
        return folder, folder / PREDICTION[0]
    place = user_path(arguments.output)
    if place.suffix.lower() == ".csv":
        for name, asked_for in ((SAMPLES, arguments.samples), (FITTED, arguments.fitted)):
            if asked_for:
                runs.new_file(place.with_name(name))
        return None, runs.new_file(place)
    for name in (*PREDICTION, runs.CONFIG):  # with a config.yaml it is a run, whose pictures have these names
        if (place / name).exists():
            raise UsageError(f"{place} holds {name} already; choose another --output")
    return runs.make_folder(place), place / PREDICTION[0]


# surprise -------------------------------------------------------------------------------------------------------------


def surprise_command(arguments: argparse.Namespace) -> None:
    """`titans-seq surprise forecast`: how much each row surprised the memory, and where most."""
    trained = open_trained(arguments, "predict")
    fitted, panel = trained.fitted, trained.series.panel
    if not has_surprise(fitted):
        why = "has a memory for each seed" if fitted.others else "has no memory to surprise"
        how = "--seeds 1" if fitted.others else "model=memory"
        raise UsageError(f"{trained.folder} {why}; train one with {how}")
    scaling = fitted.scaling.with_series(panel)
    found = surprise_of(fitted.network, panel, scaling)
    table = by_row(panel, found)
    most = _standing_out(table, fitted.network.lookback, arguments.share)
    default = trained.folder / f"surprise-{trained.name}.csv"
    path = runs.free(user_path(arguments.output) if arguments.output else default)
    runs.make_folder(path.parent)
    with replacing(path) as part:
        fitted.to_frame(surprise_frame(panel, found), panel.wide, "surprise").to_csv(part, index=panel.wide)
    shown = most[:MARKED]
    pictures = _draw_surprise(trained, panel, table, shown, path.with_suffix(".png"))
    for span in shown:
        stamps = panel.stamps(panel.offsets[span.channel] + np.array([span.begin, span.end - 1]))
        print(f"{span.peak:8.3f}  {printable(str(panel.ids[span.channel]))}  {stamps[0]} to {stamps[1]}")
    show_paths("files", [path, *pictures])


def _standing_out(found: np.ndarray, lookback: int, share: float) -> list[Span]:
    """The most surprising spans, but for the first block's, which surprises a memory that knows nothing yet."""
    skipped = lookback if len(found) > 2 * lookback else 0
    return [
        replace(span, begin=span.begin + skipped, end=span.end + skipped)
        for span in spans(found[skipped:], share=share)
    ]


def _draw_surprise(trained: Trained, panel: Panel, table: np.ndarray, shown: Sequence[Span], place: Path) -> list[Path]:
    """Of the series that have the time stamps of the first one, or of the most surprising."""
    title = f"{trained.name}: what surprised the memory"
    first = shown[0].channel if shown else 0
    starts = panel.stamps(panel.offsets[:-1])
    alike = np.asarray((starts == starts[first]) & (panel.lengths == panel.lengths[first]))
    rows = int(panel.lengths[first])
    axis = panel.axis[panel.offsets[first] : panel.offsets[first] + rows]
    values, columns = by_row(panel, panel.target)[:rows, alike], [str(name) for name in panel.ids[alike]]
    place_of = {int(channel): i for i, channel in enumerate(np.flatnonzero(alike))}
    marked = [replace(span, channel=place_of[span.channel]) for span in shown if span.channel in place_of]
    return draw(plot_surprise, values, table[:rows, alike], columns, axis, place, title=title, marked=marked)
