"""What `gpu.py` times: one memory operation (not the layer) beside its rivals, its kernels one by one, the chip's own
rates.

The code runs on a CPU too, in Triton's interpreter, to show that it runs; its times then mean nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from stopwatch import launched, measured
from torch import Tensor

from titans_seq.kernels import MemoryState, neural_memory
from titans_seq.kernels.chunked import chunked_memory

ATTENTION, COMPILED = "SDPA attention", "chunked, compiled"
CONTENDERS = ("triton", "chunked", ATTENTION, COMPILED)  # by worth: compiling may take minutes
MAX_SURPRISE = 1.0


@dataclass(frozen=True)
class Shape:
    """One memory operation; expansion: hidden width over key width."""

    tokens: int
    depth: int
    batch: int
    heads: int
    width: int
    expansion: int
    chunk_size: int

    def widths(self) -> list[int]:
        return [self.width, *[self.expansion * self.width] * (self.depth - 1), self.width]

    def numbers(self) -> tuple[int, int, int]:
        """P, in the weights of one head; P_1, in its first layer; sum(in + out) over its layers."""
        layers = list(pairwise(self.widths()))
        return sum(a * b for a, b in layers), layers[0][0] * layers[0][1], sum(a + b for a, b in layers)

    def plan(self) -> dict[str, tuple[float, float]]:
        """By kernel, per chunk and head: operations, and bytes of state loaded and stored.

        As the heads of `triton_forward.py` and `triton_backward.py` count them; the bytes of `walk_backward` are those
        of its code. State is float32, and most of it comes from the L2 cache.
        """
        (P, P_1, sides), C = self.numbers(), self.chunk_size
        return {
            "walk": (10 * C * P + 2 * C * (P - P_1) + 2 * C * C * sides, 4 * (6 * P - P_1)),
            "read_backward": (8 * C * P + 4 * C * C * sides, 4 * 4 * P),
            "walk_backward": (12 * C * P + 4 * C * (P - P_1), 4 * (14 * P - P_1)),
        }

    def operations(self, *, backward: bool) -> float:
        """Multiplications and additions of the products that are needed; nothing made anew is counted."""
        forward = self.plan()["walk"][0]
        return self.batch * self.heads * self.tokens / self.chunk_size * forward * (3 if backward else 1)

    def bytes(self, dtype: torch.dtype, *, backward: bool) -> float:
        """Of what must be read and written once: tokens, gates, outputs, and backward their gradients as well."""
        forward = 4 * self.width * dtype.itemsize + 4 * dtype.itemsize
        return self.batch * self.heads * self.tokens * forward * (2 if backward else 1)


def inputs(shape: Shape, dtype: torch.dtype, device: str, seed: int = 0) -> list[Tensor]:
    """q, k, v, alpha, eta, theta and weights, as a layer would make them; leaves that want gradients."""
    g = torch.Generator(device).manual_seed(seed)
    size = (shape.batch, shape.tokens, shape.heads)
    q, k = (
        F.normalize(torch.randn(*size, shape.width, generator=g, device=device, dtype=dtype), dim=-1) for _ in range(2)
    )
    v = torch.randn(*size, shape.width, generator=g, device=device, dtype=dtype)
    tops = (0.1, 0.9, 2 / shape.chunk_size)
    gates = [torch.rand(*size, generator=g, device=device, dtype=dtype) * top for top in tops]
    weights = [
        torch.randn(shape.batch, shape.heads, out, inp, generator=g, device=device) / inp**0.5
        for inp, out in pairwise(shape.widths())
    ]
    return [x.requires_grad_() for x in (q, k, v, *gates, *weights)]


def contender(what: str, leaves: list[Tensor], shape: Shape) -> Callable[[], Tensor]:
    """What runs forward and returns what backward starts from."""
    state = MemoryState.from_weights(tuple(leaves[6:]))
    if what == ATTENTION:
        q, k, v = (x.transpose(1, 2) for x in leaves[:3])
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    if what == COMPILED:
        compiled, rest = _compiled(leaves[0].device.type), (state, shape.chunk_size, MAX_SURPRISE, None, "token")
        return lambda: compiled(*(x.float() for x in leaves[:6]), *rest)[0]
    options: dict[str, Any] = {"chunk_size": shape.chunk_size, "max_surprise": MAX_SURPRISE, "backend": what}
    return lambda: neural_memory(*leaves[:6], state, **options)[0]  # type: ignore[call-arg, arg-type]  # six, then the state


def _compiled(device: str) -> Callable[..., Any]:
    """The forward of `chunked_memory`, which `neural_memory` keeps from being traced; lengths are not compiled in.

    It comes in fragments (it writes into parts of tensors). Autograd calls the backward, which stays as it is.
    """
    torch._dynamo.config.recompile_limit = 64  # fragments see several depths; past the limit they would not be compiled
    return torch.compile(chunked_memory, dynamic=True, backend="inductor" if device == "cuda" else "eager")


def run(forward: Callable[[], Tensor], leaves: list[Tensor], *, backward: bool) -> None:
    with torch.set_grad_enabled(backward):
        y = forward()
    if backward:
        torch.autograd.grad(y.float().sum(), leaves, allow_unused=True)


@dataclass(frozen=True)
class Timing:
    """A row per direction: median seconds, and peak MiB above the inputs. Attention has depth 0."""

    shape: Shape
    what: str
    dtype: torch.dtype
    device: str
    seconds: float  # measured for about this long
    limit: float

    @property
    def name(self) -> str:
        depth = "" if self.what == ATTENTION else f", depth {self.shape.depth}"
        return f"{self.what}{depth}, {self.shape.tokens} tokens"

    def run(self) -> list[dict[str, Any]]:
        leaves = inputs(self.shape, self.dtype, self.device)
        forward = contender(self.what, leaves, self.shape)
        return [self._row(forward, leaves, backward) for backward in (False, True)]

    def _row(self, forward: Callable[[], Tensor], leaves: list[Tensor], backward: bool) -> dict[str, Any]:
        row = {**vars(self.shape), "what": self.what, "backward": backward}
        if self.what == ATTENTION:
            row["depth"] = 0
        try:
            found = measured(partial(run, forward, leaves, backward=backward), self.device, self.seconds)
        except torch.OutOfMemoryError:
            return row | {"failed": "out of memory"}
        if self.what != ATTENTION:
            row["operations"] = self.shape.operations(backward=backward)
            row["bytes"] = self.shape.bytes(self.dtype, backward=backward)
        return row | found | {"tokens_per_s": self.shape.batch * self.shape.tokens / found["seconds"]}


@dataclass(frozen=True)
class Warming:
    """Fills the compiler's cache on disk for a `Timing` of the same contender, side by side with other work."""

    timing: Timing
    limit: float = 150  # what is not done by then is compiled while it is timed

    @property
    def name(self) -> str:
        return f"compiling {self.timing.what}, depth {self.timing.shape.depth}"

    def run(self) -> list[dict[str, Any]]:
        leaves = inputs(self.timing.shape, self.timing.dtype, self.timing.device)
        forward, start = contender(self.timing.what, leaves, self.timing.shape), time.perf_counter()
        for backward in (False, True):
            run(forward, leaves, backward=backward)
        return [{"what": self.name, "seconds": time.perf_counter() - start}]


@dataclass(frozen=True)
class Rates:
    """The floors: bytes per second of a copy, read and written, and operations per second of a large matrix product."""

    dtype: torch.dtype
    device: str
    side: int = 8192
    limit: float = 60
    name: str = "the chip's own rates"

    def run(self) -> list[dict[str, Any]]:
        big = torch.ones(4 * self.side**2, device=self.device)
        copy = measured(big.clone, self.device, 0.2)["seconds"]
        a, b = (torch.randn(self.side, self.side, device=self.device, dtype=self.dtype) for _ in range(2))
        matmul = measured(lambda: a @ b, self.device, 0.2)["seconds"]
        return [{"bytes_per_s": 2 * big.numel() * 4 / copy, "operations_per_s": 2 * self.side**3 / matmul}]


@dataclass(frozen=True)
class Kernels:
    """A row per kernel of a forward and backward pass, those made anew included, and one for all that is beside
    them.
    """

    shape: Shape
    dtype: torch.dtype
    device: str
    seconds: float
    limit: float = 60

    @property
    def name(self) -> str:
        return f"kernels, depth {self.shape.depth}, {self.shape.tokens} tokens"

    def run(self) -> list[dict[str, Any]]:
        leaves = inputs(self.shape, self.dtype, self.device)
        both = partial(run, contender("triton", leaves, self.shape), leaves, backward=True)
        whole = measured(both, self.device, self.seconds)["seconds"]
        rows, plan, row = [], self.shape.plan(), {**vars(self.shape)}
        for name, (seconds, launches, items) in launched(both, self.device).items():
            found = {"kernel": name, "launches": launches, "seconds": seconds}
            if name in plan:
                operations, state = plan[name]
                found |= {"operations": operations * items, "bytes": state * items}
            rows.append(row | found)
        return [*rows, row | {"kernel": "all else", "seconds": whole - sum(r["seconds"] for r in rows)}]
