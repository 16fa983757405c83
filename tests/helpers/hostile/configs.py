"""Hostile config.yaml files of finished runs."""

import random
from collections.abc import Iterator
from typing import Any

import yaml
from hostile import damage
from hostile.base import RUNS
from hostile.case import DONE, EITHER, REFUSED, Base, Case

KIND = "config.yaml"
FILE = f"{damage.RUN}/config.yaml"
SAYS = r"config\.yaml|run holds"
SECTIONS = ("task", "training", "model", "data", "trainer")
# options that are sizes of tensors or counts: negative ones mean nothing, and huge ones fit no checkpoint
SIZES = (
    "dim",
    "heads",
    "blocks",
    "layers",
    "depth",
    "expansion",
    "num_persistent",
    "head_dim",
    "patch_size",
    "conv_size",
    "lookback",
    "horizon",
)
COUNTS = ("batch_size", "eval_batch_size", "num_workers", "length", "chunk_size", "folds", "carry", "segment")

_TEXTS: dict[str, bytes] = {
    "empty": b"",
    "list": b"[1, 2]\n",
    "number": b"5\n",
    "null": b"null\n",
    "text": b"just words\n",
    "unclosed": b"task: [\n",
    "tabs": b"task:\n\t- forecast\n",
    "not-utf8": b"task: forecast\nseed: \xff\xfe\n",
    "nul": b"task: forecast\nseed: \x00\n",
    "escape": b'task: "\\e[31mforecast"\n',
    "utf16": "task: forecast\n".encode("utf-16"),
    "cycle-list": b"task: forecast\nmodel: &a [*a]\n",
    "cycle-mapping": b"task: forecast\nmodel: &a {a: *a}\n",
    "cycle-root": b"&a {task: forecast, model: *a}\n",
    "alias-bomb": b"task: forecast\n"
    + b"".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9) if i else 'lol'}]\n".encode() for i in range(12)),
    "alias-bomb-mappings": b"task: forecast\n"
    + b"".join(
        f"x{i}: &x{i} {{{', '.join(f'k{j}: *x{i - 1}' for j in range(9)) if i else 'a: 1'}}}\n".encode()
        for i in range(12)
    ),
    "merge-bomb": b"task: forecast\nx0: &x0 {a: 1}\n"
    + b"".join(
        f"x{i}: &x{i}\n  <<: [{', '.join([f'*x{i - 1}'] * 9)}]\n  b{i}: *x{i - 1}\n".encode() for i in range(1, 9)
    ),
    "nested-flow": b"task: forecast\nmodel: " + damage.nested(3000) + b"\n",
    "nested-mappings": b"task: forecast\nmodel: " + damage.nested(3000, "{a: ", "}") + b"\n",
    "nested-blocks": b"task: forecast\nmodel:\n" + b"".join(b" " * i + b"a:\n" for i in range(1, 1500)),
    "python-object": b"task: !!python/object/apply:os.system ['touch pwned']\n",
    "python-name": b"task: !!python/name:os.system\n",
    "python-module": b"model: !!python/module:os\ntask: forecast\n",
    "unknown-tag": b"task: !mine forecast\n",
    "set": b"task: forecast\nmodel: !!set {a, b}\n",
    "binary": b"task: !!binary Zm9yZWNhc3Q=\n",
    "timestamp": b"task: 2024-01-01\n",
    "number-keys": b"1: 2\n2.5: 3\ntrue: 4\n",
    "null-key": b"~: 1\ntask: forecast\n",
    "list-key": b"? [a, b]\n: 1\ntask: forecast\n",
    "folder": b"",
}

# put after the configuration that the run has
_MORE: dict[str, bytes] = {
    "second-document": b"---\ntask: forecast\n",
    "same-key-twice": b"task: forecast\n",
    "nested": b"more: " + damage.nested(3000) + b"\n",
    "cycle": b"more: &a [*a]\n",
    "bomb": b"".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9) if i else 'lol'}]\n".encode() for i in range(12)),
    "huge-number": b"more: " + b"9" * 5000 + b"\n",
    "directive": b"%YAML 9.9\n",
    "garbage": b"}}}]\n",
    "python-tag": b"more: !!python/object/new:os._wrap_close ['touch pwned']\n",
}

# interpolations, in the place of a size
_REFERENCES = {
    "itself": "${model.dim}",
    "cycle": "${model.heads}",
    "nothing": "${nope.nothing}",
    "unclosed": "${model.heads",
    "environment": "${oc.env:HOME}",
    "environment-key": "${oc.env:PATH,5}",
    "decode": "${oc.decode:'8'}",
    "create": "${oc.create:{a: 1}}",
    "deprecated": "${oc.deprecated:model.heads}",
    "time": "${now:%Y}",
    "hydra": "${hydra:runtime.cwd}",
    "unknown-resolver": "${os.system:id}",
    "missing": "???",
    "nested": "${" * 400 + "a" + "}" * 400,
}

# none of them is a class that a run of ours is made of
_TARGETS = (
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "pathlib.Path.write_text",
    "titans_seq.cli.forecast.np.load",
    "titans_seq.cli.runs.torch.load",
    "titans_seq.cli.forecast.pd.read_pickle",
    "titans_seq.cli.runs.os.mkdir",
    "lightning.pytorch.callbacks.os.system",
    "lightning.pytorch.callbacks.Callback.__init__.__globals__.os.system",
    "titans_seq",
    "titans_seq.",
    "",
    ".",
    "titans_seq..forecast",
    "no.such.module",
    "a b",
    "torch.nn.Linear",
    "titans_seq.cli.main.main",
    "titans_seq.save_state",
)
_PLACES = (("training",), ("model",), ("data",), ("trainer",), ("early_stopping",))
_BELOW = (
    ("model", "dim"),
    ("trainer", "plugins"),
    ("trainer", "callbacks"),
    ("data", "csv"),
    ("training", "loss"),
    ("more",),
)


def texts(base: Base) -> Iterator[Case]:
    """Files that are no configuration, or one with more behind it."""
    words = damage.uses(base)["forecast"]
    for name, data in _TEXTS.items():
        edit = damage.text_edited(FILE, lambda old, data=data: data)  # type: ignore[misc]
        if name == "folder":
            edit = _as_folder
        says = SAYS if name != "folder" else "config|run folder"
        yield Case(KIND, f"text-{name}", words, REFUSED, says, prepare=damage.copied(base, "forecast", edit))
    for name, data in _MORE.items():
        edit = damage.text_edited(FILE, lambda old, data=data: old + data)  # type: ignore[misc]
        yield Case(KIND, f"more-{name}", words, REFUSED, SAYS, prepare=damage.copied(base, "forecast", edit))
    for name, change in (
        ("bom", lambda old: b"\xef\xbb\xbf" + old),
        ("crlf", lambda old: old.replace(b"\n", b"\r\n")),
        ("comments", lambda old: b"# \xc3\xa9\n" * 1000 + old),
        ("anchors", lambda old: old.replace(b"seed: 0\nout", b"seed: &s 0\nout").replace(b"  seed: 0", b"  seed: *s")),
    ):
        edit = damage.text_edited(FILE, change)
        exit = EITHER if name == "anchors" else DONE  # no run writes any
        yield Case(KIND, f"legal-{name}", words, exit, SAYS, prepare=damage.copied(base, "forecast", edit))


def _as_folder(folder: Any) -> None:
    path = folder / FILE
    path.unlink()
    path.mkdir()


def sections(base: Base) -> Iterator[Case]:
    """Sections that are missing or of another type, in every kind of run."""
    draw = random.Random(1)
    for run, words in damage.uses(base).items():
        for section in SECTIONS:
            says = rf"{SAYS}|{section}|unknown task"
            edit = damage.config_edited(damage.drop(section))
            yield Case(KIND, f"{run}-without-{section}", words, REFUSED, says, prepare=damage.copied(base, run, edit))
            for wrong in draw.sample([5, "words", [1], None, {}, {"a": {"b": 1}}], 2):
                edit = damage.config_edited(damage.put(wrong, section))
                name = f"{run}-{section}-{wrong!r}"
                yield Case(KIND, name, words, REFUSED, says, prepare=damage.copied(base, run, edit))
        edit = damage.config_edited(lambda config: {"task": config["task"]})
        yield Case(KIND, f"{run}-task-alone", words, REFUSED, SAYS, prepare=damage.copied(base, run, edit))
    edit = damage.config_edited(damage.put("abc", "seed"))
    words = damage.uses(base)["forecast"]
    yield Case(KIND, "seed-abc", words, REFUSED, "seed", prepare=damage.copied(base, "forecast", edit))


def options(base: Base) -> Iterator[Case]:
    """Every key of model, data and training: of another type, negative, or huge."""
    draw = random.Random(2)
    for run in RUNS:
        config = yaml.safe_load((base / run / "config.yaml").read_text())
        words = damage.uses(base)[run]
        for section in ("model", "data", "training"):
            for key, value in config[section].items():
                for name, wrong, exit in _wrong(section, key, value, draw):
                    edit = damage.config_edited(damage.put(wrong, section, key))
                    says = rf"{SAYS}|{key}"
                    name = f"{run}-{section}.{key}-{name}"
                    yield Case(KIND, name, words, exit, says, prepare=damage.copied(base, run, edit))


def _wrong(section: str, key: str, value: Any, draw: random.Random) -> Iterator[tuple[str, Any, int]]:
    """One or two values that an option cannot have; of sizes, one of another order."""
    if draw.random() < 0.5 or key == "_target_":
        wrong = draw.choice(damage.other_types(value)[1:])
        yield type(wrong).__name__, wrong, REFUSED
    if section == "model" and key in SIZES and value is not None:
        huge = draw.choice([10**9, 10**12, 10**30, -1, -(2**63)])
        yield f"{huge:.0e}", huge, REFUSED
    elif key in COUNTS:
        if draw.random() < 0.5:
            yield "-1", -1, REFUSED
        elif key not in ("num_workers", "folds"):
            yield "huge", 10**12, EITHER
    elif isinstance(value, float) and draw.random() < 0.7:
        yield "text", "abc", REFUSED


def references(base: Base) -> Iterator[Case]:
    """Interpolations, targets outside the registry, and keys that nothing takes."""
    words = damage.uses(base)["forecast"]

    def case(name: str, *edits: damage.Edit, exit: int = REFUSED, says: str = SAYS) -> Case:
        prepare = damage.copied(base, "forecast", *map(damage.config_edited, edits))
        return Case(KIND, name, words, exit, says, prepare=prepare)

    for name, text in _REFERENCES.items():
        more = [damage.put("${model.dim}", "model", "heads")] if name == "cycle" else []
        exit = EITHER if name == "decode" else REFUSED
        yield case(f"interpolation-{name}", damage.put(text, "model", "dim"), *more, exit=exit, says=f"{SAYS}|dim")
    draw = random.Random(3)
    for target in _TARGETS:
        place = draw.choice(_PLACES)
        yield case(f"target-{place[0]}-{target}", damage.put(target, *place, "_target_"), says=f"{SAYS}|_target_")
        below = draw.choice(_BELOW)
        node = {"_target_": target, "path": "pwned", "command": "touch pwned"}
        yield case(f"target-{damage.named(below)}-{target}", damage.put(node, *below), says=f"{SAYS}|_target_")
    for word, value in {"_partial_": True, "_args_": [1], "_recursive_": False, "_convert_": "all"}.items():
        for section in ("model", "trainer"):
            yield case(f"{section}.{word}", damage.put(value, section, word), says=f"{SAYS}|{word}")
    for section in ("model", "data", "training", "trainer"):
        yield case(f"unknown-{section}", damage.put(3, section, "no_such_option"), says="no_such_option")
    yield case("swapped", lambda config: config | {"model": config["data"], "data": config["model"]})
    for task in ("lm", "dna", "", 5, ["forecast"], {"forecast": 1}, "x" * 100_000, "\x1b[31m", "a\nb"):
        yield case(f"task-{str(task)[:12]!r}", damage.put(task, "task"), says=f"{SAYS}|run")
    for name in ("plugins", "callbacks", "strategy", "precision", "devices", "accelerator", "profiler", "num_nodes"):
        for wrong in draw.sample(["\x1b]0;x", -7, {"a": 1}, ["x"], 10**30], 2):
            # devices, nodes, strategy and callbacks are chosen anew for a run that is only used
            exit = EITHER if name in ("devices", "strategy", "num_nodes", "callbacks") else REFUSED
            yield case(
                f"trainer.{name}-{wrong!r}", damage.put(wrong, "trainer", name), exit=exit, says=f"{SAYS}|trainer"
            )
