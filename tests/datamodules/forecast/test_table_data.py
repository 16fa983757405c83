"""The data of one table: where a user's file is split, what a checkpoint restores, and what its shape decides."""

from collections.abc import Callable
from pathlib import Path

import holidays
import numpy as np
import pandas as pd
import pytest
import torch
from hourly_frames import frame

from titans_seq.datamodules import DataError, ForecastDataModule
from titans_seq.datamodules.common.errors import DataWarning
from titans_seq.datamodules.forecast.panel import Columns
from titans_seq.datamodules.forecast.protocol import Known
from titans_seq.datamodules.forecast.reading import read_frame
from titans_seq.datamodules.forecast.table_data import MOST_VALIDATED

L, H = 8, 4
SMALL = {"lookback": L, "horizon": H, "batch_size": 16}
LONG = {"id_column": "unique_id", "time_column": "ds", "target": ["y"]}
COVARIATES = {"past_covariates": ["temp"], "future_covariates": ["price"], "static_covariates": ["kind", "size"]}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Write a frame to a file and return its path."""

    def to(table: pd.DataFrame, name: str = "own.csv") -> str:
        table.to_csv(tmp_path / name, index=False)
        return str(tmp_path / name)

    return to


def hourly(rows: int = 100, start: str = "2024-01-01", tz: str | None = None) -> pd.DataFrame:
    """Two series side by side, whose values are 0, 1, ... and 1000, 1001, ..."""
    times = pd.date_range(start, periods=rows, freq="h", tz=tz)
    return pd.DataFrame({"ds": times, "a": np.arange(rows, dtype=float), "b": np.arange(rows) + 1000.0})


def set_up(path: str, stage: str = "fit", **options: object) -> ForecastDataModule:
    data = ForecastDataModule(csv=path, **SMALL | options)
    data.setup(stage)
    return data


def targets(data: ForecastDataModule, split: str) -> dict[object, tuple[int, int, int]]:
    """Of each series the first and the last row of a split's targets, and how many windows it has."""
    anchors, found = data.windows(split).anchors, {}
    for series in np.unique(anchors.series):
        first = anchors.first[(anchors.series == series).any(axis=1)]
        found[data.panel.ids[series]] = int(first.min()), int(first.max()) + H - 1, len(first)
    return found


# splits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split, ends", [(None, (70, 80)), ("60/20/20", (60, 80)), (" 50 / 12.5 / 37.5 ", (50, 63))])
def test_a_wide_file_is_split_by_shares(save: Callable[..., str], split: str | None, ends: tuple[int, int]) -> None:
    """Train and test round down. The rows of train alone scale."""
    data = set_up(save(hourly()), split=split)
    val, test = ends
    for name, begin, end in (("train", L, val), ("val", val, test), ("test", test, 100)):
        assert targets(data, name) == {
            "a": (begin, end - 1, end - begin - H + 1),
            "b": (begin, end - 1, end - begin - H + 1),
        }
    mean = (val - 1) / 2
    moments = [[mean, np.arange(val).std()], [mean + 1000, np.arange(val).std()]]
    np.testing.assert_allclose(data.scaling.of_target(data.panel), moments)


def test_windows_are_those_of_the_file(save: Callable[..., str]) -> None:
    """The first validation window looks back into the training rows, and its first target is the first of the split."""
    data = set_up(save(hourly()))
    batch = data.windows("val").__getitems__([0])
    (mean, scale), _ = data.scaling.of_target(data.panel)
    np.testing.assert_allclose(batch["past_target"][0] * scale + mean, np.arange(70 - L, 70), atol=1e-4)
    np.testing.assert_allclose(batch["future_target"][0] * scale + mean, np.arange(70, 70 + H), atol=1e-4)


@pytest.mark.parametrize("form", ["wide", "long"])
@pytest.mark.parametrize("tz", [None, "Europe/Berlin"])
def test_a_file_is_split_by_dates(save: Callable[..., str], form: str, tz: str | None) -> None:
    """Local time, as the file says it; the row of the date itself belongs to the later split."""
    table = hourly(tz=tz)
    table["ds"] = table["ds"].astype(str)
    if form == "long":
        table = table.melt("ds", var_name="unique_id", value_name="y")
    options = LONG if form == "long" else {}
    data = set_up(save(table), split="2024-01-03/2024-01-04 06:00", calendar=False, **options)
    for name, begin, end in (("train", L, 48), ("val", 48, 78), ("test", 78, 100)):
        assert set(targets(data, name).values()) == {(begin, end - 1, end - begin - H + 1)}, name
    assert data.scaling.of_target(data.panel)[0] == pytest.approx([23.5, np.arange(48).std()])


def test_each_series_of_a_long_file_is_split_by_the_same_dates(save: Callable[..., str]) -> None:
    """One that ends before them only trains; one that begins after them has no scale, and is not measured."""
    parts = [("old", "2023-12-20", 100), ("both", "2024-01-01", 120), ("new", "2024-01-05", 60)]
    table = pd.concat(
        [
            hourly(rows, start)[["ds", "a"]].rename(columns={"a": "y"}).assign(unique_id=name)
            for name, start, rows in parts
        ]
    )
    with pytest.warns(DataWarning, match="1 series have no value among the training rows, the first is new"):
        data = set_up(save(table), split="2024-01-03/2024-01-05", calendar=False, **LONG)
    assert targets(data, "train") == {"old": (L, 99, 89), "both": (L, 47, 37)}
    assert targets(data, "val") == {"both": (48, 95, 45)}
    assert targets(data, "test") == {"both": (96, 119, 21), "new": (L, 59, 49)}
    assert np.isnan(data.scaling.of_target(data.panel)[2]).all()
    windows = data.windows("test")
    batch = windows.__getitems__(range(len(windows)))
    new = windows.anchors.series[:, 0] == 2
    assert batch["future_observed_values"][torch.from_numpy(new)].sum() == 0


@pytest.mark.parametrize("form", ["wide", "long"])
def test_numbered_rows_are_split_by_numbers(save: Callable[..., str], form: str) -> None:
    table = hourly().assign(ds=np.arange(100) + 5)
    if form == "long":
        table = table.melt("ds", var_name="unique_id", value_name="y")
    options = LONG if form == "long" else {"time_column": "ds"}
    data = set_up(save(table), split="55/85", **options)
    assert set(targets(data, "val").values()) == {(50, 79, 27)} and set(targets(data, "test").values()) == {
        (80, 99, 17)
    }
    assert not data.calendar
    with pytest.raises(DataError, match="'2024-01-03' must be a whole number, as the rows are numbered"):
        set_up(save(table), split="2024-01-03/90", **options)


@pytest.mark.parametrize(
    "split, said",
    [
        ("2023-01-01/2024-01-03", "no row lies before 2023-01-01; the rows run from 2024-01-01"),
        ("2024-01-03/2024-01-03", "validation must begin before test"),
        ("2024-01-03/2025-01-01", "no row lies after 2025-01-01"),
        ("2024-01-03/soon", "'soon' must be a date such as 2024-01-31"),
        ("70/20", "'70' must be a date such as 2024-01-31; percentages are three, such as 70/10/20"),
    ],
)
def test_dates_that_do_not_fit_are_said(save: Callable[..., str], split: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        set_up(save(hourly()), split=split)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("split", ["70/10/10", "80/20/0", "a/b/c", "70", "2024-01-01/", "nan/10/20"])
def test_a_split_that_is_none_is_refused(split: str) -> None:
    with pytest.raises(DataError, match="split"):
        set_up("own.csv", split=split)


def test_a_series_too_short_for_a_split_only_trains(save: Callable[..., str]) -> None:
    """Each split has a horizon at least, training two: 16 rows are enough, 15 are not."""
    lengths = {"long": 100, "enough": 16, "short": 15}
    table = pd.concat(
        [hourly(rows)[["ds", "a"]].rename(columns={"a": "y"}).assign(unique_id=name) for name, rows in lengths.items()]
    )
    data = set_up(save(table), **LONG)
    assert targets(data, "val") == {"long": (70, 79, 7), "enough": (8, 11, 1)}
    assert targets(data, "test") == {"long": (80, 99, 17), "enough": (12, 15, 1)}
    assert set(targets(data, "train")) == set(lengths) and targets(data, "train")["short"][1] == 14
    assert data.scaling.of_target(data.panel)[0] == pytest.approx([34.5, np.arange(70).std()])


def test_a_file_too_short_for_a_test_is_refused(save: Callable[..., str]) -> None:
    with pytest.raises(DataError, match="own has 30 rows, too few for lookback 8"):
        set_up(save(hourly(30)))
    short = hourly(15).melt("ds", var_name="unique_id", value_name="y")
    with pytest.raises(DataError, match="no window of lookback 8 [+] horizon 4 in val; its longest series has 15 rows"):
        set_up(save(short), **LONG)


# rows that a saved forecaster knows -----------------------------------------------------------------------------------


def test_rows_after_those_that_are_known_are_for_test(save: Callable[..., str]) -> None:
    """The rows before them, as many as were held out, are for validation; a new series is not measured."""
    table = hourly().melt("ds", var_name="unique_id", value_name="y")
    known = read_frame(table[(table["unique_id"] == "a") & (table["y"] < 80)], Columns())
    data = ForecastDataModule(csv=save(table), **SMALL, **LONG)
    data.cut = Known.of(known.tail(3), 20)
    with pytest.warns(DataWarning, match="1 series have no value among the training rows, the first is b"):
        data.setup("test")
    assert targets(data, "train") == {"a": (L, 59, 49)}
    assert targets(data, "val") == {"a": (60, 79, 17)}
    assert targets(data, "test") == {"a": (80, 99, 17), "b": (L, 99, 89)}
    moments = data.scaling.of_target(data.panel)
    np.testing.assert_allclose(moments, [[29.5, np.arange(60).std()], [np.nan, np.nan]])
    assert data.cut.seen(data.panel).tolist() == [80, 0]


def test_without_a_later_row_the_held_out_ones_stand_for_test(save: Callable[..., str]) -> None:
    table = hourly().melt("ds", var_name="unique_id", value_name="y")
    data = ForecastDataModule(csv=save(table), **SMALL, **LONG)
    data.cut = Known.of(read_frame(table, Columns()).tail(3), 20)
    with pytest.warns(DataWarning, match="no row comes after .* the last 10 of each series are taken"):
        data.setup("test")
    assert targets(data, "val") == dict.fromkeys("ab", (80, 89, 7))
    assert targets(data, "test") == dict.fromkeys("ab", (90, 99, 7))


# what is asked and what is found --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option, value",
    [
        ("time_column", "date"), ("id_column", "id"), ("target", ["OT"]), ("past_covariates", ["HUFL"]),
        ("future_covariates", ["HUFL"]), ("static_covariates", ["HUFL"]), ("freq", "h"), ("split", "70/10/20"),
        ("separator", ";"), ("decimal", ","), ("thousands", "."), ("encoding", "utf-8"), ("sheet", 0),
        ("day_first", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["ETTh1", None])
def test_a_named_data_set_has_its_own(name: str | None, option: str, value: object) -> None:
    known = name or "embedded"
    with pytest.raises(DataError, match=f"^{option} is for a file of your own [(]csv=[)]; {known} has its own$"):
        ForecastDataModule(name, **{option: value})


def test_what_the_shape_of_a_file_decides(save: Callable[..., str]) -> None:
    """A long file has a calendar, a long epoch is cut, and a short one is filled up."""
    table = hourly()
    wide, long = save(table), save(table.melt("ds", var_name="unique_id", value_name="y"), "long.csv")
    assert set_up(wide).steps_per_epoch is None  # each window once
    data = set_up(wide, least_steps=100)
    assert not data.calendar and data.steps_per_epoch == 100 and data.sizes["future_features"] == 0
    data = set_up(long, **LONG, least_steps=100)
    assert data.calendar and data.steps_per_epoch == 100 and data.val_windows == MOST_VALIDATED
    assert data.sizes["future_features"] == data.windows("train").__getitems__([0])["future_features"].shape[-1] > 0
    assert set_up(long, **LONG, batch_size=1).steps_per_epoch is None  # 118 windows: each once
    assert not set_up(long, **LONG, calendar=False).calendar and set_up(wide, calendar=True).calendar
    assert (
        set_up(wide, steps_per_epoch=3).steps_per_epoch == set_up(long, **LONG, steps_per_epoch=3).steps_per_epoch == 3
    )
    many = pd.concat([table.assign(unique_id=i) for i in range(12)]).rename(columns={"a": "y"})[
        ["unique_id", "ds", "y"]
    ]
    assert set_up(save(many), **LONG, batch_size=1).steps_per_epoch == 500


def test_a_checkpoint_restores_the_scaling_with_its_covariates(save: Callable[..., str]) -> None:
    """On another file of the same series, and of one that is new, whose own rows scale it."""
    table = frame((100, 90), gaps=False)
    data = set_up(save(table), **LONG, **COVARIATES)
    state = data.state_dict()
    assert {type(value) for value in state["arrays"].values()} == {torch.Tensor}

    new = table[table["unique_id"] == "s1"].assign(unique_id="new", size=5.0, y=table["y"] * 3)
    other = pd.concat([table.assign(y=table["y"] * 100, price=table["price"] * 7 + 2), new])
    again = ForecastDataModule(csv=save(other, "other.csv"), **SMALL, **LONG, **COVARIATES, calendar=False)
    again.load_state_dict(state)
    again.setup("predict")
    assert again.calendar  # as there
    moments = again.scaling.of_target(again.panel)
    np.testing.assert_allclose(moments[:2], data.scaling.of_target(data.panel))
    rows = new["y"].to_numpy()
    np.testing.assert_allclose(moments[2], [rows.mean(), rows.std()])
    price = np.concatenate([rows["price"][: 7 * len(rows) // 10] for _, rows in table.groupby("unique_id")])
    features, ahead = again.scaling.features(again.panel)
    assert ahead == data.sizes["future_features"] and features.shape[1] == data.sizes["past_features"]
    place = _column_of(data, "price")
    expected = (other[other["unique_id"] == "s0"]["price"] - price.mean()) / price.std()
    np.testing.assert_allclose(features[:100, place], expected, rtol=1e-6)


def _column_of(data: ForecastDataModule, name: str) -> int:
    """Where the features hold a covariate of the first series."""
    values = data.panel.future_covariates[:100, data.panel.columns.future_covariates.index(name)]
    features = data.scaling.features(data.panel)[0][:100]
    same = [
        i
        for i in range(features.shape[1])
        if features[:, i].std() and abs(np.corrcoef(features[:, i], values)[0, 1]) > 0.999
    ]
    assert len(same) == 1
    return same[0]


def test_a_damaged_state_is_refused(save: Callable[..., str]) -> None:
    data = set_up(save(hourly()))
    for state in ({"about": {}}, {"arrays": {}}, {"about": {}, "arrays": {"scales": 3}}):
        with pytest.raises(DataError, match="the checkpoint is damaged: it holds no mean and scale for each series"):
            data.load_state_dict(state)


def test_a_file_with_a_split_by_dates_is_predicted_from_its_end(save: Callable[..., str]) -> None:
    """Also rows that the dates do not split: what is forecast lies after the last of them."""
    data = set_up(save(hourly(20)), "predict", split="2025-01-01/2025-06-01")
    (batch,) = data.predict_dataloader()
    assert batch["future_target"].shape == (2, 0) and batch["index"].tolist() == [20, 20]
    mean, scale = data.scaling.of_target(data.panel)[0]
    np.testing.assert_allclose(batch["past_target"][0] * scale + mean, np.arange(20 - L, 20), atol=1e-4)
    assert (mean, scale) == (pytest.approx(9.5), pytest.approx(np.arange(20).std()))
    with pytest.raises(DataError, match="no row lies"):
        data.setup("fit")


def test_a_transform_is_standardised_by_the_training_rows(save: Callable[..., str]) -> None:
    data = set_up(save(hourly()), transform="log1p")
    learned = np.log1p(np.arange(70))
    np.testing.assert_allclose(data.scaling.of_target(data.panel)[0], [learned.mean(), learned.std()])
    batch = data.windows("test").__getitems__([0])
    expected = (np.log1p(np.arange(80, 80 + H)) - learned.mean()) / learned.std()
    np.testing.assert_allclose(batch["future_target"][0], expected, rtol=1e-5)
    with pytest.raises(DataError, match="series a, ds 2024-01-01 00:00:00: the target must be"):
        set_up(save(hourly().assign(a=-np.arange(100.0) - 2)), transform="log1p")


def test_holidays_are_known_ahead(save: Callable[..., str]) -> None:
    """Of daily rows: they differ from the calendar where there is a holiday, in lookback and horizon alike."""
    days = pd.date_range("2024-01-01", periods=200)
    table = pd.DataFrame({"unique_id": "a", "ds": days, "y": np.arange(200.0)})
    plain, data = (set_up(save(table), **LONG, holidays=codes) for codes in ([], ["DE-BY"]))
    more = data.sizes["future_features"] - plain.sizes["future_features"]
    assert more > 0
    features = [each.scaling.features(each.panel)[0] for each in (plain, data)]
    known = np.array([day in holidays.country_holidays("DE", subdiv="BY") for day in days.date])
    assert known.sum() > 5
    own = [column for column in features[1].T if not any(np.allclose(column, other) for other in features[0].T)]
    assert len(own) == more and any(len({*column[known]} & {*column[~known]}) == 0 for column in own)
    state = data.state_dict()
    again = ForecastDataModule(csv=save(table), **SMALL, **LONG)
    again.load_state_dict(state)
    again.setup("predict")
    assert again.sizes == data.sizes
    with pytest.raises(ValueError, match="no code 'XX'"):
        ForecastDataModule(csv="own.csv", holidays=["XX"])
