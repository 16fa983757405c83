"""What forecasts are: losses, quantiles and points, against SciPy and plain sums."""

import numpy as np
import pytest
import torch
from gluonts.torch.distributions import DistributionOutput, NormalOutput, QuantileOutput, StudentTOutput
from scipy import stats

from titans_seq.forecast.outputs import (
    MonotoneQuantileOutput,
    PointOutput,
    arguments,
    make_output,
    point,
    quantiles,
    raw_size,
    require_levels,
)  # fmt: skip

LOC, SCALE = torch.tensor([[2.0], [-1.0]]), torch.tensor([[3.0], [0.5]])


def raw(output, seed=0) -> torch.Tensor:
    return 4 * torch.randn(2, 5, raw_size(output), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("levels", [[0.1, 0.5, 0.9], [0.9, 0.1], [0.3], list(np.linspace(0.01, 0.99, 40))], ids=len)
def test_quantiles_never_cross_and_any_set_of_them_can_be_had(levels):
    output = MonotoneQuantileOutput(levels)
    (values,) = arguments(output, 50 * raw(output))
    assert (values.diff(dim=-1) >= 0).all()
    wanted = torch.sort(torch.randn(2, 5, len(levels), dtype=torch.float64), dim=-1).values
    middle, steps = len(levels) // 2, torch.log(torch.expm1(wanted.diff(dim=-1)))  # the inverse of softplus
    numbers = torch.cat([steps[..., :middle], wanted[..., middle : middle + 1], steps[..., middle:]], dim=-1)
    torch.testing.assert_close(arguments(output, numbers)[0], wanted)


def test_pinball_loss_is_least_at_the_quantiles():
    """The best constant quantiles of a sample are the sample's."""
    sample = torch.tensor(stats.gamma(2).rvs(4000, random_state=0))
    output = MonotoneQuantileOutput([0.1, 0.5, 0.9])
    free = torch.zeros(1, 1, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=0.03)
    for _ in range(1500):
        optimizer.zero_grad()
        args = tuple(a.expand(1, len(sample), 3) for a in arguments(output, free))
        output.loss(sample[None], args).mean().backward()
        optimizer.step()
    found = arguments(output, free)[0].detach().numpy().ravel()
    np.testing.assert_allclose(found, np.quantile(sample.numpy(), [0.1, 0.5, 0.9]), atol=0.05)


@pytest.mark.parametrize(
    "output, family", [(StudentTOutput(), "t"), (NormalOutput(), "norm")], ids=["student-t", "normal"]
)
def test_quantiles_of_a_distribution_are_scipys(output, family):
    levels = [0.05, 0.5, 0.975]
    args = arguments(output, raw(output))
    found = quantiles(output, args, LOC, SCALE, levels)
    plain = [a.double().numpy()[..., None] for a in args]
    exact = getattr(stats, family)(*plain).ppf(np.array(levels)) * SCALE.numpy()[..., None] + LOC.numpy()[..., None]
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    np.testing.assert_allclose(point(output, args, LOC, SCALE), exact[..., 1], rtol=1e-3)  # mean = median


def test_levels_between_learned_quantiles_lie_between_them():
    output = MonotoneQuantileOutput([0.1, 0.3, 0.5, 0.9])
    args = arguments(output, raw(output))
    known = quantiles(output, args, LOC, SCALE, [0.1, 0.3, 0.5, 0.9])
    exact = args[0].double().numpy() * SCALE.numpy()[..., None] + LOC.numpy()[..., None]
    np.testing.assert_allclose(known, exact, atol=1e-5)
    between = quantiles(output, args, LOC, SCALE, [0.2, 0.6])
    np.testing.assert_allclose(between[..., 0], (exact[..., 0] + exact[..., 1]) / 2, atol=1e-5)
    np.testing.assert_allclose(between[..., 1], exact[..., 2] * 0.75 + exact[..., 3] * 0.25, atol=1e-5)
    np.testing.assert_allclose(point(output, args, LOC, SCALE), exact[..., 2], atol=1e-5)
    with pytest.raises(ValueError, match="quantile 0.05 lies outside"):
        quantiles(output, args, LOC, SCALE, [0.05])


@pytest.mark.parametrize("loss, exact", [("mse", np.square), ("mae", np.abs)])
def test_one_value_per_step(loss, exact):
    output = PointOutput(loss)
    args, target = arguments(output, raw(output)), torch.randn(2, 5)
    values = args[0][..., 0].numpy() * SCALE.numpy() + LOC.numpy()
    np.testing.assert_allclose(
        output.loss(target, args, loc=LOC, scale=SCALE), exact(values - target.numpy()), rtol=1e-4
    )
    np.testing.assert_allclose(point(output, args, LOC, SCALE), values, rtol=1e-5)
    with pytest.raises(ValueError, match="no quantiles"):
        quantiles(output, args, LOC, SCALE, [0.5])


def test_arguments_go_to_the_output_in_its_order():
    class Recorded(StudentTOutput):
        @classmethod
        def domain_map(cls, *args):
            return args

    values = torch.arange(6.0).reshape(1, 2, 3)
    assert [a.flatten().tolist() for a in arguments(Recorded(), values)] == [[0, 3], [1, 4], [2, 5]]


def test_names_of_outputs():
    assert isinstance(make_output("quantiles"), QuantileOutput)
    assert isinstance(make_output("student_t"), DistributionOutput)
    given = NormalOutput()
    assert make_output(given) is given
    with pytest.raises(ValueError, match="student_t, normal, negative_binomial, mse, mae, huber; got 'gauss'"):
        make_output("gauss")
    with pytest.raises(ValueError, match="between 0 and 1"):
        MonotoneQuantileOutput([0.5, 1.0])


def test_a_single_quantile_is_what_it_is():
    output = MonotoneQuantileOutput([0.5])
    args = arguments(output, raw(output))
    exact = args[0][..., 0].double().numpy() * SCALE.numpy() + LOC.numpy()
    np.testing.assert_allclose(point(output, args, LOC, SCALE), exact, rtol=1e-5)
    with pytest.raises(ValueError, match="output has quantiles from 0.5 to 0.5, too few for an interval of 80 %"):
        require_levels(output, [80])
    with pytest.raises(ValueError, match="too few for a middle"):
        require_levels(QuantileOutput([0.6, 0.9]), [])
