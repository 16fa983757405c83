"""Checkpoints from anywhere: turned bits, other contents under the right digest, another way to write them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from bits import flips
from disks import no_file_beyond
from signed import sign_checkpoint

from titans_seq.cli import checkpoints, recorded
from titans_seq.cli.errors import UsageError
from titans_seq.cli.fitting import prepare
from titans_seq.cli.forecast import FORECAST
from titans_seq.cli.main import main
from titans_seq.cli.tasks import Job
from titans_seq.datamodules import DataError

Checkpoint = dict[str, Any]
RESUME = ["fit", "forecast", "--resume", "--quiet", "--output", "run"]


@pytest.fixture(scope="module")
def job(finished: Path) -> Job:
    config = recorded.read_config(finished, "forecast")
    config.quiet = True
    return prepare(FORECAST, config)


@pytest.fixture
def run(workdir: Path, finished: Path) -> Path:
    shutil.copytree(finished, "run")
    return workdir / "run"


@pytest.fixture
def last(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def test_turned_bits_are_refused(last: Path) -> None:
    for _ in flips(last, 20):
        with pytest.raises(UsageError, match="is damaged or not a checkpoint"):
            checkpoints.load_checkpoint(last)
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    with pytest.raises(UsageError, match="is damaged or not a checkpoint"):
        checkpoints.load_checkpoint(last)
    last.write_bytes(whole)
    assert torch.load(last, weights_only=True).keys() == checkpoints.load_checkpoint(last).keys()


def test_a_checkpoint_that_something_else_has_written_is_refused(
    last: Path, refused: Callable[[list[str]], str]
) -> None:
    torch.save(torch.load(last, weights_only=True), last)
    assert "is damaged or not a checkpoint of this version" in refused([*RESUME, "--epochs", "3"])


def _put(*path: Any, value: Any) -> Callable[[Checkpoint], None]:
    """Another value at a place; a name that stands for a callback may be its beginning."""

    def change(checkpoint: Checkpoint) -> None:
        node: Any = checkpoint
        for name in path[:-1]:
            node = node[
                next((key for key in node if str(key).startswith(str(name))), name) if isinstance(node, dict) else name
            ]
        node[path[-1]] = value

    return change


def _drop(name: str) -> Callable[[Checkpoint], None]:
    return lambda checkpoint: checkpoint.pop(name)


def _weights(change: Callable[[torch.Tensor], Any]) -> Callable[[Checkpoint], None]:
    def changed(checkpoint: Checkpoint) -> None:
        name = next(iter(checkpoint["state_dict"]))
        checkpoint["state_dict"][name] = change(checkpoint["state_dict"][name])

    return changed


OPTIMIZER, SCHEDULE, DATA = ("optimizer_states", 0), ("lr_schedulers", 0), ("ForecastDataModule",)
PROGRESS = ("loops", "fit_loop", "epoch_progress", "current")
CHANGES: dict[str, Callable[[Checkpoint], None]] = {
    "no weights": _put("state_dict", value=3),
    "a list of weights": _put("state_dict", value=[]),
    "a number among weights": _weights(lambda weight: 3),
    "weights by number": _put("state_dict", value={0: torch.zeros(1)}),
    "NaN": _weights(lambda weight: weight * float("nan")),
    "infinite": _weights(lambda weight: weight + float("inf")),
    "sparse": _weights(lambda weight: weight.to_sparse()),
    "epoch before the first": _put("epoch", value=-1),
    "epoch in words": _put("epoch", value="two"),
    "no epoch": _drop("epoch"),
    "half a step": _put("global_step", value=1.5),
    "no version": _drop("pytorch-lightning_version"),
    "callbacks in a list": _put("callbacks", value=[]),
    "a callback without a state": _put("callbacks", "History", value=3),
    "no rows": _put("callbacks", "History", "rows", value=3),
    "rows of text": _put("callbacks", "History", "rows", value=["a"]),
    "rows of other epochs": _put("callbacks", "History", "rows", 0, "epoch", value=7),
    "rows without their metric": _put("callbacks", "History", "rows", value=[{"epoch": 0, "seconds": 1.0}]),
    "text in a row": _put("callbacks", "History", "rows", 0, "val_mse", value="low"),
    "patience in words": _put("callbacks", "EarlyStopping", "wait_count", value="long"),
    "a best score in words": _put("callbacks", "EarlyStopping", "best_score", value="good"),
    "best models in a list": _put("callbacks", "BestCheckpoint", "best_k_models", value=[1]),
    "a path that is none": _put("callbacks", "BestCheckpoint", "best_model_path", value=3),
    "no loops": _drop("loops"),
    "empty loops": _put("loops", value={}),
    "negative progress": _put(*PROGRESS, "completed", value=-3),
    "progress in words": _put(*PROGRESS, "completed", value="three"),
    "no optimizer": _drop("optimizer_states"),
    "no states of the optimizer": _put("optimizer_states", value=[]),
    "empty optimizer": _put(*OPTIMIZER, value={}),
    "other shapes": _put(*OPTIMIZER, "state", 0, "exp_avg", value=torch.zeros(2)),
    "NaN in the optimizer": _put(*OPTIMIZER, "state", 0, "step", value=torch.tensor(float("nan"))),
    "a number for a moment": _put(*OPTIMIZER, "state", 0, "exp_avg", value=3),
    "unknown parameter": _put(*OPTIMIZER, "state", 1000, value={}),
    "options of tensors": _put(*OPTIMIZER, "param_groups", 0, "betas", value=torch.zeros(2)),
    "states in a list": _put(*OPTIMIZER, "state", value=[]),
    "a parameter twice": _put(*OPTIMIZER, "param_groups", 0, "params", 1, value=0),
    "rate in words": _put(*OPTIMIZER, "param_groups", 0, "lr", value="fast"),
    "other options": _put(*OPTIMIZER, "param_groups", 0, "amsgrad", value=True),
    "a kernel in words": _put(*OPTIMIZER, "param_groups", 0, "fused", value="yes"),
    "no schedule": _drop("lr_schedulers"),
    "an empty schedule": _put(*SCHEDULE, value={}),
    "base rates in words": _put(*SCHEDULE, "base_lrs", value=["a"]),
    "an epoch of the schedule in words": _put(*SCHEDULE, "last_epoch", value="one"),
    "data of a number": _put(*DATA, value=3),
    "names of a number": _put(*DATA, "about", "scale_ids", value=3),
    "scales in a list": _put(*DATA, "arrays", "scales", value=[0.0]),
    "a mean without a scale": _put(*DATA, "arrays", "scales", value=torch.tensor([[0.0, torch.nan]]).expand(16, 2)),
    "a changed copy of weights": _put("current_model_state", value={"a": 1}),
}


@pytest.mark.parametrize("how", CHANGES)
def test_other_contents_are_refused(how: str, job: Job, last: Path) -> None:
    checkpoint = checkpoints.load_checkpoint(last)
    CHANGES[how](checkpoint)
    checkpoints.write_checkpoint(last, checkpoint)
    with pytest.raises((UsageError, DataError), match="^[^\n]* is damaged[^\n]+$"):
        read = checkpoints.load_checkpoint(last)
        checkpoints.check_resume(read, job.module, job.trainer, last)
        job.data.load_state_dict(read["ForecastDataModule"])


def test_what_is_not_changed_is_taken(job: Job, last: Path) -> None:
    checkpoints.write_checkpoint(last, checkpoints.load_checkpoint(last))
    checkpoints.check_resume(checkpoints.load_checkpoint(last), job.module, job.trainer, last)


@pytest.mark.parametrize("fused", [None, False, True])
def test_steps_of_another_kernel_are_taken(fused: bool | None, job: Job, last: Path) -> None:
    """Those of a GPU, or of a version that took the other one."""
    checkpoint = checkpoints.load_checkpoint(last)
    _put(*OPTIMIZER, "param_groups", 0, "fused", value=fused)(checkpoint)
    checkpoints.check_resume(checkpoint, job.module, job.trainer, last)


@pytest.mark.parametrize("how", ["NaN", "rows of text", "negative progress", "other shapes", "a mean without a scale"])
def test_a_resumed_run_is_refused_unchanged(how: str, last: Path, refused: Callable[[list[str]], str]) -> None:
    checkpoint = checkpoints.load_checkpoint(last)
    CHANGES[how](checkpoint)
    checkpoints.write_checkpoint(last, checkpoint)
    before = last.read_bytes(), Path("run/metrics.json").read_bytes()
    assert "is damaged" in refused([*RESUME, "--epochs", "3"])
    assert before == (last.read_bytes(), Path("run/metrics.json").read_bytes())


def test_more_epochs_than_the_history_has_are_one_line(last: Path, capfd: pytest.CaptureFixture[str]) -> None:
    checkpoint = checkpoints.load_checkpoint(last)
    checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] = 10**9
    checkpoints.write_checkpoint(last, checkpoint)
    assert main([*RESUME, "--epochs", "3"]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "last.ckpt is damaged: its loops have more epochs than its history" in err


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_weights_that_are_not_finite_are_not_used(verb: str, run: Path, refused: Callable[[list[str]], str]) -> None:
    best = run / "checkpoints" / "best.ckpt"
    checkpoint = checkpoints.load_checkpoint(best)
    CHANGES["NaN"](checkpoint)
    checkpoints.write_checkpoint(best, checkpoint)
    assert "its weights are not finite" in refused([verb, "forecast", "--checkpoint", "run"])


def test_a_full_disk_leaves_the_old_checkpoint(last: Path) -> None:
    before = last.read_bytes()
    with pytest.raises(OSError) as error, no_file_beyond(4000):
        checkpoints.write_checkpoint(last, checkpoints.load_checkpoint(last))
    assert error.value.filename == str(last) and last.read_bytes() == before
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_predict_on_a_full_disk_leaves_no_half_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with no_file_beyond(4000):
        assert main(["predict", "forecast", "--checkpoint", "run", "--output", "out", "--quiet"]) == 2
    _, err = capsys.readouterr()
    assert err.count("\n") == 1 and "cannot write or read (out/forecast.csv)" in err
    assert list(Path("out").iterdir()) == []


def test_another_way_to_write_checkpoints_is_refused(tiny: list[str], refused: Callable[[list[str]], str]) -> None:
    plugin = "+trainer.plugins=[{_target_: lightning.pytorch.plugins.io.AsyncCheckpointIO}]"
    assert "leave AsyncCheckpointIO out" in refused(["fit", "forecast", *tiny, plugin, "--output", "out"])


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(finished: Path, tmp_path: Path) -> None:
    """torch compresses nothing; what is compressed can unpack to a thousand times its size."""
    packed = tmp_path / "run" / "checkpoints" / "best.ckpt"
    packed.parent.mkdir(parents=True)
    with ZipFile(finished / "checkpoints" / "best.ckpt") as old, ZipFile(packed, "w", ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    sign_checkpoint(packed)
    with pytest.raises(UsageError, match="best.ckpt is damaged"):
        checkpoints.load_checkpoint(packed)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")], ids=str)
def test_too_little_memory_is_no_damage(finished: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def load(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UsageError, match="not enough memory"):
        checkpoints.load_checkpoint(finished / "checkpoints" / "best.ckpt")
