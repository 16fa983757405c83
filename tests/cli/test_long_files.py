"""fit, test and predict on a long file: series of different lengths with gaps and every kind of covariate."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hourly_frames import H, ahead, frame

from titans_seq import TitansForecaster
from titans_seq.cli.main import main

L, SEASON = 24, 24
LENGTHS = (160, 130, 150, 20)  # the last is too short for a test split
LEVELS = (50, 80, 90, 95)
NAMES = ["--id-column", "unique_id", "--time-column", "ds", "--target", "y"]
KINDS = ["--past-covariates", "temp", "--future-covariates", "price", "--static-covariates", "kind,size"]
SMALL = [
    "--lookback", str(L), "--horizon", str(H), "--epochs", "2", "--quiet", "model.dim=8", "model.blocks=1",
    "data.steps_per_epoch=5", "data.batch_size=16",
]  # fmt: skip


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """With rows and values missing; rows are missing before the test split only, where prices must be known."""
    whole = frame(LENGTHS, gaps=False)
    random, number = np.random.default_rng(1), whole.groupby("unique_id").cumcount()
    whole.loc[random.random(len(whole)) < 0.08, "y"] = np.nan
    return whole[~((random.random(len(whole)) < 0.1) & (number > 0) & (number < 60))].reset_index(drop=True)


@pytest.fixture(scope="module")
def csv(data: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "shops.csv"
    data.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(csv: Path) -> Path:
    folder = csv.parent / "run"
    assert main(["fit", "forecast", "--csv", str(csv), *NAMES, *KINDS, *SMALL, "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def model(run: Path) -> TitansForecaster:
    return TitansForecaster.load(run / "model")


@pytest.fixture(scope="module")
def future(data: pd.DataFrame, csv: Path) -> tuple[pd.DataFrame, str]:
    rows = ahead(data)
    rows["price"] = np.random.default_rng(2).standard_normal(len(rows))
    path = csv.parent / "future.csv"
    rows.to_csv(path, index=False)
    return rows, str(path)


# scores ---------------------------------------------------------------------------------------------------------------


class Series:
    """A series on its grid, and where validation and test begin: the shares are 70/10/20, test at the end."""

    def __init__(self, part: pd.DataFrame) -> None:
        self.rows = part.set_index("ds").asfreq("h")
        self.y = self.rows["y"].to_numpy()
        length = len(self.y)
        val, test = max(int(0.1 * length), H), max(int(0.2 * length), H)
        self.val, self.test = length - val - test, length - test
        train = self.y[: self.val]
        self.mean, self.scale = np.nanmean(train), np.nanstd(train)
        self.change = np.nanmean(np.abs(train[SEASON:] - train[:-SEASON]))

    def windows(self, begin: int, end: int) -> list[int]:
        """First rows of windows with an observed row on both sides."""
        found = range(begin, end - H + 1)
        return [t for t in found if not all(map(math.isnan, self.y[t : t + H]))]

    def naive(self, first: int, season: int) -> np.ndarray:
        """The last season before a row, where it has gaps the one before it."""
        found = []
        for h in range(H):
            row = first - season + h % season
            while math.isnan(self.y[row]):
                row -= season
            found.append(self.y[row])
        return np.array(found)


@pytest.fixture(scope="module")
def every(data: pd.DataFrame) -> dict[str, Series]:
    return {name: Series(part) for name, part in data.groupby("unique_id") if name != "s3"}


def forecast(model: TitansForecaster, every: dict[str, Series]) -> dict[str, dict[int, pd.DataFrame]]:
    """The forecast of every test window, as if its first row were now."""
    found: dict[str, dict[int, pd.DataFrame]] = {name: {} for name in every}
    windows = {name: series.windows(series.test, len(series.y)) for name, series in every.items()}
    for i in range(max(map(len, windows.values()))):
        cuts = {name: firsts[i] for name, firsts in windows.items() if i < len(firsts)}
        past, known = [], []
        for name, cut in cuts.items():
            rows = every[name].rows.reset_index()
            past.append(rows[:cut].dropna(subset="unique_id"))
            known.append(rows[cut : cut + H])
        made = model.predict(pd.concat(past), future=pd.concat(known)[["unique_id", "ds", "price"]], level=LEVELS)
        for name, part in made.groupby("unique_id"):
            found[name][cuts[name]] = part
    return found


def measured(every: dict[str, Series], points: dict[str, Any], bounds: dict[str, Any]) -> dict[str, float]:
    """Each measure of the test windows of all series: points [W, H] and bounds [W, H, P, 2] of each."""
    elements: dict[str, list[np.ndarray]] = {}
    mase = []
    for name, series in every.items():
        truth = np.array([series.y[t : t + H] for t in series.windows(series.test, len(series.y))])
        seen = ~np.isnan(truth)
        truth, point, sides = truth[seen], points[name][seen], bounds[name][seen]
        error = np.abs(point - truth)
        mase.append(error.mean() / series.change)
        quantiles = [(0.5, point)]
        for i, level in enumerate(LEVELS):
            quantiles += [(0.5 + sign * level / 200, sides[:, i, j]) for j, sign in enumerate((-1, 1))]
        pinball = np.mean([np.where(truth > x, q * (truth - x), (1 - q) * (x - truth)) for q, x in quantiles], axis=0)
        found = {"mse": (error / series.scale) ** 2, "mae": error / series.scale, "crps": 2 * pinball / series.scale}
        found["smape"] = 2 * error / (np.abs(point) + np.abs(truth))
        for level in (80, 95):
            low, high = sides[:, LEVELS.index(level)].T
            found[f"coverage_{level}"] = (low <= truth) & (truth <= high)
        for measure, values in found.items():
            elements.setdefault(measure, []).append(values)
    return {"mase": float(np.mean(mase))} | {name: np.concatenate(each).mean() for name, each in elements.items()}


def test_the_models_metrics_are_those_of_a_loop(run: Path, model: TitansForecaster, every: dict[str, Series]) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    made, points, bounds = forecast(model, every), {}, {}
    for name, windows in made.items():
        points[name] = np.array([part["Titans"] for part in windows.values()])
        sides = [[[part[f"Titans-{side}-{p}"] for side in ("lo", "hi")] for p in LEVELS] for part in windows.values()]
        bounds[name] = np.array(sides).transpose(0, 3, 1, 2)
    for name, value in measured(every, points, bounds).items():
        assert metrics[f"test_{name}"] == pytest.approx(value, rel=1e-4), name
    assert metrics["test_windows"] == sum(map(len, made.values())) and metrics["series"] == 4
    assert (metrics["data"], metrics["output"], metrics["season"]) == ("own file", "quantiles", SEASON)


def test_the_baselines_metrics_are_those_of_a_loop(run: Path, every: dict[str, Series]) -> None:
    """The better one on validation, with intervals from its errors there, one for each step where they are enough."""
    metrics = json.loads((run / "metrics.json").read_text())
    errors = {}
    for season in (1, SEASON):
        errors[season] = np.array(
            [
                (series.naive(t, season) - series.y[t : t + H]) / series.scale
                for series in every.values()
                for t in series.windows(series.val, series.test)
            ]
        )
    season = min(errors, key=lambda season: np.nanmean(errors[season] ** 2))
    assert metrics["baseline"] == {1: "last value", SEASON: "seasonal naive"}[season]
    reach = np.stack([_reach(np.abs(errors[season]), level / 100) for level in LEVELS], axis=-1)  # [H, P]
    points, bounds = {}, {}
    for name, series in every.items():
        points[name] = np.array([series.naive(t, season) for t in series.windows(series.test, len(series.y))])
        moved = series.scale * reach[..., None] * np.array([-1, 1])
        bounds[name] = points[name][..., None, None] + moved
    for name, value in measured(every, points, bounds).items():
        assert metrics[f"baseline_{name}"] == pytest.approx(value, rel=1e-6), name


def _reach(errors: np.ndarray, share: float) -> np.ndarray:
    """The ceil((n + 1) share)-th smallest error of each step; of all together where a step has too few."""
    each = [np.sort(column[~np.isnan(column)]) for column in errors.T]
    ranks = [math.ceil((len(known) + 1) * share - 1e-9) for known in each]
    if all(rank <= len(known) for rank, known in zip(ranks, each, strict=True)):
        return np.array([known[rank - 1] for rank, known in zip(ranks, each, strict=True)])
    known = np.sort(errors[~np.isnan(errors)])
    return np.full(errors.shape[1], known[math.ceil((len(known) + 1) * share - 1e-9) - 1])


def test_test_repeats_the_metrics_of_the_run(run: Path) -> None:
    assert main(["test", "forecast", "--checkpoint", str(run), "--quiet"]) == 0
    trained, tested = (json.loads((run / name).read_text()) for name in ("metrics.json", "test_metrics.json"))
    scored = {f"{who}_{name}" for who in ("test", "baseline") for name in ("mse", "mae", "mase", "smape", "crps",
              "coverage_80", "coverage_95")}  # fmt: skip
    assert scored | {"baseline", "season"} <= set(tested)
    assert tested == {key: trained[key] for key in tested}


# predict --------------------------------------------------------------------------------------------------------------


def read(path: str | Path) -> pd.DataFrame:
    return pd.read_csv(path, parse_dates=["ds"])


def predict(run: Path, *words: str) -> None:
    assert main(["predict", "forecast", "--checkpoint", str(run), "--quiet", *words]) == 0


def test_predict_is_that_of_pandas(
    run: Path, csv: Path, model: TitansForecaster, data: pd.DataFrame, future: tuple[pd.DataFrame, str]
) -> None:
    rows, path = future
    predict(run, "--future", path, "--output", "out")
    made = read("out/forecast.csv")
    expected = model.predict(future=rows)
    assert list(made.columns) == [
        "unique_id",
        "ds",
        "Titans",
        *(f"Titans-{s}-{p}" for p in (80, 95) for s in ("lo", "hi")),
    ]
    pd.testing.assert_frame_equal(made, expected, check_dtype=False, rtol=1e-6)
    assert {path.name for path in Path("out").iterdir()} == {"forecast.csv", "forecast.png", "surprise.png"}
    other = data[data["unique_id"] != "s1"]  # another file of these series, and its columns as in the run
    other.to_csv("other.csv", index=False)
    predict(run, "--csv", "other.csv", "--future", path, "--output", "other")
    of_others = expected[expected["unique_id"] != "s1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(read("other/forecast.csv"), of_others, check_dtype=False, rtol=1e-4)


def test_levels_and_horizon(run: Path, model: TitansForecaster, future: tuple[pd.DataFrame, str]) -> None:
    rows, _ = future
    near = rows[rows.groupby("unique_id").cumcount() < 2]
    near.to_csv("near.csv", index=False)
    predict(run, "--future", "near.csv", "--horizon", "2", "--level", "99,50", "--output", "few.csv")
    made = read("few.csv")
    assert len(made) == 2 * len(LENGTHS) and list(made.columns[3:]) == [
        "Titans-lo-50", "Titans-hi-50", "Titans-lo-99", "Titans-hi-99"
    ]  # fmt: skip
    expected = model.predict(future=near, horizon=2, level=(50, 99))
    pd.testing.assert_frame_equal(made, expected, check_dtype=False, rtol=1e-6)
    assert sorted(path.name for path in Path().iterdir()) == ["few.csv", "near.csv"]


def test_the_picture_shows_the_forecast_that_is_written(
    run: Path, data: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run and of its saved forecaster, with the file's rows and the given covariates, as far as is asked."""
    drawn: list[tuple[Any, ...]] = []
    monkeypatch.setattr(
        "titans_seq.cli.forecast_pictures.plot_forecast", lambda *given, **_: (drawn.append(given), given[-1])[1]
    )
    earlier = data[data.groupby("unique_id")["ds"].transform("max") - data["ds"] >= pd.Timedelta("6h")]
    earlier = earlier.assign(unique_id="new-" + earlier["unique_id"])
    earlier.to_csv("earlier.csv", index=False)
    known = ahead(earlier).assign(price=np.arange(len(LENGTHS) * H) % 5)
    known.to_csv("known.csv", index=False)
    for i, source in enumerate((run, run / "model")):
        words = ["--csv", "earlier.csv", "--future", "known.csv", "--horizon", "4", "--output", f"out{i}"]
        predict(source, *words)
        past, made, truth, columns, axis, _ = drawn[-1]
        table = read(f"out{i}/forecast.csv")
        assert columns == ["new-s0"] and truth is None  # the others end at other times
        written = table[table["unique_id"] == "new-s0"]
        np.testing.assert_allclose(made[:, 0], written["Titans"], rtol=1e-6)
        assert list(axis[-4:]) == list(written["ds"]) and len(past) == L
        assert len(made) == 4


def test_samples_and_fitted_values(
    run: Path, data: pd.DataFrame, model: TitansForecaster, future: tuple[pd.DataFrame, str]
) -> None:
    rows, path = future
    predict(run, "--future", path, "--samples", "3", "--fitted", "--output", "out")
    samples, fitted = read("out/samples.csv"), read("out/fitted.csv")
    expected = model.predict(future=rows, num_samples=3)
    pd.testing.assert_frame_equal(samples, expected, check_dtype=False, rtol=1e-6)
    assert len(samples) == 3 * H * len(LENGTHS) and list(samples["sample"].unique()) == [0, 1, 2]
    expected = model.fitted_values(data)
    pd.testing.assert_frame_equal(fitted, expected, check_dtype=False, rtol=1e-5)
    np.testing.assert_allclose(fitted["residual"], fitted["y"] - fitted["Titans"], rtol=1e-4, atol=1e-6)


def test_nothing_is_written_where_a_file_is_in_the_way(
    run: Path, future: tuple[pd.DataFrame, str], refused: Callable[[list[str]], str]
) -> None:
    Path("samples.csv").write_text("kept")
    words = ["predict", "forecast", "--checkpoint", str(run), "--future", future[1], "--quiet", "--output", "out.csv"]
    assert "samples.csv is there already" in refused([*words, "--samples", "2"])
    said = refused(["report", str(run), "--quiet", "--output", "r.html", "--scores", "samples.csv"])
    assert "samples.csv is there already" in said and Path("samples.csv").read_text() == "kept"


def test_the_rows_to_fill_in_are_written(
    run: Path, future: tuple[pd.DataFrame, str], workdir: Path, refused: Callable[[list[str]], str]
) -> None:
    rows, _ = future
    words = ["predict", "forecast", "--checkpoint", str(run), "--quiet", "--future-frame", "empty.csv"]
    assert main([*words]) == 0
    made = pd.read_csv("empty.csv")
    assert made["price"].isna().all() and list(made.columns) == ["unique_id", "ds", "price"]
    wanted = rows.astype({"ds": str}).sort_values(["unique_id", "ds"])
    np.testing.assert_array_equal(
        pd.to_datetime(made.sort_values(["unique_id", "ds"])["ds"]), pd.to_datetime(wanted["ds"])
    )
    assert "empty.csv is there already" in refused(words)


def test_what_the_future_lacks_is_said(
    run: Path, future: tuple[pd.DataFrame, str], workdir: Path, refused: Callable[[list[str]], str]
) -> None:
    rows, path = future
    words = ["predict", "forecast", "--checkpoint", str(run), "--quiet"]
    assert "the covariates price are needed over the horizon" in refused(words)
    rows.drop(index=4).to_csv("gap.csv", index=False)
    assert "future has no row for series s0 at 2024-01-07 20:00:00; it must cover the 6 steps" in refused(
        [*words, "--future", "gap.csv"]
    )
    rows.rename(columns={"price": "cost"}).to_csv("cost.csv", index=False)
    assert "cost.csv: the file has no column 'price'" in refused([*words, "--future", "cost.csv"])
    rows.assign(price=["x", *rows["price"][1:]]).to_csv("text.csv", index=False)
    assert "'price'" in refused([*words, "--future", "text.csv"])
    assert "none.csv" in refused([*words, "--future", "none.csv"])
    rest = [*words, "--future", path]
    assert "horizon must be at most 6" in refused([*rest, "--horizon", "7"])
    assert "level must be" in refused([*rest, "--level", "99.95"])


@pytest.mark.parametrize(
    "names, said",
    [
        (["--id-column", "shop", "--target", "y"], "no column 'shop'"),
        (["--id-column", "unique_id", "--target", "z"], "no column 'z'"),
        ([*NAMES, "--past-covariates", "temp,rain"], "no column 'rain'"),
        ([*NAMES, "--future-covariates", "kind"], "'kind'"),
        ([*NAMES, "--static-covariates", "price"], "price"),
        ([*NAMES, "--time-column", "day"], "no column 'day'"),
        ([*NAMES, "--target", "temp"], "one target"),
        (["--id-column", "unique_id"], "which column is to be forecast"),
    ],
    ids=str,
)
def test_wrong_names_are_one_line(
    names: list[str], said: str, csv: Path, capsys: pytest.CaptureFixture[str], workdir: Path
) -> None:
    data = pd.read_csv(csv).rename(columns={"y": "sales"} if names == ["--id-column", "unique_id"] else {})
    data.to_csv("shops.csv", index=False)
    capsys.readouterr()
    assert main(["fit", "forecast", "--csv", "shops.csv", *names, *SMALL]) == 2
    out, err = capsys.readouterr()
    assert said in err and err.count("\n") == 1 and err.startswith("titans-seq: ") and not out
    assert [path.name for path in workdir.iterdir()] == ["shops.csv"]
