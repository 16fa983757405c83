"""Windows read one after the other, so that a model can carry its state from each to the next while it is trained."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.utils.data import Dataset, Sampler

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.common.loaders import Batch, EpochShuffle, processes

Place = tuple[object, int, int]  # of a window: what it lies in, its begin and its end


class Reading(NamedTuple):
    """One window of one row of a batch.

    window: its number. turned: it is read on the other strand. carried: the row's state comes from the window before.
    """

    window: int
    turned: bool
    carried: bool


class StretchBatches(Sampler[list[Reading]]):
    """Batches of windows, in each row of which stretches of consecutive windows are read in order.

    The stretches come in an order that depends on seed and epoch only. They are laid end to end and cut into rows of
    one length, `batch_size` of them for each process. The remainder, fewer windows than there are rows, is left out;
    it is another one in each epoch.

    Args:
        places: Where each window lies, see `stretches_of`.
        carry: Number of windows in a stretch, at most.
        batch_size: Number of rows.
        both_strands: Turn stretches by chance: read them from the last window to the first, each on the other strand.
        seed: Of the order and of the strands.

    Raises:
        DataError: There are fewer windows than rows.
    """

    def __init__(self, places: Sequence[Place], *, carry: int, batch_size: int, both_strands: bool, seed: int) -> None:
        windows = len(places)
        require_rows(windows, batch_size)
        rows = batch_size * processes()
        self.stretches = stretches_of(places, carry)
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
            yield [reading._replace(carried=reading.carried and step > 0) for reading in row]


class StreamDataset(Dataset[Batch]):
    """The windows that a `StretchBatches` asks for, each with "carried".

    Args:
        windows: Windows by number.
        turn: Puts a window on the other strand; None: there is only one.
    """

    def __init__(self, windows: Dataset[Batch], turn: Callable[[Batch], Batch] | None = None) -> None:
        self.windows, self.turn = windows, turn

    def __len__(self) -> int:
        return len(self.windows)  # type: ignore[arg-type]  # ours have a length

    def __getitem__(self, reading: Reading) -> Batch:
        window = self.windows[reading.window]
        if reading.turned:
            assert self.turn is not None
            window = self.turn(window)
        return window | {"carried": torch.tensor(reading.carried)}


def require_rows(windows: int, batch_size: int) -> None:
    """Refuse more rows, of all processes together, than there are windows to deal to them."""
    if windows < batch_size * processes():
        each = "" if processes() == 1 else f" in each of {processes()} processes"
        raise DataError(f"batch_size is {batch_size}{each}, but there are {windows} windows; make one smaller")


def stretches_of(places: Sequence[Place], carry: int) -> list[range]:
    """Return runs of at most `carry` windows, each of which begins where the one before it ends."""
    breaks = [i + 1 for i, (a, b) in enumerate(pairwise(places)) if a[0] != b[0] or a[2] != b[1]]
    edges = [0, *breaks, len(places)]
    return [range(a, min(a + carry, end)) for begin, end in pairwise(edges) for a in range(begin, end, carry)]
