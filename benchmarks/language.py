"""The language tables of docs/results.md, from text/tinyshakespeare.txt in $TITANS_SEQ_DATA and from tasks made on the
spot.

    TITANS_SEQ_DATA=<folder> python benchmarks/language.py [--workers 2] [--folder runs/lm_results] [--only NAME]
        [--dry-run] [--quick]

Each cell is one command of `titans-seq`; those of tasks are followed by `eval lm` at longer samples.
docs/results_lm.json keeps the metrics of finished cells; a cell that stands there is not repeated (remove its entry to
repeat it).
"""

import json
import os
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cells import Command, arguments, publish, recorded, run_all, titans_seq
from pages import line, row

DOCS = Path(__file__).parent.parent / "docs"
RECORD = DOCS / "results_lm.json"
# widths that make the variants of a text and of a passkey as large as each other (within 12 %), four heads
WIDTHS = {"lmm": 120, "mac": 96, "mag": 104, "mal": 104, "transformer": 128}
STEPS = ("data.steps_per_epoch=250", "--epochs", "8")  # 2,000 steps
SHORT = ("--length", "64", "data.batch_size=12", *STEPS)  # nanoGPT's recipe for a CPU
LONG = ("--length", "1024", "data.batch_size=3", "data.eval_batch_size=8", "data.steps_per_epoch=24", "--epochs", "8")
LOCAL = {"mac": "model.segment=64", "mag": "model.window=64", "mal": "model.window=64"}
ABLATIONS = {
    "linear memory": ("model.depth=1",),
    "depth 3": ("model.depth=3",),
    "depth 4": ("model.depth=4",),
    "no convolution": ("model.conv_size=0",),
    "no momentum": ("model.momentum=false",),
    "no forgetting": ("model.forgetting=false",),
    "no persistent memory": ("model.num_persistent=0",),
}
TASKS = ("data.steps_per_epoch=200", "--epochs", "5", "training.learning_rate=2e-3")  # 1,000 batches
TASKS_TWICE = ("data.steps_per_epoch=400", *TASKS[1:])
NEEDLE = ("--task", "passkey", "--length", "160", "data.batch_size=16")
NEEDLE_LENGTHS = ("160", "640", "2560", "10240")
TRACKING = ("--length", "32", "data.batch_size=32")
TRACKED = {
    "parity": ("--task", "parity", *TRACKING, *TASKS),
    "swaps": ("--task", "swaps", *TRACKING, *TASKS_TWICE),
    "permutations": ("--task", "permutations", *TRACKING, *TASKS),
}
# whether a task is learned in a budget depends on the seed; in that of permutations nobody got anywhere
SEEDS = {
    "short": (0,),
    "long": (0, 1),
    "needle": (0, 1, 2),
    "parity": (0, 1, 2),
    "swaps": (0, 1, 2),
    "permutations": (0,),
}
SAMPLES = "32"  # per length
TRACKING_LENGTHS = ("8", "16", "32", "64", "128")
# the paper's inner loop bare; theta may reach 1 at chunk 1, and one step then turns what it reads into its opposite
PLAIN = ("model.momentum=false", "model.max_surprise=null")
TRACKERS = {
    "deep memory, chunk 1": ("--variant", "lmm", "model.chunk_size=1"),
    "linear memory, chunk 1": ("--variant", "lmm", "model.chunk_size=1", "model.depth=1"),
    "linear memory, chunk 1, plain": ("--variant", "lmm", "model.chunk_size=1", "model.depth=1", *PLAIN),
    "deep memory, chunk 16": ("--variant", "lmm"),
    "transformer": ("--variant", "transformer"),
}


def text() -> Path:
    path = Path(os.environ.get("TITANS_SEQ_DATA", "")) / "text" / "tinyshakespeare.txt"
    if not path.is_file():
        sys.exit("no file text/tinyshakespeare.txt in $TITANS_SEQ_DATA")
    return path


def cells() -> Iterator[Command]:
    """All cells, those that matter most first."""
    fit = ("fit", "lm", "--text", str(text()))
    for name, options in (("short", SHORT), ("long", LONG)):
        for variant, width in WIDTHS.items():
            local = [LOCAL[variant]] if variant in LOCAL else []
            yield from _by_seed(name, variant, (*fit, "--variant", variant, f"model.dim={width}", *local, *options))
    for name, changed in ABLATIONS.items():
        yield Command(f"long-{name}", (*fit, "--variant", "lmm", f"model.dim={WIDTHS['lmm']}", *changed, *LONG))
    for variant, width in WIDTHS.items():
        local = [LOCAL[variant]] if variant in LOCAL else []
        words = ("fit", "lm", "--variant", variant, f"model.dim={width}", "model.layers=2", *local, *NEEDLE, *TASKS)
        yield from _by_seed("needle", variant, words)
    for task, options in TRACKED.items():
        for name, words in TRACKERS.items():
            yield from _by_seed(task, name, ("fit", "lm", *words, "model.dim=64", "model.layers=1", *options))


def _by_seed(kind: str, name: str, words: tuple[str, ...]) -> Iterator[Command]:
    for seed in SEEDS[kind]:
        yield Command(_name(kind, name, seed), (*words, "--seed", str(seed)) if seed else words)


def _name(kind: str, name: str, seed: int) -> str:
    return f"{kind}-{name}, seed {seed}" if seed else f"{kind}-{name}"


def evaluate(root: Path, done: dict[str, dict], only: str, samples: str) -> list[str]:
    """Measure finished runs of tasks at several lengths; returns error lines."""
    failed = []
    for name in done:
        kind = name.partition("-")[0]
        task, lengths = ("passkey", NEEDLE_LENGTHS) if kind == "needle" else (kind, TRACKING_LENGTHS)
        asked = kind in ("needle", *TRACKED) and only in name
        # not only recorded, not yet measured
        if asked and (root / name).is_dir() and not (root / name / "eval").is_dir():
            words = ("--checkpoint", str(root / name), "--tasks", task, "--lengths", *lengths, "--samples", samples)
            error = titans_seq("eval", "lm", *words)
            failed += [error] if error else []
    return failed


def finished(root: Path, record: dict[str, dict]) -> dict[str, dict]:
    """Metrics of every cell that is recorded or has a finished run folder; the folder counts first."""
    found = dict(record)
    every = list(cells())
    for cell in every:
        path = root / cell.name / "metrics.json"
        if path.is_file():
            words = " ".join(("titans-seq", *cell.words)).replace(str(text().parents[1]), "<data>")
            found[cell.name] = json.loads(path.read_text()) | {"command": words}
            for measured in (root / cell.name / "eval").glob("*.json"):
                found[cell.name]["by_length"] = json.loads(measured.read_text())["lengths"]
    return {cell.name: found[cell.name] for cell in every if cell.name in found}


def tables(results: dict[str, dict]) -> str:
    """Markdown: losses, ablations, needles, state tracking, commands."""
    parts = ["### tinyshakespeare, bytes: nats per byte on validation (test) by seed\n"]
    parts += [
        row("model", "parameters", "length 64, 2,000 steps", "minutes", "length 1,024, 192 steps", "minutes"),
        line(6),
    ]
    for variant in WIDTHS:
        short, long = (_seeds(kind, variant, results) for kind in ("short", "long"))
        found = (_losses(short), _minutes(short), _losses(long), _minutes(long))
        parts.append(row(variant, _size([*short, *long]), *found))
    parts += [
        "\n### LMM at length 1,024: depth, and parts left out\n",
        row("model", "parameters", "val (test)", "minutes"),
        line(4),
    ]
    for name in ("lmm", *ABLATIONS):
        found = [results.get(f"long-{name}", {})]
        shown = "depth 2, all parts" if name == "lmm" else name
        parts.append(row(shown, _size(found), _losses(found), _minutes(found)))
    parts += ["\n### Passkey, trained at 160 bytes: share of samples right by seed (of digits, mean)\n"]
    parts += [row("model", "parameters", *NEEDLE_LENGTHS), line(2 + len(NEEDLE_LENGTHS))]
    parts += [_by_length("needle", name, results, NEEDLE_LENGTHS) for name in WIDTHS]
    tracked = (("parity", "Parity of bits"), ("swaps", "Products of swaps in S5"), ("permutations", "Products in S5"))
    for task, what in tracked:
        parts += [f"\n### {what}, trained at 32: share of samples right by seed (of steps, mean)\n"]
        parts += [row("model", "parameters", *TRACKING_LENGTHS), line(2 + len(TRACKING_LENGTHS))]
        parts += [_by_length(task, name, results, TRACKING_LENGTHS) for name in TRACKERS]
    parts += ["\n### What was run\n", row("cell", "epochs", "best epoch", "command"), line(4)]
    parts += [row(name, cell["epochs"], cell["best_epoch"], f"`{cell['command']}`") for name, cell in results.items()]
    return "\n".join(parts) + "\n"


def _seeds(kind: str, name: str, results: dict[str, dict]) -> list[dict]:
    """The cells of all seeds, empty where one is missing."""
    return [results.get(_name(kind, name, seed), {}) for seed in SEEDS[kind]]


def _size(cells: list[dict]) -> str:
    return next((f"{cell['parameters']:,}" for cell in cells if cell), "-")


def _shown(values: Iterable[float | None], digits: int) -> str:
    return " ".join("-" if value is None else f"{value:.{digits}f}" for value in values)


def _losses(cells: list[dict]) -> str:
    val, test = (_shown((cell.get(name) for cell in cells), 3) for name in ("val_loss", "test_loss"))
    return f"{val} ({test})"


def _minutes(cells: list[dict]) -> str:
    return next((f"{cell['fit_seconds'] / 60:.0f}" for cell in cells if cell), "-")


def _by_length(kind: str, name: str, results: dict[str, dict], lengths: tuple[str, ...]) -> str:
    """Shares of samples, seed by seed, and in brackets the mean share of tokens."""
    cells = _seeds(kind, name, results)
    measured = [[cell.get("by_length", {}).get(length, {}) for cell in cells] for length in lengths]
    shares = [_shown((each.get("accuracy") for each in found), 2) for found in measured]
    known = [[each["token_accuracy"] for each in found if each] for found in measured]
    means = [_shown([statistics.mean(each) if each else None], 2) for each in known]
    return row(name, _size(cells), *(f"{share} ({mean})" for share, mean in zip(shares, means, strict=True)))


def main() -> None:
    given = arguments(__doc__, "runs/lm_results")
    failed: list[str] = []
    record = recorded(RECORD, given)
    if not given.dry_run:
        done = finished(given.folder, record)
        failed = run_all([c for c in cells() if c.name not in done and given.only in c.name], given)
        failed += evaluate(given.folder, finished(given.folder, record), given.only, "1" if given.quick else SAMPLES)
    results = finished(given.folder, record)
    publish(given, RECORD, results, "language tables", tables(results))
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
