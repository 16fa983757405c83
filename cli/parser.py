"""The parser of the `titans-seq` command: verbs, and the commands below them.

PyTorch, Lightning and Hydra are imported by the verbs, not here: `--help` answers at once.
"""

import argparse
from collections.abc import Mapping
from typing import NoReturn

from titans_seq import __version__
from titans_seq.cli import compare_flags, data_flags, dna_flags, forecast_flags, lm_flags
from titans_seq.cli.errors import UsageError
from titans_seq.cli.flags import Command, Group

VERBS: dict[str, Group | Command] = {
    "fit": Group("train a model", {"forecast": forecast_flags.FIT, "dna": dna_flags.FIT, "lm": lm_flags.FIT}),
    "pretrain": Group("train a language model for others to start from", {"dna": dna_flags.PRETRAIN}),
    "test": Group("measure a trained model", {"forecast": forecast_flags.TEST, "dna": dna_flags.TEST}),
    "predict": Group(
        "apply a trained model to new data", {"forecast": forecast_flags.PREDICT, "dna": dna_flags.PREDICT}
    ),
    "embed": Group("write a model's features of sequences", {"dna": dna_flags.EMBED}),
    "score": Group("score variants with a language model", {"dna": dna_flags.SCORE}),
    "surprise": Group(
        "write what surprised the memory in a series or a genome",
        {"forecast": forecast_flags.SURPRISE, "dna": dna_flags.SURPRISE},
    ),
    "backtest": Group("forecast past cutoffs as if each were now", {"forecast": forecast_flags.BACKTEST}),
    "importance": Group("measure how much covariates matter", {"forecast": forecast_flags.IMPORTANCE}),
    "report": forecast_flags.REPORT,
    "compare": compare_flags.COMPARE,
    "eval": Group("measure a language model", {"lm": lm_flags.EVAL}),
    "generate": Group("continue a text", {"lm": lm_flags.GENERATE}),
    "lightning": Command(
        "lightning_cli:lightning_command",
        "LightningCLI over the same modules: fit, validate, test, predict",
        takes_everything=True,
    ),
    "data": Group(
        "list, check, download, describe and audit data sets",
        {
            "list": data_flags.LIST,
            "check": data_flags.CHECK,
            "download": data_flags.DOWNLOAD,
            "describe": data_flags.DESCRIBE,
            "audit": data_flags.AUDIT,
        },
        word="action",
    ),
    "doctor": Command("doctor:doctor", "versions, devices, data folder, and the backend that `auto` takes"),
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, instead of printing the usage."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.splitlines()[0]} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb; `arguments.run` is the "module:function" that does the work."""
    parser = Parser(
        prog="titans-seq",
        description="Neural long-term memory for time series, genomes and text.",
        epilog="""examples:
  titans-seq fit forecast                                  the embedded series, no download
  titans-seq fit forecast --dataset ETTh1 --horizon 96
  titans-seq predict forecast --checkpoint RUN --csv FILE
  titans-seq report RUN                                    an HTML page about a forecaster
  titans-seq compare RUN RUN                               metrics of several runs, the best marked
  titans-seq fit dna --csv train.csv --test-csv test.csv   a classifier of DNA sequences
  titans-seq pretrain dna --fasta genome.fa                a language model of a genome
  titans-seq fit lm --variant mac --text book.txt          a language model of a text
  titans-seq VERB TASK --help                              every flag of a verb""",
    )
    parser.add_argument("--version", action="version", version=f"titans-seq {__version__}")
    _add_commands(parser, "verb", VERBS)
    return parser


def _add_commands(parser: argparse.ArgumentParser, word: str, below: Mapping[str, Group | Command]) -> None:
    words = parser.add_subparsers(title=f"{word}s", dest=word, metavar=word.upper(), required=True)
    for name, item in below.items():
        if isinstance(item, Group):
            group = words.add_parser(name, help=item.help, description=item.help)
            _add_commands(group, item.word, item.commands)
            continue
        command = words.add_parser(
            name,
            help=item.help or item.description,
            description=item.description,
            epilog=item.epilog,
            add_help=not item.takes_everything,
        )
        for flag in item.flags:
            command.add_argument(*flag.names, **flag.options)
        command.set_defaults(
            run=f"titans_seq.cli.{item.run}",
            takes_overrides=item.takes_overrides,
            takes_everything=item.takes_everything,
        )
