"""Windows of a panel: what they hold, what they must not know."""

import numpy as np
import pandas as pd
import pytest
import torch

from titans_seq.datamodules.forecast.panel import Columns, Panel
from titans_seq.datamodules.forecast.panel_data import PanelData
from titans_seq.datamodules.forecast.panel_windows import PanelScaling, PanelWindows, training_anchors
from titans_seq.datamodules.forecast.reading import read_panel

L, H = 8, 3
COLUMNS = Columns(past_covariates=("temp",), future_covariates=("price",), static_covariates=("kind", "size"))


def panel(lengths=(20, 6, 30), seed=0, columns=COLUMNS) -> Panel:
    random = np.random.default_rng(seed)
    parts = []
    for i, n in enumerate(lengths):
        y = 10.0**i + random.standard_normal(n)
        y[random.random(n) < 0.15] = np.nan
        parts.append(
            pd.DataFrame(
                {
                    "unique_id": f"s{i}",
                    "ds": pd.date_range("2024", periods=n, freq="h"),
                    "y": y,
                    "temp": np.where(random.random(n) < 0.2, np.nan, random.standard_normal(n)),
                    "price": random.standard_normal(n),
                    "kind": "ab"[i % 2],
                    "size": float(i),
                }
            )
        )
    return read_panel(pd.concat(parts, ignore_index=True), columns, "h")


def test_windows_against_a_loop_over_steps():
    data = panel()
    scaling = PanelScaling.fit(data, calendar=True)
    windows = PanelWindows(data, scaling, L, H, training_anchors(data, L, H))
    assert len(windows) > 20
    batch = windows.__getitems__(range(len(windows)))
    features, ahead = scaling.features(data)
    assert ahead == 2 + 4  # price and its mark; hour and days of week, month, year
    mean, scale = scaling.scales["mean"], scaling.scales["scale"]
    for w, (i, first) in enumerate(zip(windows.series.tolist(), windows.first.tolist(), strict=True)):
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
    data = panel()
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
    bad = Panel(
        data.ids,
        data.freq,
        data.times,
        data.offsets,
        np.where(late, poison, data.target),
        np.where(late[:, None], poison, data.past_covariates),
        np.where(late[:, None], poison, data.future_covariates),
        data.static_covariates,
        data.columns,
    )
    made = [PanelData(each, lookback=L, horizon=H, val_rows=6) for each in (data, bad)]
    pd.testing.assert_frame_equal(made[0].scaling.scales, made[1].scaling.scales)
    ones, others = (list(each.train_dataloader()) for each in made)
    assert len(ones) == len(others) > 0
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_and_validation_windows_share_no_target():
    data = panel((40, 12, 30))
    made = PanelData(data, lookback=L, horizon=H, val_rows=6)
    assert made.val is not None
    firsts = {(data.ids[i], t) for i, t in zip(made.val.series.tolist(), made.val.first.tolist(), strict=True)}
    assert all(t >= {"s0": 34, "s1": 6, "s2": 24}[name] for name, t in firsts)
    names = [data.ids[i] for i in made.train.series.tolist()]
    ends = [t + H for t in made.train.first.tolist()]
    assert all(end <= {"s0": 34, "s1": 6, "s2": 24}[name] for name, end in zip(names, ends, strict=True))


def test_every_window_that_can_be_learned_from_is_there():
    """Whole lookbacks of long series; of short ones windows from the middle on; none without an observed value on both
    sides.
    """
    data = panel((14, 6))
    data.target[:] = 1.0
    series, first = training_anchors(data, L, H)
    assert list(zip(series, first, strict=True)) == [(0, t) for t in (5, 6, 7, 8, 9, 10, 11)] + [
        (1, t) for t in (1, 2, 3)
    ]
    data.target[data.offsets[1] :] = np.nan
    assert 1 not in training_anchors(data, L, H)[0]


def test_epochs_are_fixed_by_the_seed_and_have_their_length():
    made = [PanelData(panel(), lookback=L, horizon=H, seed=s, batch_size=4, steps_per_epoch=5) for s in (1, 1, 2)]
    orders = [[b["index"].tolist() for b in each.train_dataloader()] for each in made]
    assert orders[0] == orders[1] != orders[2]
    assert [len(batch) for batch in orders[0]] == [4] * 5


def test_unseen_categories_and_series():
    data = panel()
    scaling = PanelScaling.fit(data.rows(np.zeros(3, int), np.array([20, 0, 0])), calendar=False)
    np.testing.assert_array_equal(scaling.static(data)[:, 1:], [[1], [0], [1]])  # s1 is of a kind never seen
    with pytest.raises(KeyError):
        scaling.of_target(data)
    known = scaling.with_series(data)
    assert known.scales.loc["s1", "mean"] == pytest.approx(np.nanmean(data.target[data.series == 1]))
    assert known.scales.loc["s0"].equals(scaling.scales.loc["s0"])


def test_series_too_short_for_any_window():
    with pytest.raises(ValueError, match="no series has a row before a horizon of 3"):
        PanelData(panel((3, 2)), lookback=L, horizon=H)


def test_a_series_without_a_value_in_training_does_not_spoil_validation():
    data = panel((40, 40))
    data.target[data.offsets[1] : data.offsets[1] + 34] = np.nan  # its first values are in the validation rows
    made = PanelData(data, lookback=L, horizon=H, val_rows=6)
    assert made.val is not None
    for batch in (*made.train_dataloader(), *made.val_dataloader()):
        assert all(torch.isfinite(value).all() for value in batch.values())
    assert sum(float(batch["future_observed_values"].sum()) for batch in made.val_dataloader()) > 0
