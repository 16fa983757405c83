"""The forecaster on folders of Parquet files: what frames give, a part of the series in memory at a time."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast import parquet

SMALL = {
    "horizon": 4, "lookback": 16, "network": {"dim": 16, "depth": 1}, "max_epochs": 2, "steps_per_epoch": 6,
    "batch_size": 8, "accelerator": "cpu",
}  # fmt: skip


def table(series=30, rows=80, seed=0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    hours = pd.date_range("2024", periods=rows, freq="h")
    parts = []
    for i in range(series):
        y = 10.0 ** (i % 3) * (3 + np.sin(np.arange(rows) / 4 + i)) + random.standard_normal(rows)
        columns = {"ds": hours, "y": y, "price": random.standard_normal(rows), "kind": "ab"[i % 2]}
        parts.append(pd.DataFrame({"unique_id": f"s{i:02d}"} | columns))
    return pd.concat(parts, ignore_index=True)


def write(frame: pd.DataFrame, folder: Path) -> Path:
    folder.mkdir()
    mixed = frame.sample(frac=1, random_state=1)
    for i in range(2):
        mixed[i::2].to_parquet(folder / f"{i}.parquet", index=False, row_group_size=10_000)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of files, and one for temporary files that shows what is left in it."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    return write(table(), tmp_path / "rows")


def test_a_folder_of_one_part_is_a_frame(folder, tmp_path):
    """Bit by bit, for training, forecasts, backtests and surprise."""
    frame = table()
    one, other = (TitansForecaster(**SMALL).fit(data) for data in (frame, str(folder)))
    assert one.history_ == other.history_
    pd.testing.assert_frame_equal(one.predict(), other.predict())
    pd.testing.assert_frame_equal(one.predict(frame), other.predict(folder))
    pd.testing.assert_frame_equal(one.surprise(frame), other.surprise(folder))
    pd.testing.assert_frame_equal(one.backtest(frame, windows=2), other.backtest(folder, windows=2))
    assert not list((tmp_path / "scratch").iterdir())


def test_many_parts(folder, tmp_path, monkeypatch):
    """Scales, tails and shapes are those of the frame; the network learns from all parts."""
    monkeypatch.setattr(parquet, "PART_ROWS", 500)
    frame = table()
    long = {**SMALL, "max_epochs": 6, "steps_per_epoch": 30, "learning_rate": 5e-3, "static_covariates": ["kind"]}
    one, other = (TitansForecaster(**long).fit(data) for data in (frame, folder))
    pd.testing.assert_frame_equal(one.scaling_.scales.sort_index(), other.scaling_.scales.sort_index())
    np.testing.assert_array_equal(one.fitted_.tail.target, other.fitted_.tail.target)
    least = [min(epoch["val_loss"] for epoch in model.history_) for model in (one, other)]
    assert least[1] == pytest.approx(least[0], rel=0.2)
    assert other.history_[-1]["val_loss"] < 0.95 * other.history_[0]["val_loss"]
    kept = other.predict()
    assert list(kept["unique_id"]) == list(one.predict()["unique_id"])
    for data in (frame, folder):
        pd.testing.assert_frame_equal(kept, other.predict(data), rtol=1e-4)
    checked = other.backtest(folder, windows=2)
    assert len(checked) == 2 * 30 * 4
    assert checked["cutoff"].is_monotonic_increasing
    truth = frame.set_index(["unique_id", "ds"])["y"]
    np.testing.assert_array_equal(checked["y"], truth.loc[list(zip(checked["unique_id"], checked["ds"], strict=True))])
    found = other.surprise(folder)
    pd.testing.assert_frame_equal(found, other.surprise(frame), rtol=1e-4)
    again = other.fit(folder)
    assert again.fits_ == 2
    assert np.isfinite(again.predict()["Titans"]).all()
    assert not list((tmp_path / "scratch").iterdir())


def test_known_covariates_of_parts(folder, monkeypatch):
    monkeypatch.setattr(parquet, "PART_ROWS", 500)
    model = TitansForecaster(**SMALL, future_covariates=["price"]).fit(folder)
    hours = pd.date_range("2024-01-04 08:00", periods=4, freq="h")
    names = np.repeat([f"s{i:02d}" for i in range(30)], 4)
    future = pd.DataFrame({"unique_id": names, "ds": np.tile(hours, 30), "price": 0.5})
    assert np.isfinite(model.predict(folder, future)["Titans"]).all()
    with pytest.raises(DataError, match="future has no row for series s29"):
        model.predict(folder, future[:-1])


def test_backtests_of_parts_whose_series_are_short(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "PART_ROWS", 60)
    frame = pd.concat([table(2, 100), table(82, 5).query("unique_id > 's01'")], ignore_index=True)
    made = [TitansForecaster(**SMALL).backtest(data, windows=2) for data in (frame, write(frame, tmp_path / "rows"))]
    assert len(made[0]) == len(made[1]) > 0
    short = table(40, 9)
    with pytest.raises(ValueError, match="no series has an observed row before a horizon"):
        model = TitansForecaster(**SMALL, val_size=0, conformal=False)
        model.backtest(write(short, tmp_path / "short"), windows=2, level=None)


def test_ctrl_c_while_sorting_leaves_nothing_behind(folder, tmp_path):
    """The signal is heard while Arrow writes, in a thread of its own."""
    program = """
import os, signal, sys, tempfile
from titans_seq import TitansForecaster
tempfile.tempdir = sys.argv[2]
import pyarrow.compute as pc
index_in = pc.index_in
def interrupting(*given, **options):
    os.kill(os.getpid(), signal.SIGINT)
    return index_in(*given, **options)
pc.index_in = interrupting
TitansForecaster(horizon=4, lookback=16).fit(sys.argv[1])
"""
    command = [sys.executable, "-P", "-c", program, str(folder), str(tmp_path / "scratch")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert not list((tmp_path / "scratch").iterdir())


def test_errors_leave_nothing_behind(folder, tmp_path):
    model = TitansForecaster(**SMALL)
    with pytest.raises(DataError, match="has no column 'z'"):
        TitansForecaster(**SMALL, target_col="z").fit(folder)
    with pytest.raises(DataError, match="no file or folder"):
        model.fit(tmp_path / "absent")
    with pytest.raises(DataError, match="observe takes a frame"):
        model.fit(table()).observe(folder)
    assert not list((tmp_path / "scratch").iterdir())


MEASURED = r"""
import re, sys
from pathlib import Path
import pandas as pd
from titans_seq import TitansForecaster
from titans_seq.datamodules.forecast import data as windows, parquet

parquet.PART_ROWS, parquet.BUFFERED_ROWS, parquet.BATCH_ROWS, windows.MOST_HELD = 50_000, 20_000, 8_000, 20_000
path, framed = sys.argv[1:]
data = pd.read_parquet(path) if framed == "frame" else path
options = {options}
model = TitansForecaster(**options).fit(data)
forecasts = len(model.predict(data))
# not ru_maxrss, which begins with the memory of the process that started this one
print(forecasts, re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


def peak(path: Path, how: str) -> int:
    """KiB of a process that trains and predicts."""
    program = MEASURED.replace("{options}", repr(SMALL | {"max_epochs": 1, "val_size": 8}))
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(path), how], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    forecasts, found = map(int, done.stdout.split())
    assert forecasts == 200 * 4
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_hardly_grows_with_the_rows(tmp_path):
    """Two million rows in parts of 50,000 take little of what they take as a frame."""
    few, many = (write(table(200, rows)[["unique_id", "ds", "y"]], tmp_path / str(rows)) for rows in (100, 10_000))
    least = peak(few, "parts")
    assert peak(many, "parts") - least < 0.25 * (peak(many, "frame") - least)
