"""A recorded model and the weights it belongs to: they are compared before any memory is taken."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from titans_seq import __version__
from titans_seq.building import build_on_meta, first_difference
from titans_seq.cli import recorded, registry
from titans_seq.cli.errors import UsageError
from titans_seq.cli.memory import machine_memory
from titans_seq.cli.runs import CONFIG
from titans_seq.training import TrainedModule

_BLOCK = re.compile(r"\bblocks\.(\d+)\.")
# a float32 weight, its gradient and AdamW's two moments; on a GPU only the weight passes through this machine's memory
_TRAINED, _LOADED = 16, 4


def check(config: DictConfig, make: Callable[[], nn.Module], weights: Mapping[str, Any] | None, folder: Path) -> None:
    """Refuse a configuration whose model does not fit the run's weights, with a UsageError.

    make: builds the module; here it does so without allocating anything. weights: by name; None: the run has no
    checkpoint yet, and this machine must have room for the model. A class of the user's own is not looked into.
    """
    model = config.model
    if registry.find(model["_target_"], "model") is None:
        return
    if weights is not None:
        blocks, held = model.get("blocks", model.get("layers")), {m[1] for m in map(_BLOCK.search, weights) if m}
        if blocks is not None and blocks != len(held):
            raise _unfit(config, folder, f" ({blocks} blocks, {len(held)} in the checkpoint)")
    made = build_on_meta(make)
    if weights is None:
        return _require_room(made, folder)
    difference = first_difference(made, weights)
    if difference is not None:
        raise _unfit(config, folder, f" ({difference})")
    return None


def load_weights(module: TrainedModule, checkpoint: Mapping[str, Any], config: DictConfig, folder: Path) -> None:
    """Give the module the weights of a checkpoint of the run in `folder`."""
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError:
        raise _unfit(config, folder) from None


def _unfit(config: DictConfig, folder: Path, what: str = "") -> UsageError:
    other = recorded.other_version(config)
    made = f"; it was made by titans-seq {other}, this is {__version__}" if other else ""
    return UsageError(f"the checkpoint in {folder} does not fit the model of its {CONFIG}{what}{made}")


def _require_room(made: nn.Module, folder: Path) -> None:
    needed = sum(weight.numel() for weight in made.parameters()) * (_LOADED if torch.cuda.is_available() else _TRAINED)
    there = machine_memory()
    if needed > there:
        raise UsageError(
            f"the model of {folder / CONFIG} needs {needed / 2**30:,.0f} GiB, this machine has {there / 2**30:,.0f}"
        )
