"""Where the Triton kernels run: which machines, which cases, and which backend `auto` therefore takes.

Knows neither triton nor the kernels, so it also answers where triton cannot be installed.
"""

import importlib.util
import logging
import os
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.kernels.state import MemoryState

BACKENDS = ("auto", "reference", "chunked", "triton")
OLDEST = (8, 0)  # compute capability: bfloat16 and tf32 products
MOST_SLOTS = 64  # tokens of a chunk; more do not fit a program's registers

log = logging.getLogger("titans_seq")


class Machine(NamedTuple):
    """What decides whether kernels run. capability: of a CUDA device, else None."""

    device: str
    capability: tuple[int, int] | None
    installed: bool
    interpreted: bool
    rocm: bool = False

    def obstacle(self) -> str | None:
        """Why no kernel runs here, in a few words; None: they run."""
        if not self.installed:
            return "triton is not installed"
        if self.interpreted:
            return None
        if self.device != "cuda":
            return f"the tensors are on {self.device}, not on a CUDA device"
        if self.rocm:
            return "the kernels are for CUDA, not for ROCm"
        if self.capability is None or self.capability < OLDEST:
            return f"the GPU is older than compute capability {OLDEST[0]}.{OLDEST[1]}"
        return None


class Case(NamedTuple):
    """What is asked of the kernels. hidden: widths of the hidden layers."""

    dtype: torch.dtype
    hidden: tuple[int, ...]
    chunk_size: int

    @classmethod
    def of(cls, q: Tensor, state: MemoryState, chunk_size: int) -> "Case":
        return cls(q.dtype, tuple(w.shape[-2] for w in state.weights[:-1]), chunk_size)

    def obstacle(self, machine: Machine) -> str | None:
        """Why the kernels do not cover this case; None: they do."""
        if self.dtype == torch.float64 and not machine.interpreted:
            return "float64 tokens"
        if len(set(self.hidden)) > 1:
            return f"hidden layers of different widths {self.hidden}"
        if self.chunk_size > MOST_SLOTS:
            return f"chunk_size {self.chunk_size}, more than {MOST_SLOTS}"
        return None


@torch.compiler.assume_constant_result
def machine_of(device_type: str, index: int | None) -> Machine:
    """The machine behind a device."""
    cuda = device_type == "cuda" and torch.cuda.is_available()
    capability = torch.cuda.get_device_capability(index) if cuda else None
    installed = importlib.util.find_spec("triton") is not None
    interpreted = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")
    return Machine(device_type, capability, installed, interpreted, rocm=torch.version.hip is not None)


def resolve_backend(backend: str, machine: Machine, case: Case | None = None) -> str:
    """The backend that runs for `backend`: "auto" never raises, "triton" never falls back.

    Raises:
        ValueError: no such backend. RuntimeError: "triton" where it cannot run, or for a case that it does not cover.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "triton":
        obstacle = machine.obstacle()
        if obstacle is not None:
            raise RuntimeError(
                f'backend="triton" cannot run here: {obstacle}; backend="auto" takes the PyTorch form; '
                "TRITON_INTERPRET=1 in the environment runs the kernels slowly anywhere"
            )
        uncovered = case.obstacle(machine) if case else None
        if uncovered is not None:
            raise RuntimeError(f'backend="triton" does not cover {uncovered}; backend="auto" takes the PyTorch form')
        return "triton"
    if backend == "auto":
        obstacle = why_not_auto(machine, case)
        if obstacle is None:
            return "triton"
        if machine.device == "cuda" and not torch.compiler.is_compiling():  # a log line would break the graph
            _say_once(f"backend auto takes chunked, not triton: {obstacle}")
        return "chunked"
    return backend


def why_not_auto(machine: Machine, case: Case | None = None) -> str | None:
    """Why "auto" does not take the kernels; None: it does."""
    if machine.device != "cuda":  # the interpreter is for tests: slower than anything
        return "no CUDA device"
    if machine.interpreted:
        return "TRITON_INTERPRET is set, and the interpreter is slow"
    return machine.obstacle() or (case.obstacle(machine) if case else None)


@cache
def _say_once(message: str) -> None:
    log.info(message)
