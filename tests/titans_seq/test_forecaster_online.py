"""A forecaster that goes on learning while it is used: observe, predict, forget, keep; and what surprises it."""

import numpy as np
import pandas as pd
import pytest
import torch

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataError, DataWarning
from titans_seq.datamodules.forecast.reading import read_frame
from titans_seq.datamodules.forecast.windows import Anchors, Windows
from titans_seq.forecast.network import blocks_of, inputs_of

L, H = 16, 4
SMALL = {
    "horizon": H, "lookback": L, "network": {"dim": 8}, "max_epochs": 1, "steps_per_epoch": 10, "batch_size": 8,
    "accelerator": "cpu", "val_size": 12, "train_blocks": 2, "future_covariates": ["price"],
}  # fmt: skip


def frame(lengths=(120, 100), begin="2024", seed=0) -> pd.DataFrame:
    random, parts = np.random.default_rng(seed), []
    for i, n in enumerate(lengths):
        y = 10.0**i * (2 + np.sin(np.arange(n) / 2) + 0.2 * random.standard_normal(n))
        times = pd.date_range(begin, periods=n, freq="h")
        parts.append(pd.DataFrame({"unique_id": f"s{i}", "ds": times, "y": y, "price": random.standard_normal(n)}))
    data = pd.concat(parts, ignore_index=True)
    data.loc[random.choice(len(data), 12, replace=False), "y"] = np.nan
    return data


def first(data: pd.DataFrame, n: int) -> pd.DataFrame:
    return data[data.groupby("unique_id").cumcount() < n]


def between(data: pd.DataFrame, begin: int, end: int) -> pd.DataFrame:
    return data[data.groupby("unique_id").cumcount().between(begin, end - 1)]


def ahead(data: pd.DataFrame, n: int) -> pd.DataFrame:
    return between(data, n, n + H)[["unique_id", "ds", "price"]]


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return frame()


@pytest.fixture(scope="module")
def model(data) -> TitansForecaster:
    return TitansForecaster(**SMALL).fit(data)


@pytest.fixture(autouse=True)
def forgotten(model):
    yield
    model.reset()


def windows_at(panel, scaling, lookback: int, row: int) -> Windows:
    which = np.arange(len(panel))
    return Windows(panel, scaling, lookback, H, Anchors(which[:, None], np.full(len(panel), row)))


def by_hand(model: TitansForecaster, data: pd.DataFrame, n: int) -> np.ndarray:
    """Forecasts after n rows: every full block before the last 2 L rows in turn, then these as two blocks, by the
    network alone.
    """
    panel = read_frame(first(data, n + H), model.columns)
    scaling = model.scaling_.with_series(panel)
    network, which = model.module_.network, np.arange(len(panel))
    states, boundary = network.fresh(len(panel)), max(n // L - 2, 0) * L
    with torch.inference_mode():
        for end in (*range(L, boundary + L, L), *([n - L] if n > L else [])):  # nothing is seen before the first row
            windows = windows_at(panel, scaling, L, end)
            _, states, _ = network.carry(**inputs_of(windows.__getitems__(which)), state=states)
        windows = windows_at(panel, scaling, L, n)
        (raw, loc, scale), _, _ = network.carry(**inputs_of(windows.__getitems__(which)), state=states)
    middle = raw[..., raw.shape[-1] // 2] * scale + loc
    mean, deviation = scaling.of_target(panel).T
    return (middle.double().numpy() * deviation[:, None] + mean[:, None]).ravel()


@pytest.mark.parametrize("n", [3, L - 1, L, L + 5, 2 * L, 3 * L + 7, 5 * L])
def test_a_forecast_goes_on_from_the_blocks_before_its_window(model, data, n):
    model.observe(first(data, n))
    found = model.predict(future=ahead(data, n))
    np.testing.assert_allclose(found["Titans"], by_hand(model, data, n), rtol=1e-4)
    pd.testing.assert_frame_equal(found, model.predict(future=ahead(data, n)))  # reading is no writing


@pytest.mark.parametrize("cuts", [(1,), (L,), (5, 6, 40), (7, 14, 21, 28, 35, 42, 49, 56, 63), (79,)], ids=str)
def test_any_cut_gives_the_same(model, data, cuts):
    """In pieces as at once: forecasts and states, in whatever order the rows of a piece come."""
    n = 5 * L
    model.observe(first(data, n))
    whole, states = model.predict(future=ahead(data, n)), model.fitted_.stream
    model.reset()
    for begin, end in zip((0, *cuts), (*cuts, n), strict=True):
        model.observe(between(data, begin, end).sample(frac=1, random_state=1))
    found, stream = model.predict(future=ahead(data, n)), model.fitted_.stream
    pd.testing.assert_frame_equal(found.sort_values(["unique_id", "ds"], ignore_index=True), whole, rtol=1e-4)
    order = torch.tensor([list(stream.rows.ids).index(name) for name in ("s0", "s1")])
    for one, other in zip(states.now.tensors(), stream.now.select(order).tensors(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert (stream.rows.lengths < 3 * L).all()  # what is kept does not grow


def test_series_move_at_their_own_pace_and_do_not_mix(model, data):
    model.observe(first(data, 20))
    model.observe(between(data[data["unique_id"] == "s1"], 20, 60))
    s0, s1 = (data[data["unique_id"] == name] for name in ("s0", "s1"))
    together = model.predict(future=pd.concat([ahead(s0, 20), ahead(s1, 60)]))
    for name, alone, n in (("s0", s0, 20), ("s1", s1, 60)):
        model.reset().observe(first(alone, n))
        found = model.predict(future=ahead(alone, n))
        np.testing.assert_allclose(together.loc[together["unique_id"] == name, "Titans"], found["Titans"], rtol=1e-4)


def test_what_was_observed_counts_and_is_forgotten(model, data):
    n = 5 * L
    alone = model.predict(first(data, n), ahead(data, n))
    model.observe(first(data, n))
    assert not np.allclose(model.predict(future=ahead(data, n))["Titans"], alone["Titans"])
    # a frame of its own is no part of the stream
    pd.testing.assert_frame_equal(model.predict(first(data, n), ahead(data, n)), alone)
    model.reset()
    pd.testing.assert_frame_equal(model.predict(first(data, n), ahead(data, n)), alone)


def test_the_state_is_kept_apart_from_the_weights(model, data, tmp_path):
    n = 3 * L + 5
    model.observe(first(data, n)).save_state(tmp_path / "state.safetensors")
    model.save(tmp_path / "model")
    loaded = TitansForecaster.load(tmp_path / "model")
    assert loaded.fitted_.stream is None
    loaded.load_state(tmp_path / "state.safetensors")
    pd.testing.assert_frame_equal(loaded.predict(future=ahead(data, n)), model.predict(future=ahead(data, n)))
    for each in (loaded, model):
        each.observe(between(data, n, n + L))
    pd.testing.assert_frame_equal(loaded.predict(future=ahead(data, n + L)), model.predict(future=ahead(data, n + L)))
    other = TitansForecaster(**SMALL, seed=3).fit(data)
    with pytest.raises(ValueError, match="is the state of another model"):
        other.load_state(tmp_path / "state.safetensors")
    with pytest.raises(ValueError, match="nothing was observed yet"):
        other.save_state(tmp_path / "nothing")


WRONG = {
    "seen": (lambda d: between(d, 30, 50), "s0: ds .* 06:00:00 was observed already; the next row is 2024-01-02 16:00"),
    "gap": (lambda d: between(d, 42, 60), r"series s0: ds 2024-01-02 18:00:00 leaves a gap after 2024-01-02 15:00:00"),
    "new series": (lambda d: between(d, 40, 60).replace("s1", "s9"), "series s9 is new"),
    "column": (lambda d: between(d, 40, 60).drop(columns="price"), "no column 'price'"),
    "one of two": (
        lambda d: pd.concat([between(d[d["unique_id"] == "s0"], 40, 60), between(d[d["unique_id"] == "s1"], 41, 60)]),
        "series s1: ds 2024-01-02 17:00:00 leaves a gap",
    ),
}  # fmt: skip


@pytest.mark.parametrize("rows, message", WRONG.values(), ids=WRONG)
def test_wrong_rows_change_nothing(model, data, rows, message):
    model.observe(first(data, 40))
    before, stream = model.predict(future=ahead(data, 40)), model.fitted_.stream
    with pytest.raises(DataError, match=message) as caught:
        model.observe(rows(data))
    assert "\n" not in str(caught.value) and model.fitted_.stream is stream
    pd.testing.assert_frame_equal(model.predict(future=ahead(data, 40)), before)


def test_a_stream_that_begins_after_the_rows_of_fit_is_warned_of(model, data):
    later = data.assign(ds=data["ds"] + pd.Timedelta(days=10))
    with pytest.warns(DataWarning, match="2 series begin after the rows of fit, the first is s0"):
        model.observe(later)


def test_values_beyond_single_precision_are_refused(model, data):
    model.observe(first(data, 40))
    stream = model.fitted_.stream
    wild = between(data, 40, 60).assign(y=lambda f: f["y"].where(f.index != f.index[3], 1e300))
    with pytest.raises(DataError, match="s0, ds 2024-01-02 19:00:00 .row 3.: 1e.300 is not a finite number up to"):
        model.observe(wild)
    assert model.fitted_.stream is stream


def test_only_a_memory_can_observe(data):
    plain = TitansForecaster(**(SMALL | {"mixer": "none", "train_blocks": 1})).fit(data)
    with pytest.raises(ValueError, match="surprise need a mixer with a memory"):
        plain.observe(data)
    with pytest.raises(ValueError, match="need a mixer with a memory"):
        plain.surprise(data)


def test_blocks_of_a_training_window(model, data):
    """Every block has the past, the covariates and the targets that follow it."""
    panel = read_frame(data, model.columns)
    windows = windows_at(panel.take(np.array([0])), model.scaling_, 3 * L, 60)
    batch = windows.__getitems__([0])
    for i, part in enumerate(blocks_of(batch, L, H)):
        alone = windows_at(panel.take(np.array([0])), model.scaling_, L, 60 - (2 - i) * L).__getitems__([0])
        seen = {"past_observed_values": torch.ones(1, L), "future_observed_values": torch.ones(1, H)}  # without a gap
        assert part.keys() == {*alone, *seen} - {"index"}
        for name in part:
            torch.testing.assert_close(part[name], alone.get(name, seen.get(name)))
    with pytest.raises(ValueError, match="whole blocks of 16 steps; got 40"):
        blocks_of({"past_target": torch.zeros(1, 40)}, L, H)


def test_surprise_is_that_of_reading_the_stream(model, data):
    """One value per row, block after block with the memory carried on; the rest in the block that ends with the last
    row.
    """
    rows = first(data[data["unique_id"] == "s0"], 3 * L + 5)
    found = model.surprise(rows)
    assert list(found.columns) == ["unique_id", "ds", "surprise"] and len(found) == len(rows)
    panel = read_frame(rows, model.columns)
    network, wanted = model.module_.network, []
    states = [network.fresh(1)]  # after 0, 1, 2, ... blocks
    with torch.inference_mode():
        for end, before in ((L, 0), (2 * L, 1), (3 * L, 2), (3 * L + 5, 2)):
            batch = windows_at(panel, model.scaling_, L, end).__getitems__([0])
            _, after, surprise = network.carry(**inputs_of(batch), state=states[before])
            states.append(after)
            wanted.append(surprise[0].numpy()[-(end % L or L) :])
    np.testing.assert_allclose(found["surprise"], np.concatenate(wanted), rtol=1e-4)
    short = model.surprise(rows.iloc[:7])
    assert len(short) == 7 and (short["surprise"] > 0).all()
