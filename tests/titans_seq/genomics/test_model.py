"""DNA models: causality, both sides, padding, streams, and that everything is trained."""

import math

import pytest
import torch
from accuracy import assert_equal_to

from titans_seq.genomics.alphabet import FIRST_BASE, MASK, PAD, SIZE, UNKNOWN
from titans_seq.genomics.model import DNAClassifier, DNAEncoder, DNALanguageModel, base_loss

SMALL = {"dim": 8, "layers": 2, "heads": 2, "chunk_size": 4, "num_persistent": 2}


def model(kind, **options):
    torch.manual_seed(0)
    if kind == "classifier":
        return DNAClassifier(DNAEncoder(**SMALL, bidirectional=True, **options), ("a", "b", "c")).double().eval()
    return DNALanguageModel(DNAEncoder(**SMALL, bidirectional=kind == "masked", **options)).double().eval()


def bases(*shape, seed=0):
    return torch.randint(FIRST_BASE, SIZE, shape, generator=torch.Generator().manual_seed(seed))


def other(tokens):
    """Another base at every place."""
    return FIRST_BASE + (tokens - FIRST_BASE + 1) % (SIZE - FIRST_BASE)


def seen(kind, length):
    """[t, s]: does the logit at s change with the base at t?"""
    network, tokens = model(kind), bases(1, length)
    logits, rows = network(tokens)[0], []
    for t in range(length):
        changed = tokens.clone()
        changed[:, t] = other(tokens[:, t])
        rows.append((network(changed)[0] - logits).abs().amax(dim=(0, 2)) > 0)
    return torch.stack(rows)


def test_next_base_sees_all_bases_before_and_no_other():
    """Position t must not see base t: that is what it predicts."""
    assert torch.equal(seen("next", 11), torch.ones(11, 11, dtype=torch.bool).triu(1))


def test_bidirectional_positions_see_both_sides():
    assert seen("masked", 9).all()


@pytest.mark.parametrize("kind", ["next", "masked", "classifier"])
@pytest.mark.parametrize("side", ["before", "after", "inside"])
def test_padding_changes_no_logit(kind, side):
    network, tokens = model(kind), bases(2, 7)
    places = {"before": range(5, 12), "after": range(7), "inside": [0, 1, 4, 6, 7, 9, 11]}[side]
    places = torch.tensor(list(places))
    padded, mask = torch.full((2, 12), PAD), torch.zeros(2, 12, dtype=torch.bool)
    padded[:, places], mask[:, places] = tokens, True
    if kind == "classifier":
        assert_equal_to(network(padded, mask=mask), network(tokens), name="logits")
    else:
        assert_equal_to(network(padded, mask=mask)[0][:, places], network(tokens)[0], name="logits")


@pytest.mark.parametrize("cut", range(1, 10))
def test_a_stream_cut_anywhere(cut):
    network, tokens = model("next"), bases(2, 10)
    whole, _ = network(tokens)
    first, states = network(tokens[:, :cut])
    second, _ = network(tokens[:, cut:], previous=tokens[:, cut - 1], states=states)
    assert_equal_to(torch.cat([first, second], dim=1), whole, name="logits")


def test_a_bidirectional_encoder_has_no_stream():
    network, tokens = model("masked"), bases(1, 4)
    _, states = network(tokens)
    with pytest.raises(ValueError, match="bidirectional"):
        network(tokens, states=states)


def test_states_of_another_model():
    network = model("next")
    _, states = network(bases(1, 4))
    with pytest.raises(ValueError, match="states must be 2, one per block; got 1"):
        network(bases(1, 4), states=states[:1])


@pytest.mark.parametrize("kind", ["next", "masked", "classifier"])
def test_every_parameter_is_trained(kind):
    network = model(kind).train()
    tokens = torch.arange(SIZE).repeat(2, 3)  # every token, special ones too
    outputs = network(tokens)
    total = outputs.square().sum() if kind == "classifier" else outputs[0].square().sum()
    total.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("length", range(1, 9))
@pytest.mark.parametrize("kind", ["next", "masked", "classifier"])
def test_very_short_sequences(kind, length):
    outputs = model(kind)(bases(1, length))
    assert (outputs if kind == "classifier" else outputs[0]).isfinite().all()


def test_no_sample_sees_another():
    for kind in ("next", "masked", "classifier"):
        network, tokens = model(kind), bases(2, 6)
        together = network(tokens)
        alone = network(tokens[:1])
        together, alone = (x if kind == "classifier" else x[0] for x in (together, alone))
        assert_equal_to(together[:1], alone, name=kind)


def test_the_loss_counts_known_bases_only():
    """Adding N, padding or what is not counted changes neither the sum nor the number."""
    tokens = torch.tensor([[FIRST_BASE, FIRST_BASE + 3, UNKNOWN, PAD, MASK, FIRST_BASE + 1]])
    logits = torch.zeros(1, 6, 4)
    total, number = base_loss(logits, tokens)
    assert number == 3
    assert total.item() == pytest.approx(3 * math.log(4))
    counted = torch.tensor([[True, False, True, True, True, True]])
    logits[0, 1] = torch.tensor([9.0, 0, 0, 0])
    total, number = base_loss(logits, tokens, counted)
    assert number == 2
    assert total.item() == pytest.approx(2 * math.log(4))
