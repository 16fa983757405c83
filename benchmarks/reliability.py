"""Long runs: does a process that works for long grow, and do processes and threads get in each other's way?

    python benchmarks/reliability.py [--quick] [--threads 1] [--write]

Each check runs in a process of its own and gives a row of the table of docs/reliability.md (`--write`): what was done,
what was measured, whether it held. The exit code is 1 if something did not. `--quick` takes a hundredth of the calls.

Growth: resident memory after a garbage collection and `malloc_trim`, sampled 50 times
(10 times of few calls). The first fifth is warm-up, in
which Python, pandas and PyTorch fill their caches; the growth is the largest sample of the last quarter less the
largest of the first quarter after the warm-up, and may be at most GROWTH. File descriptors, threads and the entries of
the folder for temporary files are counted at every sample after the first: their numbers must not change at all.
"""

import argparse
import ctypes
import gc
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pages import line, replace_part, row

from titans_seq import NeuralMemory, TitansForecaster
from titans_seq.datamodules import ForecastDataModule, download_dataset
from titans_seq.datamodules.forecast import registry
from titans_seq.datamodules.forecast.registry import DatasetSpec
from titans_seq.forecast import SimbaForecaster

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
SAMPLES, WARM_UP, GROWTH = 50, 0.2, 128  # KiB
CALLS, SERIES = 10_000, 50
Result = tuple[str, str, bool]  # what was done, what was measured, whether it held
warnings.filterwarnings("ignore", module="lightning|torch")


# what is used ---------------------------------------------------------------------------------------------------------


def frame(series: int, begin: int, rows: int) -> pd.DataFrame:
    """Rows `begin` to `begin + rows` of hourly series."""
    times = pd.date_range(pd.Timestamp("2000") + pd.Timedelta(hours=begin), periods=rows, freq="h")
    y = np.sin(np.arange(begin, begin + rows) / 5 + np.arange(series)[:, None])
    return pd.DataFrame({
        "unique_id": np.repeat([f"s{i}" for i in range(series)], rows), "ds": np.tile(times, series), "y": y.ravel(),
    })  # fmt: skip


def forecaster(series: int = 2) -> TitansForecaster:
    """A tiny one, hardly trained."""
    model = TitansForecaster(
        6, "h", lookback=24, network={"dim": 8}, max_epochs=1, steps_per_epoch=5, batch_size=8, accelerator="cpu"
    )
    return model.fit(frame(series, 0, 200))


# growth ---------------------------------------------------------------------------------------------------------------


def resident() -> int:
    """KiB in memory that are really in use."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def counts() -> tuple[int, int, int]:
    """File descriptors, threads, entries of the folder for temporary files."""
    return tuple(len(os.listdir(path)) for path in ("/proc/self/fd", "/proc/self/task", tempfile.gettempdir()))


def growth(what: str, calls: int, call: Callable[[int], object]) -> Result:
    """Make `calls` calls and measure what they leave behind."""
    memory, others, started, samples = [], set(), time.perf_counter(), min(SAMPLES, max(calls // 20, 8))
    for i in range(calls):
        call(i)
        if (i + 1) * samples // calls > i * samples // calls:
            memory.append(resident())
            others.add(counts())
    late = memory[int(WARM_UP * len(memory)) :]
    quarter = max(len(late) // 4, 1)
    grown = max(late[-quarter:]) - max(late[:quarter])
    numbers = " / ".join(map(str, next(iter(others)))) if len(others) == 1 else f"not constant: {sorted(others)}"
    said = f"{grown:+,} KiB at {max(late) / 1024:.0f} MiB; descriptors, threads, temporary files: {numbers}"
    return f"{what} ({time.perf_counter() - started:.0f} s)", said, grown <= GROWTH and len(others) == 1


def predict_often(share: float) -> Result:
    model, calls = forecaster(), int(share * CALLS)
    return growth(f"`TitansForecaster.predict`, {calls:,} times", calls, lambda i: model.predict())


def forward_often(share: float) -> Result:
    network, x, calls = SimbaForecaster(96, 24, dim=16).eval(), torch.randn(28, 96), int(share * CALLS)
    with torch.inference_mode():
        return growth(f"`SimbaForecaster` forward, {calls:,} times", calls, lambda i: network(x))


def observe_long(share: float) -> Result:
    """Streams go on: each call brings the next rows of every series, and a forecast is made from time to time."""
    model, calls, rows = forecaster(SERIES), max(20, int(share * 100)), int(share * 1_000_000)
    each = rows // calls // SERIES

    def call(i: int) -> None:
        model.observe(frame(SERIES, i * each, each))
        if i % 10 == 0:
            model.predict()

    return growth(f"`observe`, {rows:,} rows of {SERIES} series in {calls} calls", calls, call)


def layer_stream(share: float) -> Result:
    layer, x, state = NeuralMemory(16, heads=2).eval(), torch.randn(1, 1000, 16), None

    @torch.inference_mode()
    def call(i: int) -> None:
        nonlocal state
        _, state = layer(x, state=state, return_state=True)

    calls = int(share * 5000)
    return growth(f"`NeuralMemory` over a stream, {1000 * calls:,} tokens in pieces of 1,000", calls, call)


# processes and threads ------------------------------------------------------------------------------------------------


class Both(BaseHTTPRequestHandler):
    """Answers when two have asked, so that their downloads overlap."""

    content, barrier = b"", threading.Barrier(2, timeout=120)

    def do_GET(self) -> None:
        self.barrier.wait()
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        half = len(self.content) // 2
        self.wfile.write(self.content[:half])
        self.barrier.wait()
        self.wfile.write(self.content[half:])

    def log_message(self, *_: object) -> None:
        """Nothing beside the table."""


def fetch(spec: DatasetSpec, root: str, url: str, done: multiprocessing.Queue) -> None:
    """In a process of its own: download the data set, prepare it, and say what it holds."""
    registry.DATASETS = (spec,)
    download_dataset(spec.name, quiet=True, data_root=root, base_url=url)
    data = ForecastDataModule(spec.name, lookback=24, horizon=6, data_root=root)
    data.setup()
    done.put(float(data.panel.target.sum()))


def share_a_cache(share: float) -> Result:
    wide = frame(20, 0, 5000).pivot(index="ds", columns="unique_id", values="y").rename_axis("date")
    Both.content = wide.to_csv(date_format="%Y-%m-%d %H:%M:%S").encode()
    digest = hashlib.sha256(Both.content).hexdigest()
    spec = DatasetSpec("Toy", "toy.csv", ("http://127.0.0.1",), digest, 5000, 20, "h", "none")
    os.environ["no_proxy"] = "*"
    context, times = multiprocessing.get_context("spawn"), max(1, int(share * 10))
    intact = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Both) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for _ in range(times):
            with tempfile.TemporaryDirectory() as root:
                done = context.Queue()
                arguments = (spec, root, f"http://127.0.0.1:{server.server_port}", done)
                both = [context.Process(target=fetch, args=arguments) for _ in range(2)]
                for process in both:
                    process.start()
                for process in both:
                    process.join(240)
                sums = {done.get(timeout=10) for _ in both} if all(p.exitcode == 0 for p in both) else set()
                files = [path for path in Path(root).rglob("*") if path.is_file()]
                good = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files] == [digest]
                intact += good and len(sums) == 1
        server.shutdown()
    said = f"both ended well and left one intact file {intact} of {times} times"
    return f"two processes download and prepare one data set in one folder, {times:,} times", said, intact == times


def answer(model: TitansForecaster, done: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)  # a forked child has no pool of threads, and PyTorch would wait for it for ever
    done.put(model.predict().to_numpy(object).tolist())


def start_processes(share: float) -> Result:
    """After imports, a fit, and products on two threads, whose pool a fork does not copy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    model = forecaster()
    assert torch.randn(2000, 2000).mm(torch.randn(2000, 2000)).isfinite().all()
    wanted, found = model.predict().to_numpy(object).tolist(), []
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        done = context.Queue()
        process = context.Process(target=answer, args=(model, done))
        process.start()
        process.join(120)
        found.append("equal" if process.exitcode == 0 and done.get(timeout=10) == wanted else "not equal")
        if process.exitcode is None:
            process.kill()
            found[-1] = "hangs"
    torch.set_num_threads(threads)
    what = "a child process predicts, by `fork` and by `spawn`, after work on two threads"
    return what, f"fork: {found[0]}, spawn: {found[1]}", set(found) == {"equal"}


def share_a_forecaster(share: float) -> Result:
    model, times = forecaster(), max(4, int(share * 100))
    tables = [frame(2, 10 * i, 60) for i in range(8)]
    wanted = [model.predict(table) for table in tables]
    with ThreadPoolExecutor(8) as pool:
        asked = [(i, pool.submit(model.predict, tables[i])) for _ in range(times) for i in range(8)]
        equal = sum(found.result().equals(wanted[i]) for i, found in asked)
    said = f"{equal} of {len(asked)} forecasts equal to those of one thread, bit by bit"
    return f"eight threads predict with one `TitansForecaster`, {len(asked):,} times", said, equal == len(asked)


def share_a_layer(share: float) -> Result:
    layer, times = NeuralMemory(32, heads=2), max(4, int(share * 100))
    inputs = [torch.randn(2, 150 + 10 * i, 32) for i in range(8)]

    def work(x: torch.Tensor) -> list[torch.Tensor]:
        """Forward, a carried state, and the gradient of the input: parameters' gradients would be summed up."""
        x = x.clone().requires_grad_()
        y, state = layer(x, return_state=True)
        return [y, *state.memory.weights, torch.autograd.grad(y.square().sum(), x)[0]]

    wanted = [work(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        asked = [(i, pool.submit(work, inputs[i])) for _ in range(times) for i in range(8)]
        equal = sum(all(map(torch.equal, found.result(), wanted[i])) for i, found in asked)
    said = f"{equal} of {len(asked)} outputs, states and gradients equal to those of one thread, bit by bit"
    return f"eight threads use one `NeuralMemory`, {len(asked):,} times", said, equal == len(asked)


CHECKS: dict[str, Callable[[float], Result]] = {
    check.__name__: check
    for check in (
        predict_often, forward_often, observe_long, layer_stream, share_a_cache, start_processes, share_a_forecaster,
        share_a_layer,
    )
}  # fmt: skip


def run(name: str, options: list[str]) -> Result:
    """A check in a process of its own, whose temporary files have a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--only", name, *options]
        done = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": folder}
        )
        # PyTorch's own cache of compiled code has one folder there, of a user, not of a process
        left = len([name for name in os.listdir(folder) if not name.startswith("torchinductor_")])
    if done.returncode:
        return name, f"ended with exit code {done.returncode}", False
    what, said, held = json.loads(done.stdout)
    return what, said if not left else f"{said}; left {left} temporary files behind", held and not left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the calls")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    parser.add_argument("--only", choices=CHECKS, help="one check, its result as JSON")
    arguments = parser.parse_args()
    if arguments.only:
        torch.set_num_threads(arguments.threads)
        print(json.dumps(CHECKS[arguments.only](0.01 if arguments.quick else 1.0)))
        return 0
    options = ["--threads", str(arguments.threads), *(["--quick"] if arguments.quick else [])]
    table, all_held = [row("what", "measured", "held"), line(3)], True
    for name in CHECKS:
        what, said, held = run(name, options)
        table.append(row(what, said, "yes" if held else "**no**"))
        print(table[-1], flush=True)
        all_held &= held
    if arguments.write:
        replace_part(PAGE, "long runs", "\n".join(table))
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main())
