"""DNA as numbers: one token per base, and the complement as a table.

Upper and lower case are read alike (soft-masked repeats are no other bases), U as T. The IUPAC codes for several
possible bases (R, Y, S, W, K, M, B, D, H, V) are read as N: known to be a base, not known which. N is its own
complement.
"""

import numpy as np
import torch
from jaxtyping import Integer, UInt8
from torch import Tensor

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


def encode(sequence: str) -> UInt8[np.ndarray, " T"]:
    """Tokens of a sequence.

    Raises:
        ValueError: a letter outside of the alphabet, with its place (from 1).
    """
    letters = np.frombuffer(sequence.encode("latin-1", errors="replace"), dtype=np.uint8)
    tokens = _TOKENS[letters]
    wrong = np.flatnonzero(tokens == SIZE)
    if len(wrong):
        place = int(wrong[0])
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ValueError(f"{sequence[place]!r} at position {place + 1}{more} is no base; bases are {LETTERS}")
    return tokens


def decode(tokens: Integer[Tensor, " T"]) -> str:
    """Letters of tokens; special tokens are left out."""
    return "".join(BASES[token - FIRST_BASE] for token in tokens.tolist() if token >= FIRST_BASE)
