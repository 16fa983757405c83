"""The forecaster's network: mixers, gaps, covariates, grad modes, training of every parameter."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from titans_seq.forecast import EinFFT, ForecastModule, SimbaForecaster
from titans_seq.forecast.network import masked_scaling
from titans_seq.mixers import MIXERS

L, H, F, G, E, P = 32, 6, 2, 3, 2, 4
every_mixer = pytest.mark.parametrize("mixer", [*MIXERS, "none"])

NO_COVARIATES = {"past_features": 0, "future_features": 0, "static_features": 0}


def network(seed=0, lookback=L, **options) -> SimbaForecaster:
    torch.manual_seed(seed)
    sizes = {"outputs": P, "past_features": F + G, "future_features": F, "static_features": E}
    return SimbaForecaster(lookback, H, **(sizes | {"dim": 16, "blocks": 2} | options)).eval()


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


def test_a_gapless_window_is_a_window_whose_mask_is_full():
    model, given = network(), inputs()
    full = given | {"past_observed_values": torch.ones(5, L)}
    without = {name: value for name, value in given.items() if name != "past_observed_values"}
    for one, other in zip(model(**full), model(**without), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def plain_frame(model: SimbaForecaster, table: torch.Tensor) -> torch.Tensor:
    """The benchmark's frame on tables [B, L, C], written out once more: RevIN, patches, blocks, a flat head."""
    x = table.double().transpose(1, 2).flatten(0, 1)
    mean, std = x.mean(dim=1, keepdim=True), torch.sqrt(x.var(dim=1, keepdim=True, unbiased=False) + 1e-5)
    x = torch.cat([(x - mean) / std, ((x - mean) / std)[:, -1:].expand(-1, 8)], dim=1)
    patches = torch.stack([x[:, i : i + 16] for i in range(0, x.shape[1] - 15, 8)], dim=1)
    tokens = model.embed(patches) + model.position
    for block in model.blocks:
        if block.mixer is not None:
            tokens = tokens + block.mixer(block.mixer_norm(tokens))
        tokens = tokens + block.channels(block.channel_norm(tokens))
    out = functional.linear(model.norm(tokens).flatten(1), model.head.weight, model.head.bias) * std + mean
    return out.unflatten(0, (len(table), -1)).transpose(1, 2)


@every_mixer
def test_series_alone_are_the_columns_of_the_benchmarks_frame(mixer):
    """One sample per window and column gives what the frame of the published rows gives for whole tables.

    Deviations of 1 and more: the two frames add different numbers to the variance, of which smaller ones are told.
    """
    torch.manual_seed(0)
    model = SimbaForecaster(L, H, mixer=mixer, dim=16, blocks=2, min_scale=0.0).eval().double()
    sizes, means = torch.tensor([[1.0, 20.0, 3.0], [0.0, 100.0, -2.0]])
    table = torch.randn(4, L, 3, dtype=torch.float64) * sizes + means
    raw, loc, scale = model(table.transpose(1, 2).flatten(0, 1))
    found = (raw[..., 0] * scale + loc).unflatten(0, (4, 3)).transpose(1, 2)
    torch.testing.assert_close(found, plain_frame(model, table), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 5.0, -1e6, 1e-6])
def test_constant_series_and_empty_ones_stay_finite(value):
    x = torch.full((2, L), value)
    observed = torch.tensor([[1.0], [0.0]]).expand(2, L)
    scaled, loc, scale = masked_scaling(x, observed)
    assert scaled.abs().max() <= 1
    assert loc.tolist() == [[pytest.approx(value)], [0.0]] and float(scale[1]) == 1 and scale.min() > 0


@every_mixer
@pytest.mark.parametrize("poison", [1e6, torch.nan], ids=str)
def test_what_was_not_observed_has_no_influence(mixer, poison):
    model, given = network(mixer=mixer), inputs()
    plain = model(**given)
    given["past_target"] = torch.where(given["past_observed_values"] > 0, given["past_target"], poison)
    for one, other in zip(plain, model(**given), strict=True):
        assert torch.equal(one, other)


@every_mixer
def test_no_neighbour(mixer):
    model, given = network(mixer=mixer), inputs()
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


@every_mixer
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_all_grad_modes_agree(mode, mixer):
    model, given = network(mixer=mixer), inputs()
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


@every_mixer
def test_every_parameter_is_trained(mixer):
    module = ForecastModule(network(outputs=13, mixer=mixer), output="quantiles").train()
    batch = inputs() | {"future_target": torch.randn(5, H), "future_observed_values": torch.ones(5, H)}
    losses, observed, _ = module._losses(batch)
    (losses * observed).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name


def test_missing_targets_do_not_count():
    module = ForecastModule(network(outputs=13), output="quantiles").eval()
    batch = inputs() | {"future_target": torch.randn(5, H), "future_observed_values": torch.ones(5, H)}
    whole, *_ = module._losses(batch)
    batch["future_observed_values"][:, 2] = 0
    batch["future_target"][:, 2] = torch.nan
    losses, observed, _ = module._losses(batch)
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
        ForecastModule(network(), output="quantiles")
    with pytest.raises(ValueError, match="surprise need a mixer with a memory: memory, mac, mag, mal"):
        network(mixer="attention").carry(**given)


@every_mixer
def test_forecast_moves_and_stretches_with_its_window(mixer):
    """A shifted and scaled window has a shifted and scaled forecast."""
    model, past = network(mixer=mixer, **NO_COVARIATES), inputs()["past_target"]
    raw, loc, scale = model(past)
    for one, other in zip(model(50 * past - 7), (raw, 50 * loc - 7, 50 * scale), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_einfft_is_the_fourier_formula():
    """Against discrete Fourier sums written out, and: it looks at the whole sequence."""
    torch.manual_seed(0)
    layer, tokens = EinFFT(8, blocks=2).double(), 6
    with torch.no_grad():
        layer.weight.normal_()
    x = torch.randn(1, tokens, 8, dtype=torch.float64)
    t = torch.arange(tokens, dtype=torch.float64)
    waves = torch.exp(-2j * torch.pi * t[:, None] * t / tokens) / tokens**0.5
    spectrum = waves @ x[0].to(torch.complex128)
    mixed = torch.empty_like(spectrum)
    for block, columns in enumerate((slice(0, 4), slice(4, 8))):
        first = torch.complex(*layer.weight[0, block].unbind(-1)), torch.complex(*layer.bias[0, block, 0].unbind(-1))
        second = torch.complex(*layer.weight[1, block].unbind(-1)), torch.complex(*layer.bias[1, block, 0].unbind(-1))
        z = spectrum[: tokens // 2 + 1, columns] @ first[0] + first[1]
        z = torch.complex(z.real.clamp(min=0), z.imag.clamp(min=0)) @ second[0] + second[1]
        shrunk = torch.complex(
            z.real.sign() * (z.real.abs() - 0.01).clamp(min=0), z.imag.sign() * (z.imag.abs() - 0.01).clamp(min=0)
        )
        for f in range(tokens):  # the spectrum of a real series: F[-f] = conj F[f], its ends real
            half = shrunk[f] if f <= tokens // 2 else shrunk[tokens - f].conj()
            mixed[f, columns] = half.real.to(half.dtype) if f in (0, tokens // 2) else half
    expected = (waves.conj() @ mixed).real
    torch.testing.assert_close(layer(x)[0], expected)

    x.requires_grad_()
    layer(x)[0, 0].sum().backward()
    assert (x.grad[0].abs().sum(-1) > 0).all(), "the first output depends on the last input: not causal"


def test_mixer_can_be_any_callable():
    model = network(mixer=lambda dim: nn.Linear(dim, dim))
    assert isinstance(model.blocks[0].mixer, nn.Linear)
    assert model(**inputs())[0].shape == (5, H, P)


def test_surprise_of_a_patch_covers_its_steps():
    """Each series has its own; where patches overlap, their mean counts."""
    model, past = network(**NO_COVARIATES), inputs()["past_target"]
    changed = past.clone()
    changed[1] += torch.randn(L)
    (_, _, before), (_, _, after) = (model.carry(past_target=each) for each in (past, changed))
    assert before.shape == past.shape and (before > 0).all()
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    assert ((after - before)[1].abs() > 1e-6).all()
    patches = torch.arange(5.0).expand(1, 16, 5)  # five patches of 16 steps, 8 apart, valued 0 to 4
    steps = network(lookback=40, **NO_COVARIATES)._overlap_mean(patches)[0]
    torch.testing.assert_close(steps, torch.tensor([0.0, 0.5, 1.5, 2.5, 3.5]).repeat_interleave(8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lookback": 10, "patch_size": 16}, "lookback must be at least patch_size; got lookback 10 and patch_size 16"),
        ({"horizon": 0}, "horizon and outputs must be >= 1; got 0 and 1"),
        ({"mixer": "mamba"}, "mixer must be one of memory, mac, .*, none or a callable; got 'mamba'"),
        ({"mixer": "none", "depth": 2}, 'mixer="none" takes no options; got depth'),
        ({"dim": 18, "mixer": "none"}, "dim must be a multiple of the EinFFT blocks; got dim 18"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimbaForecaster(**arguments)


@pytest.mark.parametrize(
    "lookback, size, stride", [(1, 1, 1), (3, 1, 1), (10, 5, 2), (15, 7, 3), (16, 16, 8), (96, 16, 8)]
)
def test_patches_fit_into_short_lookbacks(lookback: int, size: int, stride: int) -> None:
    network = SimbaForecaster(lookback, 4, dim=8)
    assert (network.patch_size, network.patch_stride) == (size, stride)
    assert network(torch.randn(2, lookback))[0].shape == (2, 4, 1)
    assert SimbaForecaster(96, 4, dim=8, patch_size=12).patch_stride == 6
