"""`titans-seq test|predict|embed|score|surprise dna`: what a trained DNA model is used for."""

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, track

from titans_seq.cli import checkpoints, fitting, recorded, runs, training
from titans_seq.cli.constructors import build
from titans_seq.cli.dna import CLASSIFY, PRETRAIN, draw_test, on_device, require_unstranded, task_of
from titans_seq.cli.errors import UsageError
from titans_seq.cli.pictures import draw
from titans_seq.cli.tables import show_paths, show_record, show_table
from titans_seq.cli.tasks import Job, Task
from titans_seq.datamodules import DataError, Labelled
from titans_seq.datamodules.common.files import base_name, user_path
from titans_seq.datamodules.genomics.alphabet import encode
from titans_seq.datamodules.genomics.batches import TokenDataset, collate
from titans_seq.datamodules.genomics.data import PROTOCOLS, DNAClassData, classes_of
from titans_seq.datamodules.genomics.genome import Genome
from titans_seq.datamodules.genomics.labelled import Sequences, read_sequences
from titans_seq.datamodules.genomics.variants import read_variants
from titans_seq.files import replacing
from titans_seq.genomics import DNAClassifier, DNALanguageModel, DNAModule
from titans_seq.genomics.features import features, pool
from titans_seq.genomics.module import CHANCE_BITS, NATS_PER_BIT
from titans_seq.genomics.pictures import plot_track
from titans_seq.genomics.scoring import alleles, score_variants
from titans_seq.genomics.stream import Track, bin_mean, read_stream, write_bedgraph
from titans_seq.mixers import has_memory
from titans_seq.printable import printable
from titans_seq.training import best_device

T = TypeVar("T")
BATCH = 64  # sequences read together
PIECE = 2**15  # bases of a stream read together
POINTS = 2000  # of a picture
PICTURES = 4  # records that are drawn, the longest ones


def _load(arguments: argparse.Namespace, *keys: str) -> tuple[DNAModule, Path]:
    """The trained module of a run of one of these tasks, ready to be used, and its run folder."""
    rc = getattr(arguments, "rc", None)
    folder, path = checkpoints.split_checkpoint(user_path(arguments.checkpoint))
    config = recorded.read_config(folder, *keys, trust=recorded.named_again(arguments.trust))
    checkpoint = checkpoints.load_checkpoint(path)
    training.hush(arguments.quiet)
    module = fitting.restored(config, lambda: task_of(config).restored(config, checkpoint), checkpoint, folder)
    assert isinstance(module, DNAModule)
    if rc is not None:
        require_unstranded(rc, classes_of(checkpoint.get(DNAClassData.__qualname__))[1], str(folder))
        module.rc = rc
    fitting.check_backend(config.model, place=folder / runs.CONFIG)
    return module.eval().to(best_device()), folder


def _language_model(arguments: argparse.Namespace) -> tuple[DNALanguageModel, Path]:
    module, folder = _load(arguments, PRETRAIN.key)
    assert isinstance(module.network, DNALanguageModel)
    return module.network, folder


def _input(arguments: argparse.Namespace) -> Sequences:
    given = [path for path in (arguments.csv, arguments.fasta) if path]
    if len(given) != 1:
        raise UsageError("give the sequences by --csv or by --fasta, one of the two")
    if arguments.csv:
        return read_sequences(arguments.csv)
    genome = Genome(arguments.fasta)
    return Sequences(genome.names, tuple(genome.tokens(name) for name in genome.names))


def _output(arguments: argparse.Namespace, folder: Path, what: str, source: str, suffix: str) -> Path:
    """The file to write: --output, or one in the run folder that is named after its input."""
    if arguments.output is not None:
        return runs.new_file(user_path(arguments.output))
    return runs.free(folder / f"{what}-{base_name(source)}{suffix}")


def _tracked(arguments: argparse.Namespace, rows: Iterable[T], total: int, what: str) -> Iterable[T]:
    if arguments.quiet or not sys.stderr.isatty():
        return rows
    return track(rows, description=what, total=total, console=Console(stderr=True))


@contextmanager
def _new_file(path: Path, mode: str, **options: Any) -> Iterator[Any]:
    """A file that takes its name once it is complete."""
    with replacing(path) as part, part.open(mode, **options) as file:
        yield file


def _batches(tokens: Sequence[np.ndarray]) -> Iterator[dict[str, torch.Tensor]]:
    rows = TokenDataset(tokens)
    for begin in range(0, len(tokens), BATCH):
        yield on_device(collate([rows[i] for i in range(begin, min(begin + BATCH, len(tokens)))]))


def test_command(arguments: argparse.Namespace) -> None:
    """`titans-seq test dna`: metrics on the test split, to RUN/test_metrics.json."""
    folder, path = checkpoints.split_checkpoint(user_path(arguments.checkpoint))
    trust = recorded.named_again(arguments.trust)
    config = recorded.read_config(folder, PRETRAIN.key, CLASSIFY.key, trust=trust)
    task, checkpoint = task_of(config), checkpoints.load_checkpoint(path)
    task.check(config)
    config.quiet = arguments.quiet
    training.hush(config.quiet)
    trained_on = _training_split(config) if arguments.csv and task is CLASSIFY else None
    own = _own_data(config, task, arguments)
    data = task.data(config, "test", checkpoint, download=False)
    module = fitting.restored(config, lambda: task.module(config, data), checkpoint, folder)
    job = Job(task, config, data, module, fitting.make_tester(config, folder))
    with training.interruptible(job.trainer, "nothing was written"):
        tested = job.trainer.test(job.module, datamodule=job.data, verbose=False)[0]
    metrics = fitting.finite({**task.about(job), **tested})
    if own and isinstance(data, DNAClassData):
        metrics["test_sequences_in_train"] = "unknown" if trained_on is None else data.leak(trained_on)
    place = runs.make_new_folder(folder / f"test-{metrics['dataset']}") if own else folder
    path = place / (runs.METRICS if own else "test_metrics.json")
    runs.write_json(path, metrics)
    show_record(task.title(metrics), metrics)
    pictures = [] if task is PRETRAIN else draw_test(job, place)
    show_paths("metrics", [path, *pictures])


def _training_split(config: DictConfig) -> Labelled | None:
    """What the run was trained on, if its files are still there."""
    data: DNAClassData = build(config.data, "data")
    if data.spec is not None:  # not worth a download
        return None
    try:
        data.setup("fit")
    except DataError:
        return None
    return data.splits["train"]


def _own_data(config: DictConfig, task: Task, arguments: argparse.Namespace) -> bool:
    """Put a file of --csv or --fasta in the place of the run's data; return whether there is one."""
    if arguments.rc:
        config.training.rc = arguments.rc
    if task is PRETRAIN:
        if arguments.csv:
            raise UsageError("--csv holds labelled sequences, but the run is a language model; give --fasta")
        if arguments.fasta:
            config.data.fasta, config.data.bed = str(user_path(arguments.fasta).absolute()), None
            config.data.val_records, config.data.test_records, config.data.whole = [], [], True
        return bool(arguments.fasta)
    if arguments.fasta:
        raise UsageError("--fasta is for language models; test a classifier on --csv, which has labels")
    if arguments.csv:
        for key in ("dataset", "val_csv", "test_csv", "bed", "fasta"):
            config.data[key] = None
        config.data.csv, config.data.whole = str(user_path(arguments.csv).absolute()), True
        config.data.folds, config.data.fold, config.data.protocol = 0, 0, PROTOCOLS[0]
    return bool(arguments.csv)


@torch.inference_mode()
def predict_command(arguments: argparse.Namespace) -> None:
    """`titans-seq predict dna`: probabilities of the classes, a row per sequence."""
    module, folder = _load(arguments, CLASSIFY.key)
    names: tuple[str, ...] = module.network.class_names  # type: ignore[assignment]
    sequences = _input(arguments)
    path = _output(arguments, folder, "predictions", arguments.csv or arguments.fasta, ".csv")
    counts = dict.fromkeys(names, 0)
    with _new_file(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prediction", *(f"p_{name}" for name in names)])
        ids = iter(sequences.ids)
        batches = _tracked(arguments, _batches(sequences.tokens), -(-len(sequences.ids) // BATCH), "predict")
        for row in (row for batch in batches for row in module(batch).cpu().double().numpy()):
            best = names[int(row.argmax())]
            counts[best] += 1
            writer.writerow([next(ids), best, *(f"{value:.6f}" for value in row)])
    show_record("predictions", {"sequences": len(sequences.ids), **counts})
    show_paths("file", [path])


@torch.inference_mode()
def embed_command(arguments: argparse.Namespace) -> None:
    """`titans-seq embed dna`: features, a row per sequence or per base."""
    module, folder = _load(arguments, PRETRAIN.key, CLASSIFY.key)
    network = module.network
    if not isinstance(network, DNALanguageModel | DNAClassifier):
        raise UsageError(f"{folder} holds a k-mer model, which has no features; use a run of another model")
    blocks = len(network.encoder.blocks)
    if arguments.layer is not None and arguments.layer > blocks:
        raise UsageError(f"--layer must be at most {blocks}, the blocks of this model; got {arguments.layer}")
    sequences = _input(arguments)
    path = _output(arguments, folder, "embeddings", arguments.csv or arguments.fasta, ".npz")
    if path.suffix != ".npz":
        raise UsageError(f"--output must end in .npz; got {path}")
    per_base, rows = arguments.pooling == "none", []
    for batch in _tracked(arguments, _batches(sequences.tokens), -(-len(sequences.ids) // BATCH), "embed"):
        mask = batch.get("mask")
        made = features(network, batch["tokens"], mask=mask, layer=arguments.layer)
        made = (made.flatten(0, 1) if mask is None else made[mask]) if per_base else pool(made, mask, arguments.pooling)
        rows.append(made.float().cpu().numpy())
    arrays = {"embeddings": np.concatenate(rows), "ids": np.array(sequences.ids)}
    if per_base:  # bases of sequence i: rows offsets[i] to offsets[i + 1]
        arrays["offsets"] = np.cumsum([0, *map(len, sequences.tokens)])
    layer = f"block {arguments.layer} of {blocks}" if arguments.layer else f"the last of {blocks}, normalised"
    arrays |= {"layer": np.array(layer), "pooling": np.array(arguments.pooling)}
    with _new_file(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    about = {"sequences": len(sequences.ids), "rows x width": " x ".join(map(str, arrays["embeddings"].shape))}
    show_record("embeddings", {**about, "layer": layer, "pooling": arguments.pooling})
    show_paths("file", [path])


def score_command(arguments: argparse.Namespace) -> None:
    """`titans-seq score dna`: log-likelihood of the alternative minus the reference allele."""
    model, folder = _language_model(arguments)
    if bool(arguments.vcf) == bool(arguments.csv):
        raise UsageError("give the variants by --vcf or by --csv, one of the two")
    genome = Genome(arguments.fasta)
    source = arguments.vcf or arguments.csv
    variants = read_variants(source, genome)
    if model.encoder.bidirectional and any(len(row.ref) != 1 or len(row.alt) != 1 for row in variants.rows):
        raise UsageError(
            f"{folder} is a masked model, which scores single bases only; use a next-base model for others"
        )
    longest = max((max(len(row.ref), len(row.alt)) for row in variants.rows), default=0)
    if arguments.window < longest:
        raise UsageError(f"--window must hold the longest allele, {longest} bases; got {arguments.window}")
    path = _output(arguments, folder, "scores", source, ".csv")
    windows = (
        alleles(genome.record(row.record), row.position, encode(row.ref), encode(row.alt), arguments.window)
        for row in variants.rows
    )
    means = []
    with _new_file(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "id", "record", "position", "ref", "alt", "score", "forward", "reverse"])
        scores = _tracked(arguments, score_variants(model, windows), len(variants.rows), "score")
        for row, score in zip(variants.rows, scores, strict=True):
            means.append(score.mean)
            values = (f"{value:.6f}" for value in (score.mean, score.forward, score.reverse))
            writer.writerow([row.row, row.id, row.record, row.position + 1, row.ref, row.alt, *values])
    skipped = {"skipped (symbolic alleles)": variants.skipped} if variants.skipped else {}
    show_record("scores", {"variants": len(means), **skipped, "mean score": float(np.mean(means)) if means else "-"})
    show_paths("file", [path])


@dataclass
class _Reading:
    """What is known of a record once it has been read."""

    bits: float = 0.0
    bases: int = 0
    surprise: float = 0.0
    edges: list[np.ndarray] = field(default_factory=list)
    means: list[np.ndarray] = field(default_factory=list)  # of surprise and bits, [2, bins]


def surprise_command(arguments: argparse.Namespace) -> None:
    """`titans-seq surprise dna`: the memory's surprise along a genome, read in one stream per record."""
    model, folder = _language_model(arguments)
    if model.encoder.bidirectional:
        raise UsageError(f"{folder} is a masked model, which has no stream; use a run of --objective next")
    if not all(has_memory(block.mixer) for block in model.encoder.blocks):
        raise UsageError(f"{folder} has no memory to be surprised; use a run of model=memory, mac, mag or mal")
    genome = Genome(arguments.fasta)
    if arguments.record is not None:
        genome.require(arguments.record)
    names = genome.names if arguments.record is None else (arguments.record,)
    path = runs.new_file(user_path(arguments.bedgraph))
    readings = {name: _Reading() for name in names}
    total = sum(genome.lengths[name] for name in names)
    with _bar(arguments, total) as advance:
        tracks = (piece for name in names for piece in _read(model, genome, name, arguments, readings[name], advance))
        what = "surprise of the memory" if arguments.track == "surprise" else "bits per base"
        write_bedgraph(path, tracks, name=f"titans-seq {arguments.track}", description=what)
    columns = ["record", "bases", "bits per base", "mean surprise"]
    rows = [
        [name, r.bases, r.bits / max(r.bases, 1), r.surprise / max(genome.lengths[name], 1)]
        for name, r in readings.items()
    ]
    show_table("one stream per record (2 bits per base is chance)", columns, rows)
    show_paths("files", [path, *_draw(path, genome, readings)])


@contextmanager
def _bar(arguments: argparse.Namespace, total: int) -> Iterator[Any]:
    """A bar over bases, with the bits per base so far."""
    with Progress(console=Console(stderr=True), disable=arguments.quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task("read", total=total)
        yield lambda bases, said: progress.update(task, advance=bases, description=said)


def _read(
    model: DNALanguageModel, genome: Genome, name: str, arguments: argparse.Namespace, reading: _Reading, advance: Any
) -> Iterator[Track]:
    length = genome.lengths[name]
    coarse = arguments.bin * max(1, length // (POINTS * arguments.bin))  # of the picture
    piece = -(-PIECE // coarse) * coarse  # whole bins of both kinds
    parts = (genome.tokens(name, begin, min(begin + piece, length)) for begin in range(0, length, piece))
    for part in read_stream(model, parts, piece=piece):
        bits = -part.log_likelihood.astype(np.float64) / NATS_PER_BIT
        reading.bits += float(np.nansum(bits))
        reading.bases += int((~np.isnan(bits)).sum())
        reading.surprise += float(part.surprise.sum(dtype=np.float64))
        both = [bin_mean(values, part.begin, coarse) for values in (part.surprise, bits)]
        reading.edges.append(both[0][0][:-1])
        reading.means.append(np.stack([means for _, means in both]))
        advance(len(bits), f"{escape(printable(name, 40))}: {reading.bits / max(reading.bases, 1):.4f} bits per base")
        yield (name, *bin_mean(part.surprise if arguments.track == "surprise" else bits, part.begin, arguments.bin))


def _draw(path: Path, genome: Genome, readings: dict[str, _Reading]) -> list[Path]:
    longest = sorted(readings, key=lambda name: -genome.lengths[name])[:PICTURES]
    pictures: list[Path] = []
    for name in longest:
        reading = readings[name]
        surprise, bits = np.concatenate(reading.means, axis=1)
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
        place = path.with_name(f"{path.stem}-{safe[:100]}.png")
        tracks = {"surprise": surprise, "bits per base": bits}
        chance = {"bits per base": CHANCE_BITS}
        pictures += draw(plot_track, np.concatenate(reading.edges), tracks, place, title=name, chance=chance)
    return pictures
