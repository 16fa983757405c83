"""Hostile folders of saved models and forecasters, tokenizers, and records of metrics."""

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hostile import damage
from hostile.base import model_options
from hostile.case import DONE, EITHER, REFUSED, Base, Case, Prepare
from hostile.states import TENSORS, copied, tensors_edited
from hostile.writing import sign

from titans_seq import TitansForecaster
from titans_seq.datamodules.language.tokenizers import read_tokenizer

MODEL, FORECASTER, METRICS = "model folder", "forecaster folder", "metrics.json"
NAMES = {MODEL: "model", FORECASTER: "forecaster"}


def _signed(name: str) -> Prepare:
    return lambda folder: sign(folder / name)


# folders --------------------------------------------------------------------------------------------------------------


def _json_texts(levels: int = 3000) -> dict[str, bytes]:
    return {
        "nested": damage.nested(levels),
        "nested-mappings": damage.nested(levels, '{"a":', "}"),
        "empty": b"",
        "number": b"5",
        "null": b"null",
        "list": b"[]",
        "mapping": b"{}",
        "not-utf8": b'{"a": "\xff"}',
        "huge-number": b"9" * 5000,
        "nul": b'{"a": "\x00"}',
        "utf16": '{"a": 1}'.encode("utf-16"),
    }


def _json_cases(name: str, tree: Any, draw: random.Random, count: int, texts: int) -> Iterator[tuple[str, Prepare]]:
    """A JSON file: other texts, nested ones always among them; keys that are missing or of another type."""
    all_texts = _json_texts()
    for key in [
        "nested",
        "nested-mappings",
        *draw.sample(sorted(all_texts.keys() - {"nested", "nested-mappings"}), texts),
    ]:
        yield f"text-{key}", damage.text_edited(name, lambda old, data=all_texts[key]: data)  # type: ignore[misc]
    for i, keys in enumerate(draw.choices(list(damage.paths(tree)), k=count)):
        value = functools.reduce(lambda node, key: node[key], keys, tree)
        wrong = draw.choice(damage.other_types(value))
        yield f"{i}-{damage.named(keys)}-{type(wrong).__name__}", damage.json_edited(name, damage.put(wrong, *keys))


def model_folders(base: Base) -> Iterator[Case]:
    """A saved language model."""
    words = ("generate", "lm", "--checkpoint", NAMES[MODEL], "--prompt", "a", "--tokens", "2", "--quiet")
    config, tokens, weights = (f"model/{name}" for name in ("config.json", "tokenizer.json", "model.safetensors"))
    draw, cases = random.Random(6), dict[str, Prepare]()
    tree = json.loads((base / "lm" / config).read_text())
    cases |= {f"config-{key}": edit for key, edit in _json_cases(config, tree, draw, 0, 5)}
    for key, value in model_options(base).items():
        wrong = draw.choice(damage.other_types(value))
        cases[f"{key}-{type(wrong).__name__}"] = damage.json_edited(config, damage.put(wrong, "model", key))
    for key in ("vocabulary", "dim", "depth", "layers", "heads", "expansion", "num_persistent"):
        huge = draw.choice([10**9, 2**31, 10**30, -1])
        cases[f"{key}-{huge}"] = damage.json_edited(config, damage.put(huge, "model", key))
    cases |= {f"tokenizer-text-{key}": _put_text(tokens, data) for key, data in _json_texts().items()}
    cases |= {f"weights-{key}": tensors_edited(weights, edit) for key, edit in TENSORS.items() if key != "half"}
    some = draw.sample(list(damage.byte_damages(4)), 5)
    cases |= {f"weights-{key}": damage.text_edited(weights, edit) for key, edit in some}
    for name, edit in cases.items():
        says = "tokenizer" if name.startswith("tokenizer") else "model"
        again = () if name.startswith("weights-") else (_signed(NAMES[MODEL]),)
        prepare = copied(base, "lm/model", NAMES[MODEL], edit, *again)
        # numbers of another kind are numbers still
        exit = EITHER if name in ("weights-float64", "weights-half", "weights-whole-numbers") else REFUSED
        yield Case(MODEL, name, words, exit, says, prepare=prepare)
    yield Case(MODEL, "whole", words, DONE, prepare=copied(base, "lm/model", NAMES[MODEL]))


def _put_text(name: str, data: bytes) -> Prepare:
    return damage.text_edited(name, lambda old: data)


_VOCABULARY = {
    "ids-of-2**31": {"a": 2**31},
    "ids-of-2**32": {"a": 2**32 - 1},
    "ids-of-2**62": {"a": 2**62},
    "ids-negative": {"a": -1},
    "ids-of-text": {"a": "b"},
    "ids-of-1.5": {"a": 1.5},
    "empty": {},
    "list": [["a", 0]],
    "with-gaps": {"a": 0, "b": 999_999_999},
    "same-id-twice": {"a": 0, "b": 0, "<unk>": 0},
}


def tokenizers(base: Base) -> Iterator[Case]:
    """A tokenizer.json of the library tokenizers, read alone and for a training."""
    for name, vocabulary in _VOCABULARY.items():
        model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
        yield _tokenizer(base, f"vocabulary-{name}", {"model": model, "added_tokens": []}, EITHER)
    whole: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "the": 1}, "unk_token": "<unk>"},
    }
    for key in whole:
        for wrong in damage.other_types(whole[key])[:2]:
            yield _tokenizer(base, f"{key}-{type(wrong).__name__}", whole | {key: wrong}, EITHER)
    for name, data in _json_texts().items():
        prepare = functools.partial(_write, "t.json", data)
        yield Case("tokenizer", f"text-{name}", call=_read_tokenizer, says="t.json", prepare=prepare)


def _tokenizer(base: Base, name: str, definition: dict[str, Any], exit: int) -> Case:
    prepare = functools.partial(_write, "t.json", json.dumps(definition).encode())
    words = (
        "fit",
        "lm",
        "--text",
        str(base.book),
        "--tokenizer",
        "t.json",
        "--length",
        "8",
        "model.dim=8",
        "model.heads=1",
        "model.layers=1",
        "data.steps_per_epoch=1",
        "--epochs",
        "1",
        "--quiet",
    )
    return Case("tokenizer", name, words, exit, "t.json|book.txt|vocabulary", prepare=prepare)


def _read_tokenizer() -> None:
    read_tokenizer("t.json")


def _write(name: str, data: bytes, folder: Path) -> None:
    (folder / name).write_bytes(data)


def forecaster_folders(base: Base) -> Iterator[Case]:
    """A saved TitansForecaster."""
    name = NAMES[FORECASTER]
    config = f"{name}/config.json"
    draw, cases = random.Random(8), dict[str, Prepare]()
    tree = json.loads((base / config).read_text())
    cases |= {f"config-{key}": edit for key, edit in _json_cases(config, tree, draw, 26, 5)}
    for keys in (("about", "arguments", "horizon"), ("network", "lookback"), ("network", "dim"), ("version",)):
        huge = draw.choice([10**9, 10**30, -1])
        cases[f"{damage.named(keys)}-{huge}"] = damage.json_edited(config, damage.put(huge, *keys))
    for file in ("model.safetensors", "series.safetensors"):
        path = f"{name}/{file}"
        cases |= {f"{file}-{key}": tensors_edited(path, TENSORS[key]) for key in draw.sample(sorted(TENSORS), 6)}
        some = draw.sample(list(damage.byte_damages(5)), 3)
        cases |= {f"{file}-{key}": damage.text_edited(path, edit) for key, edit in some}
    for key, edit in cases.items():
        exit = EITHER if _may_be_read(key) else REFUSED
        says = name if exit == REFUSED else "."  # an option may only be refused where it is used
        again = (_signed(name),) if key.startswith("config-") else ()
        prepare = copied(base, name, name, edit, *again)
        yield Case(FORECASTER, key, call=functools.partial(_forecast, name), exit=exit, says=says, prepare=prepare)
    whole = copied(base, name, name)
    yield Case(FORECASTER, "whole", call=functools.partial(_forecast, name), exit=DONE, prepare=whole)


def _may_be_read(name: str) -> bool:
    """What decides nothing in a forecast, such as how it was trained, numbers of another kind, or endless margins."""
    return (
        name.startswith("config-")
        and "-text-" not in name
        or name.endswith(("float64", "half", "whole-numbers", "series.safetensors-infinite"))
    )


def _forecast(folder: str) -> None:
    TitansForecaster.load(folder).predict()


# metrics --------------------------------------------------------------------------------------------------------------


def metrics(base: Base) -> Iterator[Case]:
    """metrics.json, as `report` reads it."""
    path = f"{damage.RUN}/metrics.json"
    words = ("report", damage.RUN, "--quiet")
    tree = json.loads((base / "forecast" / "metrics.json").read_text())
    needed = ("test_mse", "val_mse", "best_epoch", "epochs", "seconds_per_epoch", "parameters")
    draw, cases = random.Random(7), dict[str, tuple[Prepare, int]]()
    for key, data in _json_texts().items():
        cases[f"text-{key}"] = _put_text(path, data), REFUSED
    for key in needed:
        cases[f"without-{key}"] = damage.json_edited(path, damage.drop(key)), REFUSED
        for wrong in draw.sample([*damage.other_types(tree[key]), None, -3.5e300, 10**400, "\x1b[31m"], 2):
            exit = EITHER if isinstance(wrong, float | int) else REFUSED
            cases[f"{key}-{str(wrong)[:8]}"] = damage.json_edited(path, damage.put(wrong, key)), exit
    for key in sorted(tree.keys() - set(needed))[:4]:
        cases[f"{key}-list"] = damage.json_edited(path, damage.put([1], key)), EITHER
    for key, (edit, exit) in cases.items():
        prepare = damage.copied(base, "forecast", edit)
        yield Case(METRICS, key, words, exit, r"metrics\.json", prepare=prepare)
