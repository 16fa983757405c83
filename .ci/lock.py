"""Write requirements.lock: what the project and its extra `dev` need, at the versions of constraints.txt, with hashes.

    make lock

The hashes are those of every published file of a version, so that other platforms find theirs. Left out are torch and
triton, which users choose (see `Makefile`), whatever only they bring, and pip itself.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
APART = {"torch", "triton", "pip"}
HEADER = """\
# Written by `make lock`: all but torch, for Python 3.11 on Linux, with the hashes of every published file. Install
# torch first, then: pip install --no-deps --require-hashes -r requirements.lock && pip install --no-deps .
"""


def wanted(extras: dict[str, list[str]], extra: str) -> list[str]:
    """The requirements of an extra, those of the project's other extras that it names included."""
    found = []
    for line in extras[extra]:
        own = re.fullmatch(r"titans-seq\[(.+)\]", line)
        found += [more for name in own[1].split(",") for more in wanted(extras, name)] if own else [line]
    return found


def compiled(requirements: list[str]) -> str:
    """What pip-compile makes of them: `name==version`, its hashes, and `# via` the packages that ask for it."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "requirements.in"), Path(folder, "requirements.txt")
        source.write_text("\n".join(requirements))
        options = ["--quiet", "--generate-hashes", "--strip-extras", "--no-header", "--annotation-style=line"]
        options += [f"--no-emit-{what}" for what in ("index-url", "trusted-host", "find-links", "options")]
        options += [f"--unsafe-package={name}" for name in sorted(APART)]
        files = [f"--constraint={ROOT / 'constraints.txt'}", f"--output-file={target}", str(source)]
        subprocess.run([sys.executable, "-m", "piptools", "compile", *options, *files], check=True)
        return target.read_text()


def without_torch(text: str) -> list[str]:
    """The entries that something else than torch asks for, without their `# via`."""
    entries, parents = {}, {}
    for name, rest in re.findall(r"^([\w.-]+)(==.*?)\s+# via ", text, re.DOTALL | re.MULTILINE):
        entries[name] = name + rest
    for name, via in re.findall(r"^([\w.-]+)==[^#]*# via (.*)$", text, re.MULTILINE):
        parents[name] = via.split(", ")
    kept: set[str] = set()
    while more := {n for n in parents if n not in kept and any(p in kept or p.startswith("-r") for p in parents[n])}:
        kept |= more
    return [entries[name] for name in sorted(kept)]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + wanted(project["optional-dependencies"], "dev")
    asked = [line for line in lines if re.match(r"[\w.-]+", line)[0] not in APART]
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(without_torch(compiled(asked))) + "\n")


if __name__ == "__main__":
    main()
