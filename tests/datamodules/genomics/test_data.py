"""DNA data: batches, parts drawn without a sequence in two of them, classes fixed by training, windows of a genome."""

from itertools import chain, combinations

import numpy as np
import pytest
import torch

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics import benchmarks as genomic_benchmarks
from titans_seq.datamodules.genomics import data as dna
from titans_seq.datamodules.genomics.alphabet import PAD, decode, encode
from titans_seq.datamodules.genomics.batches import TokenDataset, collate
from titans_seq.datamodules.genomics.benchmarks import BenchmarkSpec
from titans_seq.datamodules.genomics.data import DNAClassData, GenomeData
from titans_seq.datamodules.genomics.embedded import embedded_dna
from titans_seq.datamodules.genomics.labelled import read_sequences
from titans_seq.genomics.kmer import KmerClassifier

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
PARTS = ("train", "val", "test")


def other_strand(text):
    return text.translate(COMPLEMENT)[::-1]


def one_strand(text):
    """The same for both strands."""
    return min(text, other_strand(text))


def texts(count, length=20, seed=0):
    random = np.random.default_rng(seed)
    return ["".join(random.choice(list("ACGT"), length)) for _ in range(count)]


def text_of(tokens):
    return decode(torch.as_tensor(tokens))


def rows_of(part):
    """(sequence, class) of a part."""
    return [(text_of(t), part.class_names[i]) for t, i in zip(part.tokens, part.labels, strict=True)]


def all_rows(data):
    return [row for part in data.splits.values() for row in rows_of(part)]


@pytest.fixture
def write(tmp_path):
    """Write rows of sequence and class to a CSV, text to any file; return its path."""

    def to(content, name="own.csv"):
        if not isinstance(content, str):
            content = "\n".join(["sequence,label", *(",".join(row) for row in content), ""])
        (tmp_path / name).write_text(content)
        return str(tmp_path / name)

    return to


def some_rows(a=18, b=18, seed=0):
    return [(text, "a" if i < a else "b") for i, text in enumerate(texts(a + b, seed=seed))]


def ready(*arguments, stage=None, **options):
    data = DNAClassData(*arguments, **options)
    data.setup(stage)
    return data


def refused(message, *arguments, stage=None, **options):
    """Refused in one line."""
    with pytest.raises(DataError, match=message) as error:
        ready(*arguments, stage=stage, **options)
    assert "\n" not in str(error.value)


# batches --------------------------------------------------------------------------------------------------------------


def test_a_batch_is_padded_behind_and_masked_there():
    data = TokenDataset([encode(text) for text in ("ACG", "ACGTN", "T")], np.array([2, 0, 1]))
    batch = collate([data[i] for i in range(3)])
    assert [text_of(row) for row in batch["tokens"]] == ["ACG", "ACGTN", "T"]  # pads are left out
    expected = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
    assert batch["mask"].int().tolist() == expected
    assert torch.equal(batch["tokens"] == PAD, ~batch["mask"])
    assert batch["label"].tolist() == [2, 0, 1]
    assert (batch["tokens"].dtype, batch["mask"].dtype, batch["label"].dtype) == (torch.int64, torch.bool, torch.int64)


def test_a_batch_of_one_length_has_no_mask_and_without_classes_no_label():
    data = TokenDataset([encode(text) for text in ("ACG", "TTN")])
    batch = collate([data[0], data[1]])
    assert set(batch) == {"tokens"}
    assert [text_of(row) for row in batch["tokens"]] == ["ACG", "TTN"]


# parts that are drawn -------------------------------------------------------------------------------------------------


def test_parts_are_drawn_by_seed_and_stratified(write):
    rows = some_rows(40, 20)
    first, again, other = (ready(csv=write(rows), seed=seed) for seed in (1, 1, 2))
    for part in PARTS:
        assert rows_of(first.splits[part]) == rows_of(again.splits[part])
    assert rows_of(first.splits["test"]) != rows_of(other.splits["test"])
    for data in (first, other):
        assert sorted(all_rows(data)) == sorted(rows)
        test, val = (np.bincount(data.splits[part].labels).tolist() for part in ("test", "val"))
        assert test == [4, 2]
        assert val in ([3, 2], [4, 2], [4, 1])  # 36 and 18 in ten parts
        assert (
            data.protocol_text == "test: a tenth of the rows by seed; validation: a tenth of the training rows by seed"
        )
        assert (data.class_names, data.dataset_name) == (("a", "b"), "own")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sequence_and_its_other_strand_are_in_one_part(write, seed):
    """Forty sequences, each three times: as it is, once more, and its other strand, here and there of another class."""
    random = np.random.default_rng(3)
    rows = [
        (copy, "ab"[(i + (random.random() < 0.2)) % 2])
        for i, text in enumerate(texts(40))
        for copy in (text, text.lower(), other_strand(text))
    ]
    rows = [rows[i] for i in random.permutation(len(rows))]
    data = ready(csv=write(rows), seed=seed)
    found = {part: {one_strand(text) for text, _ in rows_of(data.splits[part])} for part in PARTS}
    assert sum(len(data.splits[part].tokens) for part in PARTS) == 120
    for part in PARTS:
        assert found[part]
        assert len(data.splits[part].tokens) == 3 * len(found[part])  # all three copies of each
    assert not any(found[one] & found[two] for one, two in combinations(PARTS, 2))
    assert data.leak() == 0


def write_fasta(write, records, name="some.fa"):
    return write("".join(f">{record}\n{text}\n" for record, text in records.items()), name)


def bed_line(record, begin, end, label, strand="+"):
    return f"{record}\t{begin}\t{end}\t{label}\t0\t{strand}\n"


@pytest.mark.parametrize("seed", [0, 1])
def test_intervals_that_overlap_are_in_one_part(write, seed):
    """Chains of three on either strand: the first and the last of a chain meet through the one between only."""
    genome = {"a": texts(1, 1000)[0], "b": texts(1, 1000, seed=1)[0]}
    intervals = [
        (record, begin, begin + 20, "xy"[(begin // 50 + i) % 2], "+-"[i % 2])
        for record in genome
        for chain in range(0, 1000, 50)
        for i, begin in enumerate(range(chain, chain + 45, 15))
    ]
    bed = write("".join(bed_line(*interval) for interval in intervals), "some.bed")
    data = ready(bed=bed, fasta=write_fasta(write, genome), seed=seed)
    place = {}
    for record, begin, end, label, strand in intervals:
        text = genome[record][begin:end]
        place[text if strand == "+" else other_strand(text), label] = record, begin, end
    found = {part: [place[row] for row in rows_of(data.splits[part])] for part in PARTS}
    assert sorted(chain.from_iterable(found.values())) == sorted(place.values()) and all(found.values())
    for one, two in combinations(PARTS, 2):
        for (record, begin, end), (other, first, last) in ((x, y) for x in found[one] for y in found[two]):
            assert record != other or end <= first or last <= begin
    assert data.dataset_name == "some"


def test_intervals_of_one_sequence_are_in_one_part_though_they_are_far_from_each_other(write):
    """Of a record and its other strand; a third interval shares with the first by way of the second only."""
    text = texts(1, 1500)[0]
    places = [(record, i, 50 * i + off) for i in range(30) for record, off in (("one", 5), ("two", 5), ("two", 15))]
    lines = [
        bed_line(record, begin, begin + 20, "xy"[i % 2]) if record == "one"
        else bed_line(record, 1500 - begin - 20, 1500 - begin, "xy"[i % 2], "+-"[i % 2])
        for record, i, begin in places
    ]  # fmt: skip
    fasta = write_fasta(write, {"one": text, "two": other_strand(text)})
    data = ready(bed=write("".join(lines), "some.bed"), fasta=fasta)
    place = {one_strand(text[begin : begin + 20]): i for _, i, begin in places}
    found = {part: [place[one_strand(row)] for row, _ in rows_of(data.splits[part])] for part in PARTS}
    for part in PARTS:
        assert sorted(found[part]) == sorted(3 * list(set(found[part]))) and found[part]
    assert sorted(chain.from_iterable(found.values())) == sorted(3 * list(range(30)))


def test_folds_take_every_sequence_for_test_once(write):
    rows = [*some_rows(24, 22), (other_strand(texts(1)[0]), "a"), (texts(1)[0], "b")]
    folds = [ready(csv=write(rows), folds=3, fold=fold, seed=4) for fold in range(3)]
    assert sorted(chain.from_iterable(rows_of(data.splits["test"]) for data in folds)) == sorted(rows)
    for i, data in enumerate(folds):
        assert sorted(all_rows(data)) == sorted(rows)
        assert 14 <= len(data.splits["test"].tokens) <= 18
        assert data.leak() == 0
        assert data.protocol_text.startswith(f"test: fold {i} of 3; validation: a tenth of the training rows")


@pytest.mark.parametrize("given", [("val",), ("test",), ("val", "test")])
def test_parts_with_a_file_are_taken_as_they_are(write, given):
    """In the order of the file, though a sequence of training stands there too."""
    rows = {"train": some_rows(), "val": some_rows(3, 2, seed=1), "test": [*some_rows(1, 3, seed=2), some_rows()[0]]}
    data = ready(csv=write(rows["train"]), **{f"{part}_csv": write(rows[part], f"{part}.csv") for part in given})
    for part in given:
        assert rows_of(data.splits[part]) == rows[part]
    drawn = [row for part in PARTS if part not in given for row in rows_of(data.splits[part])]
    assert sorted(drawn) == sorted(rows["train"])
    said = dict(word.split(": ") for word in data.protocol_text.split("; "))
    assert [said[name] == "as given" for name in ("test", "validation")] == [part in given for part in ("test", "val")]
    assert (data.leak() > 0) == ("test" in given and rows["train"][0] in rows_of(data.splits["train"]))


def test_leaks_are_counted_on_either_strand(write):
    train = some_rows(10, 10)
    leaked = [train[0][0], train[0][0], other_strand(train[11][0]), train[12][0].lower()]
    test = [(text, "a") for text in [*leaked, *texts(3, seed=5), train[1][0][:-1], train[2][0][::-1]]]
    data = ready(csv=write(train), val_csv=write(some_rows(2, 2, 6), "val.csv"), test_csv=write(test, "test.csv"))
    assert data.leak() == 4


def test_too_few_rows_of_a_class(write):
    refused("own: class b has 9 different rows, too few to split in 10", csv=write(some_rows(30, 9)))
    refused("own: class b has 4 different rows, too few to split in 5", csv=write(some_rows(30, 4)), folds=5)
    # 9 are left for validation
    refused("class b has 9 different rows, too few to split in 10; give more", csv=write(some_rows(30, 10)))
    rows = some_rows(2, 1)
    data = ready(csv=write(rows), val_csv=write(rows, "val.csv"), test_csv=write(rows, "test.csv"))
    assert [len(data.splits[part].tokens) for part in PARTS] == [3, 3, 3]


def test_too_few_groups_of_a_class_though_it_has_many_rows(write):
    few = texts(6)
    refused("too few", csv=write([(few[i % 6], "ab"[i % 2]) for i in range(60)]))
    bed = "".join(bed_line("a", begin, begin + 20, "xy"[begin % 2]) for begin in range(60))
    refused("too few", bed=write(bed, "some.bed"), fasta=write_fasta(write, {"a": texts(1, 100)[0]}))


def test_longer_sequences_are_refused_where_there_is_a_limit(write):
    rows = some_rows()
    rows[33] = (rows[33][0] + "A", "b")
    train, test = write(rows), write(rows[16:20], "test.csv")
    assert len(ready(csv=train, test_csv=test, val_csv=test, max_length=21).splits["train"].tokens) == 36
    message = "own, train: sequence 34 has 21 bases, max_length is 20; cut the sequences or raise max_length"
    refused(message, csv=train, test_csv=test, val_csv=test, max_length=20)
    refused("test, test: sequence 34 has 21 bases", csv=test, test_csv=train, val_csv=test, max_length=20)


def test_data_that_was_refused_is_refused_again(write):
    data = DNAClassData(csv=write(some_rows()), max_length=5)
    for _ in range(2):
        with pytest.raises(DataError, match="max_length is 5"):
            data.setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"csv": "a.csv", "dataset": "embedded"}, "give one of csv, bed and dataset; got csv and dataset"),
        ({"csv": "a.csv", "bed": "a.bed", "fasta": "a.fa"}, "give one of csv, bed and dataset; got csv and bed"),
        ({"bed": "a.bed"}, "go together: give bed and fasta"),
        ({"fasta": "a.fa"}, "go together: give bed and fasta"),
        ({"test_csv": "a.csv"}, "val_csv and test_csv go with csv"),
        ({"dataset": "embedded", "val_csv": "a.csv"}, "val_csv and test_csv go with csv"),
        ({"protocol": "cv"}, "protocol must be one of caduceus_cv, hyena_testselect; got 'cv'"),
        ({"folds": 1}, "folds must be at least 2 and fold in .*; got folds 1 and fold 0"),
        ({"folds": 3, "fold": 3}, "fold in .*; got folds 3 and fold 3"),
        ({"folds": 3, "fold": -1}, "fold in .*; got folds 3 and fold -1"),
        ({"folds": -3}, "folds must be at least 2 .* got folds -3"),
        ({"csv": "a.csv", "test_csv": "b.csv", "folds": 3}, "give neither a test file nor a named data set with it"),
        ({"dataset": "human_or_worm"}, "unknown data set 'human_or_worm' .*did you mean"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"eval_batch_size": 0}, "eval_batch_size must be at least 1; got 0"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
        ({"num_workers": -1}, "num_workers must be at least 0; got -1"),
        ({"csv": "none.csv"}, "no file none.csv"),
        ({"whole": True}, "whole goes with csv alone"),
        ({"csv": "a.csv", "whole": True, "folds": 3}, "whole goes with csv alone"),
        ({"csv": "a.csv", "whole": True, "test_csv": "b.csv"}, "whole goes with csv alone"),
        ({"csv": "a.csv", "protocol": "hyena_testselect"}, "'hyena_testselect' is for a named data set"),
    ],
)
def test_arguments_that_contradict_each_other(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(message, **options)


@pytest.mark.parametrize("fold", [1, 12])
def test_a_fold_of_none(write, fold):
    refused("fold", csv=write(some_rows()), fold=fold)


# classes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_class_names_are_sorted_whatever_the_order_of_rows(write, seed):
    rows = [(text, name) for text, name in zip(texts(36), ["ocr", "enhancer", "promoter"] * 12, strict=True)]
    rows = [rows[i] for i in np.random.default_rng(seed).permutation(36)]
    test = [(texts(1, seed=9)[0], "promoter"), (texts(1, seed=8)[0], "enhancer")]  # not all of them
    data = ready(csv=write(rows), test_csv=write(test, "test.csv"))
    assert data.class_names == ("enhancer", "ocr", "promoter")
    assert all(part.class_names == data.class_names for part in data.splits.values())
    assert data.splits["test"].labels.tolist() == [2, 0]
    assert set(rows_of(data.splits["train"])) | set(rows_of(data.splits["val"])) == set(rows)


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_class_that_training_did_not_know(write, part):
    own = write([(texts(1)[0], "c")], f"{part}.csv")
    refused(
        "class c of sequence . is not among those of training, a, b", csv=write(some_rows()), **{f"{part}_csv": own}
    )


def test_a_file_to_test_a_run_on_is_the_test_part_itself(write):
    rows = some_rows(2, 3)
    data = ready(csv=write(rows), class_names=("a", "aa", "b"), whole=True)
    assert set(data.splits) == {"test"}
    assert rows_of(data.splits["test"]) == rows
    assert data.splits["test"].labels.tolist() == [0, 0, 2, 2, 2]
    assert data.protocol_text == "all rows of the file"
    assert [batch["label"].tolist() for batch in data.test_dataloader()] == [[0, 0, 2, 2, 2]]
    message = "class b of sequence . is not among those of training, a, c"
    refused(message, csv=write(rows), class_names=("a", "c"), whole=True)
    # one class is enough to test on
    assert ready(csv=write(rows[:2]), class_names=("a", "b"), whole=True).splits["test"].labels.tolist() == [0, 0]


def test_a_run_that_goes_on_splits_as_before(write):
    """Its classes are known, but the stage is another."""
    rows = some_rows()
    fresh, again = ready(csv=write(rows)), ready(csv=write(rows), class_names=("a", "b"), stage="fit")
    for part in PARTS:
        assert rows_of(again.splits[part]) == rows_of(fresh.splits[part])


def test_classes_of_a_bed_file_are_those_of_the_run(write):
    bed = write("".join(bed_line("a", 20 * i, 20 * i + 20, "ac"[i % 2]) for i in range(40)), "some.bed")
    options = {"bed": bed, "fasta": write_fasta(write, {"a": texts(1, 800)[0]})}
    data, turned = ready(**options), ready(**options, class_names=("c", "a"))
    assert (data.class_names, turned.class_names) == (("a", "c"), ("c", "a"))
    for part in PARTS:
        assert rows_of(turned.splits[part]) == rows_of(data.splits[part])
        assert np.array_equal(turned.splits[part].labels, 1 - data.splits[part].labels)
    refused("class c of sequence . is not among those of training, a, b", **options, class_names=("a", "b"))


def test_a_strand_may_carry_the_class_by_name_or_by_word(write):
    splice = write(some_rows(), "Splice.csv")
    assert [DNAClassData(csv=splice, stranded=word).stranded for word in (None, False)] == [True, False]
    assert [DNAClassData(csv=write(some_rows()), stranded=word).stranded for word in (None, True)] == [False, True]


def test_a_checkpoint_of_other_classes_is_refused(write):
    data = ready(csv=write(some_rows()))
    kept = data.state_dict()
    assert kept == {"class_names": ["a", "b"], "bases": "ACGTN", "stranded": False}
    data.load_state_dict(kept)
    assert data.class_names == ("a", "b")
    for names in (["b", "a"], ["a", "b", "c"], ["a"]):
        with pytest.raises(DataError, match=f"own has the classes a, b, the checkpoint {', '.join(names)}$"):
            data.load_state_dict(kept | {"class_names": names})
    assert data.class_names == ("a", "b")
    fresh = DNAClassData(csv=write(some_rows()))
    fresh.load_state_dict(kept)
    assert fresh.class_names == ("a", "b")


# named data sets ------------------------------------------------------------------------------------------------------

TOY = BenchmarkSpec("toy_enhancers", ("cat", "dog"), train=(14, 12), test=(3, 4), max_length=20, stranded=True)


@pytest.fixture
def toy(no_data, monkeypatch):
    """The rows of a small named data set in the package's layout, folders made in no order."""
    monkeypatch.setattr(genomic_benchmarks, "BENCHMARKS", (TOY,))
    fresh, rows = iter(texts(33)), {"train": [], "test": []}
    for split, name, count in (("test", "dog", 4), ("train", "dog", 12), ("test", "cat", 3), ("train", "cat", 14)):
        folder = no_data / "genomic_benchmarks" / TOY.name / split / name
        folder.mkdir(parents=True)
        for i in range(count):
            text = next(fresh)
            (folder / f"{i}.txt").write_text(text)
            rows[split].append((text, name))
    return rows


def test_a_named_data_set_keeps_its_test_part(toy):
    data = ready("Toy_Enhancers")
    assert sorted(rows_of(data.splits["test"])) == sorted(toy["test"])
    assert sorted(rows_of(data.splits["train"]) + rows_of(data.splits["val"])) == sorted(toy["train"])
    assert len(data.splits["val"].tokens) in (2, 3)
    assert data.protocol_text == "test: as given; validation: a tenth of the training rows by seed"
    assert (data.dataset_name, data.class_names, data.stranded) == ("toy_enhancers", ("cat", "dog"), True)
    assert data.state_dict()["stranded"] is True
    assert DNAClassData("toy_enhancers", stranded=False).stranded is False


def test_selection_on_the_test_part_says_so(toy):
    data = ready("toy_enhancers", protocol="hyena_testselect")
    assert rows_of(data.splits["val"]) == rows_of(data.splits["test"])
    assert sorted(rows_of(data.splits["test"])) == sorted(toy["test"])
    assert sorted(rows_of(data.splits["train"])) == sorted(toy["train"])
    assert data.protocol_text == "test: as given; validation: THE TEST SPLIT (hyena_testselect)"


def test_a_named_data_set_has_no_folds_and_one_that_is_not_here_says_how_to_get_it(toy, tmp_path):
    refused("folds makes the test split itself", "toy_enhancers", folds=3)
    refused(
        "toy_enhancers is not here: .*titans-seq data download toy_enhancers", "toy_enhancers", data_root=str(tmp_path)
    )


def test_a_named_data_set_is_downloaded_before_it_is_read(toy, monkeypatch, write):
    asked = []
    monkeypatch.setattr(dna, "download_benchmark", lambda name, **options: asked.append((name, options)))
    data = DNAClassData("Toy_enhancers", data_root=None)
    data.prepare_data()
    assert asked == [("toy_enhancers", {"data_root": None, "quiet": True})]
    data.setup()
    data.prepare_data()
    DNAClassData(csv=write(some_rows())).prepare_data()
    assert len(asked) == 1


# order ----------------------------------------------------------------------------------------------------------------


def order(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [text_of(row) for batch in loader for row in batch["tokens"]]


def test_training_is_shuffled_by_seed_and_epoch_only(write):
    train = write(some_rows())
    parts = {"csv": train, "val_csv": train, "test_csv": train}
    one, same, other = (ready(**parts, seed=seed, batch_size=7) for seed in (1, 1, 2))
    torch.manual_seed(0)
    first = order(one, 3)
    torch.manual_seed(1)
    assert order(same, 3) == order(one, 3) == first
    assert len({tuple(x) for x in (first, order(one, 2), order(one, 0), order(other, 3), order(other, 2))}) == 5
    given = [text for text, _ in some_rows()]
    assert sorted(first) == sorted(given) and first != given
    for loader in (one.val_dataloader(), one.test_dataloader()):
        assert [text_of(row) for batch in loader for row in batch["tokens"]] == given
    assert [len(batch["label"]) for batch in one.train_dataloader()] == [7] * 5 + [1]


def test_a_resumed_run_sees_what_it_would_have_seen(write, train, tmp_path):
    options = {"csv": write(some_rows()), "seed": 5, "batch_size": 16}
    whole, _ = train(DNAClassData(**options), 3, "tokens")
    first, trainer = train(DNAClassData(**options), 1, "tokens")
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    rest, _ = train(DNAClassData(**options), 3, "tokens", tmp_path / "last.ckpt")
    assert first.seen | rest.seen == whole.seen and set(rest.seen) == {1, 2}
    assert len({str(order) for order in whole.seen.values()}) == 3
    swapped = write([(text, "a" if name == "b" else "c") for text, name in some_rows()], "swapped.csv")
    with pytest.raises(DataError, match="swapped has the classes a, c, the checkpoint a, b"):
        train(DNAClassData(csv=swapped), 3, "tokens", tmp_path / "last.ckpt")


# genomes --------------------------------------------------------------------------------------------------------------

GENOME = {"one": texts(1, 417)[0], "two": texts(1, 203, seed=1)[0], "three": texts(1, 60, seed=2)[0]}


def windows(data):
    """Where those of each part are; the tokens are those of the genome there."""
    found = {}
    for part, cut in data.splits.items():
        found[part], dataset = [cut.places(i) for i in range(len(cut))], data.dataset_for(part)
        for i, (record, begin, end) in enumerate(found[part]):
            assert set(dataset[i]) == {"tokens"}
            assert text_of(dataset[i]["tokens"]) == GENOME[record][begin:end]
    return found


@pytest.fixture
def genome(write):
    """Windows of the genome above, set up."""

    def of(**options):
        data = GenomeData(write_fasta(write, GENOME, "my.genome.fa"), **{"length": 16} | options)
        data.setup()
        return data

    return of


def places_of(found):
    return sorted((record, i) for record, begin, end in found for i in range(begin, end))


def test_windows_of_the_parts_cover_the_genome_and_do_not_overlap(genome):
    data = genome()
    found = windows(data)
    everything = sorted((record, i) for record, text in GENOME.items() for i in range(len(text)))
    assert places_of(chain.from_iterable(found.values())) == everything  # each base once
    for record, text in GENOME.items():
        begins = {part: min(begin for name, begin, _ in found[part] if name == record) for part in PARTS}
        assert begins["train"] == 0
        assert begins["val"] == pytest.approx(0.9 * len(text), abs=1)
        assert begins["test"] == pytest.approx(0.95 * len(text), abs=1)
    assert {part: data.bases(part) for part in PARTS} == {part: len(places_of(found[part])) for part in PARTS}
    assert max(end - begin for part in PARTS for _, begin, end in found[part]) == 16
    assert data.protocol_text == "of every record the last 5 % test, the 5 % before validation"
    assert data.dataset_name == "my.genome"


def test_whole_records_may_be_held_out(genome):
    data = genome(val_records=["three"], test_records=["one"])
    found = windows(data)
    assert {part: {record for record, _, _ in found[part]} for part in PARTS} == {
        "train": {"two"}, "val": {"three"}, "test": {"one"}
    }  # fmt: skip
    assert [data.bases(part) for part in PARTS] == [203, 60, 417]
    assert data.protocol_text == "whole records held out"


def test_a_bed_file_may_say_which_part_is_what(genome, write):
    bed = write("one\t0\t40\ttrain\none\t100\t117\tval\ntwo\t3\t19\ttest\n", "splits.bed")
    data = genome(bed=bed)
    assert windows(data) == {
        "train": [("one", 0, 16), ("one", 16, 32), ("one", 32, 40)],
        "val": [("one", 100, 116), ("one", 116, 117)],
        "test": [("two", 3, 19)],
    }
    assert [data.bases(part) for part in PARTS] == [40, 17, 16]
    assert data.protocol_text == "intervals of a BED file"


def test_everything_may_be_test(genome):
    data = genome(whole=True)
    found = windows(data)
    assert set(found) == {"test"}
    assert data.bases("test") == len(places_of(found["test"])) == 417 + 203 + 60
    assert data.protocol_text == "the whole file"
    batches = list(data.test_dataloader())
    assert sum(int(batch["mask"].sum()) if "mask" in batch else batch["tokens"].numel() for batch in batches) == 680
    assert all("label" not in batch for batch in batches)


@pytest.mark.parametrize(("max_unknown", "kept"), [(0, [0, 50]), (0.5, [0, 20, 40, 50]), (1, [0, 10, 20, 30, 40, 50])])
def test_windows_of_too_much_n_are_left_out(write, max_unknown, kept):
    text = "ACGTACGTAC" + "N" * 10 + "NNNNNACGTA" + "NNNNNNRACG" + "ACGTAGGTAN" + "ACGTACGTAC"
    data = GenomeData(write_fasta(write, {"a": text}), length=10, whole=True, max_unknown=max_unknown)
    data.setup()
    found = data.splits["test"]
    assert [found.places(i)[1] for i in range(len(found))] == kept
    assert data.bases("test") == 10 * len(kept)


def test_windows_come_in_the_same_order_for_the_same_seed(genome):
    first, again, other = (genome(seed=seed, batch_size=8) for seed in (0, 0, 1))
    assert order(first, 2) == order(again, 2)
    assert len({tuple(x) for x in (order(first, 2), order(first, 1), order(other, 2))}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1}, "length must be at least 2; got 1"),
        ({"val_records": ["one"]}, "val_records and test_records go together"),
        ({"test_records": ["one"]}, "val_records and test_records go together"),
        ({"val_records": ["one"], "test_records": ["one"]}, "record one is held out for val and for test"),
        ({"val_records": ["one"], "test_records": ["four"]}, "no record four"),
        ({"val_records": ["one"], "test_records": ["two"], "bed": "a.bed"}, "give bed or val_records and test_records"),
        ({"max_unknown": 1.5}, "max_unknown in .0, 1.; got .* max_unknown 1.5"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"fasta": "none.fa"}, "no file none.fa"),
    ],
)
def test_genomes_that_cannot_be_cut_so(write, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        GenomeData(**{"fasta": write_fasta(write, GENOME), "length": 16} | options).setup()
    assert "\n" not in str(error.value)


def test_a_part_without_a_window_is_refused_each_time(write):
    bed = write("one\t0\t40\ttrain\none\t100\t117\tval\n", "splits.bed")
    data = GenomeData(write_fasta(write, GENOME), length=16, bed=bed)
    for _ in range(2):
        with pytest.raises(DataError, match="some.fa: no window for test; give a longer genome or other intervals"):
            data.setup()


# the set made on the spot ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded():
    return embedded_dna()


def test_both_words_stand_in_every_sequence_and_their_order_is_the_class(embedded):
    tata, box = "TATAAAAG", "CCACGTGG"
    rows = rows_of(embedded)
    assert {len(text) for text, _ in rows} == {96} and len(rows) == 2000
    order = {"tata_first": (tata, box), "box_first": (box, tata)}
    assert embedded.class_names == tuple(sorted(order))
    for text, name in rows:
        first, second = order[name]
        assert first in text[:48] and second in text[48:]
    # by chance alone the other order stands there too
    assert sum(order[name][1] in text[:48] and order[name][0] in text[48:] for text, name in rows) < 5
    assert 0.45 < embedded.labels.mean() < 0.55


def test_counting_words_does_not_tell_its_classes(embedded):
    model = KmerClassifier(embedded.class_names, k=4)
    model.fit(embedded.tokens[:1000], embedded.labels[:1000])
    tokens = torch.from_numpy(np.stack(embedded.tokens[1000:]).astype(np.int64))
    accuracy = (model(tokens).argmax(dim=1).numpy() == embedded.labels[1000:]).mean()
    assert abs(accuracy - 0.5) < 0.06  # 1,000 throws of a coin: 4 standard deviations


def test_it_is_the_same_at_every_call_whatever_the_global_seed(embedded):
    np.random.seed(7)
    again = embedded_dna()
    assert rows_of(again)[:200] == rows_of(embedded)[:200]
    assert np.array_equal(np.stack(again.tokens), np.stack(embedded.tokens))
    assert np.array_equal(again.labels, embedded.labels)
    assert text_of(again.tokens[0]) != text_of(again.tokens[1])


@pytest.mark.parametrize("options", [{}, {"dataset": "Embedded"}])
def test_without_a_source_it_is_the_one_made_on_the_spot(embedded, options, monkeypatch):
    few = embedded.subset(np.arange(40))
    monkeypatch.setattr(dna, "embedded_dna", lambda: few)
    data = ready(**options)
    assert data.dataset_name == "embedded"
    assert sorted(all_rows(data)) == sorted(rows_of(few))
    assert data.stranded is False


# sequences without classes --------------------------------------------------------------------------------------------


def test_sequences_are_called_by_their_id_or_their_row(write):
    found = read_sequences(write("ID,other,Sequence\nx1,1,acg\n,2,TTN\nx1,3,A\n"))
    assert found.ids == ("x1", "2", "x1")
    assert [text_of(tokens) for tokens in found.tokens] == ["ACG", "TTN", "A"]
    assert read_sequences(write("sequence\tlabel\nAC\tb\nG\ta\n", "some.tsv")).ids == ("1", "2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column sequence; the header is empty"),
        ("id,dna\n1,A\n", "no column sequence; the header is id, dna"),
        ("id,sequence\n", "own.csv has no sequence$"),
        ("id,sequence\n1,A\n2,\n", "line 3 has no sequence"),
        ("id,sequence\n1,A\n2\n", "line 3 has 1 fields, the header 2"),
        ("id,sequence\n1,A\n2,AC-T\n", "line 3: '-' at position 3 is not a base"),
    ],
)
def test_sequences_that_cannot_be_read(write, text, message):
    with pytest.raises(DataError, match=message) as error:
        read_sequences(write(text))
    assert "\n" not in str(error.value)


def test_files_of_sequences_have_a_known_ending(tmp_path):
    with pytest.raises(DataError, match=r"must be one of .csv, .tsv"):
        read_sequences(tmp_path / "some.fa")


def test_windows_longer_than_all_there_is_to_train_on(write):
    with pytest.raises(DataError, match="length is 376, but the longest stretch for training has 375 bases"):
        GenomeData(write_fasta(write, GENOME), length=376).setup()
    GenomeData(write_fasta(write, GENOME), length=375).setup()
