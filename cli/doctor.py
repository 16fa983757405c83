"""`titans-seq doctor`: what is installed, what it runs on, and what `auto` would choose."""

import argparse
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from titans_seq.cli.tables import show_record, show_table
from titans_seq.datamodules import data_folder, list_datasets
from titans_seq.kernels import machine_of, resolve_backend
from titans_seq.kernels.native_library import library
from titans_seq.kernels.support import why_not_auto

PACKAGES = (
    "titans-seq", "torch", "triton", "lightning", "torchmetrics", "hydra-core", "omegaconf", "jsonargparse", "numpy",
    "pandas", "scikit-learn", "gluonts", "genomic-benchmarks", "safetensors", "matplotlib", "rich",
)  # fmt: skip


def doctor(arguments: argparse.Namespace) -> None:
    """Print versions, devices, the data folder and the backend; nothing is changed or downloaded."""
    show_table("versions", ["package", "version"], [["python", platform.python_version()], *map(_version, PACKAGES)])
    show_record("machine", _machine())
    present = [info.name for info in list_datasets() if info.present]
    show_record("data", {"folder": data_folder(), "data sets": ", ".join(present) or "none (`titans-seq data list`)"})


def _version(package: str) -> list[str]:
    try:
        return [package, version(package)]
    except PackageNotFoundError:
        return [package, "not installed"]


def _build() -> str:
    build = library()
    assert build is not None, "auto took it"
    return f"compiled C, {Path(build._name).name}"


def _machine() -> dict[str, object]:
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("Apple MPS")
    threads = os.environ.get("OMP_NUM_THREADS")
    machine = machine_of("cuda" if torch.cuda.is_available() else "cpu", None)
    backend = resolve_backend("auto", machine)
    why = why_not_auto(machine) or ("CUDA device, triton is installed" if backend == "triton" else _build())
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": sys.executable,
        "devices": ", ".join(["CPU", *devices]),
        "cores": os.cpu_count() or 1,
        "threads": f"{torch.get_num_threads()}" + (f" (OMP_NUM_THREADS={threads})" if threads else ""),
        "backend auto": f"{backend} ({why})",
    }
