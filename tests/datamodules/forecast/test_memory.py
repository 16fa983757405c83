"""Loading a data set the size of ECL stays within twice the size of its float64 array."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROWS, CHANNELS = 26304, 321
ARRAY_BYTES = ROWS * CHANNELS * 8

# the peak is reset after the imports, so that it belongs to the loading
LOAD = """
import re, sys
from titans_seq.datamodules import ForecastDataModule

def status(key):
    return int(re.search(rf"{key}:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

data = ForecastDataModule("ecl", data_root=sys.argv[1], batch_size=32)
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
data.prepare_data()
data.setup("fit")
batch = next(iter(data.train_dataloader()))
assert batch["past_target"].shape == (32 * 321, 96), batch["past_target"].shape
assert data.panel.lengths.tolist() == [26304] * 321
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory from Linux's /proc")
def test_ecl_sized_data_within_twice_the_array(tmp_path: Path) -> None:
    place = tmp_path / "forecast" / "electricity.csv"
    place.parent.mkdir()
    numbers = np.random.default_rng(0).integers(0, 9999, (48, CHANNELS))
    rows = [",".join(map(str, row)) for row in numbers]
    with open(place, "w") as file:
        file.write("date," + ",".join(map(str, range(CHANNELS))) + "\n")
        for i in range(ROWS):
            hours = i % 24
            file.write(f"{2016 + i // 8760}/{1 + i // 24 % 12}/{1 + i // 288 % 28} {hours}:00,{rows[i % 48]}\n")
    run = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    print(f"peak {int(run.stdout) / ARRAY_BYTES:.2f} x the array")
    assert ARRAY_BYTES < int(run.stdout) <= 2 * ARRAY_BYTES
