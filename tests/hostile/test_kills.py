"""kill -9 at any moment, on two file systems: what was trained is there, and the run ends as if nothing had been."""

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from fork_server import ForkServer

from titans_seq.cli.checkpoints import load_checkpoint, write_checkpoint
from titans_seq.language import load_model

pytestmark = pytest.mark.slow

MEMORY = Path("/dev/shm")  # a file system of its own, unlike that of pytest's folders
TIMED = {"fit_seconds", "seconds_per_epoch"}
SMALL = ["model.dim=8", "model.heads=2", "data.batch_size=4", "trainer.limit_train_batches=2", "--quiet"]
SHORT = ["--epochs", "6", "early_stopping.patience=50"]
FORECAST = ["fit", "forecast", "model.blocks=1", "model.dropout=0.3", *SMALL, *SHORT]


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


@contextmanager
def _places(on_memory: bool) -> Iterator[tuple[Path, Path]]:
    """A folder to run in, and one for temporary files on another file system."""
    if not MEMORY.is_dir():
        pytest.skip(f"needs {MEMORY}")
    with tempfile.TemporaryDirectory() as disk, tempfile.TemporaryDirectory(dir=MEMORY) as memory:
        if os.stat(disk).st_dev == os.stat(memory).st_dev:
            pytest.skip(f"{MEMORY} is not a file system of its own")
        yield (Path(memory), Path(disk)) if on_memory else (Path(disk), Path(memory))


def _metrics(run: Path) -> dict[str, object]:
    return {name: value for name, value in json.loads((run / "metrics.json").read_text()).items() if name not in TIMED}


def _weights(run: Path) -> dict[str, torch.Tensor]:
    parts = {name: load_checkpoint(run / "checkpoints" / name)["state_dict"] for name in ("best.ckpt", "last.ckpt")}
    return {f"{part} {name}": value for part, weights in parts.items() for name, value in weights.items()}


def _require_same(run: Path, whole: Path) -> None:
    assert _metrics(run) == _metrics(whole)
    mine, theirs = _weights(run), _weights(whole)
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    # a finished run that was killed while it drew keeps what it had of a picture until something is written there
    assert [path.name for path in run.rglob("*.part") if ".png." not in path.name] == []


def _kill(server: ForkServer, words: list[str], wanted: int, folder: Path, temporary: Path, seed: int) -> int:
    """Kill a training `wanted` times at random moments, and go on with each to its end; how many had no checkpoint."""
    draw, early = random.Random(seed), 0
    done = server.run([*words, "--output", "whole"], folder, temporary=temporary)
    assert done["code"] == 0, done["err"]
    killed = 0
    while killed < wanted:
        shutil.rmtree(folder / "run", ignore_errors=True)
        start = [*words, "--output", "run"]
        after = draw.uniform(0.05, 1.0) * done["seconds"]
        if server.run(start, folder, temporary=temporary, kill_after=after)["code"] != -signal.SIGKILL:
            continue
        killed += 1
        early += not (folder / "run/checkpoints/last.ckpt").exists()
        resume = [*words[:2], "--output", "run", "--resume", "--quiet"]
        for limit in (draw.uniform(0.05, 1.0) * done["seconds"], None):  # and once more while it goes on
            if not (folder / "run/metrics.json").exists():
                again = resume if (folder / "run/config.yaml").exists() else start
                ended = server.run(again, folder, temporary=temporary, kill_after=limit)
                assert ended["code"] in (0, -signal.SIGKILL) and (limit or ended["code"] == 0), ended["err"]
        _require_same(folder / "run", folder / "whole")
    return early


@pytest.mark.parametrize("on_memory", [False, True], ids=["disk", "memory"])
def test_forecasters_killed_at_random_moments(on_memory: bool, server: ForkServer) -> None:
    with _places(on_memory) as (folder, temporary):
        early = _kill(server, FORECAST, 25, folder, temporary, seed=int(on_memory))
    assert early > 0  # some before the first checkpoint


def _dna(folder: Path) -> list[str]:
    letters = np.random.default_rng(0).choice(list("ACGT"), (60, 30))
    rows = ["".join(row) + f",{'yes' if i % 2 else 'no'}" for i, row in enumerate(letters)]
    (folder / "train.csv").write_text("\n".join(["sequence,label", *rows]) + "\n")
    return ["fit", "dna", "--csv", "train.csv", "model.layers=1", *SMALL, *SHORT]


def _language(folder: Path) -> list[str]:
    (folder / "book.txt").write_text("the cat and the hat and the bat sat on a mat. " * 40)
    sizes = ["model.dim=8", "model.heads=1", "model.layers=1", "model.chunk_size=8", "data.steps_per_epoch=3"]
    return ["fit", "lm", "--text", "book.txt", "--length", "16", *sizes, "--epochs", "4", "--quiet"]


@pytest.mark.parametrize("on_memory", [False, True], ids=["disk", "memory"])
@pytest.mark.parametrize("task", [_dna, _language])
def test_other_models_killed_at_random_moments(
    task: Callable[[Path], list[str]], on_memory: bool, server: ForkServer
) -> None:
    with _places(on_memory) as (folder, temporary):
        _kill(server, task(folder), 3, folder, temporary, seed=2 + on_memory)
        if task is _language:
            runs = [load_model(folder / name / "model")[0].state_dict() for name in ("run", "whole")]
            assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[1])


@pytest.mark.parametrize("on_memory", [False, True], ids=["disk", "memory"])
def test_a_checkpoint_that_is_being_written(on_memory: bool) -> None:
    """A large one, so that the kill comes while it is: the old one or the new one is there, whole."""
    draw = random.Random(0)
    with _places(on_memory) as (folder, temporary):
        path = folder / "last.ckpt"

        def write(value: float) -> float:
            content = {"state_dict": {"weight": torch.full((2**23,), value)}, "callbacks": {}, "loops": {}}
            content |= {"epoch": int(value), "global_step": 0, "pytorch-lightning_version": "2.6"}
            began = time.monotonic()
            write_checkpoint(path, content)
            return time.monotonic() - began

        seconds, seen = write(0.0), set()
        for number in range(1, 21):
            process = os.fork()
            if process == 0:
                os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None
                write(float(number))
                os._exit(0)
            time.sleep(draw.uniform(0.1, 1.2) * seconds)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            found = load_checkpoint(path)
            assert (found["state_dict"]["weight"] == found["epoch"]).all()
            seen.add(found["epoch"] == number)
            left = [each.name for each in folder.iterdir() if each != path]
            assert len(left) <= 1, "what an earlier process has left is removed by the next"
        assert False in seen
