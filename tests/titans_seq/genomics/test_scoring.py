"""Variant scores against log-softmax summed base by base, at the ends of records, for indels, and on both strands."""

import numpy as np
import pytest
import torch

from titans_seq.datamodules.genomics.alphabet import BASES, MASK, encode
from titans_seq.genomics.model import DNAEncoder, DNALanguageModel
from titans_seq.genomics.scoring import alleles, score_variants

LETTERS = "ACGTTGCANCATGCCGTAAGTC"
RECORD = encode(LETTERS)
PAIRS = str.maketrans("ACGTN", "TGCAN")
# position, ref, alt
VARIANTS = {
    "first base": (0, "A", "G"),
    "last base": (21, "C", "A"),
    "inside": (10, "A", "T"),
    "its neighbour": (10, "A", "C"),
    "insertion": (9, "C", "CTTG"),
    "insertion at the end": (21, "C", "CA"),
    "deletion": (12, "GCC", "G"),
    "deletion at the start": (0, "ACG", "A"),
    "several bases": (15, "GT", "CA"),
}
SUBSTITUTIONS = ["first base", "last base", "inside", "its neighbour"]


@pytest.fixture(scope="module")
def causal():
    return network(bidirectional=False)


@pytest.fixture(scope="module")
def masked():
    return network(bidirectional=True)


def network(**options):
    torch.manual_seed(0)
    model = DNALanguageModel(DNAEncoder(dim=8, layers=1, heads=2, chunk_size=4, dropout=0.5, **options))
    with torch.no_grad():
        model.encoder.embedding.weight.normal_()  # else the tokens hardly differ
        model.head.weight.normal_()
    return model.double().eval()


def other_strand(sequence):
    return sequence.translate(PAIRS)[::-1]


def mirrored(position, ref, alt):
    return len(LETTERS) - position - len(ref), other_strand(ref), other_strand(alt)


def pair(variant, *, letters=LETTERS, window=11):
    position, ref, alt = variant
    return alleles(encode(letters), position, encode(ref), encode(alt), window)


def summed(model, sequence):
    """Total and number of the log-probabilities of known bases, one by one."""
    total, count = 0.0, 0
    for base, logits in zip(sequence, model(torch.from_numpy(encode(sequence))[None])[0][0], strict=True):
        if base in "ACGT":
            total += (logits[BASES.index(base)] - torch.logsumexp(logits, 0)).item()
            count += 1
    return total, count


@pytest.mark.parametrize("name", VARIANTS)
def test_causal_scores_are_sums_over_single_bases(name, causal):
    position, ref, alt = VARIANTS[name]
    side = (11 - max(len(ref), len(alt))) // 2
    before, after = LETTERS[max(position - side, 0) : position], LETTERS[position + len(ref) :][:side]
    (score,) = score_variants(causal, [pair(VARIANTS[name])])
    for strand, got in ((str, score.forward), (other_strand, score.reverse)):
        with torch.no_grad():
            total_ref, count_ref = summed(causal, strand(before + ref + after))
            total_alt, count_alt = summed(causal, strand(before + alt + after))
        assert got == pytest.approx(count_ref * total_alt / count_alt - total_ref, abs=1e-9)
    assert score.mean == (score.forward + score.reverse) / 2
    assert abs(score.mean) > 1e-3


@pytest.mark.parametrize("name", SUBSTITUTIONS)
def test_masked_scores_are_the_difference_at_the_variant(name, masked):
    position, ref, alt = VARIANTS[name]
    before, after = LETTERS[max(position - 5, 0) : position], LETTERS[position + 1 :][:5]
    (score,) = score_variants(masked, [pair(VARIANTS[name])])
    for strand, place, got in ((str, len(before), score.forward), (other_strand, len(after), score.reverse)):
        tokens = torch.from_numpy(encode(strand(before + "A" + after)).copy())
        tokens[place] = MASK
        with torch.no_grad():
            nats = torch.log_softmax(masked(tokens[None])[0][0, place], dim=0)
        assert got == pytest.approx((nats[BASES.index(strand(alt))] - nats[BASES.index(strand(ref))]).item(), abs=1e-9)
        assert abs(got) > 1e-3


@pytest.mark.parametrize("kind", ["causal", "masked"])
@pytest.mark.parametrize("window", [1, 4, 100])
def test_the_other_strand_swaps_forward_and_reverse(kind, window, request):
    model = request.getfixturevalue(kind)
    names = SUBSTITUTIONS if kind == "masked" else VARIANTS
    chosen = [VARIANTS[name] for name in names if max(map(len, VARIANTS[name][1:])) <= window]
    given = score_variants(model, [pair(v, window=window) for v in chosen])
    turned = score_variants(model, [pair(mirrored(*v), letters=other_strand(LETTERS), window=window) for v in chosen])
    for a, b in zip(given, turned, strict=True):
        assert (a.forward, a.reverse) == pytest.approx((b.reverse, b.forward), abs=1e-9)


@pytest.mark.parametrize(("kind", "names"), [("causal", list(VARIANTS)), ("masked", SUBSTITUTIONS)])
@pytest.mark.parametrize("batch_size", [2, 16])
def test_batches_change_nothing(kind, names, batch_size, request):
    model = request.getfixturevalue(kind)
    pairs = [pair(VARIANTS[name]) for name in names]
    for a, b in zip(
        score_variants(model, pairs, batch_size=1),
        score_variants(model, iter(pairs), batch_size=batch_size),
        strict=True,
    ):
        assert (a.forward, a.reverse) == pytest.approx((b.forward, b.reverse), abs=1e-9)


def test_a_window_is_read_once_for_all_alternatives_of_a_position(causal):
    read = []
    handle = causal.register_forward_pre_hook(lambda _, inputs: read.append(len(inputs[0])))
    list(score_variants(causal, [pair((10, "A", alt)) for alt in "CGT"]))
    handle.remove()
    assert read == [4, 4]  # one reference and three alternatives, on either strand


def test_scores_come_batch_by_batch(causal):
    reached = []

    def variants():
        for number in range(6):
            reached.append(number)
            yield pair(VARIANTS["inside"])

    next(score_variants(causal, variants(), batch_size=2))
    assert reached == [0, 1]


def test_windows_have_the_variant_in_the_middle_and_end_with_the_record():
    for (position, ref, alt), window, expected in (
        ((10, "A", "T"), 5, ("NCATG", "NCTTG")),
        ((10, "A", "T"), 6, ("NCATG", "NCTTG")),
        ((10, "A", "T"), 1, ("A", "T")),
        ((0, "A", "G"), 5, ("ACG", "GCG")),
        ((21, "C", "A"), 5, ("GTC", "GTA")),
        ((9, "C", "CTT"), 5, ("NCA", "NCTTA")),
        ((12, "GCC", "G"), 7, ("ATGCCGT", "ATGGT")),
        ((10, "A", "T"), 1000, (LETTERS, LETTERS[:10] + "T" + LETTERS[11:])),
    ):
        windows = pair((position, ref, alt), window=window)
        assert [w.tolist() for w in windows] == [encode(w).tolist() for w in expected]
        assert all(w.dtype == np.uint8 for w in windows)


def test_a_record_may_be_read_slice_by_slice():
    class Lazy:
        def __len__(self):
            return len(RECORD)

        def __getitem__(self, index):
            assert 0 <= index.start <= index.stop
            return RECORD[index]

    for name, (position, ref, alt) in VARIANTS.items():
        got = alleles(Lazy(), position, encode(ref), encode(alt), 9)
        for a, b in zip(got, pair(VARIANTS[name], window=9), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("variant", "window", "message"),
    [
        ((10, "C", "T"), 5, r"the record has 'A' at position 10 \(from 0\); ref is 'C'"),
        ((10, "A", "A"), 5, "ref and alt must differ; both are 'A'"),
        ((10, "", "A"), 5, "ref must be one or more of A, C, G, T; got ''"),
        ((10, "A", "N"), 5, "alt must be one or more of A, C, G, T; got 'N'"),
        ((-1, "A", "T"), 5, r"ref must lie in the record of 22 bases; got \[-1, 0\)"),
        ((21, "CA", "T"), 5, r"ref must lie in the record of 22 bases; got \[21, 23\)"),
        ((9, "C", "CTTG"), 3, "window must hold the alleles, 4 bases; got 3"),
    ],
)
def test_wrong_variants(variant, window, message):
    with pytest.raises(ValueError, match=message):
        pair(variant, window=window)


@pytest.mark.parametrize("name", ["insertion", "deletion", "several bases"])
def test_a_masked_model_scores_single_bases_only(name, masked):
    with pytest.raises(ValueError, match="single bases only"):
        list(score_variants(masked, [pair(VARIANTS[name])]))


def test_wrong_use_is_told_before_anything_is_read(causal):
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        score_variants(causal, [], batch_size=0)
    with pytest.raises(ValueError, match="model must be in eval mode"):
        score_variants(network().train(), [])
