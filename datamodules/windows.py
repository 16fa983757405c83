"""Windows of a series as views: lookback rows, then horizon rows.

B batch, L lookback, H horizon, C channels, T rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset, RandomSampler

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

    Lightning calls `set_epoch` before each epoch; without it each pass takes the next epoch. With `num_samples` an epoch takes so many:
    fewer than all, or all several times.
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


def epoch_seed(seed: int, epoch: int) -> int:
    """A hash of both: seed + epoch would give seed 1 the shuffles of seed 0, one epoch later."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def as_is(batch: Any) -> Any:
    """For data sets that give whole batches: nothing is left to collate. (A function, so that workers can be spawned.)"""
    return batch
