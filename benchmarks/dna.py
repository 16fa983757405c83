"""The DNA tables of docs/results.md, from the data in $TITANS_SEQ_DATA/dna.

    TITANS_SEQ_DATA=<folder> python benchmarks/dna.py [--workers 2] [--folder runs/dna_results] [--only NAME]
        [--dry-run] [--quick]

Each cell is one command of `titans-seq`. docs/results_dna.json keeps the metrics of finished cells, and the DNA part of
docs/results.md is written from it; a cell that stands there is not repeated (remove its entry to repeat it).
"""

import csv
import gzip
import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from cells import Command, arguments, publish, recorded, run_all, titans_seq
from dna_stream import language_model
from pages import line, row
from sklearn.metrics import roc_auc_score

from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.splits import GenomeWindows, contiguous_splits
from titans_seq.genomics.markov import MarkovModel
from titans_seq.genomics.module import NATS_PER_BIT
from titans_seq.genomics.stream import read_stream

DOCS = Path(__file__).parent.parent / "docs"
RECORD = DOCS / "results_dna.json"
MODELS = ("memory", "attention", "kmer")
FOLDS = 5
PSEUDOCOUNTS = (1.0, 16.0, 64.0)
CV = {"human_nontata_promoters": 4, "human_enhancers_cohn": 3}  # epochs
GUE = {  # epochs, batch, what dev chose about the strands and the size
    "prom_prom_300_tata": (8, 64, ["data.stranded=true"]),
    "prom_prom_core_all": (5, 128, ["data.stranded=true"]),
    "tf_0": (5, 128, ["--rc", "average"]),
    "tf_1": (6, 64, ["--rc", "average", "model.layers=2"]),
}
ECOLI = "ecoli_k12_mg1655.NC_000913.3"
LENGTH = 1024
WINDOWS = ["--length", str(LENGTH), "--epochs", "8", "model.layers=2", "data.batch_size=8"]
CARRY = ["--carry", "64"]  # the same model, trained on streams


def data_folder() -> Path:
    root = os.environ.get("TITANS_SEQ_DATA")
    if root is None or not (Path(root) / "dna").is_dir():
        sys.exit("no folder dna in $TITANS_SEQ_DATA")
    return Path(root) / "dna"


def cells(root: Path) -> Iterator[Command]:
    """All cells, those that matter most first; `root` is where the run folders lie."""
    data = data_folder()
    pretrain = ("pretrain", "dna", "--fasta", str(root / f"{ECOLI}.fa"), *WINDOWS)
    yield Command("ecoli", pretrain)
    yield Command("ecoli-carried", (*pretrain, *CARRY))
    for (task, (epochs, batch, strands)), model in product(GUE.items(), ("memory", "kmer", "attention")):
        files = [f"{data}/gue/{task}.{part}.csv.gz" for part in ("train", "dev", "test")]
        words = ["fit", "dna", "--csv", files[0], "--val-csv", files[1], "--test-csv", files[2], "--model", model]
        options = [] if model == "kmer" else ["--epochs", str(epochs), f"data.batch_size={batch}"]
        yield Command(f"{task}-{model}", (*words, *options, *(strands if model != "kmer" else [])))
    for (name, epochs), model, fold in product(CV.items(), ("memory", "kmer"), range(FOLDS)):
        words = ["fit", "dna", "--csv", f"{data}/genomic_benchmarks/{name}.test.csv.gz", "--model", model]
        options = [] if model == "kmer" else ["--epochs", str(epochs)]
        yield Command(f"{name}-{model}-fold{fold}", (*words, *options, f"data.folds={FOLDS}", f"data.fold={fold}"))


def unpack_panel(root: Path) -> None:
    """Genomes as plain FASTA in `root`: the files at hand are plain gzip, which has no index."""
    for source in (*(data_folder() / "genomes").glob("*.fa.gz"), *(data_folder() / "brca1_vep").glob("*.fa.gz")):
        place = root / source.name.removesuffix(".gz")
        if not place.exists():
            part = place.with_name(place.name + ".part")
            with gzip.open(source) as packed, part.open("wb") as plain:
                shutil.copyfileobj(packed, plain)
            part.replace(place)


def markov(root: Path) -> dict[str, object]:
    """Bits per base of Markov models on the test windows of the language model, fitted on its training part.

    For each order plain and interpolated models, both strands counted; the pseudocount that is best on the validation
    windows is taken.
    """
    genome = Genome(root / f"{ECOLI}.fa")
    splits = contiguous_splits(genome)
    train = [genome.tokens(part.record, part.begin, part.end) for part in splits["train"]]
    windows = {name: list(GenomeWindows(genome, splits[name], length=LENGTH)) for name in ("val", "test")}
    found: dict[str, object] = {}
    for interpolated, order in product((False, True), range(12)):
        tried = []
        for pseudocount in PSEUDOCOUNTS:
            model = MarkovModel.fit(train, order, pseudocount=pseudocount, both_strands=True, interpolated=interpolated)
            bits, bases = model.bits_per_base(windows["val"])
            tried.append((bits / bases, pseudocount, model))
        _, pseudocount, model = min(tried, key=lambda item: item[0])
        bits, bases = model.bits_per_base(windows["test"])
        name = f"{'interpolated' if interpolated else 'plain'} order {order}"
        found[name] = {"test_bits": bits / bases, "pseudocount": pseudocount, "test_bases": bases}
    return found


def brca1(root: Path) -> dict[str, object]:
    """AUROC of the zero-shot score of the language model for LOF variants of BRCA1, beside CADD and phyloP."""
    with gzip.open(data_folder() / "brca1_vep" / "findlay2018_sge.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    with (root / "brca1.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["record", "position0", "ref", "alt"])
        record = Genome(root / "NG_005905.2.fa").names[0]
        writer.writerows([record, row["ng_index"], row["ng_ref"], row["ng_alt"]] for row in rows)
    scores = root / "brca1_scores.csv"
    error = titans_seq(
        "score", "dna", "--checkpoint", str(root / "ecoli"), "--fasta", str(root / "NG_005905.2.fa"),
        "--csv", str(root / "brca1.csv"), "--window", "512", "--output", str(scores),
    )  # fmt: skip
    if error:
        sys.exit(error)
    with scores.open(newline="") as file:
        ours = [-float(row["score"]) for row in csv.DictReader(file)]
    columns = {"ours": ours} | {name: [float(row[name]) for row in rows] for name in ("cadd", "phylop_mammalian")}
    lost = [row["func_class"] == "LOF" for row in rows]
    clear = [row["func_class"] != "INT" for row in rows]
    found: dict[str, object] = {"variants": len(rows), "lof": sum(lost)}
    for name, values in columns.items():
        found[f"{name}_lof_against_func"] = roc_auc_score(
            [truth for truth, kept in zip(lost, clear, strict=True) if kept],
            [value for value, kept in zip(values, clear, strict=True) if kept],
        )
        found[f"{name}_lof_against_rest"] = roc_auc_score(lost, values)
    return found


def stream(root: Path, run: str) -> dict[str, object]:
    """Bits per base of a language model that reads the test part in one stream."""
    genome = Genome(root / f"{ECOLI}.fa")
    (part,) = contiguous_splits(genome)["test"]
    tokens = genome.tokens(part.record, part.begin, part.end)
    nats = np.concatenate([piece.log_likelihood for piece in read_stream(language_model(root / run), tokens)])
    bases = int((~np.isnan(nats)).sum())
    return {"test_bits": -float(np.nansum(nats, dtype=np.float64)) / NATS_PER_BIT / bases, "test_bases": bases}


# what is computed here, from runs that are finished: name -> (function, the run it needs)
COMPUTED: dict[str, tuple[Callable[[Path], dict[str, object]], str]] = {
    "markov": (markov, "ecoli"),
    "brca1": (brca1, "ecoli"),
    "ecoli-stream": (partial(stream, run="ecoli"), "ecoli"),
    "ecoli-carried-stream": (partial(stream, run="ecoli-carried"), "ecoli-carried"),
}


def finished(root: Path, record: dict[str, dict]) -> dict[str, dict]:
    """Metrics of every cell that is recorded or has a finished run folder; the folder counts first."""
    found = dict(record)
    commands = {cell.name: {"command": _shown(cell, root)} for cell in cells(root)}
    for name in (*commands, *COMPUTED):
        path = root / name / "metrics.json"
        if path.is_file():
            found[name] = json.loads(path.read_text()) | commands.get(name, {})
    return found


def _shown(cell: Command, root: Path) -> str:
    """The command without the places of this machine."""
    words = " ".join(("titans-seq", *cell.words)).replace(str(root), "<folder>")
    return words.replace(str(data_folder()), "<data>/dna")


# AUROC of logistic regression on frozen mean-pooled embeddings: lowest and highest of DNABERT-2, NT-v2, HyenaDNA,
# Caduceus-Ph and GROVER (Nat. Commun. 2025, s41467-025-65823-8); that its TFBS 1 is tf_0 is inferred from the order
FROZEN = {"prom_prom_300_tata": ".760-.808", "prom_prom_core_all": ".831-.875", "tf_0": ".830-.880"}
# accuracy in %, trained on the official training part: the package's CNN, Caduceus-Ph (Caduceus, table 1), Titans
# (table 4)
PUBLISHED = {"human_nontata_promoters": ("84.6", "94.6", "96.6"), "human_enhancers_cohn": ("69.5", "74.7", "75.2")}


def tables(results: dict[str, dict]) -> str:
    """Markdown: GUE, cross-validation, bits per base, variants."""
    parts = ["### GUE, official train / dev / test: test MCC (AUROC)\n"]
    parts += [row("task", *MODELS, "published frozen AUROC", "test in train", "best epoch"), line(len(MODELS) + 4)]
    for task in GUE:
        cells = [results.get(f"{task}-{model}", {}) for model in MODELS]
        scores = [f"{cell['test_mcc']:.3f} ({cell['test_auroc']:.3f})" if cell else "-" for cell in cells]
        last = [cells[0].get(key, "-") for key in ("test_sequences_in_train", "best_epoch")]
        parts.append(row(task, *scores, FROZEN.get(task, "n/p"), *last))
    parts += ["\n### GenomicBenchmarks, 5-fold cross-validation of the official test part alone: accuracy in %, MCC\n"]
    parts += [row("data set", "memory", "kmer", "folds", "CNN*", "Caduceus-Ph*", "Titans*"), line(7)]
    for name in CV:
        folds = {model: _folds(results, name, model) for model in ("memory", "kmer")}
        done = f"{len(folds['memory'])} / {len(folds['kmer'])}"
        parts.append(row(name, *map(_spread, folds.values()), done, *PUBLISHED[name]))
    parts += ["\n\\* trained on the official training part, three to four times as much: not comparable."]
    parts += ["\n### E. coli K-12, held-out 5 %: bits per base\n", row("model", "test bits"), line(2)]
    if "ecoli" in results:
        cell = results["ecoli"]
        parts.append(row(f"memory, {cell['parameters']:,} parameters", f"**{cell['test_bits']:.4f}**"))
    if "ecoli-carried" in results:
        parts.append(row("the same, trained on streams", f"{results['ecoli-carried']['test_bits']:.4f}"))
    if "ecoli-carried-stream" in results:
        parts.append(row("the same, in one stream", f"**{results['ecoli-carried-stream']['test_bits']:.4f}**"))
    if "ecoli-stream" in results:
        parts.append(row("trained on windows, in one stream", f"{results['ecoli-stream']['test_bits']:.4f}"))
    for name, found in results.get("markov", {}).items():
        parts.append(row(f"Markov, {name}, pseudocount {found['pseudocount']:g}", f"{found['test_bits']:.4f}"))
    parts += [
        "\n### BRCA1, zero-shot AUROC of loss of function\n",
        row("score", "LOF against FUNC", "LOF against the rest"),
    ]
    parts += [line(3)]
    if "brca1" in results:
        for name in ("ours", "cadd", "phylop_mammalian"):
            cell = results["brca1"]
            parts.append(
                row(name, f"{cell[f'{name}_lof_against_func']:.3f}", f"{cell[f'{name}_lof_against_rest']:.3f}")
            )
    parts += ["\n### What was run\n", row("cell", "parameters", "epochs", "minutes", "command"), line(5)]
    for name, cell in results.items():
        if "parameters" in cell and "fold" not in name or name.endswith("memory-fold0"):
            minutes = f"{cell['fit_seconds'] / 60:.0f}"
            parts.append(row(name, f"{cell['parameters']:,}", cell["epochs"], minutes, f"`{cell['command']}`"))
    return "\n".join(parts) + "\n"


def _folds(results: dict[str, dict], name: str, model: str) -> list[dict]:
    cells = (results.get(f"{name}-{model}-fold{fold}") for fold in range(FOLDS))
    return [cell for cell in cells if cell]


def _spread(cells: list[dict]) -> str:
    if not cells:
        return "-"
    accuracy, mcc = ([cell[key] for cell in cells] for key in ("test_accuracy", "test_mcc"))
    deviation = 100 * statistics.stdev(accuracy) if len(cells) > 1 else float("nan")
    return f"{100 * statistics.mean(accuracy):.1f} ± {deviation:.1f}, {statistics.mean(mcc):.3f}"


def main() -> None:
    given = arguments(__doc__, "runs/dna_results")
    root, failed = given.folder, []
    record = recorded(RECORD, given)
    unpack_panel(root)
    if not given.dry_run:
        done = finished(root, record)
        todo = [cell for cell in cells(root) if cell.name not in done and given.only in cell.name]
        failed = run_all(todo, given)
        for name, (compute, needed) in COMPUTED.items():
            if name not in finished(root, record) and needed in finished(root, record) and given.only in name:
                (root / name).mkdir(exist_ok=True)
                (root / name / "metrics.json").write_text(json.dumps(compute(root), indent=1))
    results = finished(root, record)
    publish(given, RECORD, results, "dna tables", tables(results))
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
