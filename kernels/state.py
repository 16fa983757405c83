"""The state of the memory between calls.

Dimensions: B batch, H heads, L depth of the memory MLP; weights of layer l are [B, H, out, in].
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

Weights = tuple[Tensor, ...]


@dataclass(frozen=True)
class BatchState:
    """Base of the frozen dataclasses that carry what is known of B samples: tensors [B, ...], tuples of them, other
    states.
    """

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply `function` to every tensor of the state."""
        parts = {field.name: _mapped(getattr(self, field.name), function) for field in fields(self)}
        return replace(self, **parts)

    def tensors(self) -> list[Tensor]:
        """Every tensor of the state, in the order of `map`."""
        found: list[Tensor] = []

        def collect(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.map(collect)
        return found

    def detach(self) -> Self:
        """The same values, cut from the graph (truncated back-propagation)."""
        return self.map(Tensor.detach)

    def to(self, target: torch.device | str | torch.dtype) -> Self:
        """The state on another device, or its floating tensors in another dtype; integers stay integers."""
        return self.map(lambda tensor: move(tensor, target))

    def select(self, batch: Tensor | slice | int) -> Self:
        """The states of some samples, by index, slice, index tensor or boolean mask over B; B is kept as a
        dimension.
        """
        return self.map(lambda tensor: tensor[batch_index(batch, len(tensor))])


def _mapped(part: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(part, Tensor):
        return function(part)
    if isinstance(part, BatchState):
        return part.map(function)
    return tuple(_mapped(item, function) for item in part) if isinstance(part, tuple) else part


@dataclass(frozen=True)
class MemoryState(BatchState):
    """Weights `M`, momentum `S` and the place inside the current chunk, per sample and head.

    weights, momentum, chunk_start: L tensors [B, H, out, in], float32 or float64. `chunk_start` holds the weights at
        the start of the current chunk, where the inner gradient is taken; it equals `weights` when `position` is 0.
    position: int64 [B], real tokens already read in the current chunk, in [0, chunk_size).
    chunk_size: that of the calls that made the state; None before the first call, and then `position` is 0.
    """

    weights: Weights
    momentum: Weights
    chunk_start: Weights
    position: Tensor
    chunk_size: int | None = None

    @classmethod
    def from_weights(cls, weights: Weights) -> "MemoryState":
        """A fresh state: momentum zero, at the start of a chunk. `weights`: L tensors [B, H, out, in]."""
        weights = tuple(weights)
        if not weights or any(w.ndim != 4 for w in weights):
            raise ValueError(f"weights must be tensors [B, H, out, in]; got {[tuple(w.shape) for w in weights]}")
        position = torch.zeros(weights[0].shape[0], dtype=torch.int64, device=weights[0].device)
        return cls(weights, tuple(w.new_zeros(()).expand(w.shape) for w in weights), weights, position)

    @property
    def depth(self) -> int:
        return len(self.weights)


def batch_index(batch: Tensor | slice | int, size: int) -> Tensor | slice:
    """What picks samples out of `size` and keeps B as a dimension, also for a single one."""
    if isinstance(batch, (Tensor, slice)):
        return batch
    sample = whole_number("batch", batch, -size)
    if sample >= size:
        raise ValueError(f"batch must be in [{-size}, {size}); got {batch}")
    return slice(sample % size, sample % size + 1)


def whole_number(name: str, value: Any, least: int) -> int:
    """A Python int from any kind of whole number (NumPy's too), but no bool, at least `least`."""
    # torch.compile follows `isinstance`, but neither `hasattr` nor `operator.index` on the sizes that it leaves open
    is_int = isinstance(value, int | torch.SymInt)  # SymInt: what torch.export leaves open
    if isinstance(value, bool) or not (is_int or hasattr(value, "__index__")):
        raise ValueError(f"{name} must be a whole number; got {value!r}")
    number = value if is_int else operator.index(value)
    if number < least:
        raise ValueError(f"{name} must be >= {least}; got {number}")
    return number


def move(tensor: Tensor, target: torch.device | str | torch.dtype) -> Tensor:
    """`tensor.to(target)`, but an integer tensor keeps its dtype."""
    if isinstance(target, torch.dtype) and not target.is_floating_point:
        raise ValueError(f"the dtype of a state must be a floating one; got {target}")
    return tensor if isinstance(target, torch.dtype) and not tensor.is_floating_point() else tensor.to(target)
