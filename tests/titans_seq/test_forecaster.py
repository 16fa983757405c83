"""The forecaster for frames, as its users meet it."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from disks import no_file_beyond
from gluonts.torch.distributions import NegativeBinomialOutput, QuantileOutput, StudentTOutput
from hourly_frames import COVARIATES, SMALL, H, ahead, frame
from signed import change_config, change_tensors
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from titans_seq import TitansForecaster
from titans_seq.datamodules import DataError, DataWarning
from titans_seq.forecast.metrics import evaluate
from titans_seq.tensor_files import write_tensors


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return frame()


@pytest.fixture(scope="module")
def fitted(data) -> TitansForecaster:
    return TitansForecaster(**SMALL, **COVARIATES).fit(data)


def test_forecasts_have_the_index_and_the_units_people_expect(data, fitted):
    found = fitted.predict(future=ahead(data))
    assert list(found.columns[:3]) == ["unique_id", "ds", "Titans"]
    assert list(found.columns[3:]) == [f"Titans-{side}-{level}" for level in (80, 95) for side in ("lo", "hi")]
    pd.testing.assert_frame_equal(found[["unique_id", "ds"]], ahead(data)[["unique_id", "ds"]])
    for i, part in enumerate(found.groupby("unique_id", sort=False)):
        assert (part[1]["Titans"] / 10.0**i).between(1, 5).all()
    assert (found["Titans-lo-95"] <= found["Titans-lo-80"]).all()
    assert (found["Titans-lo-80"] <= found["Titans-hi-80"]).all()


def test_units_carry_over():
    """Series in other units are the same series: y -> 1000 y + 5 moves the forecasts just so."""
    plain = frame((120, 120), gaps=False)[["unique_id", "ds", "y"]]
    other = plain.assign(y=1000 * plain["y"] + 5)
    one, two = (TitansForecaster(**SMALL).fit(each).predict() for each in (plain, other))
    for name in one.columns[2:]:
        np.testing.assert_allclose(two[name], 1000 * one[name] + 5, rtol=1e-3)


def test_wide_frames_come_back_wide():
    long = frame((120, 120), gaps=False)
    wide = long.pivot(index="ds", columns="unique_id", values="y")
    by_long = TitansForecaster(**SMALL).fit(long)
    by_wide = TitansForecaster(**SMALL).fit(wide)
    found = by_wide.predict()
    assert list(found.columns[:5]) == [("s0", n) for n in ("forecast", "lo-80", "hi-80", "lo-95", "hi-95")]
    assert list(found.index) == list(pd.date_range(wide.index[-1], periods=H + 1, freq="h")[1:])
    long_form = by_long.predict()
    np.testing.assert_array_equal(found["s1", "lo-95"], long_form.loc[long_form["unique_id"] == "s1", "Titans-lo-95"])
    assert list(by_wide.predict(level=None).columns) == ["s0", "s1"]
    one = TitansForecaster(**SMALL).fit(wide["s0"]).predict(level=None)
    assert list(one.columns) == ["s0"] and len(one) == H


def test_one_series_without_a_name():
    data = frame((120,), gaps=False)[["ds", "y"]]
    found = TitansForecaster(**SMALL).fit(data).predict()
    assert list(found.columns[:2]) == ["ds", "Titans"] and len(found) == H


def test_conventions_of_scikit_learn(data):
    model = TitansForecaster(**SMALL, mixer="none")
    assert model.get_params()["mixer"] == "none" and clone(model).get_params() == model.get_params()
    assert model.set_params(horizon=12).horizon == 12
    with pytest.raises(NotFittedError, match="not fitted yet"):
        model.predict()
    assert model.set_params(horizon=H).fit(data) is model
    with pytest.raises(NotFittedError):
        clone(model).predict()


def test_the_seed_decides_and_nothing_else(data, fitted):
    """Equal whatever the global generators did before, which are left as they were."""
    torch.manual_seed(99)
    np.random.seed(99)
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()
    again = clone(fitted).fit(data)
    assert torch.equal(torch.get_rng_state(), before[0]) and (np.random.get_state()[1] == before[1]).all()
    pd.testing.assert_frame_equal(fitted.predict(future=ahead(data)), again.predict(future=ahead(data)))
    other = clone(fitted).set_params(seed=1).fit(data)
    assert not np.allclose(other.predict(future=ahead(data))["Titans"], fitted.predict(future=ahead(data))["Titans"])


def test_fit_again_goes_on(data):
    model = TitansForecaster(**SMALL, **COVARIATES).fit(data)
    weights = [p.clone() for p in model.module_.parameters()]
    scales, first = model.scaling_.scales.copy(), model.history_[-1]["val_loss"]
    model.fit(data)
    assert any(not torch.equal(a, b) for a, b in zip(weights, model.module_.parameters(), strict=True))
    pd.testing.assert_frame_equal(model.scaling_.scales, scales)
    assert len(model.history_) == 4 and min(e["val_loss"] for e in model.history_[2:]) < first
    more = frame((160, 130, 150, 140))
    model.fit(more)
    assert set(model.predict(future=ahead(more))["unique_id"]) == {"s0", "s1", "s2", "s3"}


def test_saved_and_loaded(data, fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = TitansForecaster.load(tmp_path / "model")
    pd.testing.assert_frame_equal(fitted.predict(future=ahead(data)), loaded.predict(future=ahead(data)))
    new = frame((60,), seed=5).assign(unique_id="new")
    pd.testing.assert_frame_equal(fitted.predict(new, ahead(new)), loaded.predict(new, ahead(new)))
    assert clone(loaded).get_params() == fitted.get_params() | COVARIATES | {"levels": [50, 80, 90, 95]}
    loaded.fit(data)
    assert len(loaded.history_) == 4
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["config.json", "model.safetensors", "series.safetensors"]


def with_network(folder, key, value) -> None:
    change_config(folder, lambda config: config["network"].update({key: value}))


def with_argument(folder, key, value) -> None:
    change_config(folder, lambda config: config["about"]["arguments"].update({key: value}))


def with_output(folder, name, **arguments) -> None:
    change_config(folder, lambda config: config.update(output={"class": name, "arguments": arguments}))


DAMAGE = {
    "no folder": (lambda f: [p.unlink() for p in f.iterdir()], "holds no forecaster"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "is not whole"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "holds no JSON"),
    "other JSON": (lambda f: (f / "config.json").write_text("{}"), "not that of a titans-seq forecaster"),
    "cut weights": (lambda f: (f / "model.safetensors").write_text("x" * 40), "is damaged"),
    "other version": (
        lambda f: change_config(f, lambda config: config.update(version=9)),
        "was written by titans-seq .* in format 9; this is .*, which reads format 5",
    ),
    "other size": (lambda f: with_network(f, "dim", 16), "do not fit each other: the weights do not fit the model"),
    "changed": (
        lambda f: (f / "config.json").write_text((f / "config.json").read_text().replace('"dim": 8', '"dim": 9')),
        "config.json was changed",
    ),
    "nested JSON": (lambda f: (f / "config.json").write_text("[" * 3000), "nested too deeply"),
    "huge": (lambda f: with_network(f, "dim", 10**9), "dim must be at most 1,000,000"),
    "deep": (lambda f: with_network(f, "blocks", 10**9), "blocks must be at most"),
    "negative": (lambda f: with_network(f, "dim", -8), "do not fit each other"),
    "text for a size": (lambda f: with_network(f, "dim", "8"), "do not fit each other"),
    "endless": (lambda f: with_network(f, "lookback", 10**12), "lookback must be at most"),
    "another lookback": (lambda f: with_argument(f, "lookback", 40), "lookback and horizon are not those"),
    "unknown argument": (lambda f: with_argument(f, "colour", 1), "config.json is damaged"),
    "outputs": (lambda f: with_network(f, "outputs", 10**9), "outputs must be at most"),
    "NaN": (
        lambda f: change_tensors(f / "model.safetensors", lambda w: {k: v * float("nan") for k, v in w.items()}),
        "not all weights are finite",
    ),
    "text for a level": (
        lambda f: change_config(f, lambda config: config["levels"].__setitem__(0, "50")),
        r"do not fit each other: levels must be percentages",
    ),
    "no zone": (
        lambda f: change_config(f, lambda config: config.update(zone="Europe/Atlantis")),
        "do not fit each other: zone must be the name of a time zone; got 'Europe/Atlantis'",
    ),
    "no series": (
        lambda f: change_tensors(f / "series.safetensors", lambda w: {"a": next(iter(w.values()))}),
        "do not fit",
    ),
    "code": (lambda f: with_output(f, "os.system", command="true"), "'os.system' is none of"),
    "nested code": (
        lambda f: with_output(f, "PointOutput", loss={"__kind__": "instance", "class": "os.system"}),
        "output has wrong arguments",
    ),
    "other files": (lambda f: write_tensors(f / "series.safetensors", {}, {"config.json": "0"}), "not saved together"),
}


@pytest.mark.parametrize("damage, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_folders_are_one_line(fitted, tmp_path, damage, message):
    fitted.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        TitansForecaster.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_what_was_saved(data, fitted, tmp_path):
    fitted.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for room in (0, 1000, 20_000):  # for none of the files, for the first, for two
        with pytest.raises(OSError) as error, no_file_beyond(room):
            fitted.save(tmp_path)
        assert error.value.filename in [str(tmp_path / name) for name in before]
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    observed = TitansForecaster.load(tmp_path).observe(data)
    with pytest.raises(OSError) as error, no_file_beyond(1000):
        observed.save_state(tmp_path / "state")
    assert error.value.filename == str(tmp_path / "state") and not (tmp_path / "state").exists()


POISONS = {"NaN": np.nan, "large": 1e9, "noise": None}


@pytest.mark.parametrize("refit", [False, True], ids=["once", "refit"])
@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_nothing_after_a_cutoff_is_seen(poison, refit):
    """Targets and past covariates after the first cutoff are replaced: scaler, weights, intervals, forecasts stay bit
    by bit.
    """
    data = frame(gaps=False)
    late = data.groupby("unique_id")["ds"].transform("max") - data["ds"] < pd.Timedelta(hours=2 * H)
    noise = np.random.default_rng(7).standard_normal(int(late.sum()))
    bad = data.copy()
    for column in ("y", "temp"):
        bad.loc[late, column] = noise if poison is None else poison
    found, models = [], []
    for each in (data, bad):
        model = TitansForecaster(**SMALL, **COVARIATES)
        table = model.backtest(each, windows=2, refit=refit)
        found.append(table[table["cutoff"] == table.groupby("unique_id")["cutoff"].transform("min")])
        models.append(clone(model).fit(each[~late]))
    names = ["unique_id", "ds", "cutoff", *(name for name in found[0] if name.startswith("Titans"))]
    pd.testing.assert_frame_equal(found[0][names], found[1][names])
    assert len(found[0]) == 3 * H
    pd.testing.assert_frame_equal(models[0].scaling_.scales, models[1].scaling_.scales)
    weights = [model.module_.state_dict() for model in models]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    np.testing.assert_array_equal(models[0].fitted_.conformal.margin, models[1].fitted_.conformal.margin)


def test_a_wide_backtest_sees_nothing_either():
    wide = frame((120, 120), gaps=False).pivot(index="ds", columns="unique_id", values="y")
    bad = wide.copy()
    bad.iloc[-H:] = np.nan
    one, two = (TitansForecaster(**SMALL).backtest(each) for each in (wide, bad))
    names = ["unique_id", "ds", "cutoff", *(name for name in one if name.startswith("Titans"))]
    pd.testing.assert_frame_equal(one[names], two[names])
    assert two["y"].isna().all()


def test_a_backtest_is_fit_and_predict_at_each_cutoff():
    data = frame(gaps=False)
    data.loc[[3, 50, 200], "y"] = np.nan
    model = TitansForecaster(**SMALL, **COVARIATES)
    found = model.backtest(data, windows=3, step=4)
    assert not hasattr(model, "fitted_")
    end = data.groupby("unique_id")["ds"].transform("max")
    assert found.groupby("unique_id")["cutoff"].nunique().eq(3).all() and len(found) == 3 * 3 * H
    fresh = clone(model).fit(data[data["ds"] <= end - pd.Timedelta(hours=H + 8)])
    for hours, (_, part) in zip(
        (H + 8, H + 4, H), found.groupby(found.groupby("unique_id")["cutoff"].rank("dense")), strict=True
    ):
        history = data[data["ds"] <= end - pd.Timedelta(hours=hours)]
        grid = ahead(history).drop(columns="price").merge(data[["unique_id", "ds", "price"]], on=["unique_id", "ds"])
        alone = fresh.predict(history, grid)
        for name in alone.columns[2:]:
            np.testing.assert_allclose(part[name], alone[name], rtol=1e-5)
        truth = part.merge(data, on=["unique_id", "ds"], how="left")
        np.testing.assert_array_equal(truth["y_x"], truth["y_y"])


def test_a_covariate_that_is_missing_ahead_is_refused_in_a_backtest_too():
    data = frame(gaps=False)
    data.loc[data.index[-1], "price"] = np.nan
    with pytest.raises(DataError, match="'price' is missing in series s2 at 2024-01-07 05:00:00, which is to be"):
        TitansForecaster(**SMALL, **COVARIATES).backtest(data)


@pytest.mark.parametrize("size", [1, 7, 32, 128])
def test_scores_do_not_depend_on_the_batch_size(size, monkeypatch):
    """150 forecasts in batches of any size: the same metrics, margins and validation loss, and those of one pass in
    NumPy.
    """
    wide = pd.DataFrame(
        np.random.default_rng(0).standard_normal((80, 150)).cumsum(axis=0),
        index=pd.date_range("2024", periods=80, freq="h"),
    ).rename(columns=str)
    small = SMALL | {"max_epochs": 1, "steps_per_epoch": 2, "val_size": 8}
    model = TitansForecaster(**small).fit(wide.iloc[:-H])
    truth = (
        wide.iloc[-H:].melt(ignore_index=False, value_name="y", var_name="unique_id").rename_axis("ds").reset_index()
    )

    def scores() -> dict[str, float]:
        found = model.predict().stack(level=0, future_stack=True).rename_axis(["ds", "unique_id"]).reset_index()
        found.columns = [
            name if name in ("ds", "unique_id") else "Titans" if name == "forecast" else f"Titans-{name}"
            for name in found
        ]
        return evaluate(found.merge(truth, on=["ds", "unique_id"]))

    whole = scores()
    monkeypatch.setattr("titans_seq.forecast.inference.EVAL_SAMPLES", size)
    assert scores() == pytest.approx(whole, rel=1e-5)
    exact = (model.predict(level=None).to_numpy() - wide.iloc[-H:].to_numpy()) ** 2
    assert whole["mse"] == pytest.approx(exact.mean(), rel=1e-5)


def test_known_covariates_count(data):
    """The price drives the series: with it known ahead, forecasts follow it."""
    longer = SMALL | {"max_epochs": 6, "steps_per_epoch": 60}
    model = TitansForecaster(**longer, future_covariates=["price"]).fit(data)
    low, high = (model.predict(future=ahead(data, price)) for price in (-1.0, 1.0))
    gain = (high["Titans"] - low["Titans"]) / 10.0 ** high["unique_id"].str[1].astype(int)
    assert gain.mean() == pytest.approx(1.0, abs=0.4)  # 0.5 price, from -1 to 1


@pytest.mark.parametrize("output", ["quantiles", "student_t", "mse"])
@pytest.mark.parametrize("conformal", [True, False], ids=["conformal", "plain"])
def test_intervals_of_every_output(data, output, conformal):
    model = TitansForecaster(**SMALL, output=output, conformal=conformal).fit(data)
    if output == "mse" and not conformal:
        with pytest.raises(ValueError, match="has no intervals; ask with level=None"):
            model.predict(level=(80,))
        assert list(model.predict(level=None)) == ["unique_id", "ds", "Titans"]
        return
    found = model.predict(level=(95, 50))
    assert np.isfinite(found.iloc[:, 2:]).all().all()
    assert (found["Titans-lo-95"] < found["Titans-lo-50"]).all()
    assert (found["Titans-hi-50"] < found["Titans-hi-95"]).all()
    if output == "quantiles" and not conformal:
        with pytest.raises(ValueError, match="too few for an interval of 99 %"):
            model.predict(level=[99])


def test_series_without_spread_and_short_ones():
    constant = pd.DataFrame({"unique_id": "c", "ds": pd.date_range("2024", periods=120, freq="h"), "y": 1e4})
    short = pd.DataFrame(
        {"unique_id": "short", "ds": pd.date_range("2024", periods=H + 2, freq="h"), "y": np.arange(H + 2.0)}
    )
    model = TitansForecaster(**SMALL).fit(pd.concat([constant, short, frame((120,), gaps=False)]))
    found = model.predict().set_index("unique_id")
    assert np.isfinite(found.drop(columns="ds")).all().all()
    np.testing.assert_allclose(found.loc["c", "Titans"], 1e4, rtol=0.01)
    one_row = model.predict(short.iloc[:1])
    assert len(one_row) == H and np.isfinite(one_row["Titans"]).all()


def test_it_learns():
    """Well below a forecast by the last day on a clean cycle."""
    data = frame((300, 300), gaps=False)
    model = TitansForecaster(**(SMALL | {"max_epochs": 6, "steps_per_epoch": 60}), future_covariates=["price"])
    found = model.backtest(data, windows=4)
    later = data.assign(ds=data["ds"] + pd.Timedelta(hours=12))
    found["naive"] = found.merge(later, on=["unique_id", "ds"], how="left")["y_y"].to_numpy()
    assert evaluate(found)["mae"] < 0.6 * evaluate(found, model="naive")["mae"]


def test_ctrl_c_leaves_the_forecaster_as_it_was(data, monkeypatch):
    from titans_seq.forecast.module import ForecastModule

    model = TitansForecaster(**SMALL).fit(data)
    before = model.predict()
    monkeypatch.setattr(
        ForecastModule, "on_train_epoch_end", lambda self: (_ for _ in ()).throw(KeyboardInterrupt), raising=False
    )
    with pytest.raises(KeyboardInterrupt):
        model.fit(data)
    with pytest.raises(KeyboardInterrupt):
        (fresh := clone(model)).fit(data)
    assert not hasattr(fresh, "fitted_")
    pd.testing.assert_frame_equal(model.predict(), before)


WRONG = {
    "horizon": ({"horizon": 0}, "horizon must be at least 1; got 0"),
    "lookback": ({"lookback": 8, "network": {"patch_size": 16}}, "lookback must be at least patch_size"),
    "lookback text": ({"lookback": "96"}, "lookback must be a whole number; got '96'"),
    "output": ({"output": "gauss"}, "output must be one of"),
    "counts": ({"output": NegativeBinomialOutput()}, "output must be a name or one of .*; got NegativeBinomialOutput"),
    "output without a middle": ({"output": QuantileOutput([0.6, 0.9])}, "from 0.6 to 0.9, too few for a middle"),
    "val_size": ({"val_size": 3}, "val_size must be 0 or at least the horizon 6; got 3"),
    "no validation": ({"val_size": 0}, "give val_size > 0 or conformal=False"),
    "levels": ({"levels": [80, 120]}, "levels must be percentages from 1 to below 100; got 120"),
    "no name": ({"alias": ""}, "alias must be a name; got ''"),
    "calendar as text": ({"calendar": "x"}, "calendar must be True or False; got 'x'"),
    "shares": ({"levels": (0.8, 0.95)}, "levels must be percentages .*; got 0.8: write 80 for 0.8"),
    "no levels": ({"levels": ()}, "levels must name an interval to calibrate"),
    "text levels": ({"levels": ["80"]}, "levels must be percentages such as"),
    "seed": ({"seed": None}, "seed must be a whole number"),
    "mixer": ({"mixer": "mamba"}, "mixer must be one of"),
    "column": ({"target_col": "sales"}, "the frame has no column 'sales'"),
    "covariate": ({"future_covariates": ["promo"]}, "the frame has no column 'promo'"),
    "covariates as text": ({"past_covariates": "temp"}, "past_covariates must be a list of columns; got 'temp'"),
    "alias": ({"alias": "y"}, "another has that name already: 'y'"),
    "too short": ({"val_size": 150}, "no series has the .* rows that it takes to hold some out and"),
    "diverged": ({"learning_rate": 1e30}, "training diverged: no epoch has a finite val_loss"),
    "network": ({"network": {"dims": 16}}, "network has a wrong option: .*'dims'"),
    "learning rate": ({"learning_rate": "1e-3"}, "learning_rate must be a number of at least 0; got '1e-3'"),
    "id_col": ({"id_col": "shop"}, "the frame has no column 'shop'"),
    "freq": ({"freq": "-1h"}, "freq must be a step forward; got '-1h'"),
    "calendar": ({"freq": "100ms", "conformal": False, "val_size": 0}, "no two rows are one step of freq '100ms'"),
}


@pytest.mark.parametrize("changed, message", WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_one_line(data, changed, message):
    with pytest.raises(ValueError, match=message) as caught:
        TitansForecaster(**(SMALL | changed)).fit(data)
    assert "\n" not in str(caught.value)


def test_wrong_frames_to_predict_and_backtest(data, fitted):
    with pytest.raises(DataError, match="covariates price are needed over the horizon"):
        fitted.predict()
    with pytest.raises(DataError, match="has no column 'temp'"):
        fitted.predict(data.drop(columns="temp"), ahead(data))
    with pytest.raises(DataError, match="not on the grid of freq 'h'"):
        minutes = pd.to_timedelta(np.arange(len(data)), unit="min")
        fitted.predict(data.assign(ds=data["ds"].dt.floor("D") + minutes), ahead(data))
    with pytest.raises(DataError, match="no series is longer than the 204 rows that 34 windows"):
        fitted.backtest(data, windows=34)
    with pytest.raises(ValueError, match="windows and step must be at least 1"):
        fitted.backtest(data, windows=0)
    with pytest.raises(ValueError, match=r"level must be a list of percentages: write \(80,\)"):
        fitted.predict(future=ahead(data), level=80)


def test_the_folder_stays_clean(data, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        TitansForecaster(**SMALL).fit(data).predict()
    assert list(tmp_path.iterdir()) == []
    assert not [w for w in seen if "lightning" in str(w.filename)]
    assert capfd.readouterr() == ("", "")


def test_scores_by_hand():
    rows = pd.DataFrame({"unique_id": "a", "y": [1.0, 2, 3, np.nan], "f": [2.0, 2, 2, 9], "g": [1.0, 2, 3, 9]})
    rows = rows.assign(**{"f-lo-50": [1.5, 2, 1, 0], "f-hi-50": [3.0, 2, 4, 0]})
    history = {"a": np.array([0, 1, np.nan, 1, 0.5])}
    exact = evaluate(rows, history, model="g")
    assert exact["mse"] == exact["mae"] == exact["mase"] == 0
    # pinball at .25 (1.5, 2, 1), .5 (2, 2, 2), .75 (3, 2, 4), each twice the plain one
    crps = np.mean([2 * (0.75 * 0.5 + 0 + 0.25 * 2) / 3, 2 * (0.5 + 0 + 0.5) / 3, 2 * (0.25 * 2 + 0 + 0.25 * 1) / 3])
    # |differences| of the history: 1, missing, missing, .5; errors 1, 0, 1
    wanted = {"mse": 2 / 3, "mae": 2 / 3, "mase": (2 / 3) / 0.75, "coverage_50": 2 / 3, "width_50": 1.5, "crps": crps}
    found = evaluate(rows, history, model="f")
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


def test_wrong_scores_are_named():
    rows = pd.DataFrame({"unique_id": ["a"], "y": [1.0], "Titans": [2.0]})
    assert np.isnan(evaluate(rows, {"a": np.arange(4.0)}, seasonality=24)["mase"])  # no season in the history
    with pytest.raises(ValueError, match="forecasts has no column 'other'"):
        evaluate(rows, model="other")
    with pytest.raises(ValueError, match="history has no series 'a'"):
        evaluate(rows, {})


def test_arguments_that_are_built_in_cannot_change(data, tmp_path):
    model = TitansForecaster(**SMALL).fit(data)
    model.set_params(learning_rate=1e-4).fit(data)  # a smaller rate to go on with
    assert model.module_.learning_rate == 1e-4
    model.set_params(mixer="attention")
    for use in (lambda: model.fit(data), model.predict, lambda: model.save(tmp_path)):
        with pytest.raises(ValueError, match="mixer was 'memory' when the forecaster was fitted"):
            use()


def test_flat_stretches_do_not_blow_intervals_up():
    """20 days of demand, then 40 of none, and so on: after a flat lookback the interval is of the size of the
    series.
    """
    random = np.random.default_rng(0)
    t = np.arange(600)
    parts = [
        pd.DataFrame({"unique_id": i, "ds": t, "y": np.where((t + 7 * i) % 60 < 20, 3 + random.random(600), 0.0)})
        for i in range(8)
    ]
    data = pd.concat(parts)
    model = TitansForecaster(**(SMALL | {"lookback": 16, "val_size": 60, "max_epochs": 4}))
    found = model.backtest(data, windows=10, level=(95,))
    width = found["Titans-hi-95"] - found["Titans-lo-95"]
    assert width.max() < 40 and width.min() > 0.05  # one margin in scales of the window gave 98,000
    assert evaluate(found)["coverage_95"] > 0.8


def test_series_without_a_value(data):
    empty = pd.DataFrame({"unique_id": "empty", "ds": pd.date_range("2024", periods=50, freq="h"), "y": np.nan})
    model = TitansForecaster(**SMALL).fit(pd.concat([data, empty]))
    with pytest.warns(DataWarning, match="1 series have no value at all, the first is empty: their forecasts are NaN"):
        found = model.predict().set_index("unique_id")
    assert found.loc["empty", "Titans"].isna().all() and found.drop(index="empty")["Titans"].notna().all()


@pytest.mark.parametrize("kind", ["int", "category", "string"])
def test_names_of_any_kind(kind, tmp_path):
    data = frame((120, 120), gaps=False)[["unique_id", "ds", "y"]]
    names = pd.Series(data["unique_id"].map({"s0": 7, "s1": 3})) if kind == "int" else data["unique_id"]
    model = TitansForecaster(**SMALL).fit(data.assign(unique_id=names.astype("int64" if kind == "int" else kind)))
    found = model.predict()
    assert list(found["unique_id"].unique()) == ([7, 3] if kind == "int" else ["s0", "s1"])
    model.save(tmp_path)
    pd.testing.assert_frame_equal(TitansForecaster.load(tmp_path).predict(), found)


@pytest.mark.parametrize(
    "output", [QuantileOutput([0.1, 0.5, 0.9]), StudentTOutput(), "huber"], ids=["quantile", "student-t", "huber"]
)
@pytest.mark.parametrize("layout", ["wide", "numbers", "no name"])
def test_every_kind_of_forecaster_is_saved(output, layout, tmp_path):
    data = frame((120,), gaps=False)[["ds", "y"]]
    if layout == "wide":
        data = data.set_index("ds").rename(columns={"y": "sales"}).assign(visits=lambda f: 3 - f["sales"])
    data = data.assign(ds=np.arange(120) * 2) if layout == "numbers" else data
    model = TitansForecaster(**(SMALL | {"levels": (80,)}), output=output).fit(data)
    model.save(tmp_path)
    pd.testing.assert_frame_equal(TitansForecaster.load(tmp_path).predict(level=[80]), model.predict(level=[80]))


def test_default_levels_are_what_there_is(data):
    other = TitansForecaster(**SMALL, levels=(70,)).fit(data)
    assert list(other.predict().columns[3:]) == ["Titans-lo-70", "Titans-hi-70"]
    plain = TitansForecaster(**(SMALL | {"val_size": 0}), conformal=False, output="mse").fit(data)
    assert list(plain.predict()) == ["unique_id", "ds", "Titans"]


def test_little_history_gives_no_narrow_interval(data, fitted):
    known = data.groupby("unique_id").tail(1)
    found, whole = (
        made["Titans-hi-95"] - made["Titans-lo-95"]
        for made in (fitted.predict(known, ahead(known)), fitted.predict(future=ahead(data)))
    )
    assert (found > 0.3 * whole).all()
