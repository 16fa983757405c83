"""Dates as text of which day and month could be exchanged."""

import numpy as np
import pandas as pd
import pytest
from hourly_frames import SMALL

from titans_seq import TitansForecaster

H = 6
TIMES = pd.date_range("2023-01-01", periods=126, freq="MS")  # as days and months exchanged: days 1 to 12 of January


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    price = np.random.default_rng(0).standard_normal(len(TIMES))
    return pd.DataFrame({"unique_id": "a", "ds": TIMES, "y": 3 + price, "price": price})


def written(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(ds=frame["ds"].dt.strftime("%d/%m/%Y"))


def test_it_is_said_once_and_counts_for_fit_predict_and_future(rows, tmp_path):
    settings = SMALL | {"future_covariates": ["price"], "horizon": H, "freq": "MS"}
    plain = TitansForecaster(**settings).fit(rows[:-H])
    model = TitansForecaster(**settings, day_first=True).fit(written(rows[:-H]))
    ahead = rows[-H:]
    wanted = plain.predict(future=ahead)
    assert list(wanted["ds"]) == list(TIMES[-H:])
    for each in (model, TitansForecaster.load(model.save(tmp_path))):
        assert each.day_first is True
        pd.testing.assert_frame_equal(each.predict(future=written(ahead)), wanted)
        pd.testing.assert_frame_equal(each.predict(written(rows[:-H]), future=written(ahead)), wanted)
        pd.testing.assert_frame_equal(each.residuals(written(rows)), plain.residuals(rows))


def test_parquet_files_are_read_so(rows, tmp_path):
    written(rows).to_parquet(tmp_path / "rows.parquet", index=False)
    model = TitansForecaster(**SMALL | {"horizon": H}, freq="MS", day_first=True).fit(tmp_path)
    assert model.predict()["ds"][0] == TIMES[-1] + pd.offsets.MonthBegin()


def test_other_values_are_refused(rows):
    with pytest.raises(ValueError, match="day_first must be True, False or None; got 'yes'"):
        TitansForecaster(**SMALL, day_first="yes").fit(rows)
