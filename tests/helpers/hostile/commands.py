"""Hostile command lines: every verb with wrong flags, values and paths."""

import argparse
import functools
import random
import shlex
from collections.abc import Iterator
from pathlib import Path

from hostile import damage
from hostile.case import DONE, EITHER, REFUSED, Base, Case

from titans_seq.cli.parser import build_parser

KIND = "command line"
ESCAPE = "\x1b[31m"
NUMBERS = (
    "nan",
    "inf",
    "1e400",
    "-1",
    "0x10",
    str(10**30),
    "",
    " ",
    "1.5",
    "many",
    "\u0663",
    "1_0",
    "\x00",
    ESCAPE,
    "--",
    "9" * 5000,
)
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


def _files(folder: Path) -> None:
    """A file, a folder, a file in the place of a folder, and a link that leads to itself."""
    (folder / "file").write_text("text")
    (folder / "folder").mkdir()
    (folder / "folder" / "inside").write_text("")
    (folder / "loop").symlink_to("loop")


def _case(name: str, *words: str, exit: int = REFUSED, says: str = "") -> Case:
    return Case(KIND, name, words, exit, says, prepare=_files)


def _actions() -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """The words of every command, and its parser."""
    waiting = [((), build_parser())]
    while waiting:
        words, parser = waiting.pop(0)
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not below and words != ("lightning",):
            yield words, parser
        waiting += [((*words, name), each) for action in below for name, each in action.choices.items()]  # type: ignore[misc]


def _required(base: Base, words: tuple[str, ...]) -> list[str]:
    """What a command needs, so that only the flag in question is wrong."""
    run = {"forecast": "forecast", "dna": "dna_lm" if words[0] in ("score", "surprise", "embed") else "dna", "lm": "lm"}
    needed: dict[tuple[str, ...], list[str]] = {
        ("report",): [str(base / "forecast")],
        ("data", "download"): ["nowhere"],
        ("pretrain", "dna"): ["--fasta", str(base.genome)],
        ("fit", "lm"): ["--text", str(base.book)],
    }
    if words in needed:
        return needed[words]
    if words[0] in ("test", "predict", "embed", "score", "surprise", "eval", "generate"):
        given = ["--checkpoint", str(base / run[words[1]])]
        given += (
            ["--fasta", str(base.genome)] if words[0] in ("score", "surprise", "embed") and words[1] == "dna" else []
        )
        given += ["--bedgraph", "out.bedgraph"] if words == ("surprise", "dna") else []
        given += ["--csv", str(base.sequences)] if words == ("predict", "dna") else []
        return given + (["--prompt", "a"] if words[0] == "generate" else [])
    return []


def flags(base: Base) -> Iterator[Case]:
    """Every flag of every command with a value it cannot have."""
    draw = random.Random(11)
    for words, parser in _actions():
        needed, verb = _required(base, words), "-".join(words)
        for action in parser._actions:
            if not action.option_strings or action.nargs == 0 or action.dest == "help":
                continue
            flag = action.option_strings[-1]
            given = [*words, *_without(needed, flag)]
            if action.type is not None:
                value = draw.choice([each for each in NUMBERS if not _fits(action, each)])
                yield _case(f"{verb}{flag}={value[:9]!r}", *given, f"{flag}={value}", says=flag.lstrip("-"))
            elif action.choices:
                yield _case(
                    f"{verb}{flag}", *given, f"{flag}={draw.choice(['', ESCAPE, 'x' * 9999])}", says=flag.lstrip("-")
                )
        yield _case(f"{verb}-unknown", *[*words, *needed], "--no-such-flag", "3", says="no-such-flag")


def _without(needed: list[str], flag: str) -> list[str]:
    """The flags that are needed but for one, which is given otherwise."""
    if flag not in needed:
        return needed
    place = needed.index(flag)
    return needed[:place] + needed[place + 2 :]


def _fits(action: argparse.Action, text: str) -> bool:
    assert callable(action.type)
    try:
        value = action.type(text)
    except (ValueError, argparse.ArgumentTypeError):
        return False
    # a temperature or a share that is no number that can be used is for the verb to refuse
    return not isinstance(value, float) or 0 <= value <= 1


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
            yield _case(f"{name}-{kind}", *words, PATHS[kind], exit=EITHER if kind == "empty" else REFUSED)
        for kind in ("folder", "file/x"):
            yield _case(f"{name}-{kind}", *words, kind)
    for name, words in writing.items():
        for kind in [
            "user-unknown",
            "nul",
            *draw.sample(["overlong", "deep", "device", "proc", "loop", "very-long"], 3),
            "file/x",
        ]:
            path = PATHS.get(kind, kind) + ("/x" if kind == "loop" else "")
            yield _case(f"{name}-{kind}", *words, path)
        if name not in (
            "fit-output",
            "predict-output",
            "surprise-output",
        ):  # of these it is the folder, or takes a number
            yield _case(f"{name}-folder", *words, "folder", says="folder|directory|npz|csv")
    for kind in ("not-utf8", "escape", "newline", "blank"):  # legal names of a new folder
        yield _case(f"predict-output-{kind}", *writing["predict-output"], PATHS[kind], exit=DONE)


_OVERRIDES = """

=
==
=3
model
model.
.model=1
model..dim=8
model.dim=
model.dim==8
model.dim=[
model.dim={a
model.dim='8
model.dim="8
model.dim=8 9
model.dim=\\
model.dim=${model.heads
model.dim=${nope}
model.dim=${oc.env:NOPE}
model.dim=${model.dim}
model.dim=1e400
model.dim=nan
model.dim=inf
model.dim=-8
model.dim=0
model.dim=HUGE
model.dim=1,2
model.dim=range(1,3)
model.dim=choice(8)
model.dim=glob(*)
model.dim=!x
+model.dim=8
+model=memory
++model={}
++model=5
~model
~model.dim
~~model.dim
~nothing
model@x=memory
model/x=memory
/model=memory
hydra=5
hydra.run.dir
hydra/launcher=nope
hydra.sweep.dir=[
@=1
model=ESC[31m
model=
model=null
model=[memory,none]
trainer=nope
data=nope
seed=abc
seed=1e400
seed=-1
seed=4294967296
seed=nan
seed=[]
seed=null
task=lm
task=
quiet=maybe
output=[a]
output={a: 1}
training._target_=os.system
model._target_=os.system
trainer.devices=[]
trainer.devices=-5
trainer.max_epochs=inf
trainer.max_epochs=1e400
trainer.precision={}
trainer.accelerator=ESC[31m
data.batch_size=0
data.batch_size=-1
data.batch_size=[]
data.num_workers=-1
data.csv=[]
training.learning_rate=nan
training.learning_rate=inf
training.learning_rate=[]
training.weight_decay=nan
early_stopping=5
averaging.decay=7
early_stopping.monitor=nope
ä=ö
model.dim=8NUL
LONG=1
model.dim=NESTED
model.dim=OPENED
data.lookback=THREE
model.dropout=2
model.dropout=nan
model.max_surprise=-1
model.theta_scale=nan
model.blocks=1000000000
data.lookback=1000000000000
"""
_WORDS = {
    "LONG": "a" * 100_000,
    "NESTED": "[" * 2000 + "]" * 2000,
    "OPENED": "${" * 300,
    "ESC": "\x1b",
    "NUL": "\x00",
    "THREE": "\u0663",
    "HUGE": str(10**30),
}


def overrides(base: Base) -> Iterator[Case]:
    """KEY=VALUE words of every syntax."""
    small = (
        "--csv",
        str(base.series),
        "--lookback",
        "16",
        "--horizon",
        "4",
        "--epochs",
        "1",
        "--quiet",
        "--output",
        "out",
    )
    harmless = {
        "~nothing",
        "model.dim=choice(8)",
        "output=",
        "task=",
        "trainer.max_epochs=inf",
        "hydra.run.dir",
        "early_stopping.monitor=nope",
        "trainer.devices=-5",
    }
    for i, line in enumerate(_OVERRIDES.removeprefix("\n").removesuffix("\n").split("\n")):
        word = functools.reduce(lambda text, name: text.replace(name, _WORDS[name]), _WORDS, line)
        words = ("fit", "forecast", *small, "trainer.limit_train_batches=1", "trainer.limit_val_batches=1")
        if word.startswith("data.lookback"):
            words = ("fit", "forecast", "--csv", str(base.series), "--quiet", "--output", "out")
        yield _case(f"override-{i}-{line}", *words, word, exit=EITHER if word in harmless else REFUSED)


_VERBS = """

''
ESC
NUL
fit
fit ''
fit ESC
fit LONG
Fit forecast
-m
--
fit forecast --
--quiet fit forecast
fit forecast --quiet=3
fit forecast --dataset
data
data check ESC
data check NUL
data check LONG
data download no-such-set
data download ../../x
data audit no-such-list
fit forecast --dataset ESC
fit forecast --dataset NUL
fit forecast --dataset LONG
fit dna --dataset ../x
fit dna --model ESC
fit lm --variant ESC --text file
fit lm --size 9b --text file
fit lm --task ESC
fit lm --task passkey --text file
pretrain dna
test forecast
test lm --checkpoint LM
test forecast --checkpoint LM
generate lm --checkpoint FORECAST --prompt a
report LM
report FORECAST more
predict forecast --checkpoint FORECAST --fill zero
generate lm --checkpoint LM --prompt ''
generate lm --checkpoint LM --prompt NOT-UTF8
generate lm --checkpoint LM --prompt a --temperature -1
generate lm --checkpoint LM --prompt a --temperature nan
generate lm --checkpoint LM --prompt a --top-p 7
generate lm --checkpoint LM --prompt a --tokens 1 --top-k HUGE
eval lm --checkpoint LM
eval lm --checkpoint LM --tasks ESC
eval lm --checkpoint LM --tasks passkey --lengths 1
eval lm --checkpoint LM --tasks passkey --lengths 1000000000000
lightning
lightning ESC
lightning fit --config nowhere
lightning fit --config file
lightning fit --model.nope=1
fit forecast -m model.dim=8,nan
surprise dna --checkpoint DNA --fasta GENOME --bedgraph o --record ESC
score dna --checkpoint DNA --fasta GENOME --vcf file --csv file
embed dna --checkpoint DNA --fasta GENOME --layer 99 --output o.npz
"""


def verbs(base: Base) -> Iterator[Case]:
    """Words in the wrong place, and what goes together in no command."""
    places = {"LM": base / "lm", "FORECAST": base / "forecast", "DNA": base / "dna_lm", "GENOME": base.genome}
    words_for = {name: str(path) for name, path in places.items()}
    words_for |= {"ESC": ESCAPE, "NUL": "\x00", "LONG": "x" * 100_000, "HUGE": str(10**30), "NOT-UTF8": "\udcff"}
    for i, line in enumerate(_VERBS.removeprefix("\n").removesuffix("\n").split("\n")):
        words = [words_for.get(word, word) for word in shlex.split(line)]
        # a bound on what is drawn is no error, and a prompt that is not UTF-8 is bytes of a terminal
        exit = EITHER if line.endswith((" --", "NOT-UTF8")) or "HUGE" in line else REFUSED
        yield _case(f"verb-{i}-{line[:40]}", *words, exit=exit)


def helps(base: Base) -> Iterator[Case]:
    """The help of every command."""
    for words, _ in _actions():
        yield _case(f"help-{'-'.join(words)}", *words, "--help", exit=DONE)


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
