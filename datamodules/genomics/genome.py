"""Genomes: the records of a FASTA file, read by offset, their splits, and windows of them.

Coordinates are 0-based and half-open everywhere. The offsets come from pyfaidx, whose index (.fai, for bgzip also .gzi,
as samtools writes them) is built where it is missing, older than the FASTA or for another file.
"""

import difflib
import hashlib
import os
import re
import struct
import sys
import tempfile
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyfaidx
from jaxtyping import Int, UInt8
from rich.console import Console
from rich.progress import Progress
from torch.utils.data import Dataset

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import cannot_read, require_file, user_cache, user_path
from titans_seq.datamodules.forecast.protocol import SPLITS
from titans_seq.datamodules.genomics.alphabet import COMPLEMENT, LETTERS, UNKNOWN, encode
from titans_seq.datamodules.genomics.intervals import Interval, overlap_audit, read_bed
from titans_seq.datamodules.genomics.labelled import Labelled, labelled

Tokens = UInt8[np.ndarray, " T"]
Splits = dict[str, list[Interval]]

_PIECE = 2**18  # bases read at once: a few MB of temporaries, and long enough that Python's share is nothing
_BIG = 50_000_000  # bases: about a second of reading, from which on a bar is worth a look
_HEAD = 2**16  # bytes: holds the first block of any bgzip file
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_SPLIT_OF = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
# what pyfaidx and the bgzip reader below it raise over content they cannot take
_FAULTS = (
    pyfaidx.FastaIndexingError,
    pyfaidx.UnsupportedCompressionFormat,
    ValueError,
    RuntimeError,
    zlib.error,
    struct.error,
)
_OTHER_STRAND = COMPLEMENT.numpy().astype(np.uint8)


class Genome:
    """The records of a FASTA file, plain or bgzip; nothing of the sequences is kept in memory.

    Each process opens the file for itself, so a genome may go to forked and spawned workers. Where the folder of the
    FASTA cannot be written to, the index goes to the user's cache or to the folder for temporary files.

    Attributes: names: of the records in the order of the file, each up to the first blank. lengths: bases of each.

    Raises:
        DataError: no such file, compressed otherwise than with bgzip, no FASTA, records that are empty or of the same
            name, lines of unequal length, nowhere to put the index.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
        self._handle: tuple[int, pyfaidx.Fasta] | None = None
        _require_fasta(self.path)
        records = self._fasta().faidx.index
        self.names: tuple[str, ...] = tuple(records)
        self.lengths: dict[str, int] = {name: int(record.rlen) for name, record in records.items()}
        empty = [name for name, length in self.lengths.items() if not length]
        if empty:
            raise DataError(f"{self.path}: record {empty[0]} is empty; take it out or give its sequence")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None}

    def _fasta(self) -> pyfaidx.Fasta:
        if self._handle is None or self._handle[0] != os.getpid():
            # a forked process shares the file position of its parent: both would read at the wrong place
            self._handle = os.getpid(), _opened(self.path)
        return self._handle[1]

    def require(self, record: str) -> None:
        """Raise a DataError, with the nearest name, unless there is such a record."""
        if record not in self.lengths:
            near = _nearest(record, self.names)
            more = f" and {len(self.names) - 5} more" if len(self.names) > 5 else ""
            hint = f"did you mean {near}?" if near else f"it has {', '.join(self.names[:5])}{more}"
            raise DataError(f"no record {record} in {self.path}; {hint}")

    def letters(self, record: str, begin: int = 0, end: int | None = None) -> str:
        """The bases [begin, end) as they stand in the file, of either case; end None: the last one."""
        end = self._end(record, begin, end)
        if begin == end:
            return ""
        faidx = self._fasta().faidx
        try:
            with faidx.lock:
                lines = _lines_of(faidx, record, begin, end)
        except (*_FAULTS, OSError) as error:
            raise DataError(f"{self.path}: record {record} cannot be read: {error}") from error
        letters = lines.translate(None, b"\r\n").decode("latin-1")
        if len(letters) != end - begin:
            raise DataError(
                f"{self.path}: record {record} has other lines than its index says; delete {faidx.indexname}"
            )
        return letters

    def tokens(self, record: str, begin: int = 0, end: int | None = None) -> Tokens:
        """The bases [begin, end) as tokens of the alphabet.

        Raises:
            DataError: no such record, a place outside of it, a letter that is no base (with its position from 1).
        """
        end = self._end(record, begin, end)
        tokens = np.empty(end - begin, dtype=np.uint8)
        for first, last in _pieces(begin, end):
            letters = self.letters(record, first, last)
            try:
                tokens[first - begin : last - begin] = encode(letters)
            except ValueError:
                raise DataError(f"{self.path}: record {record}: {_no_base(letters, first)}") from None
        return tokens

    def record(self, name: str) -> "Record":
        """One record, to be sliced like an array."""
        self.require(name)
        return Record(self, name)

    def check(self, quiet: bool = True) -> None:
        """Read every base once; with `quiet` False, a progress bar on stderr for big genomes.

        Raises:
            DataError: as `tokens`, for the first letter that is no base.
        """
        total = sum(self.lengths.values())
        silent = quiet or total < _BIG or not sys.stderr.isatty()
        with Progress(console=Console(file=sys.stderr), disable=silent, transient=True) as progress:
            task = progress.add_task(self.path.name, total=total)
            for record, length in self.lengths.items():
                for begin, end in _pieces(0, length):
                    self.tokens(record, begin, end)
                    progress.update(task, advance=end - begin)

    def _end(self, record: str, begin: int, end: int | None) -> int:
        self.require(record)
        length = self.lengths[record]
        end = length if end is None else end
        if not 0 <= begin <= end <= length:
            raise DataError(f"{self.path}: record {record} has {length} bases; there are no bases [{begin}, {end})")
        return end


def contiguous_splits(genome: Genome, fractions: tuple[float, float, float] = (0.9, 0.05, 0.05)) -> Splits:
    """Of every record the last part is test, the part before it validation, the rest train.

    Args:
        fractions: of train, validation and test, in [0, 1], together 1; of each record they are rounded to whole bases.

    Raises:
        DataError: other fractions; a split that has a fraction but, for short records, not one base.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"the fractions of train, val and test must be at least 0 and add up to 1; got {fractions}")
    splits: Splits = {name: [] for name in SPLITS}
    for record, length in genome.lengths.items():
        test = length - round(length * fractions[2])
        val = max(test - round(length * fractions[1]), 0)
        for name, (begin, end) in zip(SPLITS, [(0, val), (val, test), (test, length)], strict=True):
            if begin < end:
                splits[name].append(Interval(record, begin, end))
    for name, fraction in zip(SPLITS, fractions, strict=True):
        if fraction and not splits[name]:
            longest = max(genome.lengths.values())
            raise DataError(
                f"{genome.path}: its longest record has {longest} bases, too few for {fraction:.0%} as {name}"
            )
    return splits


def record_splits(genome: Genome, val: Sequence[str] = (), test: Sequence[str] = ()) -> Splits:
    """Whole records held out for validation and test; all others are train.

    Raises:
        DataError: a name that is no record or stands in both; no record left for training.
    """
    held = {"val": [val] if isinstance(val, str) else val, "test": [test] if isinstance(test, str) else test}
    for record in (*held["val"], *held["test"]):
        genome.require(record)
    both = sorted(set(held["val"]) & set(held["test"]))
    if both:
        raise DataError(f"record {both[0]} is held out for val and for test; name it in one of them")
    splits: Splits = {name: [] for name in SPLITS}
    for record, length in genome.lengths.items():
        name = next((name for name, records in held.items() if record in records), "train")
        splits[name].append(Interval(record, 0, length))
    if not splits["train"]:
        raise DataError(f"{genome.path}: every record is held out for val or test; leave one for training")
    return splits


def bed_splits(genome: Genome, path: str | Path) -> Splits:
    """The intervals of a BED file whose column 4 is train, val (or valid) or test, as Basenji and Enformer write it.

    Raises:
        DataError: another word in column 4, no interval for training, intervals of different splits that overlap, and
            as `read_bed` and `check_intervals`.
    """
    intervals = read_bed(path)
    try:
        check_intervals(genome, intervals)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    splits: Splits = {name: [] for name in SPLITS}
    for interval in intervals:
        label = interval.label or ""
        if label.lower() not in _SPLIT_OF:
            found = repr(label) if label else "nothing"
            raise DataError(f"{path}: column 4 of {_place(interval)} must be train, val or test; it holds {found}")
        splits[_SPLIT_OF[label.lower()]].append(interval)
    if not splits["train"]:
        raise DataError(f"{path}: no interval has train in column 4")
    for seen, held_out in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = overlap_audit(splits[seen], splits[held_out]).total.touching if splits[held_out] else 0
        if shared:
            raise DataError(f"{path}: {shared} intervals of {held_out} overlap intervals of {seen}; keep them apart")
    return splits


def check_intervals(genome: Genome, intervals: Sequence[Interval]) -> None:
    """Raise a DataError for the first interval whose record is unknown or shorter than its end."""
    for interval in intervals:
        try:
            genome.require(interval.record)
        except DataError as error:
            raise DataError(f"interval {_place(interval)}: {error}") from None
        length = genome.lengths[interval.record]
        if interval.end > length:
            raise DataError(
                f"interval {_place(interval)} ends past record {interval.record} of {genome.path}, which has {length} "
                "bases; are the intervals of another assembly?"
            )


@dataclass(frozen=True)
class Record:
    """A record of a genome as a sequence of tokens: its length, and slices of it that are read from the file."""

    genome: Genome
    name: str

    def __len__(self) -> int:
        return self.genome.lengths[self.name]

    def __getitem__(self, index: slice) -> Tokens:
        begin, end, step = index.indices(len(self))
        return self.genome.tokens(self.name, begin, max(begin, end))[::step]


class GenomeWindows(Dataset[Tokens]):
    """Windows inside intervals, read when they are asked for.

    An interval gives a window every `stride` bases until one reaches its end; that one may be shorter than `length`.
    Every base of the intervals is read once at construction, to count N; 12 bytes per window stay in memory.

    Args:
        length: bases per window. stride: from one begin to the next; None: `length`, so that windows do not overlap.
        max_unknown: windows with a greater share of N (IUPAC codes of several bases included) are left out.

    Attributes: dropped: how many were.

    Raises:
        DataError: length or stride below 1, max_unknown outside of [0, 1]; as `check_intervals`; a letter that is no
            base; nothing but N.
    """

    def __init__(
        self,
        genome: Genome,
        intervals: Sequence[Interval],
        length: int,
        stride: int | None = None,
        max_unknown: float = 0.5,
    ) -> None:
        stride = length if stride is None else stride
        if length < 1 or stride < 1 or not 0 <= max_unknown <= 1:
            raise DataError(
                "length and stride must be at least 1, max_unknown in [0, 1]; "
                f"got length {length}, stride {stride}, max_unknown {max_unknown}"
            )
        self.genome, self.intervals, self.length = genome, tuple(intervals), length
        check_intervals(genome, self.intervals)
        kept, self.dropped = [np.empty(0, dtype=np.int64)], 0
        for interval in self.intervals:
            begins = _begins(interval, length, stride)
            ends = np.minimum(begins + length, interval.end)
            keep = _count_unknown(genome, interval, begins, ends) / (ends - begins) <= max_unknown
            kept.append(begins[keep])
            self.dropped += int((~keep).sum())
        self._begins = np.concatenate(kept)
        self._interval = np.repeat(np.arange(len(self.intervals), dtype=np.int32), [len(begins) for begins in kept[1:]])
        if self.dropped and not len(self):
            raise DataError(
                f"{genome.path}: all {self.dropped} windows of {length} bases have more than {max_unknown:.0%} N; "
                "raise max_unknown or give other intervals"
            )

    def __len__(self) -> int:
        return len(self._begins)

    def __getitem__(self, index: int) -> Tokens:
        tokens = self.genome.tokens(*self.places(index))
        return _on_strand(tokens, self.intervals[self._interval[index]].strand)

    def places(self, index: int) -> tuple[str, int, int]:
        """Record, begin and end of a window, counted on the plus strand."""
        interval, begin = self.intervals[self._interval[index]], int(self._begins[index])
        return interval.record, begin, min(begin + self.length, interval.end)


def labelled_from_bed(
    genome: Genome, intervals: Sequence[Interval], class_names: tuple[str, ...] | None = None
) -> Labelled:
    """The sequences of intervals with their labels as classes; on the minus strand the reverse complement.

    Args:
        class_names: those of the training data; None: the sorted labels found.

    Raises:
        DataError: an interval without a label, fewer than two classes, a class that training did not know, and as
            `check_intervals`.
    """
    check_intervals(genome, intervals)
    labels = []
    for interval in intervals:
        if not interval.label:
            raise DataError(f"interval {_place(interval)} has no class; give one in column 4 of the BED file")
        labels.append(interval.label)
    tokens = [_on_strand(genome.tokens(i.record, i.begin, i.end), i.strand) for i in intervals]
    return labelled(genome.path, tokens, labels, class_names)


def _place(interval: Interval) -> str:
    return f"{interval.record}:{interval.begin}-{interval.end}"


def other_strand(tokens: Tokens) -> Tokens:
    """The reverse complement."""
    return _OTHER_STRAND[tokens[::-1]]


def _on_strand(tokens: Tokens, strand: str) -> Tokens:
    return other_strand(tokens) if strand == "-" else tokens


def _pieces(begin: int, end: int) -> Iterator[tuple[int, int]]:
    for first in range(begin, end, _PIECE):
        yield first, min(first + _PIECE, end)


def _begins(interval: Interval, length: int, stride: int) -> Int[np.ndarray, " W"]:
    bases = interval.end - interval.begin
    until_end = 1 + -(-max(bases - length, 0) // stride)
    with_a_base = -(-bases // stride)  # fewer, if the stride is longer than a window and steps over the end
    return interval.begin + stride * np.arange(min(until_end, with_a_base), dtype=np.int64)


def _count_unknown(
    genome: Genome, interval: Interval, begins: Int[np.ndarray, " W"], ends: Int[np.ndarray, " W"]
) -> Int[np.ndarray, " W"]:
    counts = np.zeros(len(begins), dtype=np.int64)
    for first, last in _pieces(interval.begin, interval.end):
        unknown = genome.tokens(interval.record, first, last) == UNKNOWN
        before = np.concatenate([[0], np.cumsum(unknown)])  # N of the piece ahead of each of its bases
        here = slice(np.searchsorted(ends, first, side="right"), np.searchsorted(begins, last, side="left"))
        counts[here] += before[np.minimum(ends[here], last) - first] - before[np.maximum(begins[here], first) - first]
    return counts


def _no_base(letters: str, begin: int) -> str:
    found = re.search(f"[^{LETTERS.replace(' ', '')}]", letters, re.IGNORECASE | re.ASCII)
    assert found is not None
    return f"{found[0]!r} at position {begin + found.start() + 1} is no base; bases are {LETTERS}"


def _nearest(name: str, names: Sequence[str]) -> str | None:
    """chr1 for 1, MT for chrM, NC_000913.3 for NC_000913; else what is spelled alike."""

    def bare(name: str) -> str:
        core = re.sub(r"\.\d+$", "", name.lower().removeprefix("chr"))
        return "mt" if core == "m" else core

    alike = [known for known in names if bare(known) == bare(name)]
    return next(iter(alike or difflib.get_close_matches(name, names, n=1)), None)


def _require_fasta(path: Path) -> None:
    """Refuse by a look at both ends what pyfaidx would take for something else."""
    require_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(path.stat().st_size - len(_BGZIP_END), 0))
            tail = file.read()
    except OSError as error:
        raise cannot_read(path, error) from None
    compressed = head.startswith(b"\x1f\x8b")
    if compressed:
        if head[3:4] != b"\x04" or head[12:14] != b"BC":  # flagged extra field, of the kind that tells bgzip
            raise DataError(f"{path} is plain gzip; recompress with bgzip or decompress with gunzip")
        if tail != _BGZIP_END:
            raise DataError(f"{path} is cut off: the last block of bgzip is missing; copy or compress it again")
    if compressed != path.name.lower().endswith((".gz", ".bgz")):
        raise DataError(
            f"{path} is compressed with bgzip; give it the ending .gz"
            if compressed
            else f"{path} is not compressed; take .gz off its name"
        )
    try:
        start = (zlib.decompressobj(wbits=31).decompress(head) if compressed else head).lstrip()
    except zlib.error as error:
        raise DataError(f"{path} is damaged: {error}; copy or compress it again") from error
    if not start:
        raise DataError(f"{path} holds no records")
    if start[:1] not in (b">", b";"):
        raise DataError(f"{path} is not FASTA: it must start with the name of a record, such as >chr1")


def _opened(path: Path) -> pyfaidx.Fasta:
    indices, refusals = _index_places(path), []
    for index in indices:
        if (fasta := _with_index(path, index)) is not None:
            return fasta
    for index in indices:
        try:
            _build_index(path, index)
        except OSError as error:
            refusals.append(f"{index.parent}: {error.strerror or error}")
        else:
            return _read_with(path, index)
    raise DataError(f"{path}: its index cannot be written ({', '.join(refusals)}); make room or access in one of them")


def _index_places(path: Path) -> list[Path]:
    key = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    elsewhere = f"{key}.{path.name}.fai"
    temporary = Path(tempfile.gettempdir())
    return [
        path.with_name(path.name + ".fai"),
        user_cache() / "titans-seq" / "fasta" / elsewhere,
        temporary / "titans-seq-fasta" / elsewhere,
    ]


def _gzi(index: Path) -> Path:
    return index.with_suffix(".gzi")


def _files_of(path: Path, index: Path) -> list[Path]:
    return [_gzi(index), index] if path.name.lower().endswith((".gz", ".bgz")) else [index]


def _read_with(path: Path, index: Path) -> pyfaidx.Fasta:
    return pyfaidx.Fasta(
        path, indexname=index, gzi_indexname=_gzi(index), as_raw=True, build_index=False, rebuild=False
    )


def _with_index(path: Path, index: Path) -> pyfaidx.Fasta | None:
    """Open with an index that is there, unless it is older than the FASTA, damaged or for another file."""
    try:
        written = path.stat().st_mtime_ns
        if any(file.stat().st_mtime_ns < written for file in _files_of(path, index)):
            return None
        fasta = _read_with(path, index)
    except (*_FAULTS, OSError):
        return None
    ends = [record.bend for record in fasta.faidx.index.values()]
    if ends and (len(_files_of(path, index)) > 1 or _ends_at(path, max(ends))):
        return fasta
    fasta.close()
    return None


def _lines_of(faidx: pyfaidx.Faidx, record: str, begin: int, end: int) -> bytes:
    """The bytes of the file from one base to another, line breaks between them included.

    Not by `faidx.fetch`: where a read begins with a block of bgzip, it seeks the end of the block before (pyfaidx
    0.9.2), which is out of reach for blocks of 64 KiB, as Biopython writes them.
    """
    row = faidx.index[record]
    first, last = (row.offset + base // row.lenc * row.lenb + base % row.lenc for base in (begin, end - 1))
    place = first
    if hasattr(faidx, "gzi_index"):
        block = faidx.gzi_index[bisect_right(faidx.gzi_index, first, key=attrgetter("ustart")) - 1]
        place = block.cstart << 16 | first - block.ustart
    faidx.file.seek(place)
    return faidx.file.read(last + 1 - first)


def _ends_at(path: Path, end: int) -> bool:
    """Nothing but blanks from `end` on. A FASTA that was replaced by an older one is told by this, not by its time."""
    with path.open("rb") as file:
        file.seek(end)
        # the index counts a line break after the last line, whether it is there or not
        return end <= path.stat().st_size + len("\r\n") and not file.read(_HEAD).strip()


def _build_index(path: Path, index: Path) -> None:
    """Build beside the place of the index and rename: other processes may be looking for it.

    Raises:
        OSError: the place cannot be written to.
        DataError: the FASTA cannot be indexed.
    """
    index.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{index.name}.", dir=index.parent) as folder:
        part = Path(folder, index.name)
        try:
            pyfaidx.Fasta(path, indexname=part, gzi_indexname=_gzi(part), duplicate_action="first").close()
        except _FAULTS as error:
            raise DataError(
                f"{path} cannot be indexed: {error}; records need a name after '>' and lines of equal length, without "
                "blank lines between them (`seqkit seq -w 60` rewraps)"
            ) from error
        names = Counter(line.split("\t", 1)[0] for line in part.read_text().split("\n"))
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise DataError(f"{path}: {names[twice[0]]} records are called {twice[0]}; rename or remove them")
        # a FASTA dated in the future would make every index too old
        date = max(path.stat().st_mtime_ns, part.stat().st_mtime_ns)
        for file in _files_of(path, part):
            os.utime(file, ns=(date, date))
            os.replace(file, index.with_name(file.name))
