"""A language model in a folder: weights as safetensors, its shape as JSON, its tokenizer. Nothing of it is code."""

from pathlib import Path

from titans_seq.building import UnfitWeightsError, build_with_weights
from titans_seq.datamodules.language.tokenizers import FILE, Tokenizer, read_tokenizer
from titans_seq.language.model import LanguageModel
from titans_seq.model_folders import CONFIG, WEIGHTS, read_folder, write_folder

KIND, VERSION = "language model", 2


def save_model(folder: str | Path, model: LanguageModel, tokenizer: Tokenizer) -> None:
    """Write a model and its tokenizer to a folder, which is made; where the disk is full, what was there is unchanged.

    Raises:
        ValueError: the tokenizer is not of the model's vocabulary, or the folder is a file.
        OSError: the folder cannot be written to; `filename` says which file.
    """
    _check_vocabulary(model, tokenizer)
    weights, texts = {WEIGHTS: model.state_dict()}, {FILE: tokenizer.to_json()}
    write_folder(Path(folder), KIND, VERSION, {"model": model.options}, weights, texts)


def load_model(folder: str | Path) -> tuple[LanguageModel, Tokenizer]:
    """Read what `save_model` wrote, on the CPU, the model in eval mode. Nothing is unpickled.

    Raises:
        OSError: a file cannot be read.
        ValueError: no such folder, a file missing or damaged, or of another format; weights or a tokenizer that do not
            fit.
    """
    folder = Path(folder)
    config, (weights,) = read_folder(folder, KIND, VERSION, [WEIGHTS], [FILE])
    options = config.get("model")
    if not isinstance(options, dict):
        raise ValueError(f"{folder / CONFIG} is damaged: it has no model")
    try:
        model = build_with_weights(LanguageModel, options, weights)
    except UnfitWeightsError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit {CONFIG}: {error}") from None
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # no options of it, or values it refuses
        raise ValueError(f"{folder / CONFIG} is damaged: {' '.join(str(error).split())}") from None
    tokenizer = read_tokenizer(folder)
    _check_vocabulary(model, tokenizer)
    return model.eval(), tokenizer


def _check_vocabulary(model: LanguageModel, tokenizer: Tokenizer) -> None:
    if tokenizer.vocabulary != model.vocabulary:
        raise ValueError(f"the tokenizer has {tokenizer.vocabulary} tokens, the model {model.vocabulary}")
