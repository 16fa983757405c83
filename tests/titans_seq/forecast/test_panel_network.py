"""The forecaster of panels: gaps, covariates, grad modes, training of every parameter."""

import numpy as np
import pytest
import torch

from titans_seq.forecast.panel import PanelForecaster, PanelModule, masked_scaling

L, H, F, G, E, P = 32, 6, 2, 3, 2, 4
NETWORKS = {"memory": {}, "attention": {"mixer": "attention"}, "none": {"mixer": "none"}}


def network(seed=0, **options) -> PanelForecaster:
    torch.manual_seed(seed)
    sizes = {"outputs": P, "past_features": F + G, "future_features": F, "static_features": E}
    return PanelForecaster(L, H, **(sizes | {"dim": 16, "blocks": 2} | options)).eval()


def inputs(batch=5, seed=1) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    observed = (torch.rand(batch, L, generator=g) < 0.8).float()
    observed[0, :20] = 0  # two whole patches unobserved, as in a short series
    return {
        "past_target": torch.randn(batch, L, generator=g),
        "past_observed_values": observed,
        "past_features": torch.randn(batch, L, F + G, generator=g),
        "future_features": torch.randn(batch, H, F, generator=g),
        "static_features": torch.randn(batch, E, generator=g),
    }


def test_scaling_is_that_of_observed_steps():
    x, observed = torch.randn(4, 50, dtype=torch.float64), (torch.rand(4, 50) < 0.5).double()
    scaled, loc, scale = masked_scaling(7 + 3 * x, observed)
    for i in range(4):
        seen = (7 + 3 * x[i])[observed[i] > 0].numpy()
        assert float(loc[i]) == pytest.approx(seen.mean())
        assert float(scale[i]) == pytest.approx(seen.std(), rel=1e-6)
        np.testing.assert_allclose(scaled[i][observed[i] > 0], (seen - seen.mean()) / float(scale[i]))
    assert (scaled[observed == 0] == 0).all()


@pytest.mark.parametrize("value", [0.0, 5.0, -1e6, 1e-6])
def test_constant_series_and_empty_ones_stay_finite(value):
    x = torch.full((2, L), value)
    observed = torch.tensor([[1.0], [0.0]]).expand(2, L)
    scaled, loc, scale = masked_scaling(x, observed)
    assert scaled.abs().max() <= 1
    assert loc.tolist() == [[pytest.approx(value)], [0.0]] and float(scale[1]) == 1 and scale.min() > 0


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("poison", [1e6, torch.nan], ids=str)
def test_what_was_not_observed_has_no_influence(options, poison):
    model, given = network(**options), inputs()
    plain = model(**given)
    given["past_target"] = torch.where(given["past_observed_values"] > 0, given["past_target"], poison)
    for one, other in zip(plain, model(**given), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_no_neighbour(options):
    model, given = network(**options), inputs()
    raw, loc, scale = model(**given)
    for i in range(5):
        alone = model(**{name: value[i : i + 1] for name, value in given.items()})
        for one, whole in zip(alone, (raw, loc, scale), strict=True):
            torch.testing.assert_close(one[0], whole[i], rtol=1e-4, atol=1e-5)


def test_empty_patches_write_nothing():
    """A patch without any observed step leaves the memory as it is: what it holds beside the mask cannot matter
    there.
    """
    model = network(blocks=1)
    seen = []
    model.blocks[0].mixer.register_forward_hook(
        lambda m, args, kwargs, out: seen.append((kwargs["mask"], out)), with_kwargs=True
    )
    given = inputs()
    model(**given)
    mask, out = seen[0]
    # patches of 16 every 8 over 20 unobserved steps: the first one only is empty
    assert mask[0].tolist() == [False] + [True] * (mask.shape[1] - 1) and mask[1:].all()
    assert (out[0, 0] == 0).all() and (out[0, 1:] != 0).any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_all_grad_modes_agree(mode):
    model, given = network(), inputs()
    plain = model(**given)
    with mode():
        for one, other in zip(plain, model(**given), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_covariates_reach_what_they_may():
    """Known ones of step h change the forecast of step h alone; past and static ones change all; each input counts."""
    model, given = network(), inputs()
    plain = model(**given)[0]
    later = given | {"future_features": given["future_features"].clone()}
    later["future_features"][:, 3] += 1
    moved = (model(**later)[0] != plain).any(dim=-1).any(dim=0)
    assert moved.tolist() == [False, False, False, True, False, False]
    for name in ("past_features", "static_features", "past_target", "past_observed_values"):
        other = 1 - given[name] if name == "past_observed_values" else given[name] + 1
        if name == "past_target":
            other = given[name] * torch.linspace(0.5, 1.5, L)
        assert (model(**(given | {name: other}))[0] != plain).any(dim=-1).all()


def test_every_parameter_is_trained():
    module = PanelModule(network(outputs=13), output="quantiles").train()
    batch = inputs() | {"future_target": torch.randn(5, H), "future_observed_values": torch.ones(5, H)}
    losses, observed = module._losses(batch)
    (losses * observed).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


def test_missing_targets_do_not_count():
    module = PanelModule(network(outputs=13), output="quantiles").eval()
    batch = inputs() | {"future_target": torch.randn(5, H), "future_observed_values": torch.ones(5, H)}
    whole, _ = module._losses(batch)
    batch["future_observed_values"][:, 2] = 0
    batch["future_target"][:, 2] = torch.nan
    losses, observed = module._losses(batch)
    assert torch.isfinite(losses).all() and (observed[:, 2] == 0).all()
    kept = [0, 1, 3, 4, 5]
    torch.testing.assert_close(losses[:, kept], whole[:, kept])


def test_wrong_inputs_are_named():
    given = inputs()
    with pytest.raises(ValueError, match=r"past_target must be \[5, 32\]; got \[5, 30\]"):
        network()(**(given | {"past_target": given["past_target"][:, :30]}))
    with pytest.raises(ValueError, match=r"future_features must be \[5, 6, 2\]; got None"):
        network()(**(given | {"future_features": None}))
    with pytest.raises(ValueError, match="output needs 13 raw numbers per step; the network has 4"):
        PanelModule(network(), output="quantiles")
