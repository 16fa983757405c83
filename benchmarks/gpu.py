"""The memory on a GPU: every backend against float64, then speed and memory from 1K to 128K tokens.

    python benchmarks/gpu.py [--check-only] [--lengths 1024 ... 131072] [--depths 1 2] [--dtype float32] [--output runs/gpu]

Checks first: outputs, states, surprise and all gradients of `triton` and `chunked` against `reference` in float64,
beside the error that `reference` makes in float32; a failure ends the run. Fresh states without masks only. Then times
(CUDA events, warm-up, medians) forward and forward + backward of one memory operation (not the layer) against `chunked`,
`chunked` under torch.compile (up to --compile-limit tokens; graph breaks leave it in fragments) and causal SDPA attention,
with the chip's own bandwidth and matrix-product rate measured in the same run. Writes gpu.json and gpu.png to the output
folder.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
import torch.nn.functional as F
from arguments import positive
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from titans_seq.kernels import MemoryState, machine_of, neural_memory, resolve_backend
from titans_seq.kernels.chunked import chunked_memory

mpl.use("Agg")
from matplotlib import pyplot as plt

# one rounding of bfloat16 is 2^-9, and products of products pass several on
LARGEST_ERROR = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Shape:
    """One memory operation."""

    batch: int
    tokens: int
    heads: int
    width: int
    depth: int
    expansion: int
    chunk_size: int

    def widths(self) -> list[int]:
        return [self.width, *[self.expansion * self.width] * (self.depth - 1), self.width]

    def operations(self, *, backward: bool) -> float:
        """Multiplications and additions of the products that are needed; nothing made anew is counted."""
        widths, C = self.widths(), self.chunk_size
        pairs = list(pairwise(widths))
        numbers = sum(a * b for a, b in pairs)
        after_first = numbers - pairs[0][0] * pairs[0][1]
        squares = 2 * C * sum(a + b for a, b in pairs)  # overlap with the inputs, attention to the deltas
        keys, update, reading = 2 * numbers + 2 * after_first, 4 * numbers, 4 * numbers + squares
        forward = keys + update + reading
        return self.batch * self.heads * self.tokens * forward * (3 if backward else 1)


def inputs(shape: Shape, dtype: torch.dtype, device: str, seed: int = 0) -> list[Tensor]:
    """q, k, v, alpha, eta, theta and weights, as a layer would make them; leaves that want gradients."""
    g = torch.Generator().manual_seed(seed)
    size = (shape.batch, shape.tokens, shape.heads)
    q, k = (F.normalize(torch.randn(*size, shape.width, generator=g), dim=-1) for _ in range(2))
    v = torch.randn(*size, shape.width, generator=g)
    alpha, eta, theta = (torch.rand(*size, generator=g) * top for top in (0.1, 0.9, 4 / shape.chunk_size))
    widths = shape.widths()
    weights = [
        (torch.randn(shape.batch, shape.heads, out, inp, generator=g) / inp**0.5) for inp, out in pairwise(widths)
    ]
    tokens = [x.to(device, dtype) for x in (q, k, v, alpha, eta, theta)]
    wide = torch.promote_types(dtype, torch.float32)
    return [x.requires_grad_() for x in (*tokens, *(w.to(device, wide) for w in weights))]


def memory(leaves: list[Tensor], chunk_size: int, backend: str) -> tuple[Tensor, ...]:
    state = MemoryState.from_weights(tuple(leaves[6:]))
    y, state, surprise = neural_memory(
        *leaves[:6], state, chunk_size=chunk_size, max_surprise=1.0, return_surprise=True, backend=backend
    )
    return y, surprise, *state.weights, *state.momentum


def results(leaves: list[Tensor], chunk_size: int, backend: str) -> list[Tensor]:
    """Everything the operation gives, and the gradient of everything it is given, in float64."""
    outputs = memory(leaves, chunk_size, backend)
    total = sum((x * torch.linspace(-1, 1, x.numel(), device=x.device).view_as(x)).sum() for x in outputs)
    return [x.double() for x in (*outputs, *torch.autograd.grad(total, leaves))]


def worst(got: list[Tensor], exact: list[Tensor]) -> float:
    """The largest error, relative to the largest entry of each tensor."""
    errors = [((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item() for a, b in zip(got, exact, strict=True)]
    return math.inf if any(math.isnan(error) for error in errors) else max(errors)


def check(shapes: list[Shape], dtypes: list[torch.dtype], device: str) -> Iterator[dict[str, Any]]:
    """One row per shape, dtype and backend."""
    for shape, dtype in track(list(product(shapes, dtypes)), "checking"):
        leaves = inputs(shape, dtype, device)
        exact = results([x.detach().double().requires_grad_() for x in leaves], shape.chunk_size, "reference")
        plain = worst(
            results([x.detach().float().requires_grad_() for x in leaves], shape.chunk_size, "reference"), exact
        )
        for backend in ("triton", "chunked"):
            error = worst(results(leaves, shape.chunk_size, backend), exact)
            bound = max(LARGEST_ERROR[dtype], 2 * plain)
            yield {
                **vars(shape), "dtype": str(dtype), "backend": backend, "error": error, "float32 reference": plain,
                "right": error <= bound,
            }  # fmt: skip


def measured(function: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds (CUDA events, after warm-up) and peak MiB above what was there."""
    import triton.testing

    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20  # outside of do_bench, which holds a buffer of its own
    return triton.testing.do_bench(function, warmup=200, rep=1000, return_mode="median") / 1e3, peak


def contenders(leaves: list[Tensor], shape: Shape, compile_limit: int) -> dict[str, Callable[[], Tensor]]:
    """What runs forward, by name; each returns what backward starts from."""
    q, k, v = (x.transpose(1, 2) for x in leaves[:3])
    found: dict[str, Callable[[], Tensor]] = {
        backend: lambda backend=backend: memory(leaves, shape.chunk_size, backend)[0]
        for backend in ("triton", "chunked")
    }
    if shape.tokens <= compile_limit:
        compiled = torch.compile(chunked_memory)  # neural_memory keeps it from being traced
        state = MemoryState.from_weights(tuple(leaves[6:]))
        tokens = [x.float() for x in leaves[:6]]
        found["chunked, compiled"] = lambda: compiled(*tokens, state, shape.chunk_size, 1.0, None, "token")[0]
    found["SDPA attention"] = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return found


def floors(dtype: torch.dtype) -> dict[str, float]:
    """Bytes per second of a copy, and operations per second of a large product in float32's precision or bfloat16."""
    big = torch.empty(2**28, device="cuda")
    seconds, _ = measured(lambda: big.clone())
    a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    product_seconds, _ = measured(lambda: a @ a)
    return {"bytes_per_s": 2 * big.numel() * 4 / seconds, "operations_per_s": 2 * 8192**3 / product_seconds}


def time_all(shapes: list[Shape], dtype: torch.dtype, rate: float, compile_limit: int) -> Iterator[dict[str, Any]]:
    for shape in track(shapes, "timing"):
        leaves = inputs(shape, dtype, "cuda")
        for name, forward in contenders(leaves, shape, compile_limit).items():
            for backward in (False, True):

                def run(
                    forward: Callable[[], Tensor] = forward, backward: bool = backward, leaves: list[Tensor] = leaves
                ) -> None:
                    with torch.set_grad_enabled(backward):
                        y = forward()
                    if backward:
                        torch.autograd.grad(y.float().sum(), leaves, allow_unused=True)

                row = {**vars(shape), "what": name, "backward": backward}
                try:
                    seconds, mebibytes = measured(run)
                except torch.OutOfMemoryError:
                    yield row | {"failed": "out of memory"}
                    continue
                share = None if "SDPA" in name else shape.operations(backward=backward) / seconds / rate
                tokens_per_s = shape.batch * shape.tokens / seconds
                yield row | {
                    "seconds": seconds,
                    "tokens_per_s": tokens_per_s,
                    "peak_mib": mebibytes,
                    "share_of_rate": share,
                }


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Tokens per second, and peak memory, over the sequence length; forward + backward."""
    depths = sorted({row["depth"] for row in rows})
    figure, axes = plt.subplots(2, len(depths), figsize=(5 * len(depths), 7), sharex=True, squeeze=False)
    for column, depth in enumerate(depths):
        for name in dict.fromkeys(row["what"] for row in rows):
            chosen = [r for r in rows if r["depth"] == depth and r["what"] == name and r["backward"] and "seconds" in r]
            for axis, key in zip(axes[:, column], ("tokens_per_s", "peak_mib"), strict=True):
                axis.loglog([r["tokens"] for r in chosen], [r[key] for r in chosen], marker="o", label=name)
        axes[0, column].set(title=f"depth {depth}, forward + backward", ylabel="tokens per second")
        axes[1, column].set(xlabel="tokens", ylabel="peak MiB above inputs")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def show(title: str, rows: list[dict[str, Any]]) -> None:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    shown = Table(*keys, title=title)
    for row in rows:
        values = (row.get(key) for key in keys)
        shown.add_row(*(f"{x:.3g}" if isinstance(x, float) else "-" if x is None else str(x) for x in values))
    Console(width=200).print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check-only", action="store_true", help="no times; also runs in Triton's interpreter")
    parser.add_argument("--check-tokens", type=positive, default=150)
    parser.add_argument("--lengths", type=positive, nargs="+", default=[2**n for n in range(10, 18)])
    parser.add_argument("--depths", type=positive, nargs="+", default=[1, 2])
    parser.add_argument("--expansions", type=positive, nargs="+", default=[2, 4], help="checked; times are of the last")
    parser.add_argument("--chunks", type=positive, nargs="+", default=[16, 64], help="checked; times are of the last")
    parser.add_argument("--width", type=positive, default=64, help="of keys and values")
    parser.add_argument("--batch", type=positive, default=8)
    parser.add_argument("--heads", type=positive, default=16)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="of the tokens timed")
    parser.add_argument(
        "--compile-limit", type=positive, default=4096, help="longest sequence for chunked under torch.compile"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"))
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        resolve_backend("triton", machine_of(device, None))
    except RuntimeError as error:
        sys.exit(str(error))
    if device == "cpu" and not arguments.check_only:
        sys.exit("times need a CUDA device; --check-only runs the checks in Triton's interpreter")
    arguments.output.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
    }
    shapes = [
        Shape(2, arguments.check_tokens, 2, arguments.width, depth, expansion, chunk)
        for depth, expansion, chunk in product(arguments.depths, arguments.expansions, arguments.chunks)
    ]
    record["checks"] = list(check(shapes, [torch.float32, torch.bfloat16], device))
    show("error against float64, relative to the largest entry", record["checks"])
    (arguments.output / "gpu.json").write_text(json.dumps(record, indent=1))
    if not all(row["right"] for row in record["checks"]):
        sys.exit("a backend is wrong; nothing was timed")
    if arguments.check_only:
        return
    dtype = getattr(torch, arguments.dtype)
    record["floors"] = floors(dtype)
    timed = [
        Shape(arguments.batch, tokens, arguments.heads, arguments.width, depth, arguments.expansions[-1], arguments.chunks[-1])
        for depth, tokens in product(arguments.depths, arguments.lengths)
    ]  # fmt: skip
    record["times"] = []
    for row in time_all(timed, dtype, record["floors"]["operations_per_s"], arguments.compile_limit):
        record["times"].append(row)
        (arguments.output / "gpu.json").write_text(json.dumps(record, indent=1))  # what is finished is kept
    show(f"{arguments.dtype}, {record['device']}", record["times"])
    picture(record["times"], arguments.output / "gpu.png")
    print(f"{arguments.output / 'gpu.json'}\n{arguments.output / 'gpu.png'}")


if __name__ == "__main__":
    main()
