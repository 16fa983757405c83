"""Frames of other libraries (polars, pyarrow, what narwhals knows or exports Arrow): in as pandas, out as they came.

No conversion needs pyarrow unless the frame is one of pyarrow's.
"""

from typing import Any

import narwhals as nw
import pandas as pd

from titans_seq.datamodules.common.errors import DataError


def to_pandas(data: Any) -> tuple[Any, Any]:
    """A frame of another library as one of pandas; anything else stays as it is.

    Args:
        data: what was given as a frame; lazy frames are collected.

    Returns:
        The frame, and the narwhals implementation that `from_pandas` makes one like it with; None: nothing was changed.
    """
    if data is None or isinstance(data, str | pd.DataFrame | pd.Series):
        return data, None
    frame: Any = nw.from_native(data, pass_through=True)
    if not isinstance(frame, nw.DataFrame | nw.LazyFrame) and hasattr(data, "__arrow_c_stream__"):
        frame = _from_arrow(data)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    if not isinstance(frame, nw.DataFrame):
        return data, None
    return pd.DataFrame({name: _cells(frame[name]) for name in frame.columns}), frame.implementation


def from_pandas(frame: pd.DataFrame, kind: Any) -> Any:
    """A frame of forecasts as one of another library: time in a column, one level of names ("sales", "sales-lo-80").

    Args:
        frame: long or wide.
        kind: what `to_pandas` returned; None leaves it as it is.
    """
    if kind is None:
        return frame
    if isinstance(frame.columns, pd.MultiIndex):
        names = [str(series) if what == "forecast" else f"{series}-{what}" for series, what in frame.columns]
        frame = frame.set_axis(names, axis="columns")
    if frame.index.name is not None:
        frame = frame.reset_index()
    frame = frame.set_axis([str(name) for name in frame], axis="columns")
    zones = {name: str(column.dt.tz) for name, column in frame.items() if isinstance(column.dtype, pd.DatetimeTZDtype)}
    utc = {name: frame[name].dt.tz_convert("UTC").dt.tz_localize(None) for name in zones}
    plain = frame.assign(**utc)
    columns = {name: plain[name].tolist() if plain[name].dtype == object else plain[name].to_numpy() for name in plain}
    made = nw.from_dict(columns, backend=kind)
    local = [nw.col(name).dt.replace_time_zone("UTC").dt.convert_time_zone(zone) for name, zone in zones.items()]
    return made.with_columns(*local).to_native() if local else made.to_native()


def _from_arrow(data: Any) -> Any:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise DataError(
            f"{type(data).__module__}.{type(data).__name__} is read by pyarrow: pip install 'titans-seq[large-data]'"
        ) from None
    return nw.from_arrow(data, backend="pyarrow")


def _cells(column: Any) -> Any:
    kind = column.dtype
    if isinstance(kind, nw.Datetime) and kind.time_zone is not None:
        utc = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy()
        return pd.DatetimeIndex(utc).tz_localize("UTC").tz_convert(kind.time_zone)
    if isinstance(kind, nw.Categorical | nw.Enum):
        column = column.cast(nw.String)
    if isinstance(kind, nw.Decimal):
        column = column.cast(nw.Float64)
    return column.to_numpy()
