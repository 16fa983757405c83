"""docs/notation.md: what it names exists, and each equation's number stands where it is computed."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/notation.md").read_text()
PLACE = re.compile(r"`([\w/]+\.(?:py|h))`((?:\s+`[\w.]+`)*)")
EQUATIONS = re.compile(r"^\| (\d+)(?:-(\d+))? \|.*\| ([^|]+) \|$", re.MULTILINE)


def places(text: str) -> list[tuple[str, str]]:
    """(file, name) for every name behind a file, (file, "") for a file alone."""
    found = [(file, re.findall(r"`([\w.]+)`", names)) for file, names in PLACE.findall(text)]
    return [(file, name) for file, names in found for name in names or [""]]


def source(file: str, name: str) -> str:
    """Of a function, class or constant of a module."""
    text = (ROOT / file).read_text()
    nodes: list[ast.stmt] = ast.parse(text).body
    for part in name.split("."):
        node = next(
            node for node in nodes
            if part in (getattr(node, "name", None), getattr(getattr(node, "target", None), "id", None))
        )  # fmt: skip
        nodes = getattr(node, "body", [])
    return ast.get_source_segment(text, node) or ""


def numbers(text: str) -> set[int]:
    """Of the equations that a text names: "eq. 13, 14 and 16-18"."""
    found: set[int] = set()
    for group in re.findall(r"eq\. (\d+(?:(?:-|, | and )\d+)*)", text):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", group):
            found.update(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize(("file", "name"), sorted(set(places(TEXT))))
def test_every_place_exists(file: str, name: str) -> None:
    assert source(file, name) if name else (ROOT / file).is_file()


def test_each_equation_stands_where_it_is_computed() -> None:
    seen: set[int] = set()
    for first, last, where in EQUATIONS.findall(TEXT):
        rows = set(range(int(first), int(last or first) + 1))
        assert rows.isdisjoint(seen)
        seen |= rows
        for file, name in places(where):
            assert rows <= numbers(source(file, name)), f"{file} {name} does not name eq. {rows}"
    assert seen == set(range(8, 35))
