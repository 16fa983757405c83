"""A model from the options and the weights that a file holds: compared before any memory is taken for it."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

LARGEST = 1_000_000  # of an option that is a size
_COUNTS = ("blocks", "layers", "depth")  # of parts that each have weights of their own

Model = TypeVar("Model", bound=nn.Module)


class UnfitWeightsError(ValueError):
    """The weights have other names or shapes than the model of the options."""


def build_with_weights(make: Callable[..., Model], options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Model:
    """Build `make(**options)` and load the weights, whose shapes are checked on the meta device first.

    Args:
        make: class of the model.
        options: its arguments, as they were read from a file.
        weights: its state dict, as it was read from a file.

    Returns:
        The model.

    Raises:
        UnfitWeightsError: the weights are not those of such a model, or not all finite.
        ValueError: an option is too large. What `make` raises at wrong options is passed on.
    """
    for name, value in options.items():
        most = len(weights) if name in _COUNTS else LARGEST  # many parts take long even on the meta device
        if isinstance(value, int) and value > most:
            raise ValueError(f"{name} must be at most {most:,}; got {value}")
    if not all(value.isfinite().all() for value in weights.values()):
        raise UnfitWeightsError("not all weights are finite")
    found = first_difference(build_on_meta(lambda: make(**options)), weights)
    if found is not None:
        raise UnfitWeightsError(f"the weights do not fit the model ({found})")
    model = make(**options)
    model.load_state_dict(weights)
    return model


def build_on_meta(make: Callable[[], Model]) -> Model:
    """Call `make` without allocating what it builds."""
    with torch.device("meta"):
        return make()


def first_difference(model: nn.Module, weights: Mapping[str, Any]) -> str | None:
    """Say which weight the model and a state dict do not agree on, e.g. `head.weight: 4 x 8, 4 x 9 in the checkpoint`.

    Args:
        model: may be on the meta device.
        weights: by name; values that are no tensors agree with nothing.

    Returns:
        The first difference in one line, or None.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    held = {name: tuple(getattr(value, "shape", ())) for name, value in weights.items()}
    differ = next((name for name in {**wanted, **held} if wanted.get(name) != held.get(name)), None)
    return differ and f"{differ}: {_written(wanted.get(differ))}, {_written(held.get(differ))} in the checkpoint"


def _written(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else " x ".join(map(str, shape)) or "one number"
