"""Splits of genomes and windows of them, against going through by hand."""

from itertools import product

import numpy as np
import pytest
from fasta import RECORDS, sequence, text_of, write

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics import genome as module
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.intervals import Interval
from titans_seq.datamodules.genomics.splits import GenomeWindows, bed_splits, contiguous_splits, record_splits

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


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


def windows_by_hand(text, begin, end, length, max_unknown):
    """Window after window."""
    kept, dropped = [], 0
    for first in range(begin, end, length):
        last = min(first + length, end)
        if text[first:last].count("N") > max_unknown * (last - first):
            dropped += 1
        else:
            kept.append((first, last))
    return kept, dropped


@pytest.mark.parametrize("piece", [1, 5, 2**20])
def test_windows_are_those_of_going_through_by_hand(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(module, "_PIECE", piece)
    texts = {"a": sequence(61, 0, "ACGTNNN"), "b": sequence(16, 1, "ACGTN")}
    genome = Genome(write(tmp_path / "some.fa", texts))
    for length, max_unknown in product([1, 3, 8, 200], [0.25, 0.5, 1]):
        check_windows(genome, texts, length, max_unknown)


def check_windows(genome, texts, length, max_unknown):
    intervals = [Interval("a", 0, 61), Interval("b", 2, 16, "-"), Interval("a", 7, 8), Interval("a", 20, 44)]
    expected, dropped = [], 0
    for interval in intervals:
        kept, out = windows_by_hand(texts[interval.record], interval.begin, interval.end, length, max_unknown)
        expected += [(interval, begin, end) for begin, end in kept]
        dropped += out
    windows = GenomeWindows(genome, intervals, length, max_unknown)
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
    for arguments in ({"length": 0}, {"length": 4, "max_unknown": 1.5}):
        with pytest.raises(DataError, match="length must be at least 1"):
            GenomeWindows(genome, [Interval("a", 0, 4)], **arguments)
    with pytest.raises(DataError, match="all 2 windows of 3 bases have more than 50% N"):
        GenomeWindows(genome, [Interval("b", 0, 4)], 3)
    with pytest.raises(DataError, match="interval a:0-5 ends past"):
        GenomeWindows(genome, [Interval("a", 0, 5)], 3)
    empty = GenomeWindows(genome, [], 3)
    assert len(empty) == empty.dropped == 0
