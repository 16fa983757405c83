"""Unfinished downloads: named after the process that makes them, so that those of dead processes can be told."""

import os
import re
import secrets
import shutil
import socket
from pathlib import Path


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
