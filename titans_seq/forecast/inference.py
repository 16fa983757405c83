"""What a network forecasts of many windows: points, and bounds of intervals.

W windows, H horizon, P levels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from titans_seq.blocks import ModelState
from titans_seq.datamodules.forecast.windows import Anchors, Windows, spread
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import on_device
from titans_seq.forecast.outputs import CountOutput, PointOutput, point, quantiles, within

EVAL_SAMPLES = 1024  # per step of prediction
MOST_CALIBRATED = 2_000_000  # steps of windows; more of them are thinned out evenly


@torch.inference_mode()
def forecasts(
    modules: Sequence[ForecastModule], windows: Windows, level: Sequence[float], state: ModelState | None = None
) -> tuple[Float[np.ndarray, "W H"], Float[np.ndarray, "W H P 2"]]:
    """Standardised point forecasts, and bounds of intervals; where the model learned no quantile so far out, its
    outermost ones.

    Args:
        modules: of the networks; of several the mean counts, of points and of bounds.
        windows: of one series each, or as many samples as there are.
        level: percentages of the intervals.
        state: of the memory before each window, where there is one network; None begins anew.
    """
    assert state is None or len(modules) == 1
    found = [_of_one(module, windows, level, state) for module in modules]
    points, bounds = zip(*found, strict=True)
    return np.mean(points, axis=0), np.mean(bounds, axis=0)


def _of_one(
    module: ForecastModule, windows: Windows, level: Sequence[float], state: ModelState | None
) -> tuple[Float[np.ndarray, "W H"], Float[np.ndarray, "W H P 2"]]:
    output = module.output
    sides = within(output, [side for p in level for side in (0.5 - p / 200, 0.5 + p / 200)])
    points, bounds = [], []
    each = max(1, EVAL_SAMPLES // windows.anchors.series.shape[1])
    for begin in range(0, len(windows), each):
        chosen = slice(begin, min(begin + each, len(windows)))
        batch = on_device(windows.__getitems__(range(chosen.start, chosen.stop)), module.network)
        found = module.forecast(batch, None if state is None else state.select(chosen))
        here = point(output, *found)
        points.append(here.double().cpu().numpy())
        if isinstance(output, PointOutput):
            bounds.append(np.repeat(points[-1][..., None], len(sides), axis=-1))
        elif sides:
            bounds.append(quantiles(output, *found, sides).double().cpu().numpy())
    together = np.concatenate(points)
    both = np.concatenate(bounds) if sides else np.empty((*together.shape, 0))
    if isinstance(output, CountOutput):
        together, both = windows.standardised(together), windows.standardised(both)
    return together, both.reshape(*together.shape, len(level), 2)


def thinned(windows: Windows, most: int = MOST_CALIBRATED) -> Windows:
    """Samples of one series each that have `most` steps together; fewer windows stay as they are.

    The windows are cut into equal parts in time, one window is drawn from each, and the series take turns.
    """
    series, samples = windows.anchors.series, max(1, most // windows.horizon)
    if series.size <= samples:
        return windows
    number, count = np.arange(samples), len(series)
    window = number * count // samples if samples >= count else spread(samples, count)
    channel = number % series.shape[1]
    return windows.at(Anchors(series[window, channel][:, None], windows.anchors.first[window]))
