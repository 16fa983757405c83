"""Pictures of forecasts in frames: what is drawn is what the frames hold."""

import numpy as np
import pandas as pd
import pytest
from hourly_frames import SMALL, H, frame

from titans_seq import TitansForecaster
from titans_seq.datamodules.common.errors import DataError


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return frame((140, 120, 100), gaps=False)[["unique_id", "ds", "y"]]


@pytest.fixture(scope="module")
def fitted(data) -> TitansForecaster:
    return TitansForecaster(**SMALL).fit(data)


def lines(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_ydata() for line in axes.lines}


def bands(axes) -> list[str]:
    return [each.get_label() for each in axes.collections if "interval" in each.get_label()]


def test_history_forecast_and_intervals_are_those_of_the_frames(data, fitted):
    figure = fitted.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == ["s0", "s1", "s2"]
    found = fitted.predict()
    for axes, (name, part) in zip(figure.axes, found.groupby("unique_id"), strict=True):
        drawn, y = lines(axes), data[data["unique_id"] == name]["y"].to_numpy()
        np.testing.assert_array_equal(drawn["history"], y[-24:])
        np.testing.assert_array_equal(drawn["forecast"], [y[-1], *part["Titans"]])
        assert "truth" not in drawn and bands(axes) == ["95 % interval", "80 % interval"]
    assert [axes.get_ylabel() for axes in fitted.plot(series=["s1"], level=(50,)).axes] == ["s1"]


def test_a_backtest_is_drawn_with_what_came(data, fitted):
    table = fitted.backtest(data, windows=2)
    figure = fitted.plot(data, table, series=["s2"])
    y = data[data["unique_id"] == "s2"]["y"].to_numpy()
    np.testing.assert_array_equal(lines(figure.axes[0])["truth"], y[-H - 1 :])
    np.testing.assert_array_equal(
        lines(figure.axes[0])["forecast"][1:], table[table["unique_id"] == "s2"]["Titans"][-H:]
    )


@pytest.mark.parametrize("level", [None, (80,)], ids=str)
def test_wide_frames_and_series_without_a_name(data, level):
    wide = data.pivot(index="ds", columns="unique_id", values="y").iloc[:100]
    model = TitansForecaster(**SMALL).fit(wide)
    axes = model.plot(forecast=model.predict(level=level)).axes
    assert [each.get_ylabel() for each in axes] == ["s0", "s1", "s2"]
    assert bands(axes[0]) == ([] if level is None else ["80 % interval"])
    alone = TitansForecaster(**SMALL).fit(data[data["unique_id"] == "s0"][["ds", "y"]])
    assert [each.get_ylabel() for each in alone.plot().axes] == ["y"]


def test_after_observing_the_picture_goes_on(data, fitted):
    model = TitansForecaster(**SMALL).fit(data).observe(data)
    more = model.make_future_frame().assign(y=5.0)
    model.observe(more)
    np.testing.assert_array_equal(lines(model.plot().axes[0])["history"][-H:], 5.0)


def test_wrong_series_are_named(data, fitted):
    with pytest.raises(DataError, match="no rows of column 'Titans' for series 'x'"):
        fitted.plot(series=["x"])
    with pytest.raises(DataError, match="series 's0' is not among the rows; there are s1, s2"):
        fitted.plot(data[data["unique_id"] != "s0"], fitted.predict(), series=["s0"])
    with pytest.raises(DataError, match="series must name at least one"):
        fitted.plot(series=[])
