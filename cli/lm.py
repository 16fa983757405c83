"""`titans-seq fit lm`: the language task, what its runs record, draw and export."""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig

from titans_seq.cli import fitting, lm_flags
from titans_seq.cli.config import Schema, parse
from titans_seq.cli.constructors import build
from titans_seq.cli.errors import UsageError
from titans_seq.cli.pictures import draw
from titans_seq.cli.tasks import History, Job, Task
from titans_seq.datamodules import LongContextData, TextData
from titans_seq.language import VARIANTS, ByteTokenizer, LanguageModel, LanguageModule, Tokenizer, save_model
from titans_seq.pictures import plot_training

MODEL = "model"  # where in the run folder the trained model lies, for use without the run
DEFAULT = "mac"  # variant
# the paper's sizes: width, heads, and the layers that reach that many parameters with a vocabulary of 32,000
SIZES = {
    "170m": (768, 12, {"lmm": 18, "mac": 13, "mag": 14, "mal": 14, "transformer": 21}),
    "340m": (1024, 16, {"lmm": 22, "mac": 15, "mag": 17, "mal": 17, "transformer": 24}),
    "400m": (1024, 16, {"lmm": 26, "mac": 18, "mag": 20, "mal": 20, "transformer": 29}),
    "760m": (1280, 20, {"lmm": 33, "mac": 23, "mag": 25, "mal": 25, "transformer": 37}),
}
# chunks, segments and windows of all sizes
_SPANS = {
    "lmm": {"chunk_size": 64},
    "mac": {"chunk_size": 64, "segment": 512},
    "mag": {"chunk_size": 64, "window": 512},
    "mal": {"chunk_size": 64, "window": 512},
    "transformer": {},
}


def _variant(name: str) -> list[str]:
    if name.lower() not in VARIANTS:
        raise UsageError(f"--variant must be one of {', '.join(VARIANTS)}; got {name.lower()}")
    return [f"model={name.lower()}"]


def size_overrides(variant: str, size: str) -> list[str]:
    """The overrides that give a variant one of the paper's sizes."""
    if size not in SIZES:
        raise UsageError(f"--size must be one of {', '.join(SIZES)}; got {size}")
    dim, heads, layers = SIZES[size]
    options = {"dim": dim, "layers": layers[variant], "heads": heads, **_SPANS[variant]}
    return [f"model.{name}={value}" for name, value in options.items()]


class LanguageTask(Task):
    """A language model of a text, or of a task with answers."""

    verb, name, key = "fit", "lm", "lm"
    headline = ("val_loss", "test_loss")
    schema = Schema(
        module="titans_seq.configs.lm",
        name="fit",
        flags=lm_flags.FIT.settings,
        choices={"variant": _variant},
        exclusive=(
            ("text", "task_name"),
            ("tokenizer", "vocab_size"),
            *(("task_name", flag) for flag in ("tokenizer", "vocab_size", "carry")),
        ),
    )

    def default_folder(self, config: DictConfig) -> Path:
        return Path("runs", "lm", f"{build(config.data, 'data').dataset_name}-{variant_of(config)}-s{config.seed}")

    def check(self, config: DictConfig) -> None:
        fitting.check_streams(config)

    def data(
        self, config: DictConfig, stage: str, checkpoint: Mapping[str, Any] | None = None, *, download: bool
    ) -> L.LightningDataModule:
        data: L.LightningDataModule = build(config.data, "data")
        data.setup(stage)
        return data

    def module(self, config: DictConfig, data: L.LightningDataModule) -> LanguageModule:
        network = build(config.model, "model", vocabulary=tokenizer_of(data).vocabulary)
        return build(config.training, "training", network=network, answers=isinstance(data, LongContextData))

    def about(self, job: Job) -> dict[str, Any]:
        data = job.data
        assert isinstance(data, TextData | LongContextData)
        record = {
            "dataset": data.dataset_name,
            "variant": variant_of(job.config),
            "seed": job.config.seed,
            "length": data.length,
            "vocabulary": tokenizer_of(data).vocabulary,
        }
        if isinstance(data, TextData):
            record["carried_windows"] = data.carry
            record |= {f"{name}_tokens": len(tokens) for name, tokens in data.splits.items()}
        return record | {"selected_on": job.module.monitor}

    def more(self, job: Job, tested: Mapping[str, float], folder: Path) -> dict[str, Any]:
        if not isinstance(job.data, TextData):
            return {}
        found = readable(tested["test_loss"], job.data.bytes_per_token)
        return {f"test_{name}": value for name, value in found.items()}

    def title(self, metrics: Mapping[str, Any]) -> str:
        return f"{metrics['dataset']}, {metrics['variant']}"

    def export(self, job: Job, folder: Path) -> list[Path]:
        assert isinstance(job.module.network, LanguageModel)
        save_model(folder / MODEL, job.module.network, tokenizer_of(job.data))
        return [folder / MODEL]

    def pictures(self, job: Job, history: History, best_epoch: int, folder: Path) -> list[Path]:
        curves = [("train_loss", "training, nats per token"), ("val_loss", "validation")]
        if "val_accuracy" in job.module.shown:
            curves = [
                ("val_accuracy", "validation, share of samples"),
                ("val_token_accuracy", "validation, share of tokens"),
            ]
        return draw(plot_training, history, best_epoch, folder / "training.png", curves=curves)


FIT = LanguageTask()


def variant_of(config: DictConfig) -> str:
    """The paper's name of the mixer."""
    return next((name for name, mixer in VARIANTS.items() if mixer == config.model.mixer), config.model.mixer)


def tokenizer_of(data: L.LightningDataModule) -> Tokenizer:
    """What made the tokens; tasks are made of bytes."""
    return data.tokenizer_ if isinstance(data, TextData) else ByteTokenizer()


def readable(loss: float, bytes_per_token: float) -> dict[str, float]:
    """A loss in nats per token in the units people know."""
    return {"perplexity": math.exp(min(loss, 700.0)), "bits_per_byte": loss / math.log(2) / bytes_per_token}


def fit_command(arguments: argparse.Namespace) -> None:
    """`titans-seq fit lm`."""
    if arguments.size:
        arguments.variant = arguments.variant or DEFAULT
        _variant(arguments.variant)
        typed = {override.key_or_group for override in parse(arguments.overrides)}
        sized = size_overrides(arguments.variant.lower(), arguments.size.lower())
        arguments.overrides = [*arguments.overrides, *(word for word in sized if word.split("=")[0] not in typed)]
    named = ("data.text=", "data.task=")
    given = (
        arguments.text or arguments.task_name or any(word.lstrip("+").startswith(named) for word in arguments.overrides)
    )
    if not given and not (arguments.resume and arguments.output):
        raise UsageError("--text is missing: the text to learn, e.g. --text book.txt; or a task: --task passkey")
    fitting.fit_command(FIT, arguments)
