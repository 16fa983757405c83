"""The README's examples: the Python runs, the commands are commands."""

import re
import shlex
from pathlib import Path

import pytest

from titans_seq.cli.config import compose_sweep, overrides_of
from titans_seq.cli.main import parse

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = re.findall(r"^titans-seq (.*?)(?:\s+#.*)?$|`titans-seq ((?:fit|test) [^`]*)`", README, flags=re.MULTILINE)


def test_both_commands_stand_in_the_first_30_lines() -> None:
    head = "\n".join(README.splitlines()[:30])
    assert "make demo" in head and "make test" in head


def test_the_python_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102  our own text
    y, second = names["y"], names["second"]
    assert y.shape == second.shape  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", ["".join(pair) for pair in COMMANDS])
def test_commands_parse(command: str) -> None:
    arguments = parse(shlex.split(re.sub(r"[\[\]]", "", command)))
    if arguments.verb == "fit":
        _, configs = compose_sweep(overrides_of(arguments))
        assert configs


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists()
