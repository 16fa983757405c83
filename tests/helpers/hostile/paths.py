"""Hostile paths on the command line: to files that are none, and to places that cannot be written to."""

import random
from collections.abc import Iterator
from pathlib import Path

from hostile import damage
from hostile.case import DONE, EITHER, REFUSED, Base, Case

KIND = "command line"
ESCAPE = "\x1b[31m"
# paths that cannot be read; where they are written to, that fails too
PATHS = {
    "user-unknown": "~nobody-of-this-name/x",
    "nul": "a\x00b",
    "empty": "",
    "overlong": "a" * 300,
    "deep": "a/" * 3000,
    "device": "/dev/null/x",
    "proc": "/proc/none/x",
    "loop": "loop",
    "not-utf8": "none\udcff",
    "escape": f"none{ESCAPE}",
    "newline": "no\nne",
    "blank": " ",
    "very-long": "a/b" * 40_000,
}


def files(folder: Path) -> None:
    """A file, a folder, a file in the place of a folder, and a link that leads to itself."""
    (folder / "file").write_text("text")
    (folder / "folder").mkdir()
    (folder / "folder" / "inside").write_text("")
    (folder / "loop").symlink_to("loop")


def command(name: str, *words: str, exit: int = REFUSED, says: str = "") -> Case:
    return Case(KIND, name, words, exit, says, prepare=files)


def paths(base: Base) -> Iterator[Case]:
    """Flags that name files and folders, to read or to write."""
    forecast, dna, dna_lm, lm = (str(base / name) for name in ("forecast", "dna", "dna_lm", "lm"))
    genome, quiet = str(base.genome), "--quiet"
    # of the tiny runs: nothing is trained long should a path be taken
    tiny = ("model.dim=8", "model.heads=1", "trainer.max_epochs=1", "trainer.limit_train_batches=1", quiet)
    reading = {
        "checkpoint": ("test", "forecast", quiet, "--checkpoint"),
        "report": ("report",),
        "csv": ("fit", "forecast", *tiny, "--csv"),
        "predict-csv": ("predict", "forecast", quiet, "--checkpoint", forecast, "--output", "out", "--csv"),
        "dna-csv": ("predict", "dna", quiet, "--checkpoint", dna, "--output", "out.csv", "--csv"),
        "fasta": ("embed", "dna", quiet, "--checkpoint", dna_lm, "--output", "out.npz", "--fasta"),
        "bed": ("fit", "dna", *tiny, "--fasta", genome, "--bed"),
        "from": ("fit", "dna", *tiny, "--from"),
        "vcf": ("score", "dna", quiet, "--checkpoint", dna_lm, "--fasta", genome, "--output", "out.csv", "--vcf"),
        "text": ("eval", "lm", quiet, "--checkpoint", lm, "--text"),
        "model": ("generate", "lm", "--prompt", "a", "--checkpoint"),
        "state": ("generate", "lm", "--prompt", "a", "--tokens", "1", "--checkpoint", lm, "--state"),
        "tokenizer": ("fit", "lm", *tiny, "--text", str(base.book), "--tokenizer"),
        "resume": ("fit", "forecast", "--resume", "--output"),
        "audit": ("data", "audit", "--path"),
        "test-csv": ("fit", "dna", *tiny, "--csv", str(base.sequences), "--test-csv"),
    }
    writing = {
        "fit-output": (
            "fit",
            "forecast",
            *tiny,
            "model.blocks=1",
            "--csv",
            str(base.series),
            "--lookback",
            "16",
            "--horizon",
            "4",
            "--output",
        ),
        "predict-output": ("predict", "forecast", quiet, "--checkpoint", forecast, "--output"),
        "surprise-output": ("surprise", "forecast", quiet, "--checkpoint", forecast, "--output"),
        "report-output": ("report", forecast, quiet, "--output"),
        "dna-output": ("predict", "dna", quiet, "--checkpoint", dna, "--csv", str(base.sequences), "--output"),
        "bedgraph": ("surprise", "dna", quiet, "--checkpoint", dna_lm, "--fasta", genome, "--bedgraph"),
        "save-state": ("generate", "lm", "--prompt", "a", "--tokens", "1", "--checkpoint", lm, "--save-state"),
        "eval-output": ("eval", "lm", quiet, "--checkpoint", lm, "--text", str(base.book), "--output"),
    }
    draw = random.Random(12)
    for name, words in reading.items():
        for kind in ["user-unknown", "nul", *draw.sample(sorted(PATHS.keys() - {"user-unknown", "nul"}), 4)]:
            # an empty value of a flag is one that is not given
            yield command(f"{name}-{kind}", *words, PATHS[kind], exit=EITHER if kind == "empty" else REFUSED)
        for kind in ("folder", "file/x"):
            yield command(f"{name}-{kind}", *words, kind)
    for name, words in writing.items():
        for kind in [
            "user-unknown",
            "nul",
            *draw.sample(["overlong", "deep", "device", "proc", "loop", "very-long"], 3),
            "file/x",
        ]:
            path = PATHS.get(kind, kind) + ("/x" if kind == "loop" else "")
            yield command(f"{name}-{kind}", *words, path)
        if name not in (
            "fit-output",
            "predict-output",
            "surprise-output",
        ):  # of these it is the folder, or takes a number
            yield command(f"{name}-folder", *words, "folder", says="folder|directory|npz|csv")
    for kind in ("not-utf8", "escape", "newline", "blank"):  # legal names of a new folder
        yield command(f"predict-output-{kind}", *writing["predict-output"], PATHS[kind], exit=DONE)


def links(base: Base) -> Iterator[Case]:
    """A run behind links, which are legal."""

    def prepare(folder: Path) -> None:
        damage.copied(base, "forecast")(folder)
        (folder / "link").symlink_to(damage.RUN)

    yield Case(
        KIND,
        "linked-run",
        ("test", "forecast", "--checkpoint", "link", "--quiet"),
        DONE,
        "",
        "run/test_metrics.json",
        prepare,
    )
