"""Genomes from FASTA: reading by offset against the text itself, the index, splits, windows, and what is refused."""

import gzip
import os
import pickle
import sys
from itertools import product

import numpy as np
import pytest
import torch
from Bio import bgzf
from torch.utils.data import DataLoader

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics import genome as fasta
from titans_seq.datamodules.genomics.alphabet import decode, encode
from titans_seq.datamodules.genomics.genome import (
    Genome,
    GenomeWindows,
    bed_splits,
    check_intervals,
    contiguous_splits,
    labelled_from_bed,
    record_splits,
)
from titans_seq.datamodules.genomics.intervals import Interval

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No index of a test goes to the user's cache."""
    monkeypatch.setattr(fasta, "user_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "titans-seq" / "fasta"


def sequence(length, seed=0, letters="ACGT"):
    return "".join(np.random.default_rng(seed).choice(list(letters), length))


def as_fasta(records, width=7, newline="\n"):
    lines = []
    for name, text in records.items():
        lines += [f">{name} something else", *(text[i : i + width] for i in range(0, len(text), width))]
    return newline.join([*lines, ""])


def write(path, content):
    """Write FASTA text, with bgzip for .gz; also records, wrapped."""
    content = content if isinstance(content, str) else as_fasta(content)
    if path.suffix == ".gz":
        with bgzf.BgzfWriter(path, "wb") as file:
            file.write(content.encode())
    else:
        path.write_text(content, newline="")
    return path


def text_of(tokens):
    return decode(torch.from_numpy(tokens))


RECORDS = {"chr1": sequence(40), "chr2": sequence(14, 1), "chrM": "g", "x|y.2": sequence(30, 2, "acgtACGTnNRyU")}


@pytest.mark.parametrize("name", ["some.fa", "some.fasta.gz", "some.fa.bgz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("width", [1, 7, 1000])
def test_every_stretch_is_that_of_the_text(tmp_path, name, newline, width):
    text = as_fasta(RECORDS, width, newline)
    path = tmp_path / name
    if name.endswith("z"):
        with bgzf.BgzfWriter(path, "wb") as file:
            for i in range(0, len(text), 50):  # blocks that end inside lines
                file.write(text[i : i + 50].encode())
                file.flush()
    else:
        path.write_text(text, newline="")
    genome = Genome(path)
    assert genome.names == tuple(RECORDS)
    assert genome.lengths == {name: len(text) for name, text in RECORDS.items()}
    for record, text in RECORDS.items():
        assert np.array_equal(genome.tokens(record), encode(text))
        for begin in range(0, len(text) + 1, 3):
            for end in range(begin, len(text) + 1, 2):
                assert genome.letters(record, begin, end) == text[begin:end]
                assert np.array_equal(genome.tokens(record, begin, end), encode(text[begin:end]))
    genome.check()


def test_blocks_of_bgzip_may_be_full_or_empty_and_begin_anywhere(tmp_path):
    text = sequence(150_000)
    path = write(tmp_path / "some.fa.gz", as_fasta({"a": text}, len(text)))  # blocks of 64 KiB, as large as they get
    other = write(tmp_path / "other.fa.gz", {"b": text[:100]})
    path.write_bytes(path.read_bytes() + other.read_bytes())  # an empty block between the two
    genome = Genome(path)
    header = len(">a something else\n")
    for begin in (2**16 - header - 1, 2**16 - header, 2**16 - header + 1, 2**17 - header):
        assert genome.letters("a", begin, begin + 9) == text[begin : begin + 9]
        assert genome.letters("a", begin) == text[begin:]
    assert genome.letters("b") == text[:100]


@pytest.mark.parametrize("ending", ["", "\n", "\n\n"])
def test_the_end_of_a_file_matters_neither_at_first_nor_with_the_index(tmp_path, ending):
    path = write(tmp_path / "some.fa", f">a\nACGT\nAC\n>b\nGGGG\nTTTT{ending}")
    for _ in range(2):
        assert Genome(path).letters("b", 3) == "GTTTT"


def test_an_index_is_written_once_and_read_after(tmp_path, cache, monkeypatch):
    path = write(tmp_path / "some.fa", RECORDS)
    Genome(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["some.fa", "some.fa.fai"]
    monkeypatch.setattr(fasta, "_build_index", lambda *_: pytest.fail("built again"))
    assert Genome(path).letters("chr2") == RECORDS["chr2"]


# of a compressed FASTA only the time tells: its length is not known without reading it
@pytest.mark.parametrize(("name", "age"), [("some.fa", -100), ("some.fa", 100), ("some.fa.gz", 100)])
def test_an_index_of_another_file_is_built_anew(tmp_path, name, age):
    path = write(tmp_path / name, {"a": sequence(50), "b": sequence(20)})
    Genome(path)
    index = tmp_path / f"{name}.fai"
    write(path, {"a": sequence(70, 3), "c": sequence(50, 4)})
    os.utime(path, (index.stat().st_mtime + age,) * 2)
    for _ in range(2):  # a FASTA dated in the future too gets an index that counts as fresh
        genome = Genome(path)
        assert genome.letters("c") == sequence(50, 4)
        assert index.stat().st_mtime >= path.stat().st_mtime


@pytest.mark.parametrize("damage", ["", "chr1\t40\t", "chr1\t40\t6\t7\t8\n", "a\tb\tc\td\te\n"])
def test_a_damaged_index_is_built_anew(tmp_path, damage):
    path = write(tmp_path / "some.fa", RECORDS)
    Genome(path)
    (tmp_path / "some.fa.fai").write_text(damage)
    assert Genome(path).lengths["x|y.2"] == 30


@pytest.mark.parametrize("name", ["some.fa", "some.fa.gz"])
def test_where_the_folder_cannot_be_written_the_index_goes_to_the_cache(tmp_path, cache, name, monkeypatch):
    path = write(tmp_path / name, RECORDS)
    (tmp_path / f"{name}.fai").mkdir()  # refuses the superuser as well
    for _ in range(2):
        assert Genome(path).letters("chr1", 5, 30) == RECORDS["chr1"][5:30]
    assert {file.suffix for file in cache.iterdir()} == ({".fai", ".gzi"} if name.endswith("gz") else {".fai"})
    # nor the cache
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(fasta, "user_cache", lambda: tmp_path / "file")
    monkeypatch.setattr(fasta.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert Genome(path).letters("chr1", 5, 30) == RECORDS["chr1"][5:30]
    assert any((tmp_path / "temporary" / "titans-seq-fasta").iterdir())
    # nor anything
    monkeypatch.setattr(fasta.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"index cannot be written \(.*file.*make room or access"):
        Genome(path)


def test_a_pickled_genome_opens_for_itself(tmp_path):
    path = write(tmp_path / "some.fa", RECORDS)
    genome = pickle.loads(pickle.dumps(Genome(path)))
    assert genome._handle is None
    assert genome.letters("chr2") == RECORDS["chr2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_workers_and_their_parent_read_at_their_own_places(tmp_path):
    text = sequence(10_000)
    path = write(tmp_path / "some.fa", {"a": text})
    windows = GenomeWindows(Genome(path), [Interval("a", 0, len(text))], 100)
    loader = DataLoader(windows, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for i, tokens in enumerate(loader):
        assert text_of(tokens.numpy()) == text_of(windows[i]) == text[100 * i : 100 * (i + 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no records"),
        ("\n\n", "holds no records"),
        ("ACGT\n", "is not FASTA: it must start with the name of a record"),
        ("; nothing but a comment\n", "cannot be indexed"),
        ("> \nACGT\n", "cannot be indexed.*a name after '>'"),
        (">a\nAC\n>b\n>c\nAC\n", "record b is empty"),
        (">a\nAC\n>b\n", "record b is empty"),
        (">a\nAC\n>b 1\nAC\n>b 2\nGG\n", "2 records are called b"),
        (">a\nACGT\nAC\nACGT\n", "cannot be indexed.*lines of equal length"),
        (">a\nACGT\n\nACGT\n", "cannot be indexed.*without blank lines"),
    ],
)
@pytest.mark.parametrize("name", ["wrong.fa", "wrong.fa.gz"])
def test_what_is_wrong_with_a_file(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    for _ in range(2):  # nothing is left behind that would hide it
        with pytest.raises(DataError, match=message) as error:
            Genome(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir() if file.is_file() and not file.name.endswith("i")] == [name]


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="no file"):
        Genome(tmp_path / "none.fa")
    with pytest.raises(DataError, match="is a folder; give a file"):
        Genome(tmp_path)
    content = as_fasta(RECORDS).encode()
    plain = tmp_path / "plain.fa.gz"
    with (
        plain.open("wb") as file,
        gzip.GzipFile("toBC.fa", "wb", fileobj=file) as packed,
    ):  # a name that looks like bgzip
        packed.write(content)
    for data in (plain.read_bytes(), gzip.compress(content)):
        plain.write_bytes(data)
        with pytest.raises(DataError, match="is plain gzip; recompress with bgzip or decompress with gunzip"):
            Genome(plain)
    plain.write_bytes(content)
    with pytest.raises(DataError, match="is not compressed; take .gz off"):
        Genome(plain)
    whole = write(tmp_path / "whole.fa.gz", RECORDS).read_bytes()
    (tmp_path / "named.fa").write_bytes(whole)
    with pytest.raises(DataError, match="give it the ending .gz"):
        Genome(tmp_path / "named.fa")
    (tmp_path / "cut.fa.gz").write_bytes(whole[:-30])
    with pytest.raises(DataError, match="is cut off"):
        Genome(tmp_path / "cut.fa.gz")
    for place in (20, len(whole) - 34):  # the data, and the checksum behind it
        (tmp_path / "damaged.fa.gz").write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with pytest.raises(DataError, match="is damaged|cannot be indexed"):
            Genome(tmp_path / "damaged.fa.gz")
    (tmp_path / "latin.fa").write_bytes(b">a\nAC\n>m\xfcller\nGT\n")
    with pytest.raises(DataError, match="cannot be indexed: 'utf-8'"):
        Genome(tmp_path / "latin.fa")


def test_a_check_shows_a_bar_for_big_genomes_on_a_terminal(tmp_path, monkeypatch, capsys):
    genome = Genome(write(tmp_path / "some.fa", RECORDS))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    genome.check(quiet=False)
    monkeypatch.setattr(fasta, "_BIG", 10)
    genome.check()
    assert capsys.readouterr().err == ""
    genome.check(quiet=False)
    assert "some.fa" in capsys.readouterr().err


@pytest.mark.parametrize("piece", [3, 2**20])
def test_a_letter_that_is_no_base_is_named_with_its_place_in_the_record(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(fasta, "_PIECE", piece)
    genome = Genome(write(tmp_path / "some.fa", {"a": "ACGT", "b": "ACGTACGT-CGT* "}))
    assert text_of(genome.tokens("b", 0, 8)) == "ACGTACGT"
    for wrong in (lambda: genome.tokens("b"), lambda: genome.tokens("b", 7, 10), genome.check):
        with pytest.raises(DataError, match="some.fa: record b: '-' at position 9 is no base; bases are A C G T N U"):
            wrong()
    with pytest.raises(DataError, match=r"'\*' at position 13 "):
        genome.tokens("b", 9)


def test_places_outside_are_refused(tmp_path):
    genome = Genome(write(tmp_path / "some.fa", {"a": "ACGT"}))
    for begin, end in ((-1, 2), (3, 2), (0, 5), (5, None)):
        with pytest.raises(DataError, match="record a has 4 bases"):
            genome.tokens("a", begin, end)


@pytest.mark.parametrize(
    ("names", "asked", "hint"),
    [
        (("1", "2"), "chr1", "did you mean 1?"),
        (("chr1", "chr2"), "2", "did you mean chr2?"),
        (("chr1", "chrM"), "MT", "did you mean chrM?"),
        (("NC_000913.3",), "NC_000913", "did you mean NC_000913.3?"),
        (("scaffold_17", "other"), "scafold_17", "did you mean scaffold_17?"),
        (tuple("abcdefg"), "99", "it has a, b, c, d, e and 2 more"),
    ],
)
def test_an_unknown_record_is_answered_with_the_nearest(tmp_path, names, asked, hint):
    genome = Genome(write(tmp_path / "some.fa", dict.fromkeys(names, "ACGT")))
    with pytest.raises(DataError) as error:
        genome.tokens(asked)
    assert str(error.value) == f"no record {asked} in {genome.path}; {hint}"


def test_a_file_that_changes_underneath_is_noticed(tmp_path):
    path = write(tmp_path / "some.fa", {"a": sequence(50), "b": sequence(50)})
    genome = Genome(path)
    with path.open("r+b") as file:
        file.truncate(70)
    with pytest.raises(DataError, match="record b has other lines than its index says"):
        genome.tokens("b")


def test_damage_is_noticed_though_the_index_counts_as_fresh(tmp_path):
    path = write(tmp_path / "some.fa.gz", {"a": sequence(50)})
    Genome(path)
    whole = path.read_bytes()
    for place in (20, 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        os.utime(path, (0, 0))
        with pytest.raises(DataError, match="is damaged|cannot be indexed"):
            Genome(path)


def splits_of(splits):
    return {name: [(i.record, i.begin, i.end) for i in intervals] for name, intervals in splits.items()}


def test_contiguous_splits_take_the_ends_of_every_record(tmp_path):
    genome = Genome(write(tmp_path / "some.fa", {"a": sequence(100), "b": "ACG", "c": sequence(50)}))
    splits = contiguous_splits(genome)
    assert splits_of(splits) == {
        "train": [("a", 0, 90), ("b", 0, 3), ("c", 0, 46)],
        "val": [("a", 90, 95), ("c", 46, 48)],
        "test": [("a", 95, 100), ("c", 48, 50)],
    }
    covered = sorted(place for places in splits_of(splits).values() for place in places)
    assert sum(end - begin for _, begin, end in covered) == 153
    assert splits_of(contiguous_splits(genome, (0.5, 0, 0.5)))["val"] == []
    for wrong in ((0.9, 0.1), (0.9, 0.2, -0.1), (0.9, 0.05, 0.1)):
        with pytest.raises(DataError, match="must be at least 0 and add up to 1"):
            contiguous_splits(genome, wrong)
    short = Genome(write(tmp_path / "short.fa", {"a": "ACG", "b": "ACGT"}))
    with pytest.raises(DataError, match="its longest record has 4 bases, too few for 5% as val"):
        contiguous_splits(short)


def test_record_splits_hold_out_whole_records(tmp_path):
    genome = Genome(write(tmp_path / "some.fa", RECORDS))
    assert splits_of(record_splits(genome, val=("chr2", "chrM"), test="chr1")) == {
        "train": [("x|y.2", 0, 30)],
        "val": [("chr2", 0, 14), ("chrM", 0, 1)],
        "test": [("chr1", 0, 40)],
    }
    with pytest.raises(DataError, match="no record 2 .*did you mean chr2"):
        record_splits(genome, val=("2",))
    with pytest.raises(DataError, match="record chr1 is held out for val and for test"):
        record_splits(genome, val=("chr1",), test=("chr2", "chr1"))
    with pytest.raises(DataError, match="every record is held out"):
        record_splits(genome, val=("chr1", "chr2"), test=("chrM", "x|y.2"))


def test_bed_splits(tmp_path):
    genome = Genome(write(tmp_path / "some.fa", RECORDS))
    bed = tmp_path / "some.bed"
    bed.write_text("chr1\t0\t10\ttrain\nchr1\t30\t40\tTest\nchr2\t0\t4\tvalid\nchr1\t10\t20\ttrain\nchrM\t0\t1\tval\n")
    assert splits_of(bed_splits(genome, bed)) == {
        "train": [("chr1", 0, 10), ("chr1", 10, 20)],
        "val": [("chr2", 0, 4), ("chrM", 0, 1)],
        "test": [("chr1", 30, 40)],
    }
    for text, message in (
        (
            "chr1\t0\t10\ttrain\nchr1\t10\t20\tfold3\n",
            "column 4 of chr1:10-20 must be train, val or test; it holds 'fold3'",
        ),
        ("chr1\t0\t10\n", "column 4 of chr1:0-10 must be train, val or test; it holds nothing"),
        ("chr1\t0\t10\ttest\n", "no interval has train"),
        ("chr1\t0\t41\ttrain\n", "interval chr1:0-41 ends past record chr1 .* has 40 bases"),
        ("1\t0\t4\ttrain\n", "interval 1:0-4: no record 1 .*did you mean chr1"),
    ):
        bed.write_text(text)
        with pytest.raises(DataError, match=message):
            bed_splits(genome, bed)


def test_intervals_must_lie_in_the_genome(tmp_path):
    genome = Genome(write(tmp_path / "some.fa", RECORDS))
    check_intervals(genome, [Interval("chr1", 0, 40), Interval("chrM", 0, 1)])
    with pytest.raises(DataError, match="interval chr2:3-15 ends past record chr2 .*, which has 14 bases"):
        check_intervals(genome, [Interval("chr1", 0, 40), Interval("chr2", 3, 15)])
    with pytest.raises(DataError, match="interval chr7:3-15: no record chr7"):
        check_intervals(genome, [Interval("chr7", 3, 15)])


def windows_by_hand(text, begin, end, length, stride, max_unknown):
    """Window after window, until one reaches the end or none begins before it."""
    kept, dropped = [], 0
    for first in range(begin, end, stride):
        last = min(first + length, end)
        if text[first:last].count("N") > max_unknown * (last - first):
            dropped += 1
        else:
            kept.append((first, last))
        if last == end:
            break
    return kept, dropped


@pytest.mark.parametrize("piece", [1, 5, 2**20])
@pytest.mark.parametrize("stride", [1, 3, 11, None])
def test_windows_are_those_of_going_through_by_hand(tmp_path, monkeypatch, piece, stride):
    monkeypatch.setattr(fasta, "_PIECE", piece)
    texts = {"a": sequence(61, 0, "ACGTNNN"), "b": sequence(16, 1, "ACGTN")}
    genome = Genome(write(tmp_path / "some.fa", texts))
    for length, max_unknown in product([1, 3, 8, 200], [0.25, 0.5, 1]):
        check_windows(genome, texts, length, stride, max_unknown)


def check_windows(genome, texts, length, stride, max_unknown):
    intervals = [Interval("a", 0, 61), Interval("b", 2, 16, "-"), Interval("a", 7, 8), Interval("a", 20, 44)]
    expected, dropped = [], 0
    for interval in intervals:
        kept, out = windows_by_hand(
            texts[interval.record], interval.begin, interval.end, length, stride or length, max_unknown
        )
        expected += [(interval, begin, end) for begin, end in kept]
        dropped += out
    windows = GenomeWindows(genome, intervals, length, stride, max_unknown)
    assert windows.dropped == dropped
    assert len(windows) == len(expected)
    for i, (interval, begin, end) in enumerate(expected):
        assert windows.places(i) == (interval.record, begin, end)
        text = texts[interval.record][begin:end]
        assert text_of(windows[i]) == (text if interval.strand == "+" else text.translate(COMPLEMENT)[::-1])
        assert windows[i].dtype == np.uint8
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_ambiguous_bases_count_as_unknown(tmp_path):
    genome = Genome(write(tmp_path / "some.fa", {"a": "ACRYnnNSACGTacgt"}))
    windows = GenomeWindows(genome, [Interval("a", 0, 16)], 4)
    assert [windows.places(i) for i in range(len(windows))] == [("a", 0, 4), ("a", 8, 12), ("a", 12, 16)]
    assert windows.dropped == 1


def test_windows_that_cannot_be(tmp_path):
    genome = Genome(write(tmp_path / "some.fa", {"a": "ACGT", "b": "NNNN"}))
    for arguments in ({"length": 0}, {"length": 4, "stride": 0}, {"length": 4, "max_unknown": 1.5}):
        with pytest.raises(DataError, match="length and stride must be at least 1"):
            GenomeWindows(genome, [Interval("a", 0, 4)], **arguments)
    with pytest.raises(DataError, match="all 2 windows of 3 bases have more than 50% N"):
        GenomeWindows(genome, [Interval("b", 0, 4)], 3)
    with pytest.raises(DataError, match="interval a:0-5 ends past"):
        GenomeWindows(genome, [Interval("a", 0, 5)], 3)
    empty = GenomeWindows(genome, [], 3)
    assert len(empty) == empty.dropped == 0


def test_a_labelled_bed(tmp_path):
    genome = Genome(write(tmp_path / "some.fa", {"a": "ACGTTnacg", "b": "GGGTA"}))
    intervals = [Interval("a", 3, 7, "-", "x"), Interval("b", 1, 5, "+", "b"), Interval("a", 0, 1, "+", "x")]
    data = labelled_from_bed(genome, intervals)
    assert (data.name, data.class_names, data.labels.tolist()) == ("some", ("b", "x"), [1, 0, 1])
    assert [text_of(tokens) for tokens in data.tokens] == ["TNAA", "GGTA", "A"]
    assert labelled_from_bed(genome, intervals[:1], ("w", "x")).labels.tolist() == [1]
    with pytest.raises(DataError, match="interval b:0-1 has no class"):
        labelled_from_bed(genome, [*intervals, Interval("b", 0, 1)])
    with pytest.raises(DataError, match="at least two classes are needed; found x"):
        labelled_from_bed(genome, intervals[:1])
    with pytest.raises(DataError, match="interval b:0-6 ends past"):
        labelled_from_bed(genome, [Interval("b", 0, 6, "+", "x")])
