"""Files that are either complete or not there, and reading JSON that may come from anywhere."""

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from titans_seq.datamodules.common.files import remove_leftovers, unfinished_name

_LARGEST_TEXT = 2**28  # bytes of JSON; tokenizers have some ten million
_WINDOWS = os.name == "nt"  # opens no folders, and flushes only what is open for writing
# of a flush of a folder: file systems that cannot do it, and folders that may be written but not listed
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a place beside `path` to write to, which takes its name when the block ends without an error, else is
    removed.

    What was written is on the disk before it takes the name: whenever the process or the machine stops, `path` holds
    the old content or the new one. A file that is replaced leaves its mode to the new one. What processes that were
    killed have left in the folder is removed.

    Raises:
        OSError: of the operating system; `filename` is `path`.
    """
    path = _target(path)
    part = path.with_name(unfinished_name(path))
    try:
        try:
            part.touch()  # where nothing can be written this shows before the work
            remove_leftovers(path)
            mode = (path if path.exists() else part).stat().st_mode
            yield part
            part.chmod(mode)
            _flush(part)
            part.replace(path)
            _flush_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part)):
            error.filename, error.filename2 = str(path), None
        raise


def _target(path: Path) -> Path:
    """Where the content goes: what a link points to; a pipe or a device would be replaced by a file."""
    target = path.resolve() if path.is_symlink() else path
    if target.exists() and not target.is_file() and not target.is_dir():
        raise FileExistsError(errno.EEXIST, "it is a pipe or a device; give a file", str(path))
    return target


def write_files(contents: Mapping[Path, Iterable[bytes | memoryview]]) -> None:
    """Write files that belong together, each in pieces, see `replacing`: where one has no room none is changed. The
    first takes its name last.
    """
    with ExitStack() as stack:
        for path, pieces in contents.items():
            with stack.enter_context(replacing(path)).open("wb") as file:
                file.writelines(pieces)


def write_text(path: Path, text: str) -> None:
    """Write a text file, see `replacing`."""
    write_files({path: [text.encode()]})


def read_content(path: Path) -> bytes:
    """The bytes of a file that describes something: no pipe or device, which may have no end, and of bounded size.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or too large.
    """
    kind = path.stat()
    if not stat.S_ISREG(kind.st_mode):
        raise ValueError(f"{path} is not a regular file")
    if kind.st_size > _LARGEST_TEXT:
        raise ValueError(f"{path} is too large: {kind.st_size:,} bytes, at most {_LARGEST_TEXT:,} are read")
    return path.read_bytes()


def read_json(path: Path) -> Any:
    """The values in a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no JSON, or JSON that is nested too deeply.
    """
    return parse_json(read_content(path), str(path))


def parse_json(text: str | bytes, place: str) -> Any:
    """As `read_json`, of a text; place: where it stands, for the error."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{place} is damaged: its JSON is nested too deeply") from None
    except ValueError:  # UnicodeDecodeError and JSONDecodeError among them, and numbers of thousands of digits
        raise ValueError(f"{place} is damaged: it holds no JSON") from None


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """The new name, too, is then on the disk."""
    if _WINDOWS:
        return
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
