"""What is wrong with the way a hostile input ended."""

import os
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from hostile.case import DONE, EITHER, REFUSED, Case

LONGEST = 2500  # characters of a line
NOTE, NAME = "titans-seq: note:", "titans-seq: "
FOLDERS = ("work", "home", "tmp")
# the lock of a run and the index of a genome lie beside them, whatever comes of the command
BESIDE = (".lock", ".fai")

Snapshot = dict[str, tuple[int, int]]


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


def check_end(outcome: Outcome, work: Path) -> None:
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


def check_files(outcome: Outcome, place: Path, before: Snapshot) -> None:
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
