"""Parquet files as panels of whole series: the same rows as a frame's, whatever the files' order, and the same refusals."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from titans_seq.datamodules.frames import Columns, Panel, joined, read_panel
from titans_seq.datamodules.panel import PanelScaling
from titans_seq.datamodules.panel_data import PanelBatches, PanelData
from titans_seq.datamodules.parquet import Parts, sort_parquet
from titans_seq.datamodules.series import DataError

COLUMNS = Columns(past=("temp",), known=("price",), static=("kind", "size"))
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
    one, other = one.taken(order), other.taken(other.ids.argsort())
    assert list(one.ids) == list(other.ids)
    assert (one.freq, one.columns) == (other.freq, other.columns)
    pd.testing.assert_index_equal(one.times, other.times, check_names=False)
    for name in ("offsets", "target", "past", "known"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    pd.testing.assert_frame_equal(one.static, other.static)


def test_parts_are_the_rows_of_the_frame(tmp_path):
    frame = table()
    parts = sort(write(frame, tmp_path / "rows"), tmp_path / "sorted")
    assert len(parts) > 2
    assert max(int(panel.lengths.sum()) for panel in parts) <= 100 + max(LENGTHS)
    assert all(list(panel.ids) == sorted(panel.ids) for panel in parts)
    same(joined(list(parts)), read_panel(frame, COLUMNS))
    same(joined(list(parts.until(4))), read_panel(frame, COLUMNS).until(4))
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
    frame = table()[["unique_id", "ds", "y"]]
    frame["ds"] = frame.groupby("unique_id").cumcount() * 2
    ds.write_dataset(
        pa.Table.from_pandas(frame),
        tmp_path / "rows",
        format="parquet",
        partitioning=["unique_id"],
        partitioning_flavor="hive",
    )
    parts = sort(tmp_path / "rows", tmp_path / "sorted", Columns())
    same(joined(list(parts)), read_panel(frame, Columns()))
    assert parts[0].freq == 2


def test_names_that_are_numbers_or_categories(tmp_path):
    frame = table()[["unique_id", "ds", "y"]]
    for i, ids in enumerate((frame["unique_id"].str[1:].astype(int), frame["unique_id"].astype("category"))):
        each = frame.assign(unique_id=ids)
        parts = sort(write(each, tmp_path / f"rows{i}"), tmp_path / f"sorted{i}", Columns())
        same(joined(list(parts)), read_panel(each, Columns()))


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
        (lambda f: f.assign(y=f["y"].where(f.index != 50, np.inf)), "column 'y', series s1, ds 2024-01-01 17:00:00: inf is not"),
        (lambda f: pd.concat([f, f[f.index == 70]]), "series s2 has ds 2024-01-01 19:00:00 twice"),
        (lambda f: f.assign(size=np.arange(len(f))), "static covariate 'size' changes inside series"),
        (lambda f: f.assign(y="x"), "column 'y', series"),
        (lambda f: f[:0], "has no rows"),
    ],
)  # fmt: skip
def test_wrong_rows_are_named_without_their_numbers(tmp_path, change, message):
    path = write(change(table()), tmp_path / "rows", files=1)
    with pytest.raises(DataError, match="rows") as caught:
        sort(path, tmp_path / "sorted")
    assert message in str(caught.value)
    assert "(row" not in str(caught.value)


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
    made = [PanelData(p, lookback=8, horizon=3, val_rows=6) for p in (parts, read_panel(frame, COLUMNS))]
    assert sorted(windows(made[0])) == sorted(windows(made[1]))
    held = [sorted(map(tuple, each.val.__getitems__(range(len(each.val)))["future_target"].tolist())) for each in made]
    assert held[0] == held[1]


def test_epochs_go_round_the_parts(tmp_path, monkeypatch):
    """Each visits the next two, in an order that the seed fixes, and has its number of batches."""
    parts = sort(write(table(), tmp_path / "rows"), tmp_path / "sorted", part_rows=40)
    monkeypatch.setattr("titans_seq.datamodules.panel_data.VISITS", 2)
    made = [PanelData(parts, lookback=8, horizon=3, batch_size=4, steps_per_epoch=5, seed=seed) for seed in (1, 1, 2)]
    count = len(made[0].kept)
    assert count > 4
    visited = [[made[0].kept.index(place) for place, _ in PanelBatchesAt(made[0], epoch)] for epoch in range(count)]
    flat = [place for each in visited for place in each]
    assert sorted(flat[:count]) == sorted(flat[count:]) == list(range(count))
    orders = [
        [[batch["index"].tolist() for batch in loader] for loader in [data.train_dataloader()] * 2] for data in made
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][0] != orders[0][1]
    assert [len(batch) for batch in orders[0][0]] == [4] * 5


def PanelBatchesAt(data: PanelData, epoch: int) -> list[tuple[int, int | None]]:
    batches = PanelBatches(data)
    batches.epoch = epoch
    return batches._visits()
