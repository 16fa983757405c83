"""A fitted forecaster in a folder: JSON and safetensors; nothing is pickled."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from titans_seq.building import build_with_weights
from titans_seq.datamodules.forecast.panel import Columns, pack_panel, unpack_panel
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.forecast.conformal import Conformal, check_levels
from titans_seq.forecast.fitted import FittedForecaster
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import SimbaForecaster
from titans_seq.forecast.saving import (
    WRONG,
    first_line,
    joined_weights,
    output_of,
    plain_output,
    require_rows,
    split_weights,
)
from titans_seq.model_folders import WEIGHTS, read_folder, write_folder

KIND, VERSION, SERIES = "forecaster", 5, "series.safetensors"


def save_forecaster(fitted: FittedForecaster, folder: Path, about: dict[str, Any] | None = None) -> Path:
    """Write a folder that `load_forecaster` reads.

    Args:
        fitted: the forecaster.
        folder: is made.
        about: what else to keep, as JSON can hold it.

    Raises:
        ValueError: a name or an option cannot be written as JSON.
        OSError: the disk is full, or refuses it.
    """
    header, arrays = pack_panel(fitted.tail)
    scaling, more = fitted.scaling.pack()
    arrays |= more
    if fitted.conformal is not None:
        arrays["margin"] = fitted.conformal.margin
    config = {
        **header,
        **scaling,
        "columns": vars(fitted.tail.columns),
        "network": fitted.network.options,
        "output": plain_output(fitted.module.output),
        "learning": {name: getattr(fitted.module, name) for name in ("learning_rate", "weight_decay")},
        "train_blocks": fitted.train_blocks,
        "levels": None if fitted.conformal is None else fitted.conformal.levels,
        "alias": fitted.alias,
        "correlation": fitted.correlation,
        "members": len(fitted.modules),
        "about": about or {},
    }
    series = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    tensors = {WEIGHTS: joined_weights([module.network for module in fitted.modules]), SERIES: series}
    write_folder(folder, KIND, VERSION, config, tensors)
    return folder


def load_forecaster(folder: Path) -> tuple[FittedForecaster, dict[str, Any]]:
    """What `save_forecaster` wrote, on the CPU, and its `about`.

    Raises:
        ValueError: the folder or one of its files is missing, damaged or of another version.
    """
    config, (weights, series) = read_folder(folder, KIND, VERSION, [WEIGHTS, SERIES])
    arrays = {name: tensor.numpy() for name, tensor in series.items()}
    try:
        return _rebuilt(config, weights, arrays), dict(config["about"])
    except WRONG as error:
        raise ValueError(f"the files in {folder} do not fit each other: {first_line(error)}") from None


def _rebuilt(config: dict[str, Any], weights: dict[str, Any], arrays: dict[str, Any]) -> FittedForecaster:
    whole, wide = config["train_blocks"], config["wide"]
    if isinstance(whole, bool) or not isinstance(whole, int) or whole < 1 or not isinstance(wide, bool):
        raise ValueError(f"train_blocks must be a whole number and wide true or false; got {whole!r}, {wide!r}")
    members = split_weights(weights, config["members"])
    network, *more = (build_with_weights(SimbaForecaster, config["network"], each) for each in members)
    names: dict[str, Any] = config["columns"]
    lists = {key: tuple(name) for key, name in names.items() if isinstance(name, list)}
    columns = Columns(**(names | lists))
    conformal = None
    if config["levels"] is not None:
        check_levels(config["levels"], "levels")
        conformal = Conformal(config["levels"], arrays["margin"])
        if conformal.margin.shape != (len(conformal.levels), network.horizon) or np.isnan(conformal.margin).any():
            raise ValueError(f"margin must be {(len(conformal.levels), network.horizon)}, without NaN")
    require_rows(config["ids"], arrays)
    modules = [
        ForecastModule(each, output=output_of(config["output"]), **config["learning"]).eval()
        for each in (network, *more)
    ]
    return FittedForecaster(
        module=modules[0],
        scaling=PanelScaling.unpack(config, arrays),
        tail=unpack_panel(config, arrays, columns),
        train_blocks=config["train_blocks"],
        conformal=conformal,
        alias=config["alias"],
        correlation=_correlation(config["correlation"]),
        others=tuple(modules[1:]),
    )


def _correlation(saved: Any) -> float | None:
    if saved is not None and not (isinstance(saved, float) and -1 < saved < 1):
        raise ValueError(f"correlation must be a number between -1 and 1; got {saved!r}")
    return saved
