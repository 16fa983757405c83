"""Training throughput of the language models against the length of the sample (the paper's Figure 9).

    python benchmarks/language_speed.py [--dim 128] [--layers 2] [--tokens 16384] [--lengths 256 ... 8192] [--threads 2]

Every batch has as many tokens; forward and backward, float32. The variants are measured in turn, `--rounds` times, and
the median is shown, so that what else the machine does hits all of them alike.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from arguments import positive
from pages import line, row
from rich.progress import track

from titans_seq.language import VARIANTS, LanguageModel

OPTIONS = {
    "lmm": {"chunk_size": 16},
    "mac": {"chunk_size": 16, "segment": 64},
    "mag": {"chunk_size": 16, "window": 64},
    "mal": {"chunk_size": 16, "window": 64},
    "transformer": {},
}


def seconds(model: LanguageModel, tokens: torch.Tensor) -> float:
    """Of one forward and backward pass."""
    start = time.perf_counter()
    logits = model(tokens[:, :-1])[0]
    F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=positive, default=128)
    parser.add_argument("--layers", type=positive, default=2)
    parser.add_argument("--tokens", type=positive, default=2**14, help="per batch")
    parser.add_argument("--lengths", type=positive, nargs="+", default=[2**i for i in range(8, 14)])
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--threads", type=positive, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    models = {
        variant: LanguageModel(256, arguments.dim, layers=arguments.layers, mixer=mixer, **OPTIONS[variant])
        for variant, mixer in VARIANTS.items()
    }
    cases = [(length, variant) for length in arguments.lengths for variant in models]
    found: dict[tuple[int, str], list[float]] = {case: [] for case in cases}
    for length, variant in track([case for _ in range(arguments.rounds + 1) for case in cases], description="passes"):
        tokens = torch.randint(256, (max(1, arguments.tokens // length), length + 1))
        found[length, variant].append(tokens[:, 1:].numel() / seconds(models[variant], tokens))
    print(
        f"dim {arguments.dim}, {arguments.layers} layers, depth 2, {arguments.tokens} tokens per batch, tokens per "
        "second:\n"
    )
    print(row("model", "parameters", *(f"{length:,}" for length in arguments.lengths)))
    print(line(2 + len(arguments.lengths)))
    for variant, model in models.items():
        size = sum(parameter.numel() for parameter in model.parameters())
        medians = [statistics.median(found[length, variant][1:]) for length in arguments.lengths]  # the first warms up
        print(row(variant, f"{size:,}", *(f"{value:,.0f}" for value in medians)))


if __name__ == "__main__":
    main()
