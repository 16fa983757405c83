"""The convolution around the memory, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from accuracy import assert_equal_to

from titans_seq import convolution
from titans_seq.convolution import silu_conv


def by_conv1d(z, taps):
    """A grouped convolution is a correlation, as ours."""
    return F.silu(F.conv1d(z.mT, taps.T[:, None], groups=z.shape[-1])).mT


def random_inputs(taps, T, B=2, W=3):
    g = torch.Generator().manual_seed(0)
    shapes = ((B, taps - 1 + T, W), (taps, W))
    return [torch.randn(shape, dtype=torch.float64, generator=g).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("block", [1, 6, 20, 1 << 17])
@pytest.mark.parametrize(("taps", "T"), [(1, 5), (2, 1), (4, 3), (4, 17)])
def test_values_and_gradients(taps, T, block, monkeypatch):
    """Whole, and in blocks of 1 to 3 tokens, also with fewer tokens than taps."""
    monkeypatch.setattr(convolution, "BLOCK", block)
    inputs = random_inputs(taps, T)
    results = []
    for function in (silu_conv, by_conv1d):
        y = function(*inputs)
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
        results.append([y, *torch.autograd.grad((y * weights).sum(), inputs)])
    for name, a, b in zip(("y", "gradient of z", "gradient of taps"), *results, strict=True):
        assert_equal_to(a, b, name=name, tolerance=1e-12)


def test_no_tokens():
    z, taps = random_inputs(4, 0)
    y = silu_conv(z, taps)
    assert y.shape == (2, 0, 3)
    assert torch.equal(torch.autograd.grad(y.sum(), taps)[0], torch.zeros_like(taps))
