"""Changed files with the right digests, so that more than the digest is asked: whoever changes a file can do that."""

from pathlib import Path

from safetensors.torch import load_file, safe_open
from signed import sign
from torch import Tensor

from titans_seq.cli.checkpoints import write_checkpoint
from titans_seq.tensor_files import write_tensors

__all__ = ["read_tensors", "sign", "write_checkpoint", "write_tensors"]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and texts of a file, without its digest."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
    return load_file(path), {name: text for name, text in about.items() if name != "sha256"}
