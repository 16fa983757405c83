"""The benchmark's protocol, checked without any model by the forecast that repeats the last value.

Against the golden file for the real sets, and against a plain numpy loop for generated data.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from titans_seq.datamodules import ForecastDataModule
from titans_seq.datamodules.forecast.registry import DATASETS, find_spec, locate

Write = Callable[..., Path]
HORIZONS = (96, 192, 336, 720)


def _naive_last(data: ForecastDataModule, split: str = "test") -> tuple[int, float, float]:
    """Return (windows, MSE, MAE) of repeating the last value, as one mean over elements in float64."""
    windows, squared, absolute, elements = 0, 0.0, 0.0, 0
    for batch in getattr(data, f"{split}_dataloader")():
        error = (batch["future_target"] - batch["past_target"][:, -1:]).double()
        windows += len(error)
        squared += error.square().sum().item()
        absolute += error.abs().sum().item()
        elements += error.numel()
    return windows, squared / elements, absolute / elements


@pytest.mark.data
@pytest.mark.parametrize("name", ["ETTh1", "ETTh2", "ETTm1", "ETTm2", "Weather"])
def test_golden_values(data_root: Path, name: str) -> None:
    spec = find_spec(name)
    golden_file = data_root / "forecast" / "golden_ltsf.json"
    if locate(spec) is None or not golden_file.is_file():
        pytest.skip(f"$TITANS_SEQ_DATA ({os.environ.get('TITANS_SEQ_DATA')}) lacks {spec.file} or golden_ltsf.json")
    golden = {key.lower(): value for key, value in json.loads(golden_file.read_text()).items()}[name.lower()]
    data = ForecastDataModule(name.lower(), eval_batch_size=512)
    data.setup()
    assert data.series.values.shape == (golden["rows"], golden["channels"])
    begins, ends = zip(*data.borders.values(), strict=True)
    assert (list(begins), list(ends)) == (golden["border1s"], golden["border2s"])
    np.testing.assert_allclose(data.scaler.mean_, golden["train_mean"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(data.scaler.scale_, golden["train_std"], rtol=0, atol=1e-5)
    for horizon in HORIZONS:
        data.horizon = horizon
        expected = golden["naive_last"][str(horizon)]
        windows, mse, mae = _naive_last(data)
        assert windows == expected["test_windows"]
        assert mse == pytest.approx(expected["mse"], abs=1e-5)
        assert mae == pytest.approx(expected["mae"], abs=1e-5)


@pytest.mark.data
@pytest.mark.parametrize("name", [spec.name for spec in DATASETS])
def test_published_file_is_read_row_by_row(data_root: Path, name: str) -> None:
    spec = find_spec(name)
    if locate(spec) is None:
        pytest.skip(f"$TITANS_SEQ_DATA ({os.environ.get('TITANS_SEQ_DATA')}) lacks {spec.file}")
    data = ForecastDataModule(name)
    data.prepare_data()
    data.setup()
    assert data.series.values.shape == (spec.rows, spec.channels)
    assert len(data.series.dates) == spec.rows
    assert data.series.freq == spec.frequency
    # Weather: a repeated time stamp and a gap, both kept
    assert data.series.dates.has_duplicates is (name == "Weather")


def _plain_protocol(values: np.ndarray, lookback: int, horizon: int) -> dict[str, tuple[int, float, float]]:
    """The whole protocol of 70/10/20 once more, in plain loops that share nothing with the package."""
    n = len(values)
    n_train, n_test = int(n * 0.7), int(n * 0.2)
    n_val = n - n_train - n_test
    mean = sum(values[:n_train]) / n_train
    deviation = np.sqrt(sum((row - mean) ** 2 for row in values[:n_train]) / n_train)
    scaled = (values - mean) / deviation
    scores = {}
    for split, start, length in (
        ("train", lookback, n_train - lookback),
        ("val", n_train, n_val),
        ("test", n_train + n_val, n_test),
    ):
        errors = []
        for t in range(start, start + length - horizon + 1):
            errors.append(scaled[t : t + horizon] - scaled[t - 1])
        scores[split] = (len(errors), float(np.mean(np.square(errors))), float(np.mean(np.abs(errors))))
    return scores


@pytest.mark.parametrize(
    ("rows", "lookback", "horizon"), [(400, 24, 12), (401, 24, 12), (407, 1, 1), (409, 40, 37), (413, 8, 24)]
)
def test_generated_series_against_a_plain_loop(write_csv: Write, rows: int, lookback: int, horizon: int) -> None:
    data = ForecastDataModule(csv=str(write_csv(rows=rows)), lookback=lookback, horizon=horizon)
    data.setup()
    for split, expected in _plain_protocol(data.series.values, lookback, horizon).items():
        windows, mse, mae = _naive_last(data, split)
        assert windows == expected[0]
        assert (mse, mae) == pytest.approx(expected[1:], rel=1e-5)


def test_no_batch_size_changes_the_metric(write_csv: Write) -> None:
    path = str(write_csv(rows=613))
    scores = []
    for size in (1, 7, 32, 128):
        data = ForecastDataModule(csv=path, lookback=24, horizon=12, batch_size=size, eval_batch_size=size)
        data.setup()
        scores.append([_naive_last(data, split) for split in ("train", "val", "test")])
    windows = [windows for windows, _, _ in scores[0]]
    assert windows == [429 - 36 + 1, 62 - 12 + 1, 122 - 12 + 1]
    for other in scores[1:]:
        assert [windows for windows, _, _ in other] == windows
        np.testing.assert_allclose(other, scores[0], rtol=1e-12)


@pytest.mark.parametrize("poison", ["nan", "inf", "noise"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_future_changes_nothing_before_it(write_csv: Write, poison: str, split: str) -> None:
    clean = ForecastDataModule(csv=str(write_csv(rows=400)), lookback=24, horizon=12)
    clean.setup()
    cut = clean.borders[split][1]
    values = clean.series.values.copy()
    noise = np.random.default_rng(0).standard_normal(values[cut:].shape) * 1e6
    values[cut:] = {"nan": np.nan, "inf": np.inf, "noise": noise}[poison]
    poisoned = ForecastDataModule(csv="unread.csv", lookback=24, horizon=12)
    poisoned.series = replace(clean.series, values=values)
    poisoned.setup()
    for name in ("mean_", "scale_"):
        assert np.array_equal(getattr(poisoned.scaler, name), getattr(clean.scaler, name))
    for before in ("train", "val")[: 1 if split == "train" else 2]:
        every = range(len(clean.dataset_for(before)))
        expected, found = (data.dataset_for(before).__getitems__(every) for data in (clean, poisoned))
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert not torch.equal(
        clean.dataset_for("test")[0]["future_target"], poisoned.dataset_for("test")[0]["future_target"]
    )
