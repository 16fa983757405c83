"""SIGINT, SIGTERM and SIGHUP end a command in one line, at any moment, and keep the checkpoint of a training."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from titans_seq.cli.main import main
from titans_seq.forecast import ForecastModule

# whatever the shell did: a background job ignores SIGINT. Then tells that from here on it is our code that runs
START = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN if number in {ignored} else signal.SIG_DFL)
print("on", flush=True)
from titans_seq.cli.main import main
sys.exit(main())
"""
LONG = ["--epochs", "100000", "early_stopping.patience=100000", "--output", "run"]
ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def options(tiny: list[str]) -> list[str]:
    return ["fit", "forecast", *[word for word in tiny if "max_epochs" not in word]]


def _start(words: list[str], ignored: tuple[int, ...] = ()) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", START.format(ignored=ignored), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None and process.stdout.readline() == "on\n"
    return process


def _moments(count: int, latest: float) -> list[float]:
    draw = random.Random(0)
    return sorted(round(draw.uniform(0.1, latest), 3) for _ in range(count))


def _end_after(seconds: float, number: signal.Signals, words: list[str]) -> None:
    process = _start(words)
    time.sleep(seconds)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert out == "" and err.count("\n") == 1 and err.startswith("titans-seq: interrupted"), err


@pytest.mark.parametrize(("seconds", "number"), list(zip(_moments(5, 3.0), [*ALL, *ALL[:2]], strict=True)))
def test_at_any_moment(seconds: float, number: signal.Signals, options: list[str]) -> None:
    _end_after(seconds, number, [*options, *LONG])


@pytest.mark.slow
@pytest.mark.parametrize("number", ALL, ids=lambda number: number.name)
@pytest.mark.parametrize("seconds", _moments(30, 12.0))
def test_at_many_moments(seconds: float, number: signal.Signals, options: list[str]) -> None:
    _end_after(seconds, number, [*options, *LONG])


@pytest.mark.parametrize("number", ALL, ids=lambda number: number.name)
def test_training_goes_on_as_if_nothing_had_been(
    number: signal.Signals, options: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [*options, "--epochs", "3", "model.dropout=0.3"]
    step = ForecastModule.training_step

    def stopped(self: ForecastModule, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if (self.trainer.current_epoch, batch_idx) == (1, 1):
            signal.raise_signal(number)
        return step(self, batch, batch_idx)

    before = [signal.getsignal(each) for each in ALL]
    assert main([*options, "--output", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(ForecastModule, "training_step", stopped)
        assert main([*options, "--output", "cut"]) == 128 + number
    assert [signal.getsignal(each) for each in ALL] == before
    err = capfd.readouterr().err
    assert err == "titans-seq: interrupted; go on with: titans-seq fit forecast --output cut --resume\n"
    assert main(["fit", "forecast", "--resume", "--quiet", "--output", "cut"]) == 0
    whole, cut = (json.loads(Path(name, "metrics.json").read_text()) for name in ("whole", "cut"))
    for metrics in (whole, cut):
        del metrics["fit_seconds"], metrics["seconds_per_epoch"]
    assert cut == whole


def test_an_ignored_signal_stays_ignored(options: list[str]) -> None:
    process = _start([*options, "--epochs", "1", "--output", "run"], ignored=(int(signal.SIGHUP),))  # as nohup does
    for _ in range(4):
        time.sleep(0.5)
        process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")


def test_little_is_imported_before_signals_are_handled() -> None:
    code = "import re, sys; before = set(sys.modules); import titans_seq.cli.main; print(*(set(sys.modules) - before))"
    out = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    theirs = {name for name in out.split() if not name.startswith("titans_seq")}
    assert theirs <= {"__future__", "collections.abc", "contextlib", "signal", "errno"}, theirs


def test_lightning_cli_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Lightning itself ends with SystemExit(1) on Ctrl-C."""
    from titans_seq.cli import lightning_cli

    def work(arguments: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            sys.exit(1)

    monkeypatch.setattr(lightning_cli, "lightning_command", work)
    assert main(["lightning", "fit"]) == 128 + signal.SIGTERM
    assert capfd.readouterr().err == "titans-seq: interrupted\n"
