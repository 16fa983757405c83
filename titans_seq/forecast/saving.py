"""What a saved forecaster says of its output, and how what a file says wrongly is told."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gluonts.torch.distributions import Output
from torch import Tensor, nn

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


def joined_weights(networks: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The weights of one file: those of the first network by their names, of the others as `members.1.` and so on."""
    found = dict(networks[0].state_dict())
    for i, network in enumerate(networks[1:], start=1):
        found |= {f"members.{i}.{name}": value for name, value in network.state_dict().items()}
    return found


def split_weights(weights: dict[str, Tensor], members: Any) -> list[dict[str, Tensor]]:
    """What `joined_weights` joined.

    Raises:
        ValueError: there is not a part for each member.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        _, number, rest = name.split(".", 2) if name.startswith("members.") else ("", "0", name)
        parts.setdefault(number, {})[rest] = value
    if not isinstance(members, int) or list(map(str, range(len(parts)))) != sorted(parts, key=int):
        raise ValueError(f"members must count the networks; got {members!r}")
    if len(parts) != members:
        raise ValueError(f"there are weights of {len(parts)} networks, not of {members}")
    return [parts[str(i)] for i in range(members)]


def optional_text(saved: Any, name: str) -> str | None:
    """Text or nothing, as a file says.

    Raises:
        ValueError: it says something else.
    """
    if saved is not None and not isinstance(saved, str):
        raise ValueError(f"{name} must be text or absent; got {saved!r}")
    return saved


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
