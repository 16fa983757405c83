"""Which samples of many windows intervals are calibrated on."""

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules.forecast.panel import Columns, from_columns
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.windows import Anchors, Windows
from titans_seq.forecast.inference import thinned

H, LOOKBACK = 4, 8


def windows(count: int, series: int) -> Windows:
    """Windows that each show all series of a table."""
    times = pd.date_range("2024", periods=count + LOOKBACK + H, freq="h")
    values = np.random.default_rng(0).standard_normal((series, len(times)))
    panel = from_columns(times, values, list(range(series)), Columns(), pd.offsets.Hour())
    first = LOOKBACK + np.arange(count)
    anchors = Anchors(np.broadcast_to(np.arange(series), (count, series)), first)
    return Windows(panel, PanelScaling.fit(panel, calendar=False), LOOKBACK, H, anchors)


@pytest.mark.parametrize(
    ("count", "series", "samples"), [(500, 300, 1000), (500, 300, 100), (40, 300, 11_999), (700, 1, 99), (90, 45, 90)]
)
def test_samples_are_spread_over_moments_and_series(count, series, samples):
    """Each moment and each series is as often among them as any other, and no sample twice."""
    whole = windows(count, series)
    found = thinned(whole, samples * H + H - 1).anchors
    assert found.series.shape == (samples, 1)
    moments, names = np.bincount(found.first)[LOOKBACK:], np.bincount(found.series[:, 0])
    assert len(np.unique(found.first)) == min(count, samples) and len(names) == min(series, samples)
    assert moments.max() <= -(-samples // count) and np.ptp(names) <= 1
    assert len(np.unique(np.stack([found.first, found.series[:, 0]]), axis=1).T) == samples
    assert (np.diff(np.unique(found.first)) <= 2 * -(-count // samples)).all()
    assert thinned(whole, count * series * H) is whole


def test_samples_are_of_every_hour_of_the_day():
    """At equal distances of a day they would all be of one."""
    found = thinned(windows(24 * 200, 1), 200 * H).anchors
    assert np.bincount(found.first % 24, minlength=24).min() > 0


def test_targets_are_those_of_the_samples():
    whole = windows(30, 5)
    found = thinned(whole, 40 * H)
    places = (found.anchors.first - LOOKBACK) * 5 + found.anchors.series[:, 0]
    np.testing.assert_array_equal(found.targets(), whole.targets()[places])
