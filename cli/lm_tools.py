"""`titans-seq eval|generate lm`: what a trained language model is used for."""

import argparse
import itertools
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import Progress

from titans_seq.blocks import ModelState
from titans_seq.cli import fitting, recorded, runs, training
from titans_seq.cli.errors import UsageError
from titans_seq.cli.lm import FIT, MODEL, readable
from titans_seq.cli.pictures import draw
from titans_seq.cli.tables import show_paths, show_record, show_table
from titans_seq.datamodules import LongContextData
from titans_seq.datamodules.common.files import user_path
from titans_seq.datamodules.language.long_context import TASKS
from titans_seq.datamodules.language.text import read_text
from titans_seq.language import ByteTokenizer, LanguageModel, LanguageModule, Tokenizer, generate, load_model
from titans_seq.language.evaluation import read_stream
from titans_seq.language.generation import read
from titans_seq.language.pictures import plot_by_length
from titans_seq.model_folders import CONFIG
from titans_seq.printable import printable
from titans_seq.state_io import load_state, save_state
from titans_seq.training import accelerator_of, best_device

if TYPE_CHECKING:
    from titans_seq.language.harness import TaskManager

PIECE = 4096  # tokens read at a time
LENGTHS = (256, 512, 1024, 2048, 4096)  # of a task's samples
SAMPLES = 128  # of a task, per length
WINDOW = 1024  # tokens of a text that a model without a state that can be carried reads at once


def trained_model(arguments: argparse.Namespace) -> tuple[LanguageModel, Tokenizer, Path]:
    """The model and tokenizer of a run folder, or of a folder that `save_model` wrote, and that folder."""
    folder = user_path(arguments.checkpoint)
    inner = folder / MODEL
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; give the run folder" if folder.exists() else f"no run folder {folder}")
    if _run_config(arguments, folder) is not None:
        if not (folder / runs.METRICS).is_file():
            raise UsageError(f"{folder} is not finished; go on with: titans-seq fit lm --output {folder} --resume")
        if not inner.is_dir():
            raise UsageError(f"{folder} is finished, but its {MODEL}/ is gone; train it again in another folder")
    place = inner if inner.is_dir() else folder
    try:
        model, tokenizer = load_model(place)
    except ValueError as error:
        raise UsageError(str(error)) from None
    fitting.check_backend(model.options, place=place / CONFIG)
    return model.to(best_device()), tokenizer, folder


def _run_config(arguments: argparse.Namespace, folder: Path) -> DictConfig | None:
    """What the run was configured as; None: the folder is not a run's."""
    if not (folder / runs.CONFIG).is_file():
        return None
    return recorded.read_config(folder, FIT.key, trust=recorded.named_again(arguments.trust))


def eval_command(arguments: argparse.Namespace) -> None:
    """`titans-seq eval lm`: perplexity of a text, accuracy in tasks by length, tasks of the harness."""
    if bool(arguments.text) == bool(arguments.tasks):
        raise UsageError("give --text FILE for a perplexity or --tasks NAME for accuracies, one of the two")
    by_length = [name for name in arguments.tasks or () if name in TASKS]
    others = [name for name in arguments.tasks or () if name not in TASKS]
    _check_flags(arguments, bool(by_length), bool(others))
    training.hush(arguments.quiet)
    model, tokenizer, folder = trained_model(arguments)
    if arguments.text:
        return _eval_text(arguments, model, tokenizer)
    place = user_path(arguments.output) if arguments.output else folder / "eval"
    if by_length and not isinstance(tokenizer, ByteTokenizer):
        raise UsageError(
            f"{by_length[0]} is made of bytes, but {folder} has another tokenizer; train on it with fit lm --task"
        )
    data = {name: _samples(arguments, name) for name in by_length}
    manager, others = _harness_tasks(others, arguments.include) if others else (None, [])
    runs.make_folder(place)
    for name in by_length:
        _eval_task(arguments, data[name], model, folder, place)
    if manager is not None:
        _eval_harness(others, manager, model, tokenizer, place, arguments.limit)
    return None


def _check_flags(arguments: argparse.Namespace, by_length: bool, harness: bool) -> None:
    """Refuse flags of what is not asked for: they would do nothing."""
    of_lengths, of_harness = ("lengths", "samples", "seed"), ("include", "limit")
    unused = [*(() if by_length else of_lengths), *(() if harness else of_harness)]
    given = next((name for name in unused if getattr(arguments, name) is not None), None)
    if given is not None:
        what = "tasks by length, such as --tasks passkey" if given in of_lengths else "tasks of lm-evaluation-harness"
        raise UsageError(f"--{given} goes with {what}; drop it")


def _eval_text(arguments: argparse.Namespace, model: LanguageModel, tokenizer: Tokenizer) -> None:
    text = read_text(arguments.text)
    try:
        tokens = tokenizer.encode(text)
    except ValueError as error:
        raise UsageError(f"{arguments.text}: {error}") from None
    if len(tokens) < 2:
        raise UsageError(f"{arguments.text} has {len(tokens)} tokens; at least 2 are needed")
    place = runs.new_file(user_path(arguments.output)) if arguments.output else None
    # without a window attention would keep all of the text
    carry = not (model.options["mixer"] == "attention" and model.options.get("window") is None)
    piece = PIECE if carry else WINDOW
    silent = arguments.quiet or not sys.stderr.isatty()
    with Progress(console=Console(file=sys.stderr), disable=silent, transient=True) as progress:
        task = progress.add_task("reading", total=len(tokens))
        for done, nats in read_stream(model, tokens, piece=piece, carry=carry):
            progress.update(task, completed=done)
    loss = nats / (len(tokens) - 1)
    bytes_per_token = len(text.encode()) / len(tokens)
    record = {
        "text": Path(arguments.text).name,
        "tokens": len(tokens),
        "protocol": "one stream, state carried" if carry else f"windows of {WINDOW} tokens",
    }
    record |= {"loss": loss, **readable(loss, bytes_per_token)}
    show_record(f"{Path(arguments.text).name}, {arguments.checkpoint}", record)
    if place is not None:
        runs.write_json(place, record)
        show_paths("metrics", [place])


def _harness_tasks(names: list[str], include: str | None) -> tuple["TaskManager", list[str]]:
    """What knows the tasks of lm-evaluation-harness, and those of these names, each of which is there."""
    try:
        from titans_seq.language.harness import PAPER, TaskManager
    except ModuleNotFoundError as error:
        raise UsageError(
            f"no task {names[0]} here; those of lm-evaluation-harness need: pip install 'titans-seq[harness]' ({error})"
        ) from None
    manager = TaskManager(include_path=None if include is None else str(user_path(include)))
    tasks = list(itertools.chain.from_iterable(PAPER if name == "paper" else (name,) for name in names))
    missing = next((name for name in tasks if name not in manager.all_tasks), None)
    if missing is not None:
        raise UsageError(f"no task {missing}; those made here are {', '.join(TASKS)}")
    return manager, tasks


def _eval_harness(
    tasks: list[str], manager: "TaskManager", model: LanguageModel, tokenizer: Tokenizer, place: Path, limit: int | None
) -> None:
    """What was measured is kept after every task; a UsageError at the end names those whose data cannot be had."""
    from titans_seq.language.harness import evaluate

    for library in ("lm_eval", "datasets", "huggingface_hub"):  # what matters of their notes is in our last line
        logging.getLogger(library).setLevel(logging.ERROR)
    rows: list[tuple[str, str, Any]] = []
    missed: list[str] = []
    path = runs.free(place / "harness.json")
    for name in tasks:
        try:
            found = evaluate(model, tokenizer, name, manager, limit=limit)
        except OSError as error:  # its data are neither here nor to be had
            missed.append(f"{name} ({printable(' '.join(str(error).split()), 200)})")
            continue
        rows += [(name, metric, value) for metric, value in found.items()]
        runs.write_json(path, {f"{name} {metric}": value for name, metric, value in rows})
    if rows:
        show_table("lm-evaluation-harness, no examples in the prompt", ("task", "metric", "value"), rows)
        show_paths("results", [path])
    if missed:
        raise UsageError(f"not run, because the data cannot be read or downloaded: {', '.join(missed)}")


def _samples(arguments: argparse.Namespace, task: str) -> list[LongContextData]:
    """Of a task at every length."""
    samples, seed = arguments.samples or SAMPLES, arguments.seed or 0
    return [
        LongContextData(
            task, length=length, eval_samples=samples, eval_batch_size=max(1, 2**14 // length), seed=seed,
        )
        for length in sorted(set(arguments.lengths or LENGTHS))
    ]  # fmt: skip


def _eval_task(
    arguments: argparse.Namespace, every: list[LongContextData], model: LanguageModel, folder: Path, place: Path
) -> None:
    task, samples, lengths = every[0].task, every[0].eval_samples, [data.length for data in every]
    config = _run_config(arguments, folder)
    trained = None if config is None or config.data.get("task") != task else int(config.data.length)
    module = LanguageModule(model, answers=True)
    rows: dict[int, Mapping[str, float]] = {}
    for data in every:
        trainer = L.Trainer(
            accelerator=accelerator_of(), devices=1,
            logger=False, enable_model_summary=False, enable_checkpointing=False,
            enable_progress_bar=not arguments.quiet and sys.stderr.isatty(),
        )  # fmt: skip
        with training.interruptible(trainer, "nothing was written"):
            rows[data.length] = trainer.test(module, datamodule=data, verbose=False)[0]
    names = ("test_accuracy", "test_token_accuracy", "test_loss")
    title = f"{task}, {samples} samples per length"
    shown = ("tokens", "share of samples right", "share of tokens right", "nats per token")
    show_table(title, shown, [[length, *(row[name] for name in names)] for length, row in rows.items()])
    record: dict[str, Any] = {"task": task, "samples": samples, "seed": every[0].seed, "trained_length": trained}
    record["lengths"] = {
        str(length): {name.removeprefix("test_"): row[name] for name in names} for length, row in rows.items()
    }
    path = runs.free(place / f"{task}.json")
    runs.write_json(path, record)
    curves = {"samples": [row[names[0]] for row in rows.values()], "tokens": [row[names[1]] for row in rows.values()]}
    pictures = draw(plot_by_length, lengths, curves, path.with_suffix(".png"), title=title, trained=trained)
    show_paths("results", [path, *pictures])


def _file(output: str) -> Path:
    """A file to write to, in a folder that is there."""
    path = user_path(output)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file")
    runs.make_folder(path.parent)
    return path


def generate_command(arguments: argparse.Namespace) -> None:
    """`titans-seq generate lm`: the prompt and what follows it, on stdout as it is drawn."""
    model, tokenizer, _ = trained_model(arguments)
    try:
        prompt = torch.from_numpy(tokenizer.encode(arguments.prompt))
        state = _state(arguments, model)
        drawn = generate(
            model, prompt, tokens=arguments.tokens, temperature=arguments.temperature, top_k=arguments.top_k,
            top_p=arguments.top_p, seed=arguments.seed, state=state, piece=PIECE,
        )  # fmt: skip
        kept = _file(arguments.save_state) if arguments.save_state else None
        first = next(drawn)  # a state that the model refuses shows here, before anything is printed
        decode = tokenizer.decoder(prompt.tolist())
        print(arguments.prompt, end="", flush=True)
        for token, state in itertools.chain([first], drawn):
            print(decode(token), end="", flush=True)
        print()
        if kept:
            _, state = read(model, torch.tensor([token]), state)
            assert state is not None
            save_state(kept, state, model=model)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _state(arguments: argparse.Namespace, model: LanguageModel) -> ModelState | None:
    if not arguments.state:
        return None
    try:
        state = load_state(user_path(arguments.state), model=model)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    if not isinstance(state, ModelState):
        raise UsageError(
            f"{arguments.state} is the state of a {type(state).__name__.removesuffix('State')}, not of a model"
        )
    return state.to(model.encoder.embedding.weight.device)
