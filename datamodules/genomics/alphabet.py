"""DNA as numbers: one token per base, and the complement as a table.

Upper and lower case are read alike (soft-masked repeats are no other bases), U as T. The IUPAC codes for several
possible bases (R, Y, S, W, K, M, B, D, H, V) are read as N: known to be a base, not known which. N is its own
complement.
"""

import numpy as np
import torch
from jaxtyping import Integer, UInt8
from torch import Tensor

Tokens = UInt8[np.ndarray, " T"]

SPECIAL = ("PAD", "MASK", "START")
PAD, MASK, START = range(len(SPECIAL))
BASES = "ACGTN"
FIRST_BASE = len(SPECIAL)
UNKNOWN = FIRST_BASE + BASES.index("N")
SIZE = FIRST_BASE + len(BASES)
KNOWN = BASES.index("N")  # A, C, G, T: what is counted and predicted; N never is
AMBIGUOUS = "RYSWKMBDHV"
LETTERS = " ".join(BASES + "U" + AMBIGUOUS)

COMPLEMENT = torch.arange(SIZE)  # special tokens stay what they are
COMPLEMENT[FIRST_BASE:] = torch.tensor([FIRST_BASE + BASES.index(base) for base in "TGCAN"])


def _table() -> UInt8[np.ndarray, "256"]:
    """Token of each byte; SIZE for what is no letter of the alphabet."""
    table = np.full(256, SIZE, dtype=np.uint8)
    tokens = {base: FIRST_BASE + i for i, base in enumerate(BASES)} | {"U": FIRST_BASE + BASES.index("T")}
    tokens |= dict.fromkeys(AMBIGUOUS, UNKNOWN)
    for letter, token in tokens.items():
        table[ord(letter)] = table[ord(letter.lower())] = token
    return table


_TOKENS = _table()
_OTHER_STRAND = COMPLEMENT.numpy().astype(np.uint8)


def encode(sequence: str, begin: int = 0) -> Tokens:
    """Return the tokens of a sequence.

    Args:
        sequence: Letters.
        begin: Position of the first letter in its record, for the error.

    Raises:
        ValueError: The first letter outside of the alphabet, with its position from 1.
    """
    letters = np.frombuffer(sequence.encode("latin-1", errors="replace"), dtype=np.uint8)
    tokens = _TOKENS[letters]
    wrong = np.flatnonzero(tokens == SIZE)
    if len(wrong):
        place = int(wrong[0])
        raise ValueError(f"{sequence[place]!r} at position {begin + place + 1} is not a base; bases are {LETTERS}")
    return tokens


def decode(tokens: Integer[Tensor, " T"]) -> str:
    """Letters of tokens; special tokens are left out."""
    return "".join(BASES[token - FIRST_BASE] for token in tokens.tolist() if token >= FIRST_BASE)


def other_strand(tokens: Tokens) -> Tokens:
    """Return the reverse complement."""
    return _OTHER_STRAND[tokens[::-1]]
