"""Speed of the forecaster: seconds per training epoch and windows per second at prediction, for every mixer.

    python benchmarks/forecast.py [--dataset ETTh1] [--horizon 96] [--epochs 3] [--threads 2]

All mixers are measured in one process on the same windows; compare the ratios, absolute times belong to one machine. The
first epoch warms up; the median of the others counts.
"""

import argparse
import statistics
import time

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from titans_seq.datamodules import ForecastDataModule
from titans_seq.forecast import MIXERS, ForecastModule, SimbaForecaster


class EpochTimes(L.Callback):
    """Seconds of each training epoch, without validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: object) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, *_: object) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def seconds_per_epoch(network: SimbaForecaster, data: ForecastDataModule, epochs: int) -> float:
    times = EpochTimes()
    trainer = L.Trainer(
        max_epochs=epochs + 1, limit_val_batches=0, logger=False, enable_checkpointing=False, callbacks=[times],
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(ForecastModule(network), train_dataloaders=data.train_dataloader())
    return statistics.median(times.seconds[1:])


def windows_per_second(network: SimbaForecaster, data: ForecastDataModule) -> float:
    network.eval()
    with torch.inference_mode():
        rates = []
        for batch in data.test_dataloader():
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
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = ForecastDataModule(arguments.dataset, horizon=arguments.horizon)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")

    table = Table(title=f"{arguments.dataset}, horizon {arguments.horizon}, {arguments.threads} threads, CPU")
    for column in ("mixer", "parameters", "s / epoch", "x none", "windows / s"):
        table.add_column(column, justify="left" if column == "mixer" else "right")
    rows = {}
    for mixer in MIXERS:
        network = SimbaForecaster(data.lookback, data.horizon, mixer=mixer)
        parameters = sum(p.numel() for p in network.parameters())
        rows[mixer] = parameters, seconds_per_epoch(network, data, arguments.epochs), windows_per_second(network, data)
    for mixer, (parameters, seconds, rate) in rows.items():
        ratio = seconds / rows["none"][1]
        table.add_row(mixer, f"{parameters:,}", f"{seconds:.1f}", f"{ratio:.1f}", f"{rate:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
