"""Frames of polars and Arrow are read as those of pandas, and made from them."""

import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from titans_seq.datamodules import Columns, DataError, read_frame
from titans_seq.datamodules.forecast.native import from_pandas, to_pandas

HOURS = pd.date_range("2024-03-30", periods=48, freq="h")


def long_frame(zone: str | None = None) -> pd.DataFrame:
    times = HOURS.tz_localize(zone) if zone == "UTC" else HOURS.tz_localize("UTC").tz_convert(zone) if zone else HOURS
    parts = [pd.DataFrame({"unique_id": name, "ds": times, "y": np.arange(48.0), "kind": f"k{name}"}) for name in "ab"]
    return pd.concat(parts, ignore_index=True)


class Capsule:
    """Something that exports Arrow, and nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


MAKE = {
    "polars": pl.from_pandas,
    "lazy polars": lambda frame: pl.from_pandas(frame).lazy(),
    "polars with categories": lambda frame: pl.from_pandas(frame).with_columns(
        pl.col("unique_id").cast(pl.Categorical)
    ),
    "pyarrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "a capsule": lambda frame: Capsule(pa.Table.from_pandas(frame, preserve_index=False)),
}


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_frames_of_other_libraries_are_read_alike(make, zone):
    frame, columns = long_frame(zone), Columns(static_covariates=("kind",))
    panel, expected = read_frame(make(frame), columns), read_frame(frame, columns)
    assert (list(panel.ids), panel.freq, panel.zone) == (["a", "b"], "h", zone)
    assert list(panel.times) == list(expected.times)
    np.testing.assert_array_equal(panel.target, expected.target)
    assert panel.static_covariates.equals(expected.static_covariates)


def test_cells_of_polars():
    frame = pl.DataFrame({
        "ds": [pd.Timestamp(2024, 1, day).date() for day in (1, 2, 3)], "whole": [1, None, 3],
        "exact": [Decimal("1.5"), None, Decimal("2.5")], "on": [True, None, False], "text": ["1", "?", "3"],
    })  # fmt: skip
    panel = read_frame(frame, Columns())
    assert list(panel.ids) == ["whole", "exact", "on", "text"] and panel.freq == "D"
    np.testing.assert_array_equal(
        panel.target, [1, np.nan, 3, 1.5, np.nan, 2.5, 1, np.nan, 0, 1, np.nan, 3]
    )  # fmt: skip


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_what_is_made_is_what_was_given(library, zone):
    frame = long_frame(zone)
    given = MAKE[library](frame)
    read, kind = to_pandas(given)
    pd.testing.assert_frame_equal(read, frame)
    made = from_pandas(read, kind)
    assert type(made) is type(given)
    pd.testing.assert_frame_equal(to_pandas(made)[0], frame)


def test_a_wide_frame_has_one_level_of_names():
    names = pd.MultiIndex.from_product([["a", "b"], ["forecast", "lo-80"]])
    wide = pd.DataFrame(np.arange(12.0).reshape(3, 4), pd.DatetimeIndex(HOURS[:3], name="ds"), names)
    made = from_pandas(wide, to_pandas(pl.DataFrame({"x": [1]}))[1])
    assert made.columns == ["ds", "a", "a-lo-80", "b", "b-lo-80"] and made["b"].to_list() == [2, 6, 10]


def test_polars_needs_no_pyarrow(monkeypatch):
    given = pl.from_pandas(long_frame("Europe/Berlin"))
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    read, kind = to_pandas(given)
    assert from_pandas(read, kind).equals(given)
    with pytest.raises(DataError, match=r"Capsule is read by pyarrow: pip install 'titans-seq\[large-data\]'"):
        to_pandas(Capsule(pa.table({"x": [1]})))
