"""Marks for torch.compile. PyTorch's own import its compiler, which takes as long as all of PyTorch."""

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable)


def constant_result(function: Function) -> Function:
    """Mark a function whose result is a constant of compiled code, as `torch.compiler.assume_constant_result` does."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
