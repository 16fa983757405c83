"""FASTA files and their indices: bgzip, where an index goes, when it is built anew, and what is refused."""

import gzip
import os

import pytest
from fasta import RECORDS, as_fasta, sequence, write

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics import index
from titans_seq.datamodules.genomics.genome import Genome


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
    monkeypatch.setattr(index, "_build_index", lambda *_: pytest.fail("built again"))
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
    monkeypatch.setattr(index, "user_cache", lambda: tmp_path / "file")
    monkeypatch.setattr(index.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert Genome(path).letters("chr1", 5, 30) == RECORDS["chr1"][5:30]
    assert any((tmp_path / "temporary" / "titans-seq-fasta").iterdir())
    # nor anything
    monkeypatch.setattr(index.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"index cannot be written \(.*file.*make room or access"):
        Genome(path)


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
