"""The sizes of a recorded model against the weights it belongs to, before any memory is taken."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from titans_seq.building import build_on_meta, first_difference
from titans_seq.cli import registry
from titans_seq.cli.errors import UsageError
from titans_seq.cli.runs import CONFIG

_BLOCK = re.compile(r"\bblocks\.(\d+)\.")
# a float32 weight, its gradient and AdamW's two moments; on a GPU only the weight passes through this machine's memory
_TRAINED, _LOADED = 16, 4


def check(
    model: Mapping[str, Any], make: Callable[[], nn.Module], weights: Mapping[str, Any] | None, folder: Path
) -> None:
    """Refuse a model section that does not fit the run's weights, with a UsageError.

    make: builds the module; here it does so without allocating anything. weights: by name; None: the run has no
    checkpoint yet, and this machine must have room for the model. A class of the user's own is not looked into.
    """
    if registry.find(model["_target_"], "model") is None:
        return
    if weights is not None:
        blocks, found = model.get("blocks", model.get("layers")), {m[1] for m in map(_BLOCK.search, weights) if m}
        if blocks is not None and blocks != len(found):
            raise _unfit(folder, f"{blocks} blocks, {len(found)} in the checkpoint")
    made = build_on_meta(make)
    if weights is None:
        return _require_room(made, folder)
    found = first_difference(made, weights)
    if found is not None:
        raise _unfit(folder, found)
    return None


def _unfit(folder: Path, what: str) -> UsageError:
    return UsageError(
        f"the checkpoint in {folder} does not fit the model of its {CONFIG} ({what}), or is of another version of "
        "titans-seq"
    )


def _require_room(made: nn.Module, folder: Path) -> None:
    needed = sum(weight.numel() for weight in made.parameters()) * (_LOADED if torch.cuda.is_available() else _TRAINED)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UsageError(
            f"the model of {folder / CONFIG} needs {needed / 2**30:,.0f} GiB, this machine has {there / 2**30:,.0f}"
        )
