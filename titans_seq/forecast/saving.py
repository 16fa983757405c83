"""What a saved forecaster says of its output, and how what a file says wrongly is told."""

from typing import Any

import numpy as np
from gluonts.torch.distributions import Output

from titans_seq.forecast.outputs import OUTPUTS, output_arguments

# what building from values of wrong types, names or sizes raises
WRONG = (KeyError, TypeError, IndexError, ValueError, RuntimeError, AttributeError, OverflowError, AssertionError)


def plain_output(output: str | Output) -> Any:
    """An output as JSON holds it: its name, or the name of its class and plain arguments."""
    if isinstance(output, str):
        return output
    return {"class": type(output).__name__, "arguments": output_arguments(output)}


def output_of(saved: Any) -> str | Output:
    """What `plain_output` was given: nothing a file says is imported."""
    if not isinstance(saved, dict):
        return saved
    if saved.get("class") not in OUTPUTS:
        raise ValueError(f"the forecaster's output {saved.get('class')!r} is none of {', '.join(OUTPUTS)}")
    try:
        return OUTPUTS[saved["class"]](**saved["arguments"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"the forecaster's output has wrong arguments: {' '.join(str(error).split())}") from None


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def require_rows(ids: Any, arrays: dict[str, np.ndarray]) -> None:
    """The arrays must have one entry per row, and rows for every series."""
    if not all(isinstance(name, str | int | float) for name in ids):
        raise ValueError("ids must be texts or numbers")
    times, offsets = arrays["times"], arrays["offsets"]
    rising = offsets.dtype == times.dtype == np.int64 and offsets.shape == (len(ids) + 1,) and times.ndim == 1
    if not rising or offsets[0] != 0 or offsets[-1] != len(times) or (np.diff(offsets) < 1).any():
        raise ValueError("the rows are not those of the series")
    for name in ("target", "past_covariates", "future_covariates"):
        if len(arrays[name]) != len(times):
            raise ValueError(f"{name} has {len(arrays[name])} rows; there are {len(times)} times")
