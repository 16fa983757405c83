"""`titans-seq compare`: finished runs of one task beside each other, apart where they were not tested alike."""

import argparse
import csv
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from titans_seq.cli import dna, forecast, lm, recorded, runs
from titans_seq.cli.errors import UsageError
from titans_seq.cli.pictures import draw
from titans_seq.cli.tables import show_paths, show_table
from titans_seq.cli.tasks import Task
from titans_seq.datamodules.common.errors import DataWarning
from titans_seq.datamodules.common.files import user_path
from titans_seq.files import replacing
from titans_seq.pictures import Comparison, plot_comparison

TASKS: Mapping[str, Task] = {task.key: task for task in (forecast.FORECAST, dna.CLASSIFY, dna.PRETRAIN, lm.FIT)}
# of a metric's name behind test_ or val_: which end of it is good
LOWER = ("mse", "mae", "rmse", "mase", "smape", "crps", "loss", "bits", "perplexity", "bits_per_byte")
HIGHER = ("accuracy", "token_accuracy", "mcc", "auroc", "f1")
BESIDE = ("epochs", "best_epoch", "parameters", "fit_seconds", "stopped")  # shown too, but none is the best
# options of the data that change the training alone: all others change what is tested
TRAINING = (
    "batch_size", "eval_batch_size", "num_workers", "seed", "data_root", "steps_per_epoch", "least_steps",
    "both_strands", "calendar", "holidays", "past_covariates", "future_covariates", "static_covariates",
    "sample_weight", "transform",
)  # fmt: skip
TESTED = ("objective", "scale", "test_windows", "test_sequences", "test_bases", "test_tokens")  # metrics that say what
NAMED = ("lookback", "horizon", "length", "eval_length", "objective")  # always in the title of a group
NOWHERE = ("task", "output", "quiet", "version")  # keys of a configuration that change no result
MISSING = "-"


@dataclass(frozen=True)
class Run:
    """A finished run.

    folder: as given. metrics: of its metrics.json. config: flat, by dotted keys. protocol: all that must be equal where
    metrics are compared.
    """

    folder: Path
    task: Task
    metrics: dict[str, Any]
    config: dict[str, Any]
    protocol: dict[str, Any]


def compare_command(arguments: argparse.Namespace) -> None:
    """Print the tables, draw the picture, and write the CSV; no file is written over."""
    folders = list(dict.fromkeys(each for path in arguments.runs for each in _folders(user_path(path))))
    if len(folders) < 2:
        raise UsageError(f"two runs or more can be compared; got {len(folders)}")
    found = [_read(folder, arguments.trust) for folder in folders]
    _require_one_task(found)
    picture = runs.new_picture(arguments.output, Path("compare.png"))
    table = runs.new_file(user_path(arguments.csv)) if arguments.csv else None
    groups, names = _groups(found), _names(folders)
    for title, members in groups.items():
        _show(title, members, names)
    made = draw(plot_comparison, [_panel(title, members, names) for title, members in groups.items()], picture)
    if table is not None:
        made.append(_write(groups, table))
    show_paths("files", made)


def _folders(place: Path) -> list[Path]:
    """A run, or the finished jobs of a sweep."""
    if not place.is_dir() or (place / runs.CONFIG).exists():
        return [place]
    jobs = sorted((path.parent for path in place.glob(f"*/{runs.CONFIG}")), key=lambda path: (len(path.name), path))
    finished = [job for job in jobs if (job / runs.METRICS).exists()]
    if not finished:
        raise UsageError(f"{place} holds no finished run: neither {runs.CONFIG} nor folders with {runs.METRICS}")
    if len(finished) < len(jobs):
        warnings.warn(f"{place}: {len(jobs) - len(finished)} of {len(jobs)} runs are not finished", DataWarning)
    return finished


def _read(folder: Path, trust: Sequence[str]) -> Run:
    config = recorded.read_config(folder, *TASKS, trust=recorded.named_again(trust))
    if not (folder / runs.METRICS).exists():
        raise UsageError(f"{folder} is not finished: it has no {runs.METRICS}; leave it out, or --resume it")
    task = TASKS[config.task]
    metrics = runs.read_metrics(folder / runs.METRICS, task.headline)
    flat = dict(_flat(OmegaConf.to_container(config)))
    of_data = {key: value for key, value in flat.items() if key.startswith("data.")}
    protocol = {
        key: value for key, value in of_data.items() if key.removeprefix("data.") not in TRAINING and value != []
    }
    protocol["trainer.limit_test_batches"] = flat.get("trainer.limit_test_batches")
    protocol |= {key: metrics[key] for key in ("dataset", *TESTED) if key in metrics}
    return Run(folder, task, metrics, flat, protocol)


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _require_one_task(found: Sequence[Run]) -> None:
    first = found[0]
    other = next((run for run in found if run.task is not first.task), None)
    if other is not None:
        held = " and ".join(f"{run.folder} holds {recorded.KINDS[run.task.key]}" for run in (first, other))
        raise UsageError(f"runs of different tasks cannot be compared: {held}; give runs of one task")


def _groups(found: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs that were tested alike, by what tells them from the others."""
    alike: dict[tuple[str, ...], list[Run]] = {}
    for run in found:
        said = (f"{key} {value}" for key, value in sorted(run.protocol.items()) if value is not None)
        alike.setdefault(tuple(said), []).append(run)
    firsts = [members[0].protocol for members in alike.values()]
    keys = dict.fromkeys(key for protocol in firsts for key in protocol)
    differing = [key for key in keys if len({str(protocol.get(key)) for protocol in firsts}) > 1]
    return {_title(members[0], differing): members for members in alike.values()}


def _title(run: Run, differing: Sequence[str]) -> str:
    named = [key for name in NAMED for key in (f"data.{name}", name) if run.protocol.get(key) is not None]
    keys = dict.fromkeys([*named, *differing])
    words = [f"{key.removeprefix('data.')} {run.protocol[key]}" for key in keys if run.protocol.get(key) is not None]
    dataset = str(run.metrics.get("dataset", MISSING))
    return ", ".join([dataset, *(word for word in words if word != f"dataset {dataset}")])


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """The last parts of each path, as many as tell them apart; the numbers of a sweep's jobs say nothing alone."""
    paths = [folder.absolute() for folder in folders]
    parts = 2 if any(path.name.isdecimal() for path in paths) else 1
    while len({path.parts[-parts:] for path in paths}) < len(set(paths)):
        parts += 1
    return {folder: "/".join(path.parts[-parts:]) for folder, path in zip(folders, paths, strict=True)}


# metrics -------------------------------------------------------------------------------------------------------------


def _direction(task: Task, name: str) -> int:
    """1 where a high value is good, -1 where a low one is, 0 where neither can be said."""
    stage, _, kind = name.partition("_")
    if stage not in ("test", "val") or (kind == "loss" and name not in task.headline):
        return 0
    return (kind in HIGHER) - (kind in LOWER)


def _columns(members: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(name for run in members for name in run.metrics)
    task = members[0].task
    scores = [name for name in names if name.endswith("_loss") or _direction(task, name)]
    return [name for name in (*scores, *BESIDE) if name in names]


def _best(members: Sequence[Run], name: str) -> float | None:
    sign = _direction(members[0].task, name)
    values = [run.metrics[name] for run in members if isinstance(run.metrics.get(name), int | float)]
    return max(values, key=lambda value: sign * value) if sign and len(members) > 1 and values else None


def _differences(members: Sequence[Run]) -> dict[str, list[Any]]:
    """The keys of the configurations with more than one value.

    What only some mixers have as an option differs because of the mixer, and is left out.
    """
    found = {}
    for key in dict.fromkeys(key for run in members for key in run.config):
        values = [run.config.get(key, MISSING) for run in members]
        given = [value for value in values if value != MISSING] if key.startswith("model.") else values
        if key not in NOWHERE and len(set(map(str, given))) > 1:
            found[key] = values
    if "seed" in found and found.get("data.seed") == found["seed"]:  # the same seed, unless an override says otherwise
        del found["data.seed"]
    return found


# what is shown -------------------------------------------------------------------------------------------------------


def _show(title: str, members: Sequence[Run], names: Mapping[Path, str]) -> None:
    columns = _columns(members)
    best = {name: _best(members, name) for name in columns}
    rows = [[names[run.folder], *(run.metrics.get(name, MISSING) for name in columns)] for run in members]
    marked = {
        (i, j + 1)
        for i, run in enumerate(members)
        for j, name in enumerate(columns)
        if best[name] is not None and run.metrics.get(name) == best[name]
    }
    show_table(title, ["run", *columns], rows, marked=marked)
    differences = _differences(members)
    if len(differences) > len(members):
        heads = ["option", *(names[run.folder] for run in members)]
        show_table("what differs", heads, [[key, *values] for key, values in differences.items()])
    elif differences:
        by_run = zip((names[run.folder] for run in members), *differences.values(), strict=True)
        show_table("what differs", ["run", *differences], [list(row) for row in by_run])


def _panel(title: str, members: Sequence[Run], names: Mapping[Path, str]) -> Comparison:
    task = members[0].task
    scores = {name: [float(run.metrics[name]) for run in members] for name in task.headline}
    best = {name: _best(members, name) for name in task.headline}
    return Comparison(title, [names[run.folder] for run in members], scores, best)


def _write(groups: Mapping[str, Sequence[Run]], path: Path) -> Path:
    """Write one row per run: its group, its metrics, and the options that differ in any group."""
    members = [run for group in groups.values() for run in group]
    options = dict.fromkeys(key for group in groups.values() for key in _differences(group))
    metrics = dict.fromkeys(name for run in members for name in run.metrics)
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "group", *metrics, *(f"config.{key}" for key in options)])
        for title, group in groups.items():
            for run in group:
                values = [run.metrics.get(name, "") for name in metrics]
                writer.writerow([run.folder, title, *values, *(run.config.get(key, "") for key in options)])
    return path
