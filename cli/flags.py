"""A command as data: its flags, each declared once, and what each sets in the configuration.

Nothing heavy is imported here or in the tables (`forecast_flags.py`, ...): `--help` answers at once.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


class Flag:
    """A flag or an argument of a command.

    Args:
        spec: as users write it: a short form if there is one, the name, what its value is called if it takes one.
        help: its line of the help.
        keys: keys of the configuration that it decides, which no override may set too. The first without a value takes
            the flag's; KEY=VALUE is set as it is.
        options: more of `argparse.ArgumentParser.add_argument`.
    """

    def __init__(self, spec: str, help: str, *keys: str, **options: Any) -> None:
        words = spec.split()
        self.names = [word for word in words if word.startswith("-")] or words[:1]
        metavar = words[len(self.names) :]
        value = {"metavar": metavar[0]} if metavar else {} if "choices" in options else {"action": "store_true"}
        self.keys, self.options = keys, {"help": help, **value, **options}

    @property
    def written(self) -> str:
        """The long form."""
        return self.names[-1]

    @property
    def dest(self) -> str:
        """The attribute of the parsed arguments."""
        return self.options.get("dest") or self.written.lstrip("-").replace("-", "_")

    @property
    def is_input(self) -> bool:
        """Is it a file that is read?"""
        return self.options.get("type") is file


@dataclass(frozen=True)
class Command:
    """One command.

    run: "module:function" in titans_seq.cli that does the work. description, epilog: of its help. help: its line in the
    help of the verb; None: the description. takes_overrides: KEY=VALUE words. takes_everything: words are not parsed
    here.
    """

    run: str
    description: str
    flags: tuple[Flag, ...] = ()
    epilog: str = ""
    help: str | None = None
    takes_overrides: bool = False
    takes_everything: bool = False

    @property
    def settings(self) -> dict[str, Flag]:
        """The flags that set keys of the configuration, by their attribute."""
        return {flag.dest: flag for flag in self.flags if flag.keys}


@dataclass(frozen=True)
class Group:
    """A word with commands below it, which are called tasks or actions."""

    help: str
    commands: Mapping[str, Command]
    word: str = "task"


# types of values ------------------------------------------------------------------------------------------------------


def path(value: str) -> str:
    """What else can be wrong with a path, `user_path` says where it is used."""
    return text(value, "a path")


def text(value: str, what: str = "text") -> str:
    """A text that RUN/config.yaml can hold."""
    if not value or "\0" in value:
        raise argparse.ArgumentTypeError(f"must be {what}; got {value!r}")
    if "${" in value:  # OmegaConf offers no way to keep it as it is, from the command line to RUN/config.yaml
        raise argparse.ArgumentTypeError(f"{value!r} holds ${{, which a configuration takes for a reference; rename it")
    return value


def file(value: str) -> str:
    """A file that is read: a run records where it lies, whatever folder its commands are given in."""
    return path(value)


def share(text: str) -> float:
    """A number between 0 and 1."""
    value = _number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1; got {text}")
    return value


def minutes(text: str) -> dict[str, int]:
    """A length of time, as Lightning takes it: in whole numbers."""
    value = _number(text)
    if not 0.001 <= value <= 2**20:
        raise argparse.ArgumentTypeError(f"must be at least 0.001 and at most 2**20 minutes; got {text}")
    whole = int(value)
    return {"minutes": whole, "milliseconds": round((value - whole) * 60_000)}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def levels(text: str) -> list[float]:
    """Percentages with commas between them."""
    return [_number(word) for word in text.split(",")]


def _whole(least: int, most: int, rule: str) -> Callable[[str], int]:
    def whole(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {rule}, got {value}")
        return value

    whole.__name__ = "whole number"  # argparse names the type in its error
    return whole


positive = _whole(1, 10**9, "at least 1 and at most 10**9")
length = _whole(1, 2**24, "at least 1 and at most 2**24")  # samples are made in memory
seed = _whole(0, 2**32 - 1, "between 0 and 2**32 - 1")


# flags of several commands --------------------------------------------------------------------------------------------

QUIET = Flag("--quiet", "no progress bar; print only results and warnings", "quiet")
TRUST = Flag(
    "--trust CLASS",
    "allow a class of your own in the run's config.yaml: package.module.Class; can be repeated",
    action="append",
    default=[],
)
RUN = "a run folder, or a checkpoint file in one"
MODEL = "a run folder, or the folder of a saved model"


def checkpoint_flags(what: str = RUN) -> tuple[Flag, ...]:
    """Return the flags of a command that uses a finished run."""
    return (Flag("--checkpoint RUN", what, type=path, required=True), TRUST, QUIET)


def training_flags(folder: str) -> tuple[Flag, ...]:
    """Return the flags of every command that trains; folder: where it writes by default."""
    return (
        Flag("--epochs N", "maximum number of epochs", "trainer.max_epochs", type=positive),
        Flag(
            "--max-minutes M",
            "stop training after M minutes, fractions allowed, and test the best epoch; --resume trains on",
            "trainer.max_time",
            type=minutes,
        ),
        Flag("--seed S", "seed of weights, shuffling and dropout", "seed", type=seed),
        Flag(
            "--devices N",
            "N GPUs, or N processes on a CPU, each with batches of data.batch_size (default: 1)",
            "trainer.devices",
            type=positive,
        ),
        Flag(
            "--strategy",
            "on several devices: ddp keeps the whole model on each (default), fsdp a share of it",
            "trainer.strategy",
            choices=("ddp", "fsdp"),
        ),
        Flag("--output DIR", f"run folder (default: {folder})", "output", "hydra.sweep.dir", type=path),
        Flag("--resume", "continue the run in --output, or in the default folder"),
        TRUST,
        QUIET,
        Flag("-m --multirun", "sweep over all comma-separated overrides"),
    )
