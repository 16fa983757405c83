"""Jobs for `benchmarks/workers.py` that end in every way; in a file of their own, which other processes can import."""

import os
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """do: "ok" (gives the process's id), "exit", "raise" or "sleep"."""

    name: str
    do: str
    limit: float = 60

    def run(self) -> int:
        if self.do == "sleep":
            time.sleep(60)
        if self.do == "exit":
            os._exit(3)
        if self.do == "raise":
            raise ValueError("no such thing")
        return os.getpid()
