"""A file is whole or not there: what fails leaves the old one, and nothing beside it."""

import stat

import pytest

from titans_seq.files import replacing


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
