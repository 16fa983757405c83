"""Variants from VCF, CSV and TSV, each checked against the genome.

Coordinates in memory are 0-based. Files count from 1, as VCF does, unless their column is called `position0`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import open_text, user_path
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.tables import SEPARATORS, kind_of, read_rows

_COLUMNS = (("record", "chrom"), ("position", "pos", "position0"), ("ref",), ("alt",))


@dataclass(frozen=True, slots=True)
class Variant:
    """One allele: the bases `ref` from `position` on (0-based) become `alt`.

    ref, alt: one or more of A, C, G, T in upper case, and not the same. id: "" where the file gives none. row: line of
    the file, from 1; the alleles of one VCF line share it.
    """

    record: str
    position: int
    ref: str
    alt: str
    id: str
    row: int


@dataclass(frozen=True)
class Variants:
    """Variants in the order of the file. skipped: alleles left out, since they spell no sequence."""

    rows: tuple[Variant, ...]
    skipped: int


def read_variants(path: str | Path, genome: Genome) -> Variants:
    """Read variants and check every reference allele against the genome.

    VCF: CHROM, POS (from 1), ID, REF and ALT are read, nothing else. CSV and TSV: the columns record (or chrom),
    position (or pos; from 1) or else position0 (from 0), ref, alt and, if there, id; others are left out, case of the
    header is ignored.

    An alternative may list several alleles with commas: each becomes a variant. Overlapping deletions (`*`), symbolic
    alleles (`<DEL>`), breakends and `.` are skipped and counted. Alleles may be of either case; of letters only A, C, G
    and T, also in the reference.

    Args:
        path: .vcf, .csv or .tsv, also .gz or .bgz, in UTF-8.

    Raises:
        DataError: no such file, another ending, a missing column or field, a position that is not a whole number or is
            past the end, an unknown record, another letter in an allele, an alternative equal to the reference, a
            reference allele that is not what the genome has there, or no variant at all.
    """
    path = user_path(path)
    kind = kind_of(path, {".vcf": "vcf", **SEPARATORS})
    variants: list[Variant] = []
    skipped = 0
    with open_text(path) as file:
        for line in _vcf_lines(path, file) if kind == "vcf" else _table_lines(path, file, kind):
            found = _variants_of(path, line, genome)
            variants += found
            skipped += line.alt.count(",") + 1 - len(found)
    if not variants:
        raise DataError(f"{path} holds no variants" + f" but {skipped} alleles that spell no bases" * (skipped > 0))
    _check_references(path, variants, genome)
    return Variants(tuple(variants), skipped)


def _vcf_lines(path: Path, file: TextIO) -> Iterator[Variant]:
    """The lines as they stand in the file, unchecked but for the position: `alt` may list several alleles."""
    for row, line in enumerate(file, start=1):
        if line.startswith("#") or not line.strip():
            continue
        where = f"{path}: line {row}"
        fields = line.rstrip("\r\n").split("\t")
        if len(fields) < 5:
            raise DataError(f"{where} has {len(fields)} fields; VCF has at least 5, CHROM POS ID REF ALT, between tabs")
        record, position, name, ref, alt = fields[:5]
        yield Variant(record, _position(position, where, first=1), ref, alt, "" if name == "." else name, row)


def _table_lines(path: Path, file: TextIO, separator: str) -> Iterator[Variant]:
    """As `_vcf_lines`."""
    header, rows = read_rows(path, file, separator)
    record, position, ref, alt = (_column(path, header, names) for names in _COLUMNS)
    name = header.index("id") if "id" in header else None
    first = 0 if header[position] == "position0" else 1
    for line, fields in rows:
        place = _position(fields[position], f"{path}: line {line}", first)
        label = "" if name is None else fields[name]
        yield Variant(fields[record], place, fields[ref], fields[alt], label, line)


def _column(path: Path, header: list[str], names: tuple[str, ...]) -> int:
    """The place of the one column that has one of these names."""
    found = [place for place, name in enumerate(header) if name in names]
    if not found:
        raise DataError(f"{path}: no column {' or '.join(names)}; the header is {', '.join(header) or 'empty'}")
    if len(found) > 1:
        raise DataError(f"{path}: columns {' and '.join(header[place] for place in found)} say the same; leave one")
    return found[0]


def _position(text: str, where: str, first: int) -> int:
    # Python reads no number of thousands of digits
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) >= first):
        raise DataError(f"{where}: position {text!r} must be a whole number of at least {first}")
    return int(text) - first


def _variants_of(path: Path, line: Variant, genome: Genome) -> list[Variant]:
    where = f"{path}: line {line.row}"
    alternatives = [alt for alt in line.alt.upper().split(",") if not _spells_nothing(alt)]
    if not alternatives:
        return []
    try:
        genome.require(line.record)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    ref = line.ref.upper()
    for name, allele in (("reference", ref), *(("alternative", alt) for alt in alternatives)):
        if not allele or set(allele) - set("ACGT"):
            raise DataError(
                f"{where}: the {name} allele is {_short(allele)!r}; it must be one or more of A, C, G, T (no N; "
                "insertions and deletions as in VCF, with the base before them)"
            )
    if ref in alternatives:
        raise DataError(f"{where}: {_short(ref)} is both the reference and the alternative allele; take the line out")
    length = genome.lengths[line.record]
    if line.position + len(ref) > length:
        raise DataError(
            f"{where}: {_short(ref)} at position {line.position + 1} (from 1) ends past record {line.record} of "
            f"{genome.path}, which has {length} bases; is it of another assembly?"
        )
    return [replace(line, ref=ref, alt=alt) for alt in alternatives]


def _spells_nothing(alt: str) -> bool:
    """An overlapping deletion, a symbolic allele, a breakend (also a single one, G. or .G), or no allele at all."""
    return alt == "*" or any(mark in alt for mark in "<>[].")


def _check_references(path: Path, variants: Sequence[Variant], genome: Genome) -> None:
    wrong = [variant for variant in variants if not _matches(variant, genome)]
    if not wrong:
        return
    first, count = wrong[0], len(variants)
    found = genome.letters(first.record, first.position, first.position + len(first.ref))
    hint = (
        f"{count - len(wrong)} of {count} match: is the FASTA of another assembly, or the alleles of the other strand?"
    )
    for shift, direction in ((1, "later"), (-1, "earlier")):
        matching = sum(_matches(variant, genome, shift) for variant in variants)
        if matching >= 0.9 * count and matching > count - len(wrong):  # by chance it is three in ten
            hint = (
                f"one base {direction} {matching} of {count} would match: VCF, position and pos count from 1, "
                "position0 from 0"
            )
    raise DataError(
        f"{path}: line {first.row}: the reference allele is {_short(first.ref)}, but {genome.path} has {_short(found)} "
        f"at {first.record}, position {first.position + 1} (from 1); {hint}"
    )


def _matches(variant: Variant, genome: Genome, shift: int = 0) -> bool:
    begin = variant.position + shift
    end = begin + len(variant.ref)
    inside = begin >= 0 and end <= genome.lengths[variant.record]
    return inside and genome.letters(variant.record, begin, end).upper().replace("U", "T") == variant.ref


def _short(allele: str) -> str:
    return allele if len(allele) <= 20 else f"{allele[:17]}..."
