"""Files that are either complete or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a place beside `path` to write to, which takes its name when the block ends without an error, else is
    removed.

    A file that is replaced leaves its mode to the new one.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.touch()  # where nothing can be written this shows before the work
        mode = (path if path.exists() else part).stat().st_mode
        yield part
        part.chmod(mode)  # safetensors lets nobody else read what it writes
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
