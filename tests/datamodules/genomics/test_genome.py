"""Genomes from FASTA: reading by offset against the text itself, records, places and letters."""

import os
import pickle

import numpy as np
import pytest
from Bio import bgzf
from fasta import RECORDS, as_fasta, sequence, text_of, write
from torch.utils.data import DataLoader

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics import genome as module
from titans_seq.datamodules.genomics.alphabet import encode
from titans_seq.datamodules.genomics.genome import Genome, check_intervals
from titans_seq.datamodules.genomics.intervals import Interval
from titans_seq.datamodules.genomics.splits import GenomeWindows


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


@pytest.mark.parametrize("piece", [3, 2**20])
def test_a_letter_that_is_no_base_is_named_with_its_place_in_the_record(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(module, "_PIECE", piece)
    genome = Genome(write(tmp_path / "some.fa", {"a": "ACGT", "b": "ACGTACGT-CGT* "}))
    assert text_of(genome.tokens("b", 0, 8)) == "ACGTACGT"
    for wrong in (lambda: genome.tokens("b"), lambda: genome.tokens("b", 7, 10)):
        with pytest.raises(
            DataError, match="some.fa: record b: '-' at position 9 is not a base; bases are A C G T N U"
        ):
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


def test_intervals_must_lie_in_the_genome(tmp_path):
    genome = Genome(write(tmp_path / "some.fa", RECORDS))
    check_intervals(genome, [Interval("chr1", 0, 40), Interval("chrM", 0, 1)])
    with pytest.raises(DataError, match="interval chr2:3-15 ends past record chr2 .*, which has 14 bases"):
        check_intervals(genome, [Interval("chr1", 0, 40), Interval("chr2", 3, 15)])
    with pytest.raises(DataError, match="interval chr7:3-15: no record chr7"):
        check_intervals(genome, [Interval("chr7", 3, 15)])
