"""A forecaster gives frames of the library, zone and kind of time that it was given."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from titans_seq import TitansForecaster

H = 4
QUICK = {
    "horizon": H, "lookback": 16, "max_epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "val_size": 8,
    "network": {"dim": 8, "depth": 1}, "accelerator": "cpu",
}  # fmt: skip
TIMES = pd.date_range("2024-03-29", periods=80, freq="h", tz="Europe/Berlin")


def rows(times: pd.Index, length: int = 60) -> pd.DataFrame:
    values = np.sin(np.arange(length) / 3)
    parts = [pd.DataFrame({"unique_id": name, "ds": times[:length], "y": values + i}) for i, name in enumerate("ab")]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def fitted() -> TitansForecaster:
    return TitansForecaster(**QUICK).fit(pl.from_pandas(rows(TIMES)))


def test_polars_in_polars_out(fitted, tmp_path):
    known = fitted.predict()
    assert isinstance(known, pl.DataFrame) and known.columns[:3] == ["unique_id", "ds", "Titans"]
    assert known["ds"].dtype.time_zone == "Europe/Berlin"
    assert known["ds"].to_list()[:H] == [time.to_pydatetime() for time in TIMES[60 : 60 + H]]
    again = fitted.predict(pl.from_pandas(rows(TIMES)).lazy(), level=None)
    np.testing.assert_allclose(again["Titans"].to_numpy(), known["Titans"].to_numpy(), rtol=1e-5)
    assert isinstance(fitted.surprise(pl.from_pandas(rows(TIMES))), pl.DataFrame)
    assert isinstance(fitted.predict(rows(TIMES)), pd.DataFrame)
    assert isinstance(fitted.backtest(pl.from_pandas(rows(TIMES)), level=None), pl.DataFrame)


def test_a_loaded_forecaster_keeps_the_zone(fitted, tmp_path):
    loaded = TitansForecaster.load(fitted.save(tmp_path / "model"))
    assert list(loaded.predict()["ds"][:H]) == list(TIMES[60 : 60 + H])
    loaded.observe(pl.from_pandas(rows(TIMES)))
    loaded.save_state(tmp_path / "state")
    loaded.load_state(tmp_path / "state")
    assert list(loaded.predict()["ds"][:H]) == list(TIMES[60 : 60 + H])


@pytest.mark.parametrize("wide", [True, False], ids=["wide", "long"])
@pytest.mark.parametrize(
    "times",
    [
        pd.date_range("2024-02-20", periods=80, freq="D", tz="Europe/Berlin"),
        pd.date_range("2024-10-25", periods=80, freq="h", tz="Europe/Berlin"),
        pd.period_range("2010", periods=80, freq="M"),
        pd.period_range("2000", periods=80, freq="Q-NOV"),
    ],
    ids=["days", "hours", "months", "quarters"],
)
def test_times_come_back_as_they_were(times, wide, tmp_path):
    long = rows(times)
    frame = long.pivot(index="ds", columns="unique_id", values="y") if wide else long
    model = TitansForecaster(**QUICK).fit(frame)
    for made in (model, TitansForecaster.load(model.save(tmp_path / "model"))):
        found = made.predict(level=(80,))
        stamps = found.index if wide else found["ds"][:H]
        assert list(stamps) == list(times[60 : 60 + H])
        cutoffs = model.backtest(frame, windows=2, level=None)["cutoff"]
        assert list(cutoffs.unique()) == [times[51], times[55]]


def test_a_picture_after_a_fit_on_polars(fitted):
    """Also of a forecast in polars' own form, long and wide."""
    known = fitted.predict(rows(TIMES), level=(80,))["Titans"].to_numpy()
    wide = pl.from_pandas(rows(TIMES).pivot(index="ds", columns="unique_id", values="y").reset_index())
    model = TitansForecaster(**QUICK).fit(wide)
    pictures = [
        fitted.plot(),
        fitted.plot(forecast=fitted.predict(level=(80,))),
        fitted.plot(pl.from_pandas(rows(TIMES))),
    ]
    for picture in (*pictures, model.plot(), model.plot(wide, model.predict(level=(80,)))):
        assert [axes.get_ylabel() for axes in picture.axes] == ["a", "b"]
    for picture in pictures:
        drawn = {line.get_label(): line.get_ydata() for line in picture.axes[1].lines}
        np.testing.assert_allclose(drawn["forecast"][1:], known[H:], rtol=1e-5)


def test_a_picture_of_periods():
    times = pd.period_range("2010", periods=80, freq="M")
    axes = TitansForecaster(**QUICK).fit(rows(times)).plot().axes[0]
    drawn = next(line for line in axes.lines if line.get_label() == "forecast")
    assert pd.Timestamp(drawn.get_xdata()[-1]) == times[60 + H - 1].start_time
