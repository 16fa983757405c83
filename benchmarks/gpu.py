"""The memory on a GPU: every backend against float64, then speed and memory from 1K to 128K tokens, in a few minutes.

    python benchmarks/gpu.py [--minutes 9] [--check-only] [--output runs/gpu]
    python benchmarks/gpu.py --write [--output runs/gpu]     # a finished run into docs/performance.md, on any machine
    TRITON_INTERPRET=1 python benchmarks/gpu.py --dry-run    # the same in tiny sizes; times mean nothing without a GPU

Checks (`gpu_checks.py`) run side by side, as compiling a kernel takes seconds; then, one at a time, what `gpu_times.py`
times: tokens per second and peak memory of one memory operation (not the layer), forward and with backward, against
`chunked`, the same with its forward under torch.compile, and causal SDPA attention; each kernel by itself; the chip's
own rates. The work is ordered by worth. Each piece runs in a process that is killed when it takes too long, so a crash
costs only itself, and at the end of --minutes nothing runs any more. gpu.json is written after every piece and says
what failed and what was left out; gpu.png is drawn at the end in any case. Exits with 1 when a check is wrong or
missing, after timing all the same.

Needs torch, triton, jaxtyping, safetensors and matplotlib.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from arguments import positive
from gpu_checks import CASES, Check
from gpu_tables import picture, tables, write_page
from gpu_times import ATTENTION, COMPILED, CONTENDERS, Kernels, Rates, Shape, Timing, Warming
from workers import Failure, Job, Workers

from titans_seq.kernels import machine_of, resolve_backend

LENGTHS = [4096, 16384, 131072, 1024, 65536, 2048, 32768, 8192]  # by worth
FIRST = 2  # lengths whose kernels are timed one by one, and that every depth gets before the other lengths
TINY = {"lengths": [4, 8], "batch": 1, "heads": 1, "width": 4, "expansion": 2, "chunk_size": 4}


class Run:
    """The record of a run, kept on disk, and the time it has left."""

    def __init__(self, folder: Path, record: dict[str, Any], minutes: float, clock: Callable[[], float]) -> None:
        self.folder, self.clock, self.begun, self.minutes = folder, clock, clock(), minutes
        self.record = record | {
            "minutes": minutes,
            "checks": [],
            "floors": {},
            "times": [],
            "kernels": [],
            "compiling": [],
            "failed": [],
            "left_out": [],
        }

    def left(self) -> float:
        return 60 * self.minutes - (self.clock() - self.begun)

    def work(self, workers: Workers, jobs: Sequence[Job], side_by_side: int) -> None:
        for job, result in workers.run(jobs, side_by_side, self.left):
            if result is None:
                self.record["left_out"].append(job.name)
            elif isinstance(result, Failure):
                self.record["failed"].append({"job": job.name, "why": result.why, "output": result.output})
            else:
                self._keep(job, result)
            said = "left out" if result is None else result.why if isinstance(result, Failure) else "done"
            print(f"{self.clock() - self.begun:5.0f} s  {job.name}: {said}", flush=True)
            self.save()

    def _keep(self, job: Job, rows: list[dict[str, Any]]) -> None:
        if isinstance(job, Rates):
            self.record["floors"] = rows[0]
            return
        parts: dict[type, str] = {Check: "checks", Timing: "times", Kernels: "kernels", Warming: "compiling"}
        self.record[parts[type(job)]] += rows

    def save(self) -> None:
        self.record["spent_s"] = round(self.clock() - self.begun, 1)
        written = self.folder / "gpu.json.part"
        written.write_text(json.dumps(self.record, indent=1))
        os.replace(written, self.folder / "gpu.json")


def versions(device: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import triton

    # where the results lie is nobody's business
    words = [word for before, word in pairwise(["", *sys.argv[1:]]) if not f"{before} {word}".count("--output")]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/gpu.py", *words]),
        "dry_run": arguments.dry_run or device == "cpu",
        "dtype": arguments.dtype,
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU, in Triton's interpreter",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "python": platform.python_version(),
    }


def side_by_side(arguments: argparse.Namespace, device: str) -> list[Job]:
    """Checks, and what takes long to compile; as the compilers keep what they made on disk, it is there for the
    timings.
    """
    cases = [case.tiny() if arguments.dry_run else case for case in CASES if case.name in arguments.cases]
    checks = [Check(case, dtype, device) for case, dtype in product(cases, (torch.bfloat16, torch.float32))]
    if arguments.check_only or COMPILED not in arguments.contenders:
        return list(checks)
    warmings = [
        Warming(timing(COMPILED, shape, arguments, device)) for shape in shapes(arguments, arguments.lengths[:1])
    ]
    return [*warmings, *checks]


def one_at_a_time(arguments: argparse.Namespace, device: str) -> list[Job]:
    """What is timed, by worth."""
    dtype, seconds = getattr(torch, arguments.dtype), arguments.seconds
    jobs: list[Job] = [Rates(dtype, device, side=8192 if device == "cuda" else 64)]
    for shape in shapes(arguments, arguments.lengths[:FIRST]):
        jobs += timings(shape, arguments, device)
        if "triton" in arguments.contenders:
            jobs.append(Kernels(shape, dtype, device, seconds))
    later = [shape for length in arguments.lengths[FIRST:] for shape in shapes(arguments, [length])]
    others = [job for shape in later for job in timings(shape, arguments, device)]
    # where the compiler fails, it fails at every length, and takes its time
    return jobs + sorted(others, key=lambda job: job.what == COMPILED)


def shapes(arguments: argparse.Namespace, lengths: Iterable[int]) -> list[Shape]:
    """Depth by depth."""
    sizes = (arguments.batch, arguments.heads, arguments.width, arguments.expansion, arguments.chunk_size)
    return [Shape(length, depth, *sizes) for depth, length in product(arguments.depths, lengths)]


def timings(shape: Shape, arguments: argparse.Namespace, device: str) -> list[Timing]:
    """Of every contender; attention has no depth, and is timed with the first one."""
    first = shape.depth == arguments.depths[0]
    return [timing(what, shape, arguments, device) for what in arguments.contenders if first or what != ATTENTION]


def timing(what: str, shape: Shape, arguments: argparse.Namespace, device: str) -> Timing:
    limit = 120 if what == COMPILED else 60
    return Timing(shape, what, getattr(torch, arguments.dtype), device, arguments.seconds, limit)


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9, help="of the whole run")
    parser.add_argument("--check-only", action="store_true", help="no times; also runs in Triton's interpreter")
    parser.add_argument("--dry-run", action="store_true", help="everything in tiny sizes")
    parser.add_argument(
        "--write", action="store_true", help="run nothing: put gpu.json of --output into docs/performance.md"
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=[c.name for c in CASES],
        default=[c.name for c in CASES],
        metavar="NAME",
        help="to check",
    )
    parser.add_argument("--lengths", type=positive, nargs="+", default=LENGTHS, help="by worth")
    parser.add_argument("--depths", type=positive, nargs="+", default=[2, 1], help="by worth")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--width", type=positive, default=64, help="of keys and values, timed")
    parser.add_argument("--expansion", type=positive, default=4)
    parser.add_argument("--chunk-size", type=positive, default=64)
    parser.add_argument("--batch", type=positive, default=8)
    parser.add_argument("--heads", type=positive, default=16)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="of the tokens timed")
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long each time is measured")
    parser.add_argument("--workers", type=positive, default=min(os.cpu_count() or 1, 16), help="checks side by side")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    arguments = parser.parse_args(words)
    if arguments.dry_run:
        vars(arguments).update(TINY)
    return arguments


def write(folder: Path) -> None:
    record = json.loads((folder / "gpu.json").read_text())
    if record["dry_run"] or not record["times"] or not record["floors"]:
        sys.exit(f"{folder / 'gpu.json'} is a dry run, or holds no times: nothing to put into the page")
    write_page(folder, record)


def complaints(record: dict[str, Any]) -> list[str]:
    """What is wrong, or was not checked."""
    wrong = [
        f"{r['case']}, {r['dtype']}, {r['backend']}: wrong in {r['where']}" for r in record["checks"] if not r["right"]
    ]
    missing = [f["job"] for f in record["failed"]] + record["left_out"]
    return wrong + [f"{name}: not checked" for name in missing if name.startswith("check ")]


def main() -> None:
    arguments = parsed()
    if arguments.write:
        write(arguments.output)
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolve_backend("triton", machine_of(device, None))
    except RuntimeError as error:
        sys.exit(str(error))
    if device == "cpu" and not (arguments.check_only or arguments.dry_run):
        sys.exit("times need a CUDA device; --dry-run and --check-only run in Triton's interpreter")
    arguments.output.mkdir(parents=True, exist_ok=True)
    run = Run(arguments.output, versions(device, arguments), arguments.minutes, time.monotonic)
    try:
        with Workers() as workers:
            run.work(workers, side_by_side(arguments, device), arguments.workers)
        if not arguments.check_only:
            with Workers() as workers:  # new: what the others hold of the device would count
                run.work(workers, one_at_a_time(arguments, device), 1)
    finally:
        picture(run.record, arguments.output / "gpu.png")
    print(f"\n{tables(run.record)}\n\n{arguments.output / 'gpu.json'}\n{arguments.output / 'gpu.png'}")
    if complaints(run.record):
        sys.exit("\n".join(complaints(run.record)))


if __name__ == "__main__":
    main()
