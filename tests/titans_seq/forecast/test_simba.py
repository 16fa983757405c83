"""The forecaster: what every mixer must satisfy in the same frame."""

import pytest
import torch
from torch import nn

from titans_seq.forecast import MIXERS, EinFFT, SimbaForecaster
from titans_seq.forecast.mixers import SelectiveSSM

LOOKBACK, HORIZON, CHANNELS = 40, 12, 3


def small(mixer: str, **options) -> SimbaForecaster:
    torch.manual_seed(0)
    return SimbaForecaster(LOOKBACK, HORIZON, mixer=mixer, dim=8, blocks=2, **options)


@pytest.fixture
def past() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(4, LOOKBACK, CHANNELS)


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_parameter_is_trained(mixer, past):
    network = small(mixer)
    loss = (network(past) * torch.randn(4, HORIZON, CHANNELS)).sum()
    loss.backward()
    untrained = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert untrained == []


@pytest.mark.parametrize("mixer", MIXERS)
def test_grad_modes_agree(mixer, past):
    network = small(mixer).eval()
    expected = network(past)
    with torch.no_grad():
        torch.testing.assert_close(network(past), expected)
    with torch.inference_mode():
        torch.testing.assert_close(network(past), expected)


@pytest.mark.parametrize("mixer", MIXERS)
def test_windows_and_channels_do_not_see_each_other(mixer, past):
    network = small(mixer).eval()
    expected = network(past)
    changed = past.clone()
    changed[1] += torch.randn(LOOKBACK, CHANNELS)
    changed[2, :, 0] *= -3
    forecast = network(changed)
    torch.testing.assert_close(forecast[[0, 3]], expected[[0, 3]])
    torch.testing.assert_close(forecast[2, :, 1:], expected[2, :, 1:])
    assert (forecast[2, :, 0] - expected[2, :, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("mixer", MIXERS)
def test_forecast_moves_and_stretches_with_its_window(mixer, past):
    """RevIN: a shifted and scaled window has a shifted and scaled forecast (up to the 1e-5 in its variance)."""
    network = small(mixer).eval()
    torch.testing.assert_close(network(50 * past - 7), 50 * network(past) - 7, rtol=1e-3, atol=1e-3)


def test_constant_window_is_forecast_finite():
    forecast = small("memory").eval()(torch.full((1, LOOKBACK, 1), 3.0))
    assert torch.isfinite(forecast).all()


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


def test_ssm_is_its_recurrence():
    """One channel and state at a time, in Python floats."""
    torch.manual_seed(0)
    layer = SelectiveSSM(4, states=3).double()
    x = torch.randn(1, 5, 4, dtype=torch.float64)
    inner, gate = layer.inp(x).chunk(2, dim=-1)
    padded = torch.cat([torch.zeros(1, 3, 8, dtype=torch.float64), inner], dim=1)
    conv = torch.stack([(padded[0, t : t + 4].T * layer.conv.weight[:, 0]).sum(-1) for t in range(5)]) + layer.conv.bias
    u = nn.functional.silu(conv)
    rank, b, c = layer.select(u).split([layer.rank, 3, 3], dim=-1)
    delta = nn.functional.softplus(layer.delta(rank))
    y = torch.empty(5, 8, dtype=torch.float64)
    for e in range(8):
        for t in range(5):
            y[t, e] = layer.skip[e] * u[t, e]
            for s in range(3):  # unrolled: what token i wrote, decayed by every step since
                for i in range(t + 1):
                    decay = torch.exp(-layer.log_a[e, s].exp() * delta[i + 1 : t + 1, e].sum())
                    y[t, e] += c[t, s] * decay * delta[i, e] * b[i, s] * u[i, e]
    expected = layer.out(y * nn.functional.silu(gate[0]))
    torch.testing.assert_close(layer(x)[0], expected)


@pytest.mark.parametrize("mixer", ["memory", "ssm"])
def test_recurrent_mixers_are_causal(mixer):
    torch.manual_seed(0)
    layer = MIXERS[mixer](8)
    x = torch.randn(1, 9, 8)
    changed = x.clone()
    changed[:, 5] += 1
    moved = (layer(changed) - layer(x)).abs().amax(-1)[0]
    assert (moved[:5] == 0).all() and (moved[5:] > 0).all()


def test_mixer_can_be_any_callable(past):
    network = SimbaForecaster(LOOKBACK, HORIZON, mixer=lambda dim: nn.Linear(dim, dim), dim=8)
    assert isinstance(network.blocks[0].mixer, nn.Linear)
    assert network(past).shape == (4, HORIZON, CHANNELS)


def test_surprise_of_a_patch_covers_its_steps(past):
    """Each channel has its own; where patches overlap, their mean counts."""
    network = small("memory").eval()
    changed = past.clone()
    changed[..., 1] += torch.randn(LOOKBACK)
    before, after = network.surprise(past), network.surprise(changed)
    assert before.shape == past.shape and (before > 0).all()
    torch.testing.assert_close(after[..., [0, 2]], before[..., [0, 2]])
    assert ((after - before)[..., 1].abs() > 1e-6).all()
    patches = torch.arange(5.0).expand(1, 16, 5)  # five patches of 16 steps, 8 apart, valued 0 to 4
    steps = network._overlap_mean(patches)[0]
    torch.testing.assert_close(steps, torch.tensor([0.0, 0.5, 1.5, 2.5, 3.5]).repeat_interleave(8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lookback": 10}, "lookback must be at least patch_size; got lookback 10 and patch_size 16"),
        ({"horizon": 0}, "horizon must be >= 1; got 0"),
        ({"mixer": "mamba"}, "mixer must be one of memory, attention, ssm, none"),
        ({"mixer": "none", "depth": 2}, 'mixer="none" takes no options; got depth'),
        ({"dim": 18, "mixer": "none"}, "dim must be a multiple of the EinFFT blocks; got dim 18"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimbaForecaster(**arguments)


def test_wrong_window_is_named(past):
    with pytest.raises(ValueError, match=r"past_target must be \[B, 40, C\]; got \(4, 39, 3\)"):
        small("none")(past[:, 1:])
    with pytest.raises(ValueError, match='surprise needs a forecaster with mixer="memory"'):
        small("attention").surprise(past)
