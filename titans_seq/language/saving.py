"""A language model in a folder: weights as safetensors, its shape as JSON, its tokenizer. Nothing of it is code."""

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file

from titans_seq.datamodules.tokenizers import FILE, Tokenizer, read_tokenizer
from titans_seq.files import replacing
from titans_seq.language.model import LanguageModel

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT, VERSION = "titans-seq language model", 1


def save_model(folder: str | Path, model: LanguageModel, tokenizer: Tokenizer) -> None:
    """Write a model and its tokenizer to a folder, which is made; each file is whole or not there.

    Raises:
        ValueError: the tokenizer is not of the model's vocabulary.
        OSError: the folder cannot be written to.
    """
    _check_vocabulary(model, tokenizer)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    config = {"format": FORMAT, "version": VERSION, "model": model.options}
    with replacing(folder / WEIGHTS) as part:
        save_file(weights, part, metadata={"format": "pt"})
    for name, text in ((FILE, tokenizer.to_json()), (CONFIG, json.dumps(config, indent=2) + "\n")):
        with replacing(folder / name) as part:
            part.write_text(text, encoding="utf-8")


def load_model(folder: str | Path) -> tuple[LanguageModel, Tokenizer]:
    """Read what `save_model` wrote, on the CPU, the model in eval mode. Nothing is unpickled.

    Raises:
        ValueError: no such folder, a file missing or damaged, or of another format; weights or a tokenizer that do not
            fit.
    """
    folder = Path(folder)
    shape = _shape(folder / CONFIG)
    try:
        model = LanguageModel(**shape)
    except (TypeError, ValueError) as error:  # not of the constructor's options, or a value it refuses
        raise ValueError(f"{folder / CONFIG} is damaged: {error}") from None
    try:
        weights = load_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise ValueError(f"no weights at {folder / WEIGHTS}") from None
    except safetensors.SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged: {error}") from None
    if not all(value.isfinite().all() for value in weights.values()):
        raise ValueError(f"{folder / WEIGHTS} is damaged: not all of its weights are finite")
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise ValueError(
            f"{folder / WEIGHTS} does not fit the model of {CONFIG}, or is of another version of titans-seq"
        ) from None
    tokenizer = read_tokenizer(folder)
    _check_vocabulary(model, tokenizer)
    return model.eval(), tokenizer


def _shape(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path.parent} holds no language model: it has no {path.name}") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(f"{path} is damaged: it holds no JSON") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{path} is not that of a titans-seq language model")
    if config.get("version") != VERSION:
        raise ValueError(f"{path} has format {config.get('version')}; this version reads format {VERSION}")
    shape = config.get("model")
    if not isinstance(shape, dict):
        raise ValueError(f"{path} is damaged: it has no model")
    return shape


def _check_vocabulary(model: LanguageModel, tokenizer: Tokenizer) -> None:
    if tokenizer.vocabulary != model.vocabulary:
        raise ValueError(f"the tokenizer has {tokenizer.vocabulary} tokens, the model {model.vocabulary}")


def count_parameters(options: dict[str, Any]) -> int:
    """How many parameters a model of this shape has, without allocating them."""
    with torch.device("meta"):
        model = LanguageModel(**options)
    return sum(parameter.numel() for parameter in model.parameters())
