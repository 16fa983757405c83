"""The data sets of genomic-benchmarks: the table, folders that count, and the package's own download from this
machine.
"""

import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import genomic_benchmarks.loc2seq
import numpy as np
import pandas as pd
import pytest
from disks import no_file_beyond
from genomic_benchmarks.loc2seq.cloud_caching import CLOUD_CACHE
from genomic_benchmarks.utils import datasets as package_datasets
from yarl import URL

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics import benchmarks as module
from titans_seq.datamodules.genomics.benchmarks import (
    BENCHMARKS,
    BenchmarkSpec,
    benchmark_folder,
    download_benchmark,
    find_benchmark,
    home_of,
    is_stranded,
    read_benchmark,
)

Serve = Callable[..., ThreadingHTTPServer]
REAL_DATA = os.environ.get("TITANS_SEQ_DATA")  # before the tests' own folder takes its place
TOY = BenchmarkSpec("toy_enhancers", ("cat", "dog"), train=(3, 2), test=(1, 2), max_length=9)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, no_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without data sets, in an empty folder, for whom there is one small data set."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> BenchmarkSpec:
    monkeypatch.setattr(module, "BENCHMARKS", (TOY,))
    return TOY


def files_of(spec: BenchmarkSpec) -> dict[str, str]:
    """The files of a data set in the package's layout, classes in no order."""
    return {
        f"{spec.name}/{split}/{name}/{i}.txt": "ACGTN"[: i + 1] + "C" * (name == "dog")
        for split, counts in (("test", spec.test), ("train", spec.train))
        for name, count in reversed(list(zip(spec.class_names, counts, strict=True)))
        for i in range(count)
    }


def unpack(spec: BenchmarkSpec, folder: Path) -> Path:
    for name, text in files_of(spec).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder / spec.name


def packed(spec: BenchmarkSpec, leave_out: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files_of(spec).items():
            if name != leave_out:
                archive.writestr(name, text)
    return buffer.getvalue()


def left(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_the_table_is_fit_for_use() -> None:
    for spec in BENCHMARKS:
        assert list(spec.class_names) == sorted(set(spec.class_names))
        assert len(spec.class_names) == len(spec.train) == len(spec.test)
        assert (spec.name, 0) in CLOUD_CACHE
    assert {spec.name for spec in BENCHMARKS} == {name for name, _ in CLOUD_CACHE}


@pytest.mark.data
def test_the_table_against_the_official_lists() -> None:
    path = Path(REAL_DATA or "none") / "dna" / "genomic_benchmarks" / "interval_lists.tar"
    if not path.is_file():
        pytest.skip(f"$TITANS_SEQ_DATA ({REAL_DATA}) lacks {path.name}")
    counts: dict[str, int] = {}
    longest: dict[str, int] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if not member.name.endswith(".csv.gz"):
                continue
            _, name, split, file = member.name.split("/")
            rows = pd.read_csv(archive.extractfile(member), compression="gzip", usecols=["start", "end"])
            counts[f"{name}/{split}/{file.removesuffix('.csv.gz')}"] = len(rows)
            longest[name] = max(int((rows["end"] - rows["start"]).max()), longest.get(name, 0))
    assert longest == {spec.name: spec.max_length for spec in BENCHMARKS}
    assert counts == {
        f"{spec.name}/{split}/{name}": count
        for spec in BENCHMARKS
        for split, of_split in (("train", spec.train), ("test", spec.test))
        for name, count in zip(spec.class_names, of_split, strict=True)
    }


def test_names_ignore_case_and_unknown_ones_get_the_nearest() -> None:
    assert find_benchmark("Human_Enhancers_COHN").class_names == ("negative", "positive")
    with pytest.raises(
        DataError, match="unknown data set 'human_enhancer_cohn' .* did you mean 'human_enhancers_cohn'"
    ):
        find_benchmark("human_enhancer_cohn")
    with pytest.raises(DataError, match="unknown data set 'ETTh1' .* they are demo_coding_vs_intergenomic_seqs, "):
        find_benchmark("ETTh1")


def test_one_table_of_strands() -> None:
    assert [spec.name for spec in BENCHMARKS if spec.stranded] == ["demo_coding_vs_intergenomic_seqs"]
    assert is_stranded("Demo_coding_vs_intergenomic_seqs") and is_stranded("splice")
    assert not is_stranded("human_enhancers_cohn") and not is_stranded("my own")


def test_ours_before_the_packages_folder(toy: BenchmarkSpec, home: Path, no_data: Path, tmp_path: Path) -> None:
    assert benchmark_folder(toy) is None
    theirs = unpack(toy, home / ".genomic_benchmarks")
    assert benchmark_folder(toy) == theirs
    ours = unpack(toy, no_data / "genomic_benchmarks")
    assert benchmark_folder(toy) == ours == home_of(toy)
    other = unpack(toy, tmp_path / "other" / "genomic_benchmarks")
    assert benchmark_folder(toy, tmp_path / "other") == other


@pytest.mark.parametrize("change", ["less", "more", "no class"])
def test_a_folder_that_is_not_whole_is_none(toy: BenchmarkSpec, no_data: Path, change: str) -> None:
    folder = unpack(toy, no_data / "genomic_benchmarks")
    if change == "more":
        (folder / "train" / "dog" / "2.txt").write_text("A")
    else:
        (folder / "train" / "dog" / "1.txt").unlink()
    if change == "no class":
        (folder / "train" / "dog" / "0.txt").unlink()
        (folder / "train" / "dog").rmdir()
    found = {"less": 1, "more": 3, "no class": 0}[change]
    assert benchmark_folder(toy) is None
    with pytest.raises(DataError, match=f"train/dog holds {found} of 2 .txt files.*titans-seq data download toy_enh"):
        read_benchmark("toy_enhancers", "train")
    with pytest.raises(DataError, match=f"not the whole of toy_enhancers: train/dog holds {found} of 2 .*; remove it"):
        download_benchmark("toy_enhancers")
    assert (folder / "train" / "cat").is_dir()


def test_reading_a_split(toy: BenchmarkSpec, no_data: Path) -> None:
    unpack(toy, no_data / "genomic_benchmarks")
    train, test = (read_benchmark("TOY_enhancers", split) for split in ("train", "test"))
    assert train.name == "toy_enhancers"
    assert train.class_names == test.class_names == ("cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 0, 1, 1], [0, 1, 1])
    assert np.array_equal(train.lengths, [1, 2, 3, 2, 3])
    with pytest.raises(DataError, match="no split 'val', only train and test"):
        read_benchmark("toy_enhancers", "val")


class _Handler(BaseHTTPRequestHandler):
    """Serves `server.answers`: path -> (status, announced length or None, content)."""

    def do_GET(self) -> None:
        status, announced, content = self.server.answers.get(self.path.split("?")[0], (404, None, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if announced is None else announced))
        self.end_headers()
        self.wfile.write(content)
        if announced == _STALLS:
            self.wfile.flush()
            self.server.released.wait(10)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


_STALLS = 10**6
METADATA = f"/datasets/{TOY.name}/metadata.yaml"
ARCHIVE = f"/record/files/{TOY.name}_v0.zip"


@pytest.fixture
def server(toy: BenchmarkSpec, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> ThreadingHTTPServer:
    """What the package asks for, with its addresses turned to this machine."""
    answers = {METADATA: (200, None, b"version: 0\n"), ARCHIVE: (200, None, packed(toy))}
    served = serve(_Handler, answers=answers)
    here = f"http://127.0.0.1:{served.server_port}"
    monkeypatch.setattr(package_datasets, "DATASET_URL_PATH", URL(f"{here}/datasets/"))
    monkeypatch.setitem(CLOUD_CACHE, (toy.name, 0), f"{here}/record")
    return served


def test_the_package_downloads(server: ThreadingHTTPServer, no_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = download_benchmark("Toy_Enhancers")
    assert place == home_of(TOY) == benchmark_folder(TOY)
    assert left(no_data / "genomic_benchmarks") == sorted(files_of(TOY))
    assert os.listdir(place.parent) == [TOY.name]
    assert read_benchmark(TOY.name, "test").labels.tolist() == [0, 1, 1]
    assert capfd.readouterr() == ("", "")
    server.answers.clear()
    assert download_benchmark("toy_enhancers") == place  # once


@pytest.mark.parametrize(
    ("path", "answer", "reason"),
    [
        (METADATA, (404, None, b""), "Dataset toy_enhancers not found"),
        (METADATA, (200, None, b"version: 1\n"), "Dataset version 0 does not match"),
        (METADATA, (200, None, b"<html>: log: in: here"), "mapping values are not allowed here"),
        (METADATA, (200, None, b"please log in"), "not the answer asked for: TypeError"),
        (ARCHIVE, (404, None, b""), "HTTP Error 404"),
        (ARCHIVE, (200, 9999, packed(TOY)), "retrieval incomplete"),
        (ARCHIVE, (200, _STALLS, packed(TOY)), "timed out"),
        (ARCHIVE, (200, None, b"please log in"), "not a zip file"),
        (ARCHIVE, (200, None, packed(TOY).replace(b"ACG", b"ACC", 1)), "Bad CRC-32"),
        (ARCHIVE, (200, None, packed(TOY, f"{TOY.name}/test/cat/0.txt")), "test/cat holds 0 of 1 .txt files"),
    ],
    ids=[
        "no metadata", "version", "no yaml", "no mapping", "no archive", "half", "stall", "no zip", "damaged", "less"
    ],
)  # fmt: skip
def test_a_bad_answer_leaves_nothing_and_says_what_was_tried(
    server: ThreadingHTTPServer, no_data: Path, monkeypatch: pytest.MonkeyPatch, path: str, answer: tuple, reason: str
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 0.3)
    server.answers[path] = answer
    with pytest.raises(DataError, match=reason) as caught:
        download_benchmark("toy_enhancers", quiet=True)
    message = str(caught.value)
    here = f"http://127.0.0.1:{server.server_port}"
    assert f"tried {here}{METADATA} and {here}{ARCHIVE} (" in message
    assert f"by hand as {home_of(TOY)}" in message
    assert "\n" not in message
    assert os.listdir(no_data / "genomic_benchmarks") == []


def test_connection_refused(server: ThreadingHTTPServer, no_data: Path) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"could not be downloaded; .*\(.*Connection refused.*\)"):
        download_benchmark("toy_enhancers", quiet=True)
    assert os.listdir(no_data / "genomic_benchmarks") == []


def test_full_disk_leaves_nothing(server: ThreadingHTTPServer, no_data: Path) -> None:
    with no_file_beyond(100), pytest.raises(DataError, match="File too large"):
        download_benchmark("toy_enhancers", quiet=True)
    assert os.listdir(no_data / "genomic_benchmarks") == []


def test_a_data_folder_that_cannot_be_made(server: ThreadingHTTPServer, no_data: Path) -> None:
    no_data.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="could not be downloaded; .*Not a directory|File exists"):
        download_benchmark("toy_enhancers", quiet=True)


def test_interruption_leaves_nothing(server: ThreadingHTTPServer, no_data: Path, monkeypatch) -> None:
    def interrupted(name: str, version: int, dest_path: Path) -> None:
        unpack(TOY, dest_path)
        raise KeyboardInterrupt

    monkeypatch.setattr(genomic_benchmarks.loc2seq, "download_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_benchmark("toy_enhancers", quiet=True)
    assert os.listdir(no_data / "genomic_benchmarks") == []


@pytest.mark.parametrize("quiet", [True, False])
def test_what_the_package_prints_never_reaches_stdout(
    server: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    def chatty(name: str, version: int, dest_path: Path) -> None:
        print("Downloading")
        print("50 %", file=sys.stderr)
        unpack(TOY, dest_path)

    monkeypatch.setattr(genomic_benchmarks.loc2seq, "download_dataset", chatty)
    download_benchmark("toy_enhancers", quiet=quiet)
    assert capsys.readouterr() == ("", "" if quiet else "Downloading\n50 %\n")


def test_progress_on_a_terminal_unless_quiet(
    server: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    download_benchmark("toy_enhancers")
    shown = capsys.readouterr()
    assert "toy_enhancers" in shown.err and shown.out == ""


def test_another_process_may_be_faster(server: ThreadingHTTPServer, no_data: Path, monkeypatch) -> None:
    def slow(name: str, version: int, dest_path: Path) -> None:
        unpack(TOY, dest_path)
        unpack(TOY, no_data / "genomic_benchmarks")

    monkeypatch.setattr(genomic_benchmarks.loc2seq, "download_dataset", slow)
    assert download_benchmark("toy_enhancers", quiet=True) == benchmark_folder(TOY)
    assert os.listdir(no_data / "genomic_benchmarks") == [TOY.name]


def test_what_the_package_would_get_wrong_is_refused_before(toy: BenchmarkSpec, home: Path) -> None:
    with pytest.raises(DataError, match="the installed genomic-benchmarks has no archive of toy_enhancers"):
        download_benchmark("toy_enhancers")  # it would fetch whole genomes
    (home / "toy_enhancers").mkdir()
    with pytest.raises(DataError, match="the package would take .*toy_enhancers for the data set; run it in another"):
        download_benchmark("toy_enhancers")
