"""Run by test_compile.py, without Triton's interpreter: prints what the launchers ask Triton to compile, and where it
differs.

Triton is told that there is a GPU of compute capability 9.0; each launch stops before it compiles anything.
"""

import sys
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from compile import EXPANSION, KERNELS, WIDTH, Binary

from titans_seq.kernels.fused import fused_memory
from titans_seq.kernels.state import MemoryState

Asked = tuple[Any, Any, Any]  # signature, constants, options
ARCH = 90


class Chip:
    """As much of a driver as a launch asks before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", ARCH, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def launched(depth: int, chunk_size: int, dtype: torch.dtype) -> list[tuple[str, Asked]]:
    """Names of the kernels of one call and its backward, in order, with what Triton is to compile."""
    asked: list[tuple[str, Asked]] = []

    def instead(
        self: JITFunction, key: Any, signature: Any, device: Any, constants: Any, options: Any, *_: Any
    ) -> None:
        asked.append((self.__name__, (signature, constants, options)))

    JITFunction._do_compile = instead
    shape = (1, 2 * chunk_size, 2, WIDTH)
    q, k, v = (torch.zeros(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    alpha, eta, theta = (torch.zeros(shape[:3]) for _ in range(3))
    widths = [WIDTH, *[WIDTH * EXPANSION] * (depth - 1), WIDTH]
    weights = tuple(torch.zeros(1, 2, out, into) for into, out in pairwise(widths))
    state = MemoryState.from_weights(weights)
    y, _, _ = fused_memory(q, k, v, alpha, eta, theta, state, chunk_size, 1.0, None, "token")
    y.sum().backward()
    return asked


def compare(depth: int, chunk_size: int, precision: str) -> None:
    asked = launched(depth, chunk_size, torch.bfloat16 if precision == "bf16" else torch.float32)
    for (name, (signature, constants, options)), kernel in zip(asked, KERNELS, strict=True):
        binary = Binary(ARCH, kernel, depth, chunk_size, precision)
        source, launch = binary.source()
        assert name == source.fn.__name__, (binary, name)
        assert signature == source.signature, (binary, signature, source.signature)
        assert constants == source.constants, (binary, constants, source.constants)
        assert {option: getattr(options, option) for option in launch} == launch, (binary, options, launch)
        print(binary)


def main() -> None:
    triton.runtime.driver.set_active(Chip())
    for case in product((1, 2), (16, 64), ("tf32x3", "bf16")):
        compare(*case)


if __name__ == "__main__":
    main()
