"""Windows of a panel: what they hold, what they must not know."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from titans_seq.datamodules.forecast.data import PanelData
from titans_seq.datamodules.forecast.panel import Columns, Panel
from titans_seq.datamodules.forecast.protocol import HoldOut
from titans_seq.datamodules.forecast.reading import read_panel
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.windows import Anchors, Windows

L, H = 8, 3
COLUMNS = Columns(past_covariates=("temp",), future_covariates=("price",), static_covariates=("kind", "size"))


def panel(lengths=(20, 6, 30), seed=0, columns=COLUMNS) -> Panel:
    random = np.random.default_rng(seed)
    parts = []
    for i, n in enumerate(lengths):
        y = 10.0**i + random.standard_normal(n)
        y[random.random(n) < 0.15] = np.nan
        parts.append(
            pd.DataFrame({
                "unique_id": f"s{i}", "ds": pd.date_range("2024", periods=n, freq="h"), "y": y,
                "temp": np.where(random.random(n) < 0.2, np.nan, random.standard_normal(n)),
                "price": random.standard_normal(n), "kind": "ab"[i % 2], "size": float(i),
            })
        )  # fmt: skip
    return read_panel(pd.concat(parts, ignore_index=True), columns, "h")


def test_windows_against_a_loop_over_steps():
    data = panel()
    scaling = PanelScaling.fit(data, calendar=True)
    windows = Windows(data, scaling, L, H, HoldOut(0, H).anchors(data, "train", L, H))
    assert len(windows) > 20
    batch = windows.__getitems__(range(len(windows)))
    features, ahead = scaling.features(data)
    assert ahead == 2 + 4  # price and its mark; hour and days of week, month, year
    mean, scale = scaling.scales["mean"], scaling.scales["scale"]
    for w, (i, first) in enumerate(zip(windows.anchors.series[:, 0], windows.anchors.first, strict=True)):
        begin, end, name = data.offsets[i], data.offsets[i + 1], data.ids[i]
        for step in range(L + H):
            row = begin + first - L + step
            side, at = ("past", step) if step < L else ("future", step - L)
            inside = begin <= row < end
            value = data.target[row] if inside else np.nan
            observed = bool(batch[f"{side}_observed_values"][w, at])
            assert observed == bool(np.isfinite(value))
            wanted = (value - mean[name]) / scale[name] if observed else 0.0
            assert float(batch[f"{side}_target"][w, at]) == pytest.approx(wanted, abs=1e-5)
            found = batch[f"{side}_features"][w, at].numpy()
            wanted = features[row] if inside else np.zeros(features.shape[1])
            np.testing.assert_allclose(found, wanted[: len(found)], atol=1e-6)
        assert batch["static_features"][w].tolist() == pytest.approx(scaling.static(data)[i].tolist(), abs=1e-6)


def test_scaling_is_that_of_observed_rows():
    data = panel((20, 16, 30))
    scaling = PanelScaling.fit(data, calendar=False)
    for i, name in enumerate(data.ids):
        rows = data.target[data.series == i]
        assert scaling.scales.loc[name].tolist() == pytest.approx([np.nanmean(rows), np.nanstd(rows)])
    features, ahead = scaling.features(data)
    assert ahead == 2
    temp, missing = features[:, 2], features[:, 3]
    assert (missing == np.isnan(data.past_covariates[:, 0])).all() and (temp[missing == 1] == 0).all()
    assert temp[missing == 0].mean() == pytest.approx(0, abs=1e-9) and temp[missing == 0].std() == pytest.approx(1)


@pytest.mark.parametrize("poison", [np.nan, 1e6, -1e6])
def test_nothing_after_the_training_rows_enters_scaling_or_windows(poison):
    """Validation rows are replaced: scaling and training windows stay what they were, bit by bit."""
    data = panel()
    late = np.concatenate([np.arange(n) >= n - (6 if n >= 6 + 2 * H else 0) for n in data.lengths])
    bad = replace(
        data,
        target=np.where(late, poison, data.target),
        past_covariates=np.where(late[:, None], poison, data.past_covariates),
        future_covariates=np.where(late[:, None], poison, data.future_covariates),
    )
    made = [PanelData(each, HoldOut(6, H), lookback=L, horizon=H) for each in (data, bad)]
    pd.testing.assert_frame_equal(made[0].scaling.scales, made[1].scaling.scales)
    ones, others = (list(each.train_dataloader()) for each in made)
    assert len(ones) == len(others) > 0
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_and_validation_windows_share_no_target():
    data = panel((40, 12, 30))
    made = PanelData(data, HoldOut(6, H), lookback=L, horizon=H)
    assert made.val is not None
    firsts = {(data.ids[i], t) for i, t in zip(made.val.anchors.series[:, 0], made.val.anchors.first, strict=True)}
    assert all(t >= {"s0": 34, "s1": 6, "s2": 24}[name] for name, t in firsts)
    names = [data.ids[i] for i in made.train.anchors.series[:, 0]]
    ends = [t + H for t in made.train.anchors.first]
    assert all(end <= {"s0": 34, "s1": 6, "s2": 24}[name] for name, end in zip(names, ends, strict=True))


def test_every_window_that_can_be_learned_from_is_there():
    """Whole lookbacks of long series; of short ones windows from the middle on; none without an observed value on both
    sides.
    """
    data = panel((14, 6))
    data.target[:] = 1.0
    anchors = HoldOut(0, H).anchors(data, "train", L, H)
    assert list(zip(anchors.series[:, 0], anchors.first, strict=True)) == [(0, t) for t in (5, 6, 7, 8, 9, 10, 11)] + [
        (1, t) for t in (1, 2, 3)
    ]
    data.target[data.offsets[1] :] = np.nan
    assert 1 not in HoldOut(0, H).anchors(data, "train", L, H).series


def test_epochs_are_fixed_by_the_seed_and_have_their_length():
    made = [
        PanelData(panel(), HoldOut(0, H), lookback=L, horizon=H, seed=s, batch_size=4, steps_per_epoch=5)
        for s in (1, 1, 2)
    ]
    orders = [[b["index"].tolist() for b in each.train_dataloader()] for each in made]
    assert orders[0] == orders[1] != orders[2]
    assert [len(batch) for batch in orders[0]] == [4] * 5


def test_unseen_categories_and_series():
    data = panel()
    scaling = PanelScaling.fit(data.rows(np.zeros(3, int), np.array([20, 0, 0])), calendar=False)
    np.testing.assert_array_equal(scaling.static(data)[:, 1:], [[1], [0], [1]])  # s1 is of a kind never seen
    assert np.isnan(scaling.of_target(data)[1:]).all()
    known = scaling.with_series(data)
    assert known.scales.loc["s1", "mean"] == pytest.approx(np.nanmean(data.target[data.series == 1]))
    assert known.scales.loc["s0"].equals(scaling.scales.loc["s0"])


def test_series_too_short_for_any_window():
    with pytest.raises(ValueError, match="no series has an observed row before a horizon of 3 rows"):
        PanelData(panel((3, 2)), HoldOut(0, H), lookback=L, horizon=H)


def test_a_series_without_a_value_in_training_does_not_spoil_validation():
    data = panel((40, 40))
    data.target[data.offsets[1] : data.offsets[1] + 34] = np.nan  # its first values are in the validation rows
    made = PanelData(data, HoldOut(6, H), lookback=L, horizon=H)
    assert made.val is not None
    for batch in (*made.train_dataloader(), *made.val_dataloader()):
        assert all(torch.isfinite(value).all() for value in batch.values())
    assert sum(float(batch["future_observed_values"].sum()) for batch in made.val_dataloader()) > 0


def test_an_epoch_is_validated_on_as_many_windows_as_asked_evenly_spread():
    data = panel((200, 150, 100))
    every, some = (PanelData(data, HoldOut(60, H), lookback=L, horizon=H, val_windows=n) for n in (None, 7))
    whole, thinned = (torch.cat([b["index"] for b in each.val_dataloader()]).tolist() for each in (every, some))
    assert len(whole) > 100 and len(thinned) == 7 and len(some.val) == len(every.val) == len(whole)
    ends = [i * len(whole) // 7 for i in range(8)]
    assert all(one in whole[begin:end] for one, begin, end in zip(thinned, ends[:-1], ends[1:], strict=True))


def test_windows_of_a_table_hold_all_its_series():
    """Window after window, each with every series; other windows of the same rows share their memory."""
    data = panel((30, 30))
    data.target[:] = np.arange(60.0)
    windows = Windows(
        data, PanelScaling.fit(data, calendar=False), L, H, Anchors(np.tile([0, 1], (2, 1)), np.array([9, 12]))
    )
    batch = windows.__getitems__([1, 0])
    assert batch["index"].tolist() == [12, 12, 9, 9] and "past_observed_values" not in batch
    mean, scale = np.array([14.5, 44.5]), np.arange(30).std()
    np.testing.assert_allclose(batch["past_target"][0] * scale + mean[0], np.arange(12 - L, 12), atol=1e-4)
    np.testing.assert_allclose(batch["future_target"][3] * scale + mean[1], np.arange(39, 39 + H), atol=1e-4)
    other = windows.at(Anchors(np.array([[1]]), np.array([2])))
    assert other.target.data_ptr() == windows.target.data_ptr()
    assert other[0]["past_observed_values"].tolist() == [0.0] * (L - 2) + [1.0] * 2


def scales(*series: list[float]) -> list[float]:
    rows = [(f"s{i}", t, y) for i, values in enumerate(series) for t, y in enumerate(values)]
    frame = pd.DataFrame(rows, columns=["unique_id", "ds", "y"])
    return PanelScaling.fit(read_panel(frame, Columns()), calendar=False).scales["scale"].tolist()


RATES = [[size * (i % period) for i in range(20)] for size, period in ((0.001, 4), (0.002, 3), (0.001, 5))]


def test_flat_and_short_series_are_scaled_by_what_is_typical_of_the_panel():
    typical = float(np.median([np.std(values) for values in RATES]))
    *own, flat, short = scales(*RATES, [0.002] * 3, [0.002, 0.0021])
    np.testing.assert_allclose(own, [np.std(values) for values in RATES])
    assert 0.0005 < flat <= typical and short == pytest.approx(flat)
    assert scales(*RATES, [1e5] * 30)[-1] == pytest.approx(typical)  # it never moved: not by half its size
    sales = [[1e5 + 1e4 * (i % 4) for i in range(20)]]
    assert scales(*sales, [0.002] * 30)[-1] < 0.002  # nor by the unit of the others
    assert scales([1e5] * 30) == pytest.approx([100.0]) and scales([0.0] * 30) == [1.0]


def test_a_series_that_scaling_does_not_know_counts_as_missing():
    data = panel()
    scaling = PanelScaling.fit(data.take(np.array([2, 0])), calendar=False)
    found = scaling.of_target(data)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], scaling.scales.loc[["s0", "s2"]])
    windows = Windows(data, scaling, L, H, Anchors(np.arange(3)[:, None], data.lengths - H))
    seen = windows.__getitems__(range(3))["past_observed_values"]
    assert not seen[1].any() and seen[0].any() and seen[2].any()
    assert np.isnan(windows.targets()[1]).all() and np.isfinite(windows.targets()[2]).any()
