"""Bases as tokens."""

import pytest
import torch

from titans_seq.datamodules.genomics.alphabet import COMPLEMENT, MASK, PAD, SIZE, START, decode, encode


def test_case_is_read_alike_and_ambiguous_letters_as_n():
    assert decode(torch.from_numpy(encode("acgtnACGTN"))) == "ACGTNACGTN"
    assert decode(torch.from_numpy(encode("uURYSWKMBDHVryswkmbdhv"))) == "TT" + "N" * 20
    assert encode("").shape == (0,)


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ("ACXT", "'X' at position 3 is not a base"),
        ("-A*C", "'-' at position 1 is not a base"),
        ("AC GT", "' ' at position 3"),
        ("ACé", "'é' at position 3"),
        ("AĀ", "'Ā' at position 2"),
    ],
)
def test_letters_outside_the_alphabet(sequence, message):
    with pytest.raises(ValueError, match=message.replace("*", r"\*")):
        encode(sequence)


def test_a_position_is_counted_from_the_begin_of_the_record():
    with pytest.raises(ValueError, match="'-' at position 103 "):
        encode("AC-T-", 100)


def test_the_complement_is_its_own_inverse_and_leaves_special_tokens():
    assert torch.equal(COMPLEMENT[COMPLEMENT], torch.arange(SIZE))
    assert [COMPLEMENT[token].item() for token in (PAD, MASK, START)] == [PAD, MASK, START]
