"""Windows dealt to rows that read on: what follows on what, what is left out, strands and order."""

import pytest
from fasta import sequence

from titans_seq.datamodules import DataError, GenomeData
from titans_seq.datamodules.common import stretches
from titans_seq.datamodules.genomics.alphabet import decode

LENGTH, ROWS = 8, 3
COMPLEMENT = str.maketrans("ACGT", "TGCA")


# 230 and 117 bases: the last window of each interval is short; N in between breaks a stretch
ONE, TWO = sequence(120, 0) + "N" * LENGTH + sequence(102, 1), sequence(117, 2)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "some.fa").write_text(f">one\n{ONE}\n>two\n{TWO}\n")
    (tmp_path / "splits.bed").write_text(
        "one\t0\t230\ttrain\ntwo\t0\t90\ttrain\ntwo\t90\t100\tval\ntwo\t100\t117\ttest\n"
    )

    def of(**options):
        defaults = {"length": LENGTH, "bed": str(tmp_path / "splits.bed"), "batch_size": ROWS, "carry": 4}
        made = GenomeData(str(tmp_path / "some.fa"), **defaults | options)
        made.setup()
        return made

    return of


def rows(data, epoch=0):
    """What each row reads: a list of stretches, each of the letters of its windows."""
    loader = data.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(epoch)
    read = [[] for _ in range(data.batch_size)]
    for step, batch in enumerate(loader):
        mask = batch.get("mask")
        for row, (tokens, carried) in enumerate(zip(batch["tokens"], batch["carried"], strict=True)):
            window = decode(tokens if mask is None else tokens[mask[row]])
            assert step or not carried
            read[row].append([*read[row].pop(), window] if carried else [window])
    return read


def other_strand(text):
    return text.translate(COMPLEMENT)[::-1]


@pytest.mark.parametrize("epoch", range(4))
def test_every_row_reads_stretches_of_the_genome_in_order(data, epoch):
    read = rows(data(), epoch)
    stretches = [stretch for row in read for stretch in row]
    sources = [ONE, TWO[:90], other_strand(ONE), other_strand(TWO[:90])]
    assert all(any("".join(stretch) in source for source in sources) for stretch in stretches)
    assert max(map(len, stretches)) == 4
    assert len({sum(map(len, row)) for row in read}) == 1


def test_every_window_is_read_once_but_for_the_remainder(data):
    made = data(both_strands=False)
    windows = [window for row in rows(made) for stretch in row for window in stretch]
    expected = [part[i : i + LENGTH] for part in (ONE, TWO[:90]) for i in range(0, len(part), LENGTH)]
    expected.remove("N" * LENGTH)
    assert len(windows) == len(expected) // ROWS * ROWS == len(set(windows))
    assert set(windows) <= set(expected)


def test_no_stretch_steps_over_what_was_left_out(data):
    joined = ["".join(stretch) for row in rows(data(both_strands=False, carry=100)) for stretch in row]
    assert any(ONE[:120].endswith(text) for text in joined)
    assert all(text in ONE[:120] or text in ONE[128:] or text in TWO for text in joined)


def test_both_strands_come_unless_told_not_to(data):
    def plus(made):
        return [
            any("".join(s) in source for source in (ONE, TWO)) for e in range(3) for row in rows(made, e) for s in row
        ]

    assert set(plus(data())) == {True, False}
    assert set(plus(data(both_strands=False))) == {True}


def test_the_order_depends_on_seed_and_epoch_only(data):
    assert rows(data(), 1) == rows(data(), 1)
    assert rows(data(), 1) != rows(data(), 2)
    assert rows(data(), 1) != rows(data(seed=1), 1)


def test_too_few_windows_for_the_rows_are_refused(data):
    with pytest.raises(DataError, match="batch_size is 64, but there are 40 windows; make one smaller"):
        data(batch_size=64)
    with pytest.raises(DataError, match="carry must be at least 1; got 0"):
        data(carry=0)


def test_rows_are_dealt_to_processes(data, monkeypatch):
    """Three rows of one process are one row each of three."""
    alone = rows(data())
    shared = []
    for rank in range(ROWS):
        monkeypatch.setattr(stretches, "processes", lambda: ROWS)
        monkeypatch.setattr(stretches.dist, "get_rank", lambda rank=rank: rank)
        shared += rows(data(batch_size=1))
    assert shared == alone
