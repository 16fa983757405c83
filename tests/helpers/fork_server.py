"""Commands in processes of their own, without importing everything again for each: a server that forks.

As a script it reads a line of JSON per command and answers with how the process ended.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

LONGEST = 120.0  # seconds of a command


class ForkServer:
    """Runs commands of titans-seq one at a time."""

    def __enter__(self) -> Self:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(
        self,
        words: list[str],
        folder: Path,
        *,
        temporary: Path | None = None,
        kill_after: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Run a command in a folder, with a folder for temporary files; `kill_after` seconds it gets a SIGKILL.

        Returns: code: of the exit, negative if a signal ended it; seconds; out, err: what it printed.
        """
        own = dict(environment or {}) | ({"TMPDIR": str(temporary)} if temporary else {})
        asked = {"words": words, "folder": str(folder), "environment": own, "after": kill_after}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _serve() -> None:
    import titans_seq.cli.dna_tools
    import titans_seq.cli.forecast
    import titans_seq.cli.lm_tools  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        with (
            tempfile.TemporaryFile("w+", errors="replace") as out,
            tempfile.TemporaryFile("w+", errors="replace") as err,
        ):
            began, process = time.monotonic(), os.fork()
            if process == 0:
                _run(asked, out.fileno(), err.fileno())
            code = _wait(process, began, asked["after"])
            seconds = time.monotonic() - began
            out.seek(0)
            err.seek(0)
            print(json.dumps({"code": code, "seconds": seconds, "out": out.read(), "err": err.read()}), flush=True)


def _kept() -> TextIO:
    return tempfile.TemporaryFile("w+", errors="replace")


def _run(asked: dict[str, Any], out: int, err: int) -> None:
    from titans_seq.cli.main import main

    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.chdir(asked["folder"])
        os.environ.update(asked["environment"])
        tempfile.tempdir = None  # read TMPDIR again
        code = main(asked["words"])
    except SystemExit as error:  # --help
        code = int(error.code or 0)
    except BaseException:  # noqa: BLE001  # as an interpreter does at its end
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(process: int, began: float, after: float | None) -> int:
    end = LONGEST if after is None else after
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - began > end:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.001)


if __name__ == "__main__":
    _serve()
