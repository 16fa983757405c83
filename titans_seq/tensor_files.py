"""Tensors on disk, as safetensors: written whole, and known by a digest of every byte."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from titans_seq.files import write_files

# the digest stands in the metadata; it is that of the file with zeros in its place
_DIGEST, _ZEROS = "sha256", "0" * 64
_PLACE = re.compile(rb'"sha256":"([0-9a-f]{64})"')  # as safetensors writes it; inside of a string it has backslashes
_LONGEST_HEADER = 100_000_000  # bytes; that of safetensors itself
_CHUNK = 2**20  # bytes read at a time


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts to one file, whole or not at all.

    Raises:
        OSError: the disk is full, or refuses it; `filename` is `path`.
    """
    write_files({path: tensor_file(tensors, metadata)})


def tensor_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """The content of the file that `write_tensors` writes, in pieces."""
    # shared storage (a chunk that has just begun) is written once per name: safetensors refuses aliases
    own = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    blob = save(own, {**metadata, _DIGEST: _ZEROS})  # not save_file: a full disk would be an error without a number
    place, view = _PLACE.search(blob), memoryview(blob)
    assert place is not None
    return [view[: place.start(1)], hashlib.sha256(blob).hexdigest().encode(), view[place.end(1) :]]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_tensors` wrote, on the CPU.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or has no digest.
    """
    _verify(path)
    try:
        tensors, about = _read_bytes(path) if _is_not_utf8(path) else _read_file(path)
        if about is None or _DIGEST not in about:
            raise ValueError(f"{path} is damaged: its digest is not among its metadata")
        return tensors, about
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118  it is no dict


def _read_bytes(path: Path) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """The same in memory: safetensors opens no path that is not UTF-8."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return safetensors.torch.load(content), header.get("__metadata__")


def _is_not_utf8(path: Path) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in str(path))  # how Python keeps such bytes


def _verify(path: Path) -> None:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is not a regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if length > min(size - 8, _LONGEST_HEADER):
            raise ValueError(f"{path} is damaged or no safetensors file")
        header = file.read(length)
        place = _PLACE.search(header)
        if place is None:
            raise ValueError(f"{path} has no digest: it is damaged, or not of this version of titans-seq")
        digest = hashlib.sha256(start + header[: place.start(1)] + _ZEROS.encode() + header[place.end(1) :])
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if place[1].decode() != digest.hexdigest():
        raise ValueError(f"{path} is damaged: its content does not fit its digest")
