"""Runs hostile inputs, in this process or in one of their own, and has checked how each ended."""

import contextlib
import functools
import gc
import io
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import matplotlib
import torch
from fork_server import ForkServer
from hostile.case import DONE, REFUSED, Base, Case
from hostile.checks import FOLDERS, NAME, Outcome, check_end, check_files, snapshot

from titans_seq.cli.main import main

SECONDS = 30  # of the processor; a case that takes more hangs
PATIENCE = 90  # seconds by the clock, for what waits; other processes may take most of the machine
MEMORY = 6 * 2**30  # more than any case needs; without a bound a bomb would end the whole test run


class Overtime(BaseException):
    """The case has taken too long. Not an Exception, so that nothing on the way catches it."""


def run(case: Case, base: Base, place: Path) -> Outcome:
    """Run a case in the new folder `place`, in this process."""
    return _run(case, base, place, _in_this_process)


def run_apart(case: Case, base: Base, place: Path, *, memory: int | None = None) -> Outcome:
    """Run a case in a process of its own, which may have so many bytes of address space."""
    return _run(case, base, place, functools.partial(_in_own_process, memory=memory))


def run_forked(case: Case, base: Base, place: Path, server: ForkServer) -> Outcome:
    """Run a case in a process of its own, which need not import everything first."""
    return _run(case, base, place, functools.partial(_in_forked_process, server=server))


def _run(case: Case, base: Base, place: Path, way: Callable[[Outcome, Path], None]) -> Outcome:
    for name in FOLDERS:
        (place / name).mkdir(parents=True)
    work = place / FOLDERS[0]
    case.prepare(work)
    before, pristine = snapshot(work), snapshot(base.folder)
    outcome, begin = Outcome(case), time.perf_counter()
    with _environment(place):
        way(outcome, work)
    outcome.seconds = time.perf_counter() - begin
    check_end(outcome, work)
    check_files(outcome, place, before)
    if snapshot(base.folder) != pristine:
        outcome.problems.append("the finished runs were changed")
    return outcome


# running --------------------------------------------------------------------------------------------------------------


def _in_this_process(outcome: Outcome, work: Path) -> None:
    case = outcome.case
    with _captured() as streams, _limits():
        try:
            outcome.exit = _called(case.call) if case.call else main(case.words)
        except SystemExit as error:  # --help
            outcome.exit = int(error.code or 0)
        except Overtime as error:
            outcome.problems.append(f"hangs: not done after {SECONDS} s of the processor")
            outcome.cause = f"hang at {_ours(error)}"
        except BaseException as error:  # noqa: BLE001  # whatever comes out is what is looked for
            outcome.problems.append(f"traceback: {type(error).__name__}: {' '.join(str(error).split())[:150]}")
            outcome.cause = f"{type(error).__name__} at {_ours(error)}"
    outcome.out, outcome.err = streams
    opened = _opened_in(work.parent)
    if opened:
        outcome.problems.append(f"files were left open: {', '.join(sorted(opened))}")


def _called(call: Callable[[], object]) -> int:
    """A library call as the command would show it."""
    try:
        call()
    except (ValueError, OSError) as error:
        print(f"{NAME}{error}", file=sys.stderr)
        return REFUSED
    return DONE


def _ours(error: BaseException) -> str:
    """The innermost frame of our own code."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if "titans_seq" in frame.filename and "site-packages" not in frame.filename]
    frame = (mine or frames)[-1]
    return f"{frame.filename.rpartition('titans_seq/')[2]}:{frame.name}"


def _in_own_process(outcome: Outcome, work: Path, *, memory: int | None) -> None:
    def bound() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    command = [sys.executable, "-P", "-m", "titans_seq.cli.main", *outcome.case.words]
    own = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | _fonts()
    try:
        done = subprocess.run(
            command, preexec_fn=bound, capture_output=True, env=os.environ | own, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        outcome.problems.append(f"hangs: not done after {PATIENCE} s")
        return
    _ended(outcome, done.returncode, *(text.decode(errors="replace") for text in (done.stdout, done.stderr)))


def _in_forked_process(outcome: Outcome, work: Path, *, server: ForkServer) -> None:
    own = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "TITANS_SEQ_DATA", "TMPDIR", "COLUMNS")}
    done = server.run(list(outcome.case.words), work, environment=own | _fonts())
    _ended(outcome, done["code"], done["out"], done["err"])


def _fonts() -> dict[str, str]:
    """The cache of fonts is shared: it takes seconds to make, and would be left in the case's home."""
    return {"MPLCONFIGDIR": matplotlib.get_cachedir()}


def _ended(outcome: Outcome, code: int, out: str, err: str) -> None:
    outcome.exit, outcome.out, outcome.err = code, out, err
    if "Traceback (most recent call last)" in outcome.err:
        outcome.problems.append(f"traceback: {outcome.err.strip().splitlines()[-1][:150]}")


@contextlib.contextmanager
def _environment(place: Path) -> Iterator[None]:
    """The case's folder as current folder; what a program writes beside it shows in home and tmp."""
    work, home, tmp = (str(place / name) for name in FOLDERS)
    own = {"HOME": home, "XDG_CACHE_HOME": home, "TITANS_SEQ_DATA": f"{home}/no-data", "TMPDIR": tmp, "COLUMNS": "100"}
    old, cwd = os.environ.copy(), os.getcwd()
    os.environ.update(own)
    os.chdir(work)
    tempfile.tempdir = None  # read TMPDIR again
    try:
        yield
    finally:
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(old)
        tempfile.tempdir = None


@contextlib.contextmanager
def _captured() -> Iterator[list[str]]:
    """What is written to stdout and stderr, also by libraries that know no sys.stderr."""
    found: list[str] = []
    saved, files = [os.dup(1), os.dup(2)], [tempfile.TemporaryFile(), tempfile.TemporaryFile()]  # noqa: SIM115
    old = sys.stdout, sys.stderr
    for stream in old:
        stream.flush()
    for number, file in enumerate(files, start=1):
        os.dup2(file.fileno(), number)
    # errors: as Python opens them for a process
    sys.stdout = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(
        os.fdopen(os.dup(2), "wb"), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    try:
        yield found
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.close()
        sys.stdout, sys.stderr = old
        for number, (descriptor, file) in enumerate(zip(saved, files, strict=True), start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
            file.seek(0)
            found.append(file.read().decode(errors="replace"))
            file.close()


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Time and memory of a case; warnings as a process shows them."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Overtime

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if not torch.cuda.is_available():  # a context on a GPU reserves far more than it takes
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    timers = ((signal.ITIMER_PROF, signal.SIGPROF, SECONDS), (signal.ITIMER_REAL, signal.SIGALRM, PATIENCE))
    handlers = [signal.signal(number, ring) for _, number, _ in timers]
    for timer, _, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            for kind in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning, ImportWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        for (timer, number, _), handler in zip(timers, handlers, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _opened_in(folder: Path) -> set[str]:
    """Files below a folder that this process has open; those that only wait for the collector are not counted."""
    if not _descriptors(folder):
        return set()
    gc.collect()
    return _descriptors(folder)


def _descriptors(folder: Path) -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {path for path in found if path.startswith(str(folder))}
