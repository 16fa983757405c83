"""Hostile CSV files of series."""

import functools
import gzip
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hostile.case import DONE, EITHER, REFUSED, Base, Case

CSV = "series CSV"
NAME = "x.csv"
HEAD = "date,a,b"


def rows(count: int = 40, first: int = 0) -> list[str]:
    """Lines of a good file, without its header."""
    days = np.datetime64("2024-01-01") + np.arange(first, first + count)
    return [f"{day},{np.sin(i / 5):.4f},{np.cos(i / 3):.4f}" for i, day in enumerate(days)]


def good(head: str = HEAD, end: str = "\n") -> str:
    """A good file."""
    return end.join([head, *rows()]) + end


def put_row(row: str, place: int = 20) -> str:
    """A good file in which one line is another."""
    lines = rows()
    lines[place] = row
    return "\n".join([HEAD, *lines]) + "\n"


def put_cell(cell: str, place: int = 20) -> str:
    """A good file in which one number is another text."""
    return put_row(f"{rows()[place].split(',')[0]},{cell},1", place)


def _write(name: str, data: bytes, folder: Path) -> None:
    (folder / os.fsdecode(name)).write_bytes(data)


def _case(
    name: str, data: bytes | str, exit: int = REFUSED, says: str = r"\bx\b", file: str = NAME, *more: str
) -> Case:
    data = data.encode() if isinstance(data, str) else data
    words = ("predict", "forecast", "--checkpoint", "run", "--csv", file, "--output", "out", "--quiet", *more)
    makes = "out/forecast.csv" if exit == DONE else None
    return Case(CSV, name, words, exit, says, makes, functools.partial(_write, file, data))


def _with_run(base: Base, case: Case) -> Case:
    words = tuple(str(base / "forecast") if word == "run" else word for word in case.words)
    return Case(case.kind, case.name, words, case.exit, case.says, case.makes, case.prepare)


def series(base: Base) -> Iterator[Case]:
    """All of them, for the run of the base."""
    for make in (_whole, _lines, _cells, _dates, _headers, _sizes, _mutations):
        for case in make():
            yield _with_run(base, case)


_WHOLE: dict[str, tuple[bytes | str, int]] = {
    "empty": ("", REFUSED),
    "blank": ("\n\n\n", REFUSED),
    "header-alone": (HEAD, REFUSED),
    "header-and-end": (HEAD + "\n", REFUSED),
    "one-row": (HEAD + "\n" + rows(1)[0] + "\n", EITHER),
    "dates-alone": ("date\n2024-01-01\n2024-01-02\n", REFUSED),
    "no-dates": ("a,b\n1,2\n", REFUSED),
    "commas": (",,,\n,,,\n", REFUSED),
    "quotes": ('"""""\n', REFUSED),
    "unclosed-quote": ('date,"a\n1,2\n', REFUSED),
    "nul": (good().replace("0.", "\x000.", 3), REFUSED),
    "nul-alone": (b"\x00" * 500, REFUSED),
    "binary": (random.Random(1).randbytes(5000), REFUSED),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), REFUSED),
    "zip": (b"PK\x03\x04" + bytes(200), REFUSED),
    "utf16": (good().encode("utf-16"), DONE),
    "latin1": (good("date,größe,b").encode("latin-1"), DONE),
    "bom": (good().encode("utf-8-sig"), DONE),
    "two-boms": (b"\xef\xbb\xbf" * 2 + good().encode(), EITHER),
    "cut-letter": (good("date,gr\xc3,b").encode() + b"\xc3", REFUSED),
    "json": ('{"date": [1], "a": [2]}', REFUSED),
    "html": ("<html><body>404</body></html>", REFUSED),
    "crlf": (good(end="\r\n"), DONE),
    "cr": (good(end="\r"), EITHER),
    "no-last-end": (good().rstrip(), DONE),
    "semicolons": (good().replace(",", ";"), DONE),
    "tabs": (good().replace(",", "\t"), DONE),
    "spaces": (good().replace(",", " , "), EITHER),
    "gzip-not-named": (gzip.compress(good().encode()), REFUSED),
}


def _whole() -> Iterator[Case]:
    for name, (data, exit) in _WHOLE.items():
        yield _case(name, data, exit)
    packed = gzip.compress(good().encode())
    for name, data, exit in (
        ("whole", packed, DONE),
        ("cut", packed[: len(packed) // 2], REFUSED),
        ("head", packed[:5], REFUSED),
        ("no-gzip", good().encode(), REFUSED),
        ("empty", b"", REFUSED),
        ("checksum", packed[:-8] + bytes(8), REFUSED),
        ("rubbish-behind", packed + b"rubbish", REFUSED),
        ("two", packed[:0] + gzip.compress(good().encode()[:100]) + gzip.compress(good().encode()[100:]), DONE),
        ("bytes", packed[:40] + b"\xff" * 20 + packed[60:], REFUSED),
        ("bomb", gzip.compress(bytes(200 * 2**20), 1), REFUSED),
    ):
        yield _case(f"gzip-{name}", data, exit, r"x\.csv\.gz", "x.csv.gz")


def _lines() -> Iterator[Case]:
    lines = good().split("\n")
    mixed = "\r\n".join(lines[:15]) + "\r" + "\r".join(lines[15:25]) + "\n" + "\n".join(lines[25:])
    yield _case("mixed-ends", mixed, EITHER)
    yield _case("cr-and-lf", "\r\n".join(lines[:20]) + "\r\n" + "\n".join(lines[20:]), DONE)
    yield _case("cr-inside", good().replace("\n", "\r", 1), EITHER)
    yield _case("cr-at-last", good()[:-1] + "\r", EITHER)
    yield _case("cr-cr-lf", good(end="\r\r\n"), EITHER)
    for letter in ("\x0b", "\x0c", "\x1c", "\x85", "\u2028"):
        yield _case(f"end-U+{ord(letter):04X}", good(end=letter), REFUSED)
        yield _case(f"row-ends-U+{ord(letter):04X}", "\n".join([HEAD, *rows()]).replace("\n", letter + "\n", 5), EITHER)
    yield _case("blank-lines", good().replace("\n", "\n\n"), DONE)
    yield _case("blanks-at-end", good() + "\n" * 1000, DONE)
    yield _case("short-row", put_row("2024-01-21,1"), DONE)
    yield _case("long-row", put_row("2024-01-21,1,2,3"))
    yield _case("very-long-row", put_row("2024-01-21" + ",1" * 5000))
    yield _case("first-row-long", put_row("2024-01-01,1,2,3", 0))
    yield _case("all-rows-long", "\n".join([HEAD, *(f"{row},5" for row in rows())]))
    yield _case("all-rows-very-long", "\n".join([HEAD, *(f"{row},5,6,7" for row in rows())]))
    yield _case("comment", "# made by hand\n" + good())
    yield _case("quoted-rows", "\n".join([HEAD, *(f'"{row}"' for row in rows())]))
    yield _case("quoted-cells", good().replace("2024-01-05", '"2024-01-05"'), DONE)
    yield _case("line-in-quotes", put_cell('"1\n2"'))
    yield _case("quote-inside", put_cell('1"2'))
    yield _case("quote-opens", put_cell('"1'))


_CELLS = {
    "text": "abc",
    "infinite": "inf",
    "minus-infinite": "-inf",
    "nan": "nan",
    "empty": "",
    "blank": "  ",
    "1e400": "1e400",
    "-1e400": "-1e400",
    "hexadecimal": "0x10",
    "underscore": "1_000",
    "percent": "5%",
    "comma": '"1,5"',
    "thousands": '"1,000"',
    "true": "true",
    "complex": "1+2j",
    "formula": "=1+1",
    "escape": "\x1b[31mred\x1b[0m",
    "bell": "\x07",
    "delete": "\x7f",
    "c1": "\x9b31m",
    "right-to-left": "\u202e123",
    "arabic-digits": "\u0661\u0662",
    "fullwidth": "\uff11",
    "emoji": "\U0001f600",
    "nul": "\x00",
    "backslash": "\\",
    "quotes": '""""',
    "newline-in-quotes": '"a\nb"',
    "megabytes": "x" * 5_000_000,
    "megabyte-of-digits": "1" * 1_000_000,
    "many-escapes": "\x1b[2J" * 1000,
    "combining": "e" + "\u0301" * 5000,
    "na": "NA",
    "null": "null",
    "none": "None",
    "date": "2024-01-01",
    "braces": "{x!r}",
    "percent-s": "%s%n",
    "markup": "[red]x[/red]",
    "surrogate": "\ud800",
}


def _cells() -> Iterator[Case]:
    # numbers, or words that pandas reads as such or as no value
    legal = dict.fromkeys(("nan", "empty", "blank", "thousands", "na", "null", "none"), DONE) | {
        "true": EITHER,
        "underscore": EITHER,
        "arabic-digits": EITHER,
        "fullwidth": EITHER,
        "megabyte-of-digits": EITHER,
    }
    for name, cell in _CELLS.items():
        data = put_cell(cell).encode(errors="surrogatepass")
        yield _case(f"cell-{name}", data, legal.get(name, REFUSED))
    for name, cell in (
        ("large", "1e300"),
        ("largest", "1.7976931348623157e308"),
        ("small", "5e-324"),
        ("zero", "-0.0"),
    ):
        yield _case(f"cell-{name}", put_cell(cell), EITHER if name.startswith("large") else DONE)
    constant = "\n".join([HEAD, *(f"{row.split(',')[0]},5,5" for row in rows())])
    yield _case("constant", constant, DONE)
    yield _case("all-missing", "\n".join([HEAD, *(f"{row.split(',')[0]},," for row in rows())]))
    yield _case(
        "huge-values",
        "\n".join([HEAD, *(f"{row.split(',')[0]},{i}e300,-{i}e306" for i, row in enumerate(rows()))]),
        EITHER,
    )


_DATES = {
    "text": "soon",
    "empty": "",
    "nul": "\x00",
    "escape": "\x1b[31m",
    "year-0": "0000-01-01",
    "year-9999": "9999-12-31",
    "year-99999": "99999-01-01",
    "february-30": "2024-02-30",
    "month-13": "2024-13-01",
    "before": "1970-01-01",
    "equal": "2024-01-20",
    "zone": "2024-01-21T00:00:00+02:00",
    "number": "20240121",
    "float": "45312.5",
    "nan": "nan",
    "nat": "NaT",
    "long": "2" * 1_000_000,
    "huge": "9" * 400,
    "slashes": "01/21/2024",
    "negative": "-2024-01-21",
    "time-24": "2024-01-21 24:00:00",
    "zone-unknown": "2024-01-21T00:00:00 Mars/Base",
    "leap-second": "2016-12-31T23:59:60",
}


def _dates() -> Iterator[Case]:
    for name, date in _DATES.items():
        legal = EITHER if name in ("number", "slashes", "year-9999") else REFUSED
        yield _case(f"date-{name}", put_row(f"{date},1,2"), legal)
    lines = rows()
    yield _case("reversed", "\n".join([HEAD, *lines[::-1]]), DONE)
    yield _case("all-equal", "\n".join([HEAD, *[lines[0]] * 40]))
    yield _case("gap-of-years", put_row("2090-01-01,1,2", 39))
    yield _case("nanoseconds", "\n".join([HEAD, *(f"2024-01-01T00:00:00.{i:09d},1,{i}" for i in range(40))]), EITHER)
    yield _case("end-of-time", "\n".join([HEAD, *(f"2262-03-{i + 1:02d},1,{i}" for i in range(30))]), EITHER)
    yield _case("year-9990", "\n".join([HEAD, *(f"{9960 + i}-01-01,1,{i}" for i in range(40))]), EITHER)


_HEADERS = {
    "dollar": ("date,a $x_$ b,100%_$", DONE),
    "markup": ("date,[red]a[/red],[/]", DONE),
    "math": (r"date,$\frac{1}{$,b", DONE),
    "escape": ("date,\x1b]0;owned\x07,b", EITHER),
    "c1": ("date,\x9b31m,b", EITHER),
    "right-to-left": ("date,\u202ea,b", DONE),
    "emoji": ("date,\U0001f600,b", DONE),
    "long": ("date," + "a" * 100_000 + ",b", EITHER),
    "quoted": ('date,"a,b",c', DONE),
    "line": ('date,"a\nb",c', EITHER),
    "same": ("date,a,a", REFUSED),
    "same-as-pandas": ("date,a,a.1", DONE),
    "empty-name": ("date,,b", EITHER),
    "two-empty": ("date,,", EITHER),
    "blank-names": ("date, ,  ", EITHER),
    "two-dates": ("date,timestamp,b", EITHER),
    "upper": ("DATE,a,b", DONE),
    "date-last": ("a,b,date", DONE),
    "numbers": ("date,1,2.5", DONE),
    "braces": ("date,{0},%s", DONE),
    "slashes": ("date,../../a,/b", DONE),
    "index": ("date,index,level_0", DONE),
    "unnamed": ("date,Unnamed: 0,b", DONE),
    "nul": ("date,a\x00b,b", EITHER),
    "escape-alone": ("\x1b[31m,\x1b,\x07", DONE),
    "escapes-twice": ("date,\x1b[2J,\x1b[2J", REFUSED),
    "long-alone": ("a" * 200_000 + ",b,c", DONE),
    "none": ("date,None,nan", EITHER),
}


def _headers() -> Iterator[Case]:
    for name, (head, exit) in _HEADERS.items():
        yield _case(f"header-{name}", good(head), exit)


def _sizes() -> Iterator[Case]:
    wide = ",".join(f"c{i}" for i in range(10_000))
    yield _case(
        "10000-columns",
        "\n".join([f"date,{wide}", *(f"{row.split(',')[0]}{',1' * 10_000}" for row in rows(20))]),
        EITHER,
    )
    yield _case("10000-columns-uneven", "\n".join([f"date,{wide}", *rows(20)]), DONE)
    yield _case("10000-columns-no-dates", f"{wide}\n{'1,' * 9999}1\n")
    yield _case("300000-columns", f"date{',a' * 300_000}\n2024-01-01{',1' * 300_000}\n")
    yield _case("short-for-lookback", "\n".join([HEAD, *rows(10)]), DONE)
    yield _case("exact-lookback", "\n".join([HEAD, *rows(16)]), DONE)
    for name, file in (
        ("spaces", "a b c.csv"),
        ("dollar", "$a_$ {b}.csv"),
        ("emoji", "\U0001f600.csv"),
        ("not-utf8", "a\udcff.csv"),
        ("newline", "a\nb.csv"),
        ("escape", "a\x1b[31m.csv"),
        ("dashes", "./--csv.csv"),
        ("percent", "100%_$.csv"),
        ("no-ending", "series"),
        ("dots", "...csv"),
        ("quotes", "a'\"b.csv"),
        ("equals", "a=b.csv"),
    ):
        yield _case(f"file-{name}", good(), DONE, "", file)
        yield _case(f"bad-file-{name}", "nothing", REFUSED, "", file)


def _mutations() -> Iterator[Case]:
    """A good file in which some bytes are others, by seed; what comes out may be a good file still."""
    letters = [b",", b'"', b"\n", b"\r", b"\x00", b"\xff", b"-", b"e", b"\x1b", b";", b" ", b"9" * 30]
    for seed in range(14):
        draw, data = random.Random(seed), bytearray(good().encode())
        for _ in range(draw.choice([1, 3, 20])):
            place = draw.randrange(len(data))
            data[place : place + draw.choice([0, 1, 5])] = draw.choice(letters)
        yield _case(f"mutation-{seed}", bytes(data), EITHER)


def fits(base: Base) -> Iterator[Case]:
    """Trainings on names that pictures and terminals could stumble over: they must end with their metrics."""
    tiny = (
        "model.dim=8",
        "model.heads=1",
        "model.blocks=1",
        "--lookback",
        "16",
        "--horizon",
        "2",
        "--epochs",
        "1",
        "trainer.limit_train_batches=1",
        "data.batch_size=4",
        "--quiet",
    )

    def case(name: str, head: str, file: str = NAME, output: str = "out") -> Case:
        words = ("fit", "forecast", "--csv", file, *tiny, "--output", output)
        data = "\n".join([head, *rows(100)])
        return Case(
            "legal fit", name, words, DONE, "", f"{output}/metrics.json", functools.partial(_write, file, data.encode())
        )

    yield case("dollar", "date,a $x_$ b,100%_$")
    yield case("math", r"date,$\frac{1}{$,\alpha_$^$")
    yield case("markup", "date,[red]a[/red],[/x]")
    yield case("emoji", "date,\U0001f600,\u202eb")
    yield case("not-utf8", HEAD, "a\udcff.csv", "out\udcfe")
    yield case("dollars-in-files", HEAD, "$a_$.csv", "$o_$ {x}")
    yield case("newline-in-file", HEAD, "a\nb.csv", "out\nput")
    yield case("escape-in-file", HEAD, "a\x1b[31m.csv", "out\x1b[31m")
    yield case("quotes-in-file", HEAD, "a'\"\\b.csv", "out'\"\\b")
    yield case("control-letters", "date,a\tb,c\x7f")
