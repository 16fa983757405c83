"""Hostile command lines: every verb with wrong flags and values."""

import argparse
import random
import shlex
from collections.abc import Iterator

from hostile.case import DONE, EITHER, REFUSED, Base, Case
from hostile.paths import ESCAPE, command

from titans_seq.cli.parser import build_parser

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
    if words[0] in ("test", "predict", "embed", "score", "surprise", "eval", "generate", "backtest", "importance"):
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
                yield command(
                    f"{verb}{flag}={value[:9]!r}", *given, f"{flag}={value}", says=flag.lstrip("-").replace("-", "[-_]")
                )
            elif action.choices:
                yield command(
                    f"{verb}{flag}", *given, f"{flag}={draw.choice(['', ESCAPE, 'x' * 9999])}", says=flag.lstrip("-")
                )
        yield command(f"{verb}-unknown", *[*words, *needed], "--no-such-flag", "3", says="no-such-flag")


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
generate lm --checkpoint LM --prompt ''
generate lm --checkpoint LM --prompt NOT-UTF8
generate lm --checkpoint LM --prompt a --temperature -1
generate lm --checkpoint LM --prompt a --temperature nan
generate lm --checkpoint LM --prompt a --top-p 7
generate lm --checkpoint LM --prompt a --tokens 1 --top-k HUGE
eval lm --checkpoint LM
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
        yield command(f"verb-{i}-{line[:40]}", *words, exit=exit)


def helps(base: Base) -> Iterator[Case]:
    """The help of every command."""
    for words, _ in _actions():
        yield command(f"help-{'-'.join(words)}", *words, "--help", exit=DONE)
