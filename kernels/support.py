"""Where the compiled kernels run, Triton's and the native ones: which machines, which cases, and which backend `auto`
therefore takes.

Knows neither triton nor the kernels, so it also answers where triton cannot be installed.
"""

import importlib.util
import logging
import os
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from titans_seq.kernels.compiling import constant_result
from titans_seq.kernels.native_library import DEEPEST, library, obstacle
from titans_seq.kernels.state import MemoryState

BACKENDS = ("auto", "reference", "chunked", "native", "triton")
OLDEST = (8, 0)  # compute capability: bfloat16 and tf32 products
MOST_SLOTS = 64  # tokens of a chunk; more do not fit a program's registers

log = logging.getLogger("titans_seq")


class Machine(NamedTuple):
    """What decides whether kernels run. capability: of a CUDA device, else None. installed: triton is. built: the
    native kernels were, for this processor.
    """

    device: str
    capability: tuple[int, int] | None
    installed: bool
    interpreted: bool
    rocm: bool = False
    built: bool = False


class Case(NamedTuple):
    """What is asked of the kernels. hidden: widths of the hidden layers."""

    dtype: torch.dtype
    hidden: tuple[int, ...]
    chunk_size: int

    @classmethod
    def of(cls, q: Tensor, state: MemoryState, chunk_size: int) -> "Case":
        return cls(q.dtype, tuple(w.shape[-2] for w in state.weights[:-1]), chunk_size)


def triton_obstacle(machine: Machine) -> str | None:
    """Why no Triton kernel runs here, in a few words; None: they run."""
    if not machine.installed:
        return "triton is not installed"
    if machine.interpreted:
        return None
    if machine.device != "cuda":
        return f"the tensors are on {machine.device}, not on a CUDA device"
    if machine.rocm:
        return "the kernels are for CUDA, not for ROCm"
    if machine.capability is None or machine.capability < OLDEST:
        return f"the GPU is older than compute capability {OLDEST[0]}.{OLDEST[1]}"
    return None


def triton_gap(machine: Machine, case: Case) -> str | None:
    """What of this case the Triton kernels do not cover; None: they cover it."""
    if case.dtype == torch.float64 and not machine.interpreted:
        return "float64 tokens"
    if len(set(case.hidden)) > 1:
        return f"hidden layers of different widths {case.hidden}"
    if case.chunk_size > MOST_SLOTS:
        return f"chunk_size {case.chunk_size}, more than {MOST_SLOTS}"
    return None


def native_obstacle(machine: Machine) -> str | None:
    """Why no native kernel runs here; None: they run."""
    if machine.device != "cpu":
        return f"the tensors are on {machine.device}, not on the CPU"
    return None if machine.built else obstacle()


def native_gap(machine: Machine, case: Case) -> str | None:
    """What of this case the native kernels do not cover; None: they cover it."""
    if len(case.hidden) >= DEEPEST:
        return f"depth {len(case.hidden) + 1}, more than {DEEPEST}"
    return None


@cache
def _triton_is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def native_pass(backend: str, x: Tensor) -> bool:
    """Whether the passes over tokens around the memory (`native_convolution`, `native_norm`) run in C for x."""
    asked = backend in ("auto", "native") and x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return asked and _built()


@constant_result
def _built() -> bool:
    return library() is not None


@constant_result
def machine_of(device_type: str, index: int | None) -> Machine:
    """The machine behind a device."""
    cuda = device_type == "cuda" and torch.cuda.is_available()
    capability = torch.cuda.get_device_capability(index) if cuda else None
    installed = _triton_is_installed()
    interpreted = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")
    built = device_type == "cpu" and library() is not None
    return Machine(device_type, capability, installed, interpreted, torch.version.hip is not None, built)


def resolve_backend(backend: str, machine: Machine, case: Case | None = None) -> str:
    """The backend that runs for `backend`: "auto" never raises, "triton" and "native" never fall back.

    Raises:
        ValueError: no such backend. RuntimeError: "triton" or "native" where it cannot run, or for a case that it does
            not cover.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "auto":
        return _automatic(machine, case)
    if backend in _COMPILED:
        obstacle, gap, advice = _COMPILED[backend]
        why = obstacle(machine)
        if why is not None:
            raise RuntimeError(f'backend="{backend}" cannot run here: {why}; {advice}')
        uncovered = gap(machine, case) if case else None
        if uncovered is not None:
            raise RuntimeError(f'backend="{backend}" does not cover {uncovered}; backend="auto" takes what covers it')
    return backend


_AUTO = 'backend="auto" takes what runs here'
_COMPILED = {
    "triton": (
        triton_obstacle, triton_gap, f"{_AUTO}; TRITON_INTERPRET=1 in the environment runs the kernels slowly anywhere",
    ),
    "native": (native_obstacle, native_gap, _AUTO),
}  # fmt: skip


def _automatic(machine: Machine, case: Case | None) -> str:
    compiled = "native" if machine.device == "cpu" else "triton"
    why = why_not_auto(machine, case)
    if why is None:
        return compiled
    # a log line would break the graph
    if machine.device in ("cuda", "cpu") and not torch.compiler.is_compiling():
        slow = machine.device == "cpu" and not machine.built  # several times slower, for a reason outside of the call
        _say_once(f"backend auto takes chunked, not {compiled}: {why}", logging.WARNING if slow else logging.INFO)
    return "chunked"


def why_not_auto(machine: Machine, case: Case | None = None) -> str | None:
    """Why "auto" takes neither kernels; None: it takes those of the device."""
    if machine.device == "cpu":
        return native_obstacle(machine) or (native_gap(machine, case) if case else None)
    if machine.device != "cuda":
        return "no CUDA device"
    if machine.interpreted:
        return "TRITON_INTERPRET is set, and the interpreter is slow"
    return triton_obstacle(machine) or (triton_gap(machine, case) if case else None)


@cache
def _say_once(message: str, level: int) -> None:
    log.log(level, message)
