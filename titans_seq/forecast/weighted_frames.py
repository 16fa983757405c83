"""Frames with weights of their rows: as a column, which is read with them and which later frames may still hold."""

from itertools import count
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.panel import Columns
from titans_seq.datamodules.forecast.weights import with_weight

Data: TypeAlias = pd.DataFrame | pd.Series | str | Path  # a path: of Parquet files


def weighted(df: Data, columns: Columns, weights: str | ArrayLike | None) -> tuple[Data, Columns, str | None]:
    """The data and the names of its columns with that of the weights, which become a column where they are an array."""
    if weights is None:
        return df, columns, None
    if isinstance(weights, str):
        return df, with_weight(columns, weights), weights
    values = np.asarray(weights)
    if not isinstance(df, pd.DataFrame) or values.shape != (len(df),):
        rows = f"a frame of {len(df)} rows" if isinstance(df, pd.DataFrame) else f"a {type(df).__name__}"
        raise DataError(f"sample_weight must be a column's name or one number per row of a long frame; got shape "
                        f"{list(values.shape)} for {rows}")  # fmt: skip
    name = next(name for name in (f"sample_weight_{i}" for i in count()) if name not in df)
    return df.assign(**{name: values}), with_weight(columns, name), name


def without_weight_column(df: Data, columns: Columns, name: str | None) -> Data:
    """A long frame without the column of weights, unless it is among those to read: it is no series of a wide one."""
    if not isinstance(df, pd.DataFrame) or columns.target not in df or name not in df or name in columns.names:
        return df
    return df.drop(columns=name)
