"""Forward and backward of whole models of DNA and text on a CPU, and a token in a stream: `native` beside `chunked`.

    python benchmarks/steps.py [--threads 1] [--repeats 5] [--tokens 1024]

The classifier is that of `titans-seq fit dna` (64 sequences of 300 bases), the language models are those of `fit lm`
(8 samples of --tokens). In turn in one process, medians after one to warm up; compare the ratios.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from arguments import positive
from memory import seconds, show
from torch import nn

from titans_seq import NeuralMemory
from titans_seq.genomics import DNAClassifier, DNAEncoder
from titans_seq.language import LanguageModel


def classifier() -> tuple[nn.Module, Callable[[], Any]]:
    encoder = DNAEncoder(dim=64, layers=1, bidirectional=True, mixer="memory", heads=2, depth=1, chunk_size=32)
    model = DNAClassifier(encoder, ("no", "yes"))
    tokens, labels = torch.randint(4, (64, 300)), torch.randint(2, (64,))
    return model, lambda: F.cross_entropy(model(tokens), labels).backward()


def language(mixer: str, length: int) -> tuple[nn.Module, Callable[[], Any]]:
    model = LanguageModel(256, 128, layers=2, heads=4, mixer=mixer, chunk_size=16)
    tokens = torch.randint(256, (8, length + 1))
    return model, lambda: F.cross_entropy(model(tokens[:, :-1])[0].flatten(0, 1), tokens[:, 1:].flatten()).backward()


def one_token() -> tuple[nn.Module, Callable[[], Any]]:
    model = LanguageModel(256, 128, layers=2, heads=4, mixer="memory", chunk_size=16).eval()
    with torch.inference_mode():
        states = model(torch.randint(256, (1, 100)))[1]
    token = torch.randint(256, (1, 1))

    def read() -> None:
        with torch.inference_mode():
            model(token, state=states)

    return model, read


def take(model: nn.Module, backend: str) -> None:
    for module in model.modules():
        if isinstance(module, NeuralMemory):
            module.backend = backend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--tokens", type=positive, default=1024)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    cases = {
        "DNA classifier": classifier(),
        "LMM": language("memory", arguments.tokens),
        "MAC": language("mac", arguments.tokens),
        "LMM, one token": one_token(),
    }
    show(["model", "native ms", "chunked ms", "times faster"])
    show(["---"] * 4)
    for name, (model, step) in cases.items():
        times: dict[str, list[float]] = {"native": [], "chunked": []}
        for repeat in range(arguments.repeats + 1):
            for backend, found in times.items():
                take(model, backend)
                took = seconds(step)
                found += [took] if repeat else []
        native, chunked = (1e3 * statistics.median(found) for found in times.values())
        show([name, f"{native:.1f}", f"{chunked:.1f}", f"{chunked / native:.1f}"])


if __name__ == "__main__":
    main()
