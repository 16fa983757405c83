"""Speed and memory of the memory layer on a CPU, beside titans-pytorch and causal attention.

    pip install -e '.[compare]'        # titans-pytorch, for this comparison only
    python benchmarks/memory.py [--threads 2] [--repeats 3] [--tokens 1024 4096 16384] [--chunks 16 64] [--depths 1 2]

Layer against layer in one process: batch 2, width 256, 4 heads of 64, hidden width 256. Medians of interleaved runs
after one to warm up; absolute times belong to one machine, compare the ratios. A row appears when it is measured.
Columns:

    fwd           seconds of a forward pass without gradients
    fwd+bwd       seconds of a forward and a backward pass
    x ours        fwd+bwd against ours
    needed        products per second of fwd+bwd, as a share of the machine's rate of batched products (8 x 64 x 64 x
                  256, measured around each row): the forward's products, as `chunked` does them, count three times
    peak MiB      most memory in use during fwd+bwd, above that before it (Linux)
"""

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from arguments import positive
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from titans_seq import NeuralMemory

BATCH, DIM, HEADS, EXPANSION = 2, 256, 4, 4


class Attention(nn.Module):
    """Causal attention with PyTorch's own kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(DIM, 3 * DIM, bias=False), nn.Linear(DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Peer(nn.Module):
    """titans-pytorch with its defaults, and the same shapes."""

    def __init__(self, depth: int, chunk_size: int) -> None:
        from titans_pytorch import MemoryMLP
        from titans_pytorch import NeuralMemory as TheirMemory

        super().__init__()
        head_dim = DIM // HEADS
        self.memory = TheirMemory(
            dim=DIM, chunk_size=chunk_size, dim_head=head_dim, heads=HEADS, momentum=True, qk_rmsnorm=True,
            model=MemoryMLP(head_dim, depth, expansion_factor=EXPANSION),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.memory(x)[0]


def ours(depth: int, chunk_size: int, **options: str) -> NeuralMemory:
    return NeuralMemory(DIM, heads=HEADS, depth=depth, expansion=EXPANSION, chunk_size=chunk_size, **options)


def forward(layer: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        layer(x)


def both(layer: nn.Module, x: Tensor) -> None:
    layer.zero_grad(set_to_none=True)
    layer(x.detach().requires_grad_()).sum().backward()


def seconds(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def product_rate(repeats: int = 200) -> float:
    """Floating point operations per second of batched products that stay in the cache."""
    a, b, out = torch.randn(8, 64, 64), torch.randn(8, 64, 256), torch.empty(8, 64, 256)

    def products() -> None:
        for _ in range(repeats):
            torch.bmm(a, b, out=out)

    products()
    return 2 * 8 * 64 * 64 * 256 * repeats / statistics.median(seconds(products) for _ in range(5))


def products_in(function: Callable[..., object], *arguments: object) -> int:
    """Floating point operations of all matrix products."""
    in_place = {torch.ops.aten.baddbmm_: lambda target, a, b, **_: 2 * a[0] * a[1] * a[2] * b[2]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        function(*arguments)
    return counter.get_total_flops()


def peak_mib(function: Callable[..., object], *arguments: object) -> float:
    """Most resident memory during the call, above that before it; freed memory is given back first."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    function(*arguments)
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])  # KiB


def measure(layers: dict[str, nn.Module], tokens: int, repeats: int) -> list[list[str]]:
    """One row per layer."""
    x = torch.randn(BATCH, tokens, DIM, generator=torch.Generator().manual_seed(0))
    work = products_in(forward, layers["ours, chunked"], x)
    for layer in layers.values():
        both(layer, x)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in layers}
    rates = [product_rate()]
    for _ in range(repeats):
        for name, layer in layers.items():
            times[name].append((seconds(forward, layer, x), seconds(both, layer, x)))
        rates.append(product_rate())
    rate, rows = statistics.median(rates), []
    base = statistics.median(t for _, t in times["ours"])
    for name, layer in layers.items():
        fwd, fwd_bwd = (statistics.median(column) for column in zip(*times[name], strict=True))
        shares = f"{3 * work / fwd_bwd / rate:.0%}" if isinstance(layer, NeuralMemory) else "-"
        rows.append(
            [
                name,
                f"{fwd:.3f}",
                f"{fwd_bwd:.3f}",
                f"{fwd_bwd / base:.2f}",
                shares,
                f"{peak_mib(both, layer, x):.0f}",
            ]
        )
    return rows


def peer_fits(tokens: int, chunk_size: int, depth: int, limit_gib: float) -> bool:
    """titans-pytorch keeps about 16 copies of the weights of every chunk (2 MiB per head and chunk at depth 2)."""
    weights = (DIM // HEADS) ** 2 * (2 * EXPANSION if depth > 1 else 1)
    return 16 * BATCH * HEADS * (tokens / chunk_size) * weights * 4 / 2**30 < limit_gib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--tokens", type=positive, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--chunks", type=positive, nargs="+", default=[16, 64])
    parser.add_argument("--depths", type=positive, nargs="+", default=[1, 2])
    parser.add_argument(
        "--peer-limit", type=float, default=8.0, help="leave titans-pytorch out where it needs more GiB"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    peer = find_spec("titans_pytorch") is not None
    if not peer:
        print("titans-pytorch is not installed (pip install -e '.[compare]'): ours and attention only\n")
    print(f"batched products: {product_rate() / 1e9:.0f} GFLOP/s on {arguments.threads} threads\n")
    show(["depth", "chunk", "tokens", "layer", "fwd s", "fwd+bwd s", "x ours", "needed", "peak MiB"])
    show(["---"] * 9)
    for depth, chunk_size, tokens in product(arguments.depths, arguments.chunks, arguments.tokens):
        torch.manual_seed(0)
        layers: dict[str, nn.Module] = {"ours": ours(depth, chunk_size)}
        layers["ours, chunked"] = ours(depth, chunk_size, backend="chunked")
        layers["ours, gates per chunk"] = ours(depth, chunk_size, gate_per="chunk")
        if peer and peer_fits(tokens, chunk_size, depth, arguments.peer_limit):
            layers["titans-pytorch"] = Peer(depth, chunk_size)
        if (depth, chunk_size) == (arguments.depths[0], arguments.chunks[0]):
            layers["attention"] = Attention()
        for row in measure(layers, tokens, arguments.repeats):
            show([str(depth), str(chunk_size), str(tokens), *row])


def show(row: list[str]) -> None:
    print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
