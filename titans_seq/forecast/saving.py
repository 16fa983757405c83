"""A fitted forecaster in a folder: `config.json`, `model.safetensors`, `series.safetensors`. Nothing is pickled."""

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors
import torch
from gluonts.torch.distributions import Output
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_weights
from safetensors.torch import save_file as save_weights
from sklearn.preprocessing import StandardScaler
from torch import nn

from titans_seq.datamodules.frames import Columns
from titans_seq.datamodules.panel import PanelScaling
from titans_seq.datamodules.panel_io import packed, unpacked
from titans_seq.datamodules.scaling import scaler_from
from titans_seq.files import replacing
from titans_seq.forecast.conformal import Conformal
from titans_seq.forecast.online import Stream
from titans_seq.forecast.outputs import OUTPUTS, output_arguments
from titans_seq.forecast.panel import PanelForecaster, PanelModule
from titans_seq.state_io import ObservedState, load_state, save_state

if TYPE_CHECKING:
    from titans_seq.forecaster import TitansForecaster

FORMAT, VERSION = "titans-seq forecaster", 1
CONFIG, WEIGHTS, SERIES = "config.json", "model.safetensors", "series.safetensors"


def save_fitted(forecaster: "TitansForecaster", folder: Path) -> Path:
    """Write the forecaster; every file is whole or not there, and `config.json` comes last.

    Raises:
        ValueError: a name or an option cannot be written as JSON.
    """
    scaling = forecaster.scaling_
    about, arrays = packed(forecaster.tail_)
    arrays["scales"] = scaling.scales.to_numpy(np.float64)
    for name, scaler in (("covariates", scaling.covariates), ("numbers", scaling.numbers)):
        if scaler is not None:
            arrays |= {f"{name}_mean": scaler.mean_, f"{name}_scale": scaler.scale_}
    if forecaster.conformal_ is not None:
        arrays["margin"] = forecaster.conformal_.margin
    # one name for what is written together: a folder that was being written over when the lights went out is known by
    # it
    together = {"saved": uuid.uuid4().hex}
    text = _json(forecaster, together | about)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"{folder} is a file; give a folder") from None
    weights = {key: value.detach().cpu().contiguous() for key, value in forecaster.module_.network.state_dict().items()}
    with replacing(folder / WEIGHTS) as part:
        save_weights(weights, part, metadata=together)
    with replacing(folder / SERIES) as part:
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, part, metadata=together)
    with replacing(folder / CONFIG) as part:
        part.write_text(text, encoding="utf-8")
    return folder


def load_fitted(cls: "type[TitansForecaster]", folder: Path) -> Any:
    """Read a forecaster; see `TitansForecaster.load`."""
    config = _config(folder)
    try:
        names = {_saved(folder / file) for file in (WEIGHTS, SERIES)} | {config.get("saved")}
        weights, arrays = load_weights(folder / WEIGHTS), load_file(folder / SERIES)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is not whole: {error}") from None
    except safetensors.SafetensorError as error:
        raise ValueError(f"{folder} is damaged: {error}") from None
    if len(names) != 1:
        raise ValueError(f"the files in {folder} were not saved together; save the forecaster again")
    try:
        return _rebuilt(cls, config, weights, arrays)
    except (KeyError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        raise ValueError(f"the files in {folder} do not fit each other: {str(error).splitlines()[0]}") from None


def save_stream(stream: Stream, network: nn.Module, path: Path) -> Path:
    """Write what was observed, and which weights the memory's states belong to.

    Raises:
        ValueError: the path is no file in a folder that exists.
    """
    header, arrays = packed(stream.rows)
    arrays |= {"scales": stream.scaling.of_target(stream.rows), "blocks": stream.blocks}
    header["arrays"] = list(arrays)
    tensors = tuple(torch.from_numpy(array) for array in arrays.values())
    state = ObservedState(stream.older, stream.before, stream.now, json.dumps(header, default=_plain), tensors)
    save_state(path, state, model=network)
    return path


def load_stream(path: Path, network: nn.Module, columns: Columns, scaling: PanelScaling) -> Stream:
    """Read what `save_stream` wrote; columns and scaling: of the forecaster."""
    state = load_state(path, model=network)
    if not isinstance(state, ObservedState):
        raise ValueError(f"{path} holds no observations of a forecaster")
    header = json.loads(state.header)
    arrays = {name: tensor.numpy() for name, tensor in zip(header["arrays"], state.rows, strict=True)}
    rows = unpacked(header, arrays, columns)
    own = replace(scaling, scales=pd.DataFrame(arrays["scales"], index=rows.ids, columns=["mean", "scale"]))
    device = next(network.parameters()).device
    older, before, now = (each.to(device) for each in (state.older, state.before, state.now))
    return Stream(rows, arrays["blocks"], older, before, now, own)


def _saved(path: Path) -> str | None:
    with safetensors.safe_open(path, framework="numpy") as file:
        return (file.metadata() or {}).get("saved")


def _json(forecaster: "TitansForecaster", more: dict[str, Any]) -> str:
    scaling, network = forecaster.scaling_, forecaster.module_.network
    given = forecaster.get_params()
    if isinstance(given["output"], Output):
        given["output"] = {"class": type(given["output"]).__name__, "arguments": output_arguments(given["output"])}
    config = {
        "format": FORMAT,
        "version": VERSION,
        **more,
        "arguments": given,
        "network": {
            "outputs": network.outputs,
            **network.sizes,
            "static_features": network.static_size,
            "min_scale": network.min_scale,
        },
        "wide": forecaster.wide_,
        "fits": forecaster.fits_,
        "history": forecaster.history_,
        "scale_ids": scaling.scales.index.tolist(),
        "numeric": scaling.numeric,
        "categories": scaling.categories,
        "calendar": scaling.calendar,
        "levels": None if forecaster.conformal_ is None else forecaster.conformal_.levels,
    }
    try:
        return json.dumps(config, indent=1, default=_plain) + "\n"
    except TypeError as error:
        raise ValueError(f"the forecaster cannot be saved as JSON: {error}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | set | np.ndarray | pd.Index):
        return list(value)
    raise TypeError(f"{value!r} of {type(value).__name__}")


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} holds no forecaster: it has no {CONFIG}") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(f"{path} is damaged: it holds no JSON") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{path} is not that of a titans-seq forecaster")
    if config.get("version") != VERSION:
        raise ValueError(f"{path} has format {config.get('version')}; this version reads format {VERSION}")
    return config


def _rebuilt(
    cls: "type[TitansForecaster]", config: dict[str, Any], weights: dict, arrays: dict[str, np.ndarray]
) -> Any:
    given = config["arguments"]
    if isinstance(given["output"], dict):
        given["output"] = _output(given["output"])
    model = cls(**given)
    network = PanelForecaster(
        model._lookback, model.horizon, **config["network"], mixer=model.mixer, **(model.network or {})
    )
    if not all(value.isfinite().all() for value in weights.values()):
        raise TypeError("not all weights are finite")
    network.load_state_dict(weights)
    model.stream_ = None
    model.module_ = PanelModule(
        network, output=model.output, learning_rate=model.learning_rate, weight_decay=model.weight_decay
    ).eval()
    model.scaling_ = PanelScaling(
        scales=pd.DataFrame(arrays["scales"], index=pd.Index(config["scale_ids"]), columns=["mean", "scale"]),
        covariates=_scaler(arrays, "covariates"),
        numeric=config["numeric"],
        numbers=_scaler(arrays, "numbers"),
        categories=config["categories"],
        calendar=config["calendar"],
    )
    model.tail_ = unpacked(config, arrays, model._columns)
    model.freq_, model.wide_, model.fits_, model.history_ = (
        config[name] for name in ("freq", "wide", "fits", "history")
    )
    model.built_ = model._architecture()
    model.conformal_ = None if config["levels"] is None else Conformal(config["levels"], arrays["margin"])
    return model


def _output(saved: dict[str, Any]) -> Output:
    """An output by its name and plain arguments: nothing a file says is imported."""
    if saved.get("class") not in OUTPUTS:
        raise ValueError(f"the forecaster's output {saved.get('class')!r} is none of {', '.join(OUTPUTS)}")
    try:
        return OUTPUTS[saved["class"]](**saved["arguments"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"the forecaster's output has wrong arguments: {' '.join(str(error).split())}") from None


def _scaler(arrays: dict[str, np.ndarray], name: str) -> StandardScaler | None:
    return scaler_from(arrays[f"{name}_mean"], arrays[f"{name}_scale"]) if f"{name}_mean" in arrays else None
