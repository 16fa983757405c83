"""Bases as tokens, and the reverse strand."""

import numpy as np
import pytest
import torch

from titans_seq.genomics.alphabet import COMPLEMENT, MASK, PAD, SIZE, START, decode, encode, reverse_complement


def test_case_is_read_alike_and_ambiguous_letters_as_n():
    assert decode(torch.from_numpy(encode("acgtnACGTN"))) == "ACGTNACGTN"
    assert decode(torch.from_numpy(encode("uURYSWKMBDHVryswkmbdhv"))) == "TT" + "N" * 20
    assert encode("").shape == (0,)


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ("ACXT", "'X' at position 3 is no base"),
        ("-A*C", "'-' at position 1 and 1 more is no base"),
        ("AC GT", "' ' at position 3"),
        ("ACé", "'é' at position 3"),
        ("AĀ", "'Ā' at position 2"),
    ],
)
def test_letters_outside_the_alphabet(sequence, message):
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        encode(sequence)


def test_the_complement_is_its_own_inverse_and_leaves_special_tokens():
    assert torch.equal(COMPLEMENT[COMPLEMENT], torch.arange(SIZE))
    assert [COMPLEMENT[token].item() for token in (PAD, MASK, START)] == [PAD, MASK, START]


def other_strand(sequence):
    return "".join({"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}[base] for base in reversed(sequence))


@pytest.mark.parametrize("side", ["left", "right", "inside"])
def test_reverse_complement_of_padded_batches(side):
    """Against strings, one by one; padding keeps its place."""
    random = np.random.default_rng(0)
    width, rows = 12, []
    for length in (0, 1, 2, 7, 12):
        sequence = "".join(random.choice(list("ACGTN"), length))
        places = {"left": np.arange(width - length, width), "right": np.arange(length)}.get(side)
        rows.append((sequence, np.sort(random.permutation(width)[:length]) if places is None else places))
    tokens, real = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (sequence, places) in enumerate(rows):
        tokens[row, places] = torch.from_numpy(encode(sequence)).long()
        real[row, places] = True
    turned = reverse_complement(tokens, real)
    for row, (sequence, places) in enumerate(rows):
        assert decode(turned[row, places]) == other_strand(sequence)
    assert (turned[~real] == PAD).all()
    assert torch.equal(reverse_complement(turned, real), tokens)
