"""The k-mer floor: frequencies against counting by hand, and the published-protocol scores it must reach."""

import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from titans_seq.datamodules.labelled import read_labelled_csv
from titans_seq.genomics.alphabet import encode
from titans_seq.genomics.kmer import kmer_classifier, kmer_frequencies


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("sequence", ["", "A", "ACGT", "AANAAC", "NNN", "GATTACAGATTACA"])
def test_frequencies_are_those_of_counting(sequence, k):
    words = [sequence[i : i + k] for i in range(len(sequence) - k + 1)]
    words = [word for word in words if "N" not in word]
    expected = [words.count("".join(word)) / max(len(words), 1) for word in product("ACGT", repeat=k)]
    assert kmer_frequencies(encode(sequence), k) == pytest.approx(expected, abs=0)


def test_it_finds_a_word_that_one_class_has_more_of():
    random = np.random.default_rng(0)
    sequences = ["".join(random.choice(list("ACGT"), 60)) for _ in range(200)]
    labels = np.arange(200) % 2
    tokens = [
        encode(s[:20] + "TATA" + s[24:40] + "TATA" + s[44:] if label else s)
        for s, label in zip(sequences, labels, strict=True)
    ]
    model = kmer_classifier().fit(tokens[:150], labels[:150])
    assert model.score(tokens[150:], labels[150:]) > 0.9


GUE = Path(os.environ.get("TITANS_SEQ_DATA", "none")) / "dna" / "gue"


@pytest.mark.data
@pytest.mark.skipif(not GUE.is_dir(), reason="no dna/gue in $TITANS_SEQ_DATA")
@pytest.mark.parametrize(("task", "floor"), [("prom_prom_300_tata", 0.347), ("tf_1", 0.699)])
def test_the_floor_on_gue(task, floor):
    train = read_labelled_csv(GUE / f"{task}.train.csv.gz")
    test = read_labelled_csv(GUE / f"{task}.test.csv.gz", train.class_names)
    predicted = kmer_classifier().fit(train.tokens, train.labels).predict(test.tokens)
    assert matthews_corrcoef(test.labels, predicted) == pytest.approx(floor, abs=0.005)
