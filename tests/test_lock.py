"""requirements.lock: all that is needed but torch, pinned as in constraints.txt, by hashes alone."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([\w.+!-]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


LOCKED = pins(LOCK)


def required(lines: list[str]) -> list[Requirement]:
    """Requirements of the project, those of the extras that it names itself included."""
    found = []
    for requirement in map(Requirement, lines):
        if requirement.name == "titans-seq":
            found += [r for extra in requirement.extras for r in required(PROJECT["optional-dependencies"][extra])]
        else:
            found.append(requirement)
    return found


def test_every_line_is_a_pin_or_a_hash():
    for line in LOCK.splitlines():
        assert re.fullmatch(r"# .*|[a-z0-9][\w.-]*==[\w.+!-]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
    for entry in re.split(r"\n(?=[a-z0-9])", LOCK)[1:]:
        assert "--hash=sha256:" in entry


def test_versions_are_those_of_the_constraints():
    constraints = pins((ROOT / "constraints.txt").read_text())
    differ = {name: (v, LOCKED[name]) for name, v in constraints.items() if LOCKED.get(name, v) != v}
    assert not differ
    assert len(set(constraints) & set(LOCKED)) > 20


def test_it_has_what_the_project_requires_but_no_torch():
    asked = required(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
    for requirement in asked:
        name = canonicalize_name(requirement.name)
        if name in ("torch", "triton"):
            assert name not in LOCKED
        else:
            assert requirement.specifier.contains(LOCKED[name]), requirement
    assert not [name for name in LOCKED if re.match(r"torch$|triton|nvidia|cuda|sympy|mpmath|networkx|titans", name)]
