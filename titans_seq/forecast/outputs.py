"""What a forecast is: one value, quantiles, or a distribution, in GluonTS's `Output` grammar.

An output turns `size` raw numbers per step into arguments, says the loss of a target under them, and makes GluonTS's
forecasts of them; any `gluonts.torch.distributions.Output` of one number per step will do. These are the ones GluonTS
lacks.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from gluonts.core.component import validated
from gluonts.model.forecast_generator import ForecastGenerator, QuantileForecastGenerator
from gluonts.torch.distributions import (
    LaplaceOutput,
    NegativeBinomialOutput,
    NormalOutput,
    Output,
    QuantileOutput,
    StudentTOutput,
)
from gluonts.torch.distributions.distribution_output import DistributionOutput
from jaxtyping import Float
from scipy.stats import nbinom
from torch import Tensor
from torch.distributions import NegativeBinomial

LOSSES = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.smooth_l1_loss}
QUANTILES = (0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975)


class PointOutput(Output):
    """One value per step, trained by "mse", "mae" or "huber" (quadratic below one deviation of the lookback)."""

    @validated()
    def __init__(self, loss: str = "huber") -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
        self.loss_name = loss
        self.args_dim = {"value": 1}

    @property
    def event_shape(self) -> tuple[int, ...]:
        return ()

    @property
    def forecast_generator(self) -> ForecastGenerator:
        return QuantileForecastGenerator(quantiles=["0.5"])

    def domain_map(self, *args: Tensor) -> tuple[Tensor, ...]:
        return args

    def loss(
        self,
        target: Tensor,
        distr_args: tuple[Tensor, ...],
        loc: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        value = located(distr_args[0], loc, scale)[..., 0]
        return LOSSES[self.loss_name](value, target, reduction="none")


class MonotoneQuantileOutput(QuantileOutput):
    """Quantiles that never cross: the middle one is free, the others go away from it by softplus steps.

    Args:
        quantiles: levels inside (0, 1); kept sorted.
    """

    @validated()
    def __init__(self, quantiles: list[float]) -> None:
        if not quantiles or not all(0 < level < 1 for level in quantiles):
            raise ValueError(f"quantiles must be levels between 0 and 1; got {quantiles}")
        super().__init__(quantiles=sorted(set(quantiles)))
        self.middle = self.num_quantiles // 2

    def domain_map(self, *args: Tensor) -> tuple[Tensor, ...]:
        raw, middle = args[0], self.middle
        steps = F.softplus(raw)
        centre = raw[..., middle : middle + 1]
        below = centre - steps[..., :middle].flip(-1).cumsum(-1).flip(-1)
        above = centre + steps[..., middle + 1 :].cumsum(-1)
        return (torch.cat([below, centre, above], dim=-1),)


class CountOutput(NegativeBinomialOutput):
    """A negative binomial of counts, which is told the mean and the deviation of the lookback in counts.

        mean = scale softplus(loc / scale + level),    variance = mean + (scale softplus(spread))^2

    Far from 0 the mean is loc + scale * level, as that of a normal output. GluonTS's own form multiplies by the scale
    alone, and cannot say how a series moves around its mean. Loss and quantiles are of the counts themselves, so `loc`
    and `scale` must be in counts. In float64: log-densities of nearly Poisson counts are differences of large numbers.
    """

    args_dim: ClassVar[dict[str, int]] = {"level": 1, "spread": 1}

    @classmethod
    def domain_map(cls, level: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return level.squeeze(-1), F.softplus(spread).squeeze(-1)

    def distribution(
        self, distr_args: tuple[Tensor, ...], loc: Tensor | None = None, scale: Tensor | None = None
    ) -> NegativeBinomial:
        level, spread = (each.double() for each in distr_args)
        loc = torch.zeros_like(level) if loc is None else loc.double().clamp(min=0)
        scale = torch.ones_like(level) if scale is None else scale.double()
        mean = scale * F.softplus(loc / scale + level).clamp(min=1e-6)
        total = (mean / (scale * spread)).square().clamp(min=1e-6, max=1e8)
        return NegativeBinomial(total_count=total, logits=(mean / total).log())

    def loss(
        self,
        target: Tensor,
        distr_args: tuple[Tensor, ...],
        loc: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        return super().loss(target.double(), distr_args, loc=loc, scale=scale).to(target.dtype)


# of standardised series: a density over all numbers, or quantiles. By name, since a saved forecaster names its output
OUTPUTS: dict[str, type[Output]] = {
    cls.__name__: cls
    for cls in (
        MonotoneQuantileOutput,
        PointOutput,
        QuantileOutput,
        StudentTOutput,
        NormalOutput,
        LaplaceOutput,
        CountOutput,
    )
}


DISTRIBUTIONS: dict[str, Callable[[], Output]] = {
    "student_t": StudentTOutput, "normal": NormalOutput, "negative_binomial": CountOutput,
}  # fmt: skip


def make_output(name: str | Output) -> Output:
    """An output by name, or the given one: "quantiles", a distribution ("student_t", "normal", "negative_binomial" for
    counts), or one value ("mse", "mae", "huber").
    """
    if isinstance(name, Output):
        if name.event_shape != ():
            raise ValueError(f"output must be of one number per step; got {name!r}")
        return name
    if name == "quantiles":
        return MonotoneQuantileOutput(list(QUANTILES))
    if isinstance(name, str) and name in DISTRIBUTIONS:
        return DISTRIBUTIONS[name]()
    if isinstance(name, str) and name in LOSSES:
        return PointOutput(name)
    raise ValueError(f"output must be one of quantiles, {', '.join((*DISTRIBUTIONS, *LOSSES))}; got {name!r}")


def output_arguments(output: Output) -> dict[str, Any]:
    """What the output was made with; GluonTS keeps it."""
    return dict(output.__getnewargs_ex__()[1])


def require_levels(output: Output, levels: Sequence[float]) -> None:
    """Raise a ValueError unless the output has a middle and the bounds of intervals of these percentages."""
    if not isinstance(output, QuantileOutput):
        return
    low, high = min(output.quantiles), max(output.quantiles)
    for level in (0.0, *levels):
        sides = 0.5 - level / 200, 0.5 + level / 200
        if sides[0] < low - 1e-9 or sides[1] > high + 1e-9:
            what = f"an interval of {level:g} %" if level else "a middle"
            raise ValueError(f"output has quantiles from {low:g} to {high:g}, too few for {what}")


def learned_level(output: Output) -> float:
    """The widest interval in percent that the output itself gives."""
    if not isinstance(output, QuantileOutput):
        return 100.0
    return 200 * min(0.5 - min(output.quantiles), max(output.quantiles) - 0.5)


def within(output: Output, levels: Sequence[float]) -> list[float]:
    """Quantile levels, those beyond the learned ones moved to the outermost of these."""
    if not isinstance(output, QuantileOutput):
        return list(levels)
    low, high = min(output.quantiles), max(output.quantiles)
    return [min(max(level, low), high) for level in levels]


def raw_size(output: Output) -> int:
    """How many raw numbers a step has."""
    return sum(output.args_dim.values())


def arguments(output: Output, raw: Tensor) -> tuple[Tensor, ...]:
    """Raw numbers [..., P] -> the output's arguments."""
    ends = list(accumulate(output.args_dim.values()))
    # copies: GluonTS's outputs of counts write into theirs
    parts = [raw[..., end - size : end].clone() for end, size in zip(ends, output.args_dim.values(), strict=True)]
    return output.domain_map(*parts)


def located(values: Tensor, loc: Tensor | None, scale: Tensor | None) -> Tensor:
    """values [B, H, Q] of standardised series -> on the scale of their input."""
    if scale is not None:
        values = values * scale.unsqueeze(-1)
    return values if loc is None else values + loc.unsqueeze(-1)


def quantiles(
    output: Output, args: tuple[Tensor, ...], loc: Tensor, scale: Tensor, levels: Sequence[float]
) -> Float[Tensor, "B H Q"]:
    """Quantiles of a forecast, ascending with their levels.

    Between learned quantiles they are interpolated linearly; a level outside of the learned ones is a ValueError. A
    distribution gives them exactly.

    Raises:
        ValueError: the output has no quantiles (one value per step), or not these.
    """
    if isinstance(output, QuantileOutput):
        return _between(output.quantiles, located(args[0], loc, scale), levels)
    if not isinstance(output, DistributionOutput):
        raise ValueError(
            "a forecast of one value per step has no quantiles; train with output='quantiles' or 'student_t'"
        )
    distribution: Any = output.distribution(args, loc=loc, scale=scale)
    if isinstance(distribution, NegativeBinomial):
        return _quantiles_of_counts(distribution, levels)
    found = [distribution.icdf(torch.full_like(loc, level).expand(*args[0].shape)) for level in levels]
    return torch.stack(found, dim=-1)


def _quantiles_of_counts(distribution: NegativeBinomial, levels: Sequence[float]) -> Tensor:
    """Whole numbers; PyTorch has no inverse of this distribution."""
    total, failure = distribution.total_count.cpu().numpy(), torch.sigmoid(-distribution.logits).cpu().numpy()
    found = nbinom.ppf(np.array(levels), total[..., None], failure[..., None])
    return torch.from_numpy(found).to(distribution.logits.device)


def _between(known: Sequence[float], values: Tensor, levels: Sequence[float]) -> Tensor:
    outside = [level for level in levels if not known[0] - 1e-9 <= level <= known[-1] + 1e-9]
    if outside:
        raise ValueError(
            f"quantile {outside[0]:g} lies outside of those the model has learned ({known[0]:g} to {known[-1]:g})"
        )
    found = []
    for level in levels:
        above = next(i for i, each in enumerate(known) if each >= level - 1e-9)
        if known[above] - level < 1e-9:
            found.append(values[..., above])
        else:
            share = (level - known[above - 1]) / (known[above] - known[above - 1])
            found.append(values[..., above - 1] * (1 - share) + values[..., above] * share)
    return torch.stack(found, dim=-1)


def has_point(output: Output) -> bool:
    """Whether `point` has an answer: quantiles that are all on one side of the median have none."""
    return not isinstance(output, QuantileOutput) or min(output.quantiles) <= 0.5 <= max(output.quantiles)


def point(output: Output, args: tuple[Tensor, ...], loc: Tensor, scale: Tensor) -> Tensor:
    """The one number [B, H] to show for a forecast: the trained value, the median, or the distribution's mean."""
    if isinstance(output, PointOutput):
        return located(args[0], loc, scale)[..., 0]
    if isinstance(output, QuantileOutput):
        return quantiles(output, args, loc, scale, [0.5])[..., 0]
    distribution: Any = output.distribution(args, loc=loc, scale=scale)  # type: ignore[attr-defined]
    return distribution.mean
