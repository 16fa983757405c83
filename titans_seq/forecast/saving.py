"""The files of a fitted forecaster: `config.json`, `model.safetensors`, `series.safetensors`. Nothing is pickled."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from gluonts.torch.distributions import Output
from torch import Tensor

import titans_seq
from titans_seq.files import parse_json, read_content, write_files
from titans_seq.forecast.outputs import OUTPUTS, output_arguments
from titans_seq.tensor_files import read_tensors, tensor_file

FORMAT, VERSION = "titans-seq forecaster", 3
CONFIG, WEIGHTS, SERIES = "config.json", "model.safetensors", "series.safetensors"
# what building from values of wrong types, names or sizes raises
WRONG = (KeyError, TypeError, IndexError, ValueError, RuntimeError, AttributeError, OverflowError, AssertionError)


def write_forecaster(
    folder: Path, config: dict[str, Any], weights: dict[str, Tensor], arrays: dict[str, np.ndarray]
) -> Path:
    """Write the three files together; where the disk is full, what was there is unchanged.

    Raises:
        ValueError: a name or an option cannot be written as JSON, or the folder is a file.
        OSError: the disk is full, or refuses it; `filename` says which file.
    """
    made_by = {"format": FORMAT, "version": VERSION, "titans_seq": titans_seq.__version__}
    text = (as_json(made_by | config, indent=1) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"{folder} is a file; give a folder") from None
    # a folder that was being written over when the lights went out is known by it, and so is a changed config.json
    together = {CONFIG: _digest(text)}
    series = {key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in arrays.items()}
    files: dict[str, list[bytes | memoryview]] = {
        CONFIG: [text],
        WEIGHTS: tensor_file(weights, together),
        SERIES: tensor_file(series, together),
    }
    write_files({folder / name: content for name, content in files.items()})
    return folder


def read_forecaster(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, np.ndarray]]:
    """Read what `write_forecaster` wrote: configuration, weights and arrays.

    Raises:
        ValueError: the folder or one of its files is missing, damaged or of another version.
    """
    config, digest = _config(folder)
    try:
        weights, about = read_tensors(folder / WEIGHTS)
        series, also_about = read_tensors(folder / SERIES)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is not whole: {error}") from None
    if not about.get(CONFIG) == also_about.get(CONFIG) == digest:
        raise ValueError(f"the files in {folder} were not saved together, or {CONFIG} was changed; save it again")
    return config, weights, {name: tensor.numpy() for name, tensor in series.items()}


def _config(folder: Path) -> tuple[dict[str, Any], str]:
    """What config.json says, and the digest of its text."""
    path = folder / CONFIG
    try:
        content = read_content(path)
    except (FileNotFoundError, NotADirectoryError):
        run = folder / "model"
        hint = f"; did you mean {run}?" if (run / CONFIG).is_file() else ""
        raise ValueError(f"{folder} holds no forecaster: it has no {CONFIG}{hint}") from None
    config = parse_json(content, str(path))
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{path} is not that of a titans-seq forecaster")
    if config.get("version") != VERSION:
        by = config.get("titans_seq", "0.1.0")
        raise ValueError(
            f"{path} was written by titans-seq {by} in format {config.get('version')}; this is "
            f"{titans_seq.__version__}, which reads format {VERSION}: fit it again, or load it with titans-seq {by}"
        )
    return config, _digest(content)


def plain_output(output: str | Output) -> Any:
    """An output as JSON holds it: its name, or the name of its class and plain arguments."""
    if isinstance(output, str):
        return output
    return {"class": type(output).__name__, "arguments": output_arguments(output)}


def output_of(saved: Any) -> str | Output:
    """What `plain_output` was given: nothing a file says is imported."""
    if not isinstance(saved, dict):
        return saved
    if saved.get("class") not in OUTPUTS:
        raise ValueError(f"the forecaster's output {saved.get('class')!r} is none of {', '.join(OUTPUTS)}")
    try:
        return OUTPUTS[saved["class"]](**saved["arguments"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"the forecaster's output has wrong arguments: {' '.join(str(error).split())}") from None


def as_json(value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, default=_plain)
    except TypeError as error:
        raise ValueError(f"the forecaster cannot be saved as JSON: {error}") from None


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | set | np.ndarray | pd.Index):
        return list(value)
    raise TypeError(f"{value!r} of {type(value).__name__}")
