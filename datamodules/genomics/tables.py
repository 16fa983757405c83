"""CSV and TSV files: rows below a header, each with its line."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.files import COMPRESSED, is_compressed

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def kind_of(path: Path, kinds: Mapping[str, str] = SEPARATORS) -> str:
    """Return what `kinds` says of a file's ending, before .gz or .bgz and whatever its case.

    Raises:
        DataError: Another ending.
    """
    ending = Path(path.stem if is_compressed(path) else path.name).suffix.lower()
    if ending not in kinds:
        raise DataError(f"{path} must be one of {', '.join(kinds)}, or one of these with {' or '.join(COMPRESSED)}")
    return kinds[ending]


def read_rows(path: Path, file: TextIO, separator: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the header in lower case, and each row with the number of its line; empty lines are skipped.

    Args:
        path: The file, for errors.
        file: Its text.
        separator: What is between two fields.

    Raises:
        DataError: As it is reached, a row with more or fewer fields than the header.
    """
    reader = csv.reader(file, delimiter=separator)
    header = [name.strip().lower().removeprefix("#") for name in next(reader, [])]

    def rows() -> Iterator[tuple[int, list[str]]]:
        for fields in filter(None, reader):
            if len(fields) != len(header):
                raise DataError(f"{path}: line {reader.line_num} has {len(fields)} fields, the header {len(header)}")
            yield reader.line_num, [field.strip() for field in fields]

    return header, rows()
