"""backtest: forecasts of past cutoffs are those that predict would have made, and learn from nothing after them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hourly_frames import COVARIATES, LONG_FILE, SMALL, H, frame

from titans_seq import TitansForecaster
from titans_seq.cli.main import main
from titans_seq.datamodules.forecast.panel import Columns
from titans_seq.datamodules.forecast.reading import read_panel
from titans_seq.forecast.backtest_scores import by_cutoff, scores_of, with_baselines
from titans_seq.forecast.metrics import evaluate

L = 24
LEVELS = (80, 95)
WORDS = [*LONG_FILE, "--epochs", "1"]


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return frame((160, 130, 150), gaps=False)


@pytest.fixture(scope="module")
def run(data: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backtest")
    data.to_csv(folder / "shops.csv", index=False)
    words = ["--csv", str(folder / "shops.csv"), *WORDS, "--output", str(folder / "run")]
    assert main(["fit", "forecast", *words]) == 0
    return folder / "run"


def backtest(source: Path, *words: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Forecasts and scores, and a picture."""
    words = ("--checkpoint", str(source), "--quiet", "--output", "out", *words)
    assert main(["backtest", "forecast", *words]) == 0
    assert Path("out/backtest.png").read_bytes().startswith(b"\x89PNG")
    return tuple(pd.read_csv(f"out/{name}.csv", parse_dates=["cutoff"]) for name in ("forecasts", "scores"))


def same(found: pd.DataFrame, expected: pd.DataFrame, rtol: float = 1e-5) -> None:
    found, expected = (each.reset_index(drop=True) for each in (found, expected))
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=rtol, atol=1e-5)


def require_predictions(made: pd.DataFrame, model: TitansForecaster, data: pd.DataFrame) -> None:
    """Each cutoff again by predict, from the rows before it."""
    names = [name for name in made if name.startswith("Titans")]
    for (series, cutoff), part in made.groupby(["unique_id", "cutoff"]):
        rows = data[data["unique_id"] == series]
        past, later = rows[rows["ds"] <= cutoff], rows[rows["ds"] > cutoff].head(H)
        expected = model.predict(past, future=later[["unique_id", "ds", "price"]], level=LEVELS)
        assert names == list(expected.columns[2:])
        same(part[names], expected[names])
        np.testing.assert_allclose(part["y"], later["y"])
        assert list(pd.to_datetime(part["ds"])) == list(later["ds"])


def test_forecasts_are_those_of_predict_at_the_cutoffs(run: Path, data: pd.DataFrame) -> None:
    made, _ = backtest(run, "--windows", "3", "--step", "4")
    assert len(made) == 3 * 3 * H and made["unique_id"].nunique() == 3
    last = data.groupby("unique_id")["ds"].max()
    for name, part in made.groupby("unique_id"):
        cutoffs = [last[name] - pd.Timedelta(hours=H + 4 * i) for i in (2, 1, 0)]
        assert list(part["cutoff"].unique()) == cutoffs
    require_predictions(made, TitansForecaster.load(run / "model"), data)
    for (series, cutoff), part in made.groupby(["unique_id", "cutoff"]):
        past = data[(data["unique_id"] == series) & (data["ds"] <= cutoff)]["y"].to_numpy()
        np.testing.assert_allclose(part["last value"], past[-1])
        np.testing.assert_allclose(part["seasonal naive"], past[-24 : -24 + H])


def test_scores_are_those_of_evaluate_and_of_loops(run: Path, data: pd.DataFrame) -> None:
    made, scores = backtest(run, "--windows", "2", "--level", "50,80,90,95")
    assert list(scores["model"].unique()) == ["Titans", "last value", "seasonal naive"] and len(scores) == 2 * 3 * 3
    for row in scores.itertuples():
        part = made[(made["unique_id"] == row.unique_id) & (made["cutoff"] == row.cutoff)]
        past = data[(data["unique_id"] == row.unique_id) & (data["ds"] <= row.cutoff)]["y"].to_numpy()
        found = evaluate(part, {row.unique_id: past}, model=row.model, seasonality=24)
        for name, value in found.items():
            assert getattr(row, name.replace("-", "_")) == pytest.approx(value, rel=1e-6), name
        error = np.abs(part["y"] - part[row.model])
        assert row.mae == pytest.approx(error.mean()) and row.mse == pytest.approx((error**2).mean())
        assert row.mase == pytest.approx(error.mean() / np.abs(past[24:] - past[:-24]).mean())
    assert scores["crps"].isna()[scores["model"] != "Titans"].all()  # they have no intervals


def test_the_table_shows_means_of_each_cutoff(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, scores = backtest(run, "--windows", "2")
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    every = {row[1]: row for row in rows if row[0] == "all"}
    mean = scores.groupby("model")[["mse", "mae"]].mean()
    for name in mean.index:
        assert f"{mean.loc[name, 'mse']:.4f}" in every[name] and f"{mean.loc[name, 'mae']:.4f}" in every[name]
    assert len(rows) == 3 * (2 + 1)


def test_cutoffs_among_rows_of_training_are_refused(run: Path, refused: Callable[[list[str]], str]) -> None:
    """The test split of the shortest series has 26 rows: 4 windows of 6."""
    words = ["backtest", "forecast", "--checkpoint", str(run), "--quiet", "--output", "out", "--windows"]
    said = refused([*words, "5"])
    assert (
        "the first cutoff of series s1 is 2024-01-05 03:00:00, and the forecaster has learned from later rows" in said
    )
    assert "--refit" in said
    assert "no series is longer than the 240 rows that 40 windows" in refused([*words, "40", "--refit"])
    assert main([*words, "4"]) == 0


def test_refit_learns_from_the_rows_before_alone(run: Path, data: pd.DataFrame, workdir: Path) -> None:
    """Other rows after the cutoff change no forecast; other rows before it do."""
    words = ("--refit", "--windows", "1", "--step", "6")
    first, _ = backtest(run, *words)
    found = {}
    number = data.groupby("unique_id").cumcount(ascending=False)
    for where, changed in (("later", number < H), ("earlier", number == H + 30)):
        other = data.assign(y=data["y"] + 5 * changed * (1 + data["size"]), temp=data["temp"] + changed)
        other.to_csv(f"{where}.csv", index=False)
        Path("out").rename(f"before-{where}")
        found[where], _ = backtest(run, "--csv", f"{where}.csv", *words)
    names = [name for name in first if name.startswith("Titans")]
    same(found["later"][names], first[names], rtol=1e-6)
    assert not np.allclose(found["later"]["y"], first["y"])
    assert not np.allclose(found["earlier"]["Titans"], first["Titans"], rtol=1e-3)


def test_refit_trains_before_each_cutoff_as_the_run_was_trained(run: Path, data: pd.DataFrame) -> None:
    """The last window of several is that of a backtest with one, and that of pandas with the run's settings."""
    several, _ = backtest(run, "--refit", "--windows", "2")
    Path("out").rename("several")
    one, _ = backtest(run, "--refit", "--windows", "1")
    last = several[several["cutoff"] == several.groupby("unique_id")["cutoff"].transform("max")]
    same(last, one[several.columns])
    model = TitansForecaster.load(run / "model")
    assert (model.steps_per_epoch, model.max_epochs, model.batch_size) == (5, 1, 16)
    of_pandas = model.backtest(data, windows=1)
    found = one[list(of_pandas.columns)].assign(ds=pd.to_datetime(one["ds"]))
    same(found, of_pandas)


def test_a_saved_forecaster_on_rows_that_came_later(
    data: pd.DataFrame, tmp_path: Path, refused: Callable[[list[str]], str]
) -> None:
    number = data.groupby("unique_id").cumcount(ascending=False)
    settings = SMALL | {"max_epochs": 1, "steps_per_epoch": 3}
    model = TitansForecaster(**settings, **COVARIATES).fit(data[number >= 12])
    model.save(tmp_path / "saved")
    data.to_csv("all.csv", index=False)
    made, _ = backtest(tmp_path / "saved", "--csv", "all.csv", "--windows", "2")
    require_predictions(made, model, data)
    words = ["backtest", "forecast", "--checkpoint", str(tmp_path / "saved"), "--csv", "all.csv", "--quiet"]
    said = refused([*words, "--windows", "3"])
    assert "the first cutoff of series s0" in said and "learned from later rows" in said
    assert "without data; give them by --csv FILE" in refused([*words[:4], "--quiet"])


def test_nothing_is_written_over(run: Path, refused: Callable[[list[str]], str]) -> None:
    backtest(run, "--windows", "1")
    words = ["backtest", "forecast", "--checkpoint", str(run), "--quiet", "--windows", "1"]
    assert "out holds forecasts.csv already" in refused([*words, "--output", "out"])
    for name in ("backtest", "backtest-2"):
        assert main(words) == 0
        assert {path.name for path in (run / name).iterdir()} == {"forecasts.csv", "scores.csv", "backtest.png"}


def test_crps_does_not_depend_on_the_intervals_that_are_shown(run: Path) -> None:
    every = []
    for number, levels in enumerate((["--level", "80"], ["--level", "60,99"], [])):
        words = ["--checkpoint", str(run), "--quiet", "--output", f"out{number}", *levels]
        assert main(["backtest", "forecast", *words]) == 0
        made, scores = (pd.read_csv(f"out{number}/{name}.csv") for name in ("forecasts", "scores"))
        shown = levels[1].split(",") if levels else ["80", "95"]
        assert [name for name in made if "-lo-" in name] == [f"Titans-lo-{level}" for level in shown]
        assert [name for name in scores if name.startswith("coverage")] == [f"coverage_{level}" for level in shown]
        every.append(scores["crps"])
    assert every[0].equals(every[1]) and every[0].equals(every[2])


def test_windows_without_a_value_leave_the_others_in_their_place() -> None:
    """Series b has no value in the first window, and c, which is short, no first window."""
    stamps = pd.date_range("2024-01-01", periods=9)
    cuts = {"a": (3, 6), "b": (3, 6), "c": (6,)}
    rows = [
        (name, stamps[cut + i], stamps[cut - 1], np.nan if (name, cut) == ("b", 3) else 1.0, 1.0 + (cut == 6))
        for cut in (3, 6) for name, own in cuts.items() if cut in own for i in range(3)
    ]  # fmt: skip
    made = pd.DataFrame(rows, columns=["unique_id", "ds", "cutoff", "y", "Titans"])
    parts = {"a": stamps, "b": stamps, "c": stamps[3:]}
    known = pd.concat([pd.DataFrame({"unique_id": name, "ds": each, "y": 1.0}) for name, each in parts.items()])
    known.loc[(known["unique_id"] == "b") & known["ds"].isin(stamps[3:6]), "y"] = np.nan
    scores = scores_of(made, read_panel(known, Columns(), "D"), "Titans", None)
    assert dict(zip(zip(scores["unique_id"], scores["window"], strict=True), scores["mae"], strict=True)) == {
        ("a", 1): 0, ("a", 2): 1, ("b", 2): 1, ("c", 2): 1,
    }  # fmt: skip
    table = by_cutoff(scores).set_index("cutoff")["mae"]
    assert table.to_dict() == {"2024-01-03 00:00:00": 0, "2024-01-06 00:00:00": 1, "all": 0.75}


def test_a_series_without_a_value_before_the_cutoff_has_no_baseline() -> None:
    times = pd.date_range("2024-01-01", periods=6)
    known = pd.DataFrame({"unique_id": "a", "ds": times, "y": [np.nan] * 3 + [1000.0] * 3})
    made = known[3:].assign(cutoff=times[2], Titans=0.0)
    assert with_baselines(made, read_panel(known, Columns(), "D"), 2)[["last value", "seasonal naive"]].isna().all(None)


def test_refit_without_the_weights_of_the_rows_is_refused(
    data: pd.DataFrame, refused: Callable[[list[str]], str]
) -> None:
    data.assign(w=1.0 + np.arange(len(data)) % 3).to_csv("weighted.csv", index=False)
    assert main(["fit", "forecast", "--csv", "weighted.csv", *WORDS, "--sample-weight", "w", "--output", "run"]) == 0
    said = refused(["backtest", "forecast", "--checkpoint", "run", "--quiet", "--output", "out", "--refit"])
    assert "--refit would train without the weights 'w' of the rows; in Python TitansForecaster.load(" in said
    assert TitansForecaster.load("run/model").weight_ == "w"
    assert main(["backtest", "forecast", "--checkpoint", "run", "--quiet", "--output", "out"]) == 0


def test_weights_of_nothing_are_refused(data: pd.DataFrame, refused: Callable[[list[str]], str]) -> None:
    data.assign(w=0.0).to_csv("weighted.csv", index=False)
    said = refused(["fit", "forecast", "--csv", "weighted.csv", *WORDS, "--sample-weight", "w", "--output", "run"])
    assert "sample_weight is 0 for all training rows" in said
