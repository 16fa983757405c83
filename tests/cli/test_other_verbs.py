"""help, version, doctor, data, lightning."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import titans_seq
from titans_seq.cli.checkpoints import load_checkpoint
from titans_seq.cli.main import main
from titans_seq.kernels import support
from titans_seq.kernels.native_library import library

LIGHTNING_CONFIG = Path(__file__).parents[2] / "configs" / "lightning" / "forecast.yaml"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fit"],
        ["fit", "forecast"],
        ["test", "forecast"],
        ["predict", "forecast"],
        ["report"],
        ["data"],
        ["data", "check"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--help"])
    out = capsys.readouterr().out
    assert out.startswith("usage: titans-seq")
    assert "forecast" not in words or "examples:" in out


def test_version_without_pytorch() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'lightning', 'pandas', 'hydra']))"
    code = f"{blocked}; from titans_seq.cli.main import main; main(['--version'])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"titans-seq {titans_seq.__version__}\n"


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("torch", "lightning", "CPU", "backend auto", "folder"))
    assert ("native (compiled C" in out) == (library() is not None)


def test_doctor_without_a_build(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "library", lambda: None)
    assert main(["doctor"]) == 0
    assert "chunked (the native kernels were not built" in capsys.readouterr().out


def test_data_list_and_check(capsys: pytest.CaptureFixture[str], refused: Callable[[list[str]], str]) -> None:
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("ETTh1", "Weather", "ECL", "Traffic"))
    assert "no data set in" in refused(["data", "check"])
    assert "did you mean 'ETTh1'" in refused(["data", "download", "ETH1"])


def test_data_check_finds_a_damaged_file(capsys: pytest.CaptureFixture[str]) -> None:
    home = Path(os.environ["TITANS_SEQ_DATA"], "forecast")
    home.mkdir(parents=True)
    (home / "ETTh1.csv").write_text("date,a\n2016-07-01,1\n")
    assert main(["data", "check"]) == 2
    out, err = capsys.readouterr()
    assert "mismatch" in out and err == "titans-seq: ETTh1: mismatch\n"


@pytest.mark.filterwarnings(
    # Lightning's own advice and its use of PyTorch, as users of LightningCLI see them
    "ignore:.*does not have many workers",
    "ignore:.*smaller than the logging interval",
    "ignore:.*treespec, LeafSpec",
    "ignore:You're using the WeightAveraging callback, but loading a checkpoint outside",
    "ignore:The dirpath has changed",  # the test of a checkpoint logs to a new version folder
)
def test_lightning_cli_runs_the_example(
    refused: Callable[[list[str]], str], capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.enable_progress_bar=false"]
    words = ["--config", str(LIGHTNING_CONFIG), *small, "--model.network.init_args.dim=8", "--data.horizon=24"]
    assert main(["lightning", "fit", *words]) == 0
    (run,) = Path("runs/lightning").iterdir()
    assert {"config.yaml", "metrics.csv", "checkpoints"} == {path.name for path in run.iterdir()}
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert main(["lightning", "test", *words, "--ckpt_path", str(checkpoint)]) == 0
    torch.save(load_checkpoint(checkpoint), "bare.ckpt")  # as plain Lightning writes it, without a digest
    assert main(["lightning", "test", *words, "--ckpt_path", "bare.ckpt"]) == 0
    Path("bare.ckpt").write_bytes(checkpoint.read_bytes()[:-1] + b"0")  # with one that is wrong
    capsys.readouterr()
    assert main(["lightning", "test", *words, "--ckpt_path", "bare.ckpt"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "bare.ckpt is damaged or not a checkpoint" in err
    wrong = ["fit", "--config", str(LIGHTNING_CONFIG), "--model.network.init_args.mixer=mamba"]
    assert "mixer must be one of" in refused(["lightning", *wrong])
    assert "nope" in refused(["lightning", "fit", "--config", "nope.yaml"])
    assert "trainer" in refused(["lightning", "fit", "--config", str(LIGHTNING_CONFIG), "--trainer.epochs=1"])
