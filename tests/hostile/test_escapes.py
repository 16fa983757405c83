"""A run folder from elsewhere runs no code: whatever its config.yaml names is looked up, not imported."""

import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import escapes
import numpy as np
import pytest
import torch
import yaml
from signed import sign_checkpoint

from titans_seq.cli.config import parse
from titans_seq.cli.dna import CLASSIFY
from titans_seq.cli.main import main
from titans_seq.cli.registry import REGISTRY, find, own_name

TINY = ["model.dim=8", "model.heads=1", "trainer.limit_train_batches=1", "trainer.max_epochs=1", "--quiet"]
SHORT = ["--csv", "short.csv", "--lookback", "16", "--horizon", "4", "data.batch_size=8"]
LIMITS = [f"trainer.limit_{part}_batches=1" for part in ("train", "val", "test")]
# verb -> the words before the run folder
FORECAST = {
    "test": ["test", "forecast", "--quiet", "--checkpoint"],
    "predict": ["predict", "forecast", "--quiet", "--output", "out", "--checkpoint"],
    "surprise": ["surprise", "forecast", "--quiet", "--output", "out/rows.csv", "--checkpoint"],
    "report": ["report", "--quiet", "--output", "out/page.html"],
    "resume": ["fit", "forecast", "--quiet", "--resume", "--epochs", "2", "--output"],
}
DNA = {
    "test": ["test", "dna", "--quiet", "--checkpoint"],
    "embed": ["embed", "dna", "--quiet", "--fasta", "genome.fa", "--output", "out/rows.npz", "--checkpoint"],
    "surprise": ["surprise", "dna", "--quiet", "--fasta", "genome.fa", "--bedgraph", "out/rows", "--checkpoint"],
    "resume": ["pretrain", "dna", "--quiet", "--resume", "--epochs", "2", "--output"],
    "from": ["fit", "dna", "--quiet", "--epochs", "1", *LIMITS, "--output", "out", "--from"],
}
LANGUAGE = {
    "eval": ["eval", "lm", "--quiet", "--text", "book.txt", "--checkpoint"],
    "generate": ["generate", "lm", "--quiet", "--prompt", "a", "--tokens", "2", "--checkpoint"],
    "resume": ["fit", "lm", "--quiet", "--resume", "--epochs", "2", "--output"],
}
Forge = Callable[[str, Callable[[dict[str, Any]], None]], Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs forecast, dna, lm, and the files they were made from; tests must not change them."""
    folder = tmp_path_factory.mktemp("runs")
    days = np.arange("2024-01-01", "2024-05-01", dtype="datetime64[D]")
    rows = [f"{day},{np.sin(i / 3):.4f}" for i, day in enumerate(days)]
    (folder / "short.csv").write_text("\n".join(["date,value", *rows]) + "\n")
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 1500))
    (folder / "genome.fa").write_text(f">one\n{letters}\n")
    (folder / "book.txt").write_text("the cat and the hat and the bat sat on a mat. " * 30)
    dna = ["--fasta", str(folder / "genome.fa"), "--length", "64", "data.batch_size=8", "model.layers=1"]
    text = ["--text", str(folder / "book.txt"), "--length", "16", "data.batch_size=8", "model.layers=1"]
    series = ["--csv", str(folder / "short.csv"), *SHORT[2:]]
    assert main(["fit", "forecast", *TINY, *series, "--output", str(folder / "forecast")]) == 0
    assert main(["pretrain", "dna", *TINY, *dna, "--output", str(folder / "dna")]) == 0
    assert main(["fit", "lm", *TINY, *text, "--output", str(folder / "lm")]) == 0
    return folder


@pytest.fixture
def work(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, with the files that commands name."""
    monkeypatch.chdir(tmp_path)
    for name in ("genome.fa", "book.txt", "short.csv"):
        shutil.copy(runs / name, name)
    (tmp_path / "marks").mkdir()
    return tmp_path


@pytest.fixture
def forge(runs: Path, work: Path) -> Forge:
    """Make a copy of a run with another configuration."""

    def copy(name: str, change: Callable[[dict[str, Any]], None]) -> Path:
        folder = work / "forged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(runs / name, folder, ignore=shutil.ignore_patterns("*.png"))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        change(config)
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        return folder

    return copy


@pytest.fixture(scope="module")
def paths() -> list[tuple[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated names that are only walked past
        escapes.load_everything()
        return list(escapes.callables())


def _refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that must refuse its input; anything else is returned as it is."""
    capsys.readouterr()
    code = main(words)
    out, err = capsys.readouterr()
    sound = code == 2 and out == "" and err.count("\n") == 1 and err.startswith("titans-seq: ")
    return err if sound else f"NOT REFUSED: exit code {code}, {out!r}, {err!r}"


def _marks(work: Path) -> list[str]:
    """What a payload has left, and not what it is made of."""
    return [path.name for path in (work / "marks").iterdir() if path.suffix not in (".pickle", ".pt", ".source")]


def test_no_path_but_a_registered_one_leads_into_the_registry(paths: list[tuple[str, Any]]) -> None:
    classes = {name: cls for task in REGISTRY.values() for part in task.values() for name, cls in part.items()}
    names = classes | {own_name(cls): cls for cls in classes.values()}
    found = {path: value for path, value in paths if path in names}
    assert len(paths) > 100_000 and len(found) > 10
    assert all(value is names[path] for path, value in found.items())
    for section in ("data", "model", "training", "trainer", "early_stopping", "averaging"):
        for name in (
            "os.system",
            "builtins.eval",
            "lightning.Trainer.fit",
            "titans_seq.cli.main.main",
            "",
            None,
            3,
            [],
        ):
            assert find(name, section) is None


def test_every_escape_is_refused(
    paths: list[tuple[str, Any]], runs: Path, work: Path, forge: Forge, capsys: pytest.CaptureFixture[str]
) -> None:
    found, verbs = escapes.escapes(paths), list(FORECAST)
    assert len(found) >= 40 and len({escape.path.rpartition(".")[2] for escape in found}) >= 12
    wrong = []
    for i, escape in enumerate(found):
        verb = verbs[i % len(verbs)]
        places = escapes.PLACES + (escapes.TRAINING_PLACES if verb == "resume" else [])
        place, payload = places[i // len(verbs) % len(places)], escape.payload(work / "marks" / str(i))
        forged = forge("forecast", lambda config, at=place, what=payload: escapes.hide(config, at, what))  # type: ignore[misc]
        said = _refused([*FORECAST[verb], str(forged)], capsys)
        if "config.yaml: " not in said or escape.path not in said or _marks(work) or Path("out").exists():
            wrong.append((escape.path, verb, place, said, _marks(work)))
    assert wrong == []


@pytest.mark.parametrize(("run", "commands"), [("dna", DNA), ("lm", LANGUAGE)], ids=["dna", "lm"])
def test_escapes_of_the_other_tasks_are_refused(
    run: str,
    commands: dict[str, list[str]],
    paths: list[tuple[str, Any]],
    work: Path,
    forge: Forge,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = escapes.escapes(paths)
    for i, words in enumerate(list(commands.values()) * 3):
        escape, place = found[i * 5 % len(found)], escapes.PLACES[i % len(escapes.PLACES)]
        payload = escape.payload(work / "marks" / str(i))
        forged = forge(run, lambda config, at=place, what=payload: escapes.hide(config, at, what))  # type: ignore[misc]
        assert escape.path in _refused([*words, str(forged)], capsys)
        assert not _marks(work) and not Path("out").exists()


def _special(mark: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    touch = {"_target_": "os.mkdir", "path": str(mark)}
    yield ("model", "_args_"), [touch]
    yield ("model", "_partial_"), True
    yield ("model", "_convert_"), "all"
    yield ("model", "_recursive_"), False
    yield ("trainer", "plugins"), {"_partial_": True, "_target_": "os.mkdir"}
    yield ("data", "_anything"), 1
    yield ("seed",), touch
    yield ("output",), touch
    yield ("note",), touch
    yield ("model", "dim"), "${oc.env:HOME}"
    yield ("output",), "${hydra:runtime.cwd}"
    yield ("model", "mixer"), "${oc.decode:${oc.env:X}}"
    yield ("trainer", "profiler"), "pytorch"
    yield ("trainer", "model_registry"), "mine"
    yield ("model", "backend"), {"a": {"b": {"c": touch}}}


@pytest.mark.parametrize("case", range(15))
def test_words_of_hydra_are_refused_in_a_file(
    case: int, work: Path, forge: Forge, capsys: pytest.CaptureFixture[str]
) -> None:
    place, value = list(_special(work / "marks" / "mark"))[case]
    forged = forge("forecast", lambda config: escapes.hide(config, place, value))
    for verb in ("test", "resume"):
        assert "config.yaml" in _refused([*FORECAST[verb], str(forged)], capsys)
    assert not _marks(work)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!x"])
def test_tags_of_yaml_are_refused(tag: str, work: Path, forge: Forge, capsys: pytest.CaptureFixture[str]) -> None:
    path = forge("forecast", lambda config: None) / "config.yaml"
    path.write_text(path.read_text() + f"note: {tag} [{work / 'marks' / 'mark'}]\n")
    assert "tags are not read" in _refused([*FORECAST["test"], str(path.parent)], capsys)
    assert not _marks(work)


@pytest.mark.parametrize("value", ["{_target_:os.mkdir,path:mark}", "[1]", "a,b", "x' +data.csv=y", "a\\'b", "null"])
def test_an_encoder_brings_no_words_of_its_own(value: str, forge: Forge) -> None:
    """`--from` puts the run's options on Hydra's command line, where each is still the text that it was."""
    forged = forge("dna", lambda config: config["model"].update(backend=value))
    words = CLASSIFY.schema.choices["from"](str(forged))
    found = {override.key_or_group: override.value() for override in parse(words)}
    assert found["model.backend"] == value and len(found) == len(words)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (run, words)
        for run, verbs in (("forecast", FORECAST), ("dna", DNA), ("lm", LANGUAGE))
        for words in verbs.values()
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else value,
)
def test_the_untouched_run_works(run: str, words: list[str], runs: Path, work: Path, forge: Forge) -> None:
    assert main([*words, str(forge(run, lambda config: None))]) == 0


# classes of the user -------------------------------------------------------------------------------------------------


MINE = """
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins.precision import Precision
from titans_seq.forecast import SimbaForecaster

class Stop(EarlyStopping):
    pass

class Plain(Precision):
    pass

class Network(SimbaForecaster):
    pass

def function():
    pass
"""


@pytest.fixture
def mine(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's."""
    (work / "code").mkdir()
    (work / "code" / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(work / "code"))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("early_stopping._target_=mine.Stop", "mine.Stop"),
        ("+trainer.plugins=[{_target_:mine.Plain}]", "mine.Plain"),
        ("model._target_=mine.Network", "mine.Network"),
    ],
)
def test_a_class_of_the_user_is_named_again(
    typed: str, name: str, mine: None, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "forecast", *TINY, *SHORT, typed, "training.output=huber", "--output", "run"]) == 0
    resume = ["fit", "forecast", "--quiet", "--resume", "--output", "run"]
    for words in (["test", "forecast", "--quiet", "--checkpoint", "run"], [*resume, "--epochs", "2"]):
        del sys.modules["mine"]
        assert f"unless you name it: --trust {name}" in _refused(words, capsys)
        assert "mine" not in sys.modules
        assert main([*words, "--trust", name]) == 0
    assert main([*resume, "--epochs", "3", typed.lstrip("+")]) == 0


def test_what_is_trusted_is_a_class(
    mine: None, runs: Path, work: Path, forge: Forge, capsys: pytest.CaptureFixture[str]
) -> None:
    test = ["test", "forecast", "--quiet", "--checkpoint", str(runs / "forecast"), "--trust"]
    assert "mine.function is not a class" in _refused([*test, "mine.function"], capsys)
    assert "no class mine.Nothing" in _refused([*test, "mine.Nothing"], capsys)
    assert "no class nowhere.Stop" in _refused([*test, "nowhere.Stop"], capsys)
    assert "--trust goes with --resume" in _refused(["fit", "forecast", "--trust", "mine.Stop"], capsys)
    payload = {"_target_": "os.mkdir", "path": str(work / "marks" / "mark")}
    forged = forge("forecast", lambda config: escapes.hide(config, ("trainer", "plugins"), payload))
    assert "--trust os.mkdir" in _refused(
        ["test", "forecast", "--checkpoint", str(forged), "--trust", "mine.Stop"], capsys
    )
    assert not _marks(work)


# LightningCLI --------------------------------------------------------------------------------------------------------


def _lightning(checkpoint: str) -> list[str]:
    config = Path(__file__).parents[2] / "configs" / "lightning" / "forecast.yaml"
    quiet = ["--trainer.logger", "false", "--trainer.callbacks", "null", "--trainer.enable_progress_bar", "false"]
    return ["lightning", "test", "--config", str(config), *quiet, "--ckpt_path", checkpoint]


@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*deprecated")
@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_a_checkpoint_names_no_classes(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from titans_seq.forecast import ForecastModule, SimbaForecaster

    (work / "code").mkdir()
    (work / "code" / "harmless.py").write_text(f"open({str(work / 'marks' / 'mark')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(work / "code"))
    torch.save(
        {
            "state_dict": ForecastModule(SimbaForecaster()).state_dict(),
            "pytorch-lightning_version": "2.6.1",
            "hyper_parameters": {"network": {"class_path": "harmless.Network"}},
        },
        "forged.ckpt",
    )
    assert main(_lightning("forged.ckpt")) == 0  # as plain Lightning writes it, without a digest
    sign_checkpoint(Path("forged.ckpt"))
    Path("config.yaml").unlink()  # Lightning writes it anew
    assert main(_lightning("forged.ckpt")) == 0
    assert not _marks(work)


def test_a_checkpoint_is_not_unpickled(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    escapes.LEAVING[torch.load](work / "marks" / "mark")  # marks/mark.pt
    forged = str(work / "marks" / "mark.pt")
    sign_checkpoint(Path(forged))
    assert main(_lightning(forged)) == 2
    assert "damaged or not a checkpoint" in capsys.readouterr().err
    assert main([*_lightning(forged), "--weights_only", "false"]) == 2
    assert "--weights_only false" in capsys.readouterr().err
    assert not _marks(work)
