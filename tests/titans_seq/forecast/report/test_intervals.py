"""Half widths are order statistics of the errors, of each step and channel."""

import math

import numpy as np

from titans_seq.forecast.report.intervals import LEVELS, margins


def test_margins_are_order_statistics() -> None:
    errors = np.random.default_rng(0).standard_normal((50, 4, 3)).astype(np.float32)
    found = margins(errors)
    missing = np.concatenate([errors, np.full((5, 4, 3), np.nan, dtype=np.float32)])
    np.testing.assert_array_equal(margins(missing), found)
    assert found.shape == (len(LEVELS), 4, 3)
    for place, level in enumerate(LEVELS):
        rank = math.ceil(51 * level / 100)
        np.testing.assert_array_equal(found[place], np.sort(np.abs(errors), axis=0)[rank - 1])


def test_too_few_windows_share_a_margin_or_have_none() -> None:
    """Ten windows of 4 steps: the largest of eleven ranks is missing for 95 %, so that all 40 errors count together."""
    errors = np.random.default_rng(0).standard_normal((10, 4, 1))
    assert len(set(margins(errors)[1, :, 0])) == 1 and np.isfinite(margins(errors)).all()
    assert np.isinf(margins(errors[:2, :2])[1]).all()
