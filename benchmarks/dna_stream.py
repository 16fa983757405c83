"""A whole genome through a trained language model in one stream: bits per base, resident memory and speed along the
way.

    python benchmarks/dna_stream.py --checkpoint RUN --fasta genome.fa [--held-out] [--piece 32768] [--threads 2]

RUN is of `titans-seq pretrain dna`. The memory is carried from the first base of the longest record to its last, or,
with
--held-out, over its last 5 %, the test part. Resident memory is read every 500,000 bases (every 20,000 of the test
part; Linux) and should stay where it was at the first reading.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from arguments import one_line, positive
from rich.progress import Progress
from stream import resident_mib

from titans_seq.cli import checkpoints, recorded, runs
from titans_seq.cli.dna import PRETRAIN
from titans_seq.cli.errors import UsageError
from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.splits import contiguous_splits
from titans_seq.genomics import DNALanguageModel
from titans_seq.genomics.module import NATS_PER_BIT
from titans_seq.genomics.stream import read_stream

EVERY = {False: 500_000, True: 20_000}  # bases between two readings, of a whole record and of a part


def language_model(run: Path) -> DNALanguageModel:
    """The model of a run's best epoch, ready to read."""
    checkpoint = checkpoints.load_checkpoint(run / runs.CHECKPOINTS / runs.BEST)
    module = PRETRAIN.restored(recorded.read_config(run, PRETRAIN.key), checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    assert isinstance(module.network, DNALanguageModel)
    return module.network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--fasta", type=Path, required=True)
    parser.add_argument("--piece", type=positive, default=2**15, help="bases per call")
    parser.add_argument("--held-out", action="store_true", help="read the test part only")
    parser.add_argument("--threads", type=positive, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with one_line(UsageError, DataError):
        model = language_model(arguments.checkpoint)
        genome = Genome(arguments.fasta)
    name = max(genome.names, key=lambda record: genome.lengths[record])
    held_out = next(part for part in contiguous_splits(genome)["test"] if part.record == name)
    first, every = held_out.begin if arguments.held_out else 0, EVERY[arguments.held_out]
    length, rows, bits, bases = genome.lengths[name] - first, [], 0.0, 0
    parts = (
        genome.tokens(name, first + begin, first + min(begin + every, length)) for begin in range(0, length, every)
    )
    start = time.perf_counter()
    with Progress() as progress:
        task = progress.add_task(name, total=length)
        for piece in read_stream(model, parts, piece=arguments.piece):
            end = piece.begin + len(piece.surprise)
            bits -= float(np.nansum(piece.log_likelihood, dtype=np.float64)) / NATS_PER_BIT
            bases += int((~np.isnan(piece.log_likelihood)).sum())
            progress.update(task, completed=end)
            if end // every > piece.begin // every or end == length:
                rows.append((end, bits / bases, resident_mib(), end / (time.perf_counter() - start)))
    print("| bases read | bits per base so far | resident MiB | bases / s |\n|---|---|---|---|")
    for end, per_base, memory, speed in rows:
        print(f"| {end:,} | {per_base:.4f} | {memory:.1f} | {speed:,.0f} |")
    print(
        f"\nresident memory from {rows[0][0]:,} bases on: {max(row[2] for row in rows) / rows[0][2] - 1:+.1%} at most"
    )


if __name__ == "__main__":
    main()
