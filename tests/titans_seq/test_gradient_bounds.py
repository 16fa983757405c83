"""Bounded gradients (DESIGN section 3): on 8,192 slowly varying tokens those of the memory's parameters are below 10 at
initialisation, in the layer and in everything that is built with it.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titans_seq import NeuralMemory
from titans_seq.blocks import Block
from titans_seq.datamodules.genomics.alphabet import FIRST_BASE, KNOWN
from titans_seq.forecast import SimbaForecaster
from titans_seq.genomics import DNAClassifier, DNAEncoder, DNALanguageModel
from titans_seq.genomics.model import base_loss
from titans_seq.language import LanguageModel
from titans_seq.mixers import WITH_MEMORY

T = 8192
BOUND = 10
WINDOW = {"mag": {"window": 64}, "mal": {"window": 64}}


def walk(steps: int, dim: int) -> Tensor:
    """A random walk with noise [1, steps, dim]: neighbouring tokens, and so their keys, are nearly the same."""
    g = torch.Generator().manual_seed(1)
    slow = torch.randn(1, steps, dim, generator=g).cumsum(dim=1) / steps**0.5
    return slow + 0.1 * torch.randn(1, steps, dim, generator=g)


def runs(first: int, count: int) -> Tensor:
    """Tokens [1, T] from `first` on, each repeated 16 times in the mean."""
    g = torch.Generator().manual_seed(1)
    begin = torch.where(torch.rand(1, T, generator=g) < 1 / 16, torch.arange(T), 0).cummax(dim=1).values
    return torch.randint(first, first + count, (1, T), generator=g).gather(1, begin)


def gradient(make: Callable[[], nn.Module], loss: Callable[[nn.Module], Tensor]) -> float:
    """Of the parameters of all memories in a new model."""
    torch.manual_seed(0)
    model = make()
    loss(model).backward()
    memories = [layer for layer in model.modules() if isinstance(layer, NeuralMemory)]
    return float(torch.cat([p.grad.flatten() for layer in memories for p in layer.parameters()]).norm())


def of_layer(**options) -> float:
    return gradient(lambda: NeuralMemory(64, **options), lambda layer: layer(walk(T, 64)).square().mean())


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("chunk_size", [4, 16, 64])
def test_of_the_layer(chunk_size, depth):
    assert of_layer(chunk_size=chunk_size, depth=depth) < BOUND


def test_large_first_steps_overshoot():
    """Outputs are bounded, gradients are not: what the default start is for."""
    assert of_layer(theta_start=4.0) > 1e6


@pytest.mark.parametrize("mixer", WITH_MEMORY)
def test_of_every_block(mixer):
    options = WINDOW.get(mixer, {})
    assert gradient(lambda: Block(64, mixer=mixer, **options), lambda m: m(walk(T, 64))[0].square().mean()) < BOUND


@pytest.mark.parametrize("mixer", WITH_MEMORY)
def test_of_every_language_model(mixer):
    tokens, options = runs(0, 64), {"chunk_size": 16} | WINDOW.get(mixer, {})

    def loss(model):
        return F.cross_entropy(model(tokens)[0][0, :-1], tokens[0, 1:])

    assert gradient(lambda: LanguageModel(64, 32, layers=2, mixer=mixer, **options), loss) < BOUND


def forecast(found):
    raw, loc, scale = found
    return raw[..., 0] * scale + loc


def test_of_the_forecaster():
    """8,192 patches, at its own chunk of 4 and at the layer's."""
    series = walk(8 * T, 1)
    for chunk_size in (4, 64):
        found = gradient(
            lambda size=chunk_size: SimbaForecaster(8 * T, 8, chunk_size=size, dropout=0.0, head_dropout=0.0),
            lambda model: forecast(model(series[..., 0])).square().mean(),
        )
        assert found < BOUND


@pytest.mark.parametrize("mixer", WITH_MEMORY)
def test_of_every_dna_model(mixer):
    tokens = runs(FIRST_BASE, KNOWN)
    options = {"layers": 1, "mixer": mixer, "heads": 2, "depth": 1, "chunk_size": 32} | WINDOW.get(mixer, {})

    def bases(model):
        total, count = base_loss(model(tokens)[0], tokens)
        return total / count

    def classes(model):
        return F.cross_entropy(model(tokens), torch.tensor([0]))

    assert gradient(lambda: DNALanguageModel(DNAEncoder(64, **options)), bases) < BOUND
    encoder = {"bidirectional": True} | options
    assert gradient(lambda: DNAClassifier(DNAEncoder(64, **encoder), ("a", "b")), classes) < BOUND
