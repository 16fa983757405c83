"""Paths as users write them, files that may be compressed, and files that are not finished yet."""

import csv
import errno
import gzip
import io
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from titans_seq.datamodules.common.errors import DataError

COMPRESSED = (".gz", ".bgz")  # endings of files that are read as gzip


def user_path(text: str | Path) -> Path:
    """Return a path that a user wrote, with `~` replaced by the home folder; it need not exist.

    Raises:
        DataError: no path can have this name, or `~` is followed by an unknown user.
    """
    try:
        path = Path(text).expanduser()
        if not str(text):
            raise ValueError("it is empty")
        os.lstat(path)
    except RuntimeError:
        raise DataError(f"{text}: no such user, or no home folder; write the full path") from None
    except ValueError as error:  # NUL, or a surrogate that stands for no byte
        raise DataError(f"{str(text)!r} is not a path: {error}") from None
    except OSError as error:  # anything else is for those who read or write there
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{path}: {os.strerror(error.errno)}; choose a shorter one") from None
    return path


@contextmanager
def reading(path: Path, what: str = "file") -> Iterator[None]:
    """Turn what can go wrong while a file is opened and read into a DataError.

    Args:
        path: The file, for the message.
        what: Kind of file, for the message when there is none.

    Raises:
        DataError: There is no such file, the operating system refuses it, its gzip data are damaged, it is not UTF-8
            text or the csv module cannot split it.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no {what} {path}") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"{path} is not UTF-8 text: it holds the byte {byte:#04x}; convert it with iconv") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}); copy or compress it again") from None
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None
    except OSError as error:
        raise cannot_read(path, error) from None


def require_file(path: Path, what: str = "file") -> None:
    """Raise a DataError unless the path is a file that can be opened for reading.

    Args:
        path: Where the file should be.
        what: Kind of file, for the message when there is none.
    """
    with reading(path, what):
        _require_regular(path)
        path.open("rb").close()


def _require_regular(path: Path) -> None:
    """Refuse folders, and pipes and devices, which may have no end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise DataError(f"{path} is a folder; give a file")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is a pipe or a device; give a file")


@contextmanager
def open_bytes(path: Path, what: str = "file") -> Iterator[gzip.GzipFile | io.BufferedReader]:
    """Open a file to read its bytes, decompressed if its name ends in .gz or .bgz.

    Args:
        path: The file.
        what: Kind of file, for the message when there is none.

    Raises:
        DataError: As `reading`, at any time while the file is open; the path is a folder, a pipe or a device.
    """
    with reading(path, what):
        _require_regular(path)
        with gzip.open(path) if is_compressed(path) else path.open("rb") as file:
            yield file


@contextmanager
def open_text(path: Path, what: str = "file", newline: str | None = "") -> Iterator[TextIO]:
    """Open a file to read its text, as `open_bytes`: UTF-8 with or without a byte-order mark.

    Args:
        path: The file.
        what: Kind of file, for the message when there is none.
        newline: "" keeps the ends of lines, as the csv module wants them; None makes each a line feed.
    """
    with open_bytes(path, what) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline=newline) as text:
        yield text


def is_compressed(path: Path) -> bool:
    """Tell by its name whether a file is compressed."""
    return path.suffix.lower() in COMPRESSED


def base_name(path: str | Path) -> str:
    """Return what results call a file: its name without .gz or .bgz and without the ending before that."""
    path = Path(path)
    return Path(path.stem).stem if is_compressed(path) else path.stem


def cannot_read(path: Path, error: OSError) -> DataError:
    """The error for a path that is there, but that the operating system does not let us read."""
    return DataError(f"{path} cannot be read: {error.strerror or error}")


EMBEDDED = "embedded"  # the generated default series: no file, no entry below


def data_folder(data_root: str | Path | None = None) -> Path:
    """Return the folder that holds `forecast/`: the argument, $TITANS_SEQ_DATA, or the user's cache folder."""
    chosen = data_root or os.environ.get("TITANS_SEQ_DATA")
    return user_path(chosen) if chosen else user_cache() / "titans-seq"


def user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or user_path("~/AppData/Local"))
    if sys.platform == "darwin":
        return user_path("~/Library/Caches")
    return Path(os.environ.get("XDG_CACHE_HOME") or user_path("~/.cache"))


def unfinished_name(place: Path) -> str:
    """What this process calls the file or folder that will become `place`; another name at each call, for threads."""
    return f".{place.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.part"


def remove_leftovers(place: Path) -> None:
    """Remove the unfinished files and folders beside `place` whose process ran on this machine and is dead."""
    pattern = re.compile(rf"\..+\.{re.escape(socket.gethostname())}\.(\d+)\.[0-9a-f]{{8}}\.part")
    names: list[str] = []
    with suppress(OSError):  # a folder that may be written to but not listed
        names = os.listdir(place.parent)
    for name in names:
        found = pattern.fullmatch(name)
        if found and not _alive(int(found[1])):
            path = place.parent / name
            with suppress(OSError):  # of another user: no reason not to write
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        pass
    return True
