"""A config.yaml that is damaged or forged is one line, at once, and nothing is built from it."""

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml

from titans_seq import __version__
from titans_seq.cli import runs, training
from titans_seq.cli.bounds import require_batches
from titans_seq.cli.config import compose
from titans_seq.cli.dna import CLASSIFY
from titans_seq.cli.errors import UsageError
from titans_seq.cli.forecast import FORECAST
from titans_seq.cli.recorded import DEEPEST, MOST_BYTES, read_config, require_readable
from titans_seq.datamodules.forecast import registry

Refused = Callable[[list[str]], str]
RESUME = ["fit", "forecast", "--resume", "--epochs", "9", "--output", "run"]
AT_ONCE = 2.0  # seconds; mostly 0.02, on a machine that may be busy
BOMB = "a: &a [1, 1]\n" + "".join(f"{y}: &{y} [*{x}, *{x}, *{x}]\n" for x, y in pairwise("abcdefghi"))


@pytest.fixture(scope="session")
def plain(finished: Path) -> str:
    return (finished / "config.yaml").read_text()


def _said(folder: Path, content: str | bytes) -> str:
    """The line about a file of this content."""
    (folder / "config.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    start = time.perf_counter()
    with pytest.raises(UsageError) as caught:
        read_config(folder, "forecast")
    assert time.perf_counter() - start < AT_ONCE
    said = str(caught.value)
    assert "\n" not in said and said.isprintable() and len(said) < 400
    return said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- 1\n- 2\n", "holds no sections"),
        ("forecast", "holds no sections"),
        ("null", "holds no sections"),
        ("a: 1\n---\nb: 2\n", "several documents"),
        ("task: [", "line 1: "),
        ("a: b: c", "line 1: mapping values are not allowed here"),
        ("task: forecast\n\tseed: 1\n", "line 2: found character"),
        (b"task: \xff\n", "not UTF-8 text (byte 6)"),
        (bytes(range(256)), "not UTF-8 text"),
        (b"\x00" * 100, "unacceptable character"),
        ("task: forecast".encode("utf-16"), "not UTF-8 text"),
        ("a: &a [*a]\n", "anchors and aliases"),
        ("a: *b\n", "anchors and aliases"),
        (BOMB, "anchors and aliases"),
        ("<<: {a: 1}\n", "<< is not read"),
        ("a: " + "[" * 30_000 + "]" * 30_000, f"than {DEEPEST} levels"),
        ("a: " + "{a: " * 20_000, f"than {DEEPEST} levels"),
        ("a: [" + "1, " * 30_000 + "]", "more than 10,000 values"),
        ("#" * (MOST_BYTES + 1), "more than 131,072 bytes"),
        ("a: " + "x" * 5000, "more than 4,096 letters"),
        ("a: " + "9" * 4500, "more than 4,096 letters"),
        ("a: 1\na: 2\n", "found duplicate key a"),
        ("? [1]\n: 2\n", "unhashable key"),
        ("? \n: 2\n", "cannot be read"),
        ("=: 1\n", "a run of an unknown task None"),
        ("a: ${a}\n", "resolves nothing"),
        ("a: ${b}\nb: ${a}\n", "resolves nothing"),
        ("a: ???\n", "??? is not read"),
        ("a: !!binary aaaa\n", "tags are not read"),
        ("a: !!set {b}\n", "tags are not read"),
        ("task: {a: 1}\n", "an unknown task {'a': 1}"),
        ("task: chess\n", "an unknown task 'chess'"),
        (f"task: forecast\nversion: {__version__}\n", "seed is missing"),
    ],
    ids=range(35),
)
def test_what_is_no_record_of_a_run(content: str | bytes, said: str, tmp_path: Path) -> None:
    assert said in _said(tmp_path, content)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        *((name, "~", f"{name} is missing") for name in ("seed", "output", "model", "data", "training", "trainer")),
        *((name, None, f"{name} must be a section; got None") for name in ("model", "data", "training", "trainer")),
        *((name, [1], f"{name} must be a section; got [1]") for name in ("model", "early_stopping", "averaging")),
        *((f"{name}._target_", "~", f"{name}._target_ is missing") for name in ("model", "early_stopping", "trainer")),
        *(
            ("model._target_", value, "model._target_ must be titans_seq.forecast.SimbaForecaster; got")
            for value in (None, 3, [], {}, "titans_seq.genomics.DNAEncoder", "x" * 4000)
        ),
        ("seed", "abc", "seed must be a whole number; got 'abc'"),
        ("seed", 1.5, "seed must be a whole number; got 1.5"),
        ("seed", True, "seed must be a whole number; got True"),
        ("seed", 2**32, "seed must be between 0 and 4294967295"),
        ("seed", -1, "seed must be between 0 and 4294967295; got -1"),
        ("quiet", "yes, please", "quiet must be true or false"),
        ("output", ["a"], "output must be text or null"),
        ("extra", {"a": 1}, "unknown section 'extra'; known: data"),
        (3, 4, "unknown section 3"),
        ("model.blocks", 10**9, "model.blocks must be between 0 and 256; got 1000000000"),
        ("model.blocks", -1, "model.blocks must be between"),
        ("model.blocks", "1", "model.blocks must be a whole number"),
        ("model.blocks", [1], "model.blocks must be a whole number; got [1]"),
        ("model.blocks", None, "model.blocks must be a whole number; got None"),
        ("model.dim", 10**9, "model.dim must be between"),
        ("model.dim", 8.0, "model.dim must be a whole number"),
        ("model.lookback", 10**12, "model.lookback must be between"),
        ("model.horizon", 10**400, "model.horizon must be between"),
        ("model.depth", 10**6, "model.depth must be between"),
        ("model.dropout", float("nan"), "model.dropout must be finite; got nan"),
        ("model.dropout", float("inf"), "model.dropout must be finite"),
        ("model.dropout", -0.1, "model.dropout must be between 0 and"),
        ("model.dropout", {"a": 1}, "model.dropout must be a number; got {'a': 1}"),
        ("model.momentum", 1, "model.momentum must be true or false"),
        ("model.mixer", 3, "is not an option of SimbaForecaster"),
        ("model.dept", 3, "model.dept is not an option of SimbaForecaster; did you mean 'depth'?"),
        ("model.self", 3, "model.self is not an option"),
        ("model.\x1b[31m", 3, "is not an option of SimbaForecaster"),
        ("training.network", 3, "training.network must be left out"),
        ("training.learning_rate", "fast", "training.learning_rate must be a number"),
        ("data.batch_size", 10**9, "data.batch_size must be between"),
        ("data.batch_size", -4, "data.batch_size must be between"),
        ("data.num_workers", 10**6, "data.num_workers must be between"),
        ("data.lookback", 10**12, "data.lookback must be between"),
        ("data.csv", 3, "data.csv must be text or null"),
        ("trainer.max_epochs", "~", "trainer.max_epochs is missing"),
        ("trainer.max_epochs", "ten", "trainer.max_epochs must be a whole number or null"),
        ("trainer.devices", [10**9], "trainer.devices must be between"),
        ("trainer.devices", "1000000", "trainer.devices must be between"),
        ("trainer.max_time", {"weeks": 10**9}, "trainer.max_time must be between"),
        ("data.csv", "a\0b", "a NUL character; got 'a\\x00b'"),
        ("trainer.callbacks", ["x"], "trainer.callbacks must be null"),
        ("trainer.plugins", "x", "trainer.plugins must be null"),
        ("trainer.precision", "3-bit", "trainer.precision must be 64"),
        ("trainer.model_registry", "x", "trainer.model_registry must be one of None"),
        ("early_stopping.monitor", "~", "early_stopping.monitor is missing"),
        ("early_stopping.patience", -1, "early_stopping.patience must be between"),
        ("averaging.decay", "x", "averaging.decay must be a number"),
        ("averaging.avg_fn", "os.mkdir", "averaging.avg_fn is not an option of EMAWeightAveraging"),
    ],
    ids=str,
)
def test_what_no_run_can_be(place: str | int, value: object, said: str, plain: str, tmp_path: Path) -> None:
    """value: "~" takes the key away."""
    config = yaml.safe_load(plain)
    *above, last = place.split(".") if isinstance(place, str) else [place]
    node = config
    for key in above:
        node = node[key]
    if value == "~":
        del node[last]
    else:
        node[last] = value
    assert said in _said(tmp_path, yaml.safe_dump(config))


@pytest.mark.parametrize("rows", ["batch_size", "eval_batch_size"])
def test_batches_that_no_machine_holds(rows: str, plain: str, tmp_path: Path) -> None:
    config = yaml.safe_load(plain)
    config["data"] |= {"lookback": 2048, rows: 2**20}
    said = f"data.lookback x data.{rows} must be at most 1073741824; got 2048 x 1048576"
    assert said in _said(tmp_path, yaml.safe_dump(config))
    text = {"length": 2**22, "eval_length": 2**22, "batch_size": 1, "eval_batch_size": 1}
    require_batches("data", text)
    with pytest.raises(UsageError, match=f"length x data.{rows} must be"):
        require_batches("data", text | {rows: 2**20})


def test_a_file_that_is_one_is_read(plain: str, tmp_path: Path) -> None:
    for text in (plain, "\ufeff" + plain, plain.replace("\n", "\r\n"), plain + "note: 2024-01-01\n", plain + "...\n"):
        (tmp_path / "config.yaml").write_text(text, newline="")
        assert read_config(tmp_path, "forecast").model.dim == 8


def test_options_that_a_run_did_not_know_yet_have_their_defaults(plain: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(plain.replace("  expansion: 2\n", "").replace("  csv: null\n", ""))
    config = read_config(tmp_path, "forecast")
    assert (config.model.expansion, config.data.csv) == (2, None)


def test_a_run_keeps_the_options_it_was_made_with(plain: str, tmp_path: Path) -> None:
    """Defaults may have changed since."""
    recorded = plain.replace("theta_start: 1.0", "theta_start: 4.0")
    assert recorded != plain
    (tmp_path / "config.yaml").write_text(recorded)
    assert read_config(tmp_path, "forecast").model.theta_start == 4.0


@pytest.mark.parametrize(
    ("version", "changed", "said"),
    [
        ("", "", "made by titans-seq 0.1.0; this is {now}: the network has changed since; train again"),
        ("version: 9.1.0\n", "news: {}\n", "made by titans-seq 9.1.0; this is {now}: unknown section 'news'"),
        ("version: 9.1.0\n", "", None),
        ("version: 7\n", "", "made by titans-seq 7; this is {now}: version must be text"),
        ("version: [1]\n", "", "made by titans-seq [1]; this is {now}: version must be text"),
    ],
)
def test_runs_of_other_versions(version: str, changed: str, said: str | None, plain: str, tmp_path: Path) -> None:
    """They open, or the line names both versions."""
    mine = f"version: {__version__}\n"
    assert mine in plain
    other = plain.replace(mine, version) + changed
    if said is None:
        (tmp_path / "config.yaml").write_text(other)
        assert read_config(tmp_path, "forecast").model.dim == 8
    else:
        assert f"config.yaml was {said.format(now=__version__)}" in _said(tmp_path, other)


def _changed(finished: Path, workdir: Path, *changes: tuple[str, str]) -> Path:
    """A copy of the finished run whose configuration says something else."""
    shutil.copytree(finished, workdir / "run")
    text = (workdir / "run" / "config.yaml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (workdir / "run" / "config.yaml").write_text(text)
    return workdir / "run"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("blocks: 1", "blocks: 256", "256 blocks, 1 in the checkpoint"),
        ("dim: 8", "dim: 65536", "network.position: 12 x 65536, 12 x 8 in the checkpoint"),
        ("expansion: 2", "expansion: 64", "network.blocks.0.mixer.memory.0"),
        ("depth: 2", "depth: 32", "network.blocks.0.mixer.memory"),
        ("mixer: memory", "mixer: none", "model.heads is not an option of SimbaForecaster"),
        ("horizon: 96", "horizon: 1048576", "choose a shorter lookback or horizon"),
        ("horizon: 96", "horizon: 97", "network.head.weight: 1261 x 96, 1248 x 96 in the checkpoint"),
        ("  lookback: 96\n  horizon: 96\n  mixer", "  lookback: 48\n  horizon: 96\n  mixer", "the windows have 96"),
        ("heads: 2", "heads: 0", "heads must be"),
        ("limit_train_batches: 2", "limit_test_batches: 0", "limit_test_batches=0 does not go with a run"),
        ("limit_train_batches: 2", "barebones: true", "barebones=True does not go with a run"),
        ("limit_train_batches: 2", "accelerator: abacus", "trainer: "),
        ("limit_train_batches: 2", "default_root_dir: http://localhost", "its own folder; use --output"),
    ],
    ids=lambda text: text[:20],
)
def test_a_model_that_does_not_fit_its_weights(
    old: str, new: str, said: str, finished: Path, workdir: Path, refused: Refused
) -> None:
    _changed(finished, workdir, (old, new))
    for words in (["test", "forecast", "--checkpoint", "run"], RESUME):
        assert said in refused(words)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Stopping\n  monitor: val_mse", "Stopping\n  monitor: val_mcc", "early_stopping: no metric 'val_mcc'"),
        ("decay: 0.98", "decay: 5", "averaging: "),
        ("decay: 0.98", "device: abacus", "averaging: "),
        ("limit_train_batches: 2", "max_time: '9999999999:00:00:00'", "trainer: "),
    ],
    ids=lambda text: text[:20],
)
def test_callbacks_are_made_before_anything_changes(
    old: str, new: str, said: str, finished: Path, workdir: Path, refused: Refused
) -> None:
    _changed(finished, workdir, (old, new))
    assert said in refused(RESUME)


# what a file alone does not decide ----------------------------------------------------------------------------------


def test_a_file_starts_no_download(finished: Path, workdir: Path, tmp_path: Path, refused: Refused) -> None:
    folder = tmp_path / "a folder"
    _changed(finished, workdir, ("dataset: null", "dataset: ETTh1"), ("data_root: null", f"data_root: {folder}"))
    for words in (["test", "forecast", "--checkpoint", "run"], ["predict", "forecast", "--checkpoint", "run"], RESUME):
        said = refused(words)
        assert f"ETTh1 is not in {folder}" in said
        assert f"TITANS_SEQ_DATA='{folder}' titans-seq data download ETTh1" in said
    assert not folder.exists()


def test_a_benchmark_is_not_downloaded_for_a_file(tmp_path: Path) -> None:
    config = compose(CLASSIFY.schema, ["data=benchmark", "data.dataset=human_nontata_promoters"])
    config.data.data_root = str(tmp_path / "there")
    with pytest.raises(UsageError, match="titans-seq data download human_nontata_promoters"):
        CLASSIFY.data(config, "test", download=False)
    assert not (tmp_path / "there").exists()


def test_a_new_run_downloads(tiny: list[str], refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = replace(registry.find_spec("ETTh1"), urls=("http://127.0.0.1:9/ETTh1.csv",))
    monkeypatch.setattr(registry, "DATASETS", (nowhere,))
    assert "ETTh1 could not be downloaded; tried" in refused(["fit", "forecast", *tiny, "--dataset", "ETTh1"])


def test_more_nodes_are_asked_for_again(finished: Path, workdir: Path, refused: Refused) -> None:
    _changed(finished, workdir, ("limit_train_batches: 2", "num_nodes: 2"))
    assert "would wait for all of them; if they are there, say so: trainer.num_nodes=2" in refused(RESUME)
    assert "num_nodes is 2 in the run" in refused([*RESUME, "trainer.num_nodes=3"])
    fewer = ["--epochs", "1", "trainer.num_nodes=2"]  # goes on to what is checked next
    assert "can only raise that, got 1" in refused(["fit", "forecast", "--resume", "--output", "run", *fewer])


def test_lightning_looks_for_its_files_in_the_run_folder(workdir: Path) -> None:
    trainer = L.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    training.place(trainer, workdir / "run")
    assert trainer.default_root_dir == str(workdir / "run")


def test_a_run_that_is_held_is_not_read(finished: Path, workdir: Path, refused: Refused) -> None:
    """What stands in the file may change until the run is free."""
    run = _changed(finished, workdir, ("seed: 0", "seed: none"))
    with runs.locked(run):
        assert "another process is training in run" in refused(RESUME)
    assert "seed must be a whole number" in refused(RESUME)


# what a new run would write -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("early_stopping.patience=-1", "early_stopping.patience must be between 0 and 1000000000; got -1"),
        ("early_stopping.patience=1.5", "early_stopping.patience must be a whole number"),
        ("+tags=[a,b]", "unknown section 'tags'; known: data"),
        ("+tags={a: 1}", "unknown section 'tags'"),
        ("+note=" + "x" * 5000, "could not be read again: line "),
        (r"+note='\${a}'", "a run keeps its values and resolves nothing"),
        ("trainer.profiler=pytorch", "trainer.profiler must be one of None, simple, advanced; got 'pytorch'"),
        ("trainer.default_root_dir=x", "trainer.default_root_dir=x does not go with a run"),
        ("+trainer.plugins=[{_target_: os.path.join}]", "os.path.join is not a class"),
        ("+training._partial_=true", "training: '_partial_' cannot be an option of a run"),
        ("+data.batch_sise=3", "data.batch_sise is not an option of ForecastDataModule; did you mean 'batch_size'?"),
    ],
    ids=lambda text: text[:24],
)
def test_what_could_not_be_read_again_is_not_trained(word: str, said: str, tiny: list[str], refused: Refused) -> None:
    assert said in refused(["fit", "forecast", *tiny, word])


def test_every_job_of_a_sweep_can_be_read_again(tiny: list[str], refused: Refused) -> None:
    said = refused(["fit", "forecast", "-m", *tiny, "early_stopping.patience=3,-1", "--output", "sweep"])
    assert "early_stopping.patience must be between" in said


def test_more_epochs_than_a_file_may_say(finished: Path, workdir: Path, refused: Refused) -> None:
    _changed(finished, workdir)
    said = refused(["fit", "forecast", "--resume", "--output", "run", "trainer.max_epochs=2000000000"])
    assert "trainer.max_epochs must be between -1 and 1000000000" in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("class_names", ["a"] * 10_001, "more than 10,000 values"),
        ("class_names", ["a" * 1000] * 200, "more than 131,072 bytes"),
    ],
    ids=("values", "bytes"),
)
def test_lists_that_could_not_be_read_again(name: str, value: object, said: str) -> None:
    config = compose(CLASSIFY.schema, [])
    require_readable(config)
    config.data[name] = value
    with pytest.raises(UsageError, match=f"could not be read again: .*{said}"):
        require_readable(config)


def test_a_run_of_every_task_can_be_read_again() -> None:
    for task in (FORECAST, CLASSIFY):
        require_readable(compose(task.schema, ["+note=first"]))


def test_a_model_that_no_machine_holds(finished: Path, workdir: Path, refused: Refused) -> None:
    """A run that was killed before its first checkpoint: there are no weights to compare with."""
    run = _changed(finished, workdir, ("dim: 8", "dim: 65536"), ("blocks: 1", "blocks: 200"), ("heads: 2", "heads: 4"))
    for path in (*(run / "checkpoints").iterdir(), run / "metrics.json"):
        path.unlink()
    said = refused(["fit", "forecast", "--resume", "--output", "run"])
    assert re.search(r"needs [\d,]+ GiB, this machine has [\d,]+", said)


def test_every_network_is_known_without_taking_memory() -> None:
    from titans_seq.forecast import ForecastModule, SimbaForecaster
    from titans_seq.genomics import DNAClassifier, DNAEncoder, DNALanguageModel, DNAModule, KmerClassifier
    from titans_seq.language import LanguageModel, LanguageModule
    from titans_seq.mixers import MIXERS

    names = ("a", "b")
    makers: list[Callable[[], torch.nn.Module]] = [lambda: DNAModule(KmerClassifier(names))]
    makers += [lambda mixer=mixer: ForecastModule(SimbaForecaster(mixer=mixer)) for mixer in (*MIXERS, "none")]
    for mixer in MIXERS:
        makers += [
            lambda mixer=mixer: DNAModule(DNALanguageModel(DNAEncoder(mixer=mixer))),
            lambda mixer=mixer: DNAModule(DNAClassifier(DNAEncoder(mixer=mixer, bidirectional=True), names)),
            lambda mixer=mixer: LanguageModule(LanguageModel(256, mixer=mixer), answers=True),
        ]
    for make in makers:
        drawn = torch.get_rng_state()
        with torch.device("meta"):
            state = make().state_dict()
        assert all(value.is_meta for value in state.values())
        assert torch.equal(torch.get_rng_state(), drawn)  # a resumed run draws as it would have
        assert {name: value.shape for name, value in make().state_dict().items()} == {
            name: value.shape for name, value in state.items()
        }
