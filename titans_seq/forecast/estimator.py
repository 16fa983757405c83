"""The forecaster as an estimator of GluonTS, for its datasets, predictors and evaluations."""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import lightning as L
import numpy as np
import torch
from gluonts.core.component import validated
from gluonts.dataset.common import Dataset
from gluonts.dataset.field_names import FieldName
from gluonts.dataset.loader import as_stacked_batches
from gluonts.dataset.stat import calculate_dataset_statistics
from gluonts.env import env
from gluonts.itertools import Cached, Cyclic
from gluonts.torch.distributions import Output, StudentTOutput
from gluonts.torch.model.estimator import PyTorchLightningEstimator, TrainOutput
from gluonts.torch.model.predictor import PyTorchPredictor
from gluonts.transform import (
    AddObservedValuesIndicator,
    AddTimeFeatures,
    ExpectedNumInstanceSampler,
    InstanceSampler,
    InstanceSplitter,
    SelectFields,
    TestSplitSampler,
    Transformation,
    ValidationSplitSampler,
    VstackFeatures,
)
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from titans_seq.datamodules.common.errors import at_least
from titans_seq.draws import Draws
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import SimbaForecaster
from titans_seq.forecast.outputs import arguments, make_output, raw_size
from titans_seq.forecast.sampling import SeededSampler, Shuffled
from titans_seq.forecast.series_inputs import CATEGORIES, KNOWN, PAST, STATIC, SeriesInputs, time_features_of
from titans_seq.training import accelerator_of, keeping_best, quiet_training

FEATURES = "features"  # the splitter makes past_features and future_features of it, the network's names
STUDENT_T = StudentTOutput()
TRAINER = {
    "accelerator": "auto", "max_epochs": 100, "gradient_clip_val": 1.0,
    "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip


class TitansLightningModule(ForecastModule):
    """A `ForecastModule` that GluonTS can write to a file and read again: it is made of plain arguments.

    Args:
        network: arguments of `SimbaForecaster`, but for `outputs`, which the distribution decides.
        distr_output: what a forecast is.
        lr: of AdamW, see `TrainedModule`.
        weight_decay: of AdamW.
    """

    @validated()
    def __init__(
        self,
        network: dict[str, Any],
        distr_output: Output = STUDENT_T,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
    ) -> None:
        made = SimbaForecaster(**{"min_scale": 0.0, **network}, outputs=raw_size(distr_output))
        super().__init__(made, output=distr_output, learning_rate=lr, weight_decay=weight_decay)


class TitansEstimator(PyTorchLightningEstimator):
    """Trains the forecaster with the neural memory on a GluonTS dataset; `train(dataset)` gives a GluonTS predictor.

        predictor = TitansEstimator(prediction_length=24, freq="h").train(dataset)
        forecasts = list(predictor.predict(dataset))

    NaN in a target is masked, in training too; series shorter than the context are padded by mask. Covariates are not
    scaled: bring them to a size of about 1, and fill their gaps. The weights are those of the epoch with the lowest
    `val_loss`, or `train_loss` without validation data. Errors in training, and Ctrl-C, are raised.

    Args:
        prediction_length: H, steps to forecast.
        context_length: L, steps the network sees, at least one patch (16); None is the larger of 96 and two horizons.
        freq: pandas alias of the step, which must be that of the data; hour, weekday, ... of the time stamps become
            covariates. None: no such covariates, and any step.
        mixer: a name of `titans_seq.mixers.MIXERS`, or "none".
        network: more options of `SimbaForecaster` and of the mixer, e.g. {"dim": 64, "depth": 3}.
        distr_output: of GluonTS, or of `titans_seq.forecast.outputs`: quantiles, or a distribution that has a density
            over all numbers (Student-t, normal, Laplace, ...) or over counts (negative binomial, Poisson).
        num_feat_dynamic_real: rows of covariates known over the horizon.
        num_past_feat_dynamic_real: rows of covariates known up to now.
        num_feat_static_real: numeric static covariates.
        num_feat_static_cat: categorical static covariates.
        cardinality: number of categories of each categorical one.
        lr: of AdamW; it falls along a cosine over `max_epochs`.
        weight_decay: of AdamW.
        batch_size: of training and prediction.
        num_batches_per_epoch: training batches of an epoch.
        trainer_kwargs: for Lightning's Trainer, on top of max_epochs=100, gradient_clip_val=1.0 and logger=False.
            "enable_progress_bar": True turns the progress bar on, and "enable_model_summary": True the summary and
            Lightning's notices; else nothing is printed. The best weights are kept in the folder checkpoints of a
            "default_root_dir".
        train_sampler: where training windows are cut; by default one per series on average. One of GluonTS's draws from
            NumPy's global generator.
        validation_sampler: the same of validation; by default the end of each series.
        seed: of weights, windows, shuffles and dropout: nothing is drawn from the global generators then, so that
            threads may train side by side. None: from those, as other estimators of GluonTS do.

    Raises:
        ValueError: an argument is wrong.
    """

    @validated()
    def __init__(
        self,
        prediction_length: int,
        context_length: int | None = None,
        freq: str | None = None,
        mixer: str = "memory",
        network: dict[str, Any] | None = None,
        distr_output: Output = STUDENT_T,
        num_feat_dynamic_real: int = 0,
        num_past_feat_dynamic_real: int = 0,
        num_feat_static_real: int = 0,
        num_feat_static_cat: int = 0,
        cardinality: list[int] | None = None,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        batch_size: int = 32,
        num_batches_per_epoch: int = 50,
        trainer_kwargs: dict[str, Any] | None = None,
        train_sampler: InstanceSampler | None = None,
        validation_sampler: InstanceSampler | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(trainer_kwargs=TRAINER | (trainer_kwargs or {}))
        self.prediction_length = prediction_length
        self.context_length = max(96, 2 * prediction_length) if context_length is None else context_length
        self.time_features = [] if freq is None else time_features_of(freq)
        self.freq = freq
        self.mixer, self.network, self.distr_output = mixer, network or {}, distr_output
        self.num_feat_dynamic_real, self.num_past_feat_dynamic_real = num_feat_dynamic_real, num_past_feat_dynamic_real
        self.num_feat_static_real, self.num_feat_static_cat = num_feat_static_real, num_feat_static_cat
        self.cardinality = cardinality or []
        self.lr, self.weight_decay = lr, weight_decay
        self.batch_size, self.num_batches_per_epoch = batch_size, num_batches_per_epoch
        self.seed = seed
        self._check_arguments()
        # a window needs one step to be told the size of the series by
        bounds = {"min_past": 1, "min_future": prediction_length}
        if train_sampler is None and seed is not None:
            train_sampler = SeededSampler(num_instances=1.0, seed=seed, **bounds)
        self.train_sampler = train_sampler or ExpectedNumInstanceSampler(num_instances=1.0, **bounds)
        self.validation_sampler = validation_sampler or ValidationSplitSampler(**bounds)

    def _check_arguments(self) -> None:
        for name in ("prediction_length", "batch_size", "num_batches_per_epoch"):
            at_least(1, **{name: getattr(self, name)})
        for name in ("feat_dynamic_real", "past_feat_dynamic_real", "feat_static_real", "feat_static_cat"):
            at_least(0, **{f"num_{name}": getattr(self, f"num_{name}")})
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0; got {self.weight_decay}")
        if self.seed is not None and (isinstance(self.seed, bool) or not 0 <= self.seed < 2**32):
            raise ValueError(f"seed must be None or a whole number from 0 to 2**32 - 1; got {self.seed!r}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0; got {self.lr}")
        if len(self.cardinality) != self.num_feat_static_cat or min(self.cardinality, default=1) < 1:
            raise ValueError(
                "cardinality must have a number above 0 for each of the "
                f"{self.num_feat_static_cat} num_feat_static_cat; got {self.cardinality}"
            )
        _require_loss(self.distr_output)
        try:
            with torch.device("meta"):  # takes no memory, and leaves the random numbers of the training alone
                self.create_lightning_module()
        except (TypeError, ValueError) as error:
            raise ValueError(
                "context_length, mixer and network must make a forecaster; "
                f"got {self.context_length}, {self.mixer!r} and {self.network}: {error}"
            ) from error

    @classmethod
    def derive_auto_fields(cls, train_iter: Dataset) -> dict[str, Any]:
        """Numbers of covariates and the cardinality, as a dataset has them; for `from_inputs`."""
        stats = calculate_dataset_statistics(train_iter)
        return {
            "num_feat_dynamic_real": stats.num_feat_dynamic_real or 0,
            "num_past_feat_dynamic_real": stats.num_past_feat_dynamic_real or 0,
            "num_feat_static_real": len(stats.feat_static_real),
            "num_feat_static_cat": len(stats.feat_static_cat),
            "cardinality": [int(max(values)) + 1 for values in stats.feat_static_cat],
        }

    # data ------------------------------------------------------------------------------------------------------------

    def create_transformation(self) -> Transformation:
        fields = [FieldName.ITEM_ID, FieldName.INFO, FieldName.START, FieldName.TARGET, KNOWN, PAST, STATIC, CATEGORIES]
        known = [FieldName.FEAT_TIME] * bool(self.time_features) + [KNOWN] * bool(self.num_feat_dynamic_real)
        chain = SelectFields(fields, allow_missing=True) + SeriesInputs(
            prediction_length=self.prediction_length,
            num_feat_dynamic_real=self.num_feat_dynamic_real,
            num_past_feat_dynamic_real=self.num_past_feat_dynamic_real,
            num_feat_static_real=self.num_feat_static_real,
            cardinality=self.cardinality,
            freq=self.freq,
        )
        chain += AddObservedValuesIndicator(FieldName.TARGET, FieldName.OBSERVED_VALUES)
        if self.time_features:
            chain += AddTimeFeatures(
                FieldName.START, FieldName.TARGET, FieldName.FEAT_TIME, self.time_features, self.prediction_length
            )
        return chain + VstackFeatures(FEATURES, known) if known else chain

    def _split(self, sampler: InstanceSampler) -> Transformation:
        """A series -> windows with the network's inputs."""
        known = [FEATURES] * bool(self._known)
        past = [PAST] * bool(self.num_past_feat_dynamic_real)
        split = InstanceSplitter(
            target_field=FieldName.TARGET,
            is_pad_field=FieldName.IS_PAD,
            start_field=FieldName.START,
            forecast_start_field=FieldName.FORECAST_START,
            instance_sampler=sampler,
            past_length=self.context_length,
            future_length=self.prediction_length,
            time_series_fields=[FieldName.OBSERVED_VALUES, *known, *past],
            dummy_value=0.0,  # not the output's value_in_support: it pads the mark of observed steps too
        )
        both = [f"past_{name}" for name in known + past]  # [L, F] and [L, G]
        return split + VstackFeatures("past_features", both, h_stack=True) if past else split

    @property
    def _known(self) -> int:
        return len(self.time_features) + self.num_feat_dynamic_real

    @property
    def _inputs(self) -> list[str]:
        """Names of the network's inputs."""
        return [
            "past_target", "past_observed_values",
            *["past_features"] * bool(self._known + self.num_past_feat_dynamic_real),
            *["future_features"] * bool(self._known),
            *["static_features"] * bool(self.num_feat_static_real + self.num_feat_static_cat),
        ]  # fmt: skip

    def create_training_data_loader(
        self, data: Dataset, module: L.LightningModule, shuffle_buffer_length: int | None = None, **kwargs: Any
    ) -> Iterable:
        # the splitter copies the sampler, which counts what it has seen: a second training draws as the first
        instances = self._split(self.train_sampler).apply(Cyclic(data).stream(), is_train=True)
        if shuffle_buffer_length and self.seed is not None:
            instances, shuffle_buffer_length = Shuffled(instances, shuffle_buffer_length, self.seed), None
        return self._batches(
            instances, num_batches_per_epoch=self.num_batches_per_epoch, shuffle_buffer_length=shuffle_buffer_length
        )

    def create_validation_data_loader(self, data: Dataset, module: L.LightningModule, **kwargs: Any) -> Iterable:
        return self._batches(self._split(self.validation_sampler).apply(data, is_train=True))

    def _batches(self, instances: Dataset, **options: Any) -> Iterable:
        names = [*self._inputs, "future_target", "future_observed_values"]
        return as_stacked_batches(
            instances, batch_size=self.batch_size, field_names=names, output_type=torch.tensor, **options
        )

    # training --------------------------------------------------------------------------------------------------------

    def create_lightning_module(self) -> TitansLightningModule:
        network = dict(
            lookback=self.context_length,
            horizon=self.prediction_length,
            past_features=self._known + self.num_past_feat_dynamic_real,
            future_features=self._known,
            static_features=self.num_feat_static_real + sum(self.cardinality),
            mixer=self.mixer,
            **self.network,
        )
        return TitansLightningModule(
            network=network, distr_output=self.distr_output, lr=self.lr, weight_decay=self.weight_decay
        )

    def create_predictor(self, transformation: Transformation, module: L.LightningModule) -> PyTorchPredictor:
        return PyTorchPredictor(
            input_transform=transformation + self._split(TestSplitSampler()),
            input_names=self._inputs,
            prediction_net=module,
            forecast_generator=self.distr_output.forecast_generator,
            batch_size=self.batch_size,
            prediction_length=self.prediction_length,
            device="auto",
        )

    def train_model(
        self,
        training_data: Dataset,
        validation_data: Dataset | None = None,
        from_predictor: PyTorchPredictor | None = None,
        shuffle_buffer_length: int | None = None,
        cache_data: bool = False,
        ckpt_path: str | None = None,
        **kwargs: Any,
    ) -> TrainOutput:
        """As of the base class, but what training raises is raised, and the callbacks in `trainer_kwargs` stay there.

        Raises:
            ValueError: no series is longer than prediction_length, or a series is wrong.
            Exception: what training raised.
        """
        draws = None if self.seed is None else Draws(self.seed)
        with nullcontext() if draws is None else draws.building():
            transformation, module = self.create_transformation(), self.create_lightning_module()
        if from_predictor is not None:
            module.load_state_dict(from_predictor.network.state_dict())
        validation: Iterable | None = None
        # so many series in a row may give no window before GluonTS gives up: 20 passes, since a sampler that takes one
        # window of a series on average takes none of every third
        with env._let(max_idle_transforms=20 * max(len(training_data), len(validation_data or ()), 5)):
            series = self._series(training_data, "training_data", transformation, cache_data)
            train = self.create_training_data_loader(series, module, shuffle_buffer_length)
            if validation_data is not None:
                series = self._series(validation_data, "validation_data", transformation, cache_data)
                validation = self.create_validation_data_loader(series, module)
        with nullcontext() if draws is None else draws.dropping(module.network):
            trainer = self._fit(module, train, validation, ckpt_path)
        return TrainOutput(transformation, module, trainer, self.create_predictor(transformation, module))

    def _series(self, data: Dataset, name: str, transformation: Transformation, cache: bool) -> Dataset:
        steps = self.prediction_length
        # SeriesInputs says what is wrong with a series
        if not any(np.size(entry.get(FieldName.TARGET, range(steps + 1))) > steps for entry in data):
            raise ValueError(f"{name} must have a series longer than prediction_length {steps}; got none")
        series = transformation.apply(data, is_train=True)
        return Cached(series) if cache else series

    def _fit(
        self, module: L.LightningModule, train: Iterable, validation: Iterable | None, ckpt_path: str | None
    ) -> L.Trainer:
        """Train, and leave the best weights in the module."""
        monitor, in_root = "train_loss" if validation is None else "val_loss", "default_root_dir" in self.trainer_kwargs
        quiet = nullcontext() if self.trainer_kwargs["enable_model_summary"] else quiet_training()
        with quiet, keeping_best(module, monitor, in_root=in_root) as best:
            trainer = self._make_trainer(best)
            trainer.fit(module, train, validation, ckpt_path=ckpt_path)
        return trainer

    def _make_trainer(self, best: ModelCheckpoint) -> L.Trainer:
        options = self.trainer_kwargs | {"accelerator": accelerator_of(self.trainer_kwargs["accelerator"])}
        given = options.pop("callbacks", None) or []
        given = [given] if isinstance(given, Callback) else given
        kept = [] if options.get("enable_checkpointing") is False else [best]
        return L.Trainer(**options, callbacks=[*kept, *given])


def _require_loss(output: Output) -> None:
    """Try the loss of counts on both sides of a mean: only a density over all numbers, or over counts, has it."""
    target, one = torch.arange(4.0)[None], torch.ones(1, 1)
    try:
        loss = make_output(output).loss(target, arguments(output, torch.ones(1, 4, raw_size(output))), 1.5 * one, one)
        if not torch.isfinite(loss).all():
            raise ValueError(f"losses {loss.tolist()}")
    except (ValueError, NotImplementedError) as error:
        raise ValueError(
            "distr_output must have a loss for one number per step that is below or above the mean of the context; "
            f"got {output!r}"
        ) from error
