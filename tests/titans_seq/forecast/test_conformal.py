"""Conformal intervals: the order statistic, coverage where windows are exchangeable, and their shape."""

import numpy as np
import pytest

from titans_seq.forecast.conformal import Conformal, margins


def point_bounds(middle: np.ndarray, levels: int) -> np.ndarray:
    return np.repeat(middle[..., None], 2 * levels, axis=-1).reshape(*middle.shape, levels, 2)


def test_the_margin_is_the_order_statistic():
    """Nine errors 1 to 9: half of ten is the fifth, 90 % the ninth."""
    target = np.arange(1.0, 10)[:, None] * np.array([1, -1] * 4 + [1])[:, None]
    middle = np.zeros_like(target)
    found = Conformal.fit(target, point_bounds(middle, 2), levels=[50, 90])
    np.testing.assert_array_equal(found.margin, [[5], [9]])


@pytest.mark.parametrize("n", [30, 400])
def test_coverage_of_exchangeable_windows(n):
    """Heavy-tailed errors of windows with scales of their own: on average over calibrations at least as promised,
    hardly more.
    """
    random, levels, covered = np.random.default_rng(0), [50.0, 90.0], []
    for _ in range(300):
        errors = random.standard_t(2, size=(n + 50, 3)) * np.exp(random.standard_normal((n + 50, 1))) * [1, 2, 4]
        middle = np.zeros_like(errors)
        bounds = point_bounds(middle, 2)
        fitted = Conformal.fit(errors[:n], bounds[:n], levels=levels)
        moved = fitted.apply(middle[n:], bounds[n:], levels)
        new = errors[n:, :, None]
        covered.append(((moved[..., 0] <= new) & (new <= moved[..., 1])).mean(axis=(0, 1)))
    excess = np.mean(covered, axis=0) - np.array(levels) / 100
    assert (excess >= -0.01).all() and (excess <= 1 / (n + 1) + 0.01).all()


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_wrong_widths_are_mended_both_ways(factor):
    random = np.random.default_rng(1)
    errors, middle = random.standard_normal((2000, 2)), np.zeros((2000, 2))
    bounds = np.stack([np.full((2000, 2, 1), -1.2816 * factor), np.full((2000, 2, 1), 1.2816 * factor)], axis=-1)
    fitted = Conformal.fit(errors[:1000], bounds[:1000], levels=[80])
    moved = fitted.apply(middle[1000:], bounds[1000:], [80])
    share = np.mean((moved[..., 0, 0] <= errors[1000:]) & (errors[1000:] <= moved[..., 0, 1]))
    assert share == pytest.approx(0.8, abs=0.03)
    assert (np.sign(fitted.margin) == np.sign(1 - factor)).all()


def test_wider_levels_hold_narrower_ones_and_all_hold_the_forecast():
    fitted = Conformal([50.0, 80.0], np.array([[0.5, -1.0], [0.1, -1.0]]))
    bounds = np.broadcast_to(np.array([[-1.0, 1.0], [-1.1, 1.1]]), (1, 2, 2, 2))
    moved = fitted.apply(np.full((1, 2), 0.25), bounds, [50.0, 80.0])
    np.testing.assert_allclose(moved[0, 0], [[-1.5, 1.5], [-1.5, 1.5]])
    np.testing.assert_allclose(moved[0, 1], np.full((2, 2), 0.25))  # narrowed to the forecast, not beyond


def forecasts_of(scales: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, points and bounds of 80 % that are twice as wide as they should be, and skewed, of windows of these
    scales.
    """
    points = random.standard_normal((len(scales), 2))
    target = points + scales[:, None] * random.standard_normal((len(scales), 2))
    sides = scales[:, None, None] * np.array([-2.0, 3.2])
    return target, points, (points[..., None] + np.broadcast_to(sides, (*points.shape, 2)))[..., None, :]


def share_inside(target: np.ndarray, moved: np.ndarray) -> float:
    return float(np.mean((moved[..., 0, 0] <= target) & (target <= moved[..., 0, 1])))


def test_intervals_that_are_narrowed_keep_their_share_after_a_quiet_lookback():
    """Calibrated on loud windows; of windows a hundred times as quiet as many are covered."""
    random = np.random.default_rng(2)
    target, points, bounds = forecasts_of(random.uniform(0.5, 2, 3000), random)
    fitted = Conformal.fit(target, bounds, levels=[80], points=points)
    assert (fitted.margin < 0).all() and (fitted.margin > -1).all()
    assert share_inside(target, fitted.apply(points, bounds, [80])) == pytest.approx(0.8, abs=1e-3)
    target, points, bounds = forecasts_of(np.full(3000, 0.01), random)
    moved = fitted.apply(points, bounds, [80])
    assert share_inside(target, moved) == pytest.approx(0.8, abs=0.03)
    middle = points[..., None, None]
    np.testing.assert_allclose(moved, middle + (1 + fitted.margin[0])[:, None, None] * (bounds - middle))


@pytest.mark.parametrize("margin", [-0.4, 0.0, 0.3])
@pytest.mark.parametrize("point", [0.5, 3.0, -2.0], ids=["inside", "above", "below"])
def test_the_score_is_the_margin_at_which_the_target_is_met(margin, point):
    """Also where the point lies outside of its interval."""
    points, bounds = np.full((9, 1), point), np.broadcast_to([-1.0, 1.0], (9, 1, 1, 2))
    moved = Conformal([80.0], np.full((1, 1), margin)).apply(points, bounds, [80.0])
    for target in (moved[:, :, 0, 0], moved[:, :, 0, 1]):
        wanted = margin if (target != points).any() else -1.0  # the point itself is in every interval
        np.testing.assert_allclose(margins(target, bounds, [80.0], points), [[wanted]], atol=1e-12)


def test_missing_targets_do_not_count_and_steps_share_where_they_are_few():
    target = np.full((40, 2), np.nan)
    target[:, 0], target[:3, 1] = np.arange(40), 7.0
    middle = np.zeros_like(target)
    fitted = Conformal.fit(target, point_bounds(middle, 1), levels=[90])
    assert fitted.margin[0].tolist() == [36.0, 36.0]  # the 40th of 43
    with pytest.warns(UserWarning, match="3 validation values are too few to calibrate intervals of 90 %"):
        fitted = Conformal.fit(target[:, 1:], point_bounds(middle[:, 1:], 1), levels=[90])
    assert np.isinf(fitted.margin).all()
