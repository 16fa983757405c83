"""benchmarks/reliability.py in small sizes, and that it finds what it looks for."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and descriptors are read from Linux's /proc")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SLOW = "share_a_cache"  # starts two processes that import everything
CHECKS = ("predict_often", "forward_often", "observe_long", "layer_stream", "start_processes", "share_a_forecaster")
CHECKS += ("share_a_layer", SLOW)


@pytest.fixture
def reliability(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Scripts import each other as they lie beside each other; temporary files go to a folder of their own."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    import reliability

    # of so few calls the warm-up is a part; a leak of a forecast per call would be more
    monkeypatch.setattr(reliability, "GROWTH", 1024)
    return reliability


@pytest.mark.parametrize("name", [pytest.param(c, marks=[pytest.mark.slow] * (c == SLOW)) for c in CHECKS])
def test_it_holds(reliability: ModuleType, name: str) -> None:
    assert set(reliability.CHECKS) == set(CHECKS)
    what, measured, held = reliability.CHECKS[name](0.002)
    assert held, f"{what}: {measured}"


def test_growth_is_found(reliability: ModuleType) -> None:
    kept, files = [], []
    assert reliability.growth("nothing", 16, lambda i: bytearray(10**6))[2]
    assert not reliability.growth("memory", 16, lambda i: kept.append(bytearray(os.urandom(10**6))))[2]
    _, measured, held = reliability.growth("descriptors", 16, lambda i: files.append(os.open(os.devnull, os.O_RDONLY)))
    assert not held and "not constant" in measured
    for file in files:
        os.close(file)
