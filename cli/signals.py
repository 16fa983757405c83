"""What Ctrl-C, `kill` and a closed terminal do: SIGINT, SIGTERM and SIGHUP end a command alike.

Imports nothing that takes time: until these handlers are set, Ctrl-C ends in a traceback.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
STOPS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class Stops:
    """Handlers of the signals that end a command, while a `with` block lasts.

    A signal raises KeyboardInterrupt, on which Lightning ends a training. Before `begin_work` and after `end_work` it
    ends the process at once: modules that are being imported turn a KeyboardInterrupt into errors of their own. A
    signal that is ignored, as under `nohup`, stays ignored.

    Args:
        own_process: nothing but the command runs here: the process may end at once, before and after the work. False:
            Python code called it, and gets its handlers back.
    """

    def __init__(self, *, own_process: bool) -> None:
        self.own_process = self.abrupt = own_process
        self.stopped = False  # a signal came
        self.code = 128 + signal.SIGINT  # exit code after the last signal
        self._before: dict[int, object] = {}

    def begin_work(self) -> None:
        """From here on the work is told, and may keep what it has."""
        self.abrupt = False

    def end_work(self) -> None:
        """From here on there is nothing left to keep: a second Ctrl-C must not end in a traceback of the first."""
        self.abrupt = self.own_process

    def __enter__(self) -> Self:
        for number in STOPS:
            before = signal.getsignal(number)
            if before is signal.SIG_IGN or before is None:  # None: handled by another library, in C
                continue
            try:
                signal.signal(number, self._stop)
            except ValueError:  # only the main thread can set handlers, and only it receives signals
                break
            self._before[number] = before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.own_process:  # the interpreter is yet to clear up, and Ctrl-C there would end in a traceback
            return
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped, self.code = True, 128 + number
        if self.abrupt:
            os.write(2, b"titans-seq: interrupted\n")
            os._exit(self.code)
        raise KeyboardInterrupt
