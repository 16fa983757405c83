"""`titans-seq data audit`: how much of a test set its train set gives away, by overlap and by length."""

import argparse
import difflib
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from titans_seq.cli.tables import show_table
from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import data_folder, user_path
from titans_seq.datamodules.genomics.intervals import (
    Intervals,
    OverlapCounts,
    OverlapReport,
    overlap_audit,
    read_bed,
    read_interval_lists,
)
from titans_seq.printable import printable

COLUMNS = (
    "data set", "classes", "train", "test", "length", ">= 1 bp", ">= 50 %", "identical", "other class", "length only"
)  # fmt: skip
_ARCHIVE = Path("genomic_benchmarks", "interval_lists.tar")
_SOURCE = (
    "the lists are the folder `datasets` of https://github.com/ML-Bioinfo-CEITEC/genomic_benchmarks: clone it and name "
    "that folder with --path; intervals of your own go in as BED by --train and --test"
)
_MUCH_OVERLAP = 0.01  # what two random halves of a genome's regions share stays below
_MUCH_LENGTH = 0.02


def audit_command(arguments: argparse.Namespace) -> None:
    """Print one row per data set, per class too where there is one data set only, and what to do about it.

    Args:
        arguments: path, a folder of interval lists with several data sets, one data set, or a tar of them (None: the
            one in the data folder) and names, those to audit (empty: all); or train and test, two BED files.

    Raises:
        DataError: nothing there, a name that is not, files that cannot be read, or both kinds of arguments.
    """
    reports = _bed_reports(arguments) if arguments.train or arguments.test else _list_reports(arguments)
    rows = [row for name, report in reports.items() for row in _rows(name, report, classes=len(reports) == 1)]
    show_table("test intervals that overlap train intervals", COLUMNS, rows)
    for line in _advice(reports):
        print(printable(line, most=None))


def _bed_reports(arguments: argparse.Namespace) -> dict[str, OverlapReport]:
    if not (arguments.train and arguments.test):
        raise DataError("--train and --test go together: two BED files")
    if arguments.path or arguments.names:
        raise DataError("--train and --test audit two BED files; leave out --path and data set names")
    train, test = (_without_plain_names(read_bed(path)) for path in (arguments.train, arguments.test))
    return {Path(arguments.test).name: overlap_audit(train, test)}


def _without_plain_names(intervals: Intervals) -> Intervals:
    """Drop labels of which most occur once: they name intervals, not classes."""
    named = [label for label in intervals.labels if label is not None]
    if 2 * len(set(named)) <= len(named):
        return intervals
    return replace(intervals, labels=np.full(len(intervals), None))


def _list_reports(arguments: argparse.Namespace) -> dict[str, OverlapReport]:
    path = user_path(arguments.path) if arguments.path else _archive()
    if not path.exists():
        raise DataError(f"nothing at {path}; {_SOURCE}")
    with _unpacked(path) as folder:
        folders = _data_sets(folder)
        if not folders:
            raise DataError(f"{path} holds no data set: no train/<class>.csv.gz in it; {_SOURCE}")
        names = arguments.names or sorted(folders)
        return {name: overlap_audit(*read_interval_lists(folders[name])) for name in _known(names, folders)}


def _archive() -> Path:
    places = [data_folder() / "dna" / _ARCHIVE, data_folder() / _ARCHIVE]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(f"no interval lists at {places[0]} or {places[1]}; {_SOURCE}")
    return found


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Give the folder itself, or a tar's content in a temporary one; errors name the tar then."""
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise DataError(f"{path} cannot be read as a tar of interval lists: {error}") from None
        try:
            yield Path(folder)
        except DataError as error:
            raise DataError(str(error).replace(folder, str(path))) from None


def _data_sets(folder: Path) -> dict[str, Path]:
    """Return the data sets by name: the folder itself, those in it, or those one folder deeper."""
    lists = (file for depth in ("", "*/", "*/*/") for file in folder.glob(f"{depth}train/*.csv.gz"))
    return {file.parents[1].resolve().name: file.parents[1] for file in lists}


def _known(names: list[str], folders: dict[str, Path]) -> list[str]:
    by_name = {name.lower(): name for name in folders}
    for name in names:
        if name.lower() not in by_name:
            near = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.45)
            hint = f"did you mean {by_name[near[0]]!r}?" if near else f"they are {', '.join(sorted(folders))}"
            raise DataError(f"no interval lists of {name!r}; {hint}")
    return [by_name[name.lower()] for name in names]


def _rows(name: str, report: OverlapReport, classes: bool) -> list[list[object]]:
    low, middle, high = report.lengths
    length = f"{low}/{middle:g}/{high}" if low < high else f"{low}"
    only = "-" if report.length_only is None else _percent(report.length_only)
    count = len(report.per_class) or "-"
    rows: list[list[object]] = [[name, count, report.train, report.total.test, length, *_shares(report.total), only]]
    if not report.per_class:
        rows[0][-2] = "-"
    if classes:
        rows += [[f"  {each}", "", "", found.test, "", *_shares(found), ""] for each, found in report.per_class.items()]
    return rows


def _shares(counts: OverlapCounts) -> list[object]:
    touching, half = (_percent(count / counts.test) for count in (counts.touching, counts.half))
    return [touching, half, counts.identical, counts.other_class]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _advice(reports: dict[str, OverlapReport]) -> list[str]:
    overlap = [name for name, report in reports.items() if report.total.half > _MUCH_OVERLAP * report.total.test]
    length = [
        name
        for name, report in reports.items()
        if report.length_only is not None and report.majority is not None
        and report.length_only > report.majority + _MUCH_LENGTH
    ]  # fmt: skip
    lines = []
    if overlap:
        lines.append(
            f"{', '.join(overlap)}: more than {_MUCH_OVERLAP:.0%} of the test intervals lie on a train interval by "
            "half "
            "or more. Report the clean part of test beside the whole, or split anew, overlapping intervals together: "
            "titans-seq fit dna --bed FILE --fasta GENOME does."
        )
    if length:
        lines.append(
            f"{', '.join(length)}: length alone tells the class better than always saying the most frequent one. "
            "Report "
            "that beside the accuracy, and let no padding or pooling show the length."
        )
    return lines or ["Little overlap, and length tells no class. Copies elsewhere in the genome are not seen here."]
