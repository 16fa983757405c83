"""A saved model in a folder: `config.json`, tensors as safetensors, texts. Files that were not saved together are
refused, and nothing is pickled.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

import titans_seq
from titans_seq.files import parse_json, read_content, write_files
from titans_seq.tensor_files import read_tensors, tensor_file

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def write_folder(
    folder: Path,
    kind: str,
    version: int,
    config: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write the files together; where the disk is full, what was there is unchanged.

    Args:
        folder: is made.
        kind: of model, in words.
        version: of what the files hold.
        config: goes to config.json.
        tensors: by name of their file; each also keeps the digests of config.json and the texts.
        texts: by name of their file.

    Raises:
        ValueError: a name or an option cannot be written as JSON, or the folder is a file.
        OSError: the disk is full, or refuses it; `filename` says which file.
    """
    made_by = {"format": f"titans-seq {kind}", "version": version, "titans_seq": titans_seq.__version__}
    written = {CONFIG: as_json(made_by | dict(config), indent=1) + "\n"} | dict(texts or {})
    contents = {name: text.encode() for name, text in written.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"{folder} is a file; give a folder") from None
    together = {"format": "pt"} | {name: _digest(content) for name, content in contents.items()}
    files: dict[str, list[bytes | memoryview]] = {name: [content] for name, content in contents.items()}
    files |= {name: tensor_file(values, together) for name, values in tensors.items()}
    write_files({folder / name: pieces for name, pieces in files.items()})


def read_folder(
    folder: Path, kind: str, version: int, tensors: Sequence[str], texts: Sequence[str] = ()
) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
    """What `write_folder` wrote: the configuration, and the tensors of these files.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder or one of its files is missing, damaged or of another version.
    """
    config, digest = _config(folder, kind, version)
    digests, found = {CONFIG: digest}, []
    try:
        digests |= {name: _digest(read_content(folder / name)) for name in texts}
        for place in (folder / name for name in tensors):
            values, about = read_tensors(place)
            changed = next((name for name, own in digests.items() if about.get(name) != own), None)
            if changed:
                raise ValueError(f"the files in {folder} were not saved together, or {changed} was changed; "
                                 "save it again")  # fmt: skip
            found.append(values)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is not whole: it has no {Path(error.filename).name}") from None
    return config, found


def _config(folder: Path, kind: str, version: int) -> tuple[dict[str, Any], str]:
    """What config.json says, and the digest of its text."""
    path = folder / CONFIG
    try:
        content = read_content(path)
    except (FileNotFoundError, NotADirectoryError):
        run = folder / "model"
        hint = f"; did you mean {run}?" if (run / CONFIG).is_file() else ""
        raise ValueError(f"{folder} holds no {kind}: it has no {CONFIG}{hint}") from None
    config = parse_json(content, str(path))
    if not isinstance(config, dict) or config.get("format") != f"titans-seq {kind}":
        raise ValueError(f"{path} is not that of a titans-seq {kind}")
    if config.get("version") != version:
        by = config.get("titans_seq", "0.1.0")
        raise ValueError(
            f"{path} was written by titans-seq {by} in format {config.get('version')}; this is "
            f"{titans_seq.__version__}, which reads format {version}: fit it again, or load it with titans-seq {by}"
        )
    return config, _digest(content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON of Python's, NumPy's and pandas' values."""
    try:
        return json.dumps(value, indent=indent, default=_plain)
    except TypeError as error:
        raise ValueError(f"the model cannot be saved as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, set):
        return list(value)
    if hasattr(value, "tolist") and not isinstance(value, Tensor):
        return value.tolist()
    raise TypeError(f"{value!r} of {type(value).__name__}")
