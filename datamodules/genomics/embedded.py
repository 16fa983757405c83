"""A labelled DNA set made on the spot: which of two words comes first."""

import numpy as np

from titans_seq.datamodules.common.files import EMBEDDED
from titans_seq.datamodules.genomics.alphabet import FIRST_BASE, KNOWN
from titans_seq.datamodules.genomics.labelled import Labelled

SEQUENCES, LENGTH, WORD = 2000, 96, 8
MOTIFS = ("TATAAAAG", "CCACGTGG")


def embedded_dna() -> Labelled:
    """2,000 sequences of 96 random bases in two classes: TATAAAAG upstream of CCACGTGG, or the two in the other order.

    Both words stand in every sequence, so counting k-mers does not tell the classes apart; their order does. The
    reverse strand holds other words (CTTTTATA), so the strand carries no class. The same on every machine.
    """
    random = np.random.default_rng(20250101)
    bases = random.integers(0, KNOWN, size=(SEQUENCES, LENGTH)).astype(np.uint8) + FIRST_BASE
    labels = random.integers(0, 2, size=SEQUENCES)
    words = [np.array([FIRST_BASE + "ACGT".index(letter) for letter in motif], dtype=np.uint8) for motif in MOTIFS]
    for row, label in zip(bases, labels, strict=True):
        early = random.integers(0, LENGTH // 2 - WORD)
        late = random.integers(LENGTH // 2, LENGTH - WORD)
        first, second = words if label == 1 else words[::-1]
        row[early : early + WORD], row[late : late + WORD] = first, second
    return Labelled(EMBEDDED, tuple(bases), labels.astype(np.int64), ("box_first", "tata_first"))
