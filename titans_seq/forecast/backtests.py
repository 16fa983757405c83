"""Forecasts of past cutoffs, as if each were now."""

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.parquet import Parts
from titans_seq.datamodules.forecast.weights import without_weight
from titans_seq.forecast.fitted import FittedForecaster


def backtest(
    panels: Sequence[Panel],
    fit: Callable[[Sequence[Panel]], FittedForecaster],
    *,
    horizon: int,
    windows: int = 1,
    step: int | None = None,
    refit: bool = False,
    level: Sequence[float] = (),
    weight: str | None = None,
) -> Iterator[pd.DataFrame]:
    """Forecast the last `windows` cutoffs of each series, and set them beside what came; one frame per cutoff.

    Args:
        panels: all rows.
        fit: trains a forecaster on the rows before a cutoff.
        horizon: steps to forecast.
        windows: how many cutoffs; the last window ends with the series.
        step: rows between cutoffs; None is the horizon.
        refit: whether to train before each cutoff, or before the first alone.
        level: percentages of intervals.
        weight: column of the panels that weights rows when a forecaster is trained.

    Raises:
        DataError: no series is long enough.
        ValueError: windows or step is below 1.
    """
    if windows < 1 or (step is not None and step < 1):
        raise ValueError(f"windows and step must be at least 1; got windows {windows}, step {step}")
    step = horizon if step is None else step
    cuts = [horizon + (windows - 1 - i) * step for i in range(windows)]
    longest = max(int(panel.lengths.max()) for panel in panels)
    if longest <= cuts[0]:
        raise DataError(
            f"no series is longer than the {cuts[0]} rows that {windows} windows of step {step} and horizon {horizon} "
            f"take; the longest has {longest}"
        )
    fitted = None
    for cut in cuts:
        if fitted is None or refit:
            fitted = fit(_until(panels, cut))
        long_enough = (without_weight(panel, weight) for panel in panels if (panel.lengths > cut).any())
        found = [fitted.backtest(panel, cut, level) for panel in long_enough]
        yield pd.concat(found, ignore_index=True)


def _until(panels: Sequence[Panel], steps: int) -> Sequence[Panel]:
    """The panels without the last `steps` rows of each series."""
    return panels.until(steps) if isinstance(panels, Parts) else [panel.until(steps) for panel in panels]
