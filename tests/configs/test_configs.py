"""Every config is composed and every object in it built; the files of the groups are all there is."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig

from titans_seq.cli.config import build, compose
from titans_seq.datamodules import ForecastDataModule, list_datasets
from titans_seq.forecast import MIXERS, ForecastModule, SimbaForecaster

CONFIGS = Path(__file__).parents[2] / "configs"
GROUPS = ("data", "model", "trainer", "experiment")


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml") if not path.stem.startswith("_"))


ALL = [(group, name) for group in GROUPS for name in _choices(group)]


def _config(group: str, name: str) -> DictConfig:
    return compose([f"{group}={name}", *(["data.csv=x.csv"] if name == "csv" else [])])


@pytest.mark.parametrize(("group", "name"), ALL, ids=[f"{group}={name}" for group, name in ALL])
def test_every_choice_is_composed_and_built(group: str, name: str) -> None:
    config = _config(group, name)
    network = build(config.model, "model")
    assert isinstance(network, SimbaForecaster)
    assert (network.lookback, network.horizon) == (config.data.lookback, config.data.horizon)
    assert isinstance(build(config.data, "data"), ForecastDataModule)
    assert isinstance(build(config.training, "training", network=network), ForecastModule)
    assert isinstance(build(config.early_stopping, "early_stopping"), EarlyStopping)
    trainer = build(config.trainer, "trainer", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    assert isinstance(trainer, Trainer) and trainer.max_epochs == config.trainer.max_epochs


def test_every_yaml_is_in_a_group_or_named() -> None:
    """No file that the test above does not see."""
    found = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    parts = {"forecast.yaml", "lightning/forecast.yaml", "data/_base.yaml", "model/_base.yaml"}
    assert found == parts | {f"{group}/{name}.yaml" for group, name in ALL}


def test_every_data_set_and_mixer_has_a_config() -> None:
    assert set(_choices("data")) == {info.name.lower() for info in list_datasets()} | {"embedded", "csv"}
    assert {info.name for info in list_datasets()} <= {_config("data", name).data.dataset for name in _choices("data")}
    assert _choices("model") == sorted(MIXERS)
    assert all(_config("model", name).model.mixer == name for name in MIXERS)


@pytest.mark.parametrize("name", _choices("experiment"))
def test_every_experiment_changes_what_it_names(name: str) -> None:
    changed = yaml.safe_load((CONFIGS / "experiment" / f"{name}.yaml").read_text())
    changed.pop("defaults", None)
    config, plain = compose([f"experiment={name}"]), compose([])
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
