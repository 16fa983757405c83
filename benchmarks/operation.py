"""The memory operation on a CPU, forward and backward: `native` beside `chunked`, in turn in one process.

    python benchmarks/operation.py [--threads 1 2] [--repeats 5] [--only NAME ...]

Columns: milliseconds of a forward and a backward pass (medians after one to warm up), how many times faster `native`
is, the products it needs (the forward's three times; what is made anew in backward does not count) as a share of the
machine's rate of batched products (8 x 64 x 64 x 256, measured around each row), and the most memory in use above that
before. Absolute times belong to one machine; compare the ratios.
"""

import argparse
import itertools
import statistics
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from arguments import positive
from memory import peak_mib, product_rate, seconds, show
from torch import Tensor

from titans_seq.kernels import MemoryState, neural_memory

BACKENDS = ("native", "chunked")
SHORTEST = 0.01  # seconds that are timed together, of calls shorter than that


class Shape(NamedTuple):
    """hidden: widths of the hidden layers."""

    batch: int
    heads: int
    width: int
    hidden: tuple[int, ...]
    chunk_size: int
    tokens: int

    @property
    def products(self) -> int:
        """Floating point operations that a forward pass needs, outside of chunks: keys there and back, two readings
        (weights and momentum), two updates; the first layer has no way back.
        """
        widths = (self.width, *self.hidden, self.width)
        layers = [a * b for a, b in itertools.pairwise(widths)]
        return 2 * self.batch * self.heads * self.tokens * (6 * sum(layers) - layers[0])


SHAPES = {
    "forecaster": Shape(448, 4, 8, (16,), 4, 16),
    "DNA classifier": Shape(64, 4, 16, (32,), 16, 300),
    "K 16, chunk 32": Shape(64, 4, 16, (32,), 32, 1024),
    "K 32, chunk 16": Shape(32, 4, 32, (64,), 16, 1024),
    "language, chunk 64": Shape(2, 4, 64, (256,), 64, 4096),
    "language, chunk 16": Shape(2, 4, 64, (256,), 16, 4096),
    "language, linear, chunk 64": Shape(2, 4, 64, (), 64, 4096),
    "language, linear, chunk 16": Shape(2, 4, 64, (), 16, 4096),
    "one sample, 16 tokens": Shape(1, 4, 8, (16,), 4, 16),
    "one sample, one token": Shape(1, 4, 8, (16,), 4, 1),
}


def arguments_of(shape: Shape) -> list[Tensor]:
    """Tokens as a layer gives them, gates at their start, weights; all want gradients."""
    random = torch.Generator().manual_seed(0)
    sizes = (shape.batch, shape.tokens, shape.heads, shape.width)
    q, k, v = (torch.randn(sizes, generator=random) for _ in range(3))
    gates = [torch.full(sizes[:3], value) for value in (1e-5, 0.8, 0.2 / shape.chunk_size)]
    widths = (shape.width, *shape.hidden, shape.width)
    weights = [
        torch.randn(shape.batch, shape.heads, out, inp, generator=random) * inp**-0.5
        for inp, out in itertools.pairwise(widths)
    ]
    tensors = [F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, *gates, *weights]
    return [x.requires_grad_() for x in tensors]


def both(tensors: list[Tensor], chunk_size: int, backend: str) -> None:
    """A forward and a backward pass."""
    state = MemoryState.from_weights(tuple(tensors[6:]))
    y = neural_memory(*tensors[:6], state, chunk_size=chunk_size, max_surprise=1.0, return_state=False, backend=backend)
    torch.autograd.grad(y, tensors, tensors[2])  # any gradient of y: v has its shape


def calls(count: int, *arguments: Any) -> None:
    for _ in range(count):
        both(*arguments)


def measure(name: str, shape: Shape, repeats: int) -> list[str]:
    tensors = arguments_of(shape)
    both(tensors, shape.chunk_size, "native")
    count = 1 + int(SHORTEST / seconds(both, tensors, shape.chunk_size, "native"))
    times: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    rates = [product_rate()]
    for repeat in range(repeats + 1):
        for backend in BACKENDS:
            took = seconds(calls, count, tensors, shape.chunk_size, backend) / count
            times[backend] += [took] if repeat else []
        rates.append(product_rate(50))
    native, chunked = (statistics.median(times[backend]) for backend in BACKENDS)
    share = 3 * shape.products / native / statistics.median(rates)
    peaks = [peak_mib(both, tensors, shape.chunk_size, backend) for backend in BACKENDS]
    return [
        name, f"{native * 1e3:.2f}", f"{chunked * 1e3:.1f}", f"{chunked / native:.1f}", f"{share:.0%}",
        *(f"{peak:.0f}" for peak in peaks),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="NAME")
    arguments = parser.parse_args()
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        print(f"\n{threads} threads, batched products: {product_rate() / 1e9:.0f} GFLOP/s\n")
        head = ["shape", "native ms", "chunked ms", "times faster", "needed", "native MiB", "chunked MiB"]
        show(head)
        show(["---"] * len(head))
        for name in arguments.only:
            show(measure(name, SHAPES[name], arguments.repeats))


if __name__ == "__main__":
    main()
