"""Poison (NaN, infinity, 1e30) where a result must not depend on it: the result stays as it was.

Dimensions: B batch, T time, D width. Every row of a table is one check; what the models are made of is judged in
tests/titans_seq.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hostile.base import letters
from torch import Tensor, nn

from titans_seq import NeuralMemory, TitansForecaster
from titans_seq.blocks import Block
from titans_seq.datamodules import ForecastDataModule
from titans_seq.datamodules.forecast.panel import Columns
from titans_seq.datamodules.forecast.reading import read_panel
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.forecast import SimbaForecaster
from titans_seq.genomics import DNAClassifier, DNAEncoder, DNALanguageModel
from titans_seq.genomics.stream import read_stream
from titans_seq.language import LanguageModel
from titans_seq.mixers import MIXERS

D, T, CHUNK = 8, 12, 4
POISONS = {"nan": float("nan"), "inf": float("inf"), "1e30": 1e30}
poisoned = pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)

# layers and blocks: [B, T, D] -> [B, T, D], with mask and state
_MEMORIES: dict[str, Callable[[], nn.Module]] = {
    f"memory of depth {depth}, chunks of {size}": lambda depth=depth, size=size: NeuralMemory(  # type: ignore[misc]
        D, heads=2, depth=depth, chunk_size=size, num_persistent=2
    )
    for depth in (1, 2, 4)
    for size in (1, CHUNK, 64)
}
_BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "block of mac": lambda: Block(D, mixer="mac", heads=2, chunk_size=2, segment=CHUNK, num_persistent=2),
    "block of mag": lambda: Block(D, mixer="mag", heads=2, chunk_size=CHUNK, window=3, num_persistent=2),
    "block of mal": lambda: Block(D, mixer="mal", heads=2, chunk_size=CHUNK, window=3, num_persistent=2),
    "block of attention": lambda: Block(D, mixer="attention", heads=2, num_persistent=2),
    "block of ssm": lambda: Block(D, mixer="ssm"),
    "block of gated_deltanet": lambda: Block(D, mixer="gated_deltanet", heads=2),
}


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    """A model whose every part matters."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def _input(batch: int = 3, time: int = T) -> Tensor:
    return torch.randn(batch, time, D, generator=torch.Generator().manual_seed(1))


def _outputs(model: nn.Module, x: Tensor, **options: object) -> Tensor:
    with torch.no_grad():
        found = model(x, **options)
    return found[0] if isinstance(found, tuple) else found


# layers and blocks ----------------------------------------------------------------------------------------------------


@poisoned
@pytest.mark.parametrize("name", [*_MEMORIES, *_BLOCKS])
def test_another_sample_of_the_batch(name: str, poison: float) -> None:
    model, x = _made((_MEMORIES | _BLOCKS)[name]), _input()
    before = _outputs(model, x)
    x[1] = poison
    after = _outputs(model, x)
    assert torch.equal(after[[0, 2]], before[[0, 2]])


@poisoned
@pytest.mark.parametrize("name", [*_MEMORIES, *_BLOCKS])
def test_masked_positions(name: str, poison: float) -> None:
    model, x = _made((_MEMORIES | _BLOCKS)[name]), _input()
    mask = torch.ones(3, T, dtype=torch.bool)
    mask[0, :3], mask[1, 5:8], mask[2, 9:] = False, False, False
    before = _outputs(model, x, mask=mask)
    x[~mask] = poison
    after = _outputs(model, x, mask=mask)
    assert torch.equal(after[mask], before[mask])


# within a chunk of the memory, and where attention looks, what is not finite spoils all tokens, as documented
_LATER = [("memory of depth 2, chunks of 4", 2 * CHUNK + 2, poison) for poison in POISONS.values()]  # 2 are persistent
_LATER += [("block of mac", 2 * CHUNK, poison) for poison in POISONS.values()]
_LATER += [(name, 2 * CHUNK + 2, 1e15) for name in _BLOCKS]


@pytest.mark.parametrize(("name", "begin", "poison"), _LATER)
def test_later_tokens(name: str, begin: int, poison: float) -> None:
    model, x = _made((_MEMORIES | _BLOCKS)[name]), _input()
    before = _outputs(model, x)
    x[:, begin:] = poison
    after = _outputs(model, x)
    assert torch.equal(after[:, :begin], before[:, :begin])


@poisoned
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_carried_state_of_another_sample(depth: int, poison: float) -> None:
    model, x = _made(_MEMORIES[f"memory of depth {depth}, chunks of {CHUNK}"]), _input()
    with torch.no_grad():
        _, state = model(x, return_state=True)
        x2 = x.clone()
        x2[1] = poison
        _, spoilt = model(x2, return_state=True)
        before, after = model(x, state=state), model(x, state=spoilt)
    assert torch.equal(after[[0, 2]], before[[0, 2]])


# models of tokens: the poison is the embedding of a token that stands where nothing may look ------------------------

_TOKENS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"language model of {mixer}": lambda mixer=mixer: LanguageModel(  # type: ignore[misc]
            16, D, layers=1, mixer=mixer, heads=1, **({} if mixer == "attention" else {"chunk_size": 4})
        )
        for mixer in ("memory", "mac", "mag", "mal", "attention")
    },
    "DNA language model": lambda: DNALanguageModel(DNAEncoder(D, layers=1, heads=1, chunk_size=4)),
    "DNA masked model": lambda: DNALanguageModel(DNAEncoder(D, layers=1, heads=1, chunk_size=4, bidirectional=True)),
    "DNA classifier": lambda: DNAClassifier(DNAEncoder(D, layers=1, heads=1, chunk_size=4), ("a", "b")),
}


def _embedding(model: nn.Module) -> nn.Embedding:
    return next(module for module in model.modules() if isinstance(module, nn.Embedding))


@poisoned
@pytest.mark.parametrize("name", _TOKENS)
def test_a_token_of_another_row(name: str, poison: float) -> None:
    model = _made(_TOKENS[name])
    last = _embedding(model).num_embeddings - 1
    tokens = torch.randint(1, 3, (3, T), generator=torch.Generator().manual_seed(2))
    tokens[1] = last
    before = _outputs(model, tokens)
    with torch.no_grad():
        _embedding(model).weight[last] = poison
    if name.startswith("language"):  # the embedding is the output's weights too: the logit of the token itself
        before, after = before[..., :last], _outputs(model, tokens)[..., :last]
    else:
        after = _outputs(model, tokens)
    assert torch.equal(after[[0, 2]], before[[0, 2]])


# forecasters ----------------------------------------------------------------------------------------------------------


@poisoned
@pytest.mark.parametrize("mixer", [*MIXERS, "none"])
def test_another_series(mixer: str, poison: float) -> None:
    model = _made(lambda: SimbaForecaster(24, 4, mixer=mixer, dim=D))
    x = torch.randn(3, 24, generator=torch.Generator().manual_seed(3))
    before = _outputs(model, x)
    x[1] = poison
    assert torch.equal(_outputs(model, x)[[0, 2]], before[[0, 2]])


def _panel(rows: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(4)
    parts = [
        pd.DataFrame(
            {
                "unique_id": name,
                "ds": pd.date_range("2024", periods=rows, freq="h"),
                "y": np.sin(np.arange(rows) / 4) + random.standard_normal(rows) / 9,
            }
        )
        for name in ("a", "b", "c")
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def fitted() -> TitansForecaster:
    model = TitansForecaster(
        horizon=4,
        lookback=16,
        network={"dim": D},
        max_epochs=1,
        steps_per_epoch=2,
        batch_size=8,
        val_size=12,
        accelerator="cpu",
    )
    return model.fit(_panel())


@pytest.mark.parametrize("poison", [1e15, -1e15, float("nan")], ids=str)
@pytest.mark.parametrize("rows", [slice(None, -1), slice(-30, -20), slice(0, 5)], ids=["all", "some", "oldest"])
def test_another_series_of_the_panel(rows: slice, poison: float, fitted: TitansForecaster) -> None:
    data = _panel()
    before = fitted.predict(data)
    data.loc[data.index[data["unique_id"] == "b"][rows], "y"] = poison
    after = fitted.predict(data)
    kept = before["unique_id"] != "b"
    pd.testing.assert_frame_equal(after[kept], before[kept])


@pytest.mark.parametrize("poison", [1e15, -1e15, float("nan")], ids=str)
def test_scales_of_the_other_series(poison: float) -> None:
    data, columns = _panel(), Columns("unique_id", "ds", "y")
    before = PanelScaling.fit(read_panel(data, columns), calendar=False).scales
    data.loc[data.index[data["unique_id"] == "b"][:-1], "y"] = poison
    after = PanelScaling.fit(read_panel(data, columns), calendar=False).scales
    pd.testing.assert_frame_equal(after.loc[["a", "c"]], before.loc[["a", "c"]])


# data modules ---------------------------------------------------------------------------------------------------------


def _data(folder: Path, poison: float | None, part: str) -> ForecastDataModule:
    rows = 120
    values = np.sin(np.arange(rows)[:, None] / [4, 9])
    borders = {"val": slice(84, 96), "test": slice(96, None)}
    if poison is not None:
        values[borders[part]] = poison
    path = folder / "x.csv"
    dates = pd.date_range("2024", periods=rows, freq="h")
    pd.DataFrame({"date": dates, "a": values[:, 0], "b": values[:, 1]}).to_csv(path, index=False)
    data = ForecastDataModule(csv=str(path), lookback=8, horizon=2, batch_size=4)
    data.setup("fit")
    return data


@pytest.mark.parametrize("poison", [1e30, -1e30, float("nan")], ids=str)
@pytest.mark.parametrize("part", ["val", "test"])
def test_the_training_part_of_a_series(part: str, poison: float, tmp_path: Path) -> None:
    clean, spoilt = _data(tmp_path, None, part), _data(tmp_path, poison, part)
    pd.testing.assert_frame_equal(clean.scaling.scales, spoilt.scaling.scales)
    for one, two in zip(clean.train_dataloader(), spoilt.train_dataloader(), strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)


# genomes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poison", ["N", "A", "C\n>x\nG"], ids=["unknown", "constant", "another"])
@pytest.mark.parametrize("what", ["tokens", "stream"])
def test_another_record_of_a_genome(what: str, poison: str, tmp_path: Path) -> None:
    found = []
    model = _made(_TOKENS["DNA language model"])
    for name, other in (("clean", letters(300, 6)), ("spoilt", (poison * 300)[:300] if len(poison) == 1 else poison)):
        path = tmp_path / f"{name}.fa"
        path.write_text(f">one\n{letters(200, 5)}\n>two\n{other}\n")
        genome = Genome(path)
        if what == "tokens":
            found.append([genome.tokens("one")])
            continue
        parts = [list(read_stream(model, iter([genome.tokens(name)]), piece=64)) for name in genome.names]  # type: ignore[arg-type]
        found.append([np.concatenate([part.surprise for part in parts[0]])])
    assert all(np.array_equal(one, two, equal_nan=True) for one, two in zip(*found, strict=True))
