"""Speed of the forecaster with default settings: seconds per training epoch, and windows per second at prediction.

    python benchmarks/forecast.py [--dataset ETTh1] [--horizon 96] [--epochs 3] [--threads 2] [--mixers memory none]
        [--batches N]

"memory, chunked" is the memory in PyTorch instead of C. Every mixer is measured in one process on the same windows,
configured as `titans-seq fit forecast` configures it; compare the ratios, absolute times belong to one machine. The
first epoch warms up; the median of the others counts.
"""

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Iterable

import lightning as L
import torch
from arguments import one_line, positive
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from titans_seq.cli.config import compose
from titans_seq.cli.constructors import build
from titans_seq.cli.errors import UsageError
from titans_seq.cli.forecast import FORECAST
from titans_seq.datamodules.common.errors import DataError
from titans_seq.forecast.outputs import make_output, raw_size
from titans_seq.mixers import MIXERS

CHUNKED = {"memory, chunked": ["model=memory", "model.backend=chunked"]}
ROWS = {mixer: [f"model={mixer}"] for mixer in (*MIXERS, "none")} | CHUNKED


class EpochTimes(L.Callback):
    """Seconds of each training epoch, without validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_: object) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def measure(config: DictConfig, epochs: int, batches: int | None) -> tuple[int, float, float]:
    """Parameters, seconds per epoch, windows per second; batches: the most of each epoch."""
    network = build(config.model, "model", outputs=raw_size(make_output(config.training.output)))
    module = build(config.training, "training", network=network)
    data = build(config.data, "data")
    data.prepare_data()
    data.setup("fit")
    times = EpochTimes()
    trainer = build(
        config.trainer, "trainer", max_epochs=epochs + 1, limit_train_batches=batches, limit_val_batches=0,
        logger=False, enable_checkpointing=False, callbacks=[times, build(config.averaging, "averaging")],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, train_dataloaders=data.train_dataloader())
    parameters = sum(p.numel() for p in network.parameters())
    rate = samples_per_second(network.eval(), itertools.islice(data.test_dataloader(), batches)) / len(data.panel)
    return parameters, statistics.median(times.seconds[1:]), rate


def samples_per_second(network: torch.nn.Module, batches: Iterable[dict[str, torch.Tensor]]) -> float:
    rates = []
    with torch.inference_mode():
        for batch in batches:
            start = time.perf_counter()
            network(batch["past_target"])
            rates.append(len(batch["past_target"]) / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ETTh1")
    parser.add_argument("--horizon", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=3, help="measured epochs, after one to warm up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mixers", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--batches", type=positive, help="the most of an epoch, to see that it runs; default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", module="lightning")

    overrides = [f"data={arguments.dataset.lower()}", f"data.horizon={arguments.horizon}"]
    with one_line(DataError, UsageError):
        rows = {
            mixer: measure(compose(FORECAST.schema, [*overrides, *ROWS[mixer]]), arguments.epochs, arguments.batches)
            for mixer in arguments.mixers
        }

    table = Table(title=f"{arguments.dataset}, horizon {arguments.horizon}, {arguments.threads} threads, CPU")
    for column in ("mixer", "parameters", "s / epoch", "x none", "windows / s"):
        table.add_column(column, justify="left" if column == "mixer" else "right")
    for mixer, (parameters, seconds, rate) in rows.items():
        ratio = f"{seconds / rows['none'][1]:.1f}" if "none" in rows else "-"
        table.add_row(mixer, f"{parameters:,}", f"{seconds:.1f}", ratio, f"{rate:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
