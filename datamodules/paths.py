"""Paths as users write them, and files that can be read or not."""

import errno
import os
import stat
from pathlib import Path

from titans_seq.datamodules.series import DataError


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
