"""Shuffles that a resumed run repeats, and the shares of several processes."""

import torch

from titans_seq.datamodules.common.loaders import Dealt, EpochShuffle


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
