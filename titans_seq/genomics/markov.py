"""Markov models of bases: the baseline of every next-base model.

A base is predicted from the bases before it, at most `order` of them. The rule that gives every A, C, G and T a score,
as a neural model does: the context is the longest run of known bases right before the base, cut to `order`. So it is
shorter at the beginning of a sequence and after an N or a special token, and has length 0 right there. N and special
tokens are neither counted nor scored.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int, UInt8

from titans_seq.datamodules.genomics.alphabet import FIRST_BASE, KNOWN, other_strand

MAX_ORDER = 11  # 180 MB for the model, 260 while it is fitted; four times as much for the next one
BLOCK = 2**20  # bases looked at together


@dataclass(frozen=True, eq=False)
class MarkovModel:
    """log2 p(base | context), for contexts of 0 to `order` bases.

    log2_probabilities: one row per context and one column per base, contexts of length 0, then 1, and so on; within a
        length they are ordered as numbers in base 4 (A 0, C 1, G 2, T 3), the base farthest away first.
    """

    order: int
    log2_probabilities: Float[np.ndarray, "contexts 4"]

    @classmethod
    def fit(
        cls,
        sequences: Iterable[UInt8[np.ndarray, " T"]],
        order: int,
        *,
        pseudocount: float = 1.0,
        both_strands: bool = False,
        interpolated: bool = False,
    ) -> "MarkovModel":
        """Count, then p(b | c) = (n(c, b) + 4 pseudocount p0(b)) / (n(c) + 4 pseudocount).

        A shorter context is counted wherever it occurs, also within a longer one.

        Args:
            order: 0 to 11.
            pseudocount: > 0, per base. Contexts never seen predict p0. Interpolated models want more of it: orders 8
                and 11 on 9 of 10 parts of E. coli are best at some 64.
            both_strands: count the reverse complement of each sequence too.
            interpolated: p0 is p(b | c without its farthest base); else 1/4.

        Raises:
            ValueError: an argument out of range, or no known base in the sequences.
        """
        if not 0 <= order <= MAX_ORDER:
            raise ValueError(f"order must be 0 to {MAX_ORDER}; got {order}")
        if not 0 < pseudocount < float("inf"):
            raise ValueError(f"pseudocount must be positive and finite; got {pseudocount}")
        flat = np.zeros(_start(order + 1) * KNOWN)
        for tokens in sequences:
            for strand in [tokens, other_strand(tokens)][: 1 + both_strands]:
                for _, entry in _entries(strand, order):
                    np.add.at(flat, entry, 1.0)
        if not flat.any():
            raise ValueError("sequences must hold an A, C, G or T; got none")
        tables = [flat[_start(j) * KNOWN : _start(j + 1) * KNOWN].reshape(-1, KNOWN) for j in range(order + 1)]
        for shorter, longer in reversed(list(pairwise(tables))):
            shorter += longer.reshape(KNOWN, *shorter.shape).sum(axis=0)
        prior = np.full((1, KNOWN), 1 / KNOWN)
        for table in tables:
            total = table.sum(axis=1, keepdims=True) + KNOWN * pseudocount
            by_farthest = table.reshape(-1, *prior.shape)
            by_farthest += KNOWN * pseudocount * prior
            table /= total
            prior = table if interpolated else prior
        return cls(order, np.log2(flat, out=flat).reshape(-1, KNOWN))

    def bits(self, tokens: UInt8[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
        """-log2 p of each base in its context; NaN where the token is no A, C, G or T."""
        bits = np.full(len(tokens), np.nan)
        for place, entry in _entries(tokens, self.order):
            bits[place] = -self.log2_probabilities.ravel()[entry]
        return bits

    def bits_per_base(self, sequences: Iterable[UInt8[np.ndarray, " T"]]) -> tuple[float, int]:
        """The two parts of the quotient: the sum of all bits, and the number of A, C, G and T it is over."""
        total, count = 0.0, 0
        for tokens in sequences:
            for _, entry in _entries(tokens, self.order):
                total -= self.log2_probabilities.ravel()[entry].sum()
                count += len(entry)
        return float(total), count


def _start(length: int) -> int:
    """How many contexts are shorter than `length`: (4^length - 1) / 3."""
    return (KNOWN**length - 1) // (KNOWN - 1)


def _entries(
    tokens: UInt8[np.ndarray, " T"], order: int
) -> Iterator[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
    """Block by block: the places of known bases, and the entry of each, with its context, in the flat table."""
    for begin in range(0, len(tokens), BLOCK):
        first = max(begin - order, 0)
        codes = tokens[first : begin + BLOCK].astype(np.int64) - FIRST_BASE
        known = (codes >= 0) & (codes < KNOWN)
        index = np.arange(len(codes))
        unknown = np.maximum.accumulate(np.where(known, -1, index))  # the last one so far
        length = np.minimum(index - unknown - 1, order)
        starts = np.array([_start(j) for j in range(order + 1)])
        entry = codes + KNOWN * starts[length.clip(min=0)]
        for j in range(1, order + 1):
            entry[j:] += np.where(length[j:] >= j, codes[:-j] * KNOWN**j, 0)
        chosen = np.flatnonzero(known[begin - first :]) + begin - first
        yield chosen + first, entry[chosen]
