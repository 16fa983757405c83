"""Changed models with the right digests: who changes a file on purpose can do that."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from titans_seq.cli import checkpoints
from titans_seq.tensor_files import write_tensors


def sign(folder: Path) -> None:
    """Give the tensors in a saved model's folder the digests of the files beside them as they are now."""
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        names = [each.name for each in folder.iterdir() if each.suffix == ".json"]
        kept = {name: text for name, text in about.items() if name != "sha256" and not name.endswith(".json")}
        digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        write_tensors(path, load_file(path), kept | digests)


def change_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` write to what config.json says."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    sign(folder)


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Write what `change` makes of the tensors of a file."""
    save_file(change(load_file(path)), path)
    sign(path.parent)


def sign_checkpoint(path: Path) -> None:
    """Give any zip file of torch's the digest that a checkpoint has."""
    content = path.read_bytes()
    path.write_bytes(content[:-2] + checkpoints._COMMENT + hashlib.sha256(content).hexdigest().encode())
