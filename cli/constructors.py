"""What constructors say of a configuration: options, defaults and types of a section, and the object it makes.

An option of a constructor is a key of its section even where no yaml names it: defaults stand in Python, once.
"""

import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hydra
from hydra.errors import InstantiationException
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict

from titans_seq.cli import registry
from titans_seq.cli.errors import UsageError
from titans_seq.datamodules import DataError
from titans_seq.mixers import MIXERS
from titans_seq.mixers import makers as mixer_makers

CALLBACKS = ("early_stopping", "averaging")  # sections that are each a callback of the trainer
SECTIONS = ("data", "model", "training")  # written in full to RUN/config.yaml; the trainer's dozens of options are not


def complete(config: DictConfig, sections: Sequence[str] = SECTIONS) -> None:
    """Add the constructors' defaults to the sections, in place, so that the record of a run is complete."""
    for section in sections:
        node = config.get(section)
        if node is None:  # a callback that is switched off
            continue
        with open_dict(node):
            for name, default in constructor_options(node).items():
                if name not in list(node):  # `in` says no to a missing value (???)
                    node[name] = default


def constructor_options(section: DictConfig) -> dict[str, Any]:
    """Return options and defaults of the section's `_target_`, with those of the mixer it names."""
    plain = (bool, int, float, str, type(None))
    found: dict[str, Any] = {}
    target = class_of(section)
    for maker in makers(target, section.get("mixer")):
        of_field = {} if maker is target else getattr(target, "mixer_defaults", {})
        for name, parameter in inspect.signature(maker).parameters.items():
            default = of_field.get(name, parameter.default)
            if isinstance(default, tuple):
                default = list(default)
            if isinstance(default, plain) or (isinstance(default, list) and all(isinstance(x, plain) for x in default)):
                found[name] = default
    return found


def hints(target: type, section: Mapping[str, Any]) -> dict[str, Any]:
    """The declared types of a class's options, with those of the mixer that the section names."""
    found: dict[str, Any] = {}
    for maker in makers(target, section.get("mixer")):
        found |= typing.get_type_hints(maker.__init__ if inspect.isclass(maker) else maker)
    return found


def makers(target: type, mixer: object) -> list[Callable[..., Any]]:
    """Return what takes a section's options, the one that decides last: the target after its mixer."""
    known = isinstance(mixer, str) and mixer in MIXERS and hasattr(target, "mixer_defaults")
    return [*(mixer_makers(str(mixer)) if known else []), target]


def class_of(section: DictConfig) -> type:
    """The class of a section's `_target_`: one of ours is looked up, another was named by the user and is imported."""
    name = section._target_
    found = next((cls for group in registry.SECTIONS if (cls := registry.find(name, group)) is not None), None)
    if found is not None:
        return found
    return imported(str(name))


def imported(name: str) -> type:
    """The class that the user named, with its module imported."""
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"no class {name}: {' '.join(str(error).split())}") from None
    if not inspect.isclass(found):
        raise UsageError(f"{name} is not a class")
    return found


# of constructors; RuntimeError: PyTorch has no such device, or no memory for so much
_REFUSALS = (
    ValueError,
    TypeError,
    OverflowError,
    RuntimeError,
    ModuleNotFoundError,
    InstantiationException,
    MisconfigurationException,
)


def build(section: DictConfig, name: str, **objects: Any) -> Any:
    """Make the object of a section; an option that its constructor refuses, or lacks a package for, is a UsageError.

    A class of ours with plain options is called as it is. Anything else the user typed, or named again, and is Hydra's
    to build.
    """
    options = OmegaConf.to_container(section, resolve=True)
    assert isinstance(options, dict)
    known = registry.find(options.pop("_target_", None), name)
    try:
        if known is not None and not _has_special_keys(options):
            return known(**{**options, **objects})
        return hydra.utils.instantiate(section, _convert_="all", _partial_=True)(**objects)
    except _REFUSALS as error:
        if isinstance(error, DataError):
            raise
        raise UsageError(f"{name}: {' '.join(str(error).split())}") from None


def _has_special_keys(node: Any) -> bool:
    """`_target_`, `_partial_` and the like, at any depth."""
    if isinstance(node, dict):
        return any(str(key).startswith("_") or _has_special_keys(value) for key, value in node.items())
    return isinstance(node, list) and any(map(_has_special_keys, node))
