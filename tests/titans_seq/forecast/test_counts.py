"""Forecasts of counts by a negative binomial."""

import numpy as np
import pandas as pd
import pytest
import torch
from hourly_frames import SMALL
from scipy import stats

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataError
from titans_seq.forecast.metrics import evaluate
from titans_seq.forecast.outputs import CountOutput, arguments, point, quantiles

LOC, SCALE = torch.tensor([[2.0], [0.0], [5000.0]]), torch.tensor([[3.0], [0.2], [40.0]])


def counts(lengths=(200, 180, 190), seed=0) -> pd.DataFrame:
    """Overdispersed sales with a cycle: mostly zeros, a few, and many."""
    random, parts = np.random.default_rng(seed), []
    for i, n in enumerate(lengths):
        mean = [0.4, 3.0, 60.0][i % 3] * (1 + 0.8 * np.sin(np.arange(n) * 2 * np.pi / 12))
        times = pd.date_range("2024", periods=n, freq="h")
        y = random.negative_binomial(2, 2 / (2 + mean)).astype(float)
        parts.append(pd.DataFrame({"unique_id": f"s{i}", "ds": times, "y": y}))
    data = pd.concat(parts, ignore_index=True)
    data.loc[random.choice(len(data) - 1, 20, replace=False), "y"] = np.nan
    return data


def raw() -> torch.Tensor:
    return torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))


def test_mean_variance_loss_and_quantiles_are_those_of_scipy():
    output = CountOutput()
    args = arguments(output, raw())
    level, spread = (each.double().numpy() for each in args)
    loc, scale = LOC.double().numpy(), SCALE.double().numpy()
    mean = scale * np.logaddexp(0, loc / scale + level)
    variance = mean + (scale * spread) ** 2
    exact = stats.nbinom(mean**2 / (variance - mean), mean / variance)
    np.testing.assert_allclose(exact.mean(), point(output, args, LOC, SCALE), rtol=1e-6)
    levels = [0.05, 0.5, 0.9, 0.999]
    found = quantiles(output, args, LOC, SCALE, levels)
    np.testing.assert_array_equal(found, np.stack([exact.ppf(level) for level in levels], axis=-1))
    target = torch.tensor([[1.0], [0.0], [5020.0]]).expand(3, 5)
    np.testing.assert_allclose(output.loss(target, args, LOC, SCALE), -exact.logpmf(target.numpy()), rtol=1e-6)


def test_nearly_poisson_and_empty_lookbacks_are_finite_with_their_gradients():
    output, numbers = CountOutput(), torch.tensor([[-60.0, -60.0], [60.0, -60.0], [-60.0, 60.0]], requires_grad=True)
    args = arguments(output, numbers[:, None])
    loss = output.loss(torch.tensor([[0.0], [70.0], [3.0]]), args, torch.zeros(3, 1), torch.full((3, 1), 0.05))
    loss.sum().backward()
    assert loss.isfinite().all() and numbers.grad.isfinite().all()


@pytest.mark.parametrize("conformal", [True, False], ids=["conformal", "plain"])
def test_intervals_are_whole_numbers_and_survive_a_file(conformal, tmp_path):
    model = TitansForecaster(**SMALL, output="negative_binomial", conformal=conformal).fit(counts())
    found = model.predict(level=(50, 80, 99))
    sides = found.iloc[:, 3:]
    assert (sides == sides.round()).all().all() and (found.iloc[:, 2:] >= 0).all().all()
    assert (found["Titans-hi-80"] > found["Titans-lo-80"]).any() and np.isfinite(sides).all().all()
    size = found.groupby("unique_id")["Titans"].mean()
    assert size["s0"] < 2 and 15 < size["s2"] < 180
    model.save(tmp_path)
    pd.testing.assert_frame_equal(TitansForecaster.load(tmp_path).predict(level=(50, 80, 99)), found)


def test_it_beats_the_normal_output_on_counts():
    data = counts((300,) * 6)
    budget = SMALL | {"max_epochs": 5, "steps_per_epoch": 40}
    levels = tuple(range(10, 100, 10))

    def scores(output: str) -> dict[str, float]:
        model = TitansForecaster(**budget, output=output, conformal=False)
        found = model.backtest(data, windows=4, level=levels)
        sparse = found[found["unique_id"].isin(["s0", "s3"])]
        return {"all": evaluate(found)["crps"], "sparse": evaluate(sparse)["crps"]}

    mine, normal = scores("negative_binomial"), scores("normal")
    assert mine["all"] < normal["all"] and mine["sparse"] < normal["sparse"]


@pytest.mark.parametrize("value", [1.5, -1.0], ids=["half", "negative"])
def test_other_numbers_than_counts_are_refused(value):
    data = counts()
    data.loc[30, "y"] = value
    message = f"series s0, ds 2024-01-02 06:00:00: the target must be a whole number >= 0 .*; got {value:g}"
    with pytest.raises(DataError, match=message):
        TitansForecaster(**SMALL, output="negative_binomial").fit(data)


def test_counts_take_no_transform():
    with pytest.raises(ValueError, match="transform must be None for an output of counts; got 'log1p'"):
        TitansForecaster(**SMALL, output="negative_binomial", transform="log1p").fit(counts())


def test_blocks_and_the_memory_that_goes_on_know_the_units():
    model = TitansForecaster(**SMALL, output="negative_binomial", train_blocks=2).fit(counts())
    model.observe(counts())
    found = model.predict()
    assert (found.iloc[:, 2:] >= 0).all().all() and found["Titans-lo-80"].eq(found["Titans-lo-80"].round()).all()
