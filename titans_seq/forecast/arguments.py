"""The arguments of `TitansForecaster`: what they may be, and which are built into a fitted one."""

from typing import Any

import numpy as np
from gluonts.torch.distributions import Output

from titans_seq.datamodules.common.errors import at_least
from titans_seq.forecast.conformal import check_levels
from titans_seq.forecast.outputs import OUTPUTS, make_output, output_arguments, require_levels

# arguments that are whole numbers, and the least they may be
LEAST = {
    "horizon": 1, "lookback": 1, "val_size": 0, "val_windows": 1, "train_blocks": 1,
    "max_epochs": 1, "steps_per_epoch": 1, "patience": 1, "batch_size": 1, "seed": 0,
}  # fmt: skip
# arguments that are built into a fitted forecaster
BUILT = (
    "horizon", "lookback", "output", "conformal", "levels", "past_covariates", "future_covariates",
    "static_covariates", "calendar", "id_col", "time_col", "target_col", "mixer", "network", "train_blocks",
)  # fmt: skip


def check_arguments(forecaster: Any) -> None:
    """Raise a ValueError that names the first wrong argument of a `TitansForecaster`."""
    for name, least in LEAST.items():
        value = getattr(forecaster, name)
        if value is not None or name not in ("lookback", "val_size", "val_windows"):
            at_least(least, **{name: value})
    if forecaster.val_size is not None and 0 < forecaster.val_size < forecaster.horizon:
        raise ValueError(f"val_size must be 0 or at least the horizon {forecaster.horizon}; got {forecaster.val_size}")
    if forecaster.conformal and forecaster.val_size == 0:
        raise ValueError("conformal intervals are calibrated on validation rows: give val_size > 0 or conformal=False")
    for name in ("past_covariates", "future_covariates", "static_covariates"):
        if isinstance(getattr(forecaster, name), str):
            raise ValueError(f"{name} must be a list of columns; got {getattr(forecaster, name)!r}")
    for name in ("learning_rate", "weight_decay"):
        value = getattr(forecaster, name)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
            raise ValueError(f"{name} must be a number of at least 0; got {value!r}")
    for name, kind in (("calendar", bool), ("conformal", bool), ("progress", bool), ("alias", str)):
        value = getattr(forecaster, name)
        if not isinstance(value, kind) or value == "":
            words = "True or False" if kind is bool else "a name"
            raise ValueError(f"{name} must be {words}; got {value!r}")
    columns = forecaster.columns
    if forecaster.alias in (columns.id, columns.time, columns.target, "cutoff"):
        raise ValueError(
            f"alias names the column of the forecast, and another has that name already: {forecaster.alias!r}"
        )
    check_levels(forecaster.levels, "levels")
    output = known_output(forecaster.output)
    if forecaster.conformal:
        if not len(forecaster.levels):
            raise ValueError("levels must name an interval to calibrate, e.g. (80, 95), or give conformal=False")
        require_levels(output, forecaster.levels)
    require_levels(output, ())


def known_output(output: str | Output) -> Output:
    """The output, which must be one that a saved forecaster can name."""
    made = make_output(output)
    if type(made) not in OUTPUTS.values():
        raise ValueError(f"output must be a name or one of {', '.join(OUTPUTS)}; got {type(made).__name__}")
    return made


def architecture(forecaster: Any) -> dict[str, Any]:
    """The arguments that are built into a fitted forecaster, in a form that can be compared."""
    return {name: _plain(getattr(forecaster, name)) for name in BUILT}


def _plain(value: Any) -> Any:
    """For comparison: a list is as good as a tuple, an output as good as one with the same arguments."""
    if isinstance(value, Output):
        return type(value).__name__, output_arguments(value)
    return list(value) if isinstance(value, tuple | list | np.ndarray) else value
