"""Paths on the command line and in the environment, wherever they are given."""

from collections.abc import Callable
from pathlib import Path

import pytest

Refused = Callable[[list[str]], str]
NOBODY = "~nobody-of-this-name/x"
COMMANDS = [
    "fit forecast --csv PATH",
    "fit forecast --output PATH",
    "fit forecast -m seed=0,1 --output PATH",
    "fit forecast --resume --output PATH",
    "test forecast --checkpoint PATH",
    "predict forecast --checkpoint RUN --output PATH",
    "surprise forecast --checkpoint RUN --output PATH",
    "surprise forecast --checkpoint RUN --csv PATH",
    "report PATH",
    "report RUN --output PATH",
    "fit dna --csv PATH",
    "fit dna --from PATH",
    "fit dna --bed PATH --fasta x.fa",
    "test dna --checkpoint PATH",
    "predict dna --checkpoint PATH --csv x.csv",
    "pretrain dna --fasta PATH",
    "fit lm --text PATH",
    "fit lm --text README --tokenizer PATH",
    "eval lm --checkpoint PATH --text x",
    "generate lm --checkpoint PATH --prompt x",
    "data audit --path PATH",
    "data audit --train PATH --test PATH",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_path_flag(command: str, finished: Path, refused: Refused) -> None:
    def words(path: str) -> list[str]:
        return [{"PATH": path, "RUN": str(finished)}.get(word, word) for word in command.split()]

    assert "no such user" in refused(words(NOBODY))
    assert "File name too long" in refused(words("x" * 300))
    assert "must be a path; got ''" in refused(words(""))
    assert r"must be a path; got 'a\x00b'" in refused(words("a\0b"))
    assert "holds ${" in refused(words("${oc.env:HOME}"))


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "forecast", f"data.csv='{NOBODY}'", "data=csv"],
        ["fit", "forecast", f"output='{NOBODY}'"],
        ["fit", "dna", "data=csv", f"data.csv='{NOBODY}.csv'"],
        ["pretrain", "dna", f"data.fasta='{NOBODY}'"],
        ["fit", "lm", "data=text", f"data.text='{NOBODY}'"],
    ],
    ids=" ".join,
)
def test_paths_in_overrides(words: list[str], refused: Refused) -> None:
    assert "no such user" in refused(words)


def test_the_data_folder(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, said in ((NOBODY, "no such user"), ("x" * 300, "File name too long")):
        monkeypatch.setenv("TITANS_SEQ_DATA", text)
        assert said in refused(["fit", "forecast", "--dataset", "ETTh1"])
        assert said in refused(["data", "check"])
