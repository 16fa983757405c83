"""The `titans-seq` command: parser, verbs, exit codes.

Exit codes: 0 done; 2 the user's input was wrong (one line on stderr); 1 our fault (an uncaught exception, with its
    traceback); 128 and its number for a signal that ended the command, which is 130 for Ctrl-C.
PyTorch, Lightning and Hydra are imported by the verbs, not here: `--help` answers at once. What is imported here before
`main` runs takes two milliseconds, so that Ctrl-C ends in one line at any time.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import warnings
from contextlib import contextmanager

from titans_seq.cli.errors import Interrupted, UsageError
from titans_seq.cli.signals import Stops
from titans_seq.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import TextIO

LONGEST = 2000  # characters of a message

# refused by the place the user chose; anything else from the operating system is our fault
_DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
}  # fmt: skip


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `arguments.overrides` holds the KEY=VALUE words, wherever they stood."""
    from titans_seq.cli.parser import build_parser

    parser = build_parser()
    empty = next((word for word in argv if word.startswith("--") and word.endswith("=--")), None)
    if empty is not None:  # argparse makes an empty list of it
        raise UsageError(f"{empty.removesuffix('=--')} has no value; give one")
    arguments, rest = parser.parse_known_args(argv)
    if getattr(arguments, "takes_everything", False):
        arguments.rest = list(argv)[list(argv).index("lightning") + 1 :]
        return arguments
    takes_overrides = getattr(arguments, "takes_overrides", False)
    for word in rest:
        if word.startswith("-") or not takes_overrides:
            raise UsageError(f"unknown argument {word!r}{_nearest_flag(word, parser, arguments)}")
        if "=" not in word and not word.startswith("~"):
            raise UsageError(f"unexpected {word!r}: an override is written KEY=VALUE")
    arguments.overrides = rest
    return arguments


def _nearest_flag(word: str, parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    import difflib

    known = [f"--{name.replace('_', '-')}" for name in vars(arguments)]
    near = difflib.get_close_matches(word.split("=")[0], known, n=1, cutoff=0.7)
    command = " ".join([parser.prog, arguments.verb, *filter(None, [getattr(arguments, "task", None)])])
    return f"; did you mean {near[0]}?" if near and near[0] != word else f" (see `{command} --help`)"


def _one_line(message: object) -> str:
    text = str(message)
    return printable(" ".join(text.split()), LONGEST)


def _disk_message(error: OSError) -> str | None:
    if error.errno not in _DISK_ERRORS:
        return None
    place = f" ({error.filename})" if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "free some space or choose another folder" if full else "choose another place"
    return f"cannot write or read{place}: {error.strerror or os.strerror(error.errno)}; {advice}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the words after `titans-seq`; None: this process is the command, and its own words are meant.
    """
    with Stops(own_process=argv is None) as stops, _escaping("stdout"), _escaping("stderr"):
        return _run(sys.argv[1:] if argv is None else argv, stops)


@contextmanager
def _escaping(name: str) -> Iterator[None]:
    """Let a stream of sys write what its encoding does not have as an escape, instead of failing."""
    stream = getattr(sys, name)
    if not isinstance(stream, io.TextIOWrapper):  # of a caller's own kind
        yield
        return
    errors = stream.errors
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.reconfigure(errors=errors)


def _run(argv: Sequence[str], stops: Stops) -> int:
    import importlib

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            arguments = parse(argv)
            module, function = arguments.run.split(":")
            verb = getattr(importlib.import_module(module), function)
            try:
                stops.begin_work()
                verb(arguments)
                if sys.stdout is not None:  # it may be closed
                    sys.stdout.flush()
            finally:
                stops.end_work()
        return 0
    except UsageError as error:
        return _fail(error)
    except Interrupted as error:
        _say(f"interrupted; {error}")
        return stops.code
    except KeyboardInterrupt:
        _say("interrupted")
        return stops.code
    except SystemExit:  # Lightning's way of ending on Ctrl-C
        if not stops.stopped:
            raise
        _say("interrupted")
        return stops.code
    except BrokenPipeError:  # `titans-seq data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + getattr(signal, "SIGPIPE", 13)  # as if the signal had ended it; Windows has none
    except OSError as error:
        message = _disk_message(error)
        if message is None:
            raise
        return _fail(message)
    except ValueError as error:
        from titans_seq.datamodules import DataError

        if not isinstance(error, DataError):
            raise
        return _fail(error)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line: what the user's data hold that is probably not meant, anything else with where it comes from."""
    place = "" if category.__name__ == "DataWarning" else f"{filename}:{lineno}: {category.__name__}: "
    _say(f"note: {place}{message}")


def _fail(error: Exception | str) -> int:
    _say(error)
    return 2


def _say(message: object) -> None:
    """Print one line on stderr, whatever the message holds."""
    print(f"titans-seq: {_one_line(message)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
