"""Which windows of a GluonTS dataset are trained on, and in which order, by random numbers of their own."""

from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import numpy as np
from gluonts.transform import ExpectedNumInstanceSampler


class SeededSampler(ExpectedNumInstanceSampler):
    """GluonTS's sampler, whose draws depend on the seed and the number of series seen only."""

    seed: int

    def __call__(self, ts: np.ndarray) -> np.ndarray:
        first, last = self._get_bounds(ts)
        places = last - first + 1
        if places <= 0:
            return np.array([], dtype=int)
        self.n += 1
        self.total_length += places
        drawn = np.random.default_rng([self.seed, self.n]).random(places)
        return first + np.flatnonzero(drawn < self.num_instances * self.n / self.total_length)


class Shuffled:
    """GluonTS's `PseudoShuffled` by a generator of its own."""

    def __init__(self, instances: Iterable[Any], length: int, seed: int) -> None:
        self.instances, self.length, self.random = instances, length, Random(seed)

    def __iter__(self) -> Iterator[Any]:
        held: list[Any] = []
        for instance in self.instances:
            held.append(instance)
            if len(held) >= self.length:
                yield held.pop(self.random.randrange(len(held)))
        self.random.shuffle(held)
        yield from held
