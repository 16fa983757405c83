"""What `gpu.py` checks: the memory on a device against the token-by-token recurrence in float64 on the CPU.

Few cases, each for several traps at once; tests/kernels/test_gpu.py has the same traps at small widths.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from titans_seq.kernels import MemoryState, neural_memory

TOKENS = ("q", "k", "v", "alpha", "eta", "theta")
# relative to the largest entry. float32: plain tf32 makes 1e-3; bfloat16: one rounding is 2^-9, and products of
# products pass several on (in Triton's interpreter no case comes to half of either)
LARGEST_ERROR = {torch.float32: 2e-5, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Case:
    """One call of the memory. positions: where samples stand in their chunks; None: fresh states, at a chunk's
    start.
    """

    name: str
    depth: int
    K: int
    V: int
    hidden: int
    chunk_size: int
    heads: int = 1
    tokens: int = 140
    max_surprise: float | None = 1.0
    positions: tuple[int, int] | None = None
    masked: bool = False
    gate_per: str = "token"

    def tiny(self) -> "Case":
        """The same traps in a size for Triton's interpreter."""
        positions = None if self.positions is None else (1, 3)
        return replace(
            self, K=min(self.K, 6), V=min(self.V, 5), hidden=7, chunk_size=4, heads=1, tokens=9, positions=positions
        )

    def widths(self) -> list[int]:
        return [self.K, *[self.hidden] * (self.depth - 1), self.V]

    def mask(self) -> Tensor | None:
        """Padding at the end of one sample, and gaps in the other."""
        if not self.masked:
            return None
        t = torch.arange(self.tokens)
        return torch.stack([t < self.tokens - 3, t % 5 != 1])

    def chunk(self) -> Tensor:
        """[B, T], the chunk each token falls in, counted from the one the call begins in."""
        mask = self.mask()
        count = torch.arange(1, self.tokens + 1).expand(2, -1) if mask is None else mask.cumsum(1)
        return (torch.tensor(self.positions or (0, 0))[:, None] + count - 1).clamp(0) // self.chunk_size


CASES = (
    Case("as timed", 2, 64, 64, 256, 64, heads=2),
    Case("as timed, linear", 1, 64, 64, 0, 64, heads=2),
    Case(
        "chunk 16, carried, masked, no clipping", 2, 64, 64, 128, 16, max_surprise=None, positions=(3, 11), masked=True
    ),
    Case(
        "two groups of chunks of 16, carried, no clipping",
        2,
        64,
        64,
        128,
        16,
        tokens=300,
        max_surprise=None,
        positions=(3, 11),
    ),
    Case(
        "linear, gates per chunk, carried, masked, no clipping",
        1,
        64,
        64,
        0,
        16,
        max_surprise=None,
        positions=(5, 15),
        masked=True,
        gate_per="chunk",
    ),
    Case("gates per chunk", 2, 64, 64, 128, 64, gate_per="chunk"),
    Case("K 128, carried", 2, 128, 128, 256, 64, positions=(1, 63)),
    Case("K 32, depth 3, masked", 3, 32, 32, 128, 64, masked=True),
    Case("depth 4, carried", 4, 64, 64, 128, 16, positions=(15, 1)),
    Case("odd widths, carried, masked", 2, 18, 20, 33, 20, heads=2, tokens=50, positions=(7, 19), masked=True),
)


@dataclass(frozen=True)
class Check:
    """A row per backend: its largest error, in which tensor, and whether that is within the bound."""

    case: Case
    dtype: torch.dtype
    device: str
    limit: float = 150

    @property
    def name(self) -> str:
        return f"check {self.case.name}, {_short(self.dtype)}"

    def run(self) -> list[dict[str, Any]]:
        torch.set_num_threads(2)  # many checks run side by side
        given = arguments(self.case, self.dtype)
        exact = results(self.case, given, "reference", "cpu", torch.float64)
        plain, _ = worst(results(self.case, given, "reference", "cpu", torch.float32), exact)
        return [self._row(backend, given, exact, plain) for backend in ("triton", "chunked")]

    def _row(self, backend: str, given: dict[str, Tensor], exact: dict[str, Tensor], plain: float) -> dict[str, Any]:
        start = time.perf_counter()
        error, where = worst(results(self.case, given, backend, self.device, self.dtype), exact)
        bound = max(LARGEST_ERROR[self.dtype], 2 * plain)
        return {
            "case": self.case.name,
            "dtype": _short(self.dtype),
            "backend": backend,
            "error": error,
            "where": where,
            "reference in float32": plain,
            "bound": bound,
            "right": error <= bound,
            "seconds": time.perf_counter() - start,
        }


def arguments(case: Case, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """What the call is given, by name, as a layer would make it: numbers of `dtype`, states of float32, in float64.

    Gates per chunk are [B, N, H].
    """
    g = torch.Generator().manual_seed(seed)
    size = (2, case.tokens, case.heads)
    gate_size = (2, int(case.chunk().max()) + 1, case.heads) if case.gate_per == "chunk" else size
    found = {name: F.normalize(torch.randn(*size, case.K, generator=g), dim=-1) for name in ("q", "k")}
    found["v"] = torch.randn(*size, case.V, generator=g)
    found["alpha"] = torch.rand(gate_size, generator=g) * 0.1
    found["eta"] = torch.rand(gate_size, generator=g) * 0.9
    found["theta"] = torch.rand(size, generator=g) * 2 / case.chunk_size
    found = {name: x.to(dtype) for name, x in found.items()}
    for l, (inp, out) in enumerate(pairwise(case.widths())):
        weights = torch.randn(2, case.heads, out, inp, generator=g) / inp**0.5
        found[f"weights[{l}]"] = weights
        found[f"momentum[{l}]"] = 0.1 * torch.randn(weights.shape, generator=g) / inp**0.5
        if case.positions:  # at a chunk's start these are the weights themselves
            found[f"chunk_start[{l}]"] = weights + 0.1 * torch.randn(weights.shape, generator=g) / inp**0.5
    return {name: x.double() for name, x in found.items()}


def results(case: Case, given: dict[str, Tensor], backend: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Everything the call gives, and the gradient of everything it is given, on the CPU in float64."""
    wide = torch.promote_types(dtype, torch.float32)
    leaves = {
        name: x.detach().clone().to(device, dtype if name in TOKENS else wide).requires_grad_()
        for name, x in given.items()
    }
    outputs = {name: x.to("cpu", torch.float64) for name, x in call(case, leaves, backend).items()}
    weighted = (x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x) for x in outputs.values())
    gradients = torch.autograd.grad(torch.stack([x.sum() for x in weighted]).sum(), list(leaves.values()))
    found = zip(leaves, gradients, strict=True)
    return outputs | {f"gradient of {name}": x.to("cpu", torch.float64) for name, x in found}


def call(case: Case, leaves: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """The memory on `leaves`, where they are."""
    device, mask = leaves["q"].device, case.mask()
    alpha, eta = leaves["alpha"], leaves["eta"]
    if case.gate_per == "chunk":
        at = case.chunk().to(device)[..., None].expand(-1, -1, case.heads)
        alpha, eta = alpha.gather(1, at), eta.gather(1, at)
    options: dict[str, Any] = {
        "chunk_size": case.chunk_size,
        "max_surprise": case.max_surprise,
        "gate_per": case.gate_per,
        "return_surprise": True,
        "mask": None if mask is None else mask.to(device),
        "backend": backend,
    }
    y, state, surprise = neural_memory(  # type: ignore[misc]  # three results, as asked
        leaves["q"], leaves["k"], leaves["v"], alpha, eta, leaves["theta"], _state(case, leaves), **options
    )
    return {"y": y, "surprise": surprise} | dict(_named(state))


def _state(case: Case, leaves: dict[str, Tensor]) -> MemoryState:
    weights, momentum = (tuple(leaves[f"{part}[{l}]"] for l in range(case.depth)) for part in ("weights", "momentum"))
    position = torch.tensor(case.positions or (0, 0), device=leaves["q"].device)
    if not case.positions:
        return MemoryState(weights, momentum, weights, position)
    start = tuple(leaves[f"chunk_start[{l}]"] for l in range(case.depth))
    return MemoryState(weights, momentum, start, position, case.chunk_size)


def _named(state: MemoryState) -> Iterator[tuple[str, Tensor]]:
    for part in ("weights", "momentum", "chunk_start"):
        yield from ((f"{part}[{l}] after", x) for l, x in enumerate(getattr(state, part)))


def worst(got: dict[str, Tensor], exact: dict[str, Tensor]) -> tuple[float, str]:
    """The largest error, relative to the largest entry of its tensor, and which tensor; NaN is infinitely wrong."""
    errors = {name: ((got[name] - x).abs().max() / x.abs().max().clamp_min(1e-30)).item() for name, x in exact.items()}
    errors = {name: math.inf if math.isnan(error) else error for name, error in errors.items()}
    where = max(errors, key=errors.__getitem__)
    return errors[where], where


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
