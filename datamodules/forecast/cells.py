"""Cells of a table as numbers: one parser for frames and files.

R rows.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from titans_seq.datamodules.forecast.options import option

Where = Callable[..., str]  # rows of a table -> how a message names them, such as " (row 3)" or " (line 5)"
LARGEST = 1e150  # of a value: its square is a number
# what is missing, in any case of letters
MISSING = frozenset({"", "?", "-", "--", "na", "n/a", "#n/a", "#na", "null", "nan", "none", "<na>", "-nan", "nil"})
# by the mark between thousands: digits in groups of three
GROUPED = {mark: rf"[+-]?\d{{1,3}}({re.escape(mark)}\d{{3}})+" for mark in ",.'\u2019 \u00a0\u202f"}


def frame_rows(*rows: int) -> str:
    return f" (row{'s' if len(rows) > 1 else ''} {' and '.join(map(str, rows))})"


def plain_numbers(column: pd.Series) -> Int[np.ndarray, " R"] | None:
    """A column of whole numbers; None: it holds something else."""
    if pd.api.types.is_float_dtype(column.dtype) and column.notna().all() and (column % 1 == 0).all():
        return column.to_numpy(dtype=np.int64)
    integer = pd.api.types.infer_dtype(column, skipna=False) == "integer"
    return column.to_numpy(dtype=np.int64) if integer else None


def read_numbers(
    column: pd.Series, decimal: str = ".", thousands: str | None = None
) -> tuple[Float[np.ndarray, " R"], Bool[np.ndarray, " R"], bool]:
    """A column's values, NaN where empty or a word for it; which cells are no numbers; whether thousands were marked.

    Args:
        column: numbers, or text.
        decimal: the mark before decimals.
        thousands: the mark between groups of three digits; None: any usual one that is not `decimal`.
    """
    if isinstance(column.dtype, pd.StringDtype | pd.CategoricalDtype):
        column = column.astype(object)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiu":  # most columns: a table may have thousands
        return column.to_numpy(dtype=np.float64, copy=True), np.zeros(len(column), dtype=bool), False
    if column.dtype != object:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
        return numbers, np.isnan(numbers) & column.notna().to_numpy(), False
    is_text = column.map(lambda cell: isinstance(cell, str)).to_numpy(dtype=bool)
    numbers = pd.to_numeric(column.where(~is_text), errors="coerce").to_numpy(np.float64, na_value=np.nan, copy=True)
    unread = np.isnan(numbers) & column.notna().to_numpy()
    text = column[is_text].astype(str).str.strip()
    groups = np.zeros(len(text), dtype=bool)
    for mark in [thousands] if thousands else [mark for mark in GROUPED if mark != decimal]:
        here = text.str.fullmatch(GROUPED[mark] + rf"({re.escape(decimal)}\d*)?").to_numpy(dtype=bool)
        text, groups = text.where(~here, text.str.replace(mark, "")), groups | here
    if decimal != ".":
        text = text.where(~text.str.contains(".", regex=False), "").str.replace(decimal, ".")
    numbers[is_text] = pd.to_numeric(text, errors="coerce")
    unread[is_text] = np.isnan(numbers[is_text]) & ~column[is_text].str.strip().str.lower().isin(MISSING).to_numpy()
    return numbers, unread, bool(groups.any())


def is_number_text(text: pd.Series) -> "pd.Series[bool]":
    """Which cells are digits with marks, or words for what is missing."""
    return text.str.fullmatch(r"[+-]?[\d.,]*\d[\d.,]*([eE][+-]?\d+)?") | text.str.lower().isin(MISSING)


def to_numbers(column: pd.Series) -> tuple[Float[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """A column's values, NaN where empty, and which cells are wrong: not numbers, infinite or beyond 1e150.

    Text counts as `read_numbers` reads it.
    """
    if column.dtype.kind in "mMc":
        return np.full(len(column), np.nan), np.ones(len(column), dtype=bool)
    numbers, unread, _ = read_numbers(column)
    with np.errstate(invalid="ignore"):
        return numbers, unread | (np.abs(numbers) > LARGEST)


def not_a_number(value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    comma = re.fullmatch(r"[+-]?\d+,\d+", str(value).strip())
    hint = f"; write decimals with a point, or give {option('decimal', ',')}" if comma else ""
    if re.fullmatch(r"[+-]?\d{1,3}(\.\d{3}){2,}", str(value).strip()):
        hint = f"; if points are between thousands give {option('thousands', '.')}"
    kind = "number" if isinstance(value, str) else f"finite number up to {LARGEST:.0e}"
    return f"{value!r} is not a {kind}{hint}"
