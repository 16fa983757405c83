"""A batch that no machine can hold is refused before anything is written."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from titans_seq.cli.memory import PEAK_OF_MEMORY, require_memory
from titans_seq.forecast import ForecastModule, SimbaForecaster


def test_ten_thousand_columns_are_refused(
    workdir: Path, refused: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    days = pd.date_range("2024-01-01", periods=1000, freq="D", name="date")
    pd.DataFrame(np.ones((1000, 200)).cumsum(axis=0), index=days).to_csv("wide.csv")
    pages = os.sysconf("SC_PAGE_SIZE") * 10**4
    monkeypatch.setattr(os, "sysconf", lambda name: pages if name == "SC_PAGE_SIZE" else 50)  # 2 GB
    said = refused(["fit", "forecast", "--csv", "wide.csv", "trainer.accelerator=cpu"])
    assert "a training batch of 64 windows x 200 series needs at least" in said
    assert "but there are 2 GB; give data.batch_size=" in said


def test_traffic_fits_on_a_small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ForecastModule(SimbaForecaster(lookback=96, horizon=96))
    monkeypatch.setattr(os, "sysconf", lambda name: 2**12 if name == "SC_PAGE_SIZE" else 24 * 2**18)
    require_memory(module, {"past_target": torch.randn(862, 96)}, 64, PEAK_OF_MEMORY, torch.device("cpu"))
