"""Files of published data sets: read block by block, and known by their shape."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules.forecast import csv_files
from titans_seq.datamodules.forecast.csv_files import csv_shape, read_published_csv

Write = Callable[..., Path]
GOOD = "date,a,b\n2024-01-01,1,2\n2024-01-02,3,4.5\n2024-01-03,-1e3,0\n"


@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_blocks_do_not_change_what_is_read(write_csv: Write, toy, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    spec, _ = toy(checksum=False)
    path = write_csv(rows=23)
    monkeypatch.setattr(csv_files, "_BLOCK_VALUES", block)
    monkeypatch.setattr(csv_files, "_BLOCK_ROWS", 1)
    panel = read_published_csv(path, replace(spec, rows=23, channels=3, frequency="h"))
    whole = pd.read_csv(path, parse_dates=["date"])
    np.testing.assert_array_equal(panel.target.reshape(3, -1).T, whole[["c0", "c1", "c2"]].to_numpy())
    assert list(panel.times[: len(whole)]) == list(whole["date"])


def test_shape_counts_rows_not_line_ends(write_csv: Write) -> None:
    assert csv_shape(write_csv(GOOD)) == (3, 2)
    assert csv_shape(write_csv(GOOD.rstrip("\n"))) == (3, 2)
    assert csv_shape(write_csv(GOOD + "\n\n")) == (3, 2)
    assert csv_shape(write_csv("")) == (0, 0)
