"""A fitted forecaster in a folder: `config.json`, `model.safetensors`, `series.safetensors`. Nothing is pickled."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from gluonts.torch.distributions import Output
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from titans_seq.datamodules.forecast.panel import Columns, packed, unpacked
from titans_seq.datamodules.forecast.panel_windows import PanelScaling
from titans_seq.datamodules.forecast.scaling import scaler_from
from titans_seq.files import parse_json, read_content, write_files
from titans_seq.forecast.conformal import Conformal
from titans_seq.forecast.online import Stream
from titans_seq.forecast.outputs import OUTPUTS, output_arguments
from titans_seq.forecast.panel import PanelForecaster, PanelModule
from titans_seq.state_io import ObservedState, load_state, save_state
from titans_seq.tensor_files import read_tensors, tensor_file

if TYPE_CHECKING:
    from titans_seq.forecaster import TitansForecaster

FORMAT, VERSION = "titans-seq forecaster", 2
CONFIG, WEIGHTS, SERIES = "config.json", "model.safetensors", "series.safetensors"
LARGEST = 1_000_000  # of a size in config.json
# what building from values of wrong types, names or sizes raises
_WRONG = (KeyError, TypeError, IndexError, ValueError, RuntimeError, AttributeError, OverflowError, AssertionError)


def save_fitted(forecaster: "TitansForecaster", folder: Path) -> Path:
    """Write the forecaster; where the disk is full, what was there is unchanged.

    Raises:
        ValueError: a name or an option cannot be written as JSON.
        OSError: the disk is full, or refuses it; `filename` says which file.
    """
    scaling = forecaster.scaling_
    about, arrays = packed(forecaster.tail_)
    arrays["scales"] = scaling.scales.to_numpy(np.float64)
    for name, scaler in (("covariates", scaling.covariates), ("numbers", scaling.numbers)):
        if scaler is not None:
            arrays |= {f"{name}_mean": scaler.mean_, f"{name}_scale": scaler.scale_}
    if forecaster.conformal_ is not None:
        arrays["margin"] = forecaster.conformal_.margin
    text = _json(forecaster, about).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValueError(f"{folder} is a file; give a folder") from None
    # a folder that was being written over when the lights went out is known by it, and so is a changed config.json
    together = {CONFIG: _digest(text)}
    series = {key: torch.from_numpy(np.ascontiguousarray(array)) for key, array in arrays.items()}
    files: dict[str, list[bytes | memoryview]] = {
        CONFIG: [text],
        WEIGHTS: tensor_file(forecaster.module_.network.state_dict(), together),
        SERIES: tensor_file(series, together),
    }
    write_files({folder / name: content for name, content in files.items()})
    return folder


def load_fitted(cls: "type[TitansForecaster]", folder: Path) -> Any:
    """Read a forecaster; see `TitansForecaster.load`."""
    config, digest = _config(folder)
    try:
        weights, about = read_tensors(folder / WEIGHTS)
        series, also_about = read_tensors(folder / SERIES)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is not whole: {error}") from None
    if not about.get(CONFIG) == also_about.get(CONFIG) == digest:
        raise ValueError(f"the files in {folder} were not saved together, or {CONFIG} was changed; save it again")
    try:
        return _rebuilt(cls, config, weights, {name: tensor.numpy() for name, tensor in series.items()})
    except _WRONG as error:
        raise ValueError(f"the files in {folder} do not fit each other: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def save_stream(stream: Stream, network: nn.Module, path: Path) -> Path:
    """Write what was observed, and which weights the memory's states belong to.

    Raises:
        ValueError: the path is no file in a folder that exists.
        OSError: the disk is full, or refuses it.
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
    header = parse_json(state.header, str(path))
    try:
        arrays = {name: tensor.numpy() for name, tensor in zip(header["arrays"], state.rows, strict=True)}
        rows = unpacked(header, arrays, columns)
        own = replace(scaling, scales=pd.DataFrame(arrays["scales"], index=rows.ids, columns=["mean", "scale"]))
        blocks = arrays["blocks"]
    except _WRONG as error:
        raise ValueError(f"{path} is damaged: {_first_line(error)}") from None
    device = next(network.parameters()).device
    older, before, now = (each.to(device) for each in (state.older, state.before, state.now))
    return Stream(rows, blocks, older, before, now, own)


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


def _config(folder: Path) -> tuple[dict[str, Any], str]:
    """What config.json says, and the digest of its text."""
    path = folder / CONFIG
    try:
        content = read_content(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} holds no forecaster: it has no {CONFIG}") from None
    config = parse_json(content, str(path))
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{path} is not that of a titans-seq forecaster")
    if config.get("version") != VERSION:
        raise ValueError(f"{path} has format {config.get('version')}; this version reads format {VERSION}")
    return config, _digest(content)


def _rebuilt(
    cls: "type[TitansForecaster]", config: dict[str, Any], weights: dict[str, Tensor], arrays: dict[str, np.ndarray]
) -> Any:
    given = config["arguments"]
    if isinstance(given["output"], dict):
        given["output"] = _output(given["output"])
    model = cls(**given)
    model._check_arguments()
    _check_arrays(config, arrays)
    sizes = {**config["network"], "mixer": model.mixer, **(model.network or {})}
    network = _network({"lookback": model._lookback, "horizon": model.horizon, **sizes}, weights)
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


def _check_arrays(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """The series and the scales must have the shapes that the names beside them ask for."""
    ids, scale_ids = config["ids"], config["scale_ids"]
    if not all(isinstance(name, str | int | float) for name in (*ids, *scale_ids)):
        raise ValueError("ids must be texts or numbers")
    times, offsets = arrays["times"], arrays["offsets"]
    rising = offsets.dtype == times.dtype == np.int64 and offsets.shape == (len(ids) + 1,) and times.ndim == 1
    if not rising or offsets[0] != 0 or offsets[-1] != len(times) or (np.diff(offsets) < 0).any():
        raise ValueError("the rows are not those of the series")
    for name in ("target", "past_covariates", "future_covariates"):
        if len(arrays[name]) != len(times):
            raise ValueError(f"{name} has {len(arrays[name])} rows; there are {len(times)} times")
    scales = arrays["scales"]
    if scales.shape != (len(scale_ids), 2) or not np.isfinite(scales).all() or (scales[:, 1] <= 0).any():
        raise ValueError("the scales are not those of the series")
    for name, array in arrays.items():
        if name.endswith(("_mean", "_scale")) and not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite")
    if config["levels"] is not None:
        wanted = (len(config["levels"]), config["arguments"]["horizon"])
        if arrays["margin"].shape != wanted or np.isnan(arrays["margin"]).any():
            raise ValueError(f"margin must be {wanted}, without NaN")


def _network(options: dict[str, Any], weights: dict[str, Tensor]) -> PanelForecaster:
    """The network of these options with these weights. Nothing of its size is allocated before the weights are known to
    have the same.
    """
    if not all(value.isfinite().all() for value in weights.values()):
        raise ValueError("not all weights are finite")
    for name, value in options.items():
        most = len(weights) if name in ("blocks", "depth") else LARGEST  # each has weights of its own
        if isinstance(value, int) and value > most:
            raise ValueError(f"{name} must be at most {most:,}; got {value}")
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in PanelForecaster(**options).state_dict().items()}
    if shapes != {name: value.shape for name, value in weights.items()}:
        raise ValueError("the weights are not those of the network")
    network = PanelForecaster(**options)
    network.load_state_dict(weights)
    return network


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
