"""Windows of a series as views: lookback rows, then horizon rows.

B batch, L lookback, H horizon, C channels, T rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, RandomSampler, Sampler

Batch = dict[str, Tensor]


class WindowDataset(Dataset[Batch]):
    """The windows inside rows [begin, end), each L + H rows long; nothing is copied until a batch is taken.

    Args:
        values: float32 [T, C], the whole series.
        begin, end: rows the windows may touch; the first target row is `begin + lookback` at the earliest.
        lookback, horizon: L and H; H = 0 gives windows with an empty target.
        stride, origin: only first target rows t with (t - origin) % stride == 0.

    An item, and a batch of them, holds "past_target" [(B,) L, C], "future_target" [(B,) H, C] and "index" [(B,)], the
    first target row counted in the whole series.
    """

    def __init__(
        self,
        values: Float[Tensor, "T C"],
        begin: int,
        end: int,
        lookback: int,
        horizon: int,
        stride: int = 1,
        origin: int = 0,
    ) -> None:
        if not 0 <= begin <= end <= len(values):
            raise ValueError(f"rows must satisfy 0 <= begin <= end <= {len(values)}; got begin {begin}, end {end}")
        if lookback < 1 or horizon < 0 or stride < 1:
            raise ValueError(
                f"need lookback >= 1, horizon >= 0, stride >= 1; got lookback {lookback}, horizon {horizon}, "
                f"stride {stride}"
            )
        self.lookback = lookback
        earliest = begin + lookback
        first = earliest + (origin - earliest) % stride
        self.targets = range(first, end - horizon + 1, stride)
        start = first - lookback if self.targets else end
        length = lookback + horizon
        # unfold puts the window last; [N, L + H, C] keeps whole rows together, so a batch copies long runs
        self.windows = (
            values[start:end].unfold(0, length, stride).transpose(1, 2)
            if self.targets
            else values.new_empty(0, length, values.shape[1])
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Batch:
        return {name: batch[0] for name, batch in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the batch of these windows, by one indexed copy."""
        rows = torch.as_tensor([self.targets[index] for index in indices], dtype=torch.int64)
        positions = torch.as_tensor(indices, dtype=torch.int64)
        window = self.windows[positions]  # [B, L + H, C]
        return {
            "past_target": window[:, : self.lookback],
            "future_target": window[:, self.lookback :],
            "index": rows,
        }


class EpochShuffle(RandomSampler):
    """Every index once, in an order that depends on the seed and the epoch only, so a resumed run sees the same.

    Lightning calls `set_epoch` before each epoch; without it each pass takes the next epoch. With `num_samples` an
    epoch takes so many: fewer than all, or all several times.
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
