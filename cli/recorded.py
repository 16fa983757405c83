"""The `config.yaml` of a run folder, which may come from anywhere: it is checked in full before anything is built.

It can only say what a run of ours can be: the classes of the registry, each at the top of its section, with plain
arguments of their constructors. Nothing it names is imported, and no text in it is resolved.
"""

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import QuotedString
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from titans_seq import __version__
from titans_seq.cli import registry, runs
from titans_seq.cli.bounds import brief, require, require_batches
from titans_seq.cli.config import nearest, parse
from titans_seq.cli.constructors import CALLBACKS, complete, hints, imported, makers
from titans_seq.cli.errors import UsageError

MOST_BYTES = 2**17
MOST_NODES = 10_000
DEEPEST = 8  # mappings and lists in each other; ours are two deep
LONGEST = 4096  # letters of a text: a path
TARGET = "_target_"

# what `task:` says of a run
KINDS = {
    "forecast": "a forecaster (titans-seq fit forecast)",
    "dna": "a DNA classifier (titans-seq fit dna)",
    "dna_lm": "a DNA language model (titans-seq pretrain dna)",
    "lm": "a language model of text (titans-seq fit lm)",
}
# keys beside the sections, with their types
_TOP: dict[str, Any] = {"task": str, "seed": int, "output": str | None, "quiet": bool}
_MORE: dict[str, dict[str, Any]] = {
    "forecast": {"seeds": int},
    "dna": {"bidirectional": bool, "pretrained": str | None},
    "dna_lm": {"bidirectional": bool},
}
_FIRST = "0.1.0"  # its runs name no version
_CLOSED = {("forecast", "0.1.0")}  # tasks and versions of runs that no later version opens
_GIVEN = ("network", "class_names", "vocabulary")  # to constructors, by the commands


def read_config(folder: Path, *tasks: str, trust: Collection[str] = ()) -> DictConfig:
    """Return the configuration of a run of one of these tasks; anything else is a UsageError.

    trust: classes that are none of ours and that the user named on the command line.
    """
    path = folder / runs.CONFIG
    if not folder.exists():
        raise UsageError(f"no run folder {folder}: nothing was started there")
    if not path.is_file():
        raise UsageError(f"{folder} is not a run folder: it has no {runs.CONFIG}")
    try:
        config = _parsed(_text(path))
    except UsageError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    values: dict[Any, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    task = values.get("task")
    if task not in tasks:
        what = KINDS.get(str(task), f"a run of an unknown task {brief(task)}")
        raise UsageError(f"{folder} holds {what}; this needs {' or '.join(KINDS[each] for each in tasks)}")
    version = values.get("version", _FIRST)
    try:
        require("version", version, str)
        if (task, version) in _CLOSED:
            raise UsageError("the network has changed since; train again, or install that version")
        _check(values, trust)
    except UsageError as error:
        other = other_version(values)
        made = f" was made by titans-seq {other}; this is {__version__}" if other else ""
        raise UsageError(f"{path}{made}: {error}") from None
    complete(config)
    return config


def other_version(values: Mapping[Any, Any]) -> str | None:
    """Return the version of titans-seq that made the run of a configuration; None: this one."""
    made_by = values.get("version", _FIRST)
    return None if made_by == __version__ else brief(made_by).strip("'")


def require_readable(config: DictConfig) -> None:
    """Refuse a configuration that `read_config` would refuse, with every class trusted that it names: users typed it.

    Otherwise a run could be trained and not be opened again.
    """
    text = OmegaConf.to_yaml(config)
    try:
        _require_short(text.encode())
        values: dict[Any, Any] = OmegaConf.to_container(_parsed(text))  # type: ignore[assignment]
    except UsageError as error:
        raise UsageError(f"the {runs.CONFIG} of this run could not be read again: {error}") from None
    _check(values, named_again(sorted(_targets(None, values))))


def named_again(trust: Sequence[str], overrides: Sequence[str] = ()) -> set[str]:
    """The classes that the user named on this command line: by --trust, or as a `_target_` in an override."""
    for name in trust:
        imported(name)
    typed = [(override.key_or_group, override.value()) for override in parse(overrides) if not override.is_delete()]
    return {*trust, *(name for key, value in typed for name in _targets(key.rpartition(".")[2], value))}


def _targets(key: object, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping | list):
        pairs = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
        for inner, item in pairs:
            yield from _targets(inner, item)
    elif _plain(key) == TARGET:
        yield str(_plain(value))


def _plain(value: object) -> object:
    return value.text if isinstance(value, QuotedString) else value


# the text ------------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{error.strerror}") from None
    _require_short(content)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 text (byte {error.start})") from None


def _require_short(content: bytes) -> None:
    if len(content) > MOST_BYTES:
        raise UsageError(f"it has more than {MOST_BYTES:,} bytes")


def _parsed(text: str) -> DictConfig:
    try:
        _scan(text)
        config = OmegaConf.create(text)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UsageError(f"{line}{brief(error.problem)[1:-1]}") from None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UsageError(brief(" ".join(str(error).split()))[1:-1]) from None
    assert isinstance(config, DictConfig)
    return config


def _scan(text: str) -> None:
    """Refuse what a run never writes, event by event: nothing is made of the text before."""
    depth = nodes = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise UsageError("it holds several documents")
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if not isinstance(event, yaml.NodeEvent):
            continue
        place = f"line {event.start_mark.line + 1}"
        if nodes == 0 and not isinstance(event, yaml.MappingStartEvent):
            raise UsageError("it holds no sections")
        if event.anchor is not None:
            raise UsageError(f"{place}: anchors and aliases (& and *) are not read")
        nodes, depth = nodes + 1, depth + isinstance(event, yaml.CollectionStartEvent)
        if nodes > MOST_NODES or depth > DEEPEST:
            raise UsageError(f"{place}: more than {MOST_NODES:,} values, or than {DEEPEST} levels")
        if getattr(event, "tag", None) is not None:
            raise UsageError(f"{place}: tags are not read; got {brief(event.tag)}")
        if isinstance(event, yaml.ScalarEvent):
            _scan_text(place, event.value)
    if not nodes:
        raise UsageError("it is empty")


def _scan_text(place: str, text: str) -> None:
    if len(text) > LONGEST:
        raise UsageError(f"{place}: a text of more than {LONGEST:,} letters")
    if "${" in text:
        raise UsageError(f"{place}: a run keeps its values and resolves nothing; got {brief(text)}")
    if "\0" in text:
        raise UsageError(f"{place}: a NUL character; got {brief(text)}")
    if text in ("<<", "???"):
        raise UsageError(f"{place}: {text} is not read")


# what it says --------------------------------------------------------------------------------------------------------


def _check(values: Mapping[Any, Any], trust: Collection[str]) -> None:
    task = values["task"]
    plain = {**_TOP, **_MORE.get(task, {})}
    needed = [key for key in (*plain, *registry.REGISTRY[task]) if key not in CALLBACKS]
    missing = next((key for key in needed if key not in values), None)
    if missing is not None:
        raise UsageError(f"{missing} is missing")
    for key, value in values.items():
        if key in registry.REGISTRY[task]:
            _check_section(key, value, task, trust)
        elif key in plain:
            require(key, value, plain[key])
        elif not isinstance(key, str) or isinstance(value, Mapping | list):  # +note=... is allowed
            raise UsageError(f"unknown section {brief(key)}; known: {', '.join(registry.REGISTRY[task])}")


def _check_section(name: str, section: Any, task: str, trust: Collection[str]) -> None:
    if section is None and name in CALLBACKS:
        return
    if not isinstance(section, Mapping):
        raise UsageError(f"{name} must be a section; got {brief(section)}")
    if TARGET not in section:
        raise UsageError(f"{name}.{TARGET} is missing")
    target = section[TARGET]
    known = registry.find(target, name, task)
    if known is None and not (isinstance(target, str) and target in trust):
        classes = ", ".join(registry.REGISTRY[task][name])
        raise _untrusted(f"{name}.{TARGET}", target, f"must be {classes}")
    for key, value in section.items():
        if not isinstance(key, str) or (key.startswith("_") and key != TARGET):
            raise UsageError(f"{name}: {brief(key)} cannot be an option of a run")
        _check_nested(f"{name}.{key}", value, trust)
    if known is not None:
        _check_options(name, section, known, trust)


def _untrusted(key: str, target: object, rule: str) -> UsageError:
    named = isinstance(target, str) and len(target) < 200 and all(map(str.isidentifier, target.split(".")))
    advice = f"; it is not built from a file unless you name it: --trust {target}" if named else ""
    return UsageError(f"{key} {rule}; got {brief(target)}{advice}")


def _check_nested(key: str, value: Any, trust: Collection[str]) -> None:
    """Objects inside of values are the user's own, each of a class that was named again."""
    if isinstance(value, list):
        for item in value:
            _check_nested(key, item, trust)
    elif isinstance(value, Mapping):
        for inner, item in value.items():
            if inner == TARGET and not (isinstance(item, str) and item in trust):
                raise _untrusted(f"{key}.{TARGET}", item, "may only be a class of your own")
            if not isinstance(inner, str) or (inner.startswith("_") and inner != TARGET):
                raise UsageError(f"{key}: {brief(inner)} cannot be an option of a run")
            _check_nested(f"{key}.{inner}", item, trust)


def _check_options(name: str, section: Mapping[str, Any], cls: type, trust: Collection[str]) -> None:
    """By signature and type hints of the class, and of the mixer that it names."""
    known = _parameters(cls, section)
    declared = hints(cls, section)
    for key, value in section.items():
        if key == TARGET:
            continue
        if key not in known:
            raise UsageError(
                f"{name}.{brief(key)[1:-1]} is not an option of {cls.__name__}{nearest(key, sorted(known))}"
            )
        if not any(_targets(None, value)):
            require(f"{name}.{key}", value, declared.get(key, Any))
    require_batches(name, section)
    own = inspect.signature(cls).parameters.values()
    needed = [each.name for each in own if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
    needed = [each for each in needed if each not in _GIVEN] + (["max_epochs"] if name == "trainer" else [])
    missing = next((each for each in needed if each not in section), None)
    if missing is not None:
        raise UsageError(f"{name}.{missing} is missing")


def _parameters(cls: type, section: Mapping[str, Any]) -> set[str]:
    found = (inspect.signature(maker).parameters.values() for maker in makers(cls, section.get("mixer")))
    return {each.name for parameters in found for each in parameters if each.kind is not each.VAR_KEYWORD}
