"""A needle and millions of tokens after it, in one stream: resident memory, speed, and what the model answers.

    python benchmarks/language_stream.py --checkpoint RUN [--tokens 2000000] [--piece 8192] [--threads 2] [--seed 0]

RUN is of `titans-seq fit lm --task passkey`. The stream is one fact, then the passkey task's noise, with the model's
state carried on.
At growing distances from the fact a copy of the state is asked for it: shown are the answer, drawn greedily, and how
many of its digits are the most likely ones after the right digits before them (a guess has one in ten). Resident memory
is that after the question (Linux).
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from arguments import one_line, positive
from rich.progress import Progress
from stream import resident_mib

from titans_seq import ModelState
from titans_seq.datamodules.language.long_context import NOISE, passkey_parts
from titans_seq.language import LanguageModel, load_model
from titans_seq.language.generation import read

ASKED = (0, 100, 1_000, 10_000, 100_000, 500_000, 1_000_000, 2_000_000)  # tokens between the fact and the question


def encode(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64))


def noise(length: int, piece: int) -> Iterator[torch.Tensor]:
    """So many bytes of noise, piece by piece."""
    text = encode(NOISE)
    for begin in range(0, length, piece):
        yield text[torch.arange(begin, min(begin + piece, length)) % len(text)]


def answer(model: LanguageModel, state: ModelState | None, question: str, value: str) -> tuple[str, int]:
    """What the model says to the question, and how many of the value's digits it has right when told those before."""
    logits, told = read(model, encode(question), state)
    said, right, drawn = "", 0, (logits, told)
    for digit in value:
        right += int(logits.argmax()) == ord(digit)
        logits, told = read(model, encode(digit), told)
        token = drawn[0].argmax()
        said += chr(int(token))
        drawn = read(model, token[None], drawn[1])
    return said, right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokens", type=positive, default=2_000_000)
    parser.add_argument("--piece", type=positive, default=2**13, help="tokens per call")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with one_line(ValueError):
        model, _ = load_model(given.checkpoint / "model")
    fact, question, value = passkey_parts(np.random.default_rng(given.seed))
    distances = sorted({d for d in ASKED if d < given.tokens} | {given.tokens})
    rows, read_so_far, spent = [], 0, 0.0
    with torch.inference_mode(), Progress() as progress:
        task = progress.add_task("stream", total=given.tokens)
        _, state = read(model, encode(fact), None)
        for before, after in itertools.pairwise([0, *distances]):
            start = time.perf_counter()
            for piece in noise(after - before, given.piece):
                _, state = read(model, piece, state)
                read_so_far += len(piece)
                progress.update(task, completed=read_so_far)
            spent += time.perf_counter() - start
            said, right = answer(model, state, question, value)
            rows.append((after, said, right, resident_mib(), read_so_far / spent if spent else float("nan")))
    print(f"{fact.strip()} {question.strip()}\n")
    print("| tokens in between | answer | digits right | resident MiB | tokens / s |\n|---|---|---|---|---|")
    for distance, said, right, memory, speed in rows:
        print(f"| {distance:,} | {said!r} | {right} of {len(value)} | {memory:.0f} | {speed:,.0f} |")


if __name__ == "__main__":
    main()
