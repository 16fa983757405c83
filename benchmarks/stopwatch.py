"""How long a function takes on a device, as a whole and by the Triton kernels that it launches.

On a CPU all of it runs too, with the CPU's clock, so that it can be tried in Triton's interpreter.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from triton.runtime.jit import KernelInterface

from titans_seq.kernels import fused

MOST_RUNS = 50


def measured(function: Callable[[], Any], device: str, seconds: float) -> dict[str, Any]:
    """Median seconds of runs for about `seconds`, 50 at most, after one to warm up and one to learn how long it takes.

    The second one's peak memory, above what was there before, in MiB: the first makes what libraries keep. Runs follow
    each other without waiting for the device and without emptying its cache: inputs of the shapes that matter are
    larger
        than that.
    """
    cuda = device == "cuda"
    function()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    once = _times(function, device, 1)[0]
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if cuda else None
    runs = int(min(max(seconds / once, 1), MOST_RUNS))
    return {"seconds": statistics.median(_times(function, device, runs)), "runs": runs, "peak_mib": peak}


def _times(function: Callable[[], Any], device: str, runs: int) -> list[float]:
    marks = []
    for _ in range(runs):
        begin = mark(device)
        function()
        marks.append((begin, mark(device)))
    return [between(begin, end) for begin, end in marks]


def mark(device: str) -> Any:
    """A moment: as the device's queue of work reaches it, or the CPU's now."""
    if device != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between(begin: Any, end: Any) -> float:
    """Seconds; waits for the device."""
    if isinstance(begin, float):
        return end - begin
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def launched(function: Callable[[], Any], device: str) -> dict[str, tuple[float, int, int]]:
    """By kernel: median seconds of all its launches in one run, how many, and chunks times heads that they went
    through.
    """
    sums: dict[str, list[float]] = {}
    for _ in range(3):
        with marked_launches(device) as launches:
            function()
        for name in dict.fromkeys(launch.kernel for launch in launches):
            found = [between(launch.begin, launch.end) for launch in launches if launch.kernel == name]
            sums.setdefault(name, []).append(sum(found))
    counts = {name: [launch.items for launch in launches if launch.kernel == name] for name in sums}
    return {name: (statistics.median(sums[name]), len(items), sum(items)) for name, items in counts.items()}


@dataclass(frozen=True)
class Launch:
    """items: programs, times the chunks that each of them goes through."""

    kernel: str
    begin: Any
    end: Any
    items: int


@contextmanager
def marked_launches(device: str) -> Iterator[list[Launch]]:
    """Every launch that `fused` makes inside, between two marks.

    One stream runs them one after another, so each is timed alone. Where the device waits for the launcher, at small
    shapes, the launcher's time is in it.
    """
    launches: list[Launch] = []
    kernels = {name: x for name, x in vars(fused).items() if isinstance(x, KernelInterface)}
    for name, kernel in kernels.items():
        setattr(fused, name, _Marked(name, kernel, device, launches))
    try:
        yield launches
    finally:
        for name, kernel in kernels.items():
            setattr(fused, name, kernel)


class _Marked:
    """In place of a kernel."""

    def __init__(self, name: str, kernel: Any, device: str, launches: list[Launch]) -> None:
        self.name, self.kernel, self.device, self.launches = name, kernel, device, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return partial(self.launch, grid)

    def launch(self, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        given = dict(zip(self.kernel.arg_names, arguments, strict=False)) | options
        begin = mark(self.device)
        self.kernel[grid](*arguments, **options)
        self.launches.append(Launch(self.name, begin, mark(self.device), math.prod(grid) * given.get("chunks", 1)))
