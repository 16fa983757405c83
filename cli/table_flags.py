"""The flags that say how a file of series is to be read: which columns are what, and how it is written.

Each sets the option of the data that has its name, `--time-column` sets data.time_column; what is not said is found out
from the file.
"""

import argparse
import csv
from typing import Any

from titans_seq.cli.flags import Flag, text

_TABS, _SPACES = ("tab", r"\t"), "space"


def columns(value: str) -> list[str]:
    """Names with commas between them; one that holds a comma stands in double quotes, as in a CSV."""
    names = [name.strip() for name in next(csv.reader([text(value)], skipinitialspace=True))]
    if not all(names):
        raise argparse.ArgumentTypeError(f"must be names with commas between them; got {value!r}")
    return names


def number_or_text(value: str) -> int | str:
    """A whole number, or any other text."""
    return int(value) if value.isdecimal() else text(value)


def separator(value: str) -> str:
    """One character; `tab` and `space` for those that a shell makes hard to type."""
    if value.lower() == _SPACES:
        return _SPACES
    return "\t" if value.lower() in _TABS else character(value)


def character(value: str) -> str:
    """One character, other than a digit."""
    if len(value) != 1 or value.isdigit() or value == "\0":
        raise argparse.ArgumentTypeError(f"must be one character; got {value!r}")
    return value


def _column(spec: str, help: str) -> Flag:
    return Flag(f"{spec} NAME", help, _key(spec), type=text)


def _columns(spec: str, help: str) -> Flag:
    return Flag(f"{spec} NAMES", help, _key(spec), type=columns, action="extend")


def _key(spec: str) -> str:
    return f"data.{spec.removeprefix('--').replace('-', '_')}"


TABLE = (
    _column("--time-column", "the column of dates, or of numbered steps (default: found)"),
    _column("--id-column", "the column of the series of each row, in a file of many series below each other"),
    _columns("--target", "columns to forecast, with commas between them (default: every column of numbers)"),
    _columns("--past-covariates", "columns that are known up to now"),
    _columns("--future-covariates", "columns that are known in advance"),
    _columns("--static-covariates", "columns that are constant in each series"),
    Flag("--freq STEP", "step between rows, e.g. h, D, 15min, MS (default: found)", "data.freq", type=number_or_text),
    Flag("--separator CHAR", "between columns: , ; | tab or space (default: found)", "data.separator", type=separator),
    Flag("--decimal CHAR", "decimal point, or comma (default: found)", "data.decimal", type=character),
    Flag("--thousands CHAR", "thousands separator (default: found)", "data.thousands", type=character),
    Flag("--encoding NAME", "e.g. utf-8, cp1252 (default: found)", "data.encoding", type=text),
    Flag("--sheet NAME", "sheet of an Excel file, or its number from 0", "data.sheet", type=number_or_text),
    Flag("--day-first", "03/04/2024 is the third of April", "data.day_first=true"),
    Flag("--month-first", "03/04/2024 is the fourth of March", "data.day_first=false"),
)
SPLIT = Flag(
    "--split SPLIT",
    "of your file into training, validation and test: percentages (default: 70/10/20), or where the last two begin: "
    "2017-01-01/2017-06-01",
    "data.split",
    type=text,
)
EXCLUSIVE = (("day_first", "month_first"),)  # of a Schema whose command takes TABLE
FORM = ("separator", "decimal", "thousands", "encoding", "sheet", "day_first")  # what another file need not share


def asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of the data that flags of TABLE give on this command line, as `ForecastDataModule` names them."""
    given = ((flag, getattr(arguments, flag.dest)) for flag in TABLE)
    pairs = [(flag.keys[0].partition("="), value) for flag, value in given if value is not None and value is not False]
    return {key.removeprefix("data."): fixed == "true" if fixed else value for (key, _, fixed), value in pairs}


def form_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those that say how a file is written, as `FileForm` names them."""
    return {name: value for name, value in asked(arguments).items() if name in FORM}
