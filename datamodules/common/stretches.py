"""Windows read one after the other, so that a model can carry its state from each to the next while it is trained."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.loaders import EpochShuffle, processes


class Reading(NamedTuple):
    """One window of one row of a batch. turned: read on the other strand. goes_on: it follows on the row's window
    before.
    """

    window: int
    turned: bool
    goes_on: bool


class StretchBatches(Sampler[list[Reading]]):
    """Batches of windows, in each row of which stretches of consecutive windows are read in order.

    The stretches come in an order that depends on seed and epoch only and are dealt to `batch_size` rows of the same
    length, in a run of several processes to so many of each. So fewer windows than rows, others in each epoch, are left
    out. With `both_strands` they are turned by chance: read from the last window to the first, each on the other
    strand.

    Raises:
        DataError: fewer windows than rows.
    """

    def __init__(self, stretches: list[range], *, batch_size: int, both_strands: bool, seed: int) -> None:
        windows = sum(map(len, stretches))
        require_rows(windows, batch_size)
        rows = batch_size * processes()
        self.stretches = stretches
        self.batch_size, self.both_strands, self.steps = batch_size, both_strands, windows // rows
        self.first = batch_size * (dist.get_rank() if processes() > 1 else 0)  # of this process's rows
        self.sampler = EpochShuffle(self.stretches, seed)  # where Lightning looks for what to tell the epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Reading]]:
        order = list(self.sampler)
        chance = torch.rand(len(order), generator=self.sampler.generator)
        readings = [
            Reading(index, turned, place > 0)
            for which, turned in zip(order, (self.both_strands & (chance < 0.5)).tolist(), strict=True)
            for place, index in enumerate(self.stretches[which][:: -1 if turned else 1])
        ]
        for step in range(self.steps):
            row = readings[step :: self.steps][self.first : self.first + self.batch_size]
            yield [reading._replace(goes_on=reading.goes_on and step > 0) for reading in row]


def require_rows(windows: int, batch_size: int) -> None:
    """Refuse more rows, of all processes together, than there are windows to deal to them."""
    if windows < batch_size * processes():
        each = "" if processes() == 1 else f" in each of {processes()} processes"
        raise DataError(f"batch_size is {batch_size}{each}, but there are {windows} windows; make one smaller")


def stretches_of(ends: Sequence[tuple[object, int, int]], carry: int) -> list[range]:
    """Runs of at most `carry` windows each of which begins where the one before it ends.

    ends: of each window what it lies in, its begin and its end.
    """
    breaks = [i + 1 for i, (a, b) in enumerate(pairwise(ends)) if a[0] != b[0] or a[2] != b[1]]
    edges = [0, *breaks, len(ends)]
    return [range(a, min(a + carry, end)) for begin, end in pairwise(edges) for a in range(begin, end, carry)]
