"""Weights shared out over two processes: gradients, their norm and clipping are those of the whole network."""

from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from shared_weights import CLIP, NAMES, clipped, made, share

from titans_seq.blocks import Block
from titans_seq.forecast import network

BLOCKS = (Block, network.SimbaBlock)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("shared")
    mp.spawn(share, (folder,), nprocs=2)
    return torch.load(folder / "found", weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_shares_are_of_one_network(name: str, shared: dict[str, Any]) -> None:
    network, batch = made(name)
    weights = {key: 2 * value for key, value in network.state_dict().items()}
    norm, found = clipped(network, batch), shared[name]
    assert norm > 10 * CLIP
    torch.testing.assert_close(found["norm"], norm, rtol=1e-4, atol=0)
    gradients = {key: weight.grad for key, weight in network.named_parameters()}
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())
    torch.testing.assert_close(found["gradients"], gradients, rtol=1e-3, atol=1e-5 * CLIP)
    assert found["units"] == ["", *(key for key, module in network.named_modules() if isinstance(module, BLOCKS))]
    parameters = sum(weight.numel() for weight in network.parameters())
    assert parameters / 2 <= found["held"] < 0.7 * parameters
    torch.testing.assert_close(found["weights"], weights, rtol=0, atol=0)
