"""Tensors on disk: a bit that turns over is seen, and a disk that is full leaves what was there."""

import hashlib
import os
from pathlib import Path

import pytest
import torch
from bits import flips
from disks import no_file_beyond
from safetensors.torch import save_file

from titans_seq import NeuralMemory, load_state, save_state
from titans_seq.tensor_files import read_tensors, write_tensors

TENSORS = {
    "a": torch.randn(3, 4),
    "b": torch.arange(5),
    "empty": torch.zeros(0, 2),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "one": torch.tensor(True),
}
ABOUT = {"format": "of a test", "tree": '{"sha256":"' + "0" * 64 + '"}'}


def test_what_is_read_is_what_was_written(tmp_path):
    shared = torch.randn(4)
    tensors = TENSORS | {"turned": TENSORS["a"].T, "same": shared, "again": shared}
    write_tensors(tmp_path / "t", tensors, ABOUT)
    read, about = read_tensors(tmp_path / "t")
    assert read.keys() == tensors.keys() and {name: about[name] for name in ABOUT} == ABOUT
    for name, value in tensors.items():
        assert read[name].dtype == value.dtype and torch.equal(read[name], value)


def test_turned_bits_are_refused(tmp_path):
    path = tmp_path / "t"
    write_tensors(path, TENSORS, ABOUT)
    for _ in flips(path, 200):
        with pytest.raises(ValueError, match=r"^\S+ (is damaged|has no digest)[^\n]*$"):
            read_tensors(path)
    read_tensors(path)


@pytest.mark.parametrize("content", [b"", b"1234567", b"x" * 100, b"\xff" * 100])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        read_tensors(tmp_path / "t")


def test_a_file_without_a_digest_is_refused(tmp_path):
    save_file(TENSORS, tmp_path / "t", ABOUT)
    with pytest.raises(ValueError, match="has no digest"):
        read_tensors(tmp_path / "t")


def test_a_full_disk_leaves_the_old_state(tmp_path):
    layer, path = NeuralMemory(8, heads=2), tmp_path / "state"
    small, large = layer.initial_state(1), layer.initial_state(50)
    save_state(path, small)
    with pytest.raises(OSError) as error, no_file_beyond(4000):
        save_state(path, large)
    assert error.value.filename == str(path)
    assert len(load_state(path).inputs) == 1 and list(tmp_path.iterdir()) == [path]


def test_a_digest_outside_of_the_metadata_is_none(tmp_path: Path) -> None:
    """The name of a tensor's field may look like one."""
    path = tmp_path / "x.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"sha256":"' + b"0" * 64 + b'"}}'
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    path.write_bytes(content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode()))
    with pytest.raises(ValueError, match="x.safetensors is damaged"):
        read_tensors(path)


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((2**35).to_bytes(8, "little"))
        file.truncate(2**36)
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        read_tensors(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file"):
        read_tensors(path)
