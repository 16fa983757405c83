"""Half widths are order statistics of the errors, of each step and channel; not too many windows are kept."""

import math

import numpy as np
import pytest

from titans_seq.forecast.report.intervals import LEVELS, MOST_VALUES, MOST_WINDOWS, margins, thinned


def test_margins_are_order_statistics() -> None:
    errors = np.random.default_rng(0).standard_normal((50, 4, 3)).astype(np.float32)
    found = margins(errors)
    assert found.shape == (len(LEVELS), 4, 3)
    for place, level in enumerate(LEVELS):
        rank = math.ceil(51 * level / 100)
        np.testing.assert_array_equal(found[place], np.sort(np.abs(errors), axis=0)[rank - 1])


def test_too_few_windows_share_a_margin_or_have_none() -> None:
    """Ten windows of 4 steps: the largest of eleven ranks is missing for 95 %, so that all 40 errors count together."""
    errors = np.random.default_rng(0).standard_normal((10, 4, 1))
    assert len(set(margins(errors)[1, :, 0])) == 1 and np.isfinite(margins(errors)).all()
    assert np.isinf(margins(errors[:2, :2])[1]).all()


@pytest.mark.parametrize(
    "windows, size", [(1, 5), (2000, 5), (2001, 5), (11_425, 672), (2537, 720 * 321), (100, MOST_VALUES * 2)]
)
def test_thinned_windows_are_few_and_evenly_spaced(windows: int, size: int) -> None:
    picks = thinned(windows, size)
    assert 1 <= len(picks) <= MOST_WINDOWS and (len(picks) * size <= MOST_VALUES or len(picks) == 1)
    assert picks[0] == 0 and picks[-1] < windows
    if windows <= MOST_WINDOWS and windows * size <= MOST_VALUES:
        assert list(picks) == list(range(windows))
