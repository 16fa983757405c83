"""Under a bound on memory what is refused only after it was allocated shows: bombs and huge sizes end as before."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hostile import corpus, damage
from hostile.case import Base
from hostile.runner import run_apart

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="a context on a GPU reserves more memory than the bound"),
]
SPARE = 2**30  # bytes beyond what the command takes on an untouched run
LARGE = re.compile(r"bomb|huge|nested|e\+\d\d|1000000000|ids-of|expanded|columns|megabyte|exabytes|with-gaps")
MOST = 40
_MEASURED = """
import re, sys
from pathlib import Path
from titans_seq.cli.main import main
assert main(sys.argv[1:]) == 0
print("peak", re.search(r"VmPeak:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.fixture(scope="module")
def bound(base: Base, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The address space of a process that tests an untouched run, and as much as is to spare."""
    folder = tmp_path_factory.mktemp("untouched")
    damage.copied(base, "forecast")(folder)
    command = [sys.executable, "-P", "-c", _MEASURED, *damage.uses(base)["forecast"]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return int(done.stdout.split("peak")[-1]) * 1024 + SPARE


def test_large_inputs_end_as_expected_in_little_memory(base: Base, bound: int, tmp_path: Path) -> None:
    large = (case for case in corpus.every_case(base) if LARGE.search(case.name))
    cases = corpus.of_every_kind(large, MOST)
    outcomes = [run_apart(case, base, tmp_path / str(i), memory=bound) for i, case in enumerate(cases)]
    failed = [each for each in outcomes if each.problems]
    assert len(outcomes) == MOST and not failed, corpus.failures(failed)
