"""Jobs in processes of their own: one that crashes, hangs or takes too long costs its own result and nothing else."""

import multiprocessing
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol, Self

LAST_LINES = 20  # of what a process printed before it failed


class Job(Protocol):
    """Picklable, and so is its result."""

    @property
    def name(self) -> str: ...

    @property
    def limit(self) -> float:
        """Seconds it may take."""

    def run(self) -> Any: ...


@dataclass(frozen=True)
class Failure:
    """A job that gave no result, and the last lines its process printed."""

    why: str
    output: str


class Workers:
    """Processes that are kept for the next job, and killed where a job fails or at the end of the `with` block.

    They are spawned, not forked: a CUDA context does not survive a fork. What they print goes to files.
    """

    def __init__(self) -> None:
        self.idle: list[_Worker] = []
        self.all: list[_Worker] = []  # also those that are gone

    def __enter__(self) -> Self:
        self.folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.all:
            worker.kill()
        self.folder.cleanup()

    def run(
        self, jobs: Sequence[Job], side_by_side: int, left: Callable[[], float]
    ) -> Iterator[tuple[Job, Any | Failure | None]]:
        """Jobs with their results as they come, started in their order, `side_by_side` at most at a time.

        left: seconds until everything must be done. A job then still running fails; None stands for one not started.
        """
        waiting: deque[Job] = deque(jobs)
        busy: list[_Worker] = []
        while waiting or busy:
            while waiting and len(busy) < side_by_side and (seconds := left()) > 0:
                worker = self._free()
                worker.begin(waiting.popleft(), seconds)
                busy.append(worker)
            if not busy:
                break
            wait = min(worker.deadline for worker in busy) - time.monotonic()
            ready = connection.wait([worker.pipe for worker in busy], timeout=max(wait, 0))
            for worker in [w for w in busy if w.pipe in ready or time.monotonic() >= w.deadline]:
                busy.remove(worker)
                result = worker.end()
                if not isinstance(result, Failure):
                    self.idle.append(worker)
                yield worker.job, result
        yield from ((job, None) for job in waiting)

    def _free(self) -> "_Worker":
        while self.idle:
            worker = self.idle.pop()
            if worker.process.is_alive():
                return worker
        worker = _Worker(Path(self.folder.name) / str(len(self.all)))
        self.all.append(worker)
        return worker


class _Worker:
    job: Job
    deadline: float

    def __init__(self, output: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.output = output
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, output), daemon=True)
        self.process.start()
        other.close()  # so that its end is seen here

    def begin(self, job: Job, seconds: float) -> None:
        self.job, self.begun = job, time.monotonic()
        self.deadline = self.begun + min(seconds, job.limit)
        self.pipe.send(job)

    def end(self) -> Any | Failure:
        """The result, which has come, or why there is none; then the process is gone."""
        try:
            if self.pipe.poll():
                return self.pipe.recv()
            why = f"stopped after {time.monotonic() - self.begun:.0f} s"
        except (EOFError, ConnectionResetError):  # the latter when it had not yet read its job
            self.process.join()
            why = f"its process ended with exit code {self.process.exitcode}"
        self.kill()
        return Failure(why, "\n".join(self.output.read_text(errors="replace").splitlines()[-LAST_LINES:]))

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: connection.Connection, output: Path) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    while True:
        try:
            job = pipe.recv()
        except EOFError:  # nobody asks any more
            return
        pipe.send(job.run())
