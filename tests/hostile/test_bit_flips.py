"""Single bits that turn over in what the project has written: each is refused, or what is loaded is the same."""

from pathlib import Path

import pytest
import torch
from bits import flips

from titans_seq import load_state, save_state
from titans_seq.cli.main import main
from titans_seq.language import ByteTokenizer, LanguageModel, load_model, save_model

pytestmark = pytest.mark.slow

FORECAST = ["fit", "forecast", "model.dim=8", "model.blocks=1", "model.heads=2", "data.batch_size=4", "--quiet"]
FORECAST += ["trainer.limit_train_batches=2", "--epochs", "1", "trainer.limit_test_batches=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flips") / "run"
    assert main([*FORECAST, "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, LanguageModel(256, 8, layers=1, heads=2, mixer="memory"), ByteTokenizer())
    return folder


def test_150_bits_of_a_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = ["test", "forecast", "--checkpoint", str(run), "--quiet"]
    assert main(test) == 0
    measured = (run / "test_metrics.json").read_text()
    for place in flips(run / "checkpoints" / "best.ckpt", 150):
        capsys.readouterr()
        code = main(test)
        err = capsys.readouterr().err
        if code == 0:
            assert (run / "test_metrics.json").read_text() == measured, f"bit {place}"
        else:
            assert code == 2 and err.count("\n") == 1 and "best.ckpt is damaged" in err, f"bit {place}: {err}"


@pytest.mark.parametrize(("name", "count"), [("model.safetensors", 40), ("config.json", 40), ("tokenizer.json", 20)])
def test_bits_of_a_language_model(name: str, count: int, model: Path) -> None:
    whole = load_model(model)[0]
    weights, options = whole.state_dict(), whole.options
    for place in flips(model / name, count):
        try:
            found = load_model(model)[0]
        except ValueError as error:
            assert "\n" not in str(error), f"bit {place}"
        else:
            assert found.options == options, f"bit {place}"
            assert all(torch.equal(value, weights[key]) for key, value in found.state_dict().items()), f"bit {place}"
    load_model(model)


def test_100_bits_of_a_state(model: Path, tmp_path: Path) -> None:
    made, path = load_model(model)[0], tmp_path / "state"
    save_state(path, made(torch.arange(5)[None])[1], model=made)
    for place in flips(path, 100):
        with pytest.raises(ValueError, match=r"state (is damaged|has no digest)[^\n]+$"):
            load_state(path, model=made)
            pytest.fail(f"bit {place}")
    load_state(path, model=made)
