"""A panel as plain values and arrays, for files. Nothing is pickled."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from titans_seq.datamodules.frames import Columns, Panel


def packed(panel: Panel) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What JSON can hold (names, step, static covariates), and arrays (times as whole numbers)."""
    about = {
        "ids": panel.ids.tolist(),
        "freq": panel.freq,
        "dates": not np.issubdtype(panel.times.dtype, np.integer),
        "static": {name: panel.static[name].tolist() for name in panel.static},
        "id": panel.columns.id,
    }
    arrays = {
        "times": panel.times.to_numpy().astype(np.int64),
        "offsets": panel.offsets,
        "target": panel.target,
        "past": panel.past,
        "known": panel.known,
    }
    return about, arrays


def unpacked(about: dict[str, Any], arrays: dict[str, np.ndarray], columns: Columns) -> Panel:
    """The panel again; columns: its names, but for that of the series, which frames of one series lack."""
    times = arrays["times"]
    ids = pd.Index(about["ids"])
    return Panel(
        ids=ids,
        freq=about["freq"],
        times=pd.DatetimeIndex(times.view("datetime64[ns]")) if about["dates"] else pd.Index(times),
        offsets=arrays["offsets"],
        target=arrays["target"],
        past=arrays["past"],
        known=arrays["known"],
        static=pd.DataFrame(about["static"], index=pd.RangeIndex(len(ids))),
        columns=replace(columns, id=about["id"]),
    )
