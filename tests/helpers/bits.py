"""Single bits of files, turned over."""

import random
from collections.abc import Iterator
from pathlib import Path


def flips(path: Path, count: int, seed: int = 0) -> Iterator[int]:
    """Turn over one bit of a file at a time, at places drawn by the seed, and put it back; yields the place."""
    whole, draw = path.read_bytes(), random.Random(seed)
    for place in draw.sample(range(8 * len(whole)), count):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        yield place
    path.write_bytes(whole)
