"""A real full disk: a small file system in memory, where the administrator may mount one."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from titans_seq import NeuralMemory, load_state, save_state
from titans_seq.cli.checkpoints import load_checkpoint
from titans_seq.cli.main import main
from titans_seq.language import ByteTokenizer, LanguageModel, load_model, save_model

pytestmark = pytest.mark.slow

SMALL = ["model.dim=8", "model.blocks=1", "model.heads=2", "data.batch_size=4", "trainer.limit_train_batches=2"]
FIT = ["fit", "forecast", *SMALL, "--quiet", "--epochs", "2"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(place)]
    if mount is None or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(disk: Path, left: int) -> None:
    """Leave only some bytes of the disk."""
    (disk / "filler").unlink(missing_ok=True)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(b"x" * (free - left))


def _names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_training_whose_disk_fills_up(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = disk / "run"
    _fill(disk, left=120_000)  # less than two checkpoints
    assert main([*FIT, "--output", str(run)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"cannot write or read ({run}/checkpoints/" in err and "No space left" in err
    assert [name for name in _names(run) if name.endswith(".part")] == []
    (disk / "filler").unlink()
    assert main(["fit", "forecast", "--resume", "--quiet", "--output", str(run)]) == 0
    load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert json.loads((run / "metrics.json").read_text())["epochs"] == 2


def test_a_resumed_training_keeps_its_checkpoint(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = disk / "run"
    assert main([*FIT, "--output", str(run)]) == 0
    for picture in run.glob("*.png"):
        picture.unlink()
    before = {name: (run / "checkpoints" / name).read_bytes() for name in ("best.ckpt", "last.ckpt")}
    _fill(disk, left=20_000)
    assert main(["fit", "forecast", "--resume", "--quiet", "--epochs", "3", "--output", str(run)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    (disk / "filler").unlink()
    assert main(["fit", "forecast", "--resume", "--quiet", "--output", str(run)]) == 0


def test_pictures_that_have_no_room(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _fill(disk, left=640_000)  # two checkpoints while one is replaced, then less than the picture
    assert main([*FIT, "--output", str(disk / "run")]) == 0
    err = capsys.readouterr().err
    assert "no picture of the forecast: [Errno 28] No space left on device" in err
    assert (disk / "run" / "metrics.json").exists() and not (disk / "run" / "forecast.png").exists()


def test_states_models_and_tables(disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer, model = NeuralMemory(8, heads=2), LanguageModel(256, 8, layers=1, heads=2, mixer="memory")
    save_state(disk / "state", layer.initial_state(1))
    save_model(disk / "model", model, ByteTokenizer())
    assert main([*FIT, "--output", str(tmp_path / "run")]) == 0
    _fill(disk, left=8_000)
    before = _names(disk)
    with pytest.raises(OSError, match="No space left") as error:
        save_state(disk / "state", layer.initial_state(100))
    assert error.value.filename == str(disk / "state")
    with pytest.raises(OSError, match="No space left") as error:
        save_model(disk / "model", LanguageModel(256, 16, layers=2, heads=2, mixer="memory"), ByteTokenizer())
    assert Path(error.value.filename).parent == disk / "model"
    assert _names(disk) == before
    assert len(load_state(disk / "state").inputs) == 1  # type: ignore[union-attr]
    found = load_model(disk / "model")[0].state_dict()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
    capsys.readouterr()
    words = ["predict", "forecast", "--checkpoint", str(tmp_path / "run"), "--output", str(disk / "out"), "--quiet"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"({disk / 'out' / 'forecast.csv'}): No space left on device" in err
    assert list((disk / "out").iterdir()) == []
