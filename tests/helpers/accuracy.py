"""How close is close: the two tolerances all tests share."""

from torch import Tensor


def assert_equal_to(got: Tensor, exact: Tensor, *, name: str, tolerance: float = 1e-9) -> None:
    """The largest difference, relative to the largest entry of `exact` (or to 1 where that is smaller)."""
    assert got.shape == exact.shape, f"{name}: shape {tuple(got.shape)}, not {tuple(exact.shape)}"
    if exact.numel() == 0:
        return
    assert got.isfinite().all(), f"{name}: {(~got.isfinite()).sum()} of {got.numel()} values are not finite"
    error = (got - exact).abs().max().item() / max(1.0, exact.abs().max().item())
    assert error <= tolerance, f"{name}: differs by {error:.2e}, allowed {tolerance:.0e}"


def assert_as_accurate_as(fast: Tensor, plain: Tensor, exact: Tensor, *, name: str, atol: float = 1e-5) -> None:
    """Allow `fast` at most twice the error that `plain`, at the same precision, makes against `exact`."""
    assert fast.shape == exact.shape, f"{name}: shape {tuple(fast.shape)}, not {tuple(exact.shape)}"
    assert fast.isfinite().all(), f"{name}: {(~fast.isfinite()).sum()} of {fast.numel()} values are not finite"
    fast_error, plain_error = ((x.to(exact.dtype) - exact).abs().max().item() for x in (fast, plain))
    assert fast_error <= 2 * plain_error + atol, f"{name}: error {fast_error:.2e}, plain {plain_error:.2e}"
