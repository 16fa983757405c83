"""Shared by the tests of the data: small CSV files, a small named data set, and the folder of the real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from titans_seq.datamodules.forecast import catalog, registry
from titans_seq.datamodules.forecast.csv_files import csv_sha256
from titans_seq.datamodules.forecast.registry import DatasetSpec


@pytest.fixture
def data_root() -> Path:
    """The folder of the real data sets: $TITANS_SEQ_DATA, or the user's cache."""
    return registry.data_folder()


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    root = tmp_path / "data"
    monkeypatch.setenv("TITANS_SEQ_DATA", str(root))
    return root


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """Write text, or `rows` x `channels` random walks with hourly dates, to a CSV and return its path."""

    def write(text: str | None = None, *, rows: int = 400, channels: int = 3, name: str = "own.csv") -> Path:
        path = tmp_path / name
        if text is not None:
            path.write_text(text, encoding="utf-8", newline="")
            return path
        walks = np.random.default_rng(rows).standard_normal((rows, channels)).cumsum(0)
        frame = pd.DataFrame(walks, columns=[f"c{i}" for i in range(channels)])
        frame.insert(0, "date", pd.date_range("2024-01-01", periods=rows, freq="h"))
        frame.to_csv(path, index=False)
        return path

    return write


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[DatasetSpec, bytes]]:
    """Register a small named data set `Toy` and return its entry and its published bytes."""

    def register(*, urls: tuple[str, ...] = ("http://nowhere.invalid/toy.csv",), checksum: bool = True):
        lines = [f"2024-01-{day:02d} 00:00:00,{day},{day * day}" for day in range(1, 29)]
        # as published: a date twice, and the last row out of order; neither may matter
        lines[5], lines[27] = lines[5].replace("-06 ", "-05 "), lines[27].replace("-28 ", "-01 ")
        content = "\n".join(["date,a,b", *lines, ""]).encode()
        path = tmp_path / "published.csv"
        path.write_bytes(content)
        sha256 = csv_sha256(path) if checksum else None
        spec = DatasetSpec("Toy", "toy.csv", urls, sha256, 28, 2, "D", "CC0", (14, 7, 7))
        for module in (registry, catalog):
            monkeypatch.setattr(module, "DATASETS", (spec,))
        return spec, content

    return register
