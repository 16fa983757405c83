"""Weights against the model that they are loaded into, before it takes memory."""

import pytest
import torch
from torch import nn

from titans_seq.building import LARGEST, UnfitWeightsError, build_with_weights, first_difference


class Model(nn.Module):
    def __init__(self, dim: int, depth: int = 1) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(dim, 2, bias=False) for _ in range(depth))


def test_the_model_has_the_weights():
    weights = Model(3, 2).state_dict()
    built = build_with_weights(Model, {"dim": 3, "depth": 2}, weights)
    assert all(torch.equal(value, weights[name]) for name, value in built.state_dict().items())


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"dim": 999_999}, r"maps\.0\.weight: 2 x 999999, 2 x 3 in the checkpoint"),
        ({"dim": 3, "depth": 1}, r"maps\.1\.weight: absent, 2 x 3 in the checkpoint"),
    ],
)
def test_other_weights_are_refused(options, difference):
    with pytest.raises(UnfitWeightsError, match=difference):
        build_with_weights(Model, options, Model(3, 2).state_dict())


@pytest.mark.parametrize("options", [{"dim": LARGEST + 1}, {"dim": 3, "depth": 3}])
def test_sizes_beyond_the_weights_are_refused_before_anything_is_built(options):
    with pytest.raises(ValueError, match="must be at most"):
        build_with_weights(lambda **_: pytest.fail("built"), options, Model(3, 2).state_dict())


def test_what_is_no_tensor_differs():
    assert first_difference(Model(3), {"maps.0.weight": "text"}) == "maps.0.weight: 2 x 3, one number in the checkpoint"
