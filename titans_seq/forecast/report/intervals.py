"""Intervals around forecasts of one value per step, by the errors of the validation windows: split conformal.

H horizon, C channels, P levels, W windows.
"""

import warnings

import numpy as np
from jaxtyping import Float

from titans_seq.forecast.conformal import Conformal

LEVELS = [80.0, 95.0]


def margins(errors: Float[np.ndarray, "W H C"]) -> Float[np.ndarray, "P H C"]:
    """Half widths at LEVELS of each step and channel, from the errors of the validation windows, NaN where missing.

    Infinite where there are too few; then, and where a channel has one margin for all steps, it is `Conformal` that
    decides.
    """
    channels = range(errors.shape[-1])
    with warnings.catch_warnings():
        # of infinite intervals, which the page tells of in its own words
        warnings.simplefilter("ignore", UserWarning)
        return np.stack([_of_channel(errors[..., channel]) for channel in channels], axis=-1)


def _of_channel(errors: Float[np.ndarray, "W H"]) -> Float[np.ndarray, "P H"]:
    # around errors the forecast is 0
    around = np.broadcast_to(np.zeros(()), (*errors.shape, len(LEVELS), 2))
    return Conformal.fit(errors, around, levels=LEVELS).margin
