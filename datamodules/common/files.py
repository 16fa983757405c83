"""Paths as users write them, and files that can be read or not."""

import errno
import os
import re
import secrets
import shutil
import socket
import stat
import sys
from pathlib import Path

from titans_seq.datamodules.common.errors import DataError


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
        raise DataError(f"{text}: there is no such user, or no home folder; write the path in full") from None
    except ValueError as error:  # NUL, or a surrogate that stands for no byte
        raise DataError(f"{str(text)!r} is no path: {error}") from None
    except OSError as error:  # anything else is for those who read or write there
        if error.errno == errno.ENAMETOOLONG:
            raise DataError(f"{path}: {os.strerror(error.errno)}; choose a shorter one") from None
    return path


def require_file(path: Path, what: str = "file") -> None:
    """Raise a DataError unless the path is a file that can be opened for reading.

    Args:
        what: the kind of file, for the message where there is none.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no {what} {path}") from None
    except OSError as error:
        raise cannot_read(path, error) from None
    if stat.S_ISDIR(mode):
        raise DataError(f"{path} is a folder; give a file")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is a pipe or a device; give a file")


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
    """Remove what processes of this machine that are dead have left of `place` beside it."""
    pattern = re.compile(rf"\.{re.escape(place.name)}\.{re.escape(socket.gethostname())}\.(\d+)\.[0-9a-f]{{8}}\.part")
    for path in list(place.parent.iterdir()):
        found = pattern.fullmatch(path.name)
        if found and not _alive(int(found[1])):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
