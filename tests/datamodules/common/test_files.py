"""Paths as users write them: what no path can be, what is not there, and what is there but cannot be read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import data_folder, require_file, user_path
from titans_seq.datamodules.forecast.csv_files import read_user_csv
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.intervals import read_bed
from titans_seq.datamodules.genomics.labelled import read_labelled_csv, read_sequences
from titans_seq.datamodules.genomics.variants import read_variants
from titans_seq.datamodules.language.text import read_text
from titans_seq.datamodules.language.tokenizers import read_tokenizer

READERS: dict[str, Callable[[Path], object]] = {
    "a.csv": read_user_csv,
    "a.csv.gz": read_user_csv,
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
        ("", "is no path: it is empty"),
        ("a\0b", r"'a\\x00b' is no path"),
        ("\ud800", "is no path"),
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
