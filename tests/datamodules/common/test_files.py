"""Paths as users write them: what no path can be, what is not there, and what is there but cannot be read."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import base_name, data_folder, open_text, require_file, user_path
from titans_seq.datamodules.forecast.files import read_file
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.intervals import read_bed
from titans_seq.datamodules.genomics.labelled import read_labelled_csv, read_labelled_folder, read_sequences
from titans_seq.datamodules.genomics.variants import read_variants
from titans_seq.datamodules.language.text import read_text
from titans_seq.datamodules.language.tokenizers import read_tokenizer

READERS: dict[str, Callable[[Path], object]] = {
    "a.csv": read_file,
    "a.csv.gz": read_file,
    "b.csv": read_labelled_csv,
    "c.tsv": read_sequences,
    "a.bed": read_bed,
    "a.fa": Genome,
    "a.txt": read_text,
    "tokenizer.json": read_tokenizer,
    "a.vcf": lambda path: read_variants(path, None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a path: it is empty"),
        ("a\0b", r"'a\\x00b' is not a path"),
        ("\ud800", "is not a path"),
        ("~nobody-of-this-name/x", "no such user"),
        ("x" * 300, "File name too long; choose a shorter one"),
        ("x/" * 3000, "File name too long; choose a shorter one"),
    ],
    ids=["empty", "nul", "surrogate", "user", "name", "length"],
)
def test_what_is_no_path(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=said) as caught:
        user_path(text)
    assert len(str(caught.value)) <= 1003
    if text and "\0" not in text and text.isascii():
        monkeypatch.setenv("TITANS_SEQ_DATA", text)
        with pytest.raises(DataError, match=said):
            data_folder()


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/x") == tmp_path / "x"
    assert user_path("not/there") == Path("not/there")


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    for place, said in {
        "none": "no CSV file .*none",
        "file/x": "no CSV file",
        "": "is a folder; give a file",
        "loop": "loop cannot be read: Too many levels of symbolic links",
    }.items():
        with pytest.raises(DataError, match=said):
            require_file(tmp_path / place, "CSV file")
    with pytest.raises(DataError, match="is a pipe or a device"):
        require_file(Path("/dev/null"))
    require_file(tmp_path / "file")


@pytest.mark.parametrize("name", READERS)
def test_every_reader_says_why_it_cannot_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.symlink_to("/proc/self/mem")  # a file that opens, and fails when it is read
    with pytest.raises(DataError, match="cannot be read: Input/output error"):
        READERS[name](path)
    path.unlink()
    path.symlink_to(name)
    with pytest.raises(DataError, match="cannot be read: Too many levels of symbolic links"):
        READERS[name](path)
    path.unlink()
    with pytest.raises(DataError, match="^no .*a|^no .*b"):
        READERS[name](path)
    path.mkdir()
    with pytest.raises(DataError, match="is a folder; give a file|^no tokenizer"):
        READERS[name](path)


# a table in another encoding is read, with a note
@pytest.mark.parametrize("name", [name for name in READERS if name not in ("a.fa", "a.csv", "a.csv.gz")])
def test_every_reader_refuses_what_is_not_utf8(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    text = "sequence,caf\xe9\n".encode("latin-1")
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    with pytest.raises(DataError, match="is not UTF-8 text") as error:
        READERS[name](path)
    assert str(path) in str(error.value)


def test_class_folders_are_read_as_every_other_text(tmp_path: Path) -> None:
    for name, content in {"a": b"ACGT", "b": b"AC\xe9"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_bytes(content)
    with pytest.raises(DataError, match="b/1.txt is not UTF-8 text: it holds the byte 0xe9; convert it with iconv"):
        read_labelled_folder(tmp_path)


DAMAGED = {
    "no gzip": b"no gzip",
    "cut off": gzip.compress(b"x")[:12],
    "no data": gzip.compress(b"")[:10] + b"\xff" * 20,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("name", ["a.csv", "b.csv", "c.tsv", "a.bed", "a.vcf", "a.txt"])
def test_every_reader_says_that_a_file_is_damaged(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is a damaged gzip file") as error:
        READERS[name](path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.bgz", "A.TXT.GZ"])
def test_text_is_read_as_it_is_written(name: str, tmp_path: Path) -> None:
    path, text = tmp_path / name, "caf\xe9\r\n\n"
    content = text.encode("utf-8-sig")
    path.write_bytes(content if name == "a.txt" else gzip.compress(content))
    with open_text(path) as file:
        assert file.read() == text
    assert read_text(path) == "caf\xe9\n\n"


@pytest.mark.parametrize("path", ["x/hg38.fa", "hg38.fa.gz", "hg38.FA.BGZ", "hg38", "hg38.csv"])
def test_a_file_is_called_by_its_name_alone(path: str) -> None:
    assert base_name(path) == "hg38"
    assert base_name(path.replace("hg38", "my.genome.2")) == ("my.genome.2" if "." in path else "my.genome")
