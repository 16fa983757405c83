"""What loaders of every field share: seeded orders, and their shares in runs of several processes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler, RandomSampler, Sampler

Batch = dict[str, Tensor]
SPLITS = ("train", "val", "test")


class EpochShuffle(RandomSampler):
    """Every index once, in an order that depends on the seed and the epoch only, so a resumed run sees the same.

    Lightning calls `set_epoch` before each epoch; without it each pass takes the next epoch. An epoch takes
    `num_samples`: fewer than all, or all several times.
    """

    def __init__(self, data_source: Any, seed: int, num_samples: int | None = None) -> None:
        super().__init__(data_source, num_samples=num_samples, generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(epoch_seed(self.seed, self.epoch))
        self.epoch += 1
        yield from super().__iter__()


class EpochNumbers(Sampler[int]):
    """`count` numbers per epoch, which `draw` makes of the epoch; told or counted as by `EpochShuffle`."""

    def __init__(self, count: int, draw: Callable[[int], Iterable[int]]) -> None:
        self.count, self.draw, self.epoch = count, draw, 0

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        yield from self.draw(self.epoch - 1)


class Dealt(DistributedSampler[int]):
    """What one process of several takes of a sampler's draws, in turn with the others.

    A batch of each process together is the batch that one process would have. Where the draws do not go round, the
    first are taken again. It is a `DistributedSampler`, so that Lightning, which deals in an order of its own, leaves
    it as it is.
    """

    def __init__(self, sampler: Sampler[int], num_replicas: int | None = None, rank: int | None = None) -> None:
        super().__init__(sampler, num_replicas, rank, shuffle=False)  # type: ignore[arg-type]  # all it asks for is the length
        self.sampler = sampler

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        drawn = list(self.sampler)
        for place in range(self.rank, self.total_size, self.num_replicas):
            yield drawn[place % len(drawn)]


def dealt(sampler: Sampler[int]) -> Sampler[int]:
    """The sampler itself, or in a run of several processes this one's part of it."""
    return Dealt(sampler) if processes() > 1 else sampler


def processes() -> int:
    """How many processes train one model together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def epoch_seed(seed: int, epoch: int) -> int:
    """A hash of both: seed + epoch would give seed 1 the shuffles of seed 0, one epoch later."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def as_is(batch: Any) -> Any:
    """For data sets that give whole batches: nothing is left to collate. (A function, so that workers can be
    spawned.)
    """
    return batch
