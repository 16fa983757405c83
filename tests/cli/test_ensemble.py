"""fit --seeds: the mean of several networks, each trained as a run of its own; and what covariates are worth."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hourly_frames import LONG_FILE, H, frame

from titans_seq import TitansForecaster
from titans_seq.cli.errors import UsageError
from titans_seq.cli.main import main, parse
from titans_seq.cli.trained import open_trained
from titans_seq.datamodules import DataWarning
from titans_seq.forecast.importance import importance

L, LEVELS = 24, (50, 80, 90, 95)
WORDS = [*LONG_FILE, "--epochs", "2"]
SCORES = ("mse", "mae", "mase", "smape", "crps", "coverage_80", "coverage_95")


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """The last series is too short for a test split."""
    return frame((120, 110, 20), gaps=False)


@pytest.fixture(scope="module")
def folder(data: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the file, an ensemble `run` and two runs of one seed each."""
    folder = tmp_path_factory.mktemp("ensemble")
    data.to_csv(folder / "shops.csv", index=False)
    fit = ["fit", "forecast", "--csv", str(folder / "shops.csv"), *WORDS]
    for name, words in (("run", ["--seed", "3", "--seeds", "2"]), ("one", ["--seed", "3"]), ("two", ["--seed", "4"])):
        assert main([*fit, *words, "--output", str(folder / name)]) == 0
    return folder


def metrics_of(run: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "metrics.json").read_text())
    return found


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    return state


def future_of(data: pd.DataFrame) -> pd.DataFrame:
    last = data.groupby("unique_id")["ds"].max()
    rows = [(name, end + pd.Timedelta(hours=i), i % 3) for name, end in last.items() for i in range(1, H + 1)]
    return pd.DataFrame(rows, columns=["unique_id", "ds", "price"])


def test_the_members_are_the_runs_of_their_seeds(folder: Path) -> None:
    for member, alone in (("run", "one"), ("run/members/1", "two")):
        ours, theirs = weights_of(folder / member), weights_of(folder / alone)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {path.name for path in (folder / "run" / "members").iterdir()} == {"1"}
    assert (folder / "run" / "members" / "1" / "metrics.json").is_file()


def test_a_forecast_is_the_mean_of_the_members(folder: Path, data: pd.DataFrame) -> None:
    future = future_of(data)
    future.to_csv("future.csv", index=False)
    predict = ["predict", "forecast", "--future", "future.csv", "--quiet"]
    for name in ("run", "one", "two"):
        words = ["--checkpoint", str(folder / name), "--output", f"{name}.csv"]
        assert main([*predict, *words]) == 0
    joint, *alone = (pd.read_csv(f"{name}.csv") for name in ("run", "one", "two"))
    np.testing.assert_allclose(joint["Titans"], (alone[0]["Titans"] + alone[1]["Titans"]) / 2, rtol=1e-5)
    assert not np.allclose(alone[0]["Titans"], alone[1]["Titans"], rtol=1e-3)
    model = TitansForecaster.load(folder / "run" / "model")
    assert model.seeds == 2 and len(model.fitted_.modules) == 2
    np.testing.assert_allclose(joint.iloc[:, 2:], model.predict(future=future).iloc[:, 2:], rtol=1e-5)


def test_metrics_are_those_of_the_joint_forecast(folder: Path, data: pd.DataFrame) -> None:
    """Again by predict at every test window: 24 and 22 rows of test, standardised by those of training."""
    model = TitansForecaster.load(folder / "run" / "model")
    errors, inside = [], []
    for name, rows in ((name, rows.reset_index(drop=True)) for name, rows in data.groupby("unique_id")):
        if name == "s2":
            continue
        length = len(rows)
        train, test = length - int(0.1 * length) - int(0.2 * length), length - int(0.2 * length)
        for cut in range(test, length - H + 1):
            came = rows[cut : cut + H]
            made = model.predict(rows[:cut], future=came[["unique_id", "ds", "price"]], level=LEVELS)
            errors.append((made["Titans"].to_numpy() - came["y"].to_numpy()) / rows["y"][:train].std(ddof=0))
            low, high = (made[f"Titans-{side}-80"].to_numpy() for side in ("lo", "hi"))
            inside.append((low <= came["y"].to_numpy()) & (came["y"].to_numpy() <= high))
    metrics = metrics_of(folder / "run")
    assert metrics["test_windows"] == len(errors) == 19 + 17
    assert metrics["test_mse"] == pytest.approx(np.square(errors).mean(), rel=1e-4)
    assert metrics["test_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert metrics["test_coverage_80"] == pytest.approx(np.mean(inside))
    assert "test_loss" not in metrics and metrics["test_mse"] != metrics_of(folder / "one")["test_mse"]
    assert {f"baseline_{name}" for name in SCORES} | {f"test_{name}" for name in SCORES} <= set(metrics)


def test_test_repeats_the_joint_metrics(folder: Path) -> None:
    assert main(["test", "forecast", "--checkpoint", str(folder / "run"), "--quiet"]) == 0
    metrics, tested = metrics_of(folder / "run"), json.loads((folder / "run" / "test_metrics.json").read_text())
    assert {f"test_{name}" for name in SCORES} <= set(tested)
    for name, value in tested.items():
        assert metrics[name] == (pytest.approx(value, rel=1e-5) if isinstance(value, float) else value), name


def test_an_interrupted_ensemble_goes_on_with_the_member(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before and in the second network: the first is not trained again, and the numbers are the same."""
    from titans_seq.cli import members

    fit = ["fit", "forecast", "--csv", str(folder / "shops.csv"), *WORDS, "--seed", "3", "--seeds", "2"]
    run, others = tmp_path / "run", members.others_of

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(members, "others_of", interrupted)
    assert main([*fit, "--output", str(run)]) == 130
    monkeypatch.setattr(members, "others_of", others)
    assert (run / "checkpoints" / "best.ckpt").is_file() and not (run / "metrics.json").exists()
    trained = (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert main(["fit", "forecast", "--output", str(run), "--resume", "--quiet"]) == 0
    assert (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns == trained
    require_same(run, folder / "run")


def test_a_member_without_its_metrics_is_finished(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    for path in (run / "metrics.json", run / "members" / "1" / "metrics.json"):
        path.unlink()
    shutil.rmtree(run / "model")
    assert main(["fit", "forecast", "--output", str(run), "--resume", "--quiet"]) == 0
    require_same(run, folder / "run")


def require_same(run: Path, expected: Path) -> None:
    """But for the time it took."""
    found, known = metrics_of(run), metrics_of(expected)
    for each in (found, known):
        each.pop("fit_seconds"), each.pop("seconds_per_epoch")
    assert found == pytest.approx(known)
    assert len(TitansForecaster.load(run / "model").fitted_.modules) == 2


def test_what_needs_one_memory_is_refused(folder: Path, refused: Callable[[list[str]], str]) -> None:
    said = refused(["surprise", "forecast", "--checkpoint", str(folder / "run"), "--quiet"])
    assert "has a memory for each seed" in said
    assert not (folder / "run" / "surprise.png").exists() and (folder / "one" / "surprise.png").is_file()


def test_a_report_of_an_ensemble_has_its_metrics(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report", str(folder / "run"), "--quiet", "--output", "r.html", "--scores", "scores.csv"]
    assert main(words) == 0
    assert capsys.readouterr().err == ""  # nothing differs from the run's metrics
    metrics, table = metrics_of(folder / "run"), pd.read_csv("scores.csv")
    every = table[table["series"] == "all"].set_index("forecast")
    assert list(every.index) == ["model", "last value", "seasonal naive"]
    for name in SCORES:
        assert every.loc["model", name] == pytest.approx(metrics[f"test_{name}"], rel=1e-5), name
        assert every.loc[metrics["baseline"], name] == pytest.approx(metrics[f"baseline_{name}"]), name
    assert list(table[table["forecast"] == "model"]["series"]) == ["all", "s0", "s1", "s2"]
    assert table[table["series"] == "s2"]["mse"].isna().all()  # without a test row


# importance -----------------------------------------------------------------------------------------------------------


def test_importance_is_that_of_pandas_on_the_test_rows(folder: Path, data: pd.DataFrame) -> None:
    """Of the series that have test rows, with the lookback before them."""
    words = ["importance", "forecast", "--checkpoint", str(folder / "run"), "--quiet", "--repeats", "2"]
    assert main([*words, "--output", "importance.csv"]) == 0
    made = pd.read_csv("importance.csv")
    assert set(made["covariate"]) == {"temp", "price", "kind", "size", "calendar"}
    assert dict(zip(made["covariate"], made["kind"], strict=True))["price"] == "future"
    assert (made["increase"].diff()[1:] <= 0).all()
    rows = open_trained(parse([*words, "--output", "other.csv"]), "test")
    fitted = TitansForecaster.load(folder / "run" / "model").fitted_
    expected = importance(fitted, [rows.series.windows("test")], repeats=2)
    pd.testing.assert_frame_equal(made, expected, check_dtype=False, rtol=1e-5)
    assert Path("importance.png").read_bytes().startswith(b"\x89PNG")


def test_without_covariates_there_is_no_importance(finished: Path, refused: Callable[[list[str]], str]) -> None:
    said = refused(["importance", "forecast", "--checkpoint", str(finished), "--quiet"])
    assert "was trained without covariates, so there is nothing to measure" in said


def test_a_finished_ensemble_trains_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All its networks; until it is done, old margins and old members are not put on new weights."""
    run = Path(shutil.copytree(folder / "run", tmp_path / "run"))
    go_on = ["fit", "forecast", "--output", str(run), "--resume", "--quiet", "--epochs", "4"]
    with monkeypatch.context() as patch:
        patch.setattr("titans_seq.cli.members.others_of", lambda *_: (_ for _ in ()).throw(UsageError("no power")))
        assert main(go_on) == 2
    assert "no power" in capsys.readouterr().err and (run / "model").exists()
    with pytest.warns(DataWarning, match="this run has not finished: forecasts are those of its first network"):
        trained = open_trained(parse(["predict", "forecast", "--checkpoint", str(run), "--quiet"]), "predict")
    before, now = (weights_of(each).values() for each in (folder / "run", run))
    assert any(not torch.equal(*pair) for pair in zip(before, now, strict=True))
    assert not trained.fitted.others and trained.fitted.conformal is not None
    assert main(go_on) == 0
    for member in (run, run / "members" / "1"):
        assert metrics_of(member)["epochs"] == 4
    assert len(TitansForecaster.load(run / "model").fitted_.modules) == 2
