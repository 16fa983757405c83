"""What is installed: every package of ours under one name, nothing else, with its data files and its command."""

import ast
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from installed_build import BUILDS

ROOT = Path(__file__).parents[1]
INSTALLED_BUILD = ROOT / "tests" / "helpers" / "installed_build.py"
MAPPED = ("kernels", "datamodules", "configs", "cli")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _packages() -> set[str]:
    """Return the packages on disk, by their import names."""
    found = set()
    for top in ("titans_seq", *MAPPED):
        for init in (ROOT / top).rglob("__init__.py"):
            folder = init.parent.relative_to(ROOT)
            if top == "titans_seq" and len(folder.parts) > 1 and folder.parts[1] in MAPPED:
                continue  # the links
            found.add(".".join(folder.parts if top == "titans_seq" else ("titans_seq", *folder.parts)))
    return found


def test_every_package_is_declared() -> None:
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == _packages()


def test_links_are_relative() -> None:
    for name in MAPPED:
        link = ROOT / "titans_seq" / name
        assert link.is_symlink() and str(link.readlink()) == f"../{name}"


def _modules() -> dict[str, Path]:
    """Every module of ours by its import name."""
    found = {}
    for top in ("titans_seq", *MAPPED):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if top != "titans_seq" or parts[1] not in MAPPED:  # the links
                name = ".".join(parts if top == "titans_seq" else ("titans_seq", *parts))
                found[name.removesuffix(".__init__")] = path
    return found


MODULES = _modules()


def _imports(name: str, *, anywhere: bool) -> set[str]:
    """The modules of ours that a module imports, at its top or anywhere in it."""
    tree, found = ast.parse(MODULES[name].read_text()), set()
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, name
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & set(MODULES)) or {str(node.module)}
    return {each for each in found if each.partition(".")[0] == "titans_seq"}


def test_readers_and_kernels_import_no_models() -> None:
    """Of ours these two packages know only themselves, and no field of the readers knows another."""
    for name in MODULES:
        *_, package, field = (*name.split(".")[:3], "")[:3]
        if package in ("kernels", "datamodules"):
            allowed = {f"titans_seq.{package}"} if package == "kernels" or field in ("", "common") else set()
            allowed |= {f"titans_seq.{package}.{field}", f"titans_seq.{package}.common"}
            assert all(each.startswith(tuple(allowed)) for each in _imports(name, anywhere=True)), name


def test_imports_run_one_way() -> None:
    """No module imports, over others, itself; and none below the command knows it."""
    known = {name: _imports(name, anywhere=False) & set(MODULES) for name in MODULES}
    left = set(MODULES)
    while free := {name for name in left if not known[name] & left - {name}}:
        left -= free
    assert not left, f"these import one another: {sorted(left)}"
    for name in MODULES:
        if not name.startswith("titans_seq.cli"):
            assert not any(each.startswith("titans_seq.cli") for each in _imports(name, anywhere=True)), name


def test_files_have_one_subject() -> None:
    long = {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 400}
    assert not long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the working tree, built without a network in a copy, so that no build folder is left behind."""
    source = tmp_path_factory.mktemp("source")
    return _build(source, tmp_path_factory.mktemp("wheel"))


def _build(source: Path, out: Path, **environment: str) -> Path:
    tracked = ["titans_seq", *MAPPED, "pyproject.toml", "setup.py", "README.md", "LICENSE"]
    subprocess.run(["cp", "-R", *tracked, str(source)], cwd=ROOT, check=True)
    for built in (source / "kernels").glob("native.*.so"):
        built.unlink()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    own = os.environ | environment
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], check=True, env=own, capture_output=True)
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {"titans_seq/py.typed"}
    for pattern in ("*.py", "*.yaml", "page.*"):
        for top in MAPPED:
            expected |= {f"titans_seq/{path.relative_to(ROOT)}" for path in (ROOT / top).rglob(pattern)}
        inside = [path.relative_to(ROOT) for path in (ROOT / "titans_seq").rglob(pattern)]
        expected |= {str(path) for path in inside if path.parts[1] not in MAPPED}
    built = {name for name in names if name.endswith(".so")}
    assert names - built == expected
    assert built == {f"titans_seq/kernels/native.{name}.so" for name in BUILDS if shutil.which("cc")}


def test_one_wheel_for_every_python_runs_from_where_it_is_unpacked(wheel: Path, tmp_path: Path) -> None:
    """No module, so no tag of a Python; another folder than it was built in, so no path from there."""
    assert "-py3-none-" in wheel.name and not wheel.name.endswith("-any.whl")
    if not shutil.which("cc"):
        pytest.skip("no C compiler is installed")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", str(INSTALLED_BUILD)], env=environment, capture_output=True, text=True, check=False
    )
    assert Path(done.stdout.strip()).parent == tmp_path / "titans_seq" / "kernels", done.stderr[-3000:]


def test_no_module_can_be_taken_for_a_build() -> None:
    """Walks over packages import what they list."""
    found = {module.name for module in pkgutil.iter_modules([str(ROOT / "kernels")])}
    assert found == {path.stem for path in (ROOT / "kernels").glob("*.py")} - {"__init__"}


def test_without_a_compiler_the_install_succeeds(tmp_path: Path) -> None:
    """`tests/kernels/test_support.py` has what such an install takes and says."""
    (tmp_path / "source").mkdir()
    without = _build(tmp_path / "source", tmp_path / "wheel", CC="/bin/false")
    assert not [name for name in zipfile.ZipFile(without).namelist() if name.endswith(".so")]


def test_the_wheel_has_licence_and_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = {name.split(".dist-info/")[1]: name for name in archive.namelist() if ".dist-info/" in name}
    assert "Apache License" in archive.read(names["licenses/LICENSE"]).decode()
    assert "titans-seq = titans_seq.cli.main:main" in archive.read(names["entry_points.txt"]).decode()
    assert archive.read(names["top_level.txt"]).decode().split() == ["titans_seq"]


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="titans-seq")
    assert command.value == "titans_seq.cli.main:main"


def test_constraints_lie_in_the_declared_ranges() -> None:
    from packaging.requirements import Requirement

    declared = [*PYPROJECT["project"]["dependencies"]]
    for extra in PYPROJECT["project"]["optional-dependencies"].values():
        declared += extra
    ranges = {Requirement(text).name.replace("_", "-").lower(): Requirement(text).specifier for text in declared}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    for line in filter(lambda text: text and not text.startswith("#"), lines):
        name, version = line.split("==")
        assert ranges.get(name.replace("_", "-").lower()) is None or version in ranges[name.replace("_", "-").lower()]


def test_the_release_builds_for_every_python_and_pins_what_it_runs() -> None:
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    used = [step["uses"] for job in release["jobs"].values() for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", action) for action in used), used
    wheels = PYPROJECT["tool"]["cibuildwheel"]
    versions = [line.split()[-1] for line in PYPROJECT["project"]["classifiers"] if "Python :: 3." in line]
    assert wheels["build"] == [f"cp{version.replace('.', '')}-*" for version in versions]
    assert f"python -P {{project}}/{INSTALLED_BUILD.relative_to(ROOT)}" in wheels["test-command"]


BUILD_SIDE_BY_SIDE = """
from distutils.core import run_setup
command = run_setup("setup.py", stop_after="init").get_command_obj("build_ext")
command.parallel = 3
command.ensure_finalized()
print(command.parallel)
"""


def test_builds_are_not_compiled_side_by_side() -> None:
    """Their objects have the same names: AVX-512 would come into the library for older processors."""
    command = [sys.executable, "-c", "import setuptools" + BUILD_SIDE_BY_SIDE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None"]
