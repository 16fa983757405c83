"""Surprise along a series, and the spans that stand out."""

import numpy as np
import pytest
import torch

from titans_seq.forecast import SimbaForecaster
from titans_seq.forecast.anomalies import Span, spans, surprise_of_values

L = 16


@pytest.fixture
def network() -> SimbaForecaster:
    torch.manual_seed(0)
    return SimbaForecaster(L, 4, dim=8, blocks=2, patch_size=8, patch_stride=4).eval()


def test_one_block_is_the_surprise_of_a_window(network):
    values = torch.randn(L, 3)
    wanted = network.surprise(values[None])[0]
    np.testing.assert_allclose(surprise_of_values(network, values), wanted.detach(), rtol=1e-5)


def test_blocks_are_read_in_turn_and_the_future_changes_nothing_before_its_block(network):
    values = torch.randn(4 * L + 5, 2)
    found = surprise_of_values(network, values)
    assert found.shape == values.shape
    _, states = network.read(values[None, :L])
    second, states = network.read(values[None, L : 2 * L], states)
    np.testing.assert_allclose(found[L : 2 * L], second[0].detach(), rtol=1e-4)
    fresh = network.surprise(values[None, L : 2 * L])[0].detach().numpy()
    assert not np.allclose(found[L : 2 * L], fresh, rtol=1e-2)  # the first block was not forgotten
    later = values.clone()
    later[2 * L :] += 3
    np.testing.assert_array_equal(surprise_of_values(network, later)[: 2 * L], found[: 2 * L])
    # the rest is read in the block of the last L rows, from the state before the last full block
    _, before = network.read(values[None, 2 * L : 3 * L], states)
    rest, _ = network.read(values[None, -L:], before)
    np.testing.assert_allclose(found[-5:], rest[0, -5:].detach(), rtol=1e-4)


def test_channels_are_series_of_their_own(network):
    values = torch.randn(3 * L, 2)
    found = surprise_of_values(network, values)
    np.testing.assert_allclose(found[:, 1:], surprise_of_values(network, values[:, 1:]), rtol=1e-4)


def test_too_short_a_series_and_no_memory_are_named(network):
    with pytest.raises(ValueError, match="values must have at least 16 rows; got 9"):
        surprise_of_values(network, torch.randn(9, 1))
    with pytest.raises(ValueError, match='surprise needs a forecaster with mixer="memory"'):
        surprise_of_values(SimbaForecaster(L, 4, dim=8, patch_size=8, patch_stride=4, mixer="none"), torch.randn(L, 1))


def test_spans_join_what_is_close_and_come_by_their_peaks():
    surprise = np.zeros((100, 2))
    surprise[10:13, 0], surprise[15, 0], surprise[99, 0], surprise[40:43, 1] = 5, 9, 6, 7
    found = spans(surprise, share=0.05, join=3)
    assert found == [Span(0, 10, 16, 9.0), Span(1, 40, 43, 7.0), Span(0, 99, 100, 6.0)]
    assert [(s.begin, s.end) for s in spans(surprise, share=0.05, join=2) if s.channel == 0] == [
        (15, 16),
        (99, 100),
        (10, 13),
    ]
    with pytest.raises(ValueError, match="share must lie between 0 and 1; got 1"):
        spans(surprise, share=1)
