"""The DNA commands end to end on small files: runs, what they write, what they refuse."""

import csv
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from titans_seq.cli.checkpoints import load_checkpoint
from titans_seq.cli.main import main
from titans_seq.datamodules.genomics.alphabet import encode
from titans_seq.genomics import DNAEncoder, DNALanguageModel
from titans_seq.genomics.scoring import log_likelihood

Refused = Callable[[list[str]], str]
SMALL = ["model.dim=8", "model.heads=1", "model.layers=1", "data.batch_size=16", "trainer.max_epochs=2", "--quiet"]


def _letters(length: int, seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def _rows(count: int, seed: int, classes: tuple[str, ...] = ("no", "yes")) -> list[tuple[str, str]]:
    """The word TATAAA stands in sequences of the last class."""
    rows = []
    for i in range(count):
        label, letters = classes[i % len(classes)], _letters(30 + i % 5, seed + i)
        rows.append((f"{letters[:10]}TATAAA{letters[16:]}" if label == classes[-1] else letters, label))
    return rows


def _csv(path: Path, rows: list[tuple[str, str]], header: str = "sequence,label") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.csv, test.csv, genome.fa with two records, variants.vcf, variants.csv."""
    folder = tmp_path_factory.mktemp("dna")
    _csv(folder / "train.csv", _rows(60, 0))
    _csv(folder / "test.csv", _rows(20, 1000))
    one, two = _letters(1500, 7), _letters(700, 8)
    (folder / "genome.fa").write_text(f">one\n{one}\n>two some words\n{two.lower()}\n")
    ref = one[499]
    alt = "A" if ref != "A" else "C"
    (folder / "variants.vcf").write_text(
        f"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        f"one\t500\ta\t{ref}\t{alt}\t.\t.\t.\none\t500\tb\t{ref}\t{ref}GG\t.\t.\t.\n"
    )
    _csv(folder / "variants.csv", [("one", "500", ref, alt)], "record,position,ref,alt")  # type: ignore[list-item]
    return folder


@pytest.fixture(scope="session")
def train(files: Path) -> Callable[..., Path]:
    """Train in a folder beside the files, on train.csv and test.csv or on genome.fa."""

    def trained(name: str, verb: str, *words: str) -> Path:
        classify = ["--csv", str(files / "train.csv"), "--test-csv", str(files / "test.csv")]
        source = classify if verb == "fit" else ["--fasta", str(files / "genome.fa"), "--length", "64"]
        assert main([verb, "dna", *source, "--output", str(files / name), "--quiet", *words]) == 0
        return files / name

    return trained


# finished runs; tests must not change them


@pytest.fixture(scope="session")
def classifier(train: Callable[..., Path]) -> Path:
    return train("classifier", "fit", *SMALL)


@pytest.fixture(scope="session")
def kmer(train: Callable[..., Path]) -> Path:
    return train("kmer", "fit", "--model", "kmer")


@pytest.fixture(scope="session")
def language_model(train: Callable[..., Path]) -> Path:
    return train("language_model", "pretrain", *SMALL)


@pytest.fixture(scope="session")
def masked_model(train: Callable[..., Path]) -> Path:
    return train("masked", "pretrain", "--objective", "masked", *SMALL)


def _table(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _metrics(folder: Path, name: str = "metrics.json") -> dict:
    return json.loads((folder / name).read_text())


# fit ------------------------------------------------------------------------------------------------------------------


def test_a_classifier_run_is_complete(classifier: Path) -> None:
    names = {str(path.relative_to(classifier)) for path in classifier.rglob("*") if path.is_file()}
    pictures = {"training.png", "confusion.png", "roc.png"}
    assert {"config.yaml", "metrics.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} | pictures <= names
    metrics = _metrics(classifier)
    assert (metrics["classes"], metrics["model"], metrics["selected_on"]) == ("no, yes", "memory", "val_mcc")
    assert (metrics["train_sequences"], metrics["val_sequences"], metrics["test_sequences"]) == (54, 6, 20)
    assert "tenth of the training rows" in metrics["split"] and "test: as given" in metrics["split"]
    assert {f"{part}_{name}" for part in ("val", "test") for name in ("accuracy", "mcc", "auroc", "f1")} <= set(metrics)
    assert metrics["test_sequences_in_train"] == 0 and 0 <= metrics["length_only_accuracy"] <= 1
    checkpoint = torch.load(classifier / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["DNAClassData"]["class_names"] == ["no", "yes"]


def test_the_baseline_is_fitted_tested_and_used(kmer: Path, files: Path, workdir: Path) -> None:
    shutil.copytree(kmer, "k")
    metrics = _metrics(kmer)
    assert metrics["model"] == "kmer" and metrics["selected_on"] == "nothing"
    assert main(["test", "dna", "--checkpoint", "k", "--quiet"]) == 0
    assert _metrics(Path("k"), "test_metrics.json")["test_mcc"] == pytest.approx(metrics["test_mcc"])
    assert main(["predict", "dna", "--checkpoint", "k", "--csv", str(files / "test.csv"), "--quiet"]) == 0
    assert len((Path("k") / "predictions-test.csv").read_text().splitlines()) == 21


def test_the_default_needs_no_data(workdir: Path) -> None:
    limits = [f"trainer.limit_{part}_batches=1" for part in ("train", "val", "test")]
    assert main(["fit", "dna", *SMALL, *limits]) == 0
    assert (Path("runs") / "dna" / "embedded-memory-s0" / "metrics.json").is_file()


@pytest.mark.parametrize("model", ["mag", "attention", "gated_deltanet"])
def test_other_mixers_are_trained(model: str, files: Path, workdir: Path) -> None:
    assert main(["fit", "dna", "--csv", str(files / "train.csv"), "--model", model, "--rc", "average", *SMALL]) == 0
    metrics = _metrics(Path(f"runs/dna/train-{model}-s0"))
    assert metrics["model"] == model and metrics["strands"] == "augment true, rc average"


@pytest.mark.parametrize("pretrained", ["masked_model", "language_model"])
def test_a_classifier_begins_with_a_pretrained_encoder(
    pretrained: str, request: pytest.FixtureRequest, files: Path, workdir: Path
) -> None:
    """Both readers of a classifier begin as the one of a causal model."""
    origin: Path = request.getfixturevalue(pretrained)
    words = ["--csv", str(files / "train.csv"), "--from", str(origin), "--output", "tuned", "--quiet"]
    frozen = ["training.learning_rate=0", "training.weight_decay=0", "--epochs", "1"]
    assert main(["fit", "dna", *words, *frozen]) == 0
    tuned, begun = (
        torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for folder in (Path("tuned"), origin)
    )
    same = [name for name in begun if name.startswith("network.encoder.")]
    assert len(same) > 10 and all(torch.equal(tuned[name], begun[name]) for name in same)
    for name in (name for name in same if pretrained == "language_model" and ".mixer." in name):
        assert torch.equal(tuned[name.replace(".mixer.", ".backward_mixer.")], begun[name])
    assert OmegaConf.load("tuned/config.yaml").model.bidirectional is True
    assert main(["test", "dna", "--checkpoint", "tuned", "--quiet"]) == 0


def test_folds_partition_the_file(files: Path, workdir: Path) -> None:
    words = ["--csv", str(files / "train.csv"), "--model", "kmer", "--quiet", "data.folds=3"]
    for fold in range(3):
        assert main(["fit", "dna", *words, f"data.fold={fold}"]) == 0
    folders = [Path(f"runs/dna/train-kmer-s0-fold{fold}") for fold in range(3)]
    assert sum(_metrics(folder)["test_sequences"] for folder in folders) == 60


def test_a_resumed_run_ends_as_if_never_interrupted(classifier: Path, workdir: Path) -> None:
    """Interrupted after its last epoch; resuming inside a training is tested with the forecaster, by the same code."""
    shutil.copytree(classifier, "run")
    (Path("run") / "metrics.json").unlink()
    assert main(["fit", "dna", "--output", "run", "--resume", "--quiet"]) == 0
    for name in ("test_mcc", "val_mcc", "test_auroc"):
        assert _metrics(Path("run"))[name] == pytest.approx(_metrics(classifier)[name])


def test_the_baseline_cannot_be_resumed_and_stays_whole(
    kmer: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(kmer, "k")
    assert main(["fit", "dna", "--output", "k", "--resume", "--epochs", "20"]) == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert _metrics(Path("k")) == _metrics(kmer)
    # it begins again when it was killed
    (Path("k") / "metrics.json").unlink()
    assert main(["fit", "dna", "--output", "k", "--resume", "--quiet"]) == 0
    assert _metrics(Path("k"))["test_mcc"] == _metrics(kmer)["test_mcc"]


def test_testing_again_a_run_that_drew_its_test_split(files: Path, workdir: Path) -> None:
    words = ["--csv", str(files / "train.csv"), "--model", "kmer", "--output", "k", "--quiet", "data.folds=3"]
    assert main(["fit", "dna", *words, "data.fold=1"]) == 0
    assert main(["test", "dna", "--checkpoint", "k", "--quiet"]) == 0
    first, again = _metrics(Path("k")), _metrics(Path("k"), "test_metrics.json")
    assert first["test_sequences"] == again["test_sequences"] == 20 and first["test_mcc"] == again["test_mcc"]


def test_records_are_held_out_by_name(files: Path, workdir: Path) -> None:
    (workdir / "three.fa").write_text("".join(f">r{i}\n{_letters(200, i)}\n" for i in range(3)))
    words = ["--fasta", "three.fa", "--length", "64", "--output", "run", *SMALL]
    held_out = ["data.val_records=[r1]", "data.test_records=[r2]"]
    assert main(["pretrain", "dna", *words, *held_out]) == 0
    assert [_metrics(Path("run"))[f"{part}_bases"] for part in ("train", "val", "test")] == [200, 200, 200]


def test_a_pretraining_on_streams(files: Path, workdir: Path) -> None:
    words = ["--fasta", str(files / "genome.fa"), "--length", "64", "--carry", "3", "--output", "run"]
    words += ["model.dim=8", "model.heads=1", "model.layers=1", "data.batch_size=2", "--epochs", "1", "--quiet"]
    assert main(["pretrain", "dna", *words]) == 0
    assert main(["pretrain", "dna", "--output", "run", "--resume", "--epochs", "2", "--quiet"]) == 0
    metrics = _metrics(Path("run"))
    assert (metrics["epochs"], metrics["carried_windows"]) == (2, 3)
    assert metrics["test_bits"] < 2.5


def test_a_pretraining_goes_on_by_its_folder_alone(files: Path, workdir: Path) -> None:
    """What Ctrl-C tells to type, with more epochs."""
    small = [word for word in SMALL if not word.startswith("trainer.max")]
    words = ["--fasta", str(files / "genome.fa"), "--length", "64", "--output", "run", *small, "--epochs", "1"]
    assert main(["pretrain", "dna", *words]) == 0
    assert main(["pretrain", "dna", "--output", "run", "--resume", "--epochs", "2", "--quiet"]) == 0
    assert _metrics(Path("run"))["epochs"] == 2


def test_a_run_from_weights_that_was_killed_before_its_first_checkpoint(
    language_model: Path, files: Path, workdir: Path
) -> None:
    words = ["--csv", str(files / "train.csv"), "--from", str(language_model), "--output", "whole", "--quiet"]
    assert main(["fit", "dna", *words, "--epochs", "1"]) == 0
    shutil.copytree("whole", "cut")
    shutil.rmtree("cut/checkpoints")
    Path("cut/metrics.json").unlink()
    assert main(["fit", "dna", "--output", "cut", "--resume", "--quiet"]) == 0
    whole, cut = (load_checkpoint(Path(name, "checkpoints/best.ckpt"))["state_dict"] for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole.keys() | cut.keys())


# a finished classifier ------------------------------------------------------------------------------------------------


def test_predict_writes_probabilities(classifier: Path, files: Path, workdir: Path) -> None:
    sequences = _csv(workdir / "new.csv", [("x1", _letters(25, 1)), ("", _letters(31, 2))], "id,sequence")
    assert main(["predict", "dna", "--checkpoint", str(classifier), "--csv", str(sequences), "--output", "p.csv"]) == 0
    rows = _table("p.csv")
    assert [row["id"] for row in rows] == ["x1", "2"]
    for row in rows:
        assert float(row["p_no"]) + float(row["p_yes"]) == pytest.approx(1, abs=1e-5)
        assert row["prediction"] == ("no" if float(row["p_no"]) >= float(row["p_yes"]) else "yes")
    fasta = ["--fasta", str(files / "genome.fa"), "--output", "f.csv"]
    assert main(["predict", "dna", "--checkpoint", str(classifier), *fasta]) == 0
    assert [row["id"] for row in _table("f.csv")] == ["one", "two"]


def test_both_strands_predict_the_same_with_rc(classifier: Path, workdir: Path) -> None:
    letters = _letters(40, 3)
    other = letters[::-1].translate(str.maketrans("ACGT", "TGCA"))
    sequences = _csv(workdir / "two.csv", [("a", letters), ("b", other)], "id,sequence")
    words = ["--checkpoint", str(classifier), "--csv", str(sequences), "--rc", "average", "--output", "p.csv"]
    assert main(["predict", "dna", *words]) == 0
    first, second = (float(row["p_yes"]) for row in _table("p.csv"))
    assert first == pytest.approx(second, abs=2e-6)


def test_testing_again_gives_the_same_numbers(classifier: Path, files: Path, workdir: Path) -> None:
    shutil.copytree(classifier, "run")
    assert main(["test", "dna", "--checkpoint", "run", "--quiet"]) == 0
    assert main(["test", "dna", "--checkpoint", "run", "--csv", str(files / "test.csv"), "--quiet"]) == 0
    first, again, own = (
        _metrics(Path("run"), name) for name in ("metrics.json", "test_metrics.json", "test-test/metrics.json")
    )
    assert own["test_sequences_in_train"] == 0
    for name in ("test_mcc", "test_accuracy", "test_auroc", "test_f1"):
        assert first[name] == pytest.approx(again[name]) == pytest.approx(own[name])


def test_testing_on_what_was_trained_on_is_told(classifier: Path, files: Path, workdir: Path) -> None:
    shutil.copytree(classifier, "run")
    words = ["test", "dna", "--checkpoint", "run", "--csv", str(files / "train.csv"), "--quiet"]
    for place in ("test-train", "test-train-2"):  # the first is kept
        assert main(words) == 0
        assert {path.name for path in Path("run", place).iterdir()} == {"metrics.json", "confusion.png", "roc.png"}
    trained = _metrics(classifier)["train_sequences"]
    assert _metrics(Path("run/test-train"))["test_sequences_in_train"] == trained
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("train.csv", "gone.csv"))
    assert main(words) == 0
    assert _metrics(Path("run/test-train-3"))["test_sequences_in_train"] == "unknown"


def test_results_are_not_written_over(language_model: Path, files: Path, workdir: Path) -> None:
    shutil.copytree(language_model, "run")
    words = ["score", "dna", "--checkpoint", "run", "--fasta", str(files / "genome.fa"), "--window", "32", "--quiet"]
    assert main([*words, "--csv", str(files / "variants.csv")]) == 0
    first = Path("run/scores-variants.csv").read_text()
    assert main([*words, "--vcf", str(files / "variants.vcf")]) == 0
    assert Path("run/scores-variants.csv").read_text() == first
    assert len(_table("run/scores-variants-2.csv")) == 2


@pytest.mark.parametrize("run", ["classifier", "language_model", "masked_model"])
def test_embeddings_are_one_row_per_sequence_or_base(run: str, request: pytest.FixtureRequest, files: Path) -> None:
    folder, genome = request.getfixturevalue(run), str(files / "genome.fa")
    words = ["embed", "dna", "--checkpoint", str(folder), "--fasta", genome]
    assert main([*words, "--output", "mean.npz"]) == 0
    assert main([*words, "--pooling", "none", "--output", "base.npz"]) == 0
    mean, base = np.load("mean.npz"), np.load("base.npz")
    assert list(mean["ids"]) == ["one", "two"] and mean["embeddings"].shape == (2, 8)
    assert list(base["offsets"]) == [0, 1500, 2200] and base["embeddings"].shape == (2200, 8)
    by_hand = np.stack([part.mean(axis=0) for part in np.split(base["embeddings"], base["offsets"][1:-1])])
    np.testing.assert_allclose(by_hand, mean["embeddings"], atol=1e-5)


# a finished language model --------------------------------------------------------------------------------------------


def test_a_pretraining_run_is_complete(language_model: Path) -> None:
    metrics = _metrics(language_model)
    assert (metrics["objective"], metrics["model"], metrics["window"]) == ("next", "memory", 64)
    assert metrics["train_bases"] + metrics["val_bases"] + metrics["test_bases"] == 2200
    assert 1.5 < metrics["test_bits"] < 2.5 and (language_model / "training.png").is_file()


def test_scores_are_differences_of_log_likelihoods(language_model: Path, files: Path, workdir: Path) -> None:
    words = ["--checkpoint", str(language_model), "--fasta", str(files / "genome.fa"), "--window", "101"]
    assert main(["score", "dna", *words, "--vcf", str(files / "variants.vcf"), "--output", "vcf.csv"]) == 0
    assert main(["score", "dna", *words, "--csv", str(files / "variants.csv"), "--output", "csv.csv"]) == 0
    rows = _table("vcf.csv")
    assert [row["id"] for row in rows] == ["a", "b"] and all(row["position"] == "500" for row in rows)
    assert _table("csv.csv")[0]["score"] == rows[0]["score"]
    model = _loaded(language_model)
    window = (files / "genome.fa").read_text().split("\n")[1][449:550]
    scores = []
    for strand in (str, lambda letters: letters[::-1].translate(str.maketrans("ACGT", "TGCA"))):
        total = []
        for letters in (window, window[:50] + rows[0]["alt"] + window[51:]):
            tokens = torch.from_numpy(encode(strand(letters)))[None].long()
            total.append(log_likelihood(model(tokens)[0], tokens).sum().item())
        scores.append(total[1] - total[0])
    assert [float(rows[0][name]) for name in ("forward", "reverse")] == pytest.approx(scores, abs=1e-4)


def _loaded(folder: Path) -> DNALanguageModel:
    options = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml").model)
    del options["_target_"]  # type: ignore[union-attr, operator]
    model = DNALanguageModel(DNAEncoder(**options))  # type: ignore[arg-type]
    weights = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
    return model.eval()


def test_records_of_odd_names_have_pictures(
    language_model: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["[/red]$x_$\x1b[31m", "n" * 300, "../up"]
    Path("odd.fa").write_text("".join(f">{name}\n{_letters(200, 5)}\n" for name in names))
    words = ["--checkpoint", str(language_model), "--fasta", "odd.fa", "--bedgraph", "odd.bedgraph", "--quiet"]
    assert main(["surprise", "dna", *words]) == 0
    out = capsys.readouterr().out
    assert r"[/red]$x_$\x1b[31m" in out and "\x1b" not in out
    assert len(list(workdir.glob("odd-*.png"))) == 3


@pytest.mark.parametrize("track", ["surprise", "bits"])
def test_a_genome_is_read_in_one_stream(track: str, language_model: Path, files: Path, workdir: Path) -> None:
    words = ["--checkpoint", str(language_model), "--fasta", str(files / "genome.fa"), "--bedgraph", "out/s.bedgraph"]
    assert main(["surprise", "dna", *words, "--track", track, "--bin", "100"]) == 0
    head, *rows = Path("out/s.bedgraph").read_text().splitlines()
    assert head.startswith("track type=bedGraph")
    rows = [row.split("\t") for row in rows]
    assert [(row[0], int(row[1]), int(row[2])) for row in rows] == [
        (name, begin, begin + 100) for name, length in (("one", 1500), ("two", 700)) for begin in range(0, length, 100)
    ]
    assert {path.name for path in Path("out").iterdir()} == {"s.bedgraph", "s-one.png", "s-two.png"}
    if track == "bits":
        tokens = torch.from_numpy(encode((files / "genome.fa").read_text().split("\n")[1]))[None].long()
        bits = -log_likelihood(_loaded(language_model)(tokens)[0], tokens)[0] / np.log(2)
        assert float(rows[3][3]) == pytest.approx(float(bits[300:400].mean().detach()), abs=1e-4)


def test_another_genome_is_tested_whole(language_model: Path, files: Path, workdir: Path) -> None:
    shutil.copytree(language_model, "run")
    (workdir / "other.fa").write_text(f">x\n{_letters(300, 9)}\n")
    assert main(["test", "dna", "--checkpoint", "run", "--fasta", "other.fa", "--quiet"]) == 0
    metrics = _metrics(Path("run"), "test-other/metrics.json")
    assert metrics["test_bases"] == 300 and metrics["split"] == "the whole file"


# refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("ACGTX", "a"), ("ACGT", "b")], "line 2: 'X' at position 5 is not a base"),
        ([("", "a"), ("ACGT", "b")], "line 2 has no sequence"),
        ([("ACGT", ""), ("ACGT", "b")], "line 2 has no label"),
        ([("ACGT", "a"), ("ACGT", "a")], "at least two classes"),
        ([("ACGT", "a"), ("AGGT", "b")], "too few to split"),
    ],
)
def test_bad_rows_are_refused(rows: list[tuple[str, str]], said: str, refused: Refused, workdir: Path) -> None:
    path = _csv(workdir / "bad.csv", rows)
    assert said in refused(["fit", "dna", "--csv", str(path), *SMALL])


def test_labels_that_training_lacks_are_refused(files: Path, classifier: Path, refused: Refused, workdir: Path) -> None:
    path = _csv(workdir / "bad.csv", [("ACGT", "maybe"), ("ACGT", "no")])
    words = ["--csv", str(files / "train.csv"), "--test-csv", str(path)]
    said = refused(["fit", "dna", *words, *SMALL])
    assert "class maybe of sequence 1 is not among those of training, no, yes" in said
    said = refused(["test", "dna", "--checkpoint", str(classifier), "--csv", str(path)])
    assert "class maybe of sequence 1 is not among those of training" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (">a\nACGT\n>a\nACGT\n", "a"),
        (">a\n>b\nACGT\n", "record a is empty"),
        ("ACGT\n", "FASTA"),
        (f">a\n{'ACGT' * 100}XA\n", "'X' at position 401"),
    ],
    ids=["duplicate", "empty", "no FASTA", "letter"],
)
def test_bad_genomes_are_refused(text: str, said: str, capsys: pytest.CaptureFixture[str], workdir: Path) -> None:
    (workdir / "bad.fa").write_text(text)
    assert main(["pretrain", "dna", "--fasta", "bad.fa", "--length", "32", *SMALL, "--output", "run"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error and "bad.fa" in error
    assert not Path("run").exists()


def test_plain_gzip_is_refused(workdir: Path, refused: Refused) -> None:
    with gzip.open(workdir / "genome.fa.gz", "wt") as file:
        file.write(">a\nACGT\n")
    assert "bgzip" in refused(["pretrain", "dna", "--fasta", "genome.fa.gz"])


def test_intervals_past_the_end_are_refused(files: Path, workdir: Path, refused: Refused) -> None:
    (workdir / "bad.bed").write_text("one\t0\t100\ttrain\none\t1400\t1501\ttest\n")
    said = refused(["pretrain", "dna", "--fasta", str(files / "genome.fa"), "--bed", "bad.bed"])
    assert "1500" in said


def test_a_reference_that_does_not_match_is_refused(
    language_model: Path, files: Path, workdir: Path, refused: Refused
) -> None:
    letters = (files / "genome.fa").read_text().split("\n")[1]
    wrong = "ACGT"[("ACGT".index(letters[9]) + 1) % 4]
    path = _csv(workdir / "v.csv", [("one", "10", wrong, letters[9])], "record,position,ref,alt")  # type: ignore[list-item]
    words = ["--checkpoint", str(language_model), "--fasta", str(files / "genome.fa"), "--csv", str(path)]
    said = refused(["score", "dna", *words])
    assert f"has {letters[9]}" in said and "position 10" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrain", "dna"], "--fasta is missing"),
        (["pretrain", "dna", "--fasta", "none.fa"], "none.fa"),
        (["pretrain", "dna", "--fasta", "x.fa", "--model", "kmer"], "classifier"),
        (["pretrain", "dna", "--fasta", "x.fa", "--carry", "4", "--objective", "masked"], "--objective next"),
        (["pretrain", "dna", "--fasta", "x.fa", "--carry", "4", "--model", "attention"], "model.window=128"),
        (["fit", "dna", "--csv", "a.csv", "--dataset", "embedded"], "exclude each other"),
        (["fit", "dna", "--csv", "a.txt"], "must be one of"),
        (["fit", "dna", "--dataset", "human_nontata_promoter"], "did you mean 'human_nontata_promoters'"),
        (["fit", "dna", "--model", "lstm"], "unknown model"),
        (["fit", "dna", "model.dephts=3"], "unknown override"),
        (["fit", "dna", "--from", "nowhere"], "no run folder"),
        (["fit", "dna", "data.stranded=true", "--rc", "average"], "is stranded"),
        (["fit", "dna", "data=bed"], "data.bed"),
        (["fit", "dna", "--model", "mag", "--from", "x"], "exclude each other"),
        (["fit", "dna", "data.whole=true"], "whole"),
        (["fit", "dna", "data.protocol=hyena_testselect"], "named data set"),
        (["fit", "dna", "model.layers=0"], "layers must be >= 1; got 0"),
        (["score", "dna", "--checkpoint", "nowhere", "--fasta", "x.fa"], "no run folder"),
    ],
)
def test_commands_that_cannot_be_done_are_refused(words: list[str], said: str, refused: Refused) -> None:
    assert said in refused(words)


def test_runs_of_the_wrong_kind_are_refused(
    classifier: Path, masked_model: Path, files: Path, refused: Refused
) -> None:
    genome = ["--fasta", str(files / "genome.fa")]
    surprise = ["surprise", "dna", *genome, "--bedgraph", "s.bedgraph", "--checkpoint"]
    said = refused([*surprise, str(classifier)])
    needed = "a DNA language model (titans-seq pretrain dna)"
    assert f"holds a DNA classifier (titans-seq fit dna); this needs {needed}" in said
    assert "masked model, which has no stream" in refused([*surprise, str(masked_model)])
    scores = ["score", "dna", *genome, "--vcf", str(files / "variants.vcf"), "--checkpoint", str(masked_model)]
    assert "single bases only" in refused(scores)
    embed = ["embed", "dna", "--checkpoint", str(classifier), *genome]
    assert "--layer must be at most 1" in refused([*embed, "--layer", "2"])
    assert "labels" in refused(["test", "dna", "--checkpoint", str(classifier), *genome])


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run here")
@pytest.mark.parametrize("verb", ["test", "embed"])
def test_a_run_whose_kernels_cannot_run_here(
    verb: str, language_model: Path, files: Path, refused: Refused, with_triton: Callable[[Path], str]
) -> None:
    words = ["--csv", str(files / "test.csv")] if verb == "embed" else []
    said = refused([verb, "dna", "--checkpoint", with_triton(language_model), *words])
    assert "cannot run here" in said and "run/config.yaml asks for it" in said
