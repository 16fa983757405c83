"""`titans-seq fit forecast -m`: Hydra's own multirun, so that its sweepers and launchers (joblib, submitit, ...) work."""

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
from titans_seq.cli.config import CONFIG_MODULE, CONFIG_NAME, complete, compose_sweep, overrides_of, quoted, resolved
from titans_seq.cli.errors import UsageError
from titans_seq.cli.tables import show_paths, show_table


def sweep(arguments: argparse.Namespace) -> None:
    """Run every job of the sweep in a folder of its own, then print the jobs beside each other."""
    from titans_seq.cli.forecast import prepare

    if arguments.resume:
        raise UsageError("--resume continues one run, not a sweep; give --output RUN --resume without -m")
    output, arguments.output = arguments.output, None
    overrides, configs = compose_sweep(overrides_of(arguments))
    if any(word.startswith(("output=", "hydra.sweep.dir=")) for word in overrides):
        raise UsageError("the folder of a sweep is given by --output")
    for config in configs:  # nothing starts, and nothing is written, before every job is known to be good
        prepare(config)
    name = datetime.now().strftime("sweep-%Y-%m-%d_%H-%M-%S")
    folder = Path(output).expanduser() if output else Path("runs", "forecast", name)
    if output and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds a run or a sweep already; choose another --output")
    folder = runs.make_folder(folder) if output else runs.make_new_folder(folder)
    with _command_line(["--multirun", *overrides, f"hydra.sweep.dir={quoted(str(folder))}"]):
        _multirun()
    _show(folder, [word.split("=")[0].lstrip("+") for word in overrides])


def run_job(config: DictConfig) -> float:
    """One job of the sweep, in whatever process the launcher runs it; its validation MSE is what sweepers minimise."""
    from titans_seq.cli.forecast import fit

    folder = Path(HydraConfig.get().runtime.output_dir)
    complete(config)
    config = resolved(config)
    quiet, config.quiet = config.quiet, True  # the bars of several jobs would run into each other
    metrics = fit(config, folder, show=False)
    if not quiet:
        print(f"job {folder.name}: val_mse {metrics['val_mse']:.4f}, test_mse {metrics['test_mse']:.4f}, {folder}")
    return metrics["val_mse"]


def _multirun() -> None:
    GlobalHydra.instance().clear()
    try:
        hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name=CONFIG_NAME, version_base="1.3")(run_job)()
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


def _show(folder: Path, keys: list[str]) -> None:
    from omegaconf import OmegaConf

    jobs = sorted((path.parent for path in folder.glob(f"*/{runs.METRICS}")), key=lambda path: (len(path.name), path))
    configs = [OmegaConf.load(job / runs.CONFIG) for job in jobs]
    shown = [key for key in keys if not key.startswith("hydra")]
    values = {key: [_name(OmegaConf.select(config, key)) for config in configs] for key in shown}
    swept = {key: column for key, column in values.items() if len({str(value) for value in column}) > 1}
    rows = []
    for i, job in enumerate(jobs):
        metrics = runs.read_json(job / runs.METRICS)
        named = [column[i] for column in swept.values()]
        rows.append([job.name, *named, metrics["val_mse"], metrics["test_mse"], metrics["test_mae"]])
    show_table("sweep", ["job", *swept, "val_mse", "test_mse", "test_mae"], rows)
    show_paths("sweep", [folder])


def _name(value: object) -> object:
    """A section swept as a whole (model=memory,none) shows what tells it apart."""
    if isinstance(value, DictConfig):
        return value.get("mixer") or value.get("dataset") or value.get("csv") or "embedded"
    return value
