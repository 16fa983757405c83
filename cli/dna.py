"""`titans-seq pretrain|fit dna`: the two DNA tasks, what their runs record and draw."""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from omegaconf import DictConfig
from sklearn.metrics import confusion_matrix

from titans_seq.cli import checkpoints, dna_flags, fitting, recorded, runs
from titans_seq.cli.config import Schema, override, quoted, quoted_path
from titans_seq.cli.constructors import build
from titans_seq.cli.errors import UsageError
from titans_seq.cli.pictures import draw
from titans_seq.cli.tasks import History, Job, Task
from titans_seq.datamodules import DNAClassData, GenomeData
from titans_seq.datamodules.common.files import user_path
from titans_seq.datamodules.genomics.benchmarks import benchmark_folder
from titans_seq.datamodules.genomics.data import classes_of
from titans_seq.datamodules.genomics.intervals import label_by_length
from titans_seq.genomics import DNAClassifier, DNAEncoder, DNALanguageModel, DNAModule, KmerClassifier
from titans_seq.genomics.pictures import plot_confusion, plot_roc
from titans_seq.mixers import MIXERS
from titans_seq.pictures import plot_training
from titans_seq.training import best_device

ENCODER = "network.encoder."  # where a checkpoint has the weights that a classifier can begin with


def _model(name: str) -> list[str]:
    return [f"model={quoted(name.lower())}"]


def _pretrained(path: str) -> list[str]:
    """The encoder of a run, option by option: what is fine-tuned has the shape of what was trained, but may read both
    sides.
    """
    folder, _ = checkpoints.split_checkpoint(user_path(path))
    model = recorded.read_config(folder, PRETRAIN.key).model
    options = {key: value for key, value in model.items() if key not in ("_target_", "mixer", "bidirectional")}
    words = [override(f"model.{key}", value) for key, value in options.items()]
    return [f"pretrained={quoted_path(path)}", override("model", model.mixer), *words]


class PretrainTask(Task):
    """A language model of a genome."""

    verb, name, key = "pretrain", "dna", "dna_lm"
    headline = ("val_bits", "test_bits")
    schema = Schema(
        module="titans_seq.configs.dna",
        name="pretrain",
        flags=dna_flags.PRETRAIN.settings,
        choices={"objective": lambda name: [f"bidirectional={str(name == 'masked').lower()}"], "model": _model},
    )

    def default_folder(self, config: DictConfig) -> Path:
        name = GenomeData(config.data.fasta).dataset_name
        return Path("runs", "dna_lm", f"{name}-{_objective(config)}-{config.model.mixer}-s{config.seed}")

    def check(self, config: DictConfig) -> None:
        if "mixer" not in config.model:
            raise UsageError(f"model=kmer is a classifier; choose one of {', '.join(MIXERS)}")
        if config.data.carry > 1 and config.model.bidirectional:
            raise UsageError("--carry needs --objective next: a masked model reads to the end first and has no stream")
        fitting.check_streams(config)
        if config.data.whole:
            raise UsageError("data.whole leaves nothing to train on; it is for `titans-seq test dna --fasta`")

    def data(
        self, config: DictConfig, stage: str, checkpoint: Mapping[str, Any] | None = None, *, download: bool
    ) -> GenomeData:
        data: GenomeData = build(config.data, "data")
        data.setup(stage)
        return data

    def module(self, config: DictConfig, data: L.LightningDataModule) -> DNAModule:
        return self.restored(config, {})

    def about(self, job: Job) -> dict[str, Any]:
        data = job.data
        assert isinstance(data, GenomeData)
        return {
            "dataset": data.dataset_name,
            "objective": _objective(job.config),
            "model": job.config.model.mixer,
            "seed": job.config.seed,
            "window": data.length,
            "carried_windows": data.carry,
            "split": data.protocol_text,
            "strands": _strands(job),
            **{f"{name}_bases": data.bases(name) for name in data.splits},
        }

    def restored(self, config: DictConfig, checkpoint: Mapping[str, Any]) -> DNAModule:
        """The module of a run, without its data; its weights are yet to be loaded."""
        return build(config.training, "training", network=DNALanguageModel(build(config.model, "model")))

    def title(self, metrics: Mapping[str, Any]) -> str:
        return f"{metrics['dataset']}, {metrics['objective']} base, {metrics['model']}"

    def pictures(self, job: Job, history: History, best_epoch: int, folder: Path) -> list[Path]:
        curves = [("val_bits", "validation, bits per base")]
        return draw(plot_training, history, best_epoch, folder / "training.png", curves=curves)


class ClassifyTask(Task):
    """A classifier of sequences."""

    verb, name, key = "fit", "dna", "dna"
    headline = ("val_mcc", "test_mcc", "test_accuracy")
    schema = Schema(
        module="titans_seq.configs.dna",
        name="fit",
        flags=dna_flags.FIT.settings,
        choices={
            "dataset": lambda name: (
                ["data=embedded"] if name.lower() == "embedded" else ["data=benchmark", f"data.dataset={quoted(name)}"]
            ),
            "model": _model,
            "from": _pretrained,
        },
        exclusive=(("dataset", "csv", "bed"), ("model", "from")),
    )

    def default_folder(self, config: DictConfig) -> Path:
        name = build(config.data, "data").dataset_name
        fold = f"-fold{config.data.fold}" if config.data.folds else ""
        return Path("runs", "dna", f"{name}-{config.model.get('mixer', 'kmer')}-s{config.seed}{fold}")

    def check(self, config: DictConfig) -> None:
        if config.pretrained is not None and "mixer" not in config.model:
            raise UsageError("model=kmer has no encoder; leave --from out")
        if config.data.whole:
            raise UsageError("data.whole leaves nothing to train on; it is for `titans-seq test dna --csv`")

    def at_once(self, config: DictConfig) -> bool:
        return "mixer" not in config.model

    def data(
        self, config: DictConfig, stage: str, checkpoint: Mapping[str, Any] | None = None, *, download: bool
    ) -> DNAClassData:
        known = {} if checkpoint is None else _classes_of(checkpoint)
        data: DNAClassData = build(config.data, "data", **known)
        if download:
            data.prepare_data(quiet=config.quiet)
        elif data.spec is not None and benchmark_folder(data.spec, data.data_root) is None:
            raise fitting.not_here(data.spec.name, data.data_root)
        data.setup(stage)
        require_unstranded(config.training.rc, data.stranded, data.dataset_name)
        return data

    def module(self, config: DictConfig, data: L.LightningDataModule) -> DNAModule:
        return self.restored(config, {DNAClassData.__qualname__: data.state_dict()})

    def restored(self, config: DictConfig, checkpoint: Mapping[str, Any]) -> DNAModule:
        """The module for the classes that a checkpoint names; its weights are yet to be loaded."""
        kept = _classes_of(checkpoint)
        class_names = kept["class_names"]
        if "mixer" in config.model:
            network = DNAClassifier(build(config.model, "model"), class_names)
        else:
            network = build(config.model, "model", class_names=class_names)
        options = {"augment": False} if kept["stranded"] else {}
        return build(config.training, "training", network=network, **options)

    def begin(self, job: Job) -> None:
        if job.config.pretrained is None:
            return
        folder, path = checkpoints.split_checkpoint(Path(job.config.pretrained))
        weights = checkpoints.load_checkpoint(path)["state_dict"]
        weights = {name.removeprefix(ENCODER): value for name, value in weights.items() if name.startswith(ENCODER)}
        try:
            network = _module_of(job).network
            assert isinstance(network, DNAClassifier)
            network.encoder.load_state_dict(_both_sides(weights, network.encoder))
        except RuntimeError:
            raise UsageError(
                f"the encoder in {folder} does not fit the model of its {runs.CONFIG}, or is of another version of "
                "titans-seq"
            ) from None

    def train(self, job: Job, folder: Path, last: Path | None) -> History:
        module = _module_of(job)
        if not isinstance(module.network, KmerClassifier):
            return super().train(job, folder, last)
        assert last is None
        return _fit_at_once(job, module.network, folder)

    def about(self, job: Job) -> dict[str, Any]:
        data, module = _data_of(job), _module_of(job)
        return {
            "dataset": data.dataset_name,
            "model": job.config.model.get("mixer", "kmer"),
            "pretrained": job.config.pretrained or "no",
            "seed": job.config.seed,
            "classes": ", ".join(data.class_names or ()),
            **{f"{name}_sequences": len(rows.tokens) for name, rows in data.splits.items()},
            "split": data.protocol_text,
            "selected_on": _selected_on(data, module),
            "strands": "as given" if data.stranded or _is_baseline(module) else _strands(job),
            **_suspicions(data),
        }

    def title(self, metrics: Mapping[str, Any]) -> str:
        return f"{metrics['dataset']}, {metrics['model']}"

    def pictures(self, job: Job, history: History, best_epoch: int, folder: Path) -> list[Path]:
        curves = [("val_mcc", "validation MCC"), ("val_accuracy", "validation accuracy")]
        drawn = draw_test(job, folder)
        if len(history) < 2:
            return drawn
        return draw(plot_training, history, best_epoch, folder / "training.png", curves=curves) + drawn


PRETRAIN, CLASSIFY = PretrainTask(), ClassifyTask()


def pretrain_command(arguments: argparse.Namespace) -> None:
    """`titans-seq pretrain dna`."""
    given = arguments.fasta or any(word.lstrip("+").startswith("data.fasta=") for word in arguments.overrides)
    if not given and not (arguments.resume and arguments.output):
        raise UsageError("--fasta is missing: the genome to learn, e.g. --fasta genome.fa")
    fitting.fit_command(PRETRAIN, arguments)


def fit_command(arguments: argparse.Namespace) -> None:
    """`titans-seq fit dna`."""
    fitting.fit_command(CLASSIFY, arguments)


def require_unstranded(rc: str | None, stranded: bool, name: str) -> None:
    """Refuse to average over strands where the class belongs to one of them."""
    if stranded and rc == "average":
        raise UsageError(f"{name} is stranded: the other strand is another class; leave --rc average out")


def _classes_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `DNAClassData` that make it like that of a checkpoint."""
    names, stranded = classes_of(checkpoint.get(DNAClassData.__qualname__))
    return {"class_names": names, "stranded": stranded}


def _objective(config: DictConfig) -> str:
    return "masked" if config.model.bidirectional else "next"


def _is_baseline(module: DNAModule) -> bool:
    return isinstance(module.network, KmerClassifier)


def _selected_on(data: DNAClassData, module: DNAModule) -> str:
    if _is_baseline(module):
        return "nothing"
    return f"{module.monitor}, of the test split" if data.protocol == "hyena_testselect" else module.monitor


def _both_sides(weights: dict[str, torch.Tensor], encoder: DNAEncoder) -> dict[str, torch.Tensor]:
    """Weights of a causal encoder for one that reads both sides: its second reader begins as a copy of the first."""
    copies = {name.replace(".mixer.", ".backward_mixer.", 1): value for name, value in weights.items()}
    wanted = encoder.state_dict().keys() - weights.keys()
    return weights | {name: copies[name] for name in wanted if name in copies}


def _strands(job: Job) -> str:
    module = _module_of(job)
    return f"augment {module.augment}, rc {module.rc}".lower()


def _module_of(job: Job) -> DNAModule:
    assert isinstance(job.module, DNAModule)
    return job.module


def _data_of(job: Job) -> DNAClassData:
    assert isinstance(job.data, DNAClassData)
    return job.data


def _fit_at_once(job: Job, network: KmerClassifier, folder: Path) -> History:
    """Fit the baseline, keep it as a checkpoint, and return its one row."""
    data, module, trainer = _data_of(job), _module_of(job), job.trainer
    start = time.perf_counter()
    network.fit(data.splits["train"].tokens, data.splits["train"].labels)
    seconds = time.perf_counter() - start
    validated = trainer.validate(module, datamodule=data, verbose=False)[0]
    (folder / runs.CHECKPOINTS).mkdir(exist_ok=True)
    for name in (runs.BEST, runs.LAST):
        trainer.save_checkpoint(folder / runs.CHECKPOINTS / name)
    return [{"epoch": 0, "train_loss": 0.0, **validated, "seconds": seconds}]


def _suspicions(data: DNAClassData) -> dict[str, Any]:
    """What a reader should know before believing the score."""
    if "train" not in data.splits:
        return {}
    found: dict[str, Any] = {"test_sequences_in_train": data.leak()}
    train, test = data.splits["train"], data.splits["test"]
    if len(np.unique(train.lengths)) > 1:
        guesses = label_by_length(train.lengths, train.labels, test.lengths)
        found["length_only_accuracy"] = float((guesses == test.labels).mean())
    return found


def on_device(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch where models are."""
    return {name: value.to(best_device()) for name, value in batch.items()}


@torch.inference_mode()
def test_probabilities(job: Job) -> np.ndarray:
    """Probabilities [S, N] of the test split, in its order."""
    module = _module_of(job).eval().to(best_device())
    batches = (on_device(batch) for batch in _data_of(job).test_dataloader())
    return torch.cat([module(batch).cpu() for batch in batches]).double().numpy()


def draw_test(job: Job, folder: Path) -> list[Path]:
    """Draw confusion.png and roc.png of the test split."""
    data = _data_of(job)
    test, title = data.splits["test"], f"test split of {data.dataset_name}"
    probabilities = test_probabilities(job)
    classes = range(len(test.class_names))
    matrix = confusion_matrix(test.labels, probabilities.argmax(axis=1), labels=list(classes))
    made = draw(plot_confusion, matrix, test.class_names, folder / "confusion.png", title=title)
    return made + draw(plot_roc, test.labels, probabilities, test.class_names, folder / "roc.png", title=title)


def task_of(config: DictConfig) -> PretrainTask | ClassifyTask:
    """Which of the two tasks made the run."""
    return PRETRAIN if config.task == PRETRAIN.key else CLASSIFY
