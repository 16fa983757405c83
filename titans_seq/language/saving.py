"""A language model in a folder: weights as safetensors, its shape as JSON, its tokenizer. Nothing of it is code."""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from titans_seq.building import UnfitWeightsError, build_on_meta, build_with_weights
from titans_seq.datamodules.language.tokenizers import FILE, Tokenizer, read_tokenizer
from titans_seq.files import read_content, read_json, write_files
from titans_seq.language.model import LanguageModel
from titans_seq.tensor_files import read_tensors, tensor_file

WEIGHTS, CONFIG = "model.safetensors", "config.json"
FORMAT, VERSION = "titans-seq language model", 2


def save_model(folder: str | Path, model: LanguageModel, tokenizer: Tokenizer) -> None:
    """Write a model and its tokenizer to a folder, which is made; where the disk is full, what was there is unchanged.

    Raises:
        ValueError: the tokenizer is not of the model's vocabulary.
        OSError: the folder cannot be written to; `filename` says which file.
    """
    _check_vocabulary(model, tokenizer)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"format": FORMAT, "version": VERSION, "model": model.options}
    texts = {CONFIG: (json.dumps(config, indent=2) + "\n").encode(), FILE: tokenizer.to_json().encode()}
    digests = {name: _digest(text) for name, text in texts.items()}
    weights = tensor_file(model.state_dict(), {"format": "pt", **digests})
    write_files({**{folder / name: [text] for name, text in texts.items()}, folder / WEIGHTS: weights})


def load_model(folder: str | Path) -> tuple[LanguageModel, Tokenizer]:
    """Read what `save_model` wrote, on the CPU, the model in eval mode. Nothing is unpickled.

    Raises:
        OSError: a file cannot be read.
        ValueError: no such folder, a file missing or damaged, or of another format; weights or a tokenizer that do not
            fit.
    """
    folder = Path(folder)
    options = _options(folder / CONFIG)
    try:
        weights, about = read_tensors(folder / WEIGHTS)
    except FileNotFoundError:
        raise ValueError(f"no weights at {folder / WEIGHTS}") from None
    if not all(value.isfinite().all() for value in weights.values()):
        raise ValueError(f"{folder / WEIGHTS} is damaged: not all of its weights are finite")
    for name in (CONFIG, FILE):
        if about.get(name) != _digest(_content(folder / name)):
            raise ValueError(f"{folder / name} is not what was saved with {WEIGHTS}: it was changed, or is damaged")
    model = _built(options, weights, folder)
    tokenizer = read_tokenizer(folder)
    _check_vocabulary(model, tokenizer)
    return model.eval(), tokenizer


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _content(path: Path) -> bytes:
    try:
        return read_content(path)
    except FileNotFoundError:
        raise ValueError(f"no tokenizer at {path}") from None


def _options(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path.parent} holds no language model: it has no {path.name}") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{path} is not that of a titans-seq language model")
    if config.get("version") != VERSION:
        raise ValueError(f"{path} has format {config.get('version')}; this version reads format {VERSION}")
    options = config.get("model")
    if not isinstance(options, dict):
        raise ValueError(f"{path} is damaged: it has no model")
    return options


def _built(options: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> LanguageModel:
    try:
        return build_with_weights(LanguageModel, options, weights)
    except UnfitWeightsError:
        raise ValueError(
            f"{folder / WEIGHTS} does not fit the model of {CONFIG}, or is of another version of titans-seq"
        ) from None
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # no options of it, or values it refuses
        raise ValueError(f"{folder / CONFIG} is damaged: {' '.join(str(error).split())}") from None


def _check_vocabulary(model: LanguageModel, tokenizer: Tokenizer) -> None:
    if tokenizer.vocabulary != model.vocabulary:
        raise ValueError(f"the tokenizer has {tokenizer.vocabulary} tokens, the model {model.vocabulary}")


def count_parameters(options: dict[str, Any]) -> int:
    """How many parameters a model of this shape has, without allocating them."""
    model = build_on_meta(lambda: LanguageModel(**options))
    return sum(parameter.numel() for parameter in model.parameters())
