"""Every config is composed and every object in it built; the files of the groups are all there is."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig

from titans_seq import __version__
from titans_seq.building import build_on_meta
from titans_seq.cli.config import compose
from titans_seq.cli.constructors import build
from titans_seq.cli.dna import CLASSIFY, PRETRAIN
from titans_seq.cli.forecast import FORECAST
from titans_seq.cli.lm import FIT as LANGUAGE
from titans_seq.cli.lm import SIZES, size_overrides
from titans_seq.cli.recorded import read_config
from titans_seq.cli.runs import write_config
from titans_seq.datamodules import (
    DNAClassData,
    ForecastDataModule,
    GenomeData,
    LongContextData,
    TextData,
    list_datasets,
)
from titans_seq.forecast import ForecastModule, SimbaForecaster
from titans_seq.forecast.outputs import make_output, raw_size
from titans_seq.genomics import DNAEncoder, DNAModule, KmerClassifier
from titans_seq.language import VARIANTS, LanguageModel, LanguageModule
from titans_seq.mixers import MIXERS, WITH_MEMORY

CONFIGS = Path(__file__).parents[2] / "configs"
GROUPS = ("data", "model", "trainer", "experiment")
TASKS = ("forecast", "dna", "lm")
# what a choice needs to be complete
NEEDS = {
    "csv": ["data.csv=x.csv"],
    "benchmark": ["data.dataset=human_nontata_promoters"],
    "bed": ["data.bed=x.bed", "data.fasta=x.fa"],
    "fasta": ["data.fasta=x.fa"],
    "text": ["data.text=x.txt"],
    "task": ["data.task=passkey"],
}
ALWAYS = {FORECAST: [], CLASSIFY: [], PRETRAIN: ["data.fasta=x.fa"], LANGUAGE: ["data.text=x.txt"]}
ONLY = {"fasta": PRETRAIN, "kmer": CLASSIFY, **dict.fromkeys(("csv", "benchmark", "bed", "embedded"), CLASSIFY)}


def _choices(task: str, group: str) -> list[str]:
    """Of the task's own group, and of that which all tasks share."""
    paths = [path for folder in (CONFIGS / task, CONFIGS) for path in (folder / group).glob("*.yaml")]
    return sorted({path.stem for path in paths if not path.stem.startswith("_")})


def _cases() -> Iterator[Any]:
    for task, folder in ((FORECAST, "forecast"), (CLASSIFY, "dna"), (PRETRAIN, "dna"), (LANGUAGE, "lm")):
        for group in GROUPS:
            for name in _choices(folder, group):
                if folder != "dna" or ONLY.get(name, task) is task:
                    yield pytest.param(task, group, name, id=f"{task.key} {group}={name}")


def _config(task: Any, group: str, name: str) -> DictConfig:
    return compose(task.schema, [f"{group}={name}", *(NEEDS.get(name) or ALWAYS[task])])


@pytest.mark.parametrize(("task", "group", "name"), list(_cases()))
def test_every_choice_is_composed_and_built(task: Any, group: str, name: str) -> None:
    config = _config(task, group, name)
    data, network = build(config.data, "data"), _network(config)
    assert isinstance(data, LightningDataModule)
    if task is FORECAST:
        assert isinstance(data, ForecastDataModule) and isinstance(network, SimbaForecaster)
        assert (network.lookback, network.horizon) == (config.data.lookback, config.data.horizon)
        assert isinstance(build(config.training, "training", network=network), ForecastModule)
    elif task is LANGUAGE:
        assert isinstance(data, LongContextData if name == "task" else TextData)
        assert isinstance(network, LanguageModel)
        assert isinstance(build(config.training, "training", network=network), LanguageModule)
    else:
        assert isinstance(data, GenomeData if task is PRETRAIN else DNAClassData)
        assert isinstance(network, KmerClassifier if name == "kmer" else DNAEncoder)
        if name != "kmer":
            assert network.bidirectional == (task is CLASSIFY)
    if config.model.get("mixer") in WITH_MEMORY:
        assert (config.model.theta_start, config.model.theta_scale) == (1, 4)
    if config.early_stopping is not None:
        assert isinstance(build(config.early_stopping, "early_stopping"), EarlyStopping)
    trainer = build(config.trainer, "trainer", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    assert isinstance(trainer, Trainer) and trainer.max_epochs == config.trainer.max_epochs


def _network(config: DictConfig) -> Any:
    given: dict[str, Any] = {}
    if config.model._target_.endswith("KmerClassifier"):
        given = {"class_names": ("a", "b")}
    if config.model._target_.endswith("LanguageModel"):
        given = {"vocabulary": 256}
    if config.model._target_.endswith("SimbaForecaster"):
        given = {"outputs": raw_size(make_output(config.training.output))}
    return build(config.model, "model", **given)


def _read_back(config: DictConfig, folder: Path) -> DictConfig:
    """The configuration as the record of a run in a folder, which also names the version."""
    write_config(folder, config)
    recorded = read_config(folder, config.task)
    assert recorded.pop("version") == __version__
    return recorded


@pytest.mark.parametrize(("task", "group", "name"), list(_cases()))
def test_every_choice_is_read_back_from_its_run(task: Any, group: str, name: str, tmp_path: Path) -> None:
    config = _config(task, group, name)
    assert _read_back(config, tmp_path) == config


# what users type: each is part of a run's record, and read back from it
TYPED = """
averaging=null
~early_stopping
averaging.decay=0.9
averaging.device=cpu
early_stopping.min_delta=-1
early_stopping.patience=100000
early_stopping._target_=lightning.pytorch.callbacks.early_stopping.EarlyStopping
averaging._target_=lightning.pytorch.callbacks.StochasticWeightAveraging ~averaging.decay +averaging.swa_lrs=[0.1,0.2]
+note=first
trainer.precision=bf16-mixed
trainer.precision=16
trainer.limit_train_batches=0.5
trainer.devices=[0,1]
trainer.devices=-1
trainer.devices=auto
trainer.gradient_clip_val=null
trainer.max_epochs=100000
trainer.max_epochs=-1
trainer.strategy=ddp
trainer.accelerator=cpu
trainer.max_time='00:01:00:00'
+trainer.max_time={hours:1}
trainer.deterministic=warn
trainer.benchmark=true
trainer.profiler=simple
trainer.overfit_batches=3
trainer.log_every_n_steps=1
trainer.accumulate_grad_batches=32
training.learning_rate=1e-7
training.output=mae
model.max_surprise=null
model.head_dim=16
model.theta_scale=8
model.blocks=12
model=ssm model.states=64
model=attention model.heads=8
model=gated_deltanet model.conv_size=2
seed=4294967295
data.lookback=720
data.num_workers=4
data=csv data.csv='/data/[x] {y}.csv'
data=csv data.csv='ü.csv'
output='a b/c: d #e'
output='0123'
output='1e3'
output=null
""".strip().splitlines()
OF_DNA = ["data=csv data.csv=x.csv data.folds=5 data.fold=4", "data.class_names=[a,b]", "training.rc=average"]
OF_GENOMES = ["data.val_records=[chr8,chr9] data.test_records=[chr10]", "data.bed=x.bed", "model=mac model.segment=16"]
OF_TEXT = ["model=mag model.window=128", "data.vocab_size=4096", "data=task data.task=passkey", "model.qk_norm=true"]
AVERAGED = "averaging={_target_:lightning.pytorch.callbacks.EMAWeightAveraging,decay:0.99}"


@pytest.mark.parametrize(
    ("task", "words"),
    [
        *((FORECAST, words) for words in TYPED),
        *((CLASSIFY, words) for words in OF_DNA),
        *((PRETRAIN, f"data.fasta=x.fa {words}") for words in [*OF_GENOMES, AVERAGED]),
        *((LANGUAGE, words if "task" in words else f"data.text=x.txt {words}") for words in [*OF_TEXT, AVERAGED]),
    ],
    ids=lambda value: value if isinstance(value, str) else value.key,
)
def test_what_users_type_is_read_back_from_its_run(task: Any, words: str, tmp_path: Path) -> None:
    config = compose(task.schema, re.findall(r"(?:[^ ']|'[^']*')+", words))
    assert _read_back(config, tmp_path) == config


def test_the_dna_module_is_built() -> None:
    config = compose(CLASSIFY.schema, ["model=kmer", "training.rc=average"])
    module = build(config.training, "training", network=_network(config))
    assert isinstance(module, DNAModule) and module.rc == "average"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_sizes_of_the_paper(variant: str, size: str, tmp_path: Path) -> None:
    config = compose(
        LANGUAGE.schema, ["data.text=x.txt", f"model={variant}", "experiment=paper", *size_overrides(variant, size)]
    )
    assert _read_back(config, tmp_path) == config
    options = {key: value for key, value in config.model.items() if key != "_target_"}
    assert options["mixer"] == VARIANTS[variant]
    assert options.get("theta_start") == (None if variant == "transformer" else 1)
    made = build_on_meta(lambda: LanguageModel(32_000, **options))
    count = sum(parameter.numel() for parameter in made.parameters())
    assert count == pytest.approx(int(size[:-1]) * 1e6, rel=0.03)
    tokens = config.data.length * config.data.batch_size * config.trainer.accumulate_grad_batches
    assert (tokens, config.training.learning_rate, config.training.weight_decay) == (2**19, 4e-4, 0.1)


def test_every_yaml_is_in_a_group_or_named() -> None:
    """No file that the tests above do not see."""
    found = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    parts = {"forecast/fit.yaml", "forecast/data/_base.yaml", "lightning/forecast.yaml"}
    parts |= {"dna/fit.yaml", "dna/pretrain.yaml", "dna/data/_classes.yaml", "lm/fit.yaml"}
    parts |= {f"{task}/model/_base.yaml" for task in TASKS}
    parts |= {f"{folder}model/_memory.yaml" for folder in ("", "dna/", "lm/")}
    choices = {f"{task}/{group}/{name}.yaml" for task in TASKS for group in GROUPS for name in _choices(task, group)}
    assert parts <= found <= parts | choices | {f"model/{name}.yaml" for name in MIXERS}


def test_every_data_set_and_mixer_has_a_config() -> None:
    names = _choices("forecast", "data")
    assert set(names) == {info.name.lower() for info in list_datasets()} | {"embedded", "csv"}
    assert {info.name for info in list_datasets()} <= {_config(FORECAST, "data", name).data.dataset for name in names}
    assert {path.stem for path in (CONFIGS / "model").glob("[!_]*.yaml")} == set(MIXERS)  # once, for all fields
    for task in (FORECAST, CLASSIFY, LANGUAGE):
        assert all(_config(task, "model", name).model.mixer == name for name in MIXERS)
    assert _choices("forecast", "model") == sorted([*MIXERS, "none"])
    assert _choices("dna", "model") == sorted([*MIXERS, "kmer"])
    assert set(_choices("lm", "model")) == set(MIXERS) | set(VARIANTS)
    assert all(_config(LANGUAGE, "model", name).model.mixer == mixer for name, mixer in VARIANTS.items())


@pytest.mark.parametrize("name", _choices("forecast", "experiment"))
def test_every_experiment_changes_what_it_names(name: str) -> None:
    changed = yaml.safe_load((CONFIGS / "forecast" / "experiment" / f"{name}.yaml").read_text())
    changed.pop("defaults", None)
    config, plain = compose(FORECAST.schema, [f"experiment={name}"]), compose(FORECAST.schema, [])
    for section, options in changed.items():
        for key, value in options.items():
            assert config[section][key] == value != plain[section][key]


def _sections(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a `_target_` below a node."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for child in node.values():
            yield from _sections(child)


def test_yaml_repeats_no_default() -> None:
    """Python has the defaults: a yaml names an option only to change it, or to tie two together."""
    seen = 0
    for path in CONFIGS.rglob("*.yaml"):
        for section in _sections(yaml.safe_load(path.read_text())):
            defaults = inspect.signature(hydra.utils.get_object(section["_target_"])).parameters
            for key in section.keys() - {"_target_"}:
                seen += 1
                assert section[key] != defaults[key].default, f"{path.name}: {key} is the default"
    assert seen > 5
