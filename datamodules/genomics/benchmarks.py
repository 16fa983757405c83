"""The data sets of the genomic-benchmarks package by name: what they are, where they lie, how they are downloaded.

The package downloads; labels are ours (it takes them from the order in which folders happen to be listed). Counts and
lengths: the official interval lists of version 0, all the package offers.
"""

import difflib
import http.client
import io
import os
import shutil
import socket
import sys
import urllib.error
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import data_folder, remove_leftovers, unfinished_name
from titans_seq.datamodules.genomics.labelled import Labelled, read_labelled_folder

SPLITS = ("train", "test")
_VERSION = 0
_TIMEOUT = 60.0  # seconds without an answer or data
# what the package lets through from a damaged archive or a page that is no metadata
_NONSENSE = (
    zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, yaml.YAMLError, ValueError, KeyError, TypeError
)  # fmt: skip


class _Refused(Exception):
    """The package did not give the data set."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """One data set.

    Args:
        class_names: sorted; a label is the position in them.
        train, test: sequences per class, in that order.
        max_length: of the longest sequence in bases.
        stranded: the strand itself carries the class, so the reverse complement is not the same example.
    """

    name: str
    class_names: tuple[str, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    max_length: int
    stranded: bool = False


_PAIR = ("negative", "positive")

BENCHMARKS: tuple[BenchmarkSpec, ...] = (
    # coding sequences are read from transcripts, always in the sense of the gene
    BenchmarkSpec(
        "demo_coding_vs_intergenomic_seqs", ("coding_seqs", "intergenomic_seqs"), (37500,) * 2, (12500,) * 2, 200, True
    ),
    BenchmarkSpec("demo_human_or_worm", ("human", "worm"), (37500,) * 2, (12500,) * 2, 200),
    BenchmarkSpec("drosophila_enhancers_stark", _PAIR, (2592,) * 2, (865,) * 2, 3237),
    BenchmarkSpec("dummy_mouse_enhancers_ensembl", _PAIR, (484,) * 2, (121,) * 2, 4776),
    BenchmarkSpec("human_enhancers_cohn", _PAIR, (10422, 10421), (3474,) * 2, 500),
    BenchmarkSpec("human_enhancers_ensembl", _PAIR, (61936,) * 2, (15485,) * 2, 573),
    BenchmarkSpec(
        "human_ensembl_regulatory",
        ("enhancer", "ocr", "promoter"),
        (85512, 69902, 75934),
        (21378, 17476, 18859),
        802,
    ),
    BenchmarkSpec("human_nontata_promoters", _PAIR, (12355, 14742), (4119, 4915), 251),
    BenchmarkSpec("human_ocr_ensembl", _PAIR, (69902,) * 2, (17476,) * 2, 593),
)

STRANDED_TASKS = ("splice",)  # tasks outside the package whose strand carries the class, see `is_stranded`


def find_benchmark(name: str) -> BenchmarkSpec:
    """Return the named data set, case ignored; an unknown name is a DataError with the nearest known one."""
    by_name = {spec.name: spec for spec in BENCHMARKS}
    if name.lower() in by_name:
        return by_name[name.lower()]
    near = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.45)
    hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(by_name)}"
    raise DataError(f"unknown data set {name!r} of genomic-benchmarks; {hint}")


def is_stranded(task: str) -> bool:
    """Tell whether the strand carries the class, so that reverse complements must not be used; case ignored.

    The one table of it: data sets of the package by their entry, others by STRANDED_TASKS, unknown names are not.
    """
    stranded = {spec.name for spec in BENCHMARKS if spec.stranded}
    return task.lower() in stranded.union(STRANDED_TASKS)


def home_of(spec: BenchmarkSpec, data_root: str | Path | None = None) -> Path:
    """Return where the data set's folder belongs, whether or not it is there."""
    return data_folder(data_root) / "genomic_benchmarks" / spec.name


def benchmark_folder(spec: BenchmarkSpec, data_root: str | Path | None = None) -> Path | None:
    """Return the folder of the data set, ours before the package's own in ~/.genomic_benchmarks, or None.

    It counts only when every class of train and test holds exactly as many .txt files as the table says: what an
    interrupted download left is no data set.
    """
    return next((folder for folder in _places(spec, data_root) if _fault(folder, spec) is None), None)


def read_benchmark(name: str, split: str, data_root: str | Path | None = None) -> Labelled:
    """Read one split, "train" or "test" (there is no other), with the classes of the table.

    Raises:
        DataError: an unknown name or split, no complete folder, or what `read_labelled_folder` refuses.
    """
    spec = find_benchmark(name)
    if split not in SPLITS:
        raise DataError(f"{spec.name} has no split {split!r}, only {' and '.join(SPLITS)}; hold out a part of train")
    folder = benchmark_folder(spec, data_root)
    if folder is None:
        looked = " and ".join(f"{place} ({_fault(place, spec)})" for place in _places(spec, data_root))
        raise DataError(f"{spec.name} is not here: {looked}; get it with `titans-seq data download {spec.name}`")
    return replace(read_labelled_folder(folder / split, spec.class_names), name=spec.name)


def download_benchmark(name: str, *, data_root: str | Path | None = None, quiet: bool = False) -> Path:
    """Return the data set's folder, downloading it by the genomic-benchmarks package if it is not here.

    It is unpacked beside its place and renamed only when its files are counted; whatever happens, nothing unfinished
    is left. The sockets' default timeout is changed meanwhile, for the whole process.

    Args:
        data_root: folder to use instead of $TITANS_SEQ_DATA or the user's cache folder.
        quiet: nothing on stderr. Nothing goes to stdout in any case.

    Raises:
        DataError: an unknown name, no network, an archive that is not the data set, a disk that refuses it, or a folder
            that is there but not complete (it is kept).
    """
    spec = find_benchmark(name)
    present = benchmark_folder(spec, data_root)
    if present is not None:
        return present
    place = home_of(spec, data_root)
    if place.exists():
        raise DataError(f"{place} is not the whole of {spec.name}: {_fault(place, spec)}; remove it and download again")
    if Path(spec.name).exists():
        raise DataError(
            f"the package would take {Path(spec.name).resolve()} for the data set; run it in another folder"
        )
    addresses = _addresses(spec)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
        with _unfinished(place) as part:
            _run_package(spec, part, quiet)
            _put(part / spec.name, place, spec)
    except (_Refused, OSError) as error:
        raise DataError(
            f"{spec.name} could not be downloaded; the genomic-benchmarks package tried {' and '.join(addresses)} "
            f"({_reason(error)}); when you are online again repeat it, or unpack the archive by hand as {place}"
        ) from None
    return place


@contextmanager
def _unfinished(place: Path) -> Iterator[Path]:
    part = place.with_name(unfinished_name(place))
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part)


def _places(spec: BenchmarkSpec, data_root: str | Path | None) -> tuple[Path, Path]:
    return home_of(spec, data_root), Path.home() / ".genomic_benchmarks" / spec.name


def _fault(folder: Path, spec: BenchmarkSpec) -> str | None:
    """Return what is missing in the folder, or None."""
    if not folder.is_dir():
        return "no folder"
    for split, counts in zip(SPLITS, (spec.train, spec.test), strict=True):
        for name, count in zip(spec.class_names, counts, strict=True):
            found = _text_files(folder / split / name)
            if found != count:
                return f"{split}/{name} holds {found} of {count} .txt files"
    return None


def _text_files(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    with os.scandir(folder) as entries:
        return sum(entry.name.endswith(".txt") for entry in entries)


def _addresses(spec: BenchmarkSpec) -> tuple[str, str]:
    """Return where the package takes its metadata and the archive from."""
    from genomic_benchmarks.loc2seq.cloud_caching import CLOUD_CACHE
    from genomic_benchmarks.utils.datasets import DATASET_URL_PATH

    archives = CLOUD_CACHE.get((spec.name, _VERSION))
    if archives is None:  # then the package would build the data set from whole genomes in memory
        raise DataError(f"the installed genomic-benchmarks has no archive of {spec.name}; install version 1.0.0")
    return f"{DATASET_URL_PATH / spec.name}/metadata.yaml", f"{archives}/files/{spec.name}_v{_VERSION}.zip"


def _run_package(spec: BenchmarkSpec, part: Path, quiet: bool) -> None:
    """Let the package unpack the data set into `part`; its prints go to stderr, or nowhere when quiet."""
    from genomic_benchmarks.loc2seq import download_dataset

    with ExitStack() as stack:
        stack.enter_context(_progress(spec.name, part / f"{spec.name}.zip", quiet))
        sink = io.StringIO() if quiet else sys.stderr
        stack.enter_context(redirect_stdout(sink))
        stack.enter_context(redirect_stderr(sink))
        stack.enter_context(_timeout(_TIMEOUT))
        try:
            download_dataset(spec.name, version=_VERSION, dest_path=part)
        except (OSError, http.client.HTTPException) as error:  # the errors of requests are OSErrors too
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise _Refused(_reason(error)) from None
        except _NONSENSE as error:
            raise _Refused(f"not the answer asked for: {type(error).__name__}: {error}") from None


def _put(folder: Path, place: Path, spec: BenchmarkSpec) -> None:
    fault = _fault(folder, spec)
    if fault is not None:
        raise _Refused(f"not the whole data set: {fault}")
    try:
        os.replace(folder, place)
    except OSError:
        if _fault(place, spec) is not None:  # else another process was faster
            raise


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Bound the package's download, which sets no timeout of its own; its first request, for metadata, stays
    unbound.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: BaseException) -> str:
    """Return the innermost reason: requests and urllib wrap it several times."""
    inner = next(
        (each for each in (getattr(error, "reason", None), *error.args) if isinstance(each, BaseException)), None
    )
    if inner is not None:
        return _reason(inner)
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


class _SizeOf(ProgressColumn):
    """The size of a file that someone else writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__()

    def render(self, task: Task) -> Text:
        try:
            return Text(decimal(self.path.stat().st_size))
        except FileNotFoundError:
            return Text("")


def _progress(name: str, archive: Path, quiet: bool) -> Progress:
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        _SizeOf(archive),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        disable=quiet or not sys.stderr.isatty(),  # a file would keep every frame
        transient=True,  # an error stays one line
    )
    progress.add_task(name, total=None)
    return progress
