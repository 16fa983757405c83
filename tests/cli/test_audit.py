"""`titans-seq data audit` on small lists: folders, a tar, BED files."""

import argparse
import gzip
import os
import tarfile
from pathlib import Path

import pytest

from titans_seq.cli.audit import audit_command
from titans_seq.datamodules.common.errors import DataError


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Two data sets: `leaky`, where half of the test cats are train cats, and `by_length`, which length solves."""
    rows = {
        "leaky/train/cat": ["chr1,0,10", "chr1,100,110"],
        "leaky/train/dog": ["chr2,0,10", "chr2,100,110"],
        "leaky/test/cat": ["chr1,0,10", "chr1,500,510"],
        "leaky/test/dog": ["chr1,109,119", "chr2,500,510"],
        "by_length/train/cat": ["chr1,0,10", "chr1,100,110"],
        "by_length/train/dog": ["chr2,0,20", "chr2,100,120"],
        "by_length/test/cat": ["chr1,1000,1010"],
        "by_length/test/dog": ["chr1,2000,2020"],
    }
    for name, each in rows.items():
        file = tmp_path / "datasets" / f"{name}.csv.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = "id,region,start,end,strand\n" + "".join(f"{i},{row},+\n" for i, row in enumerate(each))
        file.write_bytes(gzip.compress(text.encode()))
    return tmp_path / "datasets"


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]):
    """Run the command and return (rows of the table by name, text after the table)."""

    def run(*names: str, **options: str | Path | None) -> tuple[dict[str, list[str]], str]:
        given = {"path": None, "train": None, "test": None} | options
        audit_command(argparse.Namespace(names=list(names), **given))
        out, err = capsys.readouterr()
        assert err == ""
        cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
        return {row[0]: row[1:] for row in cells}, out[out.index("└") :].partition("\n")[2]

    return run


LEAKY = ["2", "4", "4", "10", "50.0 %", "25.0 %", "1", "1", "50.0 %"]
BY_LENGTH = ["2", "4", "2", "10/15/20", "0.0 %", "0.0 %", "0", "0", "100.0 %"]


@pytest.mark.parametrize("kind", ["folder", "parent", "tar", "tar.gz", "default", "dna default"])
def test_every_place_of_lists(lists: Path, audit, kind: str) -> None:
    path: Path | None = {"folder": lists, "parent": lists.parent}.get(kind)
    if path is None:
        path = lists.parent / f"lists.{kind}"
        if "default" in kind:
            path = Path(os.environ["TITANS_SEQ_DATA"], *kind.split()[:-1], "genomic_benchmarks", "interval_lists.tar")
            path.parent.mkdir(parents=True)
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
            archive.add(lists, "datasets")
    rows, advice = audit(path=None if "default" in kind else str(path))
    assert rows == {"by_length": BY_LENGTH, "leaky": LEAKY}
    overlap, length = advice.splitlines()
    assert overlap.startswith("leaky: more than 1% of the test intervals") and "titans-seq fit dna --bed" in overlap
    assert length.startswith("by_length: length alone tells the class")


def test_names_choose_and_one_alone_is_shown_by_class(lists: Path, audit) -> None:
    expected = {
        "leaky": LEAKY,
        "cat": ["", "", "2", "", "50.0 %", "50.0 %", "1", "0", ""],
        "dog": ["", "", "2", "", "50.0 %", "0.0 %", "0", "1", ""],
    }
    assert audit("LEAKY", path=lists)[0] == expected
    assert audit(path=lists / "leaky")[0] == expected


def test_bed_files(tmp_path: Path, audit) -> None:
    train, test = tmp_path / "train.bed", tmp_path / "test.bed"
    train.write_text("chr1\t0\t10\nchr1\t20\t30\n")
    test.write_text("chr1\t5\t15\nchr2\t0\t12\n")
    rows, advice = audit(train=str(train), test=str(test))
    assert rows == {"test.bed": ["-", "2", "2", "10/10/12", "50.0 %", "50.0 %", "0", "-", "-"]}
    assert "test.bed: more than 1%" in advice
    train.write_text("chr1\t0\t10\tpeak1\nchr1\t20\t30\tpeak2\n")  # names of intervals are no classes
    test.write_text("chr1\t15\t19\tpeak1\nchr2\t0\t9\tpeak2\n")
    rows, advice = audit(train=str(train), test=str(test))
    assert rows["test.bed"] == ["-", "2", "2", "4/9.5/10", "0.0 %", "0.0 %", "0", "-", "-"]
    assert advice.startswith("Little overlap")
    lines = ["chr1\t{}\t{}\tcat", "chr1\t{}\t{}\tdog"] * 2
    for path, shift in ((train, 0), (test, 4)):
        path.write_text("\n".join(line.format(9 * i + shift, 9 * i + shift + 8) for i, line in enumerate(lines)))
    rows, _ = audit(train=str(train), test=str(test))
    assert rows["test.bed"] == ["2", "4", "4", "8", "100.0 %", "100.0 %", "0", "3", "50.0 %"]


def test_what_is_refused(lists: Path, tmp_path: Path, audit) -> None:
    bed = tmp_path / "some.bed"
    bed.write_text("chr1\t0\t10\n")
    (tmp_path / "empty").mkdir()
    for message, names, options in (
        ("no interval lists at .*no-data.*; the lists are the folder `datasets` of https://github.com/ML", [], {}),
        ("nothing at .*nowhere; the lists are", [], {"path": tmp_path / "nowhere"}),
        ("empty holds no data set", [], {"path": tmp_path / "empty"}),
        ("some.bed cannot be read as a tar", [], {"path": bed}),
        ("no interval lists of 'laeky'; did you mean 'leaky'", ["laeky"], {"path": lists}),
        ("no interval lists of 'zzz'; they are by_length, leaky", ["zzz"], {"path": lists}),
        ("--train and --test go together", [], {"train": bed}),
        ("leave out --path and data set names", [], {"train": bed, "test": bed, "path": lists}),
        ("leave out --path and data set names", ["leaky"], {"train": bed, "test": bed}),
    ):
        with pytest.raises(DataError, match=message) as caught:
            audit(*names, **options)
        assert "\n" not in str(caught.value)


def test_a_tar_is_read_in_its_own_folder_and_named_in_errors(lists: Path, tmp_path: Path, audit) -> None:
    outside = tmp_path / "outside.tar"
    with tarfile.open(outside, "w") as archive:
        archive.add(lists, "../escaped")
    with pytest.raises(DataError, match="outside.tar cannot be read as a tar of interval lists"):
        audit(path=outside)
    assert not (tmp_path / "escaped").exists()
    (lists / "leaky" / "test" / "cat.csv.gz").write_bytes(b"no gzip")
    damaged = tmp_path / "damaged.tar"
    with tarfile.open(damaged, "w") as archive:
        archive.add(lists, "datasets")
    with pytest.raises(DataError, match=r"damaged.tar/datasets/leaky/test/cat.csv.gz is a damaged gzip file"):
        audit(path=damaged)
