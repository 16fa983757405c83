"""test and predict: rebuilt from the run folder, in original units, on any columns."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from networks import MIDDLE, intervals_of, margins_of, network_of, quantiles_of
from omegaconf import OmegaConf

from titans_seq import TitansForecaster
from titans_seq.cli.main import main, parse
from titans_seq.cli.trained import open_trained
from titans_seq.datamodules import DataWarning, ForecastDataModule


@pytest.fixture
def trained(own_csv: Path) -> Path:
    """A run on own.csv with lookback 16 and horizon 8."""
    small = ["model.dim=8", "model.blocks=1", "model.heads=2", "trainer.limit_train_batches=2"]
    shape = ["--lookback", "16", "--horizon", "8", "--epochs", "1", "--quiet"]
    assert main(["fit", "forecast", *small, *shape, "--csv", own_csv.name]) == 0
    return Path("runs/forecast/own-h8-memory-s0")


def test_test_repeats_the_metrics_of_the_run(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "copy"))
    assert main(["test", "forecast", "--checkpoint", str(run), "--quiet"]) == 0
    trained, tested = (json.loads((run / name).read_text()) for name in ("metrics.json", "test_metrics.json"))
    assert tested == {key: trained[key] for key in tested}
    assert {"test_mse", "test_mae", "test_windows"} <= set(tested)


def test_predict_is_the_network_on_the_last_rows(trained: Path, own_csv: Path) -> None:
    """Computed again from the checkpoint alone: scale by hand, run the network, scale back. The intervals are moved as
    far as the validation windows ask for.
    """
    assert main(["predict", "forecast", "--checkpoint", str(trained), "--quiet"]) == 0
    made = pd.read_csv(trained / "predict" / "forecast.csv")
    table = pd.read_csv(own_csv)
    sides = ["-lo-80", "-hi-80", "-lo-95", "-hi-95"]
    assert list(made.columns) == ["date", *(name + side for name in ("sales", "visits") for side in ("", *sides))]
    assert list(made["date"]) == [f"{day:%Y-%m-%d}" for day in pd.date_range("2024-06-28", periods=8)]

    network = network_of(trained)
    values = table[["sales", "visits"]].to_numpy()
    mean, scale = values[:105].mean(axis=0), values[:105].std(axis=0)  # 70 % of 150 rows
    values = (values - mean) / scale
    held_out = range(105, 120 - 8 + 1)
    known = quantiles_of(network, np.concatenate([values[row - 16 : row].T for row in held_out]))
    truth = np.concatenate([values[row : row + 8].T for row in held_out])
    found = quantiles_of(network, values[-16:].T)
    moved = intervals_of(found, {level: margins_of(known, truth, level) for level in (80, 95)})
    columns = [found[..., MIDDLE], *(moved[level][..., side] for level in (80, 95) for side in (0, 1))]
    for name, column in zip(["", *sides], columns, strict=True):
        expected = column.T * scale + mean
        np.testing.assert_allclose(made[[f"sales{name}", f"visits{name}"]], expected, rtol=1e-5, err_msg=name)


def test_predict_takes_any_columns_and_short_files(trained: Path, own_csv: Path) -> None:
    """A column of the run keeps the run's scale, another gets that of its own history."""
    frame = pd.read_csv(own_csv).tail(16)
    frame = frame.assign(visits=lambda f: f["visits"] * 1000, extra=np.arange(16.0))
    frame.to_csv("short.csv", index=False)
    assert main(["predict", "forecast", "--checkpoint", str(trained), "--csv", "short.csv", "--output", "out"]) == 0
    made = pd.read_csv("out/forecast.csv")
    assert [name for name in made if "-" not in name] == ["date", "sales", "visits", "extra"] and len(made) == 8
    assert made["extra"].between(-30, 60).all()
    for name in ("sales", "visits", "extra"):
        order = [f"{name}-lo-95", f"{name}-lo-80", name, f"{name}-hi-80", f"{name}-hi-95"]
        assert (made[order].diff(axis=1).iloc[:, 1:] >= 0).all().all()
    assert {path.name for path in Path("out").iterdir()} == {"forecast.csv", "forecast.png", "surprise.png"}

    data = ForecastDataModule(csv="short.csv", lookback=16, horizon=8)
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    data.load_state_dict(checkpoint["ForecastDataModule"])
    data.setup("predict")
    kept = checkpoint["ForecastDataModule"]["arrays"]["scales"]
    np.testing.assert_allclose(data.scaling.of_target(data.panel), [*kept.tolist(), [7.5, np.arange(16).std()]])


def test_test_on_an_own_file(trained: Path, own_csv: Path) -> None:
    shutil.copy(own_csv, "other.csv")
    assert main(["test", "forecast", "--checkpoint", str(trained), "--csv", "other.csv", "--quiet"]) == 0
    tested = json.loads((trained / "test_metrics-other.json").read_text())
    assert tested["test_mse"] == json.loads((trained / "metrics.json").read_text())["test_mse"]


def test_test_on_an_own_file_scales_by_its_train_split(trained: Path, own_csv: Path) -> None:
    """The same series in other units: were it scaled by the run's statistics, nothing would fit."""
    frame = pd.read_csv(own_csv)
    frame[["sales", "visits"]] = frame[["sales", "visits"]] * 100 + 7
    frame.to_csv("rescaled.csv", index=False)
    assert main(["test", "forecast", "--checkpoint", str(trained), "--csv", "rescaled.csv", "--quiet"]) == 0
    tested = json.loads((trained / "test_metrics-rescaled.json").read_text())
    metrics = json.loads((trained / "metrics.json").read_text())
    assert tested["test_mse"] == pytest.approx(metrics["test_mse"], rel=1e-3)


def test_predict_refuses(trained: Path, own_csv: Path, refused: Callable[[list[str]], str]) -> None:
    predict = ["predict", "forecast", "--checkpoint", str(trained)]
    Path("used").mkdir()
    Path("used/forecast.csv").write_text("")
    assert "used holds forecast.csv already" in refused([*predict, "--output", "used"])
    assert "holds forecast.png already" in refused([*predict, "--output", str(trained)])
    Path("begun").mkdir()
    Path("begun/config.yaml").write_text("")
    assert "holds config.yaml already" in refused([*predict, "--output", "begun"])


def test_a_run_holds_a_forecaster_for_pandas(trained: Path, own_csv: Path) -> None:
    model = TitansForecaster.load(trained / "model")
    assert main(["predict", "forecast", "--checkpoint", str(trained), "--quiet"]) == 0
    made = pd.read_csv(trained / "predict" / "forecast.csv", index_col="date", parse_dates=True)
    frame = pd.read_csv(own_csv, index_col="date", parse_dates=True)
    for found in (model.predict(level=(80, 95)), model.predict(frame)):
        assert list(found.columns)[:3] == [("sales", "forecast"), ("sales", "lo-80"), ("sales", "hi-80")]
        found.columns = [name if kind == "forecast" else f"{name}-{kind}" for name, kind in found.columns]
        pd.testing.assert_frame_equal(found, made, check_freq=False, rtol=1e-6)
    bare = model.predict(level=None)
    pd.testing.assert_frame_equal(bare, made[["sales", "visits"]], check_freq=False, check_names=False, rtol=1e-6)
    assert len(model.fit(frame).history_) == 1 + 1  # it goes on


OWN = """
import torch
from torch import nn

class Linear(nn.Module):
    def __init__(self, lookback, horizon):
        super().__init__()
        self.lookback, self.horizon, self.map = lookback, horizon, nn.Linear(lookback, horizon)

    def forward(self, past_target, past_observed_values=None):
        nothing = torch.zeros(len(past_target), 1)
        return self.map(past_target)[..., None], nothing, nothing + 1

class Bare(nn.Linear):
    def __init__(self, lookback, horizon):
        super().__init__(lookback, horizon)
"""


def test_a_network_of_ones_own(
    own_csv: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[[list[str]], str]
) -> None:
    """It trains, forecasts with intervals and has its pictures; what it must have is said before it trains."""
    (workdir / "own_networks.py").write_text(OWN)
    monkeypatch.syspath_prepend(workdir)
    fit = ["fit", "forecast", "--csv", own_csv.name, "--lookback", "16", "--horizon", "8", "--epochs", "1", "--quiet",
           "model=none", "~model.mixer", "trainer.limit_train_batches=2"]  # fmt: skip
    said = refused([*fit, "--output", "bare", "model._target_=own_networks.Bare"])
    assert "model: Bare must have the attribute lookback, here 16" in said and not Path("bare").exists()
    fit.append("model._target_=own_networks.Linear")
    said = refused([*fit, "--output", "own"])
    assert (
        "Linear gives 1 number per step, of which training.output=quantiles needs 13; give --output-type huber" in said
    )
    fit += ["--output-type", "huber"]
    assert "--seeds needs a network of ours" in refused([*fit, "--output", "own", "--seeds", "2"])
    assert main([*fit, "--output", "own"]) == 0
    assert {"training.png", "forecast.png"} < {path.name for path in Path("own").iterdir()}
    predict = ["predict", "forecast", "--checkpoint", "own", "--trust", "own_networks.Linear", "--quiet"]
    assert main(predict) == 0
    weights = torch.load("own/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    values = pd.read_csv(own_csv)[["sales", "visits"]].to_numpy()
    mean, scale = values[:105].mean(axis=0), values[:105].std(axis=0)
    values = (values - mean) / scale

    def forecast(past: np.ndarray) -> np.ndarray:
        return past @ weights["network.map.weight"].numpy().T + weights["network.map.bias"].numpy()

    made = pd.read_csv("own/predict/forecast.csv")
    expected = forecast(values[-16:].T).T * scale + mean
    np.testing.assert_allclose(made[["sales", "visits"]], expected, rtol=1e-4)
    held_out = range(105, 120 - 8 + 1)
    errors = [np.abs(forecast(values[row - 16 : row].T) - values[row : row + 8].T) for row in held_out]
    margin = np.sort(np.concatenate(errors), axis=0)[14 - 1, :, None]  # 80 % of 16 + 1
    np.testing.assert_allclose(made[["sales-hi-80", "visits-hi-80"]], expected + margin * scale, rtol=1e-4)


def test_a_file_that_was_moved(trained: Path, own_csv: Path, refused: Callable[[list[str]], str]) -> None:
    own_csv.rename("moved.csv")
    predict = ["predict", "forecast", "--checkpoint", str(trained), "--quiet", "--output", "out"]
    assert "own.csv, which" in (said := refused(predict)) and "is not there any more; give it by --csv FILE" in said
    assert main([*predict, "--csv", "moved.csv"]) == 0


def test_predictions_do_not_overwrite_each_other(trained: Path) -> None:
    for _ in range(2):
        assert main(["predict", "forecast", "--checkpoint", str(trained), "--quiet"]) == 0
    first, second = (trained / name / "forecast.csv" for name in ("predict", "predict-2"))
    assert first.read_bytes() == second.read_bytes()


def test_surprise_is_the_networks_on_every_row(
    trained: Path, own_csv: Path, capsys: pytest.CaptureFixture[str], refused: Callable[[list[str]], str]
) -> None:
    assert main(["surprise", "forecast", "--checkpoint", str(trained), "--quiet", "--share", "0.05"]) == 0
    out = capsys.readouterr().out
    made = pd.read_csv(trained / "surprise-own.csv")
    assert list(made["date"]) == list(pd.read_csv(own_csv)["date"]) and (made[["sales", "visits"]] > 0).all().all()
    assert (trained / "surprise-own.png").stat().st_size > 5000
    lookback = OmegaConf.load(trained / "config.yaml").data.lookback
    peak = made[["sales", "visits"]][lookback:].max().max()  # the first block surprises a memory that knows nothing
    assert out.split()[0] == f"{peak:.3f}"  # the most surprising span comes first
    assert main(["surprise", "forecast", "--checkpoint", str(trained), "--quiet"]) == 0
    assert (trained / "surprise-own-2.csv").is_file()  # nothing is written over
    assert "must lie between 0 and 1" in refused(["surprise", "forecast", "--checkpoint", str(trained), "--share", "2"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run here")
@pytest.mark.parametrize("verb", ["test", "predict", "surprise"])
def test_a_run_whose_kernels_cannot_run_here(
    verb: str, finished: Path, refused: Callable[[list[str]], str], with_triton: Callable[[Path], str]
) -> None:
    said = refused([verb, "forecast", "--checkpoint", with_triton(finished), "--quiet"])
    assert "cannot run here" in said and "run/config.yaml asks for it" in said


@pytest.mark.filterwarnings("default::titans_seq.datamodules.common.errors.DataWarning")
def test_metrics_that_cannot_be_measured_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Few validation values leave the intervals of 95 % infinite, so that their coverage is undefined."""
    days = pd.date_range("2024-01-01", periods=70)
    pd.DataFrame({"date": days, "y": np.arange(70.0) % 7}).to_csv("few.csv", index=False)
    words = ["--csv", "few.csv", "--lookback", "12", "--horizon", "6", "--epochs", "1", "--output", "run", "--quiet"]
    assert main(["fit", "forecast", *words, "model.dim=8", "data.steps_per_epoch=2"]) == 0
    assert "too few to calibrate intervals of 95 %" in capsys.readouterr().err
    assert main(["test", "forecast", "--checkpoint", "run", "--quiet"]) == 0
    for name in ("metrics", "test_metrics"):
        found = json.loads(Path(f"run/{name}.json").read_text())
        assert "test_coverage_95" not in found and np.isfinite([found["test_crps"], found["test_coverage_80"]]).all()
    assert main(["predict", "forecast", "--checkpoint", "run", "--quiet"]) == 0
    assert "intervals of 95 % are infinite: there were too few" in capsys.readouterr().err
    assert main(["predict", "forecast", "--checkpoint", "run", "--quiet", "--level", "50"]) == 0


def test_covariates_of_another_file_are_encoded_as_in_training(workdir: Path) -> None:
    rng, days = np.random.default_rng(0), pd.date_range("2024-01-01", periods=120)
    parts = [
        pd.DataFrame({"id": f"s{i}", "date": days, "y": rng.random(120), "kind": kind, "price": rng.random(120) + 9})
        for i, kind in enumerate("AB")
    ]
    known = pd.concat(parts)
    known.to_csv("known.csv", index=False)
    known.assign(kind=known["kind"].map({"A": "B", "B": "C"}), price=known["price"] / 50).to_csv("new.csv", index=False)
    words = ["--id-column", "id", "--target", "y", "--static-covariates", "kind", "--future-covariates", "price"]
    small = ["--lookback", "16", "--horizon", "4", "--epochs", "1", "--quiet", "model.dim=8", "data.steps_per_epoch=2"]
    assert main(["fit", "forecast", "--csv", "known.csv", *words, *small, "--output", "run"]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # of the category that training had not
        parsed = parse(["test", "forecast", "--checkpoint", "run", "--csv", "new.csv", "--quiet"])
        scaling = open_trained(parsed, "test").series.scaling
    before = open_trained(parse(["test", "forecast", "--checkpoint", "run", "--quiet"]), "test").series.scaling
    assert scaling.categories == before.categories == {"kind": ["A", "B"]}
    assert scaling.covariates is not None and before.covariates is not None
    np.testing.assert_array_equal(scaling.covariates.mean_, before.covariates.mean_)
