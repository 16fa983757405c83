"""`titans-seq data list|check|download`: the named data sets."""

import argparse
import difflib
from pathlib import Path

from titans_seq.cli.errors import UsageError
from titans_seq.cli.tables import show_paths, show_table
from titans_seq.datamodules import check_dataset, data_folder, download_dataset, list_datasets
from titans_seq.datamodules.forecast.registry import UNVERIFIED
from titans_seq.datamodules.genomics.benchmarks import BENCHMARKS, benchmark_folder, download_benchmark


def list_command(arguments: argparse.Namespace) -> None:
    """Print every named data set and whether it is here."""
    columns = ["name", "rows", "channels", "step", "here", "download", "sha256", "licence"]
    rows = [
        [
            info.name,
            info.rows,
            info.channels,
            info.frequency,
            info.present,
            info.downloadable,
            "known" if info.verifiable else UNVERIFIED,
            info.licence,
        ]
        for info in list_datasets()
    ]
    show_table("series", columns, rows)
    columns = ["name", "classes", "train", "test", "longest", "here"]
    rows = [
        [
            spec.name,
            len(spec.class_names),
            sum(spec.train),
            sum(spec.test),
            spec.max_length,
            benchmark_folder(spec) is not None,
        ]
        for spec in BENCHMARKS
    ]
    show_table("DNA sequences (GenomicBenchmarks)", columns, rows)
    show_paths("folder", [data_folder()])


def check_command(arguments: argparse.Namespace) -> None:
    """Print what is found about the named data sets, or about all that are here; a bad file is a UsageError."""
    names = arguments.names or [info.name for info in list_datasets() if info.present]
    if not names:
        raise UsageError(f"no data set in {data_folder()}; get one with `titans-seq data download ETTh1`")
    checks = [check_dataset(name) for name in names]
    rows = [[check.name, check.checksum, check.rows, check.channels, check.message] for check in checks]
    show_table("data sets", ["name", "checksum", "rows", "channels", "found"], rows)
    bad = [check for check in checks if not check.ok]
    if bad:
        raise UsageError("; ".join(f"{check.name}: {check.checksum}" for check in bad))


def download_command(arguments: argparse.Namespace) -> None:
    """Download the named data sets that are not here yet."""
    paths = [_download(name, arguments.quiet) for name in arguments.names]
    show_paths("here", paths)


def _download(name: str, quiet: bool) -> Path:
    of_dna = [spec.name for spec in BENCHMARKS]
    near = difflib.get_close_matches(name.lower(), of_dna, n=1, cutoff=0.8)
    return download_benchmark(name, quiet=quiet) if near else download_dataset(name, quiet=quiet)
