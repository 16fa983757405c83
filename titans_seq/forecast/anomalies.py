"""Where a series surprised the memory: the scores of all its rows, and the spans that stand out.

T rows, C channels, L lookback.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from titans_seq.forecast.simba import SimbaForecaster


@dataclass(frozen=True)
class Span:
    """Rows [begin, end) of a channel, and the greatest surprise in them."""

    channel: int
    begin: int
    end: int
    peak: float


@torch.inference_mode()
def surprise_of_values(network: SimbaForecaster, values: Float[Tensor, "T C"]) -> Float[np.ndarray, "T C"]:
    """How much each row surprised a memory that reads the series from the first row on, in blocks of L.

    The rows after the last full block are read in the block that ends with the last row, from the state before it.

    Raises:
        ValueError: fewer than L rows, or a forecaster without a memory.
    """
    length = network.lookback
    if len(values) < length:
        raise ValueError(f"values must have at least {length} rows; got {len(values)}")
    values = values.to(next(network.parameters()).device)
    before = states = None
    found = []
    for begin in range(0, len(values) - length + 1, length):
        before = states
        surprise, states = network.read(values[None, begin : begin + length], states)
        found.append(surprise[0])
    rest = len(values) % length
    if rest:
        found.append(network.read(values[None, -length:], before)[0][0, -rest:])
    return torch.cat(found).double().cpu().numpy()


def spans(surprise: Float[np.ndarray, "T C"], *, share: float = 0.01, join: int = 16) -> list[Span]:
    """Where the surprise is among the highest `share` of all rows and channels, the most surprising first.

    join: spans with fewer rows than this between them are one.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1; got {share}")
    high = surprise > np.quantile(surprise, 1 - share)
    found = []
    for channel in range(surprise.shape[1]):
        # closing fills gaps of up to join - 1 rows; beyond the ends nothing is high
        padded = np.pad(high[:, channel], join)
        closed = ndimage.binary_closing(padded, structure=np.ones(join))[join:-join] | high[:, channel]
        labels, _ = ndimage.label(closed)
        for (rows,) in ndimage.find_objects(labels):
            found.append(Span(channel, rows.start, rows.stop, float(surprise[rows, channel].max())))
    return sorted(found, key=lambda span: -span.peak)
