"""Finished tiny runs, which hostile inputs are made from."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import corpus
from hostile.base import make_base
from hostile.case import Base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Made once per process; no case may change it."""
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def campaign(base: Base, tmp_path: Path) -> Callable[[str], None]:
    """Run one family; a failure lists every input that did not end as expected."""
    return functools.partial(_hold, base, tmp_path)


def _hold(base: Base, folder: Path, family: str) -> None:
    outcomes = corpus.run_family(family, base, folder)
    failed = [each for each in outcomes if each.problems]
    assert not failed, f"{len(failed)} of {len(outcomes)} did not hold\n{corpus.failures(failed)}"
