"""From flags and KEY=VALUE words to one configuration, by Hydra. Everything below gets plain arguments."""

import argparse
import difflib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from titans_seq.cli import bounds
from titans_seq.cli.constructors import CALLBACKS, SECTIONS, class_of, complete, hints
from titans_seq.cli.errors import UsageError
from titans_seq.cli.flags import Flag
from titans_seq.datamodules.common.files import user_path

_OPTIONAL = (*CALLBACKS, "experiment")
GROUPS = ("data", "model", "trainer", "experiment")


@dataclass(frozen=True)
class Schema:
    """Where the configuration of a command comes from.

    module, name: package and name of its main yaml, whose groups lie beside it.
    flags: those that set keys, by their attribute of the arguments.
    choices: flags whose value is more than that of a key -> the overrides they stand for.
    exclusive: groups of flags of which at most one may be given.
    """

    module: str
    name: str
    flags: Mapping[str, Flag]
    choices: Mapping[str, Callable[[str], list[str]]] = field(default_factory=dict)
    exclusive: tuple[tuple[str, ...], ...] = ()


def overrides_of(schema: Schema, arguments: argparse.Namespace) -> list[str]:
    """Return flags and KEY=VALUE words as Hydra overrides; the same key twice is a UsageError."""
    words = list(arguments.overrides)
    typed = [override.key_or_group for override in parse(words)]
    for key in typed:
        if typed.count(key) > 1:
            raise UsageError(f"{key} is given twice; give it once")
    for names in schema.exclusive:
        given = [schema.flags[name].written for name in names if getattr(arguments, name)]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other; give one")
    for name, flag in schema.flags.items():
        value = getattr(arguments, name)
        if value is None or value is False:  # `in` would take seed 0 for False
            continue
        clash = _first_key(flag.keys, typed)
        if clash:
            raise UsageError(f"{clash} is set by {flag.written} and by an override; give one of the two")
        made = schema.choices[name](value) if name in schema.choices else _overrides(flag, value)
        clash = _first_key(made, typed)
        if clash:
            raise UsageError(f"{clash} is decided by {flag.written} {value}; drop the override")
        words += made
    return words


def _first_key(words: Sequence[str], typed: Sequence[str]) -> str | None:
    return next((key for key in (word.split("=")[0] for word in words) if key in typed), None)


def _overrides(flag: Flag, value: Any) -> list[str]:
    """What a flag stands for: its keys with values of their own, and the first other key with the flag's value."""
    fixed = [key for key in flag.keys if "=" in key]
    free = [key for key in flag.keys if "=" not in key][:1]
    return fixed + [f"{key}={quoted_path(value)}" if flag.is_input else override(key, value) for key in free]


def override(key: str, value: Any) -> str:
    """Return `key=value` as Hydra reads it back: a text, also one in a list, is a text, whatever stands in it.

    A mapping holds numbers.
    """
    if value is None:
        value = "null"
    elif isinstance(value, str):
        value = quoted(value)
    elif isinstance(value, list):
        value = f"[{','.join(map(quoted, value))}]"
    elif isinstance(value, dict):
        value = f"{{{','.join(f'{name}:{number}' for name, number in value.items())}}}"
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def quoted_path(text: str) -> str:
    """Return a path as a value in an override: absolute, so that the run can be tested from anywhere."""
    return quoted(str(user_path(text).absolute()))


def quoted(text: str) -> str:
    """Return any text as a value in an override."""
    return QuotedString(text, Quote.single).with_quotes()


def compose(schema: Schema, overrides: Sequence[str]) -> DictConfig:
    """Return the complete, resolved configuration of one run; what does not fit is a UsageError that names the key."""
    with _hydra(schema):
        config = _composed(schema, checked(schema, overrides))
    complete(config)
    return resolved(config)


def resolved(config: DictConfig) -> DictConfig:
    """Return the configuration without interpolations."""
    try:
        config = OmegaConf.create(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore
    except MissingMandatoryValue as error:
        raise UsageError(f"{error.full_key} must be given: {error.full_key}=...") from None
    except OmegaConfBaseException as error:
        raise UsageError(str(error).splitlines()[0]) from None
    if not 0 <= config.seed < 2**32:
        raise UsageError(f"seed must be between 0 and 2**32 - 1; got {config.seed}")
    return config


def compose_sweep(schema: Schema, overrides: Sequence[str]) -> tuple[list[str], list[DictConfig]]:
    """Return the overrides as Hydra's multirun takes them, and the configuration of every job they make.

    Sweeps that only a plugin can unroll (intervals) count as one job, at their start.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    with _hydra(schema):
        parsed = parse(overrides)
        discrete = [override for override in parsed if not override.is_interval_sweep()]
        jobs = BasicSweeper.split_arguments(discrete, None)[0]
        configs = []
        for job in jobs:
            config = _composed(schema, [word for word in checked(schema, job) if not word.startswith("hydra")])
            complete(config)
            configs.append(resolved(config))
        prefix = {_bare(word).split("=")[0]: word[: len(word) - len(_bare(word))] for word in checked(schema, jobs[0])}
    return [prefix.get(_bare(word).split("=")[0], "") + _bare(word) for word in overrides], configs


def _bare(word: str) -> str:
    return word.lstrip("+")


@contextmanager
def _hydra(schema: Schema) -> Iterator[None]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_module(schema.module, version_base="1.3"):
        yield


def _composed(schema: Schema, overrides: Sequence[str]) -> DictConfig:
    try:
        return hydra.compose(schema.name, overrides=list(overrides))
    except HydraException as error:
        cause = f": {error.__cause__}" if error.__cause__ is not None else ""
        raise UsageError(f"{error}{cause}".splitlines()[0]) from None


def checked(schema: Schema, overrides: Sequence[str]) -> list[str]:
    """Return the overrides with "++" before constructor options that no yaml names.

    Unknown groups, options and keys, and values of another type than the default's, are UsageErrors. Words with a
    prefix of their own (+, ++, ~) are passed on as they are.
    """
    parsed = parse(overrides)
    groups = {group: options(schema, group) for group in GROUPS}
    for override in parsed:
        _check_group(override, groups)
    start = _composed(schema, [_line(o) for o in parsed if o.key_or_group in groups])
    plain = [o for o in parsed if _is_plain(o, groups)]
    for override in parsed:
        _check_place(override, start)
    named = [o for o in plain if _has(start, o.key_or_group)]
    known = _composed(
        schema, [_line(o) for o in parsed if o not in plain or o in named]
    )  # with the mixer that was asked for
    complete(known, (*SECTIONS, "trainer", *CALLBACKS))
    for override in plain:
        _check_key(override, known, start)
    return [_line(o) if o not in plain or o in named else f"++{_line(o)}" for o in parsed]


def _line(override: Override) -> str:
    assert override.input_line is not None
    return override.input_line


def options(schema: Schema, group: str) -> list[str]:
    """Return the choices of a config group; names with an underscore in front are parts, not choices."""
    found = GlobalHydra.instance().config_loader().get_group_options(group, config_name=schema.name)
    return [name for name in found if not name.startswith("_")]


def parse(words: Sequence[str]) -> list[Override]:
    """Words as Hydra reads them; one that is none is a UsageError."""
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise UsageError(str(error).splitlines()[0]) from None
    except RecursionError:
        raise UsageError("an override is nested too deeply") from None


def _is_plain(override: Override, groups: dict[str, list[str]]) -> bool:
    prefixed = override.is_add() or override.is_force_add() or override.is_delete()
    key = override.key_or_group
    return not prefixed and key not in groups and key.split(".")[0].split("/")[0] != "hydra"


def _check_group(override: Override, groups: dict[str, list[str]]) -> None:
    group = override.key_or_group
    value = None if override.is_delete() else override.value()
    if override.is_delete() and "." not in group and group not in _OPTIONAL:
        raise UsageError(f"~{group}: only {', '.join(_OPTIONAL)} can be left out")
    if group not in groups or (value is None and group in _OPTIONAL):
        return
    if isinstance(value, str) and value in groups[group]:
        return
    raise UsageError(f"unknown {group}={value}{nearest(str(value), groups[group])}")


def _check_key(override: Override, known: DictConfig, start: DictConfig) -> None:
    key = override.key_or_group
    if not _has(known, key):
        raise UsageError(f"unknown override {key!r}{nearest(key, list(_keys(known)))}")
    values, hint = _values(override), _hint(known, start, key)
    if hint is DictConfig:
        if key in CALLBACKS and values == [None]:  # switched off
            return
        raise UsageError(f"{key} is a section; set one of its keys{nearest(key, list(_keys(known)))}")
    for one in values:
        if not _fits(one, hint):
            raise UsageError(f"{key} must be {_named(hint)}; got {one!r}")
        bounds.require_most(key, one)


def _check_place(override: Override, start: DictConfig) -> None:
    """Refuse to set the task or a whole section: Hydra ends in errors of its own there."""
    key = override.key_or_group
    if key in ("task", "version"):
        raise UsageError(f"{key} is decided by the command; drop the override")
    is_section = key in ("hydra", *SECTIONS, "trainer", *CALLBACKS)
    if not is_section or override.is_delete() or key in GROUPS or _values(override) == [None]:
        return
    switched_off = key in CALLBACKS and start.get(key) is None
    if not (switched_off and all(isinstance(value, dict) and "_target_" in value for value in _values(override))):
        known = [each for each in _keys(start) if each != key]
        raise UsageError(f"{key} is a section; set one of its keys{nearest(key, known)}")


def _values(override: Override) -> list[Any]:
    """The value, or those of a sweep."""
    value = override.value()
    value = value.text if isinstance(value, QuotedString) else value
    return list(value.list) if isinstance(value, ChoiceSweep) else [value]


def _hint(known: DictConfig, start: DictConfig, key: str) -> Any:
    """Return the type of a key: as its constructor declares it, or that of its default."""
    section, _, name = key.rpartition(".")
    if section in known and "_target_" in known[section]:
        declared = hints(class_of(known[section]), known[section])
        if name in declared:
            return declared[name]
    default = OmegaConf.select(start, key)
    return type(default) if default is not None else Any


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a simple type; hints that are not simple are left to the constructor."""
    kinds = _kinds(hint)
    if not all(kind in (bool, int, float, str, type(None)) for kind in kinds):
        return True
    if isinstance(value, bool) or value is None:
        return type(value) in kinds
    return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)


def _named(hint: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    return " or ".join(words[kind] for kind in _kinds(hint))


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _has(config: DictConfig, key: str) -> bool:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in list(node):  # `in` says no to a missing value (???)
            return False
        node = node._get_node(part)
    return True


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, config):
        node = config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _keys(node, f"{prefix}{name}.")
        elif not name.startswith("_"):
            yield f"{prefix}{name}"


def nearest(word: str, known: Sequence[str]) -> str:
    # a key is mostly misspelt in its last part: `model.dept`, or written without its section: `dim`
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    near += [name for name in known if name.split(".")[-1] == word.split(".")[-1]][:1]
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}" if len(known) <= 12 else "; RUN/config.yaml of any run shows all keys"
