"""Runs hostile inputs in this process, and says what is wrong with the way each ended."""

import contextlib
import gc
import io
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from hostile.case import DONE, EITHER, REFUSED, Base, Case

from titans_seq.cli.main import main

SECONDS = 10  # of the processor; a case that takes more hangs
PATIENCE = 90  # seconds by the clock, for what waits; other processes may take most of the machine
LONGEST = 2500  # characters of a line
MEMORY = 6 * 2**30  # more than any case needs; without a bound a bomb would end the whole test run
NOTE, NAME = "titans-seq: note:", "titans-seq: "
BESIDE = (".lock", ".fai")  # the lock of a run and the index of a genome lie beside them, whatever comes of the command
FOLDERS = ("work", "home", "tmp")

Snapshot = dict[str, tuple[int, int]]


class Overtime(BaseException):
    """The case has taken too long. Not an Exception, so that nothing on the way catches it."""


@dataclass
class Outcome:
    """How a case ended; problems: empty if as expected. cause: where an exception that was not caught came from."""

    case: Case
    exit: int | None = None
    out: str = ""
    err: str = ""
    problems: list[str] = field(default_factory=list)
    cause: str | None = None
    seconds: float = 0.0

    def __str__(self) -> str:
        line = self.err.strip().splitlines()[-1:] or [""]
        return f"{self.case}: {'; '.join(self.problems)} | {line[0][:200]!r}"


def snapshot(folder: Path) -> Snapshot:
    """Size and time of change of every file below a folder."""
    found: Snapshot = {}
    for place, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            path = os.path.join(place, name)
            status = os.lstat(path)
            found[os.fsdecode(os.path.relpath(path, os.fsencode(folder)))] = (status.st_size, status.st_mtime_ns)
    return found


def run(case: Case, base: Base, place: Path) -> Outcome:
    """Run a case in the new folder `place`, in this process."""
    return _run(case, base, place, _in_this_process)


def run_apart(case: Case, base: Base, place: Path) -> Outcome:
    """Run a case in a process of its own."""
    return _run(case, base, place, _in_own_process)


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
    _check_end(outcome, work)
    _check_files(outcome, place, before)
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


def _in_own_process(outcome: Outcome, work: Path) -> None:
    command = [sys.executable, "-P", "-m", "titans_seq.cli.main", *outcome.case.words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False)
    outcome.exit = done.returncode
    outcome.out, outcome.err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))


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


# checking -------------------------------------------------------------------------------------------------------------


def _check_end(outcome: Outcome, work: Path) -> None:
    case, problems = outcome.case, outcome.problems
    if outcome.exit is None:
        return
    expected = (DONE, REFUSED) if case.exit == EITHER else (case.exit,)
    if outcome.exit not in expected:
        problems.append(f"exit code {outcome.exit}, not {' or '.join(map(str, expected))}")
        outcome.cause = outcome.cause or f"exit {outcome.exit} instead of {case.exit}"
    lines = [line for line in outcome.err.split("\n") if line and not line.startswith(NOTE)]
    if outcome.exit == REFUSED:
        problems += _problems_of_lines(lines, case)
    elif outcome.exit == DONE:
        if lines:
            problems.append(f"{len(lines)} lines on stderr beside notes: {lines[0][:150]!r}")
        if case.exit == DONE and case.makes and not (work / case.makes).is_file():
            problems.append(f"{case.makes} was not made")
    for name, text in (("stderr", outcome.err), ("stdout", outcome.out)):
        raw = {
            f"U+{ord(letter):04X}" for letter in text if letter not in "\n\t" and unicodedata.category(letter) == "Cc"
        }
        if raw and case.words[:1] != ("generate",):  # which prints what a model draws
            problems.append(f"control characters on {name}: {', '.join(sorted(raw))}")


def _problems_of_lines(lines: list[str], case: Case) -> list[str]:
    if len(lines) != 1:
        return [f"{len(lines)} lines on stderr, not 1: {[line[:120] for line in lines[:3]]}"]
    (line,) = lines
    problems = []
    if not line.startswith(NAME):
        problems.append(f"the line does not begin with {NAME!r}")
    if len(line) > LONGEST:
        problems.append(f"the line has {len(line):,} characters")
    if not re.search(case.says, line, re.IGNORECASE):
        problems.append(f"the line does not name {case.says!r}")
    return problems


def _check_files(outcome: Outcome, place: Path, before: Snapshot) -> None:
    beside = {name for name in os.listdir(place) if name not in FOLDERS}
    if beside:
        outcome.problems.append(f"written outside: {', '.join(sorted(beside))}")
    for name in FOLDERS[1:]:
        left = list(snapshot(place / name))
        if left:
            outcome.problems.append(f"left in {name}: {', '.join(left[:3])}")
    if outcome.exit == REFUSED:
        after = snapshot(place / FOLDERS[0])
        changed = sorted(name for name in after.keys() | before.keys() if after.get(name) != before.get(name))
        changed = [name for name in changed if not name.endswith(BESIDE)]
        if changed:
            outcome.problems.append(f"refused, but changed {', '.join(changed[:3])}"[:300])
