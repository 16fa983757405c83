"""The GluonTS estimator: what GluonTS asks of one, and the places where its base class lets users down."""

import signal

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from gluonts.dataset.split import split
from gluonts.ev.metrics import MAE, MeanWeightedSumQuantileLoss
from gluonts.evaluation import Evaluator, make_evaluation_predictions
from gluonts.model import Forecast, evaluate_model
from gluonts.model.predictor import Predictor
from gluonts.torch.distributions import (
    BetaOutput,
    GammaOutput,
    ImplicitQuantileNetworkOutput,
    ISQFOutput,
    LaplaceOutput,
    NegativeBinomialOutput,
    NormalOutput,
    Output,
    PoissonOutput,
    QuantileOutput,
    StudentTOutput,
)  # fmt: skip
from gluonts.torch.model.predictor import PyTorchPredictor
from gluonts.transform import NumInstanceSampler, ValidationSplitSampler

from titans_seq.forecast.estimator import TitansEstimator
from titans_seq.forecast.outputs import MonotoneQuantileOutput, PointOutput

H, CONTEXT = 6, 24
SMALL = {
    "prediction_length": H, "context_length": CONTEXT, "network": {"dim": 8}, "num_batches_per_epoch": 2,
    "batch_size": 8,
}  # fmt: skip
COVARIATES = {
    "freq": "h", "num_feat_dynamic_real": 2, "num_past_feat_dynamic_real": 1, "num_feat_static_real": 1,
    "num_feat_static_cat": 2, "cardinality": [3, 2],
}  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    L.seed_everything(0, verbose=False)


def series(lengths=(120, 90, 150, 100, 110), seed=0) -> list[dict]:
    """Hourly series of different sizes with every kind of covariate, known ones for H steps more."""
    random, entries = np.random.default_rng(seed), []
    for i, n in enumerate(lengths):
        target = 10.0**i * (3 + np.sin(np.arange(n) * 2 * np.pi / 12 + i) + 0.1 * random.standard_normal(n))
        entries.append({
            "item_id": f"s{i}", "start": pd.Period("2024-01-01 05:00", "h") + i, "target": target,
            "feat_dynamic_real": random.standard_normal((2, n + H)),
            "past_feat_dynamic_real": random.standard_normal((1, n)),
            "feat_static_real": random.standard_normal(1), "feat_static_cat": np.array([i % 3, i % 2]),
        })  # fmt: skip
    return entries


def estimator(trainer: dict | None = None, **options) -> TitansEstimator:
    return TitansEstimator(
        **SMALL | {"trainer_kwargs": {"accelerator": "cpu", "max_epochs": 1} | (trainer or {})} | options
    )


def values(forecasts: list[Forecast]) -> np.ndarray:
    """Three quantiles of every forecast [N, 3, H]."""
    return np.array([[forecast.quantile(level) for level in (0.1, 0.5, 0.9)] for forecast in forecasts])


def forecast(predictor: Predictor, data: list[dict]) -> np.ndarray:
    return values(list(predictor.predict(data)))


@pytest.fixture(scope="module")
def data() -> list[dict]:
    return series()


@pytest.fixture(scope="module")
def predictor(data) -> PyTorchPredictor:
    """Trained with covariates of every kind; one series is shorter than the context, one has gaps."""
    L.seed_everything(0, verbose=False)
    return estimator(**COVARIATES).train([*data, *series([15], seed=1)])


# what GluonTS asks of an estimator -----------------------------------------------------------------------------------


def test_forecasts_come_in_the_order_of_the_series_and_begin_after_them(data, predictor):
    found = list(predictor.predict(data))
    assert [f.item_id for f in found] == [d["item_id"] for d in data]
    assert [f.start_date for f in found] == [d["start"] + len(d["target"]) for d in data]
    assert all(f.mean.shape == (H,) for f in found)
    # each on the scale of its own series
    for f, d in zip(found, data, strict=True):
        assert 0.2 * np.mean(d["target"]) < np.median(f.mean) < 5 * np.mean(d["target"])


@pytest.mark.parametrize("size", [1, 2, 3, 32])
def test_forecasts_do_not_depend_on_the_batch_size(data, predictor, size, monkeypatch):
    plain = forecast(predictor, data)
    monkeypatch.setattr(predictor, "batch_size", size)
    np.testing.assert_allclose(forecast(predictor, data), plain, rtol=1e-4)
    np.testing.assert_allclose(forecast(predictor, data[::-1])[::-1], plain, rtol=1e-4)


OUTPUTS = {
    "student-t": StudentTOutput(),
    "normal": NormalOutput(),
    "laplace": LaplaceOutput(),
    "quantile": QuantileOutput([0.1, 0.5, 0.9]),
    "monotone": MonotoneQuantileOutput([0.1, 0.5, 0.9]),
    "point": PointOutput("mae"),
    "counts": NegativeBinomialOutput(),
    "poisson": PoissonOutput(),
}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_every_output_is_trained_on_series_with_gaps_and_survives_a_file(output, tmp_path):
    """Counts with NaN, in training, validation and prediction; the forecasts of the file's predictor are the same
    bits.
    """
    random = np.random.default_rng(0)
    counts = [d | {"target": random.poisson(3, len(d["target"])).astype(float)} for d in series()]
    for entry in counts:
        entry["target"][random.random(len(entry["target"])) < 0.2] = np.nan
    trained = estimator(distr_output=output).train(counts, counts)
    trained.serialize(tmp_path)
    again = Predictor.deserialize(tmp_path)
    plain = [f.mean for f in trained.predict(counts)]  # GluonTS has no quantiles of a Poisson
    assert np.isfinite(plain).all()
    np.testing.assert_array_equal([f.mean for f in again.predict(counts)], plain)
    assert again == trained


def test_a_predictor_with_covariates_survives_a_file(data, predictor, tmp_path):
    predictor.serialize(tmp_path)
    np.testing.assert_array_equal(forecast(Predictor.deserialize(tmp_path), data), forecast(predictor, data))


ODD = {
    "constant": np.full(60, 7.0),
    "zero": np.zeros(60),
    "short": 5 + np.sin(np.arange(10.0)),
    "one step": np.array([5.0]),
    "empty": np.array([]),
    "all missing": np.full(60, np.nan),
    "end missing": np.r_[np.arange(30.0), np.full(30, np.nan)],
}


@pytest.mark.parametrize("target", ODD.values(), ids=ODD)
def test_odd_series_are_trained_on_and_forecast(target):
    entries = [{"start": pd.Period("2024", "h"), "target": target}]
    trained = estimator().train([*entries, *series([60])])
    found = forecast(trained, entries)[0]
    assert np.isfinite(found).all()
    if len(target) > 1 and (target == target[0]).all():
        np.testing.assert_allclose(found, target[0], atol=0.01)


def test_gaps_are_masked(predictor, data):
    """What stands where a value is missing does not matter, and a missing value is not the same as a zero."""
    gaps = [d | {"target": np.where(np.arange(len(d["target"])) % 5 == 2, np.nan, d["target"])} for d in data]
    zeros = [d | {"target": np.nan_to_num(d["target"])} for d in gaps]
    assert np.isfinite(forecast(predictor, gaps)).all()
    assert not np.allclose(forecast(predictor, gaps), forecast(predictor, zeros), rtol=1e-3)


def test_padding_of_short_series_is_unobserved(predictor):
    """A series that begins late forecasts as one that is missing until then."""
    (entry,) = series([60])
    covariates = {name: entry[name][:, 40:] for name in ("feat_dynamic_real", "past_feat_dynamic_real")}
    late = entry | covariates | {"start": entry["start"] + 40, "target": entry["target"][40:]}
    missing = entry | {"target": np.r_[np.full(40, np.nan), entry["target"][40:]]}
    batch, other = _inputs(predictor, late), _inputs(predictor, missing)
    np.testing.assert_array_equal(batch["past_observed_values"], other["past_observed_values"])
    assert batch["past_observed_values"].sum() == 20
    np.testing.assert_array_equal(batch["past_target"], other["past_target"])


def _inputs(predictor: PyTorchPredictor, entry: dict) -> dict[str, np.ndarray]:
    (window,) = predictor.input_transform.apply([entry], is_train=False)
    return {name: window[name] for name in predictor.input_names}


def test_covariates_stand_at_their_steps(data, predictor):
    """Hour of the day first, then the known rows, then the past ones; over the horizon the known ones alone."""
    entry = data[1]
    found, n = _inputs(predictor, entry), len(entry["target"])
    time = pd.period_range(entry["start"], periods=n + H, freq="h")
    known = np.stack([time.hour / 23 - 0.5, time.dayofweek / 6 - 0.5])
    past, future = found["past_features"], found["future_features"]
    np.testing.assert_allclose(past[:, :2].T, known[:, n - CONTEXT : n], atol=1e-6)
    np.testing.assert_allclose(future[:, :2].T, known[:, n:], atol=1e-6)
    np.testing.assert_allclose(past[:, 4:6].T, entry["feat_dynamic_real"][:, n - CONTEXT : n], rtol=1e-6)
    np.testing.assert_allclose(future[:, 4:].T, entry["feat_dynamic_real"][:, n:], rtol=1e-6)
    np.testing.assert_allclose(past[:, 6:].T, entry["past_feat_dynamic_real"][:, -CONTEXT:], rtol=1e-6)
    np.testing.assert_allclose(found["static_features"], [*entry["feat_static_real"], 0, 1, 0, 0, 1], rtol=1e-6)


@pytest.mark.parametrize(
    "field", ["feat_dynamic_real", "past_feat_dynamic_real", "feat_static_real", "feat_static_cat"]
)
def test_declared_covariates_count_and_others_do_not(data, predictor, field):
    changed = [d | {field: (d[field] + 1) % [3, 2] if field == "feat_static_cat" else d[field] + 1} for d in data]
    plain, moved = forecast(predictor, data), forecast(predictor, changed)
    assert (np.abs(moved / plain - 1) > 1e-4).any(axis=(1, 2)).all()
    undeclared = estimator().train(data)
    np.testing.assert_array_equal(forecast(undeclared, data), forecast(undeclared, changed))


def test_only_past_covariates(data):
    trained = estimator(num_past_feat_dynamic_real=1).train(data)
    assert trained.input_names == ["past_target", "past_observed_values", "past_features"]
    changed = [d | {"past_feat_dynamic_real": d["past_feat_dynamic_real"] + 1} for d in data]
    assert not np.allclose(forecast(trained, data), forecast(trained, changed), rtol=1e-4)


def test_the_future_does_not_leak(data, predictor):
    """Targets and past covariates after the start of the forecast may be anything; those before it may not."""

    def evaluated(entries: list[dict]) -> np.ndarray:
        return values(list(make_evaluation_predictions(entries, predictor)[0]))

    for poison in (1e9, np.nan, -3.0):
        changed = [
            {name: np.array(d[name]) if name.endswith(("target", "real")) else d[name] for name in d} for d in data
        ]
        for entry in changed:
            n = len(entry["target"])
            entry["target"][-H:] = poison
            entry["past_feat_dynamic_real"] = np.concatenate(
                [entry["past_feat_dynamic_real"][:, : n - H], np.full((1, H), poison)], axis=1
            )
            entry["feat_dynamic_real"][:, n:] = poison
        np.testing.assert_array_equal(evaluated(changed), evaluated(data))
    for entry in changed:
        entry["target"][-H - 1] += entry["target"].std()
    assert (evaluated(changed) != evaluated(data)).any(axis=(1, 2)).all()


def test_training_windows_hold_no_past_covariates_of_the_horizon(data):
    """Every window of a series that counts its steps: what is known of it ends where the forecast begins."""
    n = 80
    steps = np.arange(n, dtype=float)
    covariates = {"past_feat_dynamic_real": steps[None], "feat_dynamic_real": steps[None]}
    series = [{"start": pd.Period("2024", "h"), "target": steps} | covariates]
    sampler = NumInstanceSampler(N=5, min_past=1, min_future=H)
    made = estimator(num_past_feat_dynamic_real=1, num_feat_dynamic_real=1, train_sampler=sampler)
    series = made.create_transformation().apply(series)
    for batch in made.create_training_data_loader(series, made.create_lightning_module()):
        assert set(batch) == {*made._inputs, "future_target", "future_observed_values"}
        first = batch["future_target"][:, :1]
        for step in range(CONTEXT):
            expected = (first[:, 0] - CONTEXT + step).clamp(min=0)
            for known in (batch["past_target"], batch["past_features"][..., 0], batch["past_features"][..., 1]):
                assert torch.equal(known[:, step], expected)
        assert torch.equal(batch["future_target"], first + torch.arange(H))
        assert torch.equal(batch["future_features"][..., 0], first + torch.arange(H))
        assert batch["future_features"].shape[-1] == 1


def test_it_learns_a_cycle():
    """80 batches: clearly better than the season before and than the mean, on series of sizes from 0.1 to 100."""
    random, horizon, n = np.random.default_rng(0), 12, 240
    clean = 3 + np.sin((np.arange(n) + random.uniform(0, 12, (20, 1))) * np.pi / 6)
    every = 10 ** random.uniform(-1, 2, (20, 1)) * (clean + 0.2 * random.standard_normal(clean.shape))
    past, future = every[:, :-horizon], every[:, -horizon:]
    entries = [{"start": pd.Period("2024", "h"), "target": target} for target in past]
    trained = estimator(
        {"max_epochs": 2}, prediction_length=horizon, context_length=36, lr=1e-2, batch_size=32,
        num_batches_per_epoch=40, network={"dim": 16, "dropout": 0.0, "head_dropout": 0.0},
    ).train(entries)  # fmt: skip

    def error(forecasts: np.ndarray) -> float:
        return np.mean(np.abs(forecasts - future) / past.std(axis=1, keepdims=True))

    model = error(np.array([f.mean for f in trained.predict(entries)]))
    assert model < 0.9 * error(past[:, -horizon:])
    assert model < 0.35 * error(past.mean(axis=1, keepdims=True))


def test_evaluations_of_gluonts(data, predictor):
    """Both score what the forecasts themselves say, on the scale of the data."""
    _, template = split(data, offset=-H)
    test = template.generate_instances(H)
    future = np.array([label["target"] for label in test.label])
    medians = values(list(predictor.predict(test.input)))[:, 1]
    exact = np.abs(medians - future).mean()
    scores = evaluate_model(
        predictor, test_data=test, metrics=[MAE(0.5), MeanWeightedSumQuantileLoss([0.1, 0.5, 0.9])], axis=None
    )
    assert scores["MAE[0.5]"].item() == pytest.approx(exact, rel=1e-4)
    assert np.isfinite(scores["mean_weighted_sum_quantile_loss"].item())
    forecasts, targets = make_evaluation_predictions(data, predictor)
    totals, each = Evaluator([0.1, 0.5, 0.9], num_workers=0)(targets, forecasts)
    assert totals["abs_error"] == pytest.approx(exact * future.size, rel=1e-4)
    assert list(each["item_id"]) == [d["item_id"] for d in data]


def test_train_from_goes_on_with_the_weights(data, predictor):
    still = estimator(lr=1e-12, **COVARIATES)
    again = still.train_from(predictor, data)
    np.testing.assert_allclose(forecast(again, data), forecast(predictor, data), rtol=1e-4)
    assert not np.allclose(forecast(still.train(data), data), forecast(predictor, data), rtol=1e-2)


def test_hyperparameters_and_inputs(data):
    made = TitansEstimator.from_hyperparameters(prediction_length="6", context_length="24", lr="1e-3")
    assert (made.prediction_length, made.context_length, made.lr) == (6, 24, 1e-3)
    derived = {name: value for name, value in COVARIATES.items() if name != "freq"}
    for_training = [d | {"feat_dynamic_real": d["feat_dynamic_real"][:, :-H]} for d in data]
    assert TitansEstimator.derive_auto_fields(for_training) == derived
    made = TitansEstimator.from_inputs(for_training, **SMALL, num_feat_dynamic_real=1)
    assert (made.num_feat_dynamic_real, made.num_feat_static_cat, made.cardinality) == (1, 2, [3, 2])
    plain = [{"start": d["start"], "target": d["target"]} for d in data]
    assert TitansEstimator.derive_auto_fields(plain) == {name: [] if name == "cardinality" else 0 for name in derived}


@pytest.mark.parametrize("horizon, context", [(6, 96), (48, 96), (49, 98)])
def test_default_context(horizon, context):
    assert TitansEstimator(prediction_length=horizon).context_length == context


def test_the_same_seed_gives_the_same_model(data):
    """Also of an estimator that has trained before: its sampler counts windows."""
    made = estimator()
    found = []
    for _ in range(2):
        L.seed_everything(3, verbose=False)
        found.append(forecast(made.train(data, shuffle_buffer_length=10, cache_data=True), data))
    np.testing.assert_array_equal(*found)


# where the base class lets users down --------------------------------------------------------------------------------


class Watch(L.Callback):
    """Keeps losses and weights of every epoch; `act` is called at the start of each."""

    def __init__(self, act=lambda epoch, module: None) -> None:
        self.act, self.losses, self.weights = act, [], []

    def on_train_epoch_start(self, trainer, pl_module):
        self.act(trainer.current_epoch, pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self.losses.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})


@pytest.mark.parametrize("several", [True, False], ids=["list", "single"])
def test_callbacks_last_for_every_training_and_the_callers_arguments_stay(data, several):
    watch = Watch()
    given = {"accelerator": "cpu", "max_epochs": 2, "callbacks": [watch] if several else watch}
    before = dict(given)
    made = TitansEstimator(**SMALL, trainer_kwargs=given)
    made.train(data)
    assert len(watch.losses) == 2
    made.train(data)
    assert len(watch.losses) == 4
    assert given == before and (not several or given["callbacks"] == [watch])


@pytest.mark.parametrize("validated", [True, False], ids=["val_loss", "train_loss"])
def test_the_best_epoch_is_kept(data, validated):
    @torch.no_grad()
    def spoil(epoch, module):
        for parameter in module.parameters():
            parameter.mul_(3 if epoch == 2 else 1)

    watch = Watch(spoil)
    trained = estimator({"max_epochs": 3, "callbacks": [watch]}).train(data, data if validated else None)
    losses = [epoch["val_loss" if validated else "train_loss"] for epoch in watch.losses]
    best = int(np.argmin(losses))
    assert best < 2
    for name, value in trained.network.state_dict().items():
        assert torch.equal(value, watch.weights[best][name])


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_training_that_failed_does_not_pass_for_a_finished_one(data, error, epoch):
    def fail(current, module):
        if current == epoch:
            raise error

    handler = signal.getsignal(signal.SIGINT)  # lightning ignores the signal while it shuts down
    with pytest.raises(type(error)) as caught:
        estimator({"max_epochs": 3, "callbacks": [Watch(fail)]}).train(data)
    assert caught.value is error
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("option", [None, "enable_progress_bar", "enable_model_summary"])
@pytest.mark.filterwarnings("default:.*(LeafSpec|val_dataloader)")
def test_a_training_is_quiet_unless_trainer_kwargs_ask(data, option, capfd, caplog, recwarn):
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    trainer = estimator({} if option is None else {option: True}).train_model(data).trainer
    said = "".join(capfd.readouterr()) + caplog.text + "".join(str(warning.message) for warning in recwarn)
    assert (trainer.progress_bar_callback is not None) == (option == "enable_progress_bar")
    summary = option == "enable_model_summary"
    assert ("Trainable params" in said) == ("GPU available" in said) == ("val_dataloader" in said) == summary
    assert option is not None or said == ""


def test_nothing_is_left_in_the_current_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    estimator().train(data, data)
    assert not list(tmp_path.iterdir())


def test_weights_are_kept_in_a_given_folder(data, tmp_path):
    trained = estimator({"default_root_dir": tmp_path}).train(data)
    (file,) = tmp_path.rglob("*.ckpt")
    kept = torch.load(file, weights_only=True)["state_dict"]
    for name, value in trained.network.state_dict().items():
        assert torch.equal(value, kept[name])


@pytest.mark.parametrize("options", [{"enable_checkpointing": False}, {"fast_dev_run": True}], ids=str)
def test_without_checkpoints_the_last_weights_count(data, options):
    assert np.isfinite(forecast(estimator(options).train(data), data)).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_all_grad_modes_agree(data, predictor, mode):
    """The memory learns while it reads; GluonTS predicts without gradients."""
    (window,) = predictor.input_transform.apply([data[0]], is_train=False)
    inputs = {name: torch.tensor(np.array(window[name]))[None] for name in predictor.input_names}
    plain = forecast(predictor, data)
    with mode():
        np.testing.assert_array_equal(forecast(predictor, data), plain)
        args, loc, scale = predictor.network.cpu()(**inputs)
        found = predictor.forecast_generator.distr_output.distribution(args, loc, scale).mean
    np.testing.assert_allclose(found.detach().numpy()[0], plain[0, 1], rtol=1e-5)


# wrong arguments and data --------------------------------------------------------------------------------------------

ARGUMENTS = [
    ({"prediction_length": 0}, "prediction_length must be at least 1; got 0"),
    ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
    ({"num_batches_per_epoch": -1}, "num_batches_per_epoch must be at least 1; got -1"),
    ({"num_past_feat_dynamic_real": -1}, "num_past_feat_dynamic_real must be at least 0; got -1"),
    ({"lr": 0.0}, "lr must be above 0; got 0.0"),
    ({"lr": float("nan")}, "lr must be above 0; got nan"),
    ({"weight_decay": -1.0}, "weight_decay must be at least 0; got -1.0"),
    (
        {"context_length": 15, "network": {"patch_size": 16}},
        "got 15, 'memory' and .*: lookback must be at least patch_size",
    ),
    ({"context_length": 0}, "got 0, 'memory'"),
    ({"mixer": "lstm"}, "got 24, 'lstm' and .*: mixer must be one of memory"),
    ({"network": {"dimension": 8}}, "{'dimension': 8}: .*unexpected keyword argument 'dimension'"),
    ({"network": {"horizon": 8}}, "{'horizon': 8}: .*multiple values"),
    ({"freq": "fortnight"}, "freq must be a frequency for which GluonTS has time features; got 'fortnight'"),
    ({"num_feat_static_cat": 1}, r"must have a number above 0 for each of the 1 num_feat_static_cat; got \[\]"),
    ({"num_feat_static_cat": 1, "cardinality": [0]}, r"got \[0\]"),
    ({"cardinality": [4]}, r"each of the 0 num_feat_static_cat; got \[4\]"),
    ({"distr_output": "normal"}, "distr_output"),
    ({"prediction_length": "six"}, "prediction_length"),
]


@pytest.mark.parametrize("options, message", ARGUMENTS, ids=str)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        estimator(**options)


UNTRAINABLE = [GammaOutput(), BetaOutput(), ISQFOutput(3, [0.1, 0.9]), ImplicitQuantileNetworkOutput()]


@pytest.mark.parametrize("output", UNTRAINABLE, ids=lambda o: type(o).__name__)
def test_outputs_that_cannot_be_trained_are_refused(output: Output):
    with pytest.raises(ValueError, match=f"distr_output must have a loss .*{type(output).__name__}"):
        estimator(distr_output=output)


def _changed(field, change):
    return lambda entry: entry | {field: change(np.array(entry[field], dtype=float))}


def _put(value):
    def change(values):
        values[..., -10] = value
        return values

    return change


SERIES = [
    (_changed("target", _put(np.inf)), "target must be one row of finite numbers or NaN; item 's0' has inf"),
    (_changed("target", lambda v: v[None]), r"target must be one row .*; item 's0' has shape \[1, 120\]"),
    (_changed("feat_dynamic_real", _put(np.nan)), "feat_dynamic_real must be finite .*; item 's0' has nan"),
    (_changed("feat_dynamic_real", lambda v: v[:1]), r"be \[2, 1\d\d\], or longer,; item 's0' has shape \[1, 126\]"),
    (_changed("feat_dynamic_real", lambda v: v[:, :50]), r"has shape \[2, 50\]"),
    (_changed("past_feat_dynamic_real", _put(-np.inf)), "past_feat_dynamic_real must be finite .*; item 's0' has -inf"),
    (_changed("past_feat_dynamic_real", lambda v: v[:, :-1]), r"be \[1, 120\], or .*; item 's0' has shape \[1, 119\]"),
    (_changed("feat_static_real", lambda v: v * np.nan), "static_real must be 1 finite numbers; item 's0' has nan"),
    (_changed("feat_static_real", lambda v: np.ones(2)), r"has \[1.0, 1.0\]"),
    (_changed("feat_static_cat", lambda v: v + 2), r"must be whole .* below \[3, 2\]; item 's0' has \[2.0, 2.0\]"),
    (_changed("feat_static_cat", lambda v: v + 0.5), r"has \[0.5, 0.5\]"),
    (_changed("feat_static_cat", lambda v: v - 1), r"feat_static_cat must .* has \[-1.0, -1.0\]"),
    (lambda entry: entry | {"feat_static_real": None}, "feat_static_real must be in every series; item 's0' has none"),
]  # fmt: skip


@pytest.mark.parametrize("change, message", SERIES, ids=lambda value: value if isinstance(value, str) else "")
def test_wrong_series_are_named(data, predictor, change, message):
    wrong = change(data[0])
    with pytest.raises(ValueError, match=message):
        estimator(**COVARIATES).train([data[1], wrong])
    with pytest.raises(ValueError, match=message):
        forecast(predictor, [data[1], wrong])


@pytest.mark.parametrize(
    "freq, start, got",
    [
        ("D", pd.Period("2024", "h"), "has a step of 'h'"),
        ("h", pd.Period("2024", "15min"), "has a step of '15min'"),
        ("MS", pd.Period("2024", "Q"), "has a step of 'Q-DEC'"),
        ("h", pd.Timestamp("2024"), r"has Timestamp\(.*\), which has no step"),
        ("60min", pd.Period("2024", "h"), None),
        ("MS", pd.Period("2024", "M"), None),
        ("W", pd.Period("2024", "W-WED"), None),
    ],
    ids=str,
)
def test_the_step_of_the_data_must_be_that_of_the_estimator(freq, start, got):
    entry = {"item_id": "a", "start": start, "target": np.arange(40.0)}
    made = estimator(freq=freq)
    if got is None:
        trained = made.train([entry])
        return np.testing.assert_array_equal(forecast(trained, [entry]).shape, (1, 3, H))
    with pytest.raises(ValueError, match=f"start must be a pandas Period .* freq '{freq}'; item 'a' {got}"):
        made.train([entry])


def test_known_covariates_must_reach_over_the_horizon(data, predictor):
    """For training they may end with the target."""
    short = [d | {"feat_dynamic_real": d["feat_dynamic_real"][:, :-H]} for d in data]
    estimator(**COVARIATES).train(short)
    with pytest.raises(ValueError, match=r"must be \[2, 126\], or longer,; item 's0' has shape \[2, 120\]"):
        forecast(predictor, short)


def test_data_without_a_window_is_refused(data):
    short = [{"start": pd.Period("2024", "h"), "target": np.ones(H)}]
    with pytest.raises(ValueError, match="training_data must have a series longer than prediction_length 6; got none"):
        estimator().train(short)
    with pytest.raises(ValueError, match="validation_data must have a series longer than prediction_length 6"):
        estimator().train(data, short)


def test_one_long_series_among_many_short_ones_is_enough(data):
    """GluonTS gives up after as many series without a window as there are, and its sampler takes none of every
    third.
    """
    short = [{"start": pd.Period("2024", "h"), "target": np.ones(H)}] * 150
    trained = estimator().train([*short, data[0]], [*short, *short, data[0]])
    assert np.isfinite(forecast(trained, data)).all()


def test_samplers_can_be_chosen(data):
    made = estimator(
        train_sampler=NumInstanceSampler(N=1, min_past=50, min_future=H),
        validation_sampler=ValidationSplitSampler(min_future=2 * H),
    )
    series, module = made.create_transformation().apply(data), made.create_lightning_module()
    assert all((batch["past_observed_values"] == 1).all() for batch in made.create_training_data_loader(series, module))
    (batch,) = made.create_validation_data_loader(series, module)
    expected = np.array([d["target"][-2 * H : -H] for d in data])
    np.testing.assert_allclose(batch["future_target"], expected, rtol=1e-6)
