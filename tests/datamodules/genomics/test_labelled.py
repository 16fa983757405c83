"""Labelled sequences from CSV files and class folders."""

import gzip

import numpy as np
import pytest
from fasta import text_of, write

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.intervals import Interval
from titans_seq.datamodules.genomics.labelled import labelled_from_bed, read_labelled_csv, read_labelled_folder


def texts_of(data):
    return [text_of(tokens) for tokens in data.tokens]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.gz"])
def test_every_format(tmp_path, suffix):
    mark = "\t" if "tsv" in suffix else ","
    text = mark.join(["ID", "Sequence", "Label"]) + "\n" + "".join(
        mark.join(row) + "\n" for row in [("1", "ACGT", "dog"), ("2", "nn", "cat"), ("3", "a", "dog")]
    )  # fmt: skip
    path = tmp_path / f"some{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else b"\xef\xbb\xbf" + text.encode())
    data = read_labelled_csv(path)
    assert data.name == "some"
    assert data.class_names == ("cat", "dog")
    assert texts_of(data) == ["ACGT", "NN", "A"]
    assert data.labels.tolist() == [1, 0, 1]
    assert data.lengths.tolist() == [4, 2, 1]


def test_labels_follow_the_names_of_training(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("sequence,label\nACGT,b\n")
    assert read_labelled_csv(path, ("a", "b", "c")).labels.tolist() == [1]
    with pytest.raises(DataError, match="class b of sequence . is not among those of training, a, c"):
        read_labelled_csv(path, ("a", "c"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column sequence and no column label; the header is empty"),
        ("sequence,class\nA,1\n", "no column label; the header is sequence, class"),
        ("sequence,label\nA,1\n,2\n", "line 3 has no sequence"),
        ("sequence,label\nA,1\nC,\n", "line 3 has no label"),
        ("sequence,label\nA,1\nC\n", "line 3 has 1 fields, the header 2"),
        ("sequence,label\nA,1\nCXG,2\n", "line 3: 'X' at position 2 is not a base"),
        ("sequence,label\nA,1\nC,1\n", "at least two classes are needed; found 1"),
        ("sequence,label\n", "at least two classes are needed; found none"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, text, message):
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_labelled_csv(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match=r"must be one of .csv, .tsv"):
        read_labelled_csv(tmp_path / "some.txt")
    with pytest.raises(DataError, match="no folder"):
        read_labelled_folder(tmp_path / "none")


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_of_folders_are_sorted_whatever_order_they_were_made_in(tmp_path, seed):
    names = np.random.default_rng(seed).permutation(["promoter", "enhancer", "ocr"])
    for name in names:
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "train" / name / f"{i}.txt").write_text("ACGT"[i:])
    data = read_labelled_folder(tmp_path / "train")
    assert data.class_names == ("enhancer", "ocr", "promoter")
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert texts_of(data) == ["ACGT", "CGT"] * 3


def test_a_labelled_bed(tmp_path):
    genome = Genome(write(tmp_path / "some.fa", {"a": "ACGTTnacg", "b": "GGGTA"}))
    intervals = [Interval("a", 3, 7, "-", "x"), Interval("b", 1, 5, "+", "b"), Interval("a", 0, 1, "+", "x")]
    data = labelled_from_bed(genome, intervals)
    assert (data.name, data.class_names, data.labels.tolist()) == ("some", ("b", "x"), [1, 0, 1])
    assert texts_of(data) == ["TNAA", "GGTA", "A"]
    assert labelled_from_bed(genome, intervals[:1], ("w", "x")).labels.tolist() == [1]
    with pytest.raises(DataError, match="interval b:0-1 has no class"):
        labelled_from_bed(genome, [*intervals, Interval("b", 0, 1)])
    with pytest.raises(DataError, match="at least two classes are needed; found x"):
        labelled_from_bed(genome, intervals[:1])
    with pytest.raises(DataError, match="interval b:0-6 ends past"):
        labelled_from_bed(genome, [Interval("b", 0, 6, "+", "x")])
