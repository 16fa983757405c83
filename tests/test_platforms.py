"""Systems without what only POSIX has, and the workflow that tests on all of them."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())

# Libraries know their systems by sys.platform and are imported first; what is blocked then is blocked for us alone.
ELSEWHERE = """
import os, pkgutil, importlib, signal, sys, warnings
import filelock, gluonts.torch, hydra, lightning, pandas, sklearn, torch
import torch.distributed.checkpoint.state_dict
for name in ("fcntl", "grp", "pwd", "resource", "termios", "triton"):
    sys.modules[name] = None
for name in ("fork", "geteuid", "getuid", "killpg", "mkfifo", "register_at_fork", "setsid", "statvfs", "sysconf"):
    delattr(os, name)
for name in ("SIGALRM", "SIGHUP", "SIGPIPE"):
    delattr(signal, name)
import titans_seq
HARNESS = "titans_seq.language.harness"  # the optional lm-eval brings libraries that look for what is blocked
from titans_seq.kernels import native_library
native_library.FOLDER = native_library.FOLDER / "nowhere"  # no build in C
for module in pkgutil.walk_packages(titans_seq.__path__, "titans_seq."):
    if not module.name.startswith(("titans_seq.kernels.fused", "titans_seq.kernels.triton_", HARNESS)):
        importlib.import_module(module.name)
"""
TINY = ["model.dim=8", "model.blocks=1", "trainer.limit_train_batches=2", "--epochs", "1", "--quiet"]


def _elsewhere(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", ELSEWHERE + code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_main_path_needs_nothing_of_posix_alone(tmp_path: Path) -> None:
    code = f"""
from titans_seq.cli.main import main
assert main(["doctor"]) == 0
assert main(["fit", "forecast", *{TINY}, "--output", "run"]) == 0
assert main(["predict", "forecast", "--checkpoint", "run", "--quiet"]) == 0
"""
    done = _elsewhere(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "chunked (the native kernels were not built" in done.stdout
    assert "the native kernels were not built" in done.stderr  # said once where `auto` falls back
    assert (tmp_path / "run" / "predict" / "forecast.csv").is_file()


def test_the_tests_name_every_system_and_python() -> None:
    matrix = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [line.split()[-1] for line in project["classifiers"] if "Python :: 3." in line]
    assert matrix["python"] == versions
    assert [name.split("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]


def _commands() -> list[list[str]]:
    runs = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    return [shlex.split(line) for run in runs for line in run.splitlines()]


def test_every_command_of_the_workflow_is_there() -> None:
    beside = Path(sys.executable).parent
    for words in _commands():
        known = words[0] in ("pip", "git", "python") or (beside / words[0]).exists() or shutil.which(words[0])
        assert known, words
    ours = [words[1:] for words in _commands() if words[0] == "titans-seq"]
    assert ["--version"] in ours and ["doctor"] in ours
    from titans_seq.cli.main import parse

    for words in ours:
        if words != ["--version"]:
            parse(words)


def test_lint_is_that_of_the_makefile() -> None:
    lint = [line for line in (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0].splitlines()[1:]]
    ran = {" ".join(words) for words in _commands()}
    assert {line.strip().replace(".venv/bin/", "") for line in lint} <= ran


def test_the_workflow_takes_the_tested_pytorch_from_public_places_only() -> None:
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert set(re.findall(r"https?://([^/\s]+)", text)) == set()
    (tested,) = re.findall(r"^TORCH\s*\?=\s*(\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert WORKFLOW["env"]["TORCH"].split()[0] == tested


def test_actions_are_pinned_and_links_are_made() -> None:
    steps = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used and all(re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", action) for action in used)
    first = WORKFLOW["jobs"]["test"]["steps"][0]
    assert first == {"run": "git config --global core.symlinks true"}  # before the checkout
