"""Where a series surprised the memory: the spans that stand out. T rows, C channels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage


@dataclass(frozen=True)
class Span:
    """Rows [begin, end) of a channel, and the greatest surprise in them."""

    channel: int
    begin: int
    end: int
    peak: float


def spans(surprise: Float[np.ndarray, "T C"], *, share: float = 0.01, join: int = 16) -> list[Span]:
    """Where the surprise is among the highest `share` of all rows and channels, the most surprising first.

    surprise: NaN where a shorter series has no row. join: spans with fewer rows than this between them are one.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1; got {share}")
    high = surprise > np.nanquantile(surprise, 1 - share)
    found = []
    for channel in range(surprise.shape[1]):
        # closing fills gaps of up to join - 1 rows; beyond the ends nothing is high
        padded = np.pad(high[:, channel], join)
        closed = ndimage.binary_closing(padded, structure=np.ones(join))[join:-join] | high[:, channel]
        labels, _ = ndimage.label(closed)
        for (rows,) in ndimage.find_objects(labels):
            found.append(Span(channel, rows.start, rows.stop, float(surprise[rows, channel].max())))
    return sorted(found, key=lambda span: -span.peak)
