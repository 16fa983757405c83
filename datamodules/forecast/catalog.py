"""What the named data sets are and which of them are at hand: the answers behind `titans-seq data`."""

from dataclasses import dataclass
from pathlib import Path

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.csv_files import csv_shape, require_published
from titans_seq.datamodules.forecast.registry import DATASETS, UNVERIFIED, VERIFIED, find_spec, locate, missing


@dataclass(frozen=True)
class DatasetInfo:
    """One line of the list; `path` is None where no file is at hand. verifiable: the published sha256 is known."""

    name: str
    rows: int
    channels: int
    frequency: str
    licence: str
    downloadable: bool
    verifiable: bool
    path: Path | None

    @property
    def present(self) -> bool:
        return self.path is not None


@dataclass(frozen=True)
class DatasetCheck:
    """What was found about one data set.

    Args:
        checksum: "verified", "unverified" (no trusted value exists: the shape is right), "mismatch" or "no file".
        rows, channels: of the file found, 0 without one.
        ok: the file may be used.
        message: one line for people, with what to do when not ok.
    """

    name: str
    path: Path | None
    checksum: str
    rows: int
    channels: int
    ok: bool
    message: str


def list_datasets(data_root: str | Path | None = None) -> list[DatasetInfo]:
    """Return every named data set, and where its file lies if it is at hand."""
    return [
        DatasetInfo(
            spec.name,
            spec.rows,
            spec.channels,
            spec.frequency,
            spec.licence,
            bool(spec.urls),
            spec.sha256 is not None,
            locate(spec, data_root),
        )
        for spec in DATASETS
    ]


def check_dataset(name: str, data_root: str | Path | None = None) -> DatasetCheck:
    """Look at the data set's file: checksum, rows and channels. Only an unknown name is a DataError."""
    spec = find_spec(name)
    path = locate(spec, data_root)
    if path is None:
        return DatasetCheck(spec.name, None, "no file", 0, 0, False, str(missing(spec, data_root)))
    rows = channels = 0
    try:
        rows, channels = csv_shape(path)
        require_published(path, spec)
    except DataError as error:
        return DatasetCheck(spec.name, path, "mismatch", rows, channels, False, str(error))
    said = "as published" if spec.sha256 else "no sha256 is known for it, so only the shape is checked"
    return DatasetCheck(spec.name, path, VERIFIED if spec.sha256 else UNVERIFIED, rows, channels, True, said)
