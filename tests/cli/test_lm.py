"""The commands of language models end to end on small texts: runs, what they write, what they refuse."""

import codecs
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from disks import no_file_beyond
from signed import sign

from titans_seq.cli.main import main
from titans_seq.language import LanguageModule, generate, load_model, train_bpe
from titans_seq.tensor_files import read_tensors, write_tensors

Refused = Callable[[list[str]], str]
SMALL = ["model.dim=8", "model.heads=1", "model.layers=1", "model.chunk_size=8", "data.steps_per_epoch=3", "--quiet"]
TEXT = "the cat and the hat and the bat sat on a mat. " * 40


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm")
    (folder / "book.txt").write_text(TEXT)
    return folder


def _fit(files: Path, output: str | Path, *words: str) -> list[str]:
    """The command that trains on the book."""
    return ["fit", "lm", "--text", str(files / "book.txt"), "--output", str(output), *words]


@pytest.fixture(scope="session")
def book(files: Path) -> Path:
    """A finished run; tests must not change it."""
    assert main(_fit(files, files / "run", "--length", "16", "--epochs", "2", *SMALL)) == 0
    return files / "run"


@pytest.fixture(scope="session")
def pairs(files: Path) -> Path:
    """A finished run on learned byte pairs; tests must not change it."""
    assert main(_fit(files, files / "pairs", "--length", "8", "--epochs", "1", "--vocab-size", "264", *SMALL)) == 0
    return files / "pairs"


def _metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_is_complete(book: Path) -> None:
    names = {str(path.relative_to(book)) for path in book.rglob("*") if path.is_file()}
    assert names == {
        "config.yaml", "metrics.json", "training.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        "model/config.json", "model/model.safetensors", "model/tokenizer.json", ".lock",
    }  # fmt: skip
    metrics = _metrics(book)
    expected = {"dataset": "book", "variant": "mac", "length": 16, "vocabulary": 256, "epochs": 2}
    assert expected.items() <= metrics.items() and metrics["selected_on"] == "val_loss"
    assert metrics["test_perplexity"] == pytest.approx(np.exp(metrics["test_loss"]))
    assert metrics["test_bits_per_byte"] == pytest.approx(metrics["test_loss"] / np.log(2))
    assert metrics["test_loss"] < np.log(256) + 0.1


def test_the_model_is_that_of_the_best_epoch(book: Path, files: Path) -> None:
    """Its loss over the test windows, by other means."""
    model, tokenizer = load_model(book / "model")
    tokens = torch.from_numpy(tokenizer.encode(TEXT[int(0.95 * len(TEXT)) :]))
    begins = range(0, len(tokens) - 16, 16)
    logits = [model(tokens[None, i : i + 16])[0][0] for i in begins]
    targets = [tokens[i + 1 : i + 17] for i in begins]
    loss = F.cross_entropy(torch.cat(logits), torch.cat(targets))
    assert loss.item() == pytest.approx(_metrics(book)["test_loss"], abs=1e-5)


@pytest.mark.parametrize("variant", ["lmm", "mag", "mal", "transformer"])
def test_every_variant(variant: str, files: Path, workdir: Path) -> None:
    small = [word for word in SMALL if "chunk" not in word or variant != "transformer"]
    words = ["--text", str(files / "book.txt"), "--length", "16", "--epochs", "1", *small]
    assert main(["fit", "lm", "--variant", variant.upper(), *words]) == 0
    assert _metrics(Path(f"runs/lm/book-{variant}-s0"))["variant"] == variant


def test_a_learned_vocabulary(pairs: Path, files: Path, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = _metrics(pairs)
    assert metrics["vocabulary"] == 264
    assert metrics["test_bits_per_byte"] < metrics["test_loss"] / np.log(2)  # a token has more than one byte
    (workdir / "tokenizer.json").write_text(train_bpe([TEXT], 260).to_json())
    assert main(_fit(files, "other", "--length", "8", "--epochs", "1", "--tokenizer", "tokenizer.json", *SMALL)) == 0
    assert _metrics(Path("other"))["vocabulary"] == 260
    capsys.readouterr()
    assert main(["generate", "lm", "--checkpoint", "other", "--prompt", "the cat", "--tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("the cat")


def test_training_on_streams(files: Path, workdir: Path) -> None:
    small = [word for word in SMALL if "steps" not in word]
    assert main(_fit(files, "run", "--length", "16", "--carry", "4", "--epochs", "1", *small)) == 0
    assert main(["fit", "lm", "--output", "run", "--resume", "--epochs", "2", "--quiet"]) == 0
    metrics = _metrics(Path("run"))
    assert (metrics["carried_windows"], metrics["epochs"]) == (4, 2)


@pytest.mark.parametrize("carry", [1, 4])
def test_an_interrupted_run_ends_as_if_it_had_not_stopped(
    carry: int, files: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [word for word in SMALL if "steps" not in word or carry == 1]
    words = ["--length", "16", "--epochs", "3", "--carry", str(carry), *small]
    assert main(_fit(files, "whole", *words)) == 0
    with monkeypatch.context() as patch:
        plain = LanguageModule.training_step

        def stop(self: LanguageModule, batch: dict, batch_idx: int) -> torch.Tensor:
            if self.current_epoch == 1 and batch_idx == 1:
                raise KeyboardInterrupt
            return plain(self, batch, batch_idx)

        patch.setattr(LanguageModule, "training_step", stop)
        assert main(_fit(files, "parts", *words)) == 130
    assert not Path("parts/metrics.json").exists()
    assert main(["fit", "lm", "--output", "parts", "--resume", "--quiet"]) == 0
    whole, parts = (load_model(Path(name, "model"))[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_is_resumed_by_its_folder_and_any_words_that_agree(book: Path, workdir: Path, refused: Refused) -> None:
    shutil.copytree(book, "run")
    words = ["fit", "lm", "--output", "run", "--resume", "--quiet"]
    assert "model.dim is 8 in the run run" in refused([*words, "--epochs", "3", "model.dim=16"])
    assert "unknown override 'model.dims'" in refused([*words, "model.dims=16"])
    assert "run is finished; give more --epochs" in refused([*words, "--seed", "0"])
    assert main([*words, "--seed", "0", "model.dim=8", "trainer.max_epochs=3"]) == 0
    assert _metrics(Path("run"))["epochs"] == 3


def test_a_run_of_an_experiment_is_resumed_by_the_same_words(files: Path, workdir: Path, refused: Refused) -> None:
    words = _fit(files, "run", "experiment=paper", "data.length=16", *SMALL)
    words += ["trainer.precision=32-true", "trainer.accumulate_grad_batches=1"]
    assert main([*words, "--epochs", "1"]) == 0
    assert "training.learning_rate is" in refused([*words, "--epochs", "2", "--resume", "training.learning_rate=1"])
    without = [word for word in words if not word.startswith("trainer.precision")]
    assert "trainer.precision of the experiment is not that of the run run" in refused([*without, "--resume"])
    assert main([*words, "--epochs", "2", "--resume"]) == 0
    assert _metrics(workdir / "run")["epochs"] == 2


# a finished model -----------------------------------------------------------------------------------------------------


def test_generation(book: Path, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert main(["generate", "lm", "--checkpoint", str(book), "--prompt", "the ", *words]) == 0
        return capsys.readouterr().out

    one = said("--tokens", "6", "--temperature", "0")
    assert one.startswith("the ") and one.endswith("\n")
    assert said("--tokens", "6", "--temperature", "0", "--seed", "1") == one
    assert said("--tokens", "6", "--seed", "1") == said("--tokens", "6", "--seed", "1") != said("--tokens", "6")
    moved = workdir / "elsewhere"
    shutil.copytree(book / "model", moved)
    words = ["--prompt", "the ", "--tokens", "6", "--temperature", "0"]
    assert main(["generate", "lm", "--checkpoint", str(moved), *words]) == 0
    assert capsys.readouterr().out == one


def test_a_conversation_goes_on(book: Path, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new prompt is read behind everything that was read and drawn before; of letters only whole ones are printed."""
    letters = codecs.getincrementaldecoder("utf-8")
    words = ["generate", "lm", "--checkpoint", str(book), "--temperature", "0"]
    assert main([*words, "--prompt", "the ", "--tokens", "3", "--save-state", "talk"]) == 0
    first = capsys.readouterr().out.removesuffix("\n")
    model, tokenizer = load_model(book / "model")
    drawn = [token for token, _ in generate(model, torch.from_numpy(tokenizer.encode("the ")), tokens=3, temperature=0)]
    assert first == "the " + letters("replace").decode(bytes(drawn))
    assert main([*words, "--prompt", " cat", "--tokens", "4", "--state", "talk"]) == 0
    said = capsys.readouterr().out.removesuffix("\n")
    whole = torch.from_numpy(np.concatenate([tokenizer.encode("the "), drawn, tokenizer.encode(" cat")]))
    rest = [token for token, _ in generate(model, whole, tokens=4, temperature=0)]
    assert said == " cat" + letters("replace").decode(bytes(rest))


@pytest.mark.parametrize("kind", ["book", "pairs", "transformer"])
def test_perplexity_of_a_text(kind: str, request: pytest.FixtureRequest, files: Path, workdir: Path) -> None:
    """By one pass over it."""
    if kind == "transformer":
        run, small = workdir / "run", [word for word in SMALL if "chunk" not in word]
        assert main(_fit(files, run, "--length", "8", "--epochs", "1", "--variant", kind, *small)) == 0
    else:
        run = request.getfixturevalue(kind)
    words = ["eval", "lm", "--checkpoint", str(run), "--text", str(files / "book.txt"), "--output", "found/some.json"]
    assert main([*words, "--quiet"]) == 0
    found = json.loads(Path("found/some.json").read_text())
    model, tokenizer = load_model(run / "model")
    tokens = torch.from_numpy(tokenizer.encode(TEXT))
    window = 1024 if kind == "transformer" else len(tokens)
    logits = torch.cat([model(part[None])[0][0] for part in tokens[:-1].split(window)])
    loss = F.cross_entropy(logits, tokens[1:]).item()
    assert found["loss"] == pytest.approx(loss, abs=1e-5)
    assert found["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(loss / np.log(2) * len(tokens) / len(TEXT), rel=1e-4)
    assert found["protocol"].startswith("windows of 1024" if kind == "transformer" else "one stream")


def test_accuracy_by_length(workdir: Path) -> None:
    words = ["fit", "lm", "--task", "parity", "--variant", "lmm", "--length", "8", "--epochs", "2", "--output", "run"]
    assert main([*words, *SMALL, "data.eval_samples=8"]) == 0
    metrics = _metrics(Path("run"))
    assert metrics["selected_on"] == "val_token_accuracy"
    assert 0 <= metrics["test_accuracy"] <= metrics["test_token_accuracy"]
    words = ["eval", "lm", "--checkpoint", "run", "--tasks", "parity", "--quiet"]
    assert main([*words, "--lengths", "32", "8", "32", "--samples", "16"]) == 0
    found = json.loads(Path("run/eval/parity.json").read_text())
    assert found["trained_length"] == 8 and list(found["lengths"]) == ["8", "32"]
    assert (workdir / "run/eval/parity.png").stat().st_size > 5000


def test_a_task_of_the_harness(book: Path, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two choices each, judged by the model's own log-likelihoods; wikitext's form of task, and a generated answer."""
    rows = [("the cat", [" sat", " and"]), ("the", [" hat and the", " bat"]), ("on a", [" mat", " cat"])]
    model, tokenizer = load_model(book / "model")

    def nats(before: str, text: str) -> float:
        tokens = torch.from_numpy(tokenizer.encode(before + text))
        logits = model(tokens[None, :-1])[0][0].log_softmax(-1).gather(1, tokens[1:, None])
        return logits[-len(text) :].sum().item()

    answers = [int(nats(before, second) > nats(before, first)) for before, (first, second) in rows]
    lines = [
        {"q": q, "choices": c, "answer": a}
        for (q, c), a in zip(rows, [answers[0], answers[1], 1 - answers[2]], strict=True)
    ]
    (workdir / "data.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    source = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {workdir}/data.jsonl\ntest_split: test\n"
    (workdir / "tasks").mkdir()
    (workdir / "tasks/choice.yaml").write_text(
        f"task: my_choice\n{source}output_type: multiple_choice\ndoc_to_text: '{{{{q}}}}'\ndoc_to_choice: "
        f"'{{{{choices}}}}'\n"
        "doc_to_target: '{{answer}}'\ntarget_delimiter: ''\nmetric_list:\n  - metric: acc\n"
        "    aggregation: mean\n    higher_is_better: true\n"
    )
    (workdir / "tasks/rolling.yaml").write_text(
        f"task: my_rolling\n{source}output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: "
        f"'{{{{q}}}}'\nmetric_list:\n"
        "  - metric: byte_perplexity\n    aggregation: weighted_perplexity\n    higher_is_better: false\n"
    )
    words = ["--tasks", "my_choice", "my_rolling", "--include", "tasks", "--output", "found", "--quiet"]
    assert main(["eval", "lm", "--checkpoint", str(book), *words]) == 0
    found = json.loads(Path("found/harness.json").read_text())
    assert found["my_choice acc"] == pytest.approx(2 / 3)
    bits = sum(nats("\n", q) for q, _ in rows) / sum(len(q) for q, _ in rows)
    assert found["my_rolling byte_perplexity"] == pytest.approx(np.exp(-bits), rel=1e-4)

    gone = (workdir / "tasks/choice.yaml").read_text().replace("data.jsonl", "gone.jsonl")
    (workdir / "tasks/gone.yaml").write_text(gone.replace("my_choice", "my_gone"))
    capsys.readouterr()
    for names, results in (["my_gone"], 0), (["my_gone", "my_choice"], 1):
        asked = ["--tasks", *names, "--include", "tasks", "--output", "again", "--quiet"]
        assert main(["eval", "lm", "--checkpoint", str(book), *asked]) == 2
        out, err = capsys.readouterr()
        last = err.splitlines()[-1]
        assert last.startswith("titans-seq: not run, because the data cannot be read or downloaded: my_gone (")
        assert "gone.jsonl" in last and ("my_choice" in out) == bool(results)
        assert len(list(Path("again").glob("*.json"))) == results


# wrong input ----------------------------------------------------------------------------------------------------------


LEARN = ["fit", "lm", "--text", "BOOK"]
SAY = ["generate", "lm", "--checkpoint", "RUN", "--prompt"]
JUDGE = ["eval", "lm", "--checkpoint", "RUN"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "lm"], "--text is missing"),
        (["fit", "lm", "--text", "none.txt"], "no file"),
        ([*LEARN, "--variant", "rnn"], "--variant must be one of lmm, mac, mag, mal, transformer"),
        ([*LEARN, "--size", "9b"], "--size must be one of 170m, 340m, 400m, 760m; got 9b"),
        ([*LEARN, "--size", "170m"], "too few for a window of 4096"),
        ([*LEARN, "--size", "170m", "data.length=16", "model.segment=0"], "segment must be"),
        ([*LEARN, "--length", "5000"], "too few for a window of 5000"),
        ([*LEARN, "--carry", "4", "--variant", "transformer"], "model.window=128"),
        ([*LEARN, "--carry", "4", "--length", "16", "trainer.devices=2"], "trains on one device"),
        ([*LEARN, "--task", "passkey"], "--text and --task exclude each other"),
        (["fit", "lm", "--task", "passkey", "--vocab-size", "300"], "--task and --vocab-size exclude each other"),
        (["fit", "lm", "--task", "passkey", "--carry", "4"], "--task and --carry exclude each other"),
        (["fit", "lm", "--text", "."], "is a folder; give a file"),
        ([*LEARN, "--vocab-size", "999999999"], "data.vocab_size must be"),
        ([*LEARN, "--length", "16", "model.dim=-8"], "model.dim must be between 0 and 65536; got -8"),
        ([*LEARN, "--length", "16", "training.weight_decay=-1"], "weight_decay must be"),
        ([*LEARN, "--length", "16", "training.final_rate=7"], "final_rate must be in [0, 1]"),
        ([*LEARN, "trainer.accumulate_grad_batches=0"], "accumulate_grad_batches=0"),
        ([*LEARN, "trainer.gradient_clip_val=-1"], "gradient_clip_val=-1"),
        ([*LEARN, "++trainer.gradient_clip_val=abc"], "gradient_clip_val=abc"),
        ([*LEARN, "++trainer.accumulate_grad_batches=null"], "accumulate_grad_batches=None"),
        ([*LEARN, "--tokenizer", "BOOK"], "book.txt is not a tokenizer.json"),
        ([*LEARN, "data.length=16.5"], "length must be a whole number; got 16.5"),
        (["fit", "lm", "--task", "riddle"], "task must be one of passkey"),
        ([*LEARN, "--tokenizer", "none.json"], "no tokenizer at"),
        ([*LEARN, "--vocab-size", "10"], "must have 257"),
        ([*LEARN, "model.segments=8"], "did you mean 'model.segment'"),
        ([*LEARN, "model.segment=0", "--length", "16"], "segment must be >= 1"),
        (["generate", "lm", "--checkpoint", "none", "--prompt", "a"], "no run folder none"),
        ([*SAY, ""], "prompt must be at least one token"),
        ([*SAY, "a", "--top-p", "2"], "top_p in (0, 1]"),
        ([*SAY, "a", "--state", "none"], "no state file at none"),
        (
            ["generate", "lm", "--checkpoint", "RUN/model/config.json", "--prompt", "a"],
            "config.json is a file; give the run folder",
        ),
        (JUDGE, "one of the two"),
        ([*JUDGE, "--text", "none.txt"], "no file"),
        ([*JUDGE, "--text", "BOOK", "--lengths", "16"], "--lengths goes with tasks by length"),
        ([*JUDGE, "--text", "BOOK", "--limit", "1"], "--limit goes with tasks of lm-eval"),
        ([*JUDGE, "--tasks", "nosuch", "--seed", "1"], "--seed goes with tasks by length"),
        ([*JUDGE, "--tasks", "parity", "--output", "RUN/config.yaml"], "is a file"),
        (["eval", "lm", "--checkpoint", "none", "--text", "BOOK", "--output", "new/deep/x"], "no run folder none"),
        ([*JUDGE, "--text", "BOOK", "--output", "."], "is a folder; give a file"),
        ([*SAY, "a", "--save-state", "."], "is a folder; give a file"),
        ([*SAY, "", "--save-state", "new/deep/x"], "at least one token"),
        ([*JUDGE, "--tasks", "passkey", "--lengths", "20"], "length must be at least 160"),
    ],
)
def test_one_line_for_wrong_input(words: list[str], message: str, book: Path, files: Path, refused: Refused) -> None:
    places = {
        "BOOK": str(files / "book.txt"),
        "RUN": str(book),
        "RUN/config.yaml": str(book / "config.yaml"),
        "RUN/model/config.json": str(book / "model/config.json"),
    }
    assert message in refused([places.get(word, word) for word in words])


def test_a_full_disk_leaves_the_old_state(book: Path, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", "lm", "--checkpoint", str(book), "--prompt", "the ", "--tokens", "1", "--save-state", "talk"]
    assert main(words) == 0
    before = (workdir / "talk").read_bytes()
    capsys.readouterr()
    with no_file_beyond(1000):
        assert main(words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "cannot write or read (talk): File too large" in err
    assert (workdir / "talk").read_bytes() == before and [path.name for path in workdir.iterdir()] == ["talk"]


@pytest.mark.parametrize("how", ["nan", "double", "turned"])
def test_states_that_no_model_makes(how: str, book: Path, workdir: Path, refused: Refused) -> None:
    words = ["generate", "lm", "--checkpoint", str(book), "--prompt", "the ", "--tokens", "1"]
    assert main([*words, "--save-state", "talk"]) == 0
    tensors, header = read_tensors(Path("talk"))
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    changes = {"nan": tensors[name] * float("nan"), "double": tensors[name].double(), "turned": tensors[name].mT}
    write_tensors(Path("talk"), tensors | {name: changes[how]}, header)
    refused([*words, "--state", "talk"])


def test_a_state_of_another_model(book: Path, files: Path, workdir: Path, refused: Refused) -> None:
    words = ["generate", "lm", "--checkpoint", str(book), "--prompt", "the ", "--tokens", "1", "--save-state", "talk"]
    assert main(words) == 0
    assert main(_fit(files, "o", "--length", "16", "--seed", "1", "--epochs", "1", *SMALL)) == 0
    said = refused(["generate", "lm", "--checkpoint", "o", "--prompt", "a", "--state", "talk"])
    assert "talk is the state of another model" in said


def test_a_vocabulary_that_lacks_the_prompt(files: Path, workdir: Path, refused: Refused) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = [*sorted(set(TEXT.replace(".", " .").split())), "[UNK]"]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    (workdir / "words.json").write_text(words.to_str())
    assert main(_fit(files, "run", "--tokenizer", "words.json", "--length", "8", "--epochs", "1", *SMALL)) == 0
    (workdir / "other.txt").write_text("the dog " * 50)
    generate, evaluate = ([verb, "lm", "--checkpoint", "run"] for verb in ("generate", "eval"))
    for command in ([*generate, "--prompt", "dog"], [*evaluate, "--text", "other.txt"]):
        assert "the vocabulary lacks a part of the text" in refused(command)
    (workdir / "run/model/tokenizer.json").write_text(train_bpe([TEXT], 260).to_json())
    sign(workdir / "run/model")
    assert "the tokenizer has 260 tokens, the model" in refused([*generate, "--prompt", "the"])


def test_tasks_of_bytes_and_a_model_of_something_else(pairs: Path, refused: Refused) -> None:
    said = refused(["eval", "lm", "--checkpoint", str(pairs), "--tasks", "passkey"])
    assert "passkey is made of bytes" in said and "has another tokenizer" in said


def test_an_unfinished_run(book: Path, workdir: Path, refused: Refused) -> None:
    shutil.copytree(book, "run")
    shutil.rmtree("run/model")
    words = ["eval", "lm", "--checkpoint", "run", "--text", "a"]
    assert "run is finished, but its model/ is gone" in refused(words)
    Path("run/metrics.json").unlink()
    assert "go on with: titans-seq fit lm --output run --resume" in refused(words)


def test_a_case_that_the_kernels_do_not_cover(files: Path, refused: Refused) -> None:
    small = [word for word in SMALL if not word.startswith("model.chunk_size")]
    said = refused(_fit(files, "run", "--length", "16", *small, "model.backend=triton", "model.chunk_size=128"))
    assert "does not cover chunk_size 128" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run here")
def test_kernels_where_they_cannot_run(
    book: Path, files: Path, workdir: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # tests interpret them
    said = refused(_fit(files, "run", "--length", "16", "model.backend=triton", *SMALL))
    assert 'model.backend="triton" cannot run here' in said
    shutil.copytree(book / "model", "model")
    config = json.loads(Path("model/config.json").read_text())
    config["model"]["backend"] = "triton"
    Path("model/config.json").write_text(json.dumps(config))
    sign(Path("model"))
    said = refused(["generate", "lm", "--checkpoint", "model", "--prompt", "a"])
    assert "cannot run here" in said and "model/config.json asks for it" in said


def test_a_run_of_another_task(workdir: Path, refused: Refused) -> None:
    (workdir / "run").mkdir()
    (workdir / "run/config.yaml").write_text("task: dna\n")
    assert "run holds a DNA classifier (titans-seq fit dna); this needs a language model of text" in refused(
        ["generate", "lm", "--checkpoint", "run", "--prompt", "a"]
    )
