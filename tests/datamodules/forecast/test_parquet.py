"""Parquet files as panels of whole series: the same rows as a frame's, whatever the files' order, and the same
refusals.
"""

import re
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.data import PanelBatches, PanelData
from titans_seq.datamodules.forecast.panel import Columns, Panel, join_panels
from titans_seq.datamodules.forecast.parquet import Parts, sort_parquet
from titans_seq.datamodules.forecast.protocol import HoldOut
from titans_seq.datamodules.forecast.reading import read_panel
from titans_seq.datamodules.forecast.scaling import PanelScaling

COLUMNS = Columns(past_covariates=("temp",), future_covariates=("price",), static_covariates=("kind", "size"))
LENGTHS = (40, 25, 60, 5, 33, 41, 38, 52, 47, 1)


def table(lengths=LENGTHS, seed=0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    parts = []
    for i, n in enumerate(lengths):
        y = 10.0 ** (i % 4) + random.standard_normal(n)
        y[random.random(n) < 0.1] = np.nan
        temp = np.full(n, np.nan) if i % 3 == 0 else random.standard_normal(n)  # a whole part may know none
        begin = pd.Timestamp("2024") + pd.Timedelta(hours=7 * i)
        parts.append(
            pd.DataFrame({
                "unique_id": f"s{i}", "ds": pd.date_range(begin, periods=n, freq="h"), "y": y, "temp": temp,
                "price": random.standard_normal(n), "kind": "abc"[i % 3], "size": float(i),
            })
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def plain() -> pd.DataFrame:
    return table()[["unique_id", "ds", "y"]]


def write(frame: pd.DataFrame, folder: Path, files: int = 3) -> Path:
    """The rows in files, shuffled: no file holds a whole series."""
    mixed = frame.sample(frac=1, random_state=0)
    folder.mkdir(parents=True)
    for i, rows in enumerate(np.array_split(np.arange(len(mixed)), files)):
        mixed.iloc[rows].to_parquet(folder / f"{i}.parquet", index=False)
    return folder


def sort(path: Path, folder: Path, columns=COLUMNS, part_rows=100, freq=None) -> Parts:
    folder.mkdir()
    return sort_parquet(path, columns, freq, folder, part_rows=part_rows)


def same(one: Panel, other: Panel) -> None:
    order = one.ids.argsort()
    one, other = one.take(order), other.take(other.ids.argsort())
    assert list(one.ids) == list(other.ids)
    assert (one.freq, one.columns) == (other.freq, other.columns)
    pd.testing.assert_index_equal(one.times, other.times, check_names=False)
    for name in ("offsets", "target", "past_covariates", "future_covariates"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    pd.testing.assert_frame_equal(one.static_covariates, other.static_covariates)


def test_parts_are_the_rows_of_the_frame(tmp_path):
    frame = table()
    parts = sort(write(frame, tmp_path / "rows"), tmp_path / "sorted")
    assert len(parts) > 2
    assert max(int(panel.lengths.sum()) for panel in parts) <= 100 + max(LENGTHS)
    assert all(list(panel.ids) == sorted(panel.ids) for panel in parts)
    same(join_panels(parts), read_panel(frame, COLUMNS))
    same(join_panels(parts.until(4)), read_panel(frame, COLUMNS).until(4))
    assert sorted(path.name for path in (tmp_path / "sorted").iterdir()) == sorted(path.name for path in parts.files)


def test_the_order_of_rows_and_files_does_not_matter(tmp_path):
    """Nor do threads: training sees the same windows."""
    frame = table()
    one = sort(write(frame, tmp_path / "a"), tmp_path / "one")
    other = sort(write(frame[::-1], tmp_path / "b", files=1), tmp_path / "other")
    assert len(one) == len(other)
    for panel, again in zip(one, other, strict=True):
        assert list(panel.ids) == list(again.ids)
        same(panel, again)


def test_series_in_folders_and_numbered_rows(tmp_path):
    frame = plain()
    frame["ds"] = frame.groupby("unique_id").cumcount() * 2
    rows = pa.Table.from_pandas(frame)
    names = {"partitioning": ["unique_id"], "partitioning_flavor": "hive"}
    ds.write_dataset(rows, tmp_path / "rows", format="parquet", **names)
    parts = sort(tmp_path / "rows", tmp_path / "sorted", Columns())
    same(join_panels(parts), read_panel(frame, Columns()))
    assert parts[0].freq == 2


def test_names_that_are_numbers_or_categories(tmp_path):
    frame = plain()
    for i, ids in enumerate((frame["unique_id"].str[1:].astype(int), frame["unique_id"].astype("category"))):
        each = frame.assign(unique_id=ids)
        parts = sort(write(each, tmp_path / f"rows{i}"), tmp_path / f"sorted{i}", Columns())
        same(join_panels(parts), read_panel(each, Columns()))


@pytest.mark.parametrize("index", ["ds", "unique_id", ["unique_id", "ds"]], ids=str)
def test_columns_that_pandas_calls_its_index(tmp_path, index):
    frame = plain()
    (tmp_path / "rows").mkdir()
    frame.set_index(index).to_parquet(tmp_path / "rows" / "0.parquet")
    same(join_panels(sort(tmp_path / "rows", tmp_path / "sorted", Columns())), read_panel(frame, Columns()))


def test_files_that_keep_the_same_differently(tmp_path):
    """Categories of their own, whole numbers beside others, 32 bits beside 64."""
    frame = plain().assign(y=lambda f: f["y"].round())
    (tmp_path / "rows").mkdir()
    for i, (_, part) in enumerate(frame.groupby("unique_id")):
        kinds = {"unique_id": "category" if i % 2 else "string", "y": ["float32", "float64", "Int64"][i % 3]}
        part.astype(kinds).to_parquet(tmp_path / "rows" / f"{i}.parquet", index=False)
    same(join_panels(sort(tmp_path / "rows", tmp_path / "sorted", Columns())), read_panel(frame, Columns()))


def test_names_of_folders_keep_their_zeros(tmp_path):
    for name in ("01", "02", "1"):
        (tmp_path / "rows" / f"unique_id={name}").mkdir(parents=True)
        table((20,))[["ds", "y"]].to_parquet(tmp_path / "rows" / f"unique_id={name}" / "a.parquet")
    parts = sort(tmp_path / "rows", tmp_path / "sorted", Columns())
    assert list(join_panels(parts).ids) == ["01", "02", "1"]
    table((20,))[["unique_id", "ds", "y"]].to_parquet(tmp_path / "rows" / "unique_id=1" / "b.parquet")
    with pytest.raises(DataError, match="b.parquet: 'unique_id' is a column of the file and a name of its folders"):
        sort(tmp_path / "rows", tmp_path / "again", Columns())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda f: f.rename(columns={"y": "value"}), "b.parquet has no column 'y'"),
        (lambda f: f.assign(unique_id=1), "column 'unique_id' is string in"),
        (lambda f: f.assign(y="x"), "column 'y' is double in"),
    ],
)  # fmt: skip
def test_files_that_differ_are_named(tmp_path, other, message):
    frame = plain()
    (tmp_path / "rows").mkdir()
    frame.to_parquet(tmp_path / "rows" / "a.parquet")
    other(frame).to_parquet(tmp_path / "rows" / "b.parquet")
    with pytest.raises(DataError, match=message):
        sort(tmp_path / "rows", tmp_path / "sorted", Columns())


def test_a_damaged_file_and_one_that_is_no_parquet(tmp_path):
    frame = plain()
    for name, write_to in (
        ("cut", lambda p: p.write_bytes((tmp_path / "a.parquet").read_bytes()[:-50])),
        ("notes", lambda p: p.write_text("x")),
    ):
        (tmp_path / name).mkdir()
        for path in (tmp_path / "a.parquet", tmp_path / name / "a.parquet"):
            frame.to_parquet(path)
        write_to(tmp_path / name / "b.parquet")
        with pytest.raises(DataError, match=f"{name} cannot be read as Parquet: .*b.parquet"):
            sort(tmp_path / name, tmp_path / f"{name}-sorted", Columns())


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = write(table(), tmp_path / "rows")
    monkeypatch.setattr(ds, "write_dataset", full)
    with pytest.raises(DataError, match="cannot be sorted in .*No space left"):
        sort(path, tmp_path / "sorted")


def test_one_series_without_a_name(tmp_path):
    frame = table((50,))[["ds", "y"]]
    path = tmp_path / "one.parquet"
    frame.to_parquet(path)
    parts = sort(path, tmp_path / "sorted", Columns())
    assert len(parts) == 1
    same(parts[0], read_panel(frame, Columns(id=None)))


def test_a_series_longer_than_a_part(tmp_path):
    parts = sort(write(table((3, 500, 4, 5)), tmp_path / "rows"), tmp_path / "sorted")
    assert max(int(panel.lengths.sum()) for panel in parts) == 500
    assert sum(map(len, parts)) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="y"), "has no column 'y'; it has: unique_id, ds"),
        (lambda f: f.drop(columns="price"), "has no column 'price'"),
        (lambda f: f.assign(unique_id=f["unique_id"].where(f.index != 3)), "column 'unique_id' is empty in some row"),
        (lambda f: f.assign(y=f["y"].where(f.index != 50, np.inf)), ("column 'y', series s1, ds 2024-01-01 17:00:00: "
                                                                    "inf is not")),
        (lambda f: pd.concat([f, f[f.index == 70]]), "series s2: ds 2024-01-01 19:00:00 is given twice"),
        (lambda f: f.assign(size=np.arange(len(f))), "static covariate 'size' changes inside series"),
        (lambda f: f.assign(y="x"), "column 'y', series"),
        (lambda f: f[:0], "has no rows"),
        (lambda f: f.assign(ds=f["ds"].where(f.index != 9)), "column 'ds' has no date"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named_without_their_numbers(tmp_path, change, message):
    path = write(change(table()), tmp_path / "rows", files=1)
    with pytest.raises(DataError, match="rows") as caught:
        sort(path, tmp_path / "sorted")
    assert message in str(caught.value)
    assert not re.search(r"rows? \d", str(caught.value))


def test_no_parquet(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "rows.parquet").write_text("unique_id,ds,y\n")
    for name, message in (
        ("absent", "no file or folder"),
        ("empty", "holds no Parquet file"),
        ("text", "rows.parquet"),
    ):
        with pytest.raises(DataError, match=message):
            sort(tmp_path / name, tmp_path / f"{name}-sorted")


def test_scaling_of_parts_is_that_of_all(tmp_path):
    """Also where the rows of a part know nothing of a covariate."""
    frame = table()
    parts = sort(write(frame, tmp_path / "rows"), tmp_path / "sorted", part_rows=40)
    found, whole = (PanelScaling.fit(panels, calendar=True) for panels in (parts, read_panel(frame, COLUMNS)))
    pd.testing.assert_frame_equal(found.scales.sort_index(), whole.scales.sort_index())
    for mine, theirs in ((found.covariates, whole.covariates), (found.numbers, whole.numbers)):
        np.testing.assert_allclose(mine.mean_, theirs.mean_, rtol=1e-12)
        np.testing.assert_allclose(mine.scale_, theirs.scale_, rtol=1e-12)
    assert (found.numeric, found.categories, found.calendar) == (whole.numeric, whole.categories, whole.calendar)


def windows(data: PanelData) -> list[tuple]:
    """Training windows of an epoch, as what they hold."""
    return [
        tuple(np.round(row, 5).tolist())
        for batch in data.train_dataloader()
        for row in np.concatenate([batch["past_target"], batch["future_target"], batch["past_observed_values"]], axis=1)
    ]


def test_an_epoch_of_all_windows_is_that_of_the_frame(tmp_path):
    frame = table()
    parts = sort(write(frame, tmp_path / "rows"), tmp_path / "sorted")
    made = [PanelData(p, HoldOut(6, 3), lookback=8, horizon=3) for p in (parts, read_panel(frame, COLUMNS))]
    assert sorted(windows(made[0])) == sorted(windows(made[1]))
    held = [sorted(map(tuple, each.val.__getitems__(range(len(each.val)))["future_target"].tolist())) for each in made]
    assert held[0] == held[1]


def test_epochs_go_round_the_parts(tmp_path, monkeypatch):
    """Each visits the next three, in an order that the seed fixes, and has its number of batches; no draw comes
    back.
    """
    parts = sort(write(table(), tmp_path / "rows"), tmp_path / "sorted", part_rows=40)
    monkeypatch.setattr("titans_seq.datamodules.forecast.data.VISITS", 3)
    made = [
        PanelData(parts, HoldOut(0, 3), lookback=8, horizon=3, batch_size=4, steps_per_epoch=5, seed=seed)
        for seed in (1, 1, 2)
    ]
    places = list(made[0].counts)
    assert len(places) > 4
    assert len(places) % 3  # epochs straddle two rounds
    visited = [place for epoch in range(len(places)) for _, place, _ in PanelBatches(made[0])._visits(epoch)]
    assert all(sorted(visited[i : i + len(places)]) == places for i in range(0, len(visited), len(places)))
    orders = [
        [[batch["index"].tolist() for batch in data_epoch] for data_epoch in (data.train_dataloader(),) * 2]
        for data in made
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1]
    assert [len(batch) for batch in orders[0][0]] == [4] * 5


def test_parts_count_by_their_windows(tmp_path, monkeypatch):
    """A part of few rows has few of the batches."""
    parts = sort(write(table((1000, *[12] * 20)), tmp_path / "rows"), tmp_path / "sorted", part_rows=120)
    data = PanelData(parts, HoldOut(0, 3), lookback=8, horizon=3, steps_per_epoch=100)
    [(large, share)] = [(place, steps) for _, place, steps in PanelBatches(data)._visits(0) if data.counts[place] > 500]
    assert share == pytest.approx(100 * data.counts[large] / sum(data.counts.values()), abs=1)


def test_a_resumed_epoch_is_the_same(tmp_path):
    """The epoch is the Trainer's."""
    parts = sort(write(table(), tmp_path / "rows"), tmp_path / "sorted", part_rows=40)
    data = PanelData(parts, HoldOut(0, 3), lookback=8, horizon=3, batch_size=4, steps_per_epoch=5)
    loader = data.train_dataloader()
    first, second = ([batch["index"].tolist() for batch in loader] for _ in range(2))
    again = PanelData(parts, HoldOut(0, 3), lookback=8, horizon=3, batch_size=4, steps_per_epoch=5)
    again.trainer = types.SimpleNamespace(current_epoch=1)
    assert [batch["index"].tolist() for batch in again.train_dataloader()] == second != first
