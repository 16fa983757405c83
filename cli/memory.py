"""Whether a machine can hold the training batches of a forecaster, asked before it trains."""

import math
import os

import torch
from torch import Tensor

from titans_seq.cli.errors import UsageError
from titans_seq.forecast import ForecastModule
from titans_seq.forecast.module import Batch
from titans_seq.forecast.network import inputs_of

SERIES = 8  # measured; the network reads each for itself
# memory at the peak of a step by what is kept for the backward pass: a memory makes anew there what it has not kept
PEAK_OF_MEMORY = 3.5


def require_memory(module: ForecastModule, window: Batch, batch_size: int, peak: float, device: torch.device) -> None:
    """Refuse a batch size whose training step needs more memory than there is, by a small measurement.

    Args:
        window: one, with a sample of each of its C series.
        peak: memory at the peak of a step, by what is kept for the backward pass; at most what it really is.
    """
    channels = len(window["past_target"])
    sample = {name: value[:SERIES].to(device) for name, value in inputs_of(window).items()}
    needed = peak * _kept_bytes(module.to(device), sample) / min(SERIES, channels) * channels
    there = _memory_of(device)
    if needed * batch_size <= there:
        return
    fits = int(there / needed / 2)  # half: the measurement is a lower bound
    advice = f"give data.batch_size={fits} data.eval_batch_size={fits}" if fits else "leave columns out"
    raise UsageError(
        f"a training batch of {batch_size} windows x {channels:,} series needs at least "
        f"{needed * batch_size / 1e9:,.0f} GB of memory, but there are {there / 1e9:,.0f} GB; {advice}"
    )


def _kept_bytes(module: ForecastModule, sample: Batch) -> int:
    """Bytes that one forward pass keeps for its backward pass, weights left out."""
    kept: dict[int, Tensor] = {}  # by storage, alive, so that no address is used twice
    weights = {weight.untyped_storage().data_ptr() for weight in module.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    # dropout draws numbers, and a run that goes on does not come here
    past = sample["past_target"]
    devices = [past.device] if past.is_cuda else []
    with torch.random.fork_rng(devices), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(**sample)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)


def _memory_of(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return machine_memory()


def machine_memory() -> float:
    """Bytes of memory; infinite on Windows, where nothing in Python tells, so that no size is refused there."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
