"""Compile the Triton kernels for GPUs that need not be there, and say what they take of the chip.

    python benchmarks/compile.py [--must] [--archs 80 90 100] [--workers 2] [--write]

Each kernel is compiled for compute capability 8.0, 9.0 and 10.0 from what the launcher would ask for. Widths are
arguments at run time, so one binary serves every K, V and expansion whose tiles are full; chunk size, depth and the
tokens' dtype are compiled in. Registers and stack (spilled registers, bytes per thread) are read from the binary,
shared memory from the compiler. --must: only what DESIGN demands (depth 1 and 2); else depth 1 to 4. --write:
docs/compile.md.

Fails if a kernel does not compile, does not fit, spills more than its bound, or makes float32 products in plain tf32.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # before the kernels are imported: interpreted kernels do not compile
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import triton
from arguments import positive
from rich.console import Console
from rich.progress import track
from rich.table import Table
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from titans_seq.kernels.fused import kernel_dims, multiplies_from_shared
from titans_seq.kernels.gates import GateTable
from titans_seq.kernels.triton_backward import read_backward, walk_backward
from titans_seq.kernels.triton_forward import Scratch, walk
from titans_seq.kernels.triton_tiles import Dims, FactorGradients, Factors

KERNELS = {"walk": walk, "walk, kept": walk, "read_backward": read_backward, "walk_backward": walk_backward}
ABSENT = {"walk, kept": ("p_place", "p_stood")}  # arguments that are None
WIDTH, EXPANSION = 64, 4  # any others with full tiles give the same binary
SHARED = {80: 163, 90: 227, 100: 227, 120: 99}  # KiB that one program may have
ARCHS = (80, 90, 100)
STACK = {1: 0, 2: 256, 3: 512, 4: 768}  # bytes per thread a kernel may spill, by depth
TUPLES = {
    "table": GateTable,
    "d_table": GateTable,
    "factors": Factors,
    "scratch": Scratch,
    "gradients": FactorGradients,
}
TOKENS = ("p_q", "p_k", "p_v", "p_y", "p_d_y", "p_zx", *Scratch._fields)  # kept in the tokens' dtype
ALIGNED = [["tt.divisibility", 16]]


@dataclass(frozen=True)
class Binary:
    """One kernel for one chip; precision: of its products."""

    arch: int
    kernel: str
    depth: int
    chunk_size: int
    precision: str

    def source(self) -> tuple[ASTSource, dict[str, int]]:
        """What the launcher would compile, and how it would launch it."""
        hidden = WIDTH * EXPANSION if self.depth > 1 else 0
        dims, launch = kernel_dims(
            WIDTH,
            WIDTH,
            hidden,
            self.depth,
            self.chunk_size,
            self.precision,
            backward=self.kernel.endswith("backward"),
            wgmma=multiplies_from_shared(self.arch // 10),
        )
        signature: dict[str, Any] = {}
        constants: dict[tuple[int, ...], Any] = {}
        attributes: dict[tuple[int, ...], Any] = {}
        function = KERNELS[self.kernel]
        tokens = "*bf16" if self.precision == "bf16" else "*fp32"
        for i, name in enumerate(function.arg_names):
            if name in ABSENT.get(self.kernel, ()):
                signature[name], constants[(i,)] = "constexpr", None
            elif name == "d":
                numbers = [isinstance(x, int) for x in dims]
                signature[name] = Dims(*("i32" if number else "constexpr" for number in numbers))
                constants |= {(i, j): x.value for j, x in enumerate(dims) if not numbers[j]}
                attributes |= {(i, j): ALIGNED for j, x in enumerate(dims) if numbers[j] and x % 16 == 0}
            elif name in TUPLES:
                fields, kept = TUPLES[name]._fields, name in ("factors", "scratch")
                signature[name] = TUPLES[name](*(tokens if kept and field in TOKENS else "*fp32" for field in fields))
                attributes |= {(i, j): ALIGNED for j in range(len(fields))}
            elif name in ("CLIP", "KEEP"):
                signature[name], constants[(i,)] = "constexpr", name == "CLIP" or self.kernel == "walk, kept"
            elif name == "p_place":
                signature[name] = "*i32"
            elif name.startswith("p_"):
                signature[name] = tokens if name in TOKENS else "*fp32"
                attributes[(i,)] = ALIGNED
            else:
                signature[name] = "i32" if name in ("groups", "chunks") else "fp32"
        return ASTSource(function, signature, constants, attributes), launch


def compile_one(binary: Binary) -> dict[str, Any]:
    """Registers, stack (bytes), shared memory (bytes) and how often tf32 and bf16 tensor-core instructions stand in
    it.
    """
    source, launch = binary.source()
    made = triton.compile(source, target=GPUTarget("cuda", binary.arch, 32), options=launch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of registers: {usage!r}")
    dots = [line for line in made.asm["ttir"].splitlines() if re.search(r"= tt\.dot\b", line)]
    stated = sum(bool(re.search(r"inputPrecision = (tf32x3|ieee)|xbf16>", line)) for line in dots)
    return asdict(binary) | {
        "registers": int(found[1]), "stack": int(found[2]), "shared": made.metadata.shared,
        "dots": len(dots), "stated": stated, "tf32": len(re.findall(r"mma\S*\.\S*tf32", made.asm["ptx"])),
    }  # fmt: skip


def complaints(row: dict[str, Any]) -> Iterable[str]:
    name = " ".join(str(row[key]) for key in ("arch", "kernel", "depth", "chunk_size", "precision"))
    if row["shared"] > SHARED[row["arch"]] * 1024:
        yield f"{name}: {row['shared']} bytes of shared memory, the chip has {SHARED[row['arch']]} KiB"
    if row["stack"] > STACK[row["depth"]]:
        yield f"{name}: {row['stack']} bytes spilled per thread, bound {STACK[row['depth']]}"
    if row["stated"] < row["dots"] or not row["dots"]:
        yield f"{name}: {row['dots'] - row['stated']} of {row['dots']} float32 products do not state their precision"
    if row["precision"] == "bf16" and row["tf32"]:
        yield f"{name}: tf32 instructions among bfloat16 products"
    # on 8.0 every product is a row of one kind of instruction: three for each that plain tf32 would need
    if row["precision"] == "tf32x3" and row["arch"] == 80 and (row["tf32"] == 0 or row["tf32"] % 3):
        yield f"{name}: {row['tf32']} tf32 instructions, not three for each product"


def table(rows: list[dict[str, Any]], archs: list[int]) -> tuple[list[str], list[list[str]]]:
    """Per kernel and chip: registers / bytes spilled / KiB of shared memory."""
    head = ["depth", "chunk", "tokens", "kernel", *(f"sm_{arch}" for arch in archs)]
    by_name: dict[tuple[Any, ...], dict[int, str]] = {}
    for row in rows:
        key = (row["depth"], row["chunk_size"], "bf16" if row["precision"] == "bf16" else "float32", row["kernel"])
        entry = f"{row['registers']} / {row['stack']} / {row['shared'] / 1024:.0f}"
        by_name.setdefault(key, {})[row["arch"]] = entry
    return head, [[*map(str, key), *(found[arch] for arch in archs)] for key, found in by_name.items()]


def write(head: list[str], body: list[list[str]], must: bool) -> None:
    which = "--must --write" if must else "--write"
    lines = [
        "# What the kernels take of a GPU\n",
        f"Made by `python benchmarks/compile.py {which}` with Triton {triton.__version__}; nothing here was run.\n",
        ("Registers per thread / bytes spilled per thread / KiB of shared memory per program. A binary serves every "
        "key and"),
        ("value width and every expansion that are multiples of 64, so also K = 128 and expansion 2 and 4; narrower "
        "ones run in"),
        "smaller tiles. `walk, kept` is the forward kernel as backward runs it.",
        ("Chunks of up to 16 tokens run as 16, of up to 32 as 32, of up to 64 as 64. What the kernels do not cover: "
        "chunks of"),
        ("more than 64 tokens, float64, hidden layers of different widths; `backend=\"auto\"` then takes `chunked` and "
        "says so once."),
        ("The bounds hold for full tiles, chunks of 16 and 64 and widths that are multiples of 64. Others may spill "
        "more (LOG.md)."),
        f"Bounds: {', '.join(f'{bytes_} bytes spilled at depth {depth}' for depth, bytes_ in STACK.items())}.\n",
        "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in body),
    ]  # fmt: skip
    (Path(__file__).parent.parent / "docs" / "compile.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--must", action="store_true", help="depth 1 and 2 only")
    parser.add_argument(
        "--archs", type=int, nargs="+", default=ARCHS, choices=list(SHARED), metavar="ARCH", help="80, 90, 100, 120"
    )
    parser.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="compilations side by side")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--write", action="store_true", help="write docs/compile.md")
    arguments = parser.parse_args()
    depths = (1, 2) if arguments.must else (1, 2, 3, 4)
    every = product(depths, (16, 64), ("tf32x3", "bf16"), KERNELS, arguments.archs)
    binaries = [Binary(arch, kernel, depth, chunk, how) for depth, chunk, how, kernel, arch in every]
    with ProcessPoolExecutor(arguments.workers) as pool:
        rows = list(track(pool.map(compile_one, binaries), "compiling", len(binaries), console=Console(stderr=True)))
    head, body = table(rows, arguments.archs)
    shown = Table(*head, title="registers / bytes spilled / KiB shared")
    for row in body:
        shown.add_row(*row)
    Console(width=120).print(shown)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows))
    if arguments.write:
        write(head, body, arguments.must)
    failed = [line for row in rows for line in complaints(row)]
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
