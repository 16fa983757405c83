"""A file is whole or not there: what fails leaves the old one, and nothing beside it."""

import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from disks import no_file_beyond

from titans_seq.files import read_json, replacing, write_text


def test_a_block_that_fails_leaves_the_old_file_and_no_part(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as part:
        part.write_text("new")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_shows_before_the_work(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "none" / "file"):
        raise AssertionError("the block has begun")


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_that_is_replaced_leaves_its_mode(tmp_path, mode):
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    with replacing(path) as part:
        part.write_text("new")
        part.chmod(0o640)
    assert path.read_text() == "new" and stat.S_IMODE(path.stat().st_mode) == mode


def test_what_dead_processes_have_left_is_removed(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    host, number = socket.gethostname(), int(dead.stdout)
    left = [f".file.{host}.{number}.0a1b2c3d.part", f".other.png.{host}.{number}.0a1b2c3d.part"]
    kept = [
        f".file.{host}.1.0a1b2c3d.part",
        f".file.elsewhere.{number}.0a1b2c3d.part",
        "file.part",
        f"file.{host}.{number}.part",
    ]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    with replacing(tmp_path / "file") as part:
        part.write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", *kept])


def test_a_full_disk_keeps_the_old_file_and_names_it(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError) as error, no_file_beyond(1000), replacing(path) as part:
        part.write_bytes(b"x" * 2000)
    assert error.value.filename == str(path) and error.value.errno == errno.EFBIG
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["{", "[" * 3000, '{"a":' * 3000, "\xff", "1" * 5000], ids=range(5))
def test_no_json_is_one_line(text, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"file\.json is damaged: [^\n]+$"):
        read_json(path)


def test_links_are_followed_and_pipes_stay_pipes(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "a")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "a"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="a pipe or a device"):
        write_text(tmp_path / "pipe", "a")
    assert (tmp_path / "pipe").is_fifo()


def test_what_cannot_be_removed_is_no_reason_not_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = tmp_path / f".other.{socket.gethostname()}.{int(dead.stdout)}.0a1b2c3d.part"
    left.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("os.rmdir", lambda *_, **__: os.stat("/none"))
        write_text(tmp_path / "file", "a")
    assert (tmp_path / "file").read_text() == "a" and left.is_dir()
    write_text(tmp_path / "file", "b")
    assert not left.exists()


@pytest.mark.parametrize("special", ["pipe", "device", "large"])
def test_json_is_read_from_files_of_bounded_size(tmp_path: Path, special: str) -> None:
    path = tmp_path / "x.json"
    if special == "pipe":
        os.mkfifo(path)
    elif special == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(2**29)
    with pytest.raises(ValueError, match="too large" if special == "large" else "not a regular file"):
        read_json(path)
