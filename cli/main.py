"""The `titans-seq` command: parser, verbs, exit codes.

Exit codes: 0 done; 2 the user's input was wrong (one line on stderr); 1 our fault (an uncaught exception, with its traceback); 130 interrupted.
PyTorch, Lightning and Hydra are imported by the verbs, not here: `--help` answers at once.
"""

import argparse
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from titans_seq.cli.errors import Interrupted, UsageError

# refused by the place the user chose; anything else from the operating system is our fault
_DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, instead of printing the usage."""

    def __init__(self, **options: object) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.splitlines()[0]} (see `{self.prog} --help`)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


_positive.__name__ = "whole number"  # argparse names the type in its error


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be between 0 and 2**32 - 1, got {value}")
    return value


_seed.__name__ = "whole number"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every verb; `arguments.run` is the "module:function" that does the work."""
    parser = _Parser(
        prog="titans-seq",
        description="Neural long-term memory for time series.",
        epilog="""examples:
  titans-seq fit forecast                                  the embedded series, no download
  titans-seq fit forecast --dataset ETTh1 --horizon 96
  titans-seq predict forecast --checkpoint RUN --csv FILE
  titans-seq VERB TASK --help                              every flag of a verb""",
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    _add_fit(verbs)
    _add_test(verbs)
    _add_predict(verbs)
    _add_lightning(verbs)
    _add_data(verbs)
    doctor = verbs.add_parser("doctor", help="versions, devices, data folder, and the backend `auto` would take")
    doctor.set_defaults(run="titans_seq.cli.doctor:doctor")
    return parser


def _task(verbs: argparse._SubParsersAction, verb: str, help: str, description: str, epilog: str) -> _Parser:
    parser = verbs.add_parser(verb, help=help, description=description)
    tasks = parser.add_subparsers(title="tasks", dest="task", metavar="TASK", required=True)
    parser = tasks.add_parser("forecast", help=description, description=description, epilog=epilog)
    parser.set_defaults(run=f"titans_seq.cli.forecast:{verb}_command")
    return parser


def _add_fit(verbs: argparse._SubParsersAction) -> None:
    parser = _task(
        verbs, "fit", "train a model",
        "Train a forecaster, test its best epoch, and write metrics, pictures and checkpoints to a run folder.",
        """examples:
  titans-seq fit forecast                                     the embedded series
  titans-seq fit forecast --dataset ETTh1 --horizon 96
  titans-seq fit forecast --csv my.csv --lookback 336 --fill ffill
  titans-seq fit forecast --dataset ETTh1 model=attention     another mixer: memory, attention, ssm, none
  titans-seq fit forecast model.depth=3 trainer.accelerator=gpu
  titans-seq fit forecast --dataset ETTh1 experiment=memory_linear
  titans-seq fit forecast -m seed=0,1,2 model=memory,none     a sweep, one run folder per job
  titans-seq fit forecast --dataset ETTh1 --resume            go on with an interrupted run

KEY=VALUE overrides the configuration; RUN/config.yaml shows all keys.""",
    )  # fmt: skip
    add = parser.add_argument
    add("--dataset", metavar="NAME", help="a named data set, case ignored (see `titans-seq data list`)")
    add("--csv", metavar="FILE", help="a series of your own: a date column and numeric columns")
    add(
        "--fill",
        metavar="HOW",
        help="how empty cells in --csv are filled: ffill, zero or linear (without it, one is an error)",
    )
    add("--lookback", type=_positive, metavar="L", help="rows the model sees")
    add("--horizon", type=_positive, metavar="H", help="rows it forecasts")
    add("--epochs", type=_positive, metavar="N", help="at most so many epochs")
    add("--seed", type=_seed, metavar="S", help="seed of weights, shuffling and dropout")
    add("--output", metavar="DIR", help="run folder (default: runs/forecast/<dataset>-h<horizon>-<mixer>-s<seed>)")
    add("--resume", action="store_true", help="continue the run in --output, or in the default folder of these flags")
    add("--quiet", action="store_true", help="no progress bar, no notes: only the results")
    add("-m", "--multirun", action="store_true", help="sweep over all comma-separated overrides")
    parser.set_defaults(takes_overrides=True)


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", metavar="RUN", required=True, help="a run folder, or a checkpoint file in it")
    add("--csv", metavar="FILE", help="a series of your own instead of the run's")
    add(
        "--fill",
        metavar="HOW",
        help="how empty cells in --csv are filled: ffill, zero or linear (without it, one is an error)",
    )
    add("--quiet", action="store_true", help="no progress bar, no notes: only the results")


def _add_test(verbs: argparse._SubParsersAction) -> None:
    parser = _task(
        verbs, "test", "measure a trained model",
        "Test the best checkpoint of a run on the test split of its series, or of --csv scaled by its own train split.",
        """examples:
  titans-seq test forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq test forecast --checkpoint RUN --csv my.csv""",
    )  # fmt: skip
    _add_checkpoint(parser)


def _add_predict(verbs: argparse._SubParsersAction) -> None:
    parser = _task(
        verbs, "predict", "forecast with a trained model",
        "Forecast the rows after the last one, in original units: forecast.csv, forecast.png, surprise.png.",
        """examples:
  titans-seq predict forecast --checkpoint runs/forecast/ETTh1-h96-memory-s0
  titans-seq predict forecast --checkpoint RUN --csv my.csv --output DIR

Any columns will do. A column the run was trained on keeps the run's scale; any other is scaled by its own history.""",
    )  # fmt: skip
    _add_checkpoint(parser)
    parser.add_argument("--output", metavar="DIR", help="where to write (default: RUN/predict)")


def _add_lightning(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "lightning",
        add_help=False,
        help="LightningCLI over the same modules: fit, validate, test, predict",
    )
    parser.set_defaults(run="titans_seq.cli.lightning_cli:lightning_command", takes_everything=True)


def _add_data(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser("data", help="list, check and download the named data sets")
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    place = "Data sets lie in $TITANS_SEQ_DATA (default: the user cache folder), as forecast/<name>.csv or .csv.gz."
    listing = actions.add_parser("list", help="the named data sets, and which of them are here", description=place)
    listing.set_defaults(run="titans_seq.cli.data:list_command")
    check = actions.add_parser(
        "check", help="compare files with their checksums and shapes", description=place,
        epilog="examples:\n  titans-seq data check\n  titans-seq data check ETTh1 Weather",
    )  # fmt: skip
    check.add_argument("names", nargs="*", metavar="NAME", help="default: every data set found")
    check.set_defaults(run="titans_seq.cli.data:check_command")
    download = actions.add_parser(
        "download", help="download data sets once", description=place,
        epilog="examples:\n  titans-seq data download ETTh1 ETTh2",
    )  # fmt: skip
    download.add_argument("names", nargs="+", metavar="NAME")
    download.add_argument("--quiet", action="store_true", help="no progress bar")
    download.set_defaults(run="titans_seq.cli.data:download_command")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `arguments.overrides` holds the KEY=VALUE words, wherever they stood."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if getattr(arguments, "takes_everything", False):
        arguments.rest = list(argv)[list(argv).index("lightning") + 1 :]
        return arguments
    takes_overrides = getattr(arguments, "takes_overrides", False)
    for word in rest:
        if word.startswith("-") or not takes_overrides:
            raise UsageError(f"unknown argument {word!r}{_nearest_flag(word, parser, arguments)}")
        if "=" not in word and not word.startswith("~"):
            raise UsageError(f"unexpected {word!r}: an override is written KEY=VALUE")
    arguments.overrides = rest
    return arguments


def _nearest_flag(word: str, parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    known = [f"--{name.replace('_', '-')}" for name in vars(arguments)]
    near = difflib.get_close_matches(word.split("=")[0], known, n=1)
    return f"; did you mean {near[0]}?" if near else f" (see `{parser.prog} --help`)"


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())


def _disk_message(error: OSError) -> str | None:
    if error.errno not in _DISK_ERRORS:
        return None
    place = f" ({error.filename})" if error.filename else ""
    return f"cannot write or read{place}: {os.strerror(error.errno)}; free some space or choose another folder"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        module, function = arguments.run.split(":")
        getattr(importlib.import_module(module), function)(arguments)
        return 0
    except UsageError as error:
        return _fail(error)
    except Interrupted as error:
        print(f"titans-seq: interrupted; {error}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("titans-seq: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `titans-seq data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        message = _disk_message(error)
        if message is None:
            raise
        return _fail(message)
    except ValueError as error:
        if not _is_data_error(error):
            raise
        return _fail(error)


def _is_data_error(error: ValueError) -> bool:
    """Tell whether the data modules refuse the user's data, without importing them for every error."""
    module = sys.modules.get("titans_seq.datamodules")
    return module is not None and isinstance(error, module.DataError)


def _fail(error: Exception | str) -> int:
    print(f"titans-seq: {_one_line(error)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
