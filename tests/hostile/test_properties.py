"""Readers of files take any bytes: a result, or the error that is documented, and no other."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from titans_seq import MemoryState, load_state, save_state
from titans_seq.datamodules import DataError
from titans_seq.datamodules.forecast.files import read_file
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.intervals import read_bed
from titans_seq.datamodules.genomics.labelled import read_sequences
from titans_seq.datamodules.genomics.variants import read_variants

BOUNDED = settings(max_examples=100, deadline=None, derandomize=True, database=None)
pytestmark = pytest.mark.filterwarnings("default::titans_seq.datamodules.DataWarning")

_WORDS = [
    "date",
    "a",
    "b",
    "",
    " ",
    "1",
    "-1.5",
    "nan",
    "inf",
    "1e400",
    "2024-01-01",
    "2024-01-02",
    "x",
    '"',
    "\x00",
    "\r",
    "é",
    "\x1b[",
]
_LETTERS = [
    "A",
    "C",
    "G",
    "T",
    "N",
    "acgt",
    ">",
    ">one",
    ">two words",
    ";",
    "-",
    "*",
    " ",
    "\t",
    "\r",
    "\x00",
    "é",
    "U",
]
_FIELDS = [
    "one",
    "two",
    "three",
    "0",
    "1",
    "5",
    "500",
    "-1",
    str(10**30),
    "²",
    "A",
    "C",
    "ACGT",
    "<DEL>",
    "*",
    ".",
    ",",
    "",
    "#",
    "\x00",
    "é",
]


def _table(fields: list[str], separator: str, rows: int = 12) -> st.SearchStrategy[bytes]:
    """Texts of rows of fields, and what mutilates them."""
    row = st.lists(st.sampled_from(fields), max_size=5).map(separator.join)
    text = st.lists(row, max_size=rows).flatmap(
        lambda lines: st.sampled_from(["\n", "\r\n", "\r", "\n\n"]).map(lambda end: end.join(lines))
    )
    return st.one_of(
        text.map(str.encode),
        st.binary(max_size=200),
        st.tuples(text, st.binary(max_size=3)).map(lambda pair: pair[0].encode() + pair[1]),
    )


@contextmanager
def _file(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield path


def _is_one_line(error: Exception) -> bool:
    return "\n" not in str(error).strip()


@BOUNDED
@given(
    head=st.sampled_from(["", "date,a\n", "date,a,b\n", "ds,a\n2024-01-01,1\n"]),
    data=_table(_WORDS, ","),
)
@pytest.mark.filterwarnings("ignore::titans_seq.datamodules.DataWarning")
def test_any_csv_is_a_panel_or_a_data_error(head: str, data: bytes) -> None:
    with _file("x.csv", head.encode() + data) as path:
        try:
            panel = read_file(path)
        except DataError as error:
            assert str(path) in str(error)
            return
    assert not np.isinf(panel.target).any()
    assert len(panel.target) == len(panel.times) == panel.lengths.sum()
    assert panel.times[: panel.lengths[0]].is_monotonic_increasing and panel.times[: panel.lengths[0]].is_unique


@BOUNDED
@given(data=_table(_LETTERS, ""))
def test_any_fasta_is_a_genome_or_a_data_error(data: bytes) -> None:
    with _file("x.fa", data) as path:
        try:
            genome = Genome(path)
            tokens = [genome.tokens(name) for name in genome.names]
        except DataError as error:
            assert str(path) in str(error)
            return
        assert [len(each) for each in tokens] == [genome.lengths[name] for name in genome.names]


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text(f">one\n{'ACGT' * 200}\n>two\nACGT\n")
    return Genome(path)


@BOUNDED
@given(data=_table(_FIELDS, "\t"))
def test_any_vcf_is_variants_or_a_data_error(data: bytes, genome: Genome) -> None:
    with _file("x.vcf", data) as path:
        try:
            variants = read_variants(path, genome)
        except DataError as error:
            assert str(path) in str(error)
            return
    assert all(row.record in genome.names and row.ref != row.alt for row in variants.rows)


@BOUNDED
@given(data=_table(_FIELDS, "\t"))
def test_any_bed_is_intervals_or_a_data_error(data: bytes) -> None:
    with _file("x.bed", data) as path:
        try:
            intervals = read_bed(path)
        except DataError as error:
            assert str(path) in str(error)
            return
    assert all(0 <= interval.begin < interval.end for interval in intervals)


@BOUNDED
@given(head=st.sampled_from(["", "sequence\n", "sequence,id\n"]), data=_table(_LETTERS, ","))
def test_any_table_of_sequences_is_read_or_a_data_error(head: str, data: bytes) -> None:
    with _file("x.csv", head.encode() + data) as path:
        try:
            found = read_sequences(path)
        except DataError as error:
            assert str(path) in str(error)
            return
    assert len(found.ids) == len(found.tokens) > 0


# states ---------------------------------------------------------------------------------------------------------------


def _equal(one: MemoryState, two: MemoryState) -> bool:
    names = ("weights", "momentum", "chunk_start")
    pairs = [pair for name in names for pair in zip(getattr(one, name), getattr(two, name), strict=True)]
    return one.chunk_size == two.chunk_size and all(
        torch.equal(*pair) for pair in [*pairs, (one.position, two.position)]
    )


def _state(B: int, H: int, K: int, depth: int, seed: int, scale: float) -> MemoryState:
    random = torch.Generator().manual_seed(seed)
    weights = tuple(torch.randn(B, H, K, K, generator=random) * scale for _ in range(depth))
    return MemoryState.from_weights(weights)


_STATES = st.builds(
    _state,
    B=st.integers(1, 3),
    H=st.integers(1, 2),
    K=st.integers(1, 5),
    depth=st.integers(1, 4),
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.0, 1e-38, 1.0, 1e30]),
)


@BOUNDED
@given(state=_STATES)
def test_a_state_is_read_as_it_was_saved(state: MemoryState) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder, "x.state"), state)
        assert _equal(load_state(Path(folder, "x.state")), state)  # type: ignore[arg-type]


@BOUNDED
@given(state=_STATES, data=st.data())
def test_a_changed_state_file_is_refused_or_the_same_state(state: MemoryState, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.state")
        save_state(path, state)
        whole = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(whole) - 1))
        place = data.draw(st.sampled_from([place, len(whole) - 1 - place]))  # small numbers are drawn more often
        change = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if change == "flip":
            whole[place] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "cut":
            del whole[place:]
        else:
            whole[place:place] = data.draw(st.binary(min_size=1, max_size=9)) if change == "insert" else whole
        path.write_bytes(whole)
        try:
            found = load_state(path)
        except ValueError as error:
            assert _is_one_line(error) and "x.state" in str(error)
            return
        assert isinstance(found, MemoryState) and _equal(found, state)


@BOUNDED
@given(data=st.binary(max_size=300))
def test_any_bytes_are_no_state(data: bytes) -> None:
    with _file("x.state", data) as path, pytest.raises(ValueError, match="x.state"):
        load_state(path)
