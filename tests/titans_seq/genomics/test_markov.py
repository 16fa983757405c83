"""Markov models against counting with dictionaries, and what every A, C, G and T is scored by."""

import math
from collections import Counter

import numpy as np
import pytest

from titans_seq.datamodules.genomics.alphabet import MASK, PAD, encode
from titans_seq.genomics import markov
from titans_seq.genomics.markov import MarkovModel

PAIRS = {"A": "T", "C": "G", "G": "C", "T": "A"}


def random_sequences(letters="ACGTN", lengths=(0, 1, 2, 5, 40, 61), seed=0):
    random = np.random.default_rng(seed)
    weights = np.array([5, 3, 2, 4, 2][: len(letters)], dtype=float)
    return ["".join(random.choice(list(letters), length, p=weights / weights.sum())) for length in lengths]


class Dictionary:
    """The same model from the definition: strings, one base at a time."""

    def __init__(self, sequences, order, pseudocount, interpolated):
        self.order, self.pseudocount, self.interpolated = order, pseudocount, interpolated
        self.counts = Counter()
        for sequence in sequences:
            for end in range(1, len(sequence) + 1):
                for length in range(order + 1):
                    word = sequence[max(end - 1 - length, 0) : end]
                    if len(word) == length + 1 and set(word) <= set(PAIRS):
                        self.counts[word] += 1

    def probability(self, context, base):
        prior = 1 / 4
        if self.interpolated and context:
            prior = self.probability(context[1:], base)
        total = sum(self.counts[context + other] for other in PAIRS)
        return (self.counts[context + base] + 4 * self.pseudocount * prior) / (total + 4 * self.pseudocount)

    def bits(self, sequence):
        bits = []
        for place, base in enumerate(sequence):
            context = sequence[max(place - self.order, 0) : place]
            while not set(context) <= set(PAIRS):
                context = context[1:]
            bits.append(-math.log2(self.probability(context, base)) if base in PAIRS else math.nan)
        return bits


@pytest.mark.parametrize("interpolated", [False, True])
@pytest.mark.parametrize("both_strands", [False, True])
@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_bits_are_those_of_counting_by_hand(order, both_strands, interpolated):
    train, test = random_sequences(), random_sequences(seed=1)
    options = {"pseudocount": 0.7, "interpolated": interpolated}
    model = MarkovModel.fit(map(encode, train), order, both_strands=both_strands, **options)
    turned = ["".join(PAIRS.get(base, base) for base in reversed(sequence)) for sequence in train]
    expected = Dictionary(train + turned if both_strands else train, order, **options)
    for sequence in test:
        np.testing.assert_allclose(model.bits(encode(sequence)), expected.bits(sequence), rtol=1e-12)


def test_every_context_is_a_distribution():
    model = MarkovModel.fit(map(encode, random_sequences()), 4, interpolated=True)
    assert model.log2_probabilities.shape == (1 + 4 + 16 + 64 + 256, 4)
    np.testing.assert_allclose(np.exp2(model.log2_probabilities).sum(axis=1), 1)


@pytest.mark.parametrize("block", [1, 2, 7])
def test_blocks_change_nothing(block, monkeypatch):
    sequences = [encode(sequence) for sequence in random_sequences()]
    whole = MarkovModel.fit(sequences, 3)
    bits = [whole.bits(tokens) for tokens in sequences]
    monkeypatch.setattr(markov, "BLOCK", block)
    np.testing.assert_array_equal(MarkovModel.fit(sequences, 3).log2_probabilities, whole.log2_probabilities)
    for tokens, expected in zip(sequences, bits, strict=True):
        np.testing.assert_array_equal(whole.bits(tokens), expected)


def test_the_denominator_is_every_known_base_and_nothing_else():
    """First bases and those behind an N too; N and special tokens never."""
    model = MarkovModel.fit([encode("ACGTTGCAAC")], 4)
    sequences = [encode("ACNGT"), np.array([PAD, MASK], dtype=np.uint8), encode("N"), encode(""), encode("T")]
    total, count = model.bits_per_base(sequences)
    assert count == 5
    assert total == pytest.approx(sum(np.nansum(model.bits(tokens)) for tokens in sequences))


def test_special_tokens_break_the_context_as_n_does():
    model = MarkovModel.fit([encode("ACGTTGCAAC")], 3)
    with_n, with_mask = encode("ACNGTA"), encode("ACNGTA")
    with_mask[2] = MASK
    np.testing.assert_array_equal(model.bits(with_n), model.bits(with_mask))


def test_long_contexts_are_told_apart():
    """A word of eight letters, repeated: its letters alone tell little."""
    random = np.random.default_rng(0)
    word = "".join(random.choice(list("ACGT"), 8))
    tokens = encode(word * 300)
    bits = {}
    for order in (0, 8):
        total, count = MarkovModel.fit([tokens], order, pseudocount=0.01).bits_per_base([tokens])
        bits[order] = total / count
    assert bits[0] > 1.5 and bits[8] < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": -1}, "order must be 0 to 11; got -1"),
        ({"order": 12}, "order must be 0 to 11; got 12"),
        ({"order": 1, "pseudocount": 0.0}, "pseudocount must be positive and finite; got 0.0"),
        ({"order": 1, "pseudocount": math.nan}, "pseudocount must be positive"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MarkovModel.fit([encode("ACGT")], **options)


def test_nothing_to_count():
    with pytest.raises(ValueError, match="sequences must hold an A, C, G or T"):
        MarkovModel.fit([encode("NN"), encode("")], 2)
