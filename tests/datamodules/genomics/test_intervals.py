"""Intervals against loops over all pairs: overlaps, clusters, splits; and what is refused in lists and BED files."""

import gzip
import os
import tarfile
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics import intervals as module
from titans_seq.datamodules.genomics.intervals import (
    Interval,
    Intervals,
    overlap_audit,
    overlap_clusters,
    read_bed,
    read_interval_lists,
)

HEADER = "id,region,start,end,strand\n"


def some(count: int, seed: int, *, reach: int = 400, longest: int = 30, classes: str = "ab") -> list[Interval]:
    """Intervals on three records, a few much longer than the rest, every tenth a copy of another."""
    random = np.random.default_rng(seed)
    made: list[Interval] = []
    for _ in range(count):
        record, label = random.choice(["chr1", "chr10", "X"]), str(random.choice(list(classes)))
        if made and random.random() < 0.1:
            twin = made[random.integers(len(made))]
            made.append(Interval(twin.record, twin.begin, twin.end, "-", label))
            continue
        begin = int(random.integers(reach))
        length = int(random.integers(1, longest)) * (20 if random.random() < 0.05 else 1)
        made.append(Interval(str(record), begin, begin + length, "+", label))
    return made


def shared(one: Interval, other: Interval) -> int:
    return min(one.end, other.end) - max(one.begin, other.begin) if one.record == other.record else 0


def counted(train: list[Interval], test: list[Interval]) -> tuple[int, ...]:
    """What `OverlapCounts` says, by definition."""
    counts = [0, 0, 0, 0]
    for each in test:
        hits = [other for other in train if shared(each, other) >= 1]
        counts[0] += bool(hits)
        counts[1] += any(2 * shared(each, other) >= each.end - each.begin for other in hits)
        counts[2] += any((each.begin, each.end) == (other.begin, other.end) for other in hits)
        counts[3] += any(each.label != other.label for other in hits)
    return len(test), *counts


def components(intervals: list[Interval]) -> set[frozenset[int]]:
    groups = [{i} for i in range(len(intervals))]
    for i, one in enumerate(intervals):
        for j, other in enumerate(intervals[:i]):
            if shared(one, other) >= 1 and groups[i] is not groups[j]:
                groups[j] |= groups[i]
                for k in groups[i]:
                    groups[k] = groups[j]
    return {frozenset(group) for group in groups}


@pytest.mark.parametrize("pairs", [7, 2**21], ids=["pieces", "whole"])
@pytest.mark.parametrize("seed", range(4))
def test_audit_counts_what_its_definitions_say(seed: int, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAIRS", pairs)
    reach = (2000, 5000)[seed % 2]
    train, test = some(150, seed, reach=reach, classes="abc"), some(80, seed + 100, reach=reach, classes="abc")
    test += train[:5]
    report = overlap_audit(train, test)
    assert report.train == 150
    assert astuple(report.total) == counted(train, test)
    assert 0 < report.total.identical < report.total.half < report.total.touching < 85  # every measure has cases
    for label in "abc":
        assert astuple(report.per_class[label]) == counted(train, [each for each in test if each.label == label])


@pytest.mark.parametrize("seed", range(3))
def test_length_only_baseline(seed: int) -> None:
    train, test = some(60, seed, longest=12), some(60, seed + 100, longest=14)
    by_length: dict[int, Counter[str]] = {}
    for each in train:
        by_length.setdefault(each.end - each.begin, Counter())[each.label] += 1
    majority = Counter(each.label for each in train).most_common(1)[0][0]
    right = 0
    for each in test:
        found = by_length.get(each.end - each.begin)
        right += each.label == (min(found, key=lambda label: (-found[label], label)) if found else majority)
    report = overlap_audit(train, test)
    assert report.length_only == pytest.approx(right / len(test))
    assert report.majority == pytest.approx(np.mean([each.label == majority for each in test]))
    lengths = [each.end - each.begin for each in train + test]
    assert report.lengths == (min(lengths), np.median(lengths), max(lengths))


def test_half_of_its_own_length_by_one_interval() -> None:
    test = [Interval("r", 10, 20)]
    for train, half in (([(15, 99)], 1), ([(16, 99)], 0), ([(0, 13), (17, 30)], 0), ([(12, 17)], 1)):
        assert overlap_audit([Interval("r", *each) for each in train], test).total.half == half


def test_without_labels_nothing_is_said_of_classes() -> None:
    train, test = [Interval("r", 0, 9, label="a")], [Interval("r", 3, 9)]
    report = overlap_audit(train, test)
    assert astuple(report.total) == (1, 1, 1, 0, 0)
    assert (report.per_class, report.length_only, report.majority) == ({}, None, None)
    with pytest.raises(DataError, match="no test intervals"):
        overlap_audit(train, [])


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_the_connected_components(seed: int) -> None:
    intervals = some(120, seed, reach=900)
    clusters = overlap_clusters(intervals)
    found = {frozenset(np.flatnonzero(clusters == number).tolist()) for number in range(clusters.max() + 1)}
    assert found == components(intervals)
    assert len(found) > 1


def test_touching_ends_and_other_records_do_not_join() -> None:
    intervals = [Interval("a", 0, 5), Interval("a", 5, 9), Interval("b", 0, 9), Interval("a", 4, 6)]
    assert len(set(overlap_clusters(intervals[:3]))) == 3
    assert len(set(overlap_clusters(intervals))) == 2
    assert overlap_clusters([]).tolist() == []


def test_columns_are_a_sequence_of_intervals() -> None:
    rows = some(5, 0)
    columns = Intervals.of(rows)
    assert list(columns) == rows and columns[-1] == rows[-1] and list(columns[1:3]) == rows[1:3]
    assert Intervals.of(columns) is columns
    assert list(columns.take([3, 0])) == [rows[3], rows[0]]
    assert columns.lengths.tolist() == [each.end - each.begin for each in rows]


@pytest.mark.parametrize(("begin", "end", "strand"), [(5, 5, "+"), (-1, 5, "+"), (0, 2**41, "+"), (0, 5, ".")])
def test_what_is_no_interval(begin: int, end: int, strand: str) -> None:
    with pytest.raises(DataError, match=f"interval r:{begin}-{end}"):
        Interval("r", begin, end, strand)


def write_lists(folder: Path, lists: dict[str, str]) -> Path:
    for name, rows in lists.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress((HEADER + rows).encode()))
    return folder


def test_interval_lists(tmp_path: Path) -> None:
    lists = {
        "train/cat": "7,chr1,0,9,+\n8,NA,3,4,-\n",
        "train/dog": "7,chr10,5,9,\n",
        "test/dog": "0,1,5,9,\n",
        "test/cat": "0,X,5,9,+\n",
    }
    train, test = read_interval_lists(write_lists(tmp_path, lists))
    assert list(train) == [
        Interval("chr1", 0, 9, "+", "cat"),
        Interval("NA", 3, 4, "-", "cat"),
        Interval("chr10", 5, 9, "+", "dog"),
    ]
    assert list(test) == [Interval("X", 5, 9, "+", "cat"), Interval("1", 5, 9, "+", "dog")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,chr1,5,9,+\n1,chr1,x,9,+\n", "line 3: start 'x' must be a whole number from 0"),
        ("0,chr1,5,9.5,+\n", "line 2: end '9.5' must be a whole number from 0"),
        ("0,chr1,-5,9,+\n", "line 2: start '-5' must be a whole number from 0"),
        ("0,chr1,5,,+\n", "line 2: end '' must be a whole number from 0"),
        ("0,chr1,5,9,+\n\n1,chr1,9,9,+\n", "line 3: start '' must be"),
        ("0,chr1,5,9,+\n1,chr1,9,9,+\n", "line 3: end '9' must be above start"),
        ("0,chr1,5,9,*\n", r"line 2: strand '\*' must be"),
        ("0,,5,9,+\n", "line 2: region '' must be a name"),
        ("0,chr1,5,9,+\n0,chr1,5,9,+,7\n", "cannot be read: .* line 3"),
    ],
)
def test_what_is_wrong_with_a_list(tmp_path: Path, rows: str, message: str) -> None:
    good = "0,chr1,5,9,+\n"
    folder = write_lists(tmp_path, {"train/cat": good, "test/cat": rows})
    with pytest.raises(DataError, match=message) as caught:
        read_interval_lists(folder)
    assert str(folder / "test" / "cat.csv.gz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_that_are_not_whole(tmp_path: Path) -> None:
    folder = write_lists(tmp_path, {"train/cat": "0,chr1,5,9,+\n", "train/dog": "0,chr1,5,9,+\n"})
    with pytest.raises(DataError, match="no <class>.csv.gz in .*test"):
        read_interval_lists(folder)
    write_lists(folder, {"test/cat": "0,chr1,5,9,+\n"})
    with pytest.raises(DataError, match="no dog.csv.gz; train and test must hold the same classes"):
        read_interval_lists(folder)
    place = folder / "test" / "dog.csv.gz"
    for content, message in (
        (gzip.compress(b"id,region,begin,end,strand\n"), "no column start"),
        (gzip.compress(b""), "cannot be read: No columns"),
        (b"no gzip", "damaged gzip"),
    ):
        place.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_interval_lists(folder)


def test_bed(tmp_path: Path) -> None:
    text = '# made by hand\ntrack name="x"\nbrowser position chr1\n\nchr1\t0\t5\tpeak\t0\t-\r\nX\t7\t9\t.\t9\t.\n'
    path = tmp_path / "some.bed"
    path.write_text(text, newline="")
    packed = tmp_path / "some.bed.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    for each in (path, packed):
        assert list(read_bed(each)) == [Interval("chr1", 0, 5, "-", "peak"), Interval("X", 7, 9)]
    path.write_text("chr1\t2\t3\n")
    assert list(read_bed(str(path))) == [Interval("chr1", 2, 3)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chr1 2 3", "line 3 has 1 columns; BED has at least 3, separated by tabs"),
        ("chr1\t2", "line 3 has 2 columns; BED has at least 3"),
        ("chr1\t2\t3\ta", "line 3 has 4 columns, the lines before 6"),
        ("chr1\t2.0\t3\ta\t0\t+", "line 3: '2.0' must be a whole number from 0"),
        ("chr1\t-2\t3\ta\t0\t+", "line 3: '-2' must be a whole number from 0"),
        ("chr1\t1_0\t30\ta\t0\t+", "line 3: '1_0' must be"),
        ("chr1\t1\t9999999999999\ta\t0\t+", r"line 3: '9999999999999' must be a whole number from 0 to 2\*\*40"),
        ("chr1\t3\t3\ta\t0\t+", "line 3: end 3 must be above begin 3"),
        ("chr1\t2\t3\ta\t0\tx", "line 3: strand 'x' must be"),
        ("\t2\t3\ta\t0\t+", "line 3 names no record"),
    ],
)
def test_what_is_wrong_with_a_bed_file(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "wrong.bed"
    path.write_text(f"# header\nchr1\t0\t5\tpeak\t0\t-\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        read_bed(path)
    assert str(caught.value).startswith(f"{path}: line 3")


def test_bed_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.bed").write_text("# nothing\n")
    with pytest.raises(DataError, match="holds no intervals"):
        read_bed(tmp_path / "empty.bed")


# of the official lists, as measured apart from this code: train, test, touching, half, identical, other class, length
# only
PUBLISHED = {
    "human_nontata_promoters": (27_097, 9034, 49.2, 47.5, 0, 23, 54.4),
    "dummy_mouse_enhancers_ensembl": (968, 242, 0.4, 0.0, 0, 0, 50.0),
}


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_official_lists(data_root: Path, tmp_path: Path, name: str) -> None:
    path = data_root / "dna" / "genomic_benchmarks" / "interval_lists.tar"
    if not path.is_file():
        pytest.skip(f"$TITANS_SEQ_DATA ({os.environ.get('TITANS_SEQ_DATA')}) lacks {path.name}")
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if f"/{name}/" in member.name]
        archive.extractall(tmp_path, members, filter="data")
    train, test = read_interval_lists(tmp_path / "datasets" / name)
    report = overlap_audit(train, test)
    total = report.total
    shares = [round(100 * count / total.test, 1) for count in (total.touching, total.half)]
    assert (report.train, total.test, *shares, total.identical, total.other_class) == PUBLISHED[name][:6]
    assert round(100 * report.length_only, 1) == PUBLISHED[name][6]
