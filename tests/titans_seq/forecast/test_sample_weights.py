"""Weights of rows in the loss."""

import numpy as np
import pandas as pd
import pytest
import torch
from hourly_frames import COVARIATES, SMALL, ahead, frame

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast import parquet
from titans_seq.datamodules.forecast.windows import Windows
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import SimbaForecaster

L, H = 16, 4


def batch(blocks: int = 1) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    past, future = torch.randn(5, blocks * L, generator=random), torch.randn(5, H, generator=random)
    return {"past_target": past, "future_target": future, "past_observed_values": torch.ones(5, blocks * L),
            "future_observed_values": torch.ones(5, H)}  # fmt: skip


def gradients(module: ForecastModule, given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    module.zero_grad()
    losses, weights, _ = module._losses(given)
    loss = (losses * weights).sum() / weights.sum()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


@pytest.mark.parametrize("output", ["quantiles", "student_t", "huber"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_a_weight_of_zero_is_a_target_that_is_masked(output, blocks):
    """Loss and every gradient; weights of 2 and 0 are as those of 1 and 0."""
    torch.manual_seed(0)
    outputs = {"quantiles": 13, "student_t": 3, "huber": 1}[output]
    module = ForecastModule(SimbaForecaster(L, H, dim=8, outputs=outputs, dropout=0.0, head_dropout=0.0), output=output)
    kept = (torch.rand(5, H, generator=torch.Generator().manual_seed(1)) > 0.4).float()
    plain = batch(blocks)
    weighted = plain | {"past_weights": torch.ones(5, blocks * L) * 2, "future_weights": 2 * kept}
    masked = plain | {"future_observed_values": kept}
    for one, other in zip(gradients(module, weighted), gradients(module, masked), strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(gradients(module, weighted)[0], gradients(module, plain)[0])


@pytest.mark.parametrize("blocks", [1, 2])
def test_rows_of_weight_zero_train_nothing(blocks):
    """A whole series of weight 0 may be anything of the same size: the network stays, bit by bit."""
    data = frame((120, 120), gaps=False)
    data["w"] = (data["unique_id"] == "s0").astype(float)
    other = data.copy()
    away = other["unique_id"] == "s1"
    other.loc[away, "y"] = 30 + 10 * np.random.default_rng(3).standard_normal(away.sum())
    settings = SMALL | {"past_covariates": ["temp"], "train_blocks": blocks}
    one, two = (TitansForecaster(**settings).fit(each, sample_weight="w") for each in (data, other))
    for a, b in zip(one.module_.parameters(), two.module_.parameters(), strict=True):
        assert torch.equal(a, b)
    unweighted = TitansForecaster(**settings).fit(other)
    assert not torch.equal(next(unweighted.module_.parameters()), next(two.module_.parameters()))


def test_a_column_is_as_good_as_an_array_and_only_ratios_count():
    data = frame()
    weights = np.random.default_rng(0).random(len(data))
    shuffled = data.assign(w=weights).sample(frac=1, random_state=0)
    settings = SMALL | COVARIATES
    one = TitansForecaster(**settings).fit(data, sample_weight=weights)
    two = TitansForecaster(**settings).fit(data.assign(w=weights), sample_weight="w")
    found = one.predict(future=ahead(data))
    pd.testing.assert_frame_equal(found, two.predict(future=ahead(data)))
    scaled = TitansForecaster(**settings).fit(data, sample_weight=1000 * weights).predict(future=ahead(data))
    np.testing.assert_allclose(scaled["Titans"], found["Titans"], rtol=1e-3)
    same = TitansForecaster(**settings).fit(data, sample_weight=np.full(len(data), 3.0)).predict(future=ahead(data))
    np.testing.assert_allclose(
        same["Titans"], TitansForecaster(**settings).fit(data).predict(future=ahead(data))["Titans"], rtol=1e-3
    )
    assert set(shuffled["w"]) == set(weights)


def test_the_forecaster_needs_no_weights_afterwards(tmp_path):
    data = frame()[["unique_id", "ds", "y"]].assign(w=1.0)
    model = TitansForecaster(**SMALL).fit(data, sample_weight="w")
    plain = data.drop(columns="w")
    model.observe(plain).reset()
    assert len(model.predict(plain)) == len(model.predict()) == 3 * 6
    model.save(tmp_path)
    pd.testing.assert_frame_equal(TitansForecaster.load(tmp_path).predict(), model.predict())
    model.fit(plain).fit(data, sample_weight="w")


def test_weights_of_parquet_files(tmp_path):
    data = frame((60, 60), gaps=False)[["unique_id", "ds", "y"]].assign(w=lambda f: (f["unique_id"] == "s0") + 0.5)
    data.to_parquet(tmp_path / "rows.parquet", index=False)
    settings = SMALL | {"val_size": 8}
    by_file = TitansForecaster(**settings).fit(tmp_path, sample_weight="w")
    by_frame = TitansForecaster(**settings).fit(data, sample_weight="w")
    pd.testing.assert_frame_equal(by_file.predict(), by_frame.predict())


def test_small_weights_of_a_batch_are_a_small_step():
    """The loss of a batch is in the unit of the weights, whose rows of weight 0 do not count."""
    torch.manual_seed(0)
    module = ForecastModule(SimbaForecaster(L, H, dim=8, outputs=13, dropout=0.0, head_dropout=0.0), output="quantiles")
    module.log_training = lambda loss, size: None
    weights = (torch.rand(5, H, generator=torch.Generator().manual_seed(1)) > 0.4).float()
    one, small = (
        module.training_step(batch() | {"past_weights": torch.ones(5, L), "future_weights": size * weights}, 0)
        for size in (1.0, 1e-3)
    )
    torch.testing.assert_close(small, 1e-3 * one)
    torch.testing.assert_close(one, gradients(module, batch() | {"future_observed_values": weights})[0])


def test_weights_of_several_files_have_one_unit(tmp_path, monkeypatch):
    """Rows of a part that weigh a thousandth of those of others do so in training too."""
    data = frame((60, 60), gaps=False)[["unique_id", "ds", "y"]]
    data["w"] = np.where(data["unique_id"] == "s0", 1.0, 1e-3)
    data.to_parquet(tmp_path / "rows.parquet", index=False)
    monkeypatch.setattr(parquet, "PART_ROWS", 60)
    seen = {}
    plain = Windows.__getitems__

    def looked_at(self, indices):
        seen.setdefault(len(self.lengths) == 1, set()).update(self.weights[self.weights > 0].unique().tolist())
        return plain(self, indices)

    monkeypatch.setattr(Windows, "__getitems__", looked_at)
    TitansForecaster(**SMALL | {"val_size": 8}).fit(tmp_path, sample_weight="w")
    usual = data["w"].mean()
    assert sorted(seen[True]) == pytest.approx([1e-3 / usual, 1 / usual])


@pytest.mark.parametrize("rows", ["training", "validation"])
def test_weights_that_leave_nothing_are_refused(rows):
    data = frame((120, 120), gaps=False)[["unique_id", "ds", "y"]]
    late = data.groupby("unique_id").cumcount() >= 120 - SMALL["val_size"]
    weights = (late if rows == "training" else ~late).astype(float)
    with pytest.raises(DataError, match=f"sample_weight is 0 for all {rows} rows"):
        TitansForecaster(**SMALL).fit(data, sample_weight=weights)


@pytest.mark.parametrize(
    "weights, message",
    [
        ("nothing", "the frame has no column 'nothing'"),
        ("y", "sample_weight must be a column of its own; 'y' is used as"),
        (np.ones(3), r"one number per row of a long frame; got shape \[3\] for a frame of 425 rows"),
        ("negative", "column 'negative', series s0, ds 2024-01-01 00:00:00: a weight must be .*; got -1"),
        ("missing", "column 'missing', series s0, .*: a weight must be a number of at least 0; got nan"),
    ],
    ids=["absent", "target", "short", "negative", "missing"],
)
def test_wrong_weights_are_named(weights, message):
    data = frame().assign(negative=-1.0, missing=np.nan)
    with pytest.raises(ValueError, match=message):
        TitansForecaster(**SMALL).fit(data, sample_weight=weights)
    with pytest.raises(DataError, match="for a str"):
        TitansForecaster(**SMALL).fit("rows/", sample_weight=np.ones(3))


def test_one_series_without_a_name_may_keep_its_weights(tmp_path):
    """The column of weights is not read as a second series, and a backtest trains with it."""
    data = frame((120,), gaps=False)[["ds", "y"]]
    data["w"] = np.where(np.arange(120) < 60, 0.01, 1.0)
    model = TitansForecaster(**SMALL).fit(data, sample_weight="w")
    plain = data.drop(columns="w")
    loaded = TitansForecaster.load(model.save(tmp_path))
    for each in (model, loaded):
        pd.testing.assert_frame_equal(each.predict(data), model.predict(plain))
        pd.testing.assert_frame_equal(each.residuals(data), model.residuals(plain))
        pd.testing.assert_frame_equal(each.observe(data).predict(), model.reset().observe(plain).predict())
        model.reset()
    weighted = model.backtest(data)
    pd.testing.assert_frame_equal(weighted, loaded.backtest(data))
    unweighted = TitansForecaster(**SMALL).backtest(plain)
    assert not np.allclose(weighted["Titans"], unweighted["Titans"], rtol=1e-4)
    until = TitansForecaster(**SMALL).fit(data[:-6], sample_weight="w").predict()
    np.testing.assert_allclose(weighted["Titans"], until["Titans"], rtol=1e-5)
    with pytest.raises(DataError, match="the frame has no column 'w'"):
        model.backtest(plain)


def test_validation_looks_at_windows_with_a_weight():
    """One row of thirty series has one: windows drawn from all would hardly hold it."""
    data = frame((60,) * 30, gaps=False)[["unique_id", "ds", "y"]]
    late = data.groupby("unique_id").cumcount() >= 60 - SMALL["val_size"]
    weights = np.where(late, 0.0, 1.0)
    weights[-3] = 1.0
    model = TitansForecaster(**SMALL | {"val_windows": 20}).fit(data, sample_weight=weights)
    assert np.isfinite([epoch["val_loss"] for epoch in model.history_]).all()
