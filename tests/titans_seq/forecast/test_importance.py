"""Permutation importance: what drives the series comes first, what does not is about nothing."""

import numpy as np
import pandas as pd
import pytest
from hourly_frames import COVARIATES, SMALL, H, frame

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.forecast.panel import Columns
from titans_seq.datamodules.forecast.reading import read_panel
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.forecast.importance import _exchanged, _mixed, _windows
from titans_seq.forecast.inference import thinned

KNOWN = Columns(past_covariates=("temp",), future_covariates=("price",), static_covariates=("kind", "size"))


@pytest.fixture(scope="module")
def fitted() -> TitansForecaster:
    longer = SMALL | {"max_epochs": 6, "steps_per_epoch": 60}
    return TitansForecaster(**longer, **COVARIATES, holidays="DE").fit(frame())


def test_the_price_that_drives_the_series_comes_first(fitted):
    found = fitted.importance(frame(seed=1))
    assert list(found) == ["covariate", "kind", "increase", "deviation", "share"]
    assert found["covariate"].iloc[0] == "price" and found["kind"].iloc[0] == "future"
    assert set(found["covariate"]) == {"price", "temp", "kind", "size", "calendar", "holidays DE"}
    by_name = found.set_index("covariate")
    assert by_name.loc["price", "share"] > 0.5
    assert abs(by_name.loc["temp", "increase"]) < 0.2 * by_name.loc["price", "increase"]
    assert by_name.loc["kind", "kind"] == by_name.loc["size", "kind"] == "static"
    assert (found["increase"].diff().dropna() <= 0).all()
    pd.testing.assert_frame_equal(fitted.importance(frame(seed=1)), found)


def test_what_is_constant_changes_nothing():
    """A covariate that is the same in all windows adds exactly 0; several networks and parts of blocks too."""
    data = frame((120, 120)).assign(temp=3.0)
    model = TitansForecaster(**SMALL, past_covariates=["temp"], calendar=False, seeds=2, train_blocks=2).fit(data)
    found = model.importance(frame((120, 120), gaps=False).assign(temp=3.0))
    assert found["covariate"].tolist() == ["temp"] and found["kind"].tolist() == ["past"]
    assert found["increase"].tolist() == found["deviation"].tolist() == [0.0]


def test_columns_are_those_of_the_covariate():
    """Setting a covariate missing changes its columns, and no others."""
    data = frame(gaps=False)
    panel = read_panel(data, KNOWN, "h")
    scaling = PanelScaling.fit(panel, calendar=True, holidays=("DE", "US"))
    groups = {name: (kind, columns) for name, kind, columns in scaling.groups(panel)}
    assert list(groups) == ["calendar", "holidays DE", "holidays US", "price", "temp", "size", "kind"]
    before, ahead = scaling.features(panel)
    for name in ("price", "temp"):
        after, _ = scaling.features(read_panel(data.assign(**{name: np.nan}), KNOWN, "h"))
        assert np.flatnonzero((before != after).any(axis=0)).tolist() == groups[name][1]
    dynamic = [column for kind, columns in groups.values() if kind != "static" for column in columns]
    assert dynamic == list(range(before.shape[1])) and max(groups["price"][1]) == ahead - 1
    static = [column for kind, columns in groups.values() if kind == "static" for column in columns]
    assert static == list(range(scaling.static(panel).shape[1]))


def test_no_window_keeps_its_values_and_nothing_else_moves(fitted):
    order = _exchanged(50, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(50)) and (order.numpy() != np.arange(50)).all()
    panel = read_panel(frame(), KNOWN, "h")
    windows = thinned(_windows(fitted.fitted_, panel), 50 * H)
    batch = windows.__getitems__(range(len(windows)))
    columns = next(columns for name, _, columns in fitted.scaling_.groups(panel) if name == "price")
    mixed = _mixed(batch, "future", columns, order)
    for name in ("past_features", "future_features"):
        moved = batch[name][order]
        others = [i for i in range(batch[name].shape[-1]) if i not in columns]
        assert (mixed[name][..., columns] == moved[..., columns]).all()
        assert (mixed[name][..., others] == batch[name][..., others]).all()
    assert (mixed["past_target"] == batch["past_target"]).all()


def test_nothing_to_measure_is_said(fitted):
    plain = frame()[["unique_id", "ds", "y"]]
    bare = TitansForecaster(**SMALL, calendar=False).fit(plain)
    with pytest.raises(DataError, match="has no covariates and no calendar"):
        bare.importance(plain)
    with pytest.raises(DataError, match="the rows give no two windows"):
        fitted.importance(frame().groupby("unique_id").head(2))
    with pytest.raises(DataError, match="repeats must be at least 1; got 0"):
        fitted.importance(frame(), repeats=0)
