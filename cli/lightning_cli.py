"""`titans-seq lightning fit|validate|test|predict`: LightningCLI over the same LightningModule and
LightningDataModule.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from titans_seq.cli.checkpoints import AnyCheckpointFiles
from titans_seq.cli.errors import UsageError
from titans_seq.datamodules import ForecastDataModule
from titans_seq.forecast import ForecastModule

SUBCOMMANDS = ("fit", "validate", "test", "predict")


class _CLI(LightningCLI):
    """Lookback and horizon are written once, under `data`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("lookback", "horizon"):
            parser.link_arguments(f"data.{name}", f"model.network.init_args.{name}")

    def _parse_ckpt_path(self) -> None:
        """A checkpoint holds weights: the classes it may name are not built, as LightningCLI does, nor is it unpickled.

        Lightning unpickles whatever comes from an address (http), unless it is told otherwise.
        """
        options = self.config[self.config.subcommand]
        if options.get("weights_only") is False:
            raise UsageError("--weights_only false would run whatever code the checkpoint holds; drop it")
        options["weights_only"] = True

    def instantiate_classes(self) -> None:
        """Here, and not in what runs afterwards, a ValueError or TypeError says that the input is wrong."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from None
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # else the user's own
            self.trainer.strategy.checkpoint_io = AnyCheckpointFiles()


def lightning_command(arguments: argparse.Namespace) -> None:
    """Hand the words after `lightning` to LightningCLI."""
    # Lightning's own calls are meant, and not the user's
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    # a run folder is never overwritten unasked: the Trainer's loggers number theirs, and the config goes along
    with _errors_in_one_line(), _program("titans-seq lightning"):
        _CLI(
            ForecastModule,
            ForecastDataModule,
            args=arguments.rest,
            seed_everything_default=0,
            trainer_defaults={"use_distributed_sampler": False},  # see `make_trainer`
            parser_kwargs={"exit_on_error": False} | {name: {"exit_on_error": False} for name in SUBCOMMANDS},
        )


@contextmanager
def _program(name: str) -> Iterator[None]:
    argv = sys.argv
    sys.argv = [name]
    try:
        yield
    finally:
        sys.argv = argv


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except UnpicklingError:
        raise UsageError("the checkpoint is damaged or holds more than weights; nothing in it is unpickled") from None
    except (ArgumentError, MisconfigurationException) as error:
        raise UsageError(" ".join(str(error).split())) from None
