"""The flags that say how a file is read, as overrides of the configuration."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from titans_seq.cli.config import Schema, overrides_of, parse
from titans_seq.cli.errors import UsageError
from titans_seq.cli.parser import Parser
from titans_seq.cli.table_flags import EXCLUSIVE, TABLE

SCHEMA = Schema("none", "none", {flag.dest: flag for flag in TABLE}, exclusive=EXCLUSIVE)


def parsed(words: list[str]) -> argparse.Namespace:
    parser = Parser(prog="titans-seq data describe")
    for flag in TABLE:
        parser.add_argument(*flag.names, **flag.options)
    return parser.parse_args(words, argparse.Namespace(overrides=[]))


@pytest.mark.parametrize(
    "words, key, value",
    [
        (["--time-column", "[day]"], "data.time_column", "[day]"),
        (["--id-column", "it's, $1"], "data.id_column", "it's, $1"),
        (["--target", "load, 'peak' ,null"], "data.target", ["load", "'peak'", "null"]),
        (["--target", '"a, b",c'], "data.target", ["a, b", "c"]),
        (["--target", "a", "--target", "b,c"], "data.target", ["a", "b", "c"]),
        (["--past-covariates", "1"], "data.past_covariates", ["1"]),
        (["--future-covariates", "é"], "data.future_covariates", ["é"]),
        (["--static-covariates", "a=b,{c}"], "data.static_covariates", ["a=b", "{c}"]),
        (["--freq", "15min"], "data.freq", "15min"),
        (["--freq", "2"], "data.freq", 2),
        (["--separator", "tab"], "data.separator", "\t"),
        (["--separator", r"\t"], "data.separator", "\t"),
        (["--separator", "|"], "data.separator", "|"),
        (["--separator", "Space"], "data.separator", "space"),
        (["--decimal", ","], "data.decimal", ","),
        (["--thousands", " "], "data.thousands", " "),
        (["--thousands", "'"], "data.thousands", "'"),
        (["--encoding", "Windows-1252"], "data.encoding", "Windows-1252"),
        (["--sheet", "Table 1"], "data.sheet", "Table 1"),
        (["--sheet", "1"], "data.sheet", 1),
        (["--day-first"], "data.day_first", True),
        (["--month-first"], "data.day_first", False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_flag_sets_its_option_whatever_its_value_holds(words: list[str], key: str, value: object) -> None:
    (override,) = parse(overrides_of(SCHEMA, parsed(words)))
    assert (override.key_or_group, override.value(), override.is_sweep_override()) == (key, value, False)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--target", "a,,b"], "must be names with commas between them"),
        (["--target", "${oc.env:HOME}"], "rename it"),
        (["--time-column", ""], "must be text"),
        (["--separator", ";;"], "must be one character"),
        (["--decimal", "1"], "must be one character"),
        (["--day-first", "--month-first"], "--day-first and --month-first exclude each other"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        overrides_of(SCHEMA, parsed(words))


def test_a_flag_and_its_override_clash() -> None:
    arguments = parsed(["--target", "a", "--day-first"])
    for word, key in (("data.target=[b]", "data.target"), ("data.day_first=false", "data.day_first")):
        arguments.overrides = [word]
        with pytest.raises(UsageError, match=f"{key} is set by|{key} is decided by"):
            overrides_of(SCHEMA, arguments)


def test_every_flag_has_a_key_of_its_name() -> None:
    by_key = {flag.dest: flag.keys for flag in TABLE}
    assert by_key.pop("day_first") == ("data.day_first=true",)
    assert by_key.pop("month_first") == ("data.day_first=false",)
    assert by_key == {name: (f"data.{name}",) for name in by_key}


@pytest.mark.parametrize("name", ["klingon", "base64"])
@pytest.mark.parametrize("command", [["fit", "forecast", "--csv"], ["data", "describe"]], ids=" ".join)
def test_an_encoding_that_python_does_not_have_is_refused(
    command: list[str], name: str, workdir: Path, refused: Callable[[list[str]], str]
) -> None:
    Path("x.xlsx").write_bytes(b"")  # whatever the file is
    assert f"unknown encoding '{name}'; give e.g. --encoding cp1252" in refused(
        [*command, "x.xlsx", "--encoding", name]
    )
