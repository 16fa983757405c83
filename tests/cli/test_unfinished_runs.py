"""Runs that were killed, runs that two processes want, places that refuse, and pictures that cannot be drawn."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from titans_seq.cli import checkpoints, runs
from titans_seq.cli.errors import UsageError
from titans_seq.cli.main import main

Refused = Callable[[list[str]], str]
FIT = ["fit", "forecast"]
TIMED = {"fit_seconds", "seconds_per_epoch"}


def _same(one: Path, other: Path) -> bool:
    """Metrics and weights."""
    first, second = (json.loads((run / "metrics.json").read_text()) for run in (one, other))
    assert {k: v for k, v in first.items() if k not in TIMED} == {k: v for k, v in second.items() if k not in TIMED}
    for name in ("best.ckpt", "last.ckpt"):
        mine, theirs = (checkpoints.load_checkpoint(run / "checkpoints" / name)["state_dict"] for run in (one, other))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
    return True


@pytest.mark.parametrize("kept", ["checkpoints", "nothing"])
def test_a_run_killed_before_its_first_checkpoint_is_started(kept: str, finished: Path, refused: Refused) -> None:
    Path("run").mkdir()
    shutil.copy(finished / "config.yaml", "run")
    if kept == "checkpoints":
        Path("run/checkpoints").mkdir()
        Path("run/checkpoints/.last.ckpt.elsewhere.12.part").touch()  # of another machine: it may be alive
    assert "holds a run already; choose another --output, or --resume it" in refused([*FIT, "--output", "run"])
    assert main([*FIT, "--resume", "--quiet", "--output", "run"]) == 0
    assert _same(Path("run"), finished)


@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["again", "resume"])
def test_a_run_killed_before_its_configuration_is_started(resume: list[str], tiny: list[str], finished: Path) -> None:
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/.config.yaml.here.12.part").touch()
    assert main([*FIT, *tiny, "--output", "run", *resume]) == 0
    assert _same(Path("run"), finished)


def test_checkpoints_that_are_gone_are_not_trained_again(finished: Path, refused: Refused) -> None:
    shutil.copytree(finished, "run")
    shutil.rmtree("run/checkpoints")
    assert "has no checkpoint" in refused([*FIT, "--resume", "--output", "run", "--epochs", "3"])


def test_a_run_is_held_by_the_process_that_trains_in_it(finished: Path, refused: Refused) -> None:
    shutil.copytree(finished, "run")
    with runs.locked(Path("run")):
        said = refused([*FIT, "--resume", "--output", "run", "--epochs", "3"])
    assert "another process is training in run; wait until it ends, or stop it" in said


def test_a_link_in_the_place_of_the_lock_is_refused(finished: Path, refused: Refused) -> None:
    shutil.copytree(finished, "run")
    Path("run/.lock").unlink()
    Path("mine.txt").write_text("mine")
    Path("run/.lock").symlink_to(Path("mine.txt").absolute())
    assert "cannot lock run/.lock" in refused([*FIT, "--resume", "--output", "run", "--epochs", "3"])
    assert Path("mine.txt").read_text() == "mine"


def test_a_killed_process_holds_nothing(finished: Path) -> None:
    code = "from filelock import FileLock; import time; "
    code += f"lock = FileLock('run/{runs.LOCK}'); lock.acquire(); print(flush=True); "
    shutil.copytree(finished, "run")
    with subprocess.Popen([sys.executable, "-c", code + "time.sleep(60)"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UsageError, match="another process"), runs.locked(Path("run")):
            pass
        process.kill()
    with runs.locked(Path("run")):
        pass


def test_of_many_claims_one_gets_the_folder(workdir: Path) -> None:
    def claim(_: int) -> bool:
        try:
            with runs.claim(workdir / "a", explicit=True) as folder:
                (folder / runs.CONFIG).touch()
                return True
        except UsageError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(24))) == 1


def test_a_picture_that_cannot_be_drawn_is_a_warning(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(finished, "run")
    Path("run/forecast.png").unlink()
    Path("run/forecast.png").mkdir()  # in its place
    assert main([*FIT, "--resume", "--quiet", "--output", "run", "--epochs", "3"]) == 0
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "note: no picture of the forecast: " in err
    assert "run/training.png" in out and "run/surprise.png" in out and "run/forecast.png" not in out
    assert json.loads(Path("run/metrics.json").read_text())["epochs"] == 3


# places that refuse ---------------------------------------------------------------------------------------------------


@contextmanager
def _nobody() -> Iterator[None]:
    """As a user without rights; whoever runs the tests as such is one."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def public(finished: Path) -> Iterator[Path]:
    """A run where every user can reach it; pytest's own folders are for one."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, stat.S_IRWXU | 0o55)
        shutil.copytree(finished, Path(folder, "run"))
        yield Path(folder, "run")


@pytest.mark.parametrize("place", ["checkpoints/best.ckpt", "checkpoints", "config.yaml"])
def test_what_may_not_be_read_is_not_called_damaged(
    place: str, public: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (public / place).chmod(0)
    with _nobody():
        assert main(["test", "forecast", "--checkpoint", str(public), "--quiet"]) == 2
    err = capsys.readouterr().err
    (public / place).chmod(0o755)
    assert err.count("\n") == 1 and "Permission denied" in err and "damaged" not in err


def test_what_may_not_be_written_is_said(public: Path, capsys: pytest.CaptureFixture[str]) -> None:
    public.chmod(0o555)
    with _nobody():
        assert main(["test", "forecast", "--checkpoint", str(public), "--quiet"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and f"({public}/test_metrics.json): Permission denied" in err
        assert main([*FIT, "--resume", "--output", str(public), "--epochs", "3"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "Permission denied" in err
