"""100,000 series from a folder of Parquet files, trained and predicted: peak memory, disk and time, beside what the
rows take as a frame.

    python benchmarks/scale.py [--series 100000] [--rows 500] [--epochs 5] [--folder runs/scale] [--quick]

Hourly series of many sizes, each with a daily cycle of its own and noise, in files of 24 hours of all series: no file
holds a whole series. A process of its own trains a `TitansForecaster` with default settings (24 steps from 96, 200
batches of 64 windows an epoch) on all but the last day and predicts it. Peak memory is the process's (VmHWM, Linux).
MASE is of the forecast, and of the day before as forecast.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from arguments import QUICK, positive
from pages import line, replace_part, row
from rich.progress import track

DOCS = Path(__file__).parent.parent / "docs"
DAY = 24


def sizes(series: int) -> tuple[np.ndarray, np.ndarray]:
    """Size and phase of every series."""
    random = np.random.default_rng(0)
    return 10 ** random.uniform(-1, 3, series), random.uniform(0, 2 * np.pi, series)


def day_of(series: int, day: int) -> np.ndarray:
    """Values [24, N] of a day."""
    size, phase = sizes(series)
    random = np.random.default_rng([1, day])
    hours = np.arange(day * DAY, (day + 1) * DAY)[:, None]
    shape = np.sin(2 * np.pi * hours / DAY + phase) + 0.5 * np.sin(4 * np.pi * hours / DAY + 3 * phase)
    return size * (3 + shape + 0.3 * random.standard_normal((DAY, series)))


def write(folder: Path, series: int, rows: int) -> Path:
    """The files of all days but the last one, written once."""
    made = folder / f"{series}x{rows}"
    done = made / "_done"
    if done.exists():
        return made
    made.mkdir(parents=True, exist_ok=True)
    names = np.array([f"series-{i:06d}" for i in range(series)])
    for day in track(range(rows // DAY), "writing days"):
        hours = pd.date_range("2024-01-01", periods=DAY, freq="h") + pd.Timedelta(days=day)
        table = {"unique_id": np.tile(names, DAY), "ds": hours.repeat(series), "y": day_of(series, day).ravel()}
        pd.DataFrame(table).to_parquet(made / f"{day:05d}.parquet", index=False)
    done.touch()
    return made


def memory(what: str) -> float:
    """VmRSS or VmHWM of this process, GiB."""
    return int(re.search(rf"{what}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20


def fit_and_predict(path: Path, epochs: int, steps: int, output: Path) -> None:
    from titans_seq import TitansForecaster

    found = {"libraries": memory("VmRSS")}
    model = TitansForecaster(horizon=DAY, lookback=96, max_epochs=epochs, steps_per_epoch=steps, progress=True)
    start = time.perf_counter()
    model.fit(path)
    found |= {"fit minutes": (time.perf_counter() - start) / 60, "fit": memory("VmHWM")}
    start = time.perf_counter()
    forecast = model.predict(level=(80,))
    found |= {"predict minutes": (time.perf_counter() - start) / 60, "predict": memory("VmHWM")}
    forecast[["Titans"]].to_parquet(output / "forecast.parquet")
    (output / "found.json").write_text(json.dumps(found))


def mase(path: Path, output: Path, series: int, rows: int) -> tuple[float, float]:
    """Errors of the forecast and of the day before, each over the mean absolute daily difference of the last 4 days
    before.
    """
    days = [day_of(series, day) for day in range(rows // DAY - 5, rows // DAY + 1)]
    scale = np.abs(np.diff(np.stack(days[:-1]), axis=0)).mean(axis=(0, 1))
    forecast = pd.read_parquet(output / "forecast.parquet")["Titans"].to_numpy().reshape(series, DAY).T
    return tuple(float((np.abs(each - days[-1]).mean(axis=0) / scale).mean()) for each in (forecast, days[-2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=positive, default=100_000)
    parser.add_argument("--rows", type=positive, default=500, help="of each series, whole days of them")
    parser.add_argument("--epochs", type=positive, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/scale"))
    parser.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)  # the process that is measured
    parser.add_argument("--quick", action="store_true", help=QUICK)
    given = parser.parse_args()
    if given.quick:
        given.series, given.rows, given.epochs = 3, 240, 1
    path = write(given.folder, given.series, given.rows)
    if given.measured:
        fit_and_predict(path, given.epochs, 2 if given.quick else 200, given.folder)
        return
    subprocess.run([sys.executable, *sys.argv, "--measured"], check=True)
    found = json.loads((given.folder / "found.json").read_text())
    ours, naive = mase(path, given.folder, given.series, given.rows)
    count = given.series * (given.rows // DAY) * DAY
    frame = (
        count * (len("series-000000") + 49 + 8 + 8 + 8) / 2**30
    )  # a str of so many letters, its pointer, time and value
    disk = sum(file.stat().st_size for file in path.iterdir()) / 2**30
    lines = [
        row(
            "series",
            "rows",
            "Parquet, GiB",
            "as a frame, GiB",
            "libraries",
            "peak of fit",
            "of predict",
            "minutes",
            "MASE",
            "naive",
        ),
        line(10),
        row(
            f"{given.series:,}",
            f"{count:,}",
            f"{disk:.1f}",
            f"{frame:.1f}",
            f"{found['libraries']:.2f}",
            f"{found['fit']:.2f}",
            f"{found['predict']:.2f}",
            f"{found['fit minutes']:.0f} + {found['predict minutes']:.0f}",
            f"{ours:.3f}",
            f"{naive:.3f}",
        ),
    ]
    if not given.quick:
        replace_part(DOCS / "performance.md", "scale table", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
