"""Names, places on disk, and what list and check say."""

import sys
from pathlib import Path

import pytest

from titans_seq.datamodules import DataError, check_dataset, data_folder, list_datasets
from titans_seq.datamodules.forecast.registry import DATASETS, find_spec, home_of, locate

# rows and channels of the benchmark's own table
PUBLISHED = {
    "ETTh1": (17420, 7), "ETTh2": (17420, 7), "ETTm1": (69680, 7), "ETTm2": (69680, 7), "Weather": (52696, 21),
    "ECL": (26304, 321), "Traffic": (17544, 862), "electricity_first6": (26304, 6), "traffic_first6": (17544, 6),
}  # fmt: skip


def test_registry_holds_the_benchmark() -> None:
    assert {spec.name: (spec.rows, spec.channels) for spec in DATASETS} == PUBLISHED


@pytest.mark.parametrize("name", ["etth1", "ETTH1", "ETTh1"])
def test_names_ignore_case(name: str) -> None:
    assert find_spec(name).name == "ETTh1"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("ETTh3", "ETT"), ("wether", "Weather"), ("trafic", "Traffic"), ("electricity", "ECL"), ("embeded", "embedded")],
)
def test_unknown_name_suggests_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(DataError, match=f"unknown data set '{name}'; did you mean '{nearest}"):
        find_spec(name)


def test_a_name_near_nothing_points_to_the_list() -> None:
    with pytest.raises(DataError, match="titans-seq data list"):
        find_spec("qqqqqq")


def test_only_slices_have_no_download() -> None:
    assert [spec.name for spec in DATASETS if not spec.urls] == ["electricity_first6", "traffic_first6"]
    assert all(url.startswith("https://") for spec in DATASETS for url in spec.urls)


def test_data_folder_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TITANS_SEQ_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert data_folder(tmp_path / "other") == tmp_path / "other"


@pytest.mark.parametrize("setting", [None, ""])
def test_data_folder_defaults_to_the_cache(
    setting: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TITANS_SEQ_DATA", raising=False)
    if setting is not None:
        monkeypatch.setenv("TITANS_SEQ_DATA", setting)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "titans-seq"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_folder() == Path.home() / ".cache" / "titans-seq"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert data_folder() == Path.home() / "Library" / "Caches" / "titans-seq"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert data_folder() == tmp_path / "titans-seq"


def test_plain_file_comes_before_gz(no_data: Path) -> None:
    spec = find_spec("ETTh1")
    plain = home_of(spec)
    packed = plain.with_name("ETTh1.csv.gz")
    assert plain == no_data / "forecast" / "ETTh1.csv"
    assert locate(spec) is None
    plain.parent.mkdir(parents=True)
    packed.touch()
    assert locate(spec) == packed
    plain.touch()
    assert locate(spec) == plain


def test_list_says_what_is_at_hand(toy, put) -> None:
    _, content = toy()
    assert [(info.name, info.rows, info.channels, info.present, info.path) for info in list_datasets()] == [
        ("Toy", 28, 2, False, None)
    ]
    place = put(content)
    info = list_datasets()[0]
    assert (info.present, info.path, info.frequency, info.licence, info.downloadable) == (True, place, "D", "CC0", True)
    assert info.verifiable
    toy(checksum=False)
    assert not list_datasets()[0].verifiable


def test_check_without_a_file_says_how_to_get_it(no_data: Path) -> None:
    check = check_dataset("ecl")
    assert (check.name, check.ok, check.checksum, check.path) == ("ECL", False, "no file", None)
    assert str(no_data / "forecast" / "electricity.csv") in check.message
    assert "titans-seq data download ECL" in check.message
    assert "has no download" in check_dataset("traffic_first6").message


@pytest.mark.parametrize("checksum", [True, False], ids=["sha256", "shape"])
def test_check_finds_the_published_file_and_any_other(toy, put, checksum: bool) -> None:
    _, content = toy(checksum=checksum)
    put(content)
    good = check_dataset("toy")
    assert (good.ok, good.checksum, good.rows, good.channels) == (True, "verified" if checksum else "unverified", 28, 2)
    assert checksum or "no sha256 is known" in good.message
    put(content[: len(content) // 2])
    bad = check_dataset("toy")
    assert (bad.ok, bad.checksum) == (False, "mismatch")
    assert bad.rows < 28


def test_check_of_a_damaged_gz_is_a_finding(toy, put) -> None:
    toy()
    put(b"\x1f\x8b\x08 no gzip", name="toy.csv.gz")
    check = check_dataset("toy")
    assert not check.ok
    assert "damaged gzip" in check.message
