"""Wrong input: exit code 2, one line that names the thing and the way out, nothing written."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from titans_seq.cli.main import main

Refused = Callable[[list[str]], str]
FIT = ["fit", "forecast"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model.dept=3"], "unknown override 'model.dept'; did you mean 'model.depth'"),
        (["depth=3"], "did you mean 'model.depth'"),
        (["model=atention"], "did you mean 'attention'"),
        (["experiment=memory_liner"], "did you mean 'memory_linear'"),
        (["model=none", "model.depth=2"], "unknown override 'model.depth'"),
        (["model.depth=two"], "model.depth must be a whole number; got 'two'"),
        (["model.momentum=3"], "must be true or false"),
        (["trainer.max_epochs=ten"], "trainer.max_epochs must be a whole number"),
        (["model.heads=3"], "dim must be a multiple of heads"),
        (
            ["model=attention", "model.heads=3"],
            "dim must be a multiple of heads, or head_dim be given; got dim 64 and heads 3",
        ),
        (["model.patch_stride=0"], "patch_stride must be >= 1 and at most patch_size"),
        (["model.patch_size=0"], "patch_stride must be >= 1 and at most patch_size"),
        (["model.patch_stride=17"], "patch_stride must be >= 1 and at most patch_size; got 17 and patch_size 16"),
        (["trainer.strategy=foo"], "invalid strategy name"),
        (["model.lookback=48"], "model.lookback is 48, but the windows have 96; set data.lookback"),
        (["model.horizon=24"], "set data.horizon"),
        (["training.output=rmse"], "output must be one of"),
        (["training.learning_rate=-1"], "training.learning_rate must be between 0 and"),
        (["trainer.precision=3-bit"], "trainer.precision must be 64 or"),
        (["trainer.devices=0"], "devices"),
        (["trainer.logger=true"], "trainer.logger=True does not go with a run"),
        (["trainer.callbacks=[]"], "use the sections early_stopping and averaging"),
        (["trainer.enable_progress_bar=false"], "use --quiet"),
        (["+trainer.enable_model_summary=true"], "trainer.enable_model_summary=True does not go with a run"),
        (["trainer.num_sanity_val_steps=2"], "trainer.num_sanity_val_steps=2 does not go with a run"),
        (["trainer.enable_checkpointing=false"], "a run keeps its best and its last epoch"),
        (["trainer.check_val_every_n_epoch=2"], "the best epoch is chosen by validation"),
        (["trainer.val_check_interval=0.5"], "the best epoch is chosen by validation"),
        (["trainer.limit_val_batches=0"], "the best epoch is chosen by validation"),
        (["trainer.limit_train_batches=0"], "nothing to learn from"),
        (["trainer.limit_test_batches=0"], "ends with the test"),
        (["trainer.max_steps=3"], "use trainer.max_epochs"),
        (["trainer.max_epochs=0"], "give at least 1"),
        (["trainer.fast_dev_run=true"], "trainer.fast_dev_run=True does not go with a run"),
        (["training=null"], "training is a section"),
        (["~training"], "~training: only early_stopping, averaging, experiment can be left out"),
        (["model=null"], "unknown model=None"),
        (["data.horizon=0"], "horizon must be at least 1"),
        (["seed=-1"], "seed must be between"),
        (["model=3=4"], "mismatched input"),
        (["data.csv='a"], "data.csv='a"),
        (["seed=1", "seed=2"], "seed is given twice"),
        (["seed=1", "--seed", "1"], "seed is set by --seed and by an override"),
        (["data=etth1", "--dataset", "ETTh1"], "data is set by --dataset and by an override"),
        (["data.horizon=3", "--horizon", "3"], "data.horizon is set by --horizon"),
        (["--dataset", "ETTh1", "--csv", "x.csv"], "--dataset and --csv exclude each other"),
        (["--dataset", "ETH1"], "did you mean 'ETTh1'"),
        (["--dataset", "electricity_first6"], "no file"),
        (["--csv", "nowhere.csv"], "no CSV file"),
        (["--horizn", "3"], "did you mean --horizon"),
        (["--horizon", "many"], "invalid whole number value: 'many'"),
        (["--epochs", "0"], "must be at least 1"),
        (["depth"], "an override is written KEY=VALUE"),
        (["--resume"], "nothing to resume"),
        (["-m", "--resume"], "continues one run, not a sweep"),
        (["-m", "model.depth=1,two"], "must be a whole number; got 'two'"),
        (["-m", "model=memory,non"], "did you mean 'none'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_fit_refuses(words: list[str], said: str, refused: Refused) -> None:
    assert said in refused([*FIT, *words])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["fit"],
        ["fot", "forecast"],
        ["fit", "dnaa"],
        ["pretrain", "forecast"],
        ["data", "list", "x=1"],
        ["test", "forecast"],
    ],
)
def test_incomplete_commands_are_refused(words: list[str], refused: Refused) -> None:
    assert "--help" in refused(words)


def _csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "date"),
        ("date,a\n2024-01-01,1\n2024-01-01,2\n", "2024-01-01"),
        ("date,a,b\n2024-01-01,1,2\n2024-01-02,x,3\n", "'a'"),
        ("date,a\n2024-01-01,1\n2024-01-02,2\n", "951"),
    ],
    ids=["empty", "no-dates", "duplicate", "text", "too-short"],
)
def test_bad_csv_is_refused(text: str, said: str, workdir: Path, refused: Refused) -> None:
    _csv(workdir / "bad.csv", text)
    assert said in refused([*FIT, "--csv", "bad.csv"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_one_line(refused: Refused) -> None:
    assert "trainer: " in refused([*FIT, "trainer.accelerator=gpu"])


def test_output_in_use_is_refused(finished: Path, refused: Refused, tiny: list[str]) -> None:
    assert "holds a run already" in refused([*FIT, *tiny, "--output", str(finished)])
    assert "drop the option" in refused([*FIT, "--resume", "--output", str(finished), "--seed", "9"])
    for word in ("trainer=default", "hydra/launcher=joblib"):
        assert "does not go with --resume" in refused([*FIT, "--resume", "--output", str(finished), word])
    said = refused([*FIT, "--resume", "--output", str(finished), "experiment=memory_linear"])
    assert "of the experiment is not that of the run" in said
    assert "is finished" in refused([*FIT, "--resume", "--output", str(finished)])
    assert "can only raise" in refused([*FIT, "--resume", "--output", str(finished), "--epochs", "1"])


def test_output_with_any_file_in_it_is_refused(workdir: Path, refused: Refused, tiny: list[str]) -> None:
    (workdir / "notes").mkdir()
    (workdir / "notes" / "mine.txt").write_text("")
    assert "notes is not empty; choose another --output" in refused([*FIT, *tiny, "--output", "notes"])


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/no/run"])
def test_output_that_cannot_be_made_is_refused(place: str, workdir: Path, refused: Refused, tiny: list[str]) -> None:
    (workdir / "file").write_text("")
    assert "file" in refused([*FIT, *tiny, "--output", place]) or place.startswith("/proc")


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_wrong_checkpoints_are_refused(verb: str, workdir: Path, finished: Path, refused: Refused) -> None:
    def load(folder: str) -> str:
        return refused([verb, "forecast", "--checkpoint", folder])

    assert "no run folder or checkpoint nowhere" in load("nowhere")
    (workdir / "empty").mkdir()
    assert "is not a run folder" in load("empty")
    other = workdir / "other"
    other.mkdir()
    config = (finished / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("task: forecast", "task: lm"))
    assert "other holds a language model of text (titans-seq fit lm); this needs a forecaster" in load("other")
    (other / "config.yaml").write_text(config)
    assert "has no checkpoint" in load("other")
    (other / "checkpoints").mkdir()
    damaged = other / "checkpoints" / "best.ckpt"
    whole = (finished / "checkpoints" / "best.ckpt").read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        damaged.write_bytes(content)
        assert "is damaged or not a checkpoint" in load("other")
    damaged.write_bytes(whole)
    (other / "config.yaml").write_text(config.replace("dim: 8", "dim: 16"))
    assert "does not fit the model" in load("other")
    (other / "config.yaml").write_text("task: [")
    assert "cannot be read" in load("other")


def test_a_full_disk_is_one_line(tiny: list[str], workdir: Path) -> None:
    def limit() -> None:  # no file may grow beyond 8 kB: the checkpoint cannot be written
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    command = [sys.executable, "-P", "-m", "titans_seq.cli.main", *FIT, *tiny, "--output", "out"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, preexec_fn=limit, capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "cannot write" in done.stderr
    assert list(Path("out/checkpoints").iterdir()) == []


def test_our_own_faults_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from titans_seq.cli import doctor

    def broken(arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(doctor, "doctor", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["doctor"])
