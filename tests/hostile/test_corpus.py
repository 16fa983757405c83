"""The corpus as a whole: how large it is, that its checks see what they are for, and some of it as processes."""

import re
import sys
from pathlib import Path
from typing import TextIO

import pytest
from fork_server import ForkServer
from hostile import corpus
from hostile.case import DONE, Base, Case
from hostile.checks import Outcome
from hostile.runner import run, run_apart, run_forked

LEAST = 600
APART, FRESH = 24, 2  # inputs that run as processes, and as fresh ones that import everything first


def test_the_corpus_is_large_and_its_names_are_unique(base: Base) -> None:
    cases = corpus.every_case(base)
    assert len(cases) >= LEAST
    assert len({str(case) for case in cases}) == len(cases)
    assert len({case.kind for case in corpus.of_every_kind(cases, APART)}) >= 10


def test_some_inputs_end_as_expected_in_processes_of_their_own(base: Base, tmp_path: Path) -> None:
    cases = corpus.of_every_kind(corpus.every_case(base), APART)
    outcomes = [run_apart(case, base, tmp_path / f"fresh-{i}") for i, case in enumerate(cases[:FRESH])]
    with ForkServer() as server:
        outcomes += [run_forked(case, base, tmp_path / str(i), server) for i, case in enumerate(cases[FRESH:])]
    failed = [each for each in outcomes if each.problems]
    assert len(outcomes) == APART and not failed, corpus.failures(failed)


def _run(base: Base, folder: Path, call: object, exit: int = DONE) -> Outcome:
    return run(Case("check", "x", exit=exit, call=call), base, folder)  # type: ignore[arg-type]


def _raises() -> None:
    raise KeyError("x")


def _refuses(message: str) -> None:
    raise ValueError(message)


def _writes(path: str) -> None:
    Path(path).write_text("")


_kept: list[TextIO] = []


def _opens() -> None:
    Path("file").write_text("")
    _kept.append(Path("file").open())  # noqa: SIM115


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (_raises, "traceback: KeyError"),
        (lambda: _refuses("no"), "exit code 2"),
        (lambda: print("x", file=sys.stderr), "1 lines on stderr"),
        (lambda: print("\x1b[31m"), "control characters on stdout: U\\+001B"),
        (lambda: _writes("../outside"), "written outside: outside"),
        (lambda: _writes("../tmp/left"), "left in tmp: left"),
        (_opens, "files were left open"),
        (lambda: sys.exit(3), "exit code 3"),
    ],
)
def test_the_checks_see_what_is_wrong(call: object, said: str, base: Base, tmp_path: Path) -> None:
    outcome = _run(base, tmp_path / "case", call)
    while _kept:
        _kept.pop().close()
    assert any(re.search(said, each) for each in outcome.problems), outcome


@pytest.mark.parametrize(
    ("message", "said"),
    [("one\ntwo", "2 lines"), ("x" * 3000, "3,012 characters"), ("\x9b31m", "U\\+009B")],
)
def test_the_checks_see_lines_that_are_none(message: str, said: str, base: Base, tmp_path: Path) -> None:
    outcome = _run(base, tmp_path / "case", lambda: _refuses(message), exit=2)
    assert any(re.search(said, each) for each in outcome.problems), outcome


def test_what_ends_as_expected_has_no_problems(base: Base, tmp_path: Path) -> None:
    assert not _run(base, tmp_path / "a", lambda: None).problems
    assert not _run(base, tmp_path / "b", lambda: _refuses("no"), exit=2).problems
