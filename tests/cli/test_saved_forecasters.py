"""report, test and predict of a folder that `TitansForecaster.save` wrote, with a file of rows."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hourly_frames import COVARIATES, SMALL, H, ahead, frame

from titans_seq import TitansForecaster
from titans_seq.cli.main import main
from titans_seq.datamodules.common.errors import DataWarning
from titans_seq.forecast.forecaster_files import load_forecaster, save_forecaster

HELD_OUT = 24  # rows of each series that chose the epoch: SMALL's val_size
LATER = 20  # rows of each series that came after the training


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return frame((140, 120), gaps=False)


@pytest.fixture(scope="module")
def known(data: pd.DataFrame) -> pd.DataFrame:
    return data[data.groupby("unique_id").cumcount(ascending=False) >= LATER]


@pytest.fixture(scope="module")
def saved(known: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "saved"
    TitansForecaster(**SMALL | {"steps_per_epoch": 5}, **COVARIATES).fit(known).save(folder)
    return folder


def report(saved: Path, table: pd.DataFrame, *words: str) -> tuple[str, pd.DataFrame]:
    """The page, and the scores."""
    table.to_csv("shops.csv", index=False)
    words = ("--csv", "shops.csv", "--quiet", "--output", "r.html", "--scores", "scores.csv", *words)
    assert main(["report", str(saved), *words]) == 0
    return Path("r.html").read_text(encoding="utf-8"), pd.read_csv("scores.csv")


def test_a_report_measures_the_rows_that_came_later(
    saved: Path, data: pd.DataFrame, known: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    """MSE and coverage of the page are those of predict at every row after the training."""
    page, scores = report(saved, data)
    assert "no row comes after" not in capsys.readouterr().err
    model, errors, inside = TitansForecaster.load(saved), {}, []
    for name, rows in data.groupby("unique_id"):
        learned = known[known["unique_id"] == name]["y"].iloc[:-HELD_OUT]
        for cut in range(len(rows) - LATER, len(rows) - H + 1):
            came = rows[cut : cut + H]
            made = model.predict(rows[:cut], future=came[["unique_id", "ds", "price"]])
            truth, scale = came["y"].to_numpy(), learned.std(ddof=0)
            errors.setdefault(name, []).append((made["Titans"].to_numpy() - truth) / scale)
            inside.append((made["Titans-lo-80"].to_numpy() <= truth) & (truth <= made["Titans-hi-80"].to_numpy()))
    own = scores[scores["forecast"] == "model"].set_index("series")
    assert list(own.index) == ["all", "s0", "s1"]
    for name, each in errors.items():
        assert own.loc[name, "mse"] == pytest.approx(np.square(each).mean(), rel=1e-4)
        assert len(each) == LATER - H + 1
    every = np.concatenate(list(errors.values()))
    assert own.loc["all", "mse"] == pytest.approx(np.square(every).mean(), rel=1e-4)
    assert own.loc["all", "mae"] == pytest.approx(np.abs(every).mean(), rel=1e-4)
    assert own.loc["all", "coverage_80"] == pytest.approx(np.mean(inside))
    assert f"{np.square(every).mean():.4f}" in page and f"same {len(every)} test windows" in " ".join(page.split())
    assert "have changed since" not in page


@pytest.mark.filterwarnings("default::titans_seq.datamodules.common.errors.DataWarning")
def test_without_later_rows_the_held_out_ones_are_measured_and_it_is_said(
    saved: Path, known: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    _, scores = report(saved, known)
    err = capsys.readouterr().err  # it is said once
    assert "no row comes after those the forecaster has learned from: the last 12 of each series are taken" in err
    assert err.count("\n") == 1
    assert np.isfinite(scores[scores["forecast"] == "model"]["mse"]).all()


def test_a_series_that_the_forecaster_has_never_seen(
    saved: Path, data: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no row before its test rows that could scale it."""
    new = data[data["unique_id"] == "s1"].assign(unique_id="new")
    with warnings.catch_warnings():
        warnings.simplefilter("default", DataWarning)
        _, scores = report(saved, pd.concat([data, new]))
    assert "1 series have no value among the training rows, the first is new" in capsys.readouterr().err
    own = scores[scores["forecast"] == "model"].set_index("series")
    assert list(own.index) == ["all", "s0", "s1", "new"]
    assert np.isfinite(own["mse"][:3]).all() and np.isnan(own["mse"]["new"])


def test_predict_of_a_saved_forecaster(saved: Path, data: pd.DataFrame) -> None:
    data.to_csv("shops.csv", index=False)
    future = ahead(data, price=0.5)
    future.to_csv("future.csv", index=False)
    words = ["--csv", "shops.csv", "--future", "future.csv", "--quiet", "--output", "out.csv"]
    assert main(["predict", "forecast", "--checkpoint", str(saved), *words]) == 0
    made, model = pd.read_csv("out.csv", parse_dates=["ds"]), TitansForecaster.load(saved)
    pd.testing.assert_frame_equal(made, model.predict(data, future=future), check_dtype=False, rtol=1e-6)


def test_a_report_needs_a_file_and_a_sound_folder(
    saved: Path, data: pd.DataFrame, workdir: Path, refused: Callable[[list[str]], str]
) -> None:
    assert "is a saved forecaster without data; give them by --csv FILE" in refused(["report", str(saved), "--quiet"])
    data.drop(columns="price").to_csv("bare.csv", index=False)
    assert "no column 'price'" in refused(["report", str(saved), "--csv", "bare.csv", "--quiet"])
    (workdir / "broken").mkdir()
    (workdir / "broken" / "config.json").write_text("{")
    assert "broken/config.json" in refused(["report", "broken", "--csv", "bare.csv", "--quiet"])


@pytest.mark.parametrize(
    "seen", [{}, {"ids": ["s0"], "last": []}, {"ids": ["s0"], "last": ["x"]}, [1], {"ids": {}, "last": None}], ids=str
)
def test_rows_that_no_forecaster_has_learned_from_are_one_line(
    seen: object, saved: Path, data: pd.DataFrame, workdir: Path, refused: Callable[[list[str]], str]
) -> None:
    data.to_csv("shops.csv", index=False)
    fitted, about = load_forecaster(saved)
    save_forecaster(fitted, Path("forged"), about | {"seen": seen})
    said = refused(["report", "forged", "--csv", "shops.csv", "--quiet"])
    assert "forged/config.json is damaged" in said


def test_what_cannot_be_predicted_is_said_before_anything_is_written(
    saved: Path, known: pd.DataFrame, workdir: Path, refused: Callable[[list[str]], str]
) -> None:
    ahead(known, price=0.5).to_csv("future.csv", index=False)
    words = ["predict", "forecast", "--checkpoint", str(saved), "--future", "future.csv", "--output", "out.csv"]
    assert "data; give them by --csv FILE" in refused([*words, "--fitted"])  # whose known rows?
    assert f"horizon must be at most {H}" in refused([*words, "--horizon", str(H + 1)])
    assert not Path("out.csv").exists()


@pytest.mark.filterwarnings("default::titans_seq.datamodules.common.errors.DataWarning")
def test_series_without_held_out_rows_are_not_measured_on_what_they_have_taught(tmp_path: Path) -> None:
    """Of a series too short to spare rows all are learned from."""
    data = frame((120, 30), gaps=False)[["unique_id", "ds", "y"]]
    saved = TitansForecaster(**SMALL).fit(data).save(tmp_path / "saved")
    _, scores = report(saved, data)
    own = scores[scores["forecast"] == "model"].set_index("series")["mse"]
    assert np.isfinite(own["s0"]) and np.isnan(own["s1"])


def test_a_step_of_pandas_or_numpy_can_be_saved(known: pd.DataFrame, tmp_path: Path) -> None:
    for i, step in enumerate((pd.Timedelta("1h"), np.timedelta64(1, "h"))):
        model = TitansForecaster(**SMALL | {"freq": step, "seed": np.int64(3)}, **COVARIATES).fit(known)
        again = TitansForecaster.load(model.save(tmp_path / str(i)))
        assert again.fitted_.tail.freq == "h"
