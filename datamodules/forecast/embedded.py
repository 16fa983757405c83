"""The default series, made on the spot: nothing to download, and a forecast that needs a memory.

Every channel is a chain of sessions of 192 rows. In the first 96, three motifs are shown once each, every one announced
by a cue of its own, in new random shapes; then, after a pause, one of the three cues comes back alone. In the last 96
rows the motif it announced returns, three times. Nothing but the session itself tells which motif follows which cue, so
a model that cannot look it up can at best forecast the mean of the three.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from titans_seq.datamodules.forecast.panel import Columns, Panel, from_columns

SESSIONS, CHANNELS = 400, 16
SHOWN, ANSWERED = 96, 96  # rows of a session before and after the point of forecast
STRIDE, ORIGIN = SHOWN + ANSWERED, SHOWN  # windows whose first target row is ORIGIN, ORIGIN + STRIDE, ... are used
CUE, MOTIF, ITEMS = 8, 16, 3
RETURNS = (0, 32, 64)  # rows after the point of forecast where the motif begins
KNOTS = 4  # random heights of a shape, joined by straight lines
NOISE = 0.1  # standard deviation; that of a shape is about 0.85


def embedded_series(seed: int = 0) -> Panel:
    """Return the seeded panel: 16 channels of 76,800 hourly rows; see STRIDE and ORIGIN for its windows."""
    rng = np.random.default_rng(seed)
    cues = _shapes(rng, (SESSIONS, CHANNELS, ITEMS), CUE)
    motifs = _shapes(rng, (SESSIONS, CHANNELS, ITEMS), MOTIF)
    asked = rng.integers(0, ITEMS, size=(SESSIONS, CHANNELS, 1, 1))
    sessions = NOISE * rng.standard_normal((SESSIONS, CHANNELS, SHOWN + ANSWERED))
    for item in range(ITEMS):
        begin = item * (CUE + MOTIF)
        sessions[..., begin : begin + CUE] += cues[:, :, item]
        sessions[..., begin + CUE : begin + CUE + MOTIF] += motifs[:, :, item]
    sessions[..., SHOWN - CUE : SHOWN] += np.take_along_axis(cues, asked, axis=2)[:, :, 0]
    for begin in RETURNS:
        answer = sessions[..., SHOWN + begin : SHOWN + begin + MOTIF]
        answer += np.take_along_axis(motifs, asked, axis=2)[:, :, 0]
    values = sessions.transpose(1, 0, 2).reshape(CHANNELS, -1)
    names = [f"channel_{channel:02d}" for channel in range(CHANNELS)]
    dates = pd.date_range("2020-01-01", periods=values.shape[1], freq="h")
    return from_columns(dates, values, names, Columns(time="date"), pd.offsets.Hour())


def _shapes(rng: np.random.Generator, count: tuple[int, ...], length: int) -> NDArray[np.float64]:
    """Random shapes [*count, length]: straight lines between KNOTS normal heights."""
    heights = rng.standard_normal((*count, KNOTS))
    place = np.linspace(0, KNOTS - 1, length)
    left = np.minimum(place.astype(int), KNOTS - 2)
    share = place - left
    return heights[..., left] * (1 - share) + heights[..., left + 1] * share
