"""Splits drawn from labelled sequences: stratified by class, and no sequence in two of them.

S sequences.
"""

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from titans_seq.datamodules.common.errors import DataError
from titans_seq.datamodules.genomics.alphabet import Tokens, other_strand
from titans_seq.datamodules.genomics.labelled import Labelled

Groups = Int[np.ndarray, " S"]


def draw_fold(data: Labelled, groups: Groups, count: int, fold: int, seed: int) -> tuple[Groups, Groups]:
    """Return the rows outside and inside of one of `count` folds, stratified by class.

    Args:
        data: What is split.
        groups: Group of each row; a group is never split.
        count: Number of folds.
        fold: Which of them, from 0.
        seed: Of the shuffle.

    Raises:
        DataError: A class has too few groups.
    """
    for label, name in enumerate(data.class_names):
        distinct = len(np.unique(groups[data.labels == label]))
        if 0 < distinct < count:  # none: a class of the run that these data do not have
            raise DataError(
                f"{data.name}: class {name} has {distinct} different rows, too few to split in {count}; give more (12 "
                "are enough for test and validation), or the splits as files"
            )
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(data.labels, data.labels, groups)
    return next(pair for i, pair in enumerate(folds) if i == fold)


def same_sequence(data: Labelled) -> Groups:
    """Return a group per sequence; it has the same group on either strand."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(_canonical(tokens), len(seen)) for tokens in data.tokens], dtype=np.int64)


def join_groups(first: Groups, second: Groups) -> Groups:
    """Put rows that share a group of either kind, also through other rows, in one group."""
    kinds = int(first.max(initial=0)) + 1
    size = kinds + int(second.max(initial=0)) + 1
    links = coo_array((np.ones(len(first)), (first, second + kinds)), shape=(size, size))
    return connected_components(links, directed=False)[1][first].astype(np.int64)


def count_leaks(train: Labelled, test: Labelled) -> int:
    """Count the test sequences that are in the training data too, on either strand."""
    seen = {_canonical(tokens) for tokens in train.tokens}
    return sum(_canonical(tokens) in seen for tokens in test.tokens)


def _canonical(tokens: Tokens) -> bytes:
    """The same for a sequence and its reverse complement."""
    return min(tokens.tobytes(), other_strand(tokens).tobytes())
