"""The rows of train, validation and test, and the benchmark's protocol: its metrics for the forecast
that repeats the last value.

Against the golden file for the real sets, and against a plain numpy loop for generated data.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from titans_seq.datamodules import DataError, ForecastDataModule
from titans_seq.datamodules.forecast.calendar import to_step
from titans_seq.datamodules.forecast.panel import Columns
from titans_seq.datamodules.forecast.protocol import Benchmark
from titans_seq.datamodules.forecast.reading import read_frame
from titans_seq.datamodules.forecast.registry import DATASETS, find_spec, locate

Write = Callable[..., Path]
HORIZONS = (96, 192, 336, 720)


def _naive_last(data: ForecastDataModule, split: str = "test") -> tuple[int, float, float]:
    """Return (windows, MSE, MAE) of repeating the last value, as one mean over elements in float64."""
    windows, squared, absolute, elements = 0, 0.0, 0.0, 0
    for batch in getattr(data, f"{split}_dataloader")():
        error = (batch["future_target"] - batch["past_target"][:, -1:]).double()
        windows += len(error) // len(data.panel)
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
    assert data.panel.lengths.tolist() == [golden["rows"]] * golden["channels"]
    begins, ends = zip(*data.protocol.ranges(golden["rows"], 96).values(), strict=True)
    assert (list(begins), list(ends)) == (golden["border1s"], golden["border2s"])
    np.testing.assert_allclose(data.scaling.scales["mean"], golden["train_mean"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(data.scaling.scales["scale"], golden["train_std"], rtol=0, atol=1e-5)
    for horizon in HORIZONS:
        data = ForecastDataModule(name.lower(), horizon=horizon, eval_batch_size=512)
        data.setup()
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
    assert data.panel.lengths.tolist() == [spec.rows] * spec.channels
    assert data.panel.freq == to_step(spec.frequency)
    # Weather: a repeated time stamp and a gap, both kept
    assert data.panel.times[: spec.rows].has_duplicates is (name == "Weather")


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
    for split, expected in _plain_protocol(data.panel.target.reshape(3, -1).T, lookback, horizon).items():
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


@pytest.mark.parametrize("poison", ["nan", "large", "noise"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_future_changes_nothing_before_it(write_csv: Write, poison: str, split: str) -> None:
    clean, poisoned = (ForecastDataModule(csv=str(write_csv(rows=400)), lookback=24, horizon=12) for _ in range(2))
    clean.setup()
    cut = clean.protocol.ranges(400, 24)[split][1]
    target = clean.panel.target.reshape(3, -1).copy()
    noise = np.random.default_rng(0).standard_normal(target[:, cut:].shape) * 1e6
    target[:, cut:] = {"nan": np.nan, "large": 1e30, "noise": noise}[poison]
    poisoned.panel = replace(clean.panel, target=target.ravel())
    poisoned.setup()
    pd.testing.assert_frame_equal(poisoned.scaling.scales, clean.scaling.scales)
    for before in ("train", "val")[: 1 if split == "train" else 2]:
        every = range(len(clean.windows(before)))
        expected, found = (data.windows(before).__getitems__(every) for data in (clean, poisoned))
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    one, other = (data.windows("test").__getitems__([0])["future_target"] for data in (clean, poisoned))
    assert not torch.equal(one, other)


# begin of val and test at lookback 96, and the ends, from the benchmark's rule worked out by hand
ETTH = {"train": (0, 8640), "val": (8544, 11520), "test": (11424, 14400)}
ETTM = {"train": (0, 34560), "val": (34464, 46080), "test": (45984, 57600)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ETTh1", ETTH),
        ("ETTh2", ETTH),
        ("ETTm1", ETTM),
        ("ETTm2", ETTM),
        ("Weather", {"train": (0, 36887), "val": (36791, 42157), "test": (42061, 52696)}),
        ("ECL", {"train": (0, 18412), "val": (18316, 21044), "test": (20948, 26304)}),
        ("Traffic", {"train": (0, 12280), "val": (12184, 14036), "test": (13940, 17544)}),
    ],
)
def test_rows_of_the_benchmark(name: str, expected: dict[str, tuple[int, int]]) -> None:
    spec = find_spec(name)
    assert Benchmark(spec.split).ranges(spec.rows, 96) == expected


@pytest.mark.parametrize(("lookback", "horizon"), [(1, 1), (2, 5), (96, 96), (96, 720), (512, 96), (7, 3)])
def test_rows_needed_is_the_length_from_which_all_fit(lookback: int, horizon: int) -> None:
    needed = Benchmark().rows_needed(lookback, horizon)
    for rows in range(needed, needed + 200):
        Benchmark().require("own", rows, lookback, horizon)
    for rows in range(max(0, needed - 30), needed):
        try:
            Benchmark().require("own", rows, lookback, horizon)
        except DataError as error:
            assert f"own has {rows} rows, too few" in str(error) and f"at least {needed} rows" in str(error)
    with pytest.raises(DataError):
        Benchmark().require("own", needed - 1, lookback, horizon)


def test_fixed_splits_name_their_limits() -> None:
    spec = find_spec("ETTh1")
    Benchmark(spec.split).require(spec.name, spec.rows, 5760, 2880)
    for lookback, horizon in ((96, 2881), (5761, 2880)):
        with pytest.raises(DataError, match="horizon may be at most 2880, lookback . horizon at most 8640"):
            Benchmark(spec.split).require(spec.name, spec.rows, lookback, horizon)


@pytest.mark.parametrize(("stride", "origin"), [(1, 0), (16, 8), (7, 2)])
def test_windows_of_each_split_are_those_of_a_plain_loop(stride: int, origin: int) -> None:
    rows, lookback, horizon = 100, 8, 4
    frame = pd.DataFrame({"a": np.arange(100.0), "b": 1.0}, index=pd.date_range("2024", periods=rows, freq="h"))
    panel = read_frame(frame, Columns())
    protocol = Benchmark(stride=stride, origin=origin)
    for split, begin, end in (("train", lookback, 70), ("val", 70, 80), ("test", 80, 100)):
        expected = [t for t in range(begin, end - horizon + 1) if (t - origin) % stride == 0]
        anchors = protocol.anchors(panel, split, lookback, horizon)
        assert anchors.first.tolist() == expected and anchors.series.tolist() == [[0, 1]] * len(expected)
    assert protocol.learned(panel).lengths.tolist() == [70, 70]
