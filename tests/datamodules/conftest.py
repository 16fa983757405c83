"""Shared by the tests of the data: small CSV files, a small named data set, and the folder of the real ones."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
import torch

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
def put(no_data: Path) -> Callable[..., Path]:
    """Put a file in the place of the data set `Toy`; return its path."""

    def to(content: bytes, *, name: str = "toy.csv", root: Path = no_data) -> Path:
        (root / "forecast").mkdir(parents=True, exist_ok=True)
        (root / "forecast" / name).write_bytes(content)
        return root / "forecast" / name

    return to


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ThreadingHTTPServer]]:
    """Serve by a handler on this machine, which finds `known` at the server; `released` is set at the end."""
    monkeypatch.setenv("no_proxy", "*")
    with ExitStack() as stack:

        def start(handler: type[BaseHTTPRequestHandler], **known: object) -> ThreadingHTTPServer:
            served = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            vars(served).update(known, released=threading.Event())
            threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
            stack.callback(served.shutdown)
            stack.callback(served.released.set)
            return served

        yield start


class Recorder(lightning.LightningModule):
    """Notes what the batches of each epoch hold by a name; its weight moves, so that there is something to resume."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.name, self.seen = name, {}

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        self.seen.setdefault(self.current_epoch, []).extend(batch[self.name].tolist())
        return (batch[self.name].double().mean() - self.weight).square()

    def validation_step(self, batch: dict[str, torch.Tensor], _: int) -> None:
        """Validation runs between the epochs and must not touch their shuffles."""

    def predict_step(self, batch: dict[str, torch.Tensor], _: int) -> dict[str, torch.Tensor]:
        return batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Callable[..., tuple[Recorder, lightning.Trainer]]]:
    """Train a `Recorder`, from a checkpoint if there is one."""

    def to(data, epochs: int, name: str, checkpoint: Path | None = None) -> tuple[Recorder, lightning.Trainer]:
        module = Recorder(name)
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        return module, trainer

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated", FutureWarning)  # how Lightning 2.6 asks torch
        warnings.filterwarnings("ignore", ".*does not have many workers")  # they would only copy
        yield to


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
