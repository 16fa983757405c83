"""The k-mer baseline: frequencies against counting by hand, and the published-protocol scores it must reach."""

import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import matthews_corrcoef

from titans_seq.datamodules.genomics.alphabet import encode
from titans_seq.datamodules.genomics.labelled import read_labelled_csv
from titans_seq.genomics.kmer import KmerClassifier, kmer_frequencies


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
    model = KmerClassifier(("none", "twice"))
    model.fit(tokens[:150], labels[:150])
    assert (_predicted(model, tokens[150:]) == labels[150:]).mean() > 0.9


@pytest.mark.parametrize("classes", [2, 3])
def test_it_gives_the_probabilities_of_scikit_learn(classes):
    random = np.random.default_rng(1)
    tokens = [encode("".join(random.choice(list("ACGT"), 40))) for _ in range(90)]
    labels = np.arange(90) % classes
    model = KmerClassifier(("a", "b", "c")[:classes], k=2)
    model.fit(tokens, labels)
    features = np.stack([kmer_frequencies(row, 2) for row in tokens]) * 16 / 10
    expected = LogisticRegression(C=0.1, max_iter=300).fit(features, labels).predict_proba(features)
    found = model(torch.from_numpy(np.stack(tokens))).softmax(dim=-1)
    assert torch.allclose(found.double(), torch.from_numpy(expected), atol=1e-6)


def test_padding_is_not_counted():
    torch.manual_seed(0)
    model, row = KmerClassifier(("a", "b"), k=2), torch.tensor(encode("ACGGT"))[None]
    padded = torch.cat([torch.zeros(1, 3, dtype=row.dtype), row, torch.zeros(1, 2, dtype=row.dtype)], dim=1)
    mask = torch.tensor([[False] * 3 + [True] * 5 + [False] * 2])
    assert torch.equal(model(padded, mask=mask), model(row))


def test_a_class_without_sequences_is_refused():
    with pytest.raises(ValueError, match="class b has no sequence"):
        KmerClassifier(("a", "b")).fit([encode("ACGT")], np.array([0]))


def _predicted(model, tokens):
    return np.array([int(model(torch.from_numpy(row)[None]).argmax()) for row in tokens])


GUE = Path(os.environ.get("TITANS_SEQ_DATA", "none")) / "dna" / "gue"


@pytest.mark.data
@pytest.mark.skipif(not GUE.is_dir(), reason="no dna/gue in $TITANS_SEQ_DATA")
@pytest.mark.parametrize(("task", "mcc"), [("prom_prom_300_tata", 0.347), ("tf_1", 0.699)])
def test_the_baseline_on_gue(task, mcc):
    train = read_labelled_csv(GUE / f"{task}.train.csv.gz")
    test = read_labelled_csv(GUE / f"{task}.test.csv.gz", train.class_names)
    model = KmerClassifier(train.class_names)
    model.fit(train.tokens, train.labels)
    assert matthews_corrcoef(test.labels, _predicted(model, test.tokens)) == pytest.approx(mcc, abs=0.005)
