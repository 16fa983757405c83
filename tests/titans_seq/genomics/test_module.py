"""Training and scoring of DNA networks: bits per base and class metrics by other means, masking, strands, the rate."""

import copy
import warnings

import lightning as L
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, roc_auc_score
from torch import nn
from torch.utils.data import DataLoader

from titans_seq.datamodules.genomics.alphabet import BASES, FIRST_BASE, KNOWN, MASK, PAD, SIZE, START, decode, encode
from titans_seq.datamodules.genomics.batches import TokenDataset, collate
from titans_seq.genomics import module as dna_module
from titans_seq.genomics.model import DNAClassifier, DNAEncoder, DNALanguageModel
from titans_seq.genomics.module import DNAModule, mask_bases

CLASSES = ("a", "b", "c")
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
KNOWN_TOKENS = range(FIRST_BASE, FIRST_BASE + KNOWN)


@pytest.fixture(autouse=True)
def lightning_advice():
    with warnings.catch_warnings():
        # lightning 2.6 advises more workers for loaders that only index a tensor, and calls a pytree API torch
        # deprecates
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        yield


def encoder(mixer="attention", **options):
    torch.manual_seed(0)
    return DNAEncoder(8, layers=1, heads=1, num_persistent=1, mixer=mixer, **options)


def language_model(mixer="attention", bidirectional=False):
    network = DNALanguageModel(encoder(mixer, bidirectional=bidirectional))
    nn.init.normal_(network.head.weight)  # bits that are far from 2
    return network.double()


class Counting(nn.Module):
    """Logits linear in how often each token stands at a real position; keeps what it was given."""

    def __init__(self, classes=2):
        super().__init__()
        self.class_names = CLASSES[:classes]
        self.head = nn.Linear(SIZE, classes)
        nn.init.zeros_(self.head.bias)  # drawn, it would follow from the tests that ran before
        weight = nn.init.normal_(self.head.weight.data, generator=torch.Generator().manual_seed(1))
        weight -= weight[:, FIRST_BASE:].mean(dim=1, keepdim=True)  # else the longest row has the same class as all
        self.given = []

    def forward(self, tokens, *, mask=None):
        self.given.append(tokens)
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        return self.head((nn.functional.one_hot(tokens, SIZE) * real[..., None]).sum(dim=1).to(self.head.weight))


def texts(count, low, high, seed=0, letters=BASES):
    random = np.random.default_rng(seed)
    return ["".join(random.choice(list(letters), random.integers(low, high))) for _ in range(count)]


def other_strand(text):
    return text.translate(COMPLEMENT)[::-1]


def loader(sequences, size, labels=None):
    data = TokenDataset([encode(text) for text in sequences], None if labels is None else np.asarray(labels))
    return DataLoader(data, batch_size=size, collate_fn=collate)


def as_they_are(batches):
    return DataLoader(batches, batch_size=None)


def one_batch(sequences, labels=None):
    return next(iter(loader(sequences, len(sequences), labels)))


def padded(sequences, before, after):
    """A batch as `collate` makes it, with more padding on both sides."""
    batch = one_batch(sequences)
    mask = batch.get("mask", torch.ones_like(batch["tokens"], dtype=torch.bool))
    tokens = nn.functional.pad(batch["tokens"], (before, after), value=PAD)
    return {"tokens": tokens, "mask": nn.functional.pad(mask, (before, after), value=False)}


def quiet_trainer(**options):
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


def validated(module, batches):
    return quiet_trainer().validate(module, batches, verbose=False)[0]


def trained_loss(module, batch, monkeypatch):
    """The loss of a training step, and what it logs as train_loss with which weight."""
    logged = {}
    monkeypatch.setattr(
        module, "log", lambda name, value, **options: logged.update({name: (value.item(), options["batch_size"])})
    )
    loss = module.training_step(batch, 0)
    return loss.item(), *logged["train_loss"]


# language models ------------------------------------------------------------------------------------------------------

BITS = 1e-6  # a batch's cross-entropies are added in float32
GENOME = [*texts(11, 1, 12), "NNNN", "ACGTN", "N"]


@torch.no_grad()
def bits_by_hand(network, sequences):
    """Sum of -log2 softmax over A, C, G, T, sequence by sequence, and how many bases there were."""
    total, count = 0.0, 0
    for text in sequences:
        logits = network(torch.from_numpy(encode(text).astype(np.int64))[None])[0][0].numpy()
        for row, letter in zip(logits, text, strict=True):
            if letter != "N":
                total += np.log2(np.exp(row).sum()) - row["ACGT".index(letter)] / np.log(2)
                count += 1
    return total, count


@pytest.mark.parametrize("size", [1, 5, 14])
def test_bits_are_a_mean_over_bases_for_any_batch_size(size):
    """Batches of unlike sizes, lengths and shares of N, of size 1 two of nothing else."""
    network = language_model()
    total, count = bits_by_hand(network, GENOME)
    assert abs(total / count - 2) > 0.1
    batches = loader(GENOME, size)
    assert validated(DNAModule(network), batches)["val_bits"] == pytest.approx(total / count, rel=BITS)
    scores = quiet_trainer().test(DNAModule(network), batches, verbose=False)[0]
    assert scores == {"test_bits": pytest.approx(total / count, rel=BITS)}


def test_bits_of_a_model_with_memory():
    network = language_model("memory")
    total, count = bits_by_hand(network, GENOME[:4])
    assert validated(DNAModule(network), loader(GENOME[:4], 3))["val_bits"] == pytest.approx(total / count, rel=BITS)


def test_bits_of_both_strands():
    network = language_model()
    sums = [bits_by_hand(network, strand) for strand in (GENOME, [other_strand(text) for text in GENOME])]
    assert abs(sums[0][0] - sums[1][0]) > 1e-3 * sums[0][0]
    expected = (sums[0][0] + sums[1][0]) / (2 * sums[0][1])
    found = validated(DNAModule(network, rc="average"), loader(GENOME, 4))["val_bits"]
    assert found == pytest.approx(expected, rel=BITS)


def test_a_model_that_knows_nothing_takes_two_bits():
    network = language_model()
    nn.init.zeros_(network.head.weight), nn.init.zeros_(network.head.bias)
    assert validated(DNAModule(network), loader(GENOME, 4))["val_bits"] == pytest.approx(2, rel=BITS)


def test_the_training_loss_is_in_nats_and_logged_in_bits_per_base(monkeypatch):
    network = language_model()
    total, count = bits_by_hand(network, GENOME)
    loss, logged, weight = trained_loss(DNAModule(network, augment=False), one_batch(GENOME), monkeypatch)
    assert loss == pytest.approx(total / count * np.log(2), rel=BITS)
    assert logged == pytest.approx(total / count, rel=BITS)
    assert weight == count


@pytest.mark.parametrize("rc", ["none", "average"])
@pytest.mark.parametrize("before", [0, 3])
def test_padding_changes_no_loss_of_a_language_model(before, rc, monkeypatch):
    module = DNAModule(language_model(), augment=False, rc=rc)
    more = padded(GENOME, before, 4)
    plain = trained_loss(module, one_batch(GENOME), monkeypatch)
    assert trained_loss(module, more, monkeypatch) == pytest.approx(plain, rel=BITS)
    monkeypatch.undo()
    expected = validated(module, loader(GENOME, len(GENOME)))["val_bits"]
    assert validated(module, as_they_are([more]))["val_bits"] == pytest.approx(expected, rel=BITS)


def test_n_around_a_sequence_adds_nothing_to_count(monkeypatch):
    """Its loss may be another, for N is read, but it is a mean over as many bases."""
    module = DNAModule(language_model(), augment=False)
    weights = [trained_loss(module, one_batch([text]), monkeypatch)[2] for text in ("ACGTAC", "NNACGTAC", "ACNNNGTACN")]
    assert weights == [6, 6, 6]
    loss, _, weight = trained_loss(module, one_batch(["NN"]), monkeypatch)
    assert (loss, weight) == (0, 0)


# masking --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def masked():
    """Tokens of every kind, the same after masking, and which were chosen."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, SIZE, (400, 500), generator=random)
    return tokens, *mask_bases(tokens, random)


def assert_share(found, of, share):
    """Within 5 standard deviations of a binomial share."""
    count, total = int(found.sum()), int(of.sum())
    assert abs(count / total - share) < 5 * np.sqrt(share * (1 - share) / total), f"{count} of {total}, not {share:.0%}"


def test_15_percent_of_the_known_bases_are_chosen_and_nothing_else(masked):
    tokens, hidden, chosen = masked
    known = torch.isin(tokens, torch.tensor(KNOWN_TOKENS))
    assert not (chosen & ~known).any()
    assert torch.equal(hidden[~chosen], tokens[~chosen])
    assert_share(chosen, known, 0.15)
    for base in KNOWN_TOKENS:
        assert_share(chosen & (tokens == base), tokens == base, 0.15)


def test_of_them_8_in_10_are_hidden_one_is_any_base_and_one_stays(masked):
    tokens, hidden, chosen = masked
    assert_share(chosen & (hidden == MASK), chosen, 0.8)
    # a quarter of those replaced by any base are replaced by themselves
    assert_share(chosen & (hidden == tokens), chosen, 0.1 + 0.1 / 4)
    assert_share(chosen & (hidden != MASK) & (hidden != tokens), chosen, 0.1 * 3 / 4)


def test_a_replacement_is_one_of_the_four_bases_with_equal_chance(masked):
    tokens, hidden, chosen = masked
    assert set(hidden[chosen].tolist()) == {MASK, *KNOWN_TOKENS}
    for base in KNOWN_TOKENS:
        replaced = chosen & (tokens == base) & (hidden != base) & (hidden != MASK)
        for other in set(KNOWN_TOKENS) - {base}:
            assert_share(replaced & (hidden == other), replaced, 1 / 3)


def test_where_nothing_is_corrupted_the_same_are_chosen_and_all_of_them_hidden():
    tokens = torch.randint(0, SIZE, (20, 50), generator=torch.Generator().manual_seed(0))
    (hidden, chosen), (_, corrupted) = (
        mask_bases(tokens, torch.Generator().manual_seed(1), corrupt=corrupt) for corrupt in (False, True)
    )
    assert torch.equal(chosen, corrupted) and chosen.any()
    assert torch.equal(hidden, torch.where(chosen, MASK, tokens))


def test_special_tokens_and_n_are_never_hidden():
    tokens = torch.tensor([PAD, MASK, START, FIRST_BASE + BASES.index("N")]).repeat(50, 50)
    hidden, chosen = mask_bases(tokens)
    assert torch.equal(hidden, tokens) and not chosen.any()


def test_what_is_masked_in_training_follows_the_global_seed():
    tokens = torch.full((20, 50), FIRST_BASE)
    torch.manual_seed(3)
    first, second = mask_bases(tokens), mask_bases(tokens)
    torch.manual_seed(3)
    again = mask_bases(tokens)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], second[1])


@pytest.fixture
def maskings(monkeypatch):
    """What `mask_bases` gave, call by call."""
    kept = []

    def spy(*arguments, **options):
        kept.append(mask_bases(*arguments, **options))
        return kept[-1]

    monkeypatch.setattr(dna_module, "mask_bases", spy)
    return kept


def test_validation_masks_the_same_bases_in_every_epoch(maskings):
    """Whatever the global seed; batches and strands each have a mask of their own."""
    batches = loader(["ACGTTACGATCAGGACTTCA" * 2] * 6, 2)
    module = DNAModule(language_model(bidirectional=True), rc="average")
    scores = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        scores.append(validated(module, batches))
    assert scores[0] == scores[1]
    assert len(maskings) == 12
    first, second = maskings[:6], maskings[6:]
    for one, two in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert len({chosen.numpy().tobytes() for _, chosen in first}) == 6
    assert all((hidden[chosen] == MASK).all() for hidden, chosen in maskings)  # no answer is shown


def test_bits_of_a_masked_model_are_a_mean_over_the_chosen_bases(maskings):
    sequences, network = texts(12, 5, 40), language_model(bidirectional=True)
    batches = loader(sequences, 5)
    found = validated(DNAModule(network), batches)["val_bits"]
    total, count = 0.0, 0
    with torch.no_grad():
        for batch, (hidden, chosen) in zip(batches, maskings, strict=True):
            logits = network(hidden, mask=batch.get("mask"))[0].numpy()
            for row, base in zip(logits[chosen], batch["tokens"][chosen] - FIRST_BASE, strict=True):
                total += np.log2(np.exp(row).sum()) - row[base] / np.log(2)
                count += 1
    assert count > 20
    assert found == pytest.approx(total / count, rel=BITS)


def test_training_masks_other_bases_every_time(maskings, monkeypatch):
    module = DNAModule(language_model(bidirectional=True), augment=False)
    batch = one_batch(["ACGTTACGATCAGGACTTCA" * 2] * 3)
    weights = [trained_loss(module, batch, monkeypatch)[2] for _ in range(2)]
    assert not torch.equal(maskings[0][1], maskings[1][1])
    assert weights == [int(chosen.sum()) for _, chosen in maskings]
    assert not all((hidden[chosen] == MASK).all() for hidden, chosen in maskings)


# classifiers ----------------------------------------------------------------------------------------------------------


def scores_by_sklearn(network, sequences, labels):
    counts = np.array([[text.count(letter) for letter in BASES] for text in sequences])
    weight, bias = (x.detach().double().numpy() for x in (network.head.weight, network.head.bias))
    logits = counts @ weight[:, FIRST_BASE:].T + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    best = probabilities.argmax(axis=1)
    binary = len(network.class_names) == 2
    return {
        "mcc": matthews_corrcoef(labels, best),
        "accuracy": accuracy_score(labels, best),
        "auroc": roc_auc_score(labels, probabilities[:, 1] if binary else probabilities, multi_class="ovr"),
        "f1": f1_score(labels, best, average="macro"),
    }


@pytest.mark.parametrize("size", [7, 40])
@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_are_those_of_scikit_learn(classes, size):
    """Classes of unlike frequency, half of them as found; in the second pass nothing is left from the first."""
    sequences, network, random = texts(40, 15, 40), Counting(classes), np.random.default_rng(1)
    found = network(one_batch(sequences)["tokens"], mask=one_batch(sequences)["mask"]).argmax(dim=1).numpy()
    labels = np.where(random.random(40) < 0.5, found, random.choice(classes, 40))
    expected = scores_by_sklearn(network, sequences, labels)
    assert all(0.1 < value < 0.9 for value in expected.values())
    assert abs(expected["f1"] - expected["accuracy"]) > 0.01
    batches, module = loader(sequences, size, labels), DNAModule(network)
    for _ in range(2):
        assert validated(module, batches) == pytest.approx({f"val_{k}": v for k, v in expected.items()}, abs=1e-6)
    scores = quiet_trainer().test(module, batches, verbose=False)[0]
    assert scores == pytest.approx({f"test_{k}": v for k, v in expected.items()}, abs=1e-6)


def test_a_class_that_is_nowhere_is_left_out_of_the_auroc():
    sequences, network = texts(20, 15, 40), Counting(3)
    labels = np.arange(20) % 2 * 2  # the first and the last class
    batch = one_batch(sequences)
    probabilities = network(batch["tokens"], mask=batch["mask"]).softmax(dim=-1).detach().numpy()
    expected = np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in (0, 2)])
    assert validated(DNAModule(network), loader(sequences, 6, labels))["val_auroc"] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(validated(DNAModule(network), loader(sequences, 6, [1] * 20))["val_auroc"])


def constant(classes):
    """It finds the second class whatever it is given."""
    network = Counting(classes)
    nn.init.zeros_(network.head.weight), nn.init.zeros_(network.head.bias)
    network.head.bias.data[1] = 1
    return network


def test_one_answer_to_everything_has_no_correlation_of_three_classes():
    batches = loader(texts(9, 2, 9), 4, [1] * 6 + [0] * 2 + [2])
    assert validated(DNAModule(constant(3)), batches)["val_mcc"] == 0


def test_one_answer_to_everything_has_no_correlation_of_two_classes():
    batches = loader(texts(9, 2, 9), 4, [1] * 6 + [0] * 3)
    assert validated(DNAModule(constant(2)), batches)["val_mcc"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("mixer", ["memory", "attention"])
def test_padding_changes_neither_loss_nor_probabilities_of_a_classifier(mixer, monkeypatch):
    sequences, labels = ["ACGTNA", "GG", "TTACA", "C"], [0, 1, 2, 0]
    module = DNAModule(DNAClassifier(encoder(mixer, bidirectional=True), CLASSES).double(), augment=False)
    exact = torch.cat([module(one_batch([text])) for text in sequences])
    plain, more = one_batch(sequences, labels), padded(sequences, 3, 2) | {"label": torch.tensor(labels)}
    by_hand = -exact[torch.arange(4), labels].log().mean().item()
    for batch in (plain, more):
        assert torch.allclose(module.predict_step(batch, 0), exact, rtol=0, atol=1e-9)
        loss, logged, weight = trained_loss(module, batch, monkeypatch)
        assert [loss, logged, weight] == pytest.approx([by_hand, by_hand, 4], rel=1e-9)


# strands --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mixer", "before", "after"), [("attention", 0, 0), ("attention", 0, 3), ("attention", 2, 1), ("memory", 2, 1)]
)
def test_the_mean_of_both_strands_is_the_same_from_either(mixer, before, after):
    sequences = ["ACGTNAAT", "GGA", "TTACA", "C"]
    network = DNAClassifier(encoder(mixer, bidirectional=True), CLASSES).double()
    nn.init.normal_(network.head.weight)
    batch = padded(sequences, before, after)
    turned = padded([other_strand(text) for text in sequences], before, after)
    both, one = DNAModule(network, rc="average"), DNAModule(network)
    found, expected, of_the_other = both(batch), one(batch), one(turned)
    assert torch.allclose(both(turned), found, rtol=0, atol=1e-12)
    assert torch.allclose(found, (expected + of_the_other) / 2, rtol=0, atol=1e-12)
    assert (expected - of_the_other).abs().amax() > 1e-3


@pytest.mark.parametrize("padding", [(0, 0), (2, 3)])
def test_either_strand_is_learned_but_only_the_given_one_is_scored(padding, monkeypatch):
    network, sequences = Counting(), ["AACGN", "GGA", "CTTTTTA", "C"] * 10
    batch = padded(sequences, *padding) | {"label": torch.arange(40) % 2}
    module = DNAModule(network)
    trained_loss(module, batch, monkeypatch)
    monkeypatch.undo()
    validated(module, as_they_are([batch]))
    trained, scored = network.given
    assert torch.equal(scored, batch["tokens"])
    assert torch.equal(trained == PAD, ~batch["mask"])  # padding stays where it is
    found = [decode(row) for row in trained]
    assert all(text in (given, other_strand(given)) for text, given in zip(found, sequences, strict=True))
    turned = sum(text != given for text, given in zip(found, sequences, strict=True))
    assert 8 <= turned <= 32


def test_a_language_model_learns_from_either_strand(monkeypatch):
    network, given = language_model(), []
    network.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    batch = one_batch(["AACGN", "GGA"] * 20)
    for augment in (True, False):
        trained_loss(DNAModule(network, augment=augment), batch, monkeypatch)
    found = [decode(row) for row in given[0]]
    assert set(found) == {"AACGN", "NCGTT", "GGA", "TCC"}
    assert torch.equal(given[1], batch["tokens"])


def test_without_augmentation_every_sequence_is_read_as_it_is(monkeypatch):
    network, batch = Counting(), one_batch(["AACGN", "GGA"] * 20, [0, 1] * 20)
    trained_loss(DNAModule(network, augment=False), batch, monkeypatch)
    assert torch.equal(network.given[0], batch["tokens"])


# training -------------------------------------------------------------------------------------------------------------


def test_what_is_shown_and_which_epoch_is_the_best():
    module = DNAModule(language_model())
    assert (module.monitor, module.mode, module.shown) == ("val_bits", "min", ("train_loss", "val_bits"))
    module = DNAModule(Counting())
    assert (module.monitor, module.mode) == ("val_mcc", "max")
    assert module.shown == ("train_loss", "val_mcc", "val_accuracy", "val_auroc", "val_f1")
    for name in module.shown[1:]:
        module = DNAModule(Counting(), monitor=name)
        assert (module.monitor, module.mode) == (name, "max")


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (Counting, {"rc": "both"}, "rc must be none or average; got 'both'"),
        (Counting, {"monitor": "val_bits"}, "monitor must be one of val_mcc, val_accuracy, .*; got 'val_bits'"),
        (Counting, {"monitor": "train_loss"}, "monitor must be one of .*; got 'train_loss'"),
        (language_model, {"monitor": "val_mcc"}, "monitor must be one of val_bits; got 'val_mcc'"),
        (Counting, {"warmup_steps": -1}, "warmup_steps must be at least 0; got -1"),
    ],
)
def test_wrong_arguments(network, options, message):
    with pytest.raises(ValueError, match=message):
        DNAModule(network(), **options)


class Rates(L.Callback):
    """The learning rate of every step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


def rates(epochs, warmup_steps, ckpt_path=None, **options):
    """Of a training with four steps in each epoch."""
    watch, batches = Rates(), loader(texts(8, 3, 9), 2, [0, 1] * 4)
    module = DNAModule(Counting(), learning_rate=1e-2, final_rate=0.1, warmup_steps=warmup_steps)
    trainer = quiet_trainer(max_epochs=epochs, limit_val_batches=0, callbacks=[watch], **options)
    trainer.fit(module, batches, ckpt_path=ckpt_path)
    return watch.seen, trainer


def along_a_cosine(steps, of):
    return [1e-3 + 9e-3 * (1 + np.cos(np.pi * step / of)) / 2 for step in range(steps)]


@pytest.mark.parametrize(("asked", "warmup"), [(0, 0), (1, 1), (2, 2), (100, 2)])
def test_rate_grows_step_by_step_then_falls_along_a_cosine(asked, warmup):
    """Of 12 steps at most a fifth are warm-up."""
    seen, trainer = rates(3, asked)
    assert seen == pytest.approx(
        [1e-2 * (step + 1) / warmup for step in range(warmup)] + along_a_cosine(12 - warmup, 12 - warmup), rel=1e-9
    )
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3)  # what is left at the end
    assert trainer.global_step == 12


def test_a_training_without_an_end_keeps_its_rate():
    assert rates(-1, 3, max_steps=6)[0] == [1e-2] * 6


def test_a_run_that_is_resumed_for_longer_takes_up_the_longer_cosine(tmp_path):
    """From its second step on: the rate of the first is in the checkpoint."""
    _, trainer = rates(2, 1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, _ = rates(4, 1, ckpt_path=tmp_path / "last.ckpt")
    assert resumed[1:] == pytest.approx(along_a_cosine(15, 15)[8:], rel=1e-9)


def fitted(module, batches, epochs):
    """Scores before and after."""
    before = validated(module, batches)
    module = copy.deepcopy(module)
    trainer = quiet_trainer(max_epochs=epochs, check_val_every_n_epoch=epochs)
    torch.manual_seed(0)
    trainer.fit(module, batches, batches)
    assert set(module.shown) <= set(trainer.callback_metrics)
    return before, validated(module, batches)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["next", "masked"])
def test_a_language_model_learns_what_repeats(bidirectional):
    """ACGT over and over is its own other strand; a base follows from those beside it."""
    network = DNALanguageModel(encoder(bidirectional=bidirectional, window=4))
    module = DNAModule(network, learning_rate=2e-2, warmup_steps=2)
    before, after = fitted(module, loader(["ACGT" * 6] * 8, 8), 20)
    assert before["val_bits"] > 1.9
    assert after["val_bits"] < 1.2


def test_a_classifier_with_memory_learns_what_bases_there_are():
    sequences = [*texts(12, 6, 12, letters="ATN"), *texts(12, 6, 12, letters="CGN")]
    network = DNAClassifier(encoder("memory", chunk_size=4), ("weak", "strong"))
    module = DNAModule(network, learning_rate=3e-2, warmup_steps=2)
    before, after = fitted(module, loader(sequences, 24, [0] * 12 + [1] * 12), 8)
    assert before["val_accuracy"] < 0.8
    assert after["val_accuracy"] > 0.9
    assert after["val_auroc"] > 0.95


@pytest.mark.parametrize(("mixer", "options"), [("memory", {"chunk_size": 4}), ("mag", {"chunk_size": 4, "window": 3})])
def test_rows_that_go_on_cost_what_one_pass_costs(mixer, options):
    network = DNALanguageModel(encoder(mixer, **options)).double()
    nn.init.normal_(network.head.weight)
    module = DNAModule(network)
    module.log = lambda *_, **__: None
    tokens = torch.randint(FIRST_BASE, FIRST_BASE + KNOWN, (3, 17), generator=torch.Generator().manual_seed(0))
    pieces = tokens.split([7, 4, 6], dim=1)
    carried = [[False, False, False], [True, False, True], [True, True, False]]
    module.on_train_epoch_start()
    losses = [
        module.training_step({"tokens": piece, "carried": torch.tensor(flags)}, 0)
        for piece, flags in zip(pieces, carried, strict=True)
    ]

    def cost(row, begin, first, last):
        """Nats of bases [first, last) in a stream that began at `begin`."""
        logits = network(tokens[None, row, begin:last])[0]
        return nn.functional.cross_entropy(
            logits[0, first - begin :], tokens[row, first:last] - FIRST_BASE, reduction="sum"
        )

    begins = [(0, 0, 0), (0, 7, 0), (0, 7, 11)]
    for loss, starts, first, last in zip(losses, begins, (0, 7, 11), (7, 11, 17), strict=True):
        expected = sum(cost(row, start, first, last) for row, start in enumerate(starts)) / (3 * (last - first))
        torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    losses[2].backward()  # what the batch before left has no graph: its buffers would be freed
    assert all(parameter.grad is not None for parameter in network.parameters())
    module.on_train_epoch_start()
    again = module.training_step({"tokens": pieces[0], "carried": torch.tensor([True] * 3)}, 0)
    torch.testing.assert_close(again, losses[0], rtol=1e-10, atol=0)
