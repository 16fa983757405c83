"""A forecaster that knows holidays."""

import numpy as np
import pandas as pd
import pytest
from hourly_frames import SMALL

from titans_seq import TitansForecaster
from titans_seq.datamodules.forecast.holiday_features import holiday_features
from titans_seq.datamodules.forecast.reading import read_panel


def sales() -> pd.DataFrame:
    """Four years of four shops, next to closed on holidays in Bavaria."""
    random, days = np.random.default_rng(0), pd.date_range("2019-01-03", "2022-12-23")
    rows = read_panel(pd.DataFrame({"unique_id": "a", "ds": days, "y": 0.0}), TitansForecaster().columns, "D")
    closed = holiday_features(rows, ("DE-BY",))[:, 0]
    parts = [
        pd.DataFrame({"unique_id": f"s{i}", "ds": days, "y": 10 - 8 * closed + 0.3 * random.standard_normal(len(days))})
        for i in range(4)
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_holiday_is_seen_ahead(tmp_path):
    """24 to 29 December: the 25th and 26th are low, the others are not."""
    data = sales()
    budget = SMALL | {"max_epochs": 5, "steps_per_epoch": 100, "batch_size": 64, "lookback": 16, "val_size": 365}
    model = TitansForecaster(**budget, holidays="DE-BY", output="mse", learning_rate=1e-2).fit(data)
    found = model.predict(level=None).groupby("ds")["Titans"].mean()
    low, high = found["2022-12-25":"2022-12-26"], found.drop(found["2022-12-25":"2022-12-26"].index)
    assert low.max() + 3 < high.min()
    model.save(tmp_path)
    again = TitansForecaster.load(tmp_path)
    assert again.holidays == "DE-BY"
    pd.testing.assert_frame_equal(again.predict(), model.predict())


def test_off_by_default_and_wrong_codes_are_one_line():
    assert TitansForecaster().holidays is None
    with pytest.raises(ValueError, match="holidays has no code 'XX'"):
        TitansForecaster(**SMALL, holidays=["DE", "XX"]).fit(sales())
