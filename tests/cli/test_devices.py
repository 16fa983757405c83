"""A run on several devices: here two processes of one CPU, which speak by gloo."""

import json
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file


def test_two_processes_are_one_run(tmp_path: Path) -> None:
    """One folder, one table, and weights that both have trained: the same steps in one process give others."""
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog; " * 200)
    words = [
        sys.executable, "-P", "-m", "titans_seq.cli.main", "fit", "lm", "--text", str(text), "--variant", "mac", "model.dim=16",
        "model.layers=1", "model.segment=16", "--length", "32", "data.batch_size=4", "data.steps_per_epoch=4", "--epochs", "1",
        "--quiet", "trainer.accelerator=cpu",
    ]  # fmt: skip
    weights = []
    for devices in (2, 1):
        folder = tmp_path / "runs" / str(devices)
        more = ["--output", str(folder), f"trainer.devices={devices}", f"trainer.strategy={'ddp' if devices > 1 else 'auto'}"]
        done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("test_perplexity") == 1
        assert json.loads((folder / "metrics.json").read_text())["epochs"] == 1
        weights.append(load_file(folder / "model" / "model.safetensors"))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["1", "2"]
    assert weights[0].keys() == weights[1].keys()
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])
