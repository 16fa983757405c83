"""A million tokens through the memory layer with carried state: resident memory and speed along the way.

    python benchmarks/stream.py [--tokens 1000000] [--piece 5000] [--depth 2] [--threads 2]

Width 64, 4 heads, chunks of 64, default settings; inputs are made piece by piece. Resident memory is read every 100,000
tokens (Linux) and should stay where it was at the first reading.
"""

import argparse
import time
from pathlib import Path

import torch
from arguments import positive
from rich.progress import Progress

from titans_seq import NeuralMemory

EVERY = 100_000  # tokens between two readings


def resident_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=positive, default=1_000_000)
    parser.add_argument("--piece", type=positive, default=5_000, help="tokens per call; no multiple of the chunk")
    parser.add_argument("--depth", type=positive, default=2)
    parser.add_argument("--threads", type=positive, default=2)
    arguments = parser.parse_args()
    if not 1 <= arguments.piece <= arguments.tokens or arguments.tokens % arguments.piece:
        parser.error(f"--tokens must be a multiple of --piece; got {arguments.tokens} and {arguments.piece}")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    layer = NeuralMemory(64, heads=4, depth=arguments.depth)
    state, rows, start = None, [], time.perf_counter()
    with torch.inference_mode(), Progress() as progress:
        task = progress.add_task("tokens", total=arguments.tokens)
        for done in range(arguments.piece, arguments.tokens + 1, arguments.piece):
            _, state = layer(torch.randn(1, arguments.piece, 64), state=state, return_state=True)
            progress.update(task, completed=done)
            if done // EVERY > (done - arguments.piece) // EVERY or done == arguments.tokens:
                norm = sum(w.square().sum() for w in state.memory.weights).sqrt().item()
                rows.append((done, resident_mib(), done / (time.perf_counter() - start), norm))
    print("| tokens | resident MiB | tokens / s | norm of M |\n|---|---|---|---|")
    for done, memory, speed, norm in rows:
        print(f"| {done:,} | {memory:.1f} | {speed:,.0f} | {norm:.2f} |")
    memories = [memory for _, memory, _, _ in rows]
    if len(rows) == 1:
        print(f"\none reading only: give more than {EVERY:,} tokens to see whether memory grows")
        return
    print(f"\nresident memory from {rows[0][0]:,} tokens on: {(max(memories) / memories[0] - 1):+.1%} at most")


if __name__ == "__main__":
    main()
