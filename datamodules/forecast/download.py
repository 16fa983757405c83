"""Download a named data set once: checked, and renamed into place only when complete."""

import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import remove_leftovers, unfinished_name
from titans_seq.datamodules.forecast.csv_files import require_published
from titans_seq.datamodules.forecast.registry import DatasetSpec, find_spec, home_of, locate, missing

_CHUNK_BYTES = 2**16


class _Refused(Exception):
    """One address did not give the file; the next may."""


def download_dataset(
    name: str,
    *,
    quiet: bool = False,
    data_root: str | Path | None = None,
    base_url: str | None = None,
    timeout: float = 30.0,
) -> Path:
    """Return the data set's file, downloading it if it is absent; a file that is there already is only checked.

    Args:
        name: a name of the registry, case ignored.
        quiet: no progress bar.
        data_root: folder to use instead of $TITANS_SEQ_DATA or the user's cache folder.
        base_url: take `base_url/<file>` (a mirror) instead of the published addresses.
        timeout: seconds without an answer or data until an address is given up.

    Raises:
        DataError: the present file is not the published one, or no address gave the right bytes, or the disk refused
            them. Whatever happens, an unfinished file never stands in the data set's place.
    """
    spec = find_spec(name)
    present = locate(spec, data_root)
    if present is not None:
        require_published(present, spec)
        return present
    if not spec.urls:
        raise missing(spec, data_root)
    urls = spec.urls if base_url is None else (f"{base_url.rstrip('/')}/{spec.file}",)
    place = home_of(spec, data_root)
    failures = []
    for url in urls:
        try:
            _fetch(url, place, spec, quiet, timeout)
            return place
        except _Refused as refused:
            failures.append(f"{url} ({refused})")
    raise DataError(
        f"{spec.name} could not be downloaded; tried {' and '.join(failures)}; when you are online again repeat it, or "
        f"put the file by hand at {place}"
    )


def _fetch(url: str, place: Path, spec: DatasetSpec, quiet: bool, timeout: float) -> None:
    with _unfinished(place) as part:
        _save(url, part, spec, quiet, timeout)
        try:
            require_published(part, spec)
        except DataError:
            what = "wrong sha256" if spec.sha256 else f"not {spec.rows} rows x {spec.channels} channels"
            raise _Refused(f"{what}: not the published file") from None
        with _disk(place):
            os.replace(part, place)


@contextmanager
def _unfinished(place: Path) -> Iterator[Path]:
    """Give a temporary file beside `place`, and remove it unless it was renamed, also on Ctrl-C; after a kill the next
    download does.
    """
    with _disk(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
    part = place.with_name(unfinished_name(place))
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _save(url: str, part: Path, spec: DatasetSpec, quiet: bool, timeout: float) -> None:
    with _progress(quiet) as progress, _disk(part), open(part, "wb") as file:
        task = progress.add_task(spec.name, total=None)
        for chunk, total in _received(url, timeout):
            file.write(chunk)
            progress.update(task, advance=len(chunk), total=total)


def _received(url: str, timeout: float) -> Iterator[tuple[bytes, int | None]]:
    """Yield (chunk, announced length); every fault of the network, a short answer included, is a `_Refused`."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            total, received = answer.length, 0
            while chunk := answer.read(_CHUNK_BYTES):
                received += len(chunk)
                yield chunk, total
    except urllib.error.HTTPError as error:
        error.close()
        raise _Refused(f"HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _Refused(str(getattr(reason, "strerror", None) or reason or type(error).__name__)) from None
    if total is not None and received < total:
        raise _Refused(f"the server closed after {received} of {total} bytes")


@contextmanager
def _disk(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {place.parent}: {error.strerror or error}; make room or access there, or set TITANS_SEQ_DATA"
        ) from None


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=quiet or not sys.stderr.isatty(),  # a file would keep every frame
        transient=True,  # an error stays one line
    )
