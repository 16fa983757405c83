"""`titans-seq data describe FILE`: what the reader understands of a file, before anything is trained on it.

R rows of a table, T rows of a series.
"""

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from titans_seq.cli import runs
from titans_seq.cli.errors import UsageError
from titans_seq.cli.pictures import draw
from titans_seq.cli.table_flags import asked, form_of
from titans_seq.cli.tables import show_paths, show_record, show_table
from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.common.files import base_name, user_path
from titans_seq.datamodules.common.loaders import SPLITS
from titans_seq.datamodules.forecast.calendar import stamp_text, step_text
from titans_seq.datamodules.forecast.cells import to_numbers
from titans_seq.datamodules.forecast.dates import are_dates
from titans_seq.datamodules.forecast.files import FileForm, Names, read_file, read_table
from titans_seq.datamodules.forecast.panel import Columns, Panel
from titans_seq.datamodules.forecast.protocol import Benchmark, SeriesSplit, Shares, protocol_of, read_split
from titans_seq.datamodules.forecast.seasons import Season, calendar_periods, seasons, spectrum, strongest
from titans_seq.datamodules.forecast.tables import TEXT
from titans_seq.datamodules.forecast.text_tables import found_form
from titans_seq.datamodules.forecast.time_columns import UNNAMED, find_time
from titans_seq.datamodules.forecast.windows import Anchors
from titans_seq.forecast.described import Shown, plot_description
from titans_seq.forecast.pictures import shown_channels

MOST = 30  # rows of a table on the screen
MEASURED = 20  # series whose periods are looked for, and the rows of each
MEASURED_ROWS = 2**17
MARKS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "pipe", r"\s+": "space"}


def describe_command(arguments: argparse.Namespace) -> None:
    """Print what was understood, and draw it; what `fit forecast` would refuse is refused here, after the columns."""
    if arguments.day_first and arguments.month_first:
        raise UsageError("--day-first and --month-first exclude each other; give one")
    path, names, form = user_path(arguments.file), _names(arguments), FileForm(**form_of(arguments))
    picture = runs.new_picture(arguments.output, Path(f"{base_name(path)}-described.png"))
    horizon = arguments.horizon
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # `read_file` says them
        table, _ = read_table(path, form, () if names.id is None else (names.id,))
        show_record(path.name, _written(path, form, table))
    names, notes = _numbers_only(table, names)
    try:
        panel = read_file(path, names, arguments.freq, form)
    except DataError:
        _show_columns(table, _given_roles(names))
        raise
    _show_columns(table, _given_roles(names) | _found_roles(panel, table))
    _show_time(panel, table)
    _show_series(panel)
    protocol = protocol_of(panel, Shares() if arguments.split is None else read_split(arguments.split), horizon)
    _show_split(panel, protocol, arguments.lookback, horizon)
    found = _seasons(panel)
    _show_seasons(found)
    for note in notes:
        print(f"note: {note}")
    title = f"{path.name}: {len(panel)} series, step {step_text(panel.freq)}"
    periods = {season.rows: season.name for season in found}
    made = draw(plot_description, _shown(panel, protocol), periods, picture, title=title)
    show_paths("picture", made)


def _names(arguments: argparse.Namespace) -> Names:
    given = asked(arguments)
    lists = ("target", "past_covariates", "future_covariates", "static_covariates")
    named = {name: tuple(given.get(name, ())) for name in lists}
    return Names(given.get("id_column"), given.get("time_column"), **named)


def _written(path: Path, form: FileForm, table: pd.DataFrame) -> dict[str, Any]:
    """How the file is written."""
    about: dict[str, Any] = {"rows": len(table), "columns": len(table.columns)}
    kind = path.suffix.lower()
    if path.is_dir() or kind not in TEXT:
        return {"format": f"folder of {path.name}" if path.is_dir() else kind.removeprefix("."), **about}
    found = {name: value for name, value in asdict(found_form(path, form)).items() if value is not None}
    return {"format": "text", **{name: MARKS.get(str(value), value) for name, value in found.items()}, **about}


# columns -------------------------------------------------------------------------------------------------------------


def _numbers_only(table: pd.DataFrame, names: Names) -> tuple[Names, list[str]]:
    """Of a wide table whose target is not named, the columns that hold numbers as the target, and what to do to have
    the same in a fit. Any other table stays as it is.
    """
    id_name = names.id or (Columns().id if Columns().id in table.columns else None)
    missing = names.time is not None and names.time not in table.columns  # `read_file` says it
    if id_name is not None or names.covariates or names.target or missing:
        return names, []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            found, time = find_time(table, names.time, (), False)
    except DataError:  # `read_file` says it
        return names, []
    beside = [str(name) for name in found if name != time]
    texts = [name for name in beside if to_numbers(found[name])[1].any()]
    numeric = tuple(name for name in beside if name not in texts)
    if not texts or not numeric or found[time].duplicated().any():
        return names, []
    left = ", ".join(texts)
    note = f"{left}: no numbers, and left out here; a fit needs --target {_list(numeric)} to leave them out"
    return replace(names, target=numeric), [note]


def _list(names: Sequence[str]) -> str:
    """Names as --target takes them on a command line."""
    listed = ",".join(f'"{name}"' if "," in name else name for name in names)
    return listed if listed.replace(",", "").isidentifier() else f"'{listed}'"


def _given_roles(names: Names) -> dict[str, str]:
    kinds = ("past_covariates", "future_covariates", "static_covariates")
    roles = {name: kind.replace("_", " ").removesuffix("s") for kind in kinds for name in getattr(names, kind)}
    single = {names.time: "time", names.id: "names of series"}
    return roles | dict.fromkeys(names.target, "series") | {name: role for name, role in single.items() if name}


def _found_roles(panel: Panel, table: pd.DataFrame) -> dict[str, str]:
    columns = panel.columns
    roles = dict.fromkeys(map(str, panel.ids), "series") if panel.wide else {columns.target: "target"}
    unnamed = {} if columns.time in table.columns else {UNNAMED: "time"}  # its name is the reader's
    series = {} if columns.id is None or panel.wide else {columns.id: "names of series"}
    return roles | unnamed | {columns.time: "time"} | series


def _show_columns(table: pd.DataFrame, roles: dict[str, str]) -> None:
    rows = [[str(name), roles.get(str(name), "not read"), *_content(table[name])] for name in table.columns[:MOST]]
    title = "columns" if len(table.columns) <= MOST else f"columns (the first {MOST} of {len(table.columns)})"
    show_table(title, ["column", "read as", "holds", "missing", "from", "to"], rows)


def _content(column: pd.Series) -> list[Any]:
    """Type, missing share, and the least and the largest value, or two of the texts."""
    missing = f"{column.isna().mean():.1%}"
    seen = column.dropna()
    if seen.empty:
        return ["nothing", missing, "", ""]
    numbers, unread = to_numbers(column)
    if not unread.any() and not pd.api.types.is_datetime64_any_dtype(column.dtype):
        whole = bool((seen.astype(float) % 1 == 0).all()) if pd.api.types.is_numeric_dtype(seen.dtype) else False
        least, most = float(np.nanmin(numbers)), float(np.nanmax(numbers))
        return ["whole numbers" if whole else "numbers", missing, f"{least:g}", f"{most:g}"]
    if are_dates(seen):
        return ["dates", missing, str(seen.iloc[0]), str(seen.iloc[-1])]
    kinds = seen.astype(str).unique()
    return [f"text, {len(kinds):,} different", missing, kinds[0], kinds[-1]]


# time and series -----------------------------------------------------------------------------------------------------


def _longest(panel: Panel) -> Panel:
    """The longest series alone."""
    return panel.take(np.array([int(np.argmax(panel.lengths))]))


def _show_time(panel: Panel, table: pd.DataFrame) -> None:
    rows = int(panel.lengths[0]) if panel.wide else int(panel.lengths.sum())
    show_record(
        "time",
        {
            "column": panel.columns.time,
            "step": step_text(panel.freq),
            "from": stamp_text(panel.clock.min()),
            "to": stamp_text(panel.clock.max()),
            "rows on the grid": rows,
            "rows not in the file": rows - len(table),
        },
    )


def _show_series(panel: Panel) -> None:
    lengths = panel.lengths
    missing = np.isnan(panel.target)
    show_record(
        "series",
        {
            "count": len(panel),
            "rows": f"{lengths.min():,}" + (f" to {lengths.max():,}" if lengths.min() < lengths.max() else ""),
            "missing values": f"{missing.mean():.2%}",
            "past covariates": ", ".join(panel.columns.past_covariates) or "none",
            "future covariates": ", ".join(panel.columns.future_covariates) or "none",
            "static covariates": ", ".join(map(str, panel.static_covariates.columns)) or "none",
        },
    )
    rows = []
    for i in range(min(len(panel), MOST)):
        values = panel.target[panel.offsets[i] : panel.offsets[i + 1]]
        seen, (gaps, longest) = values[~np.isnan(values)], _gaps(values)
        ends = [stamp_text(each) for each in panel.stamps(np.array([panel.offsets[i], panel.offsets[i + 1] - 1]))]
        stats = [f"{stat(seen):g}" if len(seen) else "" for stat in (np.min, np.mean, np.max, np.std)]
        rows.append([str(panel.ids[i]), len(values), *ends, gaps, longest, *stats])
    title = "each series" if len(panel) <= MOST else f"the first {MOST} of {len(panel):,} series"
    heads = ["series", "rows", "from", "to", "gaps", "longest gap", "least", "mean", "largest", "deviation"]
    show_table(title, heads, rows)


def _gaps(values: np.ndarray) -> tuple[int, int]:
    """How many runs of missing values there are, and the length of the longest."""
    edges = np.flatnonzero(np.diff(np.isnan(values).astype(np.int8), prepend=0, append=0))
    lengths = edges[1::2] - edges[::2]
    return len(lengths), int(lengths.max(initial=0))


def _show_split(panel: Panel, protocol: Benchmark | SeriesSplit, lookback: int, horizon: int) -> None:
    longest, alike = int(np.argmax(panel.lengths)), len(np.unique(panel.lengths)) == 1
    rows = []
    for split in SPLITS:
        begin, end = (int(each[longest]) for each in protocol.bounds(panel, split))
        places = panel.offsets[longest] + np.array([begin, max(begin, end - 1)])
        ends = [stamp_text(stamp) for stamp in panel.stamps(places)] if begin < end else ["", ""]
        rows.append([split, *ends, end - begin, len(_windows(panel, protocol, split, lookback, horizon))])
    title = f"split{'' if alike else ' of the longest series'}, windows of lookback {lookback} and horizon {horizon}"
    show_table(title, ["split", "from", "to", "rows", "windows"], rows)
    if isinstance(protocol, Benchmark):
        try:
            protocol.require("it", int(panel.lengths[0]), lookback, horizon)
        except DataError as error:
            print(f"note: {error}")
        return
    firsts, lasts = protocol.bounds(panel, "test")
    if short := int((lasts - firsts < horizon).sum()):
        print(f"note: {short} of {len(panel)} series are too short for a horizon in test; choose a shorter --horizon")


def _windows(panel: Panel, protocol: Benchmark | SeriesSplit, split: str, lookback: int, horizon: int) -> Anchors:
    """Those that lie inside of the series: validation and test reach back into the rows before them."""
    anchors = protocol.anchors(panel, split, lookback, horizon)
    inside = anchors.first >= lookback if panel.wide else anchors.first >= 0
    return anchors.take(np.flatnonzero(inside))


# periods -------------------------------------------------------------------------------------------------------------


def _seasons(panel: Panel) -> list[Season]:
    calendar = calendar_periods(_longest(panel).clock, panel.freq)
    which = np.unique(np.linspace(0, len(panel) - 1, MEASURED).astype(int))
    every = [seasons(_values(panel, int(i))[-MEASURED_ROWS:], calendar) for i in which]
    return strongest(every)


def _values(panel: Panel, series: int) -> np.ndarray:
    return panel.target[panel.offsets[series] : panel.offsets[series + 1]]


def _show_seasons(found: Sequence[Season]) -> None:
    if not found:
        print("no period: the series are too short, flat, or hold nothing that repeats")
        return
    rows = [
        [season.rows, season.name or "found", f"{season.autocorrelation:.2f}", f"{season.power:.1%}"]
        for season in found
    ]
    show_table("periods", ["rows", "what", "autocorrelation", "share of variance"], rows)


def _shown(panel: Panel, protocol: Benchmark | SeriesSplit) -> list[Shown]:
    shown, bounds = [], {name: protocol.bounds(panel, name) for name in SPLITS if name != "train"}
    for i in shown_channels(len(panel)):
        values = _values(panel, i)
        times = panel.axis[panel.offsets[i] : panel.offsets[i + 1]]
        splits = {name: (int(begin[i]), int(end[i])) for name, (begin, end) in bounds.items()}
        shown.append(Shown(str(panel.ids[i]), times, values, splits, spectrum(values[-MEASURED_ROWS:])))
    return shown
