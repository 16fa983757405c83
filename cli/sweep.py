"""`titans-seq fit ... -m`: Hydra's own multirun, so that its sweepers and launchers (joblib, submitit, ...) work."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from titans_seq.cli import runs
from titans_seq.cli.config import compose_sweep, overrides_of, quoted, resolved
from titans_seq.cli.constructors import complete
from titans_seq.cli.errors import UsageError
from titans_seq.cli.fitting import fit, on_one_device, prepare
from titans_seq.cli.tables import show_paths, show_table
from titans_seq.cli.tasks import Task
from titans_seq.datamodules.common.files import user_path
from titans_seq.printable import printable


def sweep(task: Task, arguments: argparse.Namespace) -> None:
    """Run every job of the sweep in a folder of its own, then print the jobs beside each other."""
    if arguments.resume:
        raise UsageError("--resume continues one run, not a sweep; give --output RUN --resume without -m")
    output, arguments.output = arguments.output, None
    overrides, configs = compose_sweep(task.schema, overrides_of(task.schema, arguments))
    if any(word.startswith(("output=", "hydra.sweep.dir=")) for word in overrides):
        raise UsageError("the folder of a sweep is given by --output")
    _check_devices(configs, overrides)
    for config in configs:  # nothing starts, and nothing is written, before every job is known to be good
        prepare(task, config)
    name = datetime.now().strftime("sweep-%Y-%m-%d_%H-%M-%S")
    folder = user_path(output) if output else Path("runs", task.name, name)
    if output and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds a run or a sweep already; choose another --output")
    folder = runs.make_folder(folder) if output else runs.make_new_folder(folder)
    with _command_line(["--multirun", *overrides, f"hydra.sweep.dir={quoted(str(folder))}"]):
        _multirun(task)
    _show(task, folder, [word.split("=")[0].lstrip("+") for word in overrides])


def _check_devices(configs: list[DictConfig], overrides: list[str]) -> None:
    """Lightning starts a run's other processes by the command line, which is here that of the whole sweep; a cluster's
    launcher starts them itself."""
    launcher = next((word.split("=")[1] for word in overrides if word.startswith("hydra/launcher=")), "basic")
    if launcher in ("basic", "joblib") and not all(on_one_device(config.trainer) for config in configs):
        raise UsageError("a sweep trains each job on one device; for more give one command per job, without -m")


def run_job(task: Task, config: DictConfig) -> float:
    """One job of the sweep, in whatever process the launcher runs it; its first headline metric is what sweepers
    see.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    complete(config)
    config = resolved(config)
    quiet, config.quiet = config.quiet, True  # the bars of several jobs would run into each other
    metrics = fit(task, config, folder, show=False)
    if not quiet:
        values = " ".join(f"{name} {metrics[name]:.4f}," for name in task.headline if name in metrics)
        print(printable(f"job {folder.name}: {values} {folder}", most=None))
    return metrics[task.headline[0]]


def _multirun(task: Task) -> None:
    GlobalHydra.instance().clear()

    def job(config: DictConfig) -> float:
        return run_job(task, config)

    schema = task.schema
    try:
        hydra.main(config_path=f"pkg://{schema.module}", config_name=schema.name, version_base="1.3")(job)()
    except HydraException as error:
        raise UsageError(str(error).splitlines()[0]) from None


@contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    """Let Hydra see these words, and give its errors to us instead of printing them."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [argv[0], *words], "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _show(task: Task, folder: Path, keys: list[str]) -> None:
    from omegaconf import OmegaConf

    jobs = sorted((path.parent for path in folder.glob(f"*/{runs.METRICS}")), key=lambda path: (len(path.name), path))
    configs = [OmegaConf.load(job / runs.CONFIG) for job in jobs]
    shown = [key for key in keys if not key.startswith("hydra")]
    values = {key: [_name(OmegaConf.select(config, key)) for config in configs] for key in shown}
    swept = {key: column for key, column in values.items() if len({str(value) for value in column}) > 1}
    rows = []
    for i, job in enumerate(jobs):
        metrics = runs.read_metrics(job / runs.METRICS, task.headline)
        named = [column[i] for column in swept.values()]
        rows.append([job.name, *named, *(metrics[name] for name in task.headline)])
    show_table("sweep", ["job", *swept, *task.headline], rows)
    show_paths("sweep", [folder])


def _name(value: object) -> object:
    """A section swept as a whole (model=memory,none) shows what tells it apart."""
    if isinstance(value, DictConfig) and "_target_" in value:
        named = (value.get(key) for key in ("mixer", "dataset", "csv", "bed", "fasta"))
        return next((name for name in named if name), value._target_.rpartition(".")[2])
    return value
