"""Shared by the tests of genomes: where indices go that cannot lie beside their FASTA."""

import pytest

from titans_seq.datamodules.genomics import index


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No index of a test goes to the user's cache."""
    monkeypatch.setattr(index, "user_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "titans-seq" / "fasta"
