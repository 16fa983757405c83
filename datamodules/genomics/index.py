"""FASTA files opened for reading by offset: what is FASTA, what is bgzip, and the index of a file.

The offsets come from pyfaidx. Its index (.fai, for bgzip also .gzi) is in the format of samtools.
"""

import hashlib
import os
import struct
import tempfile
import zlib
from bisect import bisect_right
from collections import Counter
from operator import attrgetter
from pathlib import Path

import pyfaidx

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import is_compressed, reading, require_file, user_cache

_HEAD = 2**16  # bytes: holds the first block of any bgzip file
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
# what pyfaidx and the bgzip reader below it raise over content they cannot take
_FAULTS = (
    pyfaidx.FastaIndexingError,
    pyfaidx.UnsupportedCompressionFormat,
    ValueError,
    RuntimeError,
    zlib.error,
    struct.error,
)


def require_fasta(path: Path) -> None:
    """Look at both ends of a file and refuse what pyfaidx would take for something else.

    Raises:
        DataError: There is no such file, it is empty or not FASTA, or it is compressed otherwise than with bgzip.
    """
    require_file(path)
    with reading(path), path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(path.stat().st_size - len(_BGZIP_END), 0))
        tail = file.read()
    compressed = head.startswith(b"\x1f\x8b")
    if compressed:
        if head[3:4] != b"\x04" or head[12:14] != b"BC":  # flagged extra field, of the kind that tells bgzip
            raise DataError(f"{path} is plain gzip; recompress with bgzip or decompress with gunzip")
        if tail != _BGZIP_END:
            raise DataError(f"{path} is cut off: the last block of bgzip is missing; copy or compress it again")
    if compressed != is_compressed(path):
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


def open_indexed(path: Path) -> pyfaidx.Fasta:
    """Open a FASTA file with its index, which is built if it is missing, older than the FASTA or for another file.

    Where the folder of the FASTA cannot be written to, the index goes to the user's cache or to the folder for
    temporary files.

    Raises:
        DataError: The FASTA cannot be indexed, or there is nowhere to put the index.
    """
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


def read_letters(fasta: pyfaidx.Fasta, path: Path, record: str, begin: int, end: int) -> str:
    """Read the bases [begin, end) of a record as the file has them.

    Args:
        fasta: What `open_indexed` opened.
        path: The file, for errors.
        record: Name of the record.
        begin: First base, from 0.
        end: End of the bases; above `begin`, not past the record.

    Raises:
        DataError: The file is damaged, or is not what the index says.
    """
    try:
        with fasta.faidx.lock:
            lines = _lines_of(fasta.faidx, record, begin, end)
    except (*_FAULTS, OSError) as error:
        raise DataError(f"{path}: record {record} cannot be read: {error}") from error
    letters = lines.translate(None, b"\r\n").decode("latin-1")
    if len(letters) != end - begin:
        raise DataError(f"{path}: record {record} has other lines than its index says; delete {fasta.faidx.indexname}")
    return letters


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
    return [_gzi(index), index] if is_compressed(path) else [index]


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
