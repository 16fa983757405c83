"""The further networks of an ensemble: each a run of its own, with the next seed, inside of the run's folder."""

import copy
from pathlib import Path
from typing import Any

from titans_seq.cli import checkpoints, fitting, resuming, runs, training
from titans_seq.cli.errors import UsageError
from titans_seq.cli.tasks import Job
from titans_seq.datamodules import ForecastDataModule
from titans_seq.forecast import ForecastModule, SimbaForecaster
from titans_seq.forecast.scores import MODEL
from titans_seq.forecast.scoring import score
from titans_seq.training import best_device

MEMBERS = "members"


def check(job: Job) -> None:
    """Refuse an ensemble that could not be trained or saved."""
    if job.config.seeds == 1:
        return
    if not isinstance(job.module.network, SimbaForecaster):
        raise UsageError("--seeds needs a network of ours: a network of your own cannot be saved in an ensemble")
    if not fitting.on_one_device(job.config.trainer):
        raise UsageError("--seeds trains on one device; give --devices 1")


def others_of(job: Job, folder: Path) -> tuple[ForecastModule, ...]:
    """The trained networks but for the run's own; what was trained before is not trained again."""
    return tuple(_member(job, folder / MEMBERS / str(i), i) for i in range(1, job.config.seeds))


def together(job: Job, folder: Path) -> dict[str, Any]:
    """What the metrics say of all networks, instead of the first alone."""
    assert isinstance(job.data, ForecastDataModule)
    scored = score(job.fitted, job.data, split="val")
    found = {f"val_{name.lower()}": scored.scores.total(MODEL, name) for name in ("MSE", "MAE")}
    each = [folder / MEMBERS / str(i) for i in range(1, job.config.seeds)]
    seconds = sum(row["seconds"] for row in fitting.history_of(folder, job.module))
    seconds += sum(runs.read_metrics(run / runs.METRICS, ("fit_seconds",))["fit_seconds"] for run in each)
    weights = sum(each.numel() for module in job.fitted.modules for each in module.network.parameters())
    stopped = {"stopped": training.STOPPED} if any(map(resuming.ran_out_of_time, each)) else {}
    return found | stopped | {"val_loss": None, "parameters": weights, "fit_seconds": round(seconds, 2)}


def _member(job: Job, folder: Path, number: int) -> ForecastModule:
    config = copy.deepcopy(job.config)
    config.seed, config.seeds, config.output = config.seed + number, 1, str(folder)
    config.data.seed += number  # resolved already: else each would see the batches of the first
    for limit in training.TimeLimit.of(config.trainer):
        config.trainer.max_time = limit.share(job.config.seeds)
    if not job.config.quiet:
        print(f"seed {config.seed} ({number + 1} of {job.config.seeds})", flush=True)
    fitting.fit_or_resume(job.task, config, folder, more_time=True)
    checkpoint = checkpoints.load_checkpoint(folder / runs.CHECKPOINTS / runs.BEST)
    module = fitting.restored(config, lambda: job.task.module(config, job.data), checkpoint, folder)
    assert isinstance(module, ForecastModule)
    return module.eval().to(best_device())
