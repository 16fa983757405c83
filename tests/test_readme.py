"""The README's examples: the Python runs, the commands are commands."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from titans_seq.cli.config import compose_sweep, overrides_of
from titans_seq.cli.dna import CLASSIFY, PRETRAIN
from titans_seq.cli.forecast import FORECAST
from titans_seq.cli.lm import FIT as LANGUAGE
from titans_seq.cli.main import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {"README": README} | {
    name: (ROOT / "docs" / f"{name}.md").read_text()
    for name in ("frames", "forecaster", "forecasting", "genomics", "gluonts", "language")
}
TASKS = {
    ("fit", "forecast"): FORECAST,
    ("fit", "dna"): CLASSIFY,
    ("pretrain", "dna"): PRETRAIN,
    ("fit", "lm"): LANGUAGE,
}
_COMMAND = re.compile(r"^titans-seq (.*?)(?:\s+#.*)?$|`titans-seq ((?:fit|test) [^`]*)`", flags=re.MULTILINE)
COMMANDS = sorted({"".join(pair) for page in PAGES.values() for pair in _COMMAND.findall(page)})


def test_both_commands_stand_in_the_first_30_lines() -> None:
    head = "\n".join(README.splitlines()[:30])
    assert "make demo" in head and "make test" in head


def _example(page: str) -> dict[str, object]:
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGES[page], flags=re.DOTALL))
    assert code
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102  our own text
    return names


def test_the_python_example_runs() -> None:
    names = _example("README")
    y, second = names["y"], names["second"]
    assert y.shape == second.shape  # type: ignore[attr-defined]


def test_the_dna_example_runs() -> None:
    names = _example("genomics")
    assert names["logits"].shape == (1, 14, 4)  # type: ignore[attr-defined]
    assert sum(len(piece.surprise) for piece in names["pieces"]) == 20_000  # type: ignore[attr-defined]


def test_the_language_example_runs() -> None:
    names = _example("language")
    assert names["logits"].shape == (1, 100, 256) and len(names["drawn"]) == 5  # type: ignore[attr-defined, arg-type]


def test_the_pandas_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = _example("frames")
    assert names["panel"].target.tolist() == [1234.5, 7]  # type: ignore[attr-defined]
    forecast, checked = names["forecast"], names["checked"]
    assert len(forecast) == 2 * 24 and len(checked) == 3 * 2 * 24  # type: ignore[arg-type]
    assert (tmp_path / "forecaster" / "config.json").is_file()


def test_the_example_of_a_fitted_forecaster_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = _example("forecaster")
    assert len(names["paths"]) == 2 * 24 * 100 and len(names["figure"].axes) == 2  # type: ignore[arg-type, attr-defined]
    assert (tmp_path / "forecast.png").is_file()


def test_the_gluonts_example_runs() -> None:
    names = _example("gluonts")
    assert len(names["forecasts"]) == 3 and np.isfinite(names["scores"].to_numpy()).all()  # type: ignore


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    arguments = parse(shlex.split(re.sub(r"[\[\]]", "", command)))
    task = TASKS.get((arguments.verb, getattr(arguments, "task", None)))
    if task is not None and getattr(arguments, "from", None) is None:  # --from reads a run
        _, configs = compose_sweep(task.schema, overrides_of(task.schema, arguments))
        assert configs


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists()
