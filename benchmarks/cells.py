"""Cells of result tables: each is one command of `titans-seq` whose run folder has the cell's name."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from arguments import QUICK
from pages import replace_part
from rich.progress import track

TINY = ("trainer.limit_train_batches=2", "trainer.limit_val_batches=2")


@dataclass(frozen=True)
class Command:
    """One command, without `titans-seq` and without --output."""

    name: str
    words: tuple[str, ...]


def arguments(description: str | None, folder: str) -> argparse.Namespace:
    """The flags that all scripts of this kind have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--folder", type=Path, help=f"default: {folder}; {folder}_quick for --quick")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--dry-run", action="store_true", help="run nothing, write the tables of what is finished")
    parser.add_argument("--quick", action="store_true", help=QUICK)
    given = parser.parse_args()
    given.folder = (given.folder or Path(folder + "_quick" * given.quick)).absolute()
    given.folder.mkdir(parents=True, exist_ok=True)
    return given


def recorded(record: Path, given: argparse.Namespace) -> dict[str, dict]:
    """What earlier runs left in docs/; a quick one begins with nothing."""
    return json.loads(record.read_text()) if record.is_file() and not given.quick else {}


def publish(given: argparse.Namespace, record: Path, results: dict[str, dict], part: str, tables: str) -> None:
    """Keep the results in docs/, and their tables in results.md there; a quick run prints them."""
    if given.quick:
        print(tables)
        return
    record.write_text(json.dumps(results, indent=1) + "\n")
    replace_part(record.parent / "results.md", part, tables)


def run_all(commands: Sequence[Command], given: argparse.Namespace) -> list[str]:
    """Run commands side by side; returns the error lines of those that failed."""
    with ThreadPoolExecutor(given.workers) as pool:
        errors = pool.map(lambda command: _run(command, given.folder, TINY if given.quick else ()), commands)
        return [error for error in track(errors, total=len(commands), description="cells") if error]


def _run(command: Command, root: Path, tiny: Sequence[str]) -> str | None:
    folder = root / command.name
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted run
    return titans_seq(*command.words, *tiny, "--output", str(folder))


def titans_seq(*words: str) -> str | None:
    """Run one command quietly; returns its error line if it fails."""
    # one thread per run: two runs side by side finish sooner than one after the other on two threads
    done = subprocess.run(
        [sys.executable, "-P", "-m", "titans_seq.cli.main", *words, "--quiet"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return None if done.returncode == 0 else f"{' '.join(words)}: {done.stderr.strip() or done.returncode}"
