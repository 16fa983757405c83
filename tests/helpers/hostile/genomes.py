"""Hostile FASTA, VCF, BED and CSV files of sequences, and texts."""

import functools
import gzip
import os
import random
from collections.abc import Iterator
from pathlib import Path

from hostile.base import letters
from hostile.case import DONE, EITHER, REFUSED, Base, Case

FASTA, VCF, BED, CSV, TEXT = "FASTA", "VCF", "BED", "sequence CSV", "text"


def _write(name: str, data: bytes, folder: Path) -> None:
    (folder / os.fsdecode(name)).write_bytes(data)


def _case(
    kind: str, name: str, file: str, data: bytes | str, words: tuple[str, ...], exit: int, says: str = ""
) -> Case:
    data = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    return Case(kind, name, words, exit, says or r"\bx\b|--window", None, functools.partial(_write, file, data))


_ONE = letters(300, 3)
_BIN = random.Random(4).randbytes(3000)

_FASTA: dict[str, tuple[bytes | str, int]] = {
    "empty": ("", REFUSED),
    "blank": ("\n\n", REFUSED),
    "name-alone": (">one\n", REFUSED),
    "two-names": (">a\n>b\nACGT\n", REFUSED),
    "no-name": (f">\n{_ONE}\n", REFUSED),
    "blank-name": (f">  \n{_ONE}\n", REFUSED),
    "no-start": (_ONE, REFUSED),
    "same-name": (f">a\n{_ONE}\n>a\n{_ONE}\n", REFUSED),
    "protein": (">a\nMKVLAAGIVALLAAC\n", REFUSED),
    "numbers": (">a\n1234567890\n", REFUSED),
    "escape": (f">a\n{_ONE[:50]}\x1b[31m{_ONE[50:]}\n", REFUSED),
    "escape-in-name": (f">\x1b[31mone\n{_ONE}\n", EITHER),
    "escape-in-bad-name": (">\x1b[31mone\n\x1b[31m\n", REFUSED),
    "nul": (f">a\n{_ONE[:50]}\x00{_ONE[50:]}\n", REFUSED),
    "binary": (_BIN, REFUSED),
    "start-and-binary": (b">" + _BIN, REFUSED),
    "uneven-lines": (f">a\n{_ONE[:60]}\n{_ONE[:30]}\n{_ONE[:60]}\n", REFUSED),
    "blank-between": (f">a\n{_ONE[:60]}\n\n{_ONE[:60]}\n", REFUSED),
    "mixed-ends": (f">a\r\n{_ONE[:60]}\n{_ONE[:60]}\r\n>b\n{_ONE}\n", EITHER),
    "cr": (f">a\r{_ONE}\r", REFUSED),
    "crlf": (f">a\r\n{_ONE}\r\n", DONE),
    "bom": (b"\xef\xbb\xbf>a\n" + _ONE.encode() + b"\n", EITHER),
    "utf16": (f">a\n{_ONE}\n".encode("utf-16"), REFUSED),
    "not-utf8-name": (b">a\xff\n" + _ONE.encode() + b"\n", EITHER),
    "unicode-name": (f">\u00e4 \U0001f600\n{_ONE}\n", EITHER),
    "long-name": (">" + "a" * 1_000_000 + f"\n{_ONE}\n", EITHER),
    "lower": (f">a\n{_ONE.lower()}\n", DONE),
    "unknown": (">a\n" + "N" * 300 + "\n", DONE),
    "iupac": (">a\nACGTRYKMSWBDHVN\n", EITHER),
    "gaps": (">a\nAC--GT\n", REFUSED),
    "stars": (">a\nACGT*\n", REFUSED),
    "spaces": (f">a\n{_ONE[:30]} {_ONE[30:]}\n", REFUSED),
    "one-base": (">a\nA\n", DONE),
    "many": ("".join(f">r{i}\nACGT\n" for i in range(300)), DONE),
    "slashes-in-name": (f">../../a\n{_ONE}\n", DONE),
    "dollar-in-name": (f">$a_$\n{_ONE}\n", DONE),
    "no-last-end": (f">a\n{_ONE}", DONE),
    "semicolon": (f";a\n{_ONE}\n", EITHER),
    "name-of-dots": (f">..\n{_ONE}\n", DONE),
    "tabs-in-name": (f">a\tb\n{_ONE}\n", DONE),
}


def fasta(base: Base) -> Iterator[Case]:
    """Genomes, of which features are made; some are read in a stream."""
    words = ("embed", "dna", "--checkpoint", str(base / "dna_lm"), "--fasta", "x.fa", "--output", "out.npz", "--quiet")
    for name, (data, exit) in _FASTA.items():
        yield _case(FASTA, name, "x.fa", data, words, exit)
    stream = (
        "surprise",
        "dna",
        "--checkpoint",
        str(base / "dna_lm"),
        "--fasta",
        "x.fa",
        "--bedgraph",
        "out.bedgraph",
        "--quiet",
    )
    for name in ("escape-in-name", "slashes-in-name", "dollar-in-name", "name-of-dots", "one-base"):
        yield _case(FASTA, f"stream-{name}", "x.fa", _FASTA[name][0], stream, _FASTA[name][1])
    packed = gzip.compress(f">a\n{_ONE}\n".encode())
    words = tuple("x.fa.gz" if word == "x.fa" else word for word in words)
    for name, data in {
        "plain-gzip": packed,
        "cut": packed[:40],
        "not-packed": f">a\n{_ONE}\n".encode(),
        "bgzip-head": b"\x1f\x8b\x08\x04" + bytes(8) + b"BC" + bytes(40),
    }.items():
        yield _case(FASTA, f"packed-{name}", "x.fa.gz", data, words, REFUSED)
    index = functools.partial(_stale_index, f">a\n{_ONE}\n")
    words = tuple("x.fa" if word == "x.fa.gz" else word for word in words)
    yield Case(FASTA, "stale-index", words, EITHER, r"x\.fa", None, index)
    yield Case(FASTA, "folder", (*words[:5], ".", *words[6:]), REFUSED, "folder|directory")


def _stale_index(text: str, folder: Path) -> None:
    (folder / "x.fa").write_text(text)
    (folder / "x.fa.fai").write_text("a\t999999999\t3\t60\t61\nb\tx\t1\t1\t1\n\x1b[31m\n")


def vcf(base: Base) -> Iterator[Case]:
    """Variants of the base's genome."""
    record = base.genome.read_text().split("\n")[1]
    ref = record[499]
    alt = "A" if ref != "A" else "C"
    head = "##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    lines: dict[str, tuple[bytes | str, int]] = {
        "good": (f"one\t500\ta\t{ref}\t{alt}\t.\t.\t.\n", DONE),
        "good-five-fields": (f"one\t500\ta\t{ref}\t{alt}\n", DONE),
        "nothing": ("", REFUSED),
        "short": ("one\t500\n", REFUSED),
        "spaces": (f"one 500 a {ref} {alt}\n", REFUSED),
        "position-0": (f"one\t0\ta\t{ref}\t{alt}\n", REFUSED),
        "position-negative": (f"one\t-5\ta\t{ref}\t{alt}\n", REFUSED),
        "position-text": (f"one\tx\ta\t{ref}\t{alt}\n", REFUSED),
        "position-1e3": (f"one\t1e3\ta\t{ref}\t{alt}\n", REFUSED),
        "position-past-end": (f"one\t99999\ta\t{ref}\t{alt}\n", REFUSED),
        "position-huge": (f"one\t{10**30}\ta\t{ref}\t{alt}\n", REFUSED),
        "position-5000-digits": (f"one\t{'9' * 5000}\ta\t{ref}\t{alt}\n", REFUSED),
        "position-superscript": (f"one\t\u00b2\ta\t{ref}\t{alt}\n", REFUSED),
        "unknown-record": (f"three\t5\ta\t{ref}\t{alt}\n", REFUSED),
        "escape-record": (f"\x1b[31m\t5\ta\t{ref}\t{alt}\n", REFUSED),
        "long-record": (f"{'a' * 200_000}\t5\ta\t{ref}\t{alt}\n", REFUSED),
        "escape-id": (f"one\t500\t\x1b[31m\t{ref}\t{alt}\n", DONE),
        "wrong-reference": (f"one\t500\ta\t{alt}\t{ref}\n", REFUSED),
        "same": (f"one\t500\ta\t{ref}\t{ref}\n", REFUSED),
        "symbolic": (f"one\t500\ta\t{ref}\t<DEL>\n", REFUSED),
        "star": (f"one\t500\ta\t{ref}\t*\n", REFUSED),
        "no-alleles": ("one\t500\ta\t\t\n", REFUSED),
        "escape-allele": (f"one\t500\ta\t{ref}\t\x1b[31m\n", REFUSED),
        "long-allele": (f"one\t500\ta\t{ref}\t{'A' * 100_000}\n", REFUSED),
        "digits-allele": (f"one\t500\ta\t{ref}\t123\n", REFUSED),
        "n-allele": (f"one\t500\ta\t{ref}\tN\n", REFUSED),
        "commas": (f"one\t500\ta\t{ref}\t,,,\n", REFUSED),
        "not-utf8": (b"one\t500\t\xff\tA\tC\n", REFUSED),
        "nul": (f"one\t500\t\x00\t{ref}\t{alt}\n", EITHER),
        "bom-inside": (f"\ufeffone\t500\ta\t{ref}\t{alt}\n", REFUSED),
        "lower": (f"one\t500\ta\t{ref.lower()}\t{alt.lower()}\n", DONE),
        "5000-alternatives": (f"one\t500\ta\t{ref}\t{','.join([alt] * 20)}\n", EITHER),
    }
    words = (
        "score",
        "dna",
        "--checkpoint",
        str(base / "dna_lm"),
        "--fasta",
        str(base.genome),
        "--vcf",
        "x.vcf",
        "--window",
        "64",
        "--output",
        "out.csv",
        "--quiet",
    )
    for name, (line, exit) in lines.items():
        data = head.encode() + (line if isinstance(line, bytes) else line.encode())
        yield _case(VCF, name, "x.vcf", data, words, exit)
    for name, file, data in (
        ("gzip-cut", "x.vcf.gz", gzip.compress(head.encode())[:20]),
        ("gzip-not", "x.vcf.gz", head.encode()),
        ("ending", "x.txt", head.encode()),
    ):
        other = tuple(file if word == "x.vcf" else word for word in words)
        yield _case(VCF, name, file, data, other, REFUSED)
    table = tuple({"--vcf": "--csv", "x.vcf": "x.csv"}.get(word, word) for word in words)
    for name, text in {
        "csv-header": "record,position,ref\n",
        "csv-row": "record,position,ref,alt\none,500\n",
        "csv-empty": "",
        "csv-two-names": "record,chrom,position,ref,alt\n",
        "csv-quote": 'record,position,ref,alt\n"one,500,A,C\n',
        "csv-cell": f"record,position,ref,alt\n{'a' * 200_000},5,A,C\n",
    }.items():
        yield _case(VCF, name, "x.csv", text, table, REFUSED)


def bed(base: Base) -> Iterator[Case]:
    """Regions with classes; nothing is trained where they are refused."""
    good = "".join(f"one\t{40 * i}\t{40 * i + 30}\t{'ab'[i % 2]}\n" for i in range(30))
    lines = {
        "empty": "",
        "two-fields": "one\t5\n",
        "spaces": "one 5 10 a\n",
        "negative": "one\t-5\t10\ta\n",
        "reversed": "one\t10\t5\ta\n",
        "equal": "one\t5\t5\ta\n",
        "text": "one\ta\tb\tc\n",
        "float": "one\t1.5\t10\ta\n",
        "huge": f"one\t5\t{10**30}\ta\n",
        "5000-digits": f"one\t5\t{'9' * 5000}\ta\n",
        "past-end": good + "one\t1000\t99999\ta\n",
        "unknown-record": good + "three\t1\t9\ta\n",
        "uneven": good + "one\t1\t9\n",
        "no-class": "one\t1\t9\none\t11\t19\n",
        "one-class": "one\t1\t9\ta\none\t11\t19\ta\n",
        "escape-record": good + "\x1b[31m\t1\t9\ta\n",
        "escape-class": "one\t1\t9\t\x1b[31m\n",
        "long-record": good + "a" * 200_000 + "\t1\t9\ta\n",
        "no-record": "\t1\t9\ta\n",
        "strand": "one\t1\t9\ta\t0\tx\n",
        "superscript": "one\t\u00b2\t9\ta\n",
        "nul": "one\x00\t1\t9\ta\n",
    }
    words = ("fit", "dna", "--bed", "x.bed", "--fasta", str(base.genome), "model.dim=8", "model.heads=1", "--quiet")
    for name, text in lines.items():
        yield _case(BED, name, "x.bed", text, words, REFUSED, r"x\.bed|interval|genome")
    for name, data in {"not-utf8": b"one\t1\t9\t\xff\n", "binary": _BIN}.items():
        yield _case(BED, name, "x.bed", data, words, REFUSED)
    audit = ("data", "audit", "--train", "x.bed", "--test", "x.bed")
    for name in ("empty", "huge", "5000-digits", "escape-record", "long-record", "nul"):
        exit = EITHER if name in ("escape-record", "long-record", "nul") else REFUSED
        yield _case(BED, f"audit-{name}", "x.bed", lines[name], audit, exit, "bed|interval")


_SEQUENCES: dict[str, tuple[bytes | str, int]] = {
    "empty": ("", REFUSED),
    "header": ("sequence\n", REFUSED),
    "other-header": ("a,b\n1,2\n", REFUSED),
    "escape-header": ("\x1b[31m,b\n1,2\n", REFUSED),
    "protein": ("sequence\nMKVL\n", REFUSED),
    "blank-cell": ("sequence,id\n,a\n", REFUSED),
    "uneven": ("sequence,id\nACGT\n", REFUSED),
    "escape": ("sequence\nAC\x1b[31mGT\n", REFUSED),
    "not-utf8": (b"sequence\nAC\xffGT\n", REFUSED),
    "nul": ("sequence\nAC\x00GT\n", REFUSED),
    "quote": ('sequence\n"ACGT\n', EITHER),
    "cell-of-megabytes": ("sequence\n" + "X" * 3_000_000 + "\n", REFUSED),
    "long-header": ("a" * 200_000 + "\n1\n", REFUSED),
    "utf16": ("sequence\nACGT\n".encode("utf-16"), REFUSED),
    "bom": (b"\xef\xbb\xbfsequence\nACGT\n", DONE),
    "crlf": ("sequence\r\nACGT\r\n", DONE),
    "cr": ("sequence\rACGT\r", EITHER),
    "twice": ("sequence,sequence\nACGT,ACGT\n", EITHER),
    "10000-columns": ("sequence" + ",a" * 10_000 + "\nACGT" + ",1" * 10_000 + "\n", EITHER),
    "escape-id": ("sequence,id\nACGT,\x1b[31m\n", DONE),
    "lower": ("sequence\nacgt\n", DONE),
    "one-base": ("sequence\nA\n", DONE),
    "binary": (_BIN, REFUSED),
}


def sequences(base: Base) -> Iterator[Case]:
    """Sequences for a classifier, without labels and with."""
    words = ("predict", "dna", "--checkpoint", str(base / "dna"), "--csv", "x.csv", "--output", "out.csv", "--quiet")
    for name, (data, exit) in _SEQUENCES.items():
        yield _case(CSV, name, "x.csv", data, words, exit)
    test = ("test", "dna", "--checkpoint", str(base / "dna"), "--csv", "x.csv", "--quiet")
    for name, data in {
        "unknown-class": "sequence,label\nACGT,other\n",
        "no-label": "sequence,label\nACGT,\n",
        "no-labels": "sequence\nACGT\n",
        "escape-class": "sequence,label\nACGT,\x1b[31m\n",
        "long-class": f"sequence,label\nACGT,{'a' * 100_000}\n",
    }.items():
        yield _case(CSV, f"labelled-{name}", "x.csv", data, test, REFUSED)
    fit = ("fit", "dna", "--csv", "x.csv", "model.dim=8", "model.heads=1", "--quiet")
    for name, data in {
        "one-class": "sequence,label\nACGT,a\nAGGT,a\n",
        "one-row": "sequence,label\nACGT,a\n",
        "each-its-class": "sequence,label\n" + "".join(f"{letters(20, i)},c{i}\n" for i in range(30)),
        "equal": "sequence,label\n" + "ACGT,a\nACGT,b\n" * 9,
    }.items():
        yield _case(CSV, f"fit-{name}", "x.csv", data, fit, REFUSED)


def texts(base: Base) -> Iterator[Case]:
    """Texts to measure a model on, and to learn."""
    words = ("eval", "lm", "--checkpoint", str(base / "lm"), "--text", "x.txt", "--quiet")
    found: dict[str, tuple[bytes, int]] = {
        "empty": (b"", REFUSED),
        "one-byte": (b"a", REFUSED),
        "not-utf8": (b"abc\xff\xfe", REFUSED),
        "binary": (_BIN, REFUSED),
        "utf16": ("abc".encode("utf-16"), REFUSED),
        "cut-letter": ("é".encode()[:1] * 3, REFUSED),
        "surrogate": (b"\xed\xa0\x80abc", REFUSED),
        "overlong": (b"\xc0\x80\xc0\x80", REFUSED),
        "nul": (b"\x00" * 500, DONE),
        "escapes": (b"\x1b[2J" * 100, DONE),
        "bom": (b"\xef\xbb\xbfabc", DONE),
        "one-line": (b"a" * 20_000, DONE),
        "two-bytes": (b"ab", DONE),
    }
    for name, (data, exit) in found.items():
        yield _case(TEXT, name, "x.txt", data, words, exit)
    fit = ("fit", "lm", "--text", "x.txt", "model.dim=8", "model.heads=1", "model.layers=1", "--quiet")
    for name in ("empty", "one-byte", "not-utf8", "two-bytes", "binary"):
        yield _case(TEXT, f"fit-{name}", "x.txt", found[name][0], fit, REFUSED)
    yield _case(TEXT, "fit-short", "x.txt", b"word " * 30, fit, REFUSED)
    pairs = (*fit, "--vocab-size", "300")
    yield _case(TEXT, "pairs-short", "x.txt", b"a b", pairs, REFUSED)
    yield Case(TEXT, "folder", tuple("." if word == "x.txt" else word for word in words), REFUSED, "folder|directory")
    yield Case(TEXT, "gone", tuple("nowhere" if word == "x.txt" else word for word in words), REFUSED, "nowhere")
