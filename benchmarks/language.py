"""The language tables of docs/results.md, from text/tinyshakespeare.txt in $TITANS_SEQ_DATA and from tasks made on the spot.

    TITANS_SEQ_DATA=<folder> python benchmarks/language.py [--workers 2] [--folder runs/lm_results] [--only NAME] [--dry-run]

Each cell is one command of `titans-seq`; those of tasks are followed by `eval lm` at longer samples. docs/results_lm.json keeps the
metrics of finished cells; a cell that stands there is not repeated (remove its entry to repeat it).
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cells import Command, arguments, run_all, titans_seq
from pages import line, replace_part, row

DOCS = Path(__file__).parent.parent / "docs"
RECORD = DOCS / "results_lm.json"
# widths that make the variants as large as each other (within 10 %), four layers and heads
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
TASKS = ("data.steps_per_epoch=200", "--epochs", "5", "training.learning_rate=2e-3")
NEEDLE = ("--task", "passkey", "--length", "160", "data.batch_size=16")
NEEDLE_LENGTHS = ("160", "640", "2560", "10240")
TRACKING = {
    task: ("--task", task, "--length", "32", "data.batch_size=32", *TASKS) for task in ("parity", "permutations")
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
            yield Command(f"{name}-{variant}", (*fit, "--variant", variant, f"model.dim={width}", *local, *options))
    for name, changed in ABLATIONS.items():
        yield Command(f"long-{name}", (*fit, "--variant", "lmm", f"model.dim={WIDTHS['lmm']}", *changed, *LONG))
    for variant, width in WIDTHS.items():
        local = [LOCAL[variant]] if variant in LOCAL else []
        words = ("fit", "lm", "--variant", variant, f"model.dim={width}", "model.layers=2", *local, *NEEDLE, *TASKS)
        yield Command(f"needle-{variant}", words)
    for task, options in TRACKING.items():
        for name, words in TRACKERS.items():
            yield Command(f"{task}-{name}", ("fit", "lm", *words, "model.dim=64", "model.layers=1", *options))


def evaluate(root: Path, done: dict[str, dict], only: str) -> list[str]:
    """Measure finished runs of tasks at several lengths; returns error lines."""
    failed = []
    for name in done:
        kind = name.partition("-")[0]
        task, lengths = ("passkey", NEEDLE_LENGTHS) if kind == "needle" else (kind, TRACKING_LENGTHS)
        asked = kind in ("needle", *TRACKING) and only in name
        # not only recorded, not yet measured
        if asked and (root / name).is_dir() and not (root / name / "eval").is_dir():
            words = ("--checkpoint", str(root / name), "--tasks", task, "--lengths", *lengths, "--samples", SAMPLES)
            error = titans_seq("eval", "lm", *words)
            failed += [error] if error else []
    return failed


def finished(root: Path) -> dict[str, dict]:
    """Metrics of every cell that is recorded or has a finished run folder; the folder counts first."""
    found = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    for cell in cells():
        path = root / cell.name / "metrics.json"
        if path.is_file():
            words = " ".join(("titans-seq", *cell.words)).replace(str(text().parents[1]), "<data>")
            found[cell.name] = json.loads(path.read_text()) | {"command": words}
            for measured in (root / cell.name / "eval").glob("*.json"):
                found[cell.name]["by_length"] = json.loads(measured.read_text())["lengths"]
    return found


def tables(results: dict[str, dict]) -> str:
    """Markdown: losses, ablations, needles, state tracking, commands."""
    parts = ["### tinyshakespeare, bytes: nats per byte on validation (test)\n"]
    parts += [
        row(
            "model",
            "parameters",
            "length 64, 2,000 steps",
            "minutes",
            "length 1,024, 192 steps",
            "minutes",
        ),
        line(6),
    ]
    for variant in WIDTHS:
        names = (f"short-{variant}", f"long-{variant}")
        found = [results.get(name, {}) for name in names]
        size = next((f"{cell['parameters']:,}" for cell in found if cell), "-")
        parts.append(row(variant, size, *(entry for cell in found for entry in (_loss(cell), _minutes(cell)))))
    parts += [
        "\n### LMM at length 1,024: depth, and parts left out\n",
        row("model", "parameters", "val (test)", "minutes"),
        line(4),
    ]
    for name in ("lmm", *ABLATIONS):
        cell = results.get(f"long-{name}", {})
        shown = "depth 2, all parts" if name == "lmm" else name
        parts.append(row(shown, f"{cell['parameters']:,}" if cell else "-", _loss(cell), _minutes(cell)))
    parts += ["\n### Passkey, trained at 160 bytes: share of samples (of digits) right\n"]
    parts += [row("model", "parameters", *NEEDLE_LENGTHS), line(2 + len(NEEDLE_LENGTHS))]
    parts += [_by_length(name, results.get(f"needle-{name}", {}), NEEDLE_LENGTHS) for name in WIDTHS]
    for task, what in (("parity", "Parity of bits"), ("permutations", "Products in S5")):
        parts += [f"\n### {what}, trained at 32: share of samples (of steps) right\n"]
        parts += [row("model", "parameters", *TRACKING_LENGTHS), line(2 + len(TRACKING_LENGTHS))]
        parts += [_by_length(name, results.get(f"{task}-{name}", {}), TRACKING_LENGTHS) for name in TRACKERS]
    parts += ["\n### What was run\n", row("cell", "epochs", "best epoch", "command"), line(4)]
    parts += [row(name, cell["epochs"], cell["best_epoch"], f"`{cell['command']}`") for name, cell in results.items()]
    return "\n".join(parts) + "\n"


def _loss(cell: dict) -> str:
    return f"{cell['val_loss']:.3f} ({cell['test_loss']:.3f})" if cell else "-"


def _minutes(cell: dict) -> str:
    return f"{cell['fit_seconds'] / 60:.0f}" if cell else "-"


def _by_length(name: str, cell: dict, lengths: tuple[str, ...]) -> str:
    found = cell.get("by_length", {})
    shares = [
        f"{found[length]['accuracy']:.2f} ({found[length]['token_accuracy']:.2f})" if length in found else "-"
        for length in lengths
    ]
    return row(name, f"{cell['parameters']:,}" if cell else "-", *shares)


def main() -> None:
    given = arguments(__doc__, "runs/lm_results")
    failed: list[str] = []
    if not given.dry_run:
        done = finished(given.folder)
        failed = run_all(
            [c for c in cells() if c.name not in done and given.only in c.name], given.folder, given.workers
        )
        failed += evaluate(given.folder, finished(given.folder), given.only)
    results = finished(given.folder)
    RECORD.write_text(json.dumps(results, indent=1) + "\n")
    replace_part(DOCS / "results.md", "language tables", tables(results))
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
