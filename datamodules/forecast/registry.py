"""The named data sets: what they are, where they lie on disk, and how their rows are split.

Facts: the long-term forecasting benchmark as Time-Series-Library reads it. ETT months have 30 days.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import EMBEDDED, data_folder

VERIFIED, UNVERIFIED = "verified", "unverified"  # a file whose sha256 is the published one; one without a known sha256

_ETT = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small"
_TSLIB = "https://huggingface.co/datasets/thuml/Time-Series-Library/resolve/main"
_WEATHER = "34ee981d07313e51da2a50bb600072c8ae4a69cb4b0651f4cb93a069d7a2ba63"
_HOURLY_MONTH = 30 * 24
_ETTH_SPLIT = (12 * _HOURLY_MONTH, 4 * _HOURLY_MONTH, 4 * _HOURLY_MONTH)
_ETTM_SPLIT = (4 * _ETTH_SPLIT[0], 4 * _ETTH_SPLIT[1], 4 * _ETTH_SPLIT[2])


@dataclass(frozen=True)
class DatasetSpec:
    """One named data set.

    Args:
        name: as the user writes it, case ignored.
        file: CSV name inside the data folder's `forecast/`; `file` + ".gz" is accepted too.
        urls: where it can be downloaded, in order of trial; empty when only a local copy exists.
        sha256: of the unpacked CSV, or None when no trusted value is known (then the shape is checked).
        rows, channels: of the published file, without header and date column.
        frequency: pandas alias.
        split: rows of train, validation and test from the start (later rows stay unused), or None for 70/10/20.
    """

    name: str
    file: str
    urls: tuple[str, ...]
    sha256: str | None
    rows: int
    channels: int
    frequency: str
    licence: str
    split: tuple[int, int, int] | None = None


def _ett(name: str, rows: int, frequency: str, split: tuple[int, int, int], sha256: str) -> DatasetSpec:
    urls = (f"{_ETT}/{name}.csv", f"{_TSLIB}/ETT-small/{name}.csv")
    return DatasetSpec(name, f"{name}.csv", urls, sha256, rows, 7, frequency, "CC BY-ND 4.0", split)


def _tslib(
    name: str, stem: str, rows: int, channels: int, frequency: str, licence: str, sha256: str | None = None
) -> DatasetSpec:
    urls = (f"{_TSLIB}/{stem}/{stem}.csv",)
    return DatasetSpec(name, f"{stem}.csv", urls, sha256, rows, channels, frequency, licence)


def _slice(name: str, rows: int, of: str, sha256: str) -> DatasetSpec:
    licence = f"as {of}; six of its columns, not the benchmark"
    return DatasetSpec(name, f"{name}.csv", (), sha256, rows, 6, "h", licence)


DATASETS: tuple[DatasetSpec, ...] = (
    _ett("ETTh1", 17420, "h", _ETTH_SPLIT, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"),
    _ett("ETTh2", 17420, "h", _ETTH_SPLIT, "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b"),
    _ett("ETTm1", 69680, "15min", _ETTM_SPLIT, "6ce1759b1a18e3328421d5d75fadcb316c449fcd7cec32820c8dafda71986c9e"),
    _ett("ETTm2", 69680, "15min", _ETTM_SPLIT, "db973ca252c6410a30d0469b13d696cf919648d0f3fd588c60f03fdbdbadd1fd"),
    _tslib("Weather", "weather", 52696, 21, "10min", "none stated (BGC Jena weather station)", _WEATHER),
    _tslib("ECL", "electricity", 26304, 321, "h", "none stated (UCI ElectricityLoadDiagrams20112014: CC BY 4.0)"),
    _tslib("Traffic", "traffic", 17544, 862, "h", "none stated (Caltrans PeMS)"),
    _slice("electricity_first6", 26304, "ECL", "ccbdbd01b3038188f33772eb6121182eaf4cbbe4e2d803b63df94a39d8d200ce"),
    _slice("traffic_first6", 17544, "Traffic", "e13028520dc78d2c2c183cf95448a99a296442525eb04c2b2c15276a739a543d"),
)


def find_spec(name: str) -> DatasetSpec:
    """Return the named data set, case ignored; an unknown name is a DataError with the nearest known one."""
    by_name = {spec.name.lower(): spec for spec in DATASETS}
    if name.lower() in by_name:
        return by_name[name.lower()]
    # file stems as bait only: who writes "electricity" means ECL and is told so
    known = {EMBEDDED: EMBEDDED} | {Path(spec.file).stem.lower(): spec.name for spec in DATASETS}
    known |= {key: spec.name for key, spec in by_name.items()}
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {known[near[0]]!r}?" if near else "`titans-seq data list` names them all"
    raise DataError(f"unknown data set {name!r}; {hint} (a file of your own goes in by csv=)")


def home_of(spec: DatasetSpec, data_root: str | Path | None = None) -> Path:
    """Return where the data set's CSV belongs, whether or not it is there."""
    return data_folder(data_root) / "forecast" / spec.file


def locate(spec: DatasetSpec, data_root: str | Path | None = None) -> Path | None:
    """Return the data set's file, `.csv` before `.csv.gz`, or None."""
    plain = home_of(spec, data_root)
    return next((path for path in (plain, plain.with_name(plain.name + ".gz")) if path.is_file()), None)


def missing(spec: DatasetSpec, data_root: str | Path | None = None) -> DataError:
    """Return the error for a data set that is not on disk: where it was looked for, how to get it."""
    place = home_of(spec, data_root)
    by_hand = f"put the file there by hand, or set TITANS_SEQ_DATA to the folder that holds forecast/{spec.file}"
    get = f"`titans-seq data download {spec.name}`, or {by_hand}" if spec.urls else f"it has no download: {by_hand}"
    return DataError(f"{spec.name}: no file {place} or {place.name}.gz; {get}")
