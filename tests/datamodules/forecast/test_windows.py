"""Windows: which rows they hold, that nothing is copied, and shuffles that a resumed run repeats."""

import pytest
import torch

from titans_seq.datamodules import WindowDataset
from titans_seq.datamodules.common.loaders import Dealt, EpochShuffle

T, C = 50, 3
VALUES = torch.arange(T * C, dtype=torch.float32).reshape(T, C)


@pytest.mark.parametrize(
    ("begin", "end", "lookback", "horizon", "stride", "origin"),
    [
        (0, 50, 4, 2, 1, 0),
        (10, 40, 5, 1, 1, 0),
        (0, 50, 8, 8, 16, 8),
        (3, 50, 4, 2, 7, 2),
        (0, 6, 4, 2, 1, 0),
        (0, 5, 4, 2, 1, 0),
        (46, 50, 4, 0, 1, 0),
        (0, 9, 4, 2, 10, 9),
    ],
)
def test_windows_are_those_of_a_plain_loop(
    begin: int, end: int, lookback: int, horizon: int, stride: int, origin: int
) -> None:
    windows = WindowDataset(VALUES, begin, end, lookback, horizon, stride, origin)
    expected = [t for t in range(T + 1) if t - lookback >= begin and t + horizon <= end and (t - origin) % stride == 0]
    assert len(windows) == len(expected)
    if not expected:
        return
    batch = windows.__getitems__(range(len(expected)))
    assert batch["index"].tolist() == expected
    for i, t in enumerate(expected):
        assert torch.equal(batch["past_target"][i], VALUES[t - lookback : t])
        assert torch.equal(batch["future_target"][i], VALUES[t : t + horizon])
        item = windows[i]
        assert all(torch.equal(item[name], batch[name][i]) for name in batch)


def test_windows_are_views_and_batches_are_not() -> None:
    windows = WindowDataset(VALUES, 0, T, 8, 4)
    assert windows.windows.untyped_storage().data_ptr() == VALUES.untyped_storage().data_ptr()
    assert windows.windows.untyped_storage().nbytes() == T * C * 4
    batch = windows.__getitems__([3, 3, 0])
    assert batch["past_target"].shape == (3, 8, C)
    assert batch["past_target"].untyped_storage().nbytes() == 3 * 12 * C * 4
    batch["past_target"].zero_()
    assert VALUES[0, 1] == 1


@pytest.mark.parametrize(
    "arguments", [(-1, 10, 2, 2), (0, T + 1, 2, 2), (9, 8, 2, 2), (0, 10, 0, 2), (0, 10, 2, -1), (0, 10, 2, 2, 0)]
)
def test_impossible_arguments(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="got"):
        WindowDataset(VALUES, *arguments)


def test_shuffles_depend_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochShuffle(range(40), seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    torch.manual_seed(5)
    first = order(0, 3)
    torch.manual_seed(6)
    assert order(0, 3) == first
    assert sorted(first) == list(range(40))
    orders = [tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


def test_each_pass_takes_the_next_epoch() -> None:
    sampler = EpochShuffle(range(40), seed=1)
    passes = [list(sampler) for _ in range(3)]
    sampler.set_epoch(1)
    assert passes[0] != passes[1] != passes[2]
    assert list(sampler) == passes[1]


def test_processes_share_the_draws_of_one() -> None:
    """A batch of 2 of each of three processes is the batch of 6 of one; where they do not go round the first are drawn
    again.
    """
    alone = EpochShuffle(range(40), seed=1)
    shares = [Dealt(EpochShuffle(range(40), seed=1), num_replicas=3, rank=rank) for rank in range(3)]
    for share in (alone, *shares):
        share.set_epoch(4)
    drawn, parts = list(alone), [list(share) for share in shares]
    assert [len(part) for part in parts] == [14, 14, 14]
    for first in range(0, 36, 6):
        batch = [index for part in parts for index in part[first // 3 : first // 3 + 2]]
        assert sorted(batch) == sorted(drawn[first : first + 6])
    assert {part[-1] for part in parts} == {drawn[39], drawn[0], drawn[1]}
