"""DNA models: causality, both sides, the other strand, padding, streams, and that everything is trained."""

import math

import numpy as np
import pytest
import torch
from accuracy import assert_equal_to

from titans_seq.blocks import ModelState
from titans_seq.datamodules.genomics.alphabet import FIRST_BASE, MASK, PAD, SIZE, UNKNOWN, decode, encode
from titans_seq.genomics.model import DNAClassifier, DNAEncoder, DNALanguageModel, base_loss, reverse_complement
from titans_seq.mixers import MIXERS, WITH_MEMORY, options_of
from titans_seq.state_io import load_state, save_state

SMALL = {"heads": 2, "num_persistent": 2}  # of mixers that have such options
OPTIONS = {
    "memory": {"chunk_size": 4},
    "mac": {"chunk_size": 4, "segment": 3},
    "mag": {"chunk_size": 4, "window": 3},
    "mal": {"chunk_size": 4, "window": 3},
    "attention": {"window": 6},
    "ssm": {"states": 4},
    "gated_deltanet": {},
}
every_mixer = pytest.mark.parametrize("mixer", MIXERS)
with_memory = pytest.mark.parametrize("mixer", WITH_MEMORY)


def model(kind, mixer="memory", **options):
    torch.manual_seed(0)
    usual = {name: SMALL[name] for name in SMALL.keys() & options_of(mixer).keys()}
    options = {"dim": 8, "layers": 2, "mixer": mixer} | usual | OPTIONS[mixer] | options
    if kind == "classifier":
        return DNAClassifier(DNAEncoder(**options, bidirectional=True), ("a", "b", "c")).double().eval()
    return DNALanguageModel(DNAEncoder(**options, bidirectional=kind == "masked")).double().eval()


def bases(*shape, seed=0):
    return torch.randint(FIRST_BASE, SIZE, shape, generator=torch.Generator().manual_seed(seed))


def other(tokens):
    """Another base at every place."""
    return FIRST_BASE + (tokens - FIRST_BASE + 1) % (SIZE - FIRST_BASE)


def seen(network, length):
    """[t, s]: does the logit at s change with the base at t? One sample for each t: none sees another."""
    tokens = bases(1, length).expand(length, -1)
    changed = torch.where(torch.eye(length, dtype=torch.bool), other(tokens), tokens)
    return (network(changed)[0] - network(tokens)[0]).abs().amax(dim=2) > 0


@every_mixer
def test_next_base_sees_all_bases_before_and_no_other(mixer):
    """Position t must not see base t: that is what it predicts. Two blocks with a window of 6 reach ten back."""
    assert torch.equal(seen(model("next", mixer), 11), torch.ones(11, 11, dtype=torch.bool).triu(1))


@every_mixer
def test_bidirectional_positions_see_both_sides(mixer):
    assert seen(model("masked", mixer), 9).all()


@pytest.mark.parametrize("kind", ["next", "masked", "classifier"])
@pytest.mark.parametrize("side", ["before", "after", "inside"])
@every_mixer
def test_padding_changes_no_logit(kind, side, mixer):
    network, tokens = model(kind, mixer), bases(2, 7)
    places = {"before": range(5, 12), "after": range(7), "inside": [0, 1, 4, 6, 7, 9, 11]}[side]
    places = torch.tensor(list(places))
    padded, mask = torch.full((2, 12), PAD), torch.zeros(2, 12, dtype=torch.bool)
    padded[:, places], mask[:, places] = tokens, True
    if kind == "classifier":
        assert_equal_to(network(padded, mask=mask), network(tokens), name="logits")
    else:
        assert_equal_to(network(padded, mask=mask)[0][:, places], network(tokens)[0], name="logits")


@pytest.mark.parametrize("cut", [1, 3, 4, 9])
@every_mixer
def test_a_stream_cut_anywhere(cut, mixer):
    network, tokens = model("next", mixer), bases(2, 10)
    whole, _ = network(tokens)
    first, state = network(tokens[:, :cut])
    second, _ = network(tokens[:, cut:], previous=tokens[:, cut - 1], state=state)
    assert_equal_to(torch.cat([first, second], dim=1), whole, name="logits")


@every_mixer
def test_a_stream_goes_on_from_a_file(mixer, tmp_path):
    network, tokens = model("next", mixer), bases(3, 10)
    _, state = network(tokens[:, :6])
    save_state(tmp_path / "states", state, model=network)
    loaded = load_state(tmp_path / "states", model=network)
    assert isinstance(loaded, ModelState)
    rest = {"tokens": tokens[:, 6:], "previous": tokens[:, 5]}
    whole = network(**rest, state=state)[0]
    assert torch.equal(network(**rest, state=loaded)[0], whole)
    one = network(tokens[1:2, 6:], previous=tokens[1:2, 5], state=loaded.select(1))[0]
    assert_equal_to(one, whole[1:2], name="logits of one sample")


@every_mixer
def test_a_bidirectional_encoder_has_no_stream(mixer):
    network, tokens = model("masked", mixer), bases(1, 4)
    assert network(tokens)[1] is None
    with pytest.raises(ValueError, match="bidirectional"):
        network(tokens, state=model("next", mixer)(tokens)[1])


def test_states_of_another_model():
    network = model("next")
    _, state = network(bases(1, 4))
    with pytest.raises(ValueError, match="state.blocks must be 2 states, one per block; got 1"):
        network(bases(1, 4), state=ModelState(state.blocks[:1]))
    with pytest.raises(ValueError, match="state must be a ModelState; got tuple"):
        network(bases(1, 4), state=state.blocks)
    with pytest.raises(ValueError, match="state must be a LayerState; got AttentionState"):
        network(bases(1, 4), state=model("next", "attention")(bases(1, 4))[1])


def test_an_unknown_mixer():
    with pytest.raises(ValueError, match="mixer must be one of memory, mac, mag, mal, attention, ssm, .*; got 'hyena'"):
        DNAEncoder(8, mixer="hyena")


@pytest.mark.parametrize("kind", ["next", "masked"])
@with_memory
def test_surprise_of_every_block(kind, mixer):
    """Per token and head, zero at padding, and the rest as without it; streams carry it on."""
    network, tokens = model(kind, mixer), bases(2, 9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, [0, 4]] = False
    logits, _, surprise = network(tokens, mask=mask, return_surprise=True)
    assert torch.equal(logits, network(tokens, mask=mask)[0])
    assert [s.shape for s in surprise] == [(2, 9, 2)] * 2
    assert all((s[~mask] == 0).all() and (s[mask] > 0).all() for s in surprise)
    assert not torch.equal(*surprise)
    if kind == "next":
        _, state = network(tokens[:, :4], mask=mask[:, :4])
        *_, later = network(tokens[:, 4:], mask=mask[:, 4:], previous=tokens[:, 3], state=state, return_surprise=True)
        for a, b in zip(later, surprise, strict=True):
            assert_equal_to(a, b[:, 4:], name="surprise")


def test_attention_has_no_surprise():
    with pytest.raises(ValueError, match="surprise needs a mixer with a memory"):
        model("next", "attention")(bases(1, 3), return_surprise=True)


@pytest.mark.parametrize("kind", ["next", "masked", "classifier"])
@every_mixer
def test_every_parameter_is_trained(kind, mixer):
    network = model(kind, mixer).train()
    tokens = torch.arange(SIZE).repeat(2, 3)  # every token, special ones too
    outputs = network(tokens)
    total = outputs.square().sum() if kind == "classifier" else outputs[0].square().sum()
    total.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("kind", ["next", "masked", "classifier"])
@every_mixer
def test_very_short_sequences(kind, length, mixer):
    outputs = model(kind, mixer)(bases(1, length))
    assert (outputs if kind == "classifier" else outputs[0]).isfinite().all()


@every_mixer
def test_no_sample_sees_another(mixer):
    for kind in ("next", "masked", "classifier"):
        network, tokens = model(kind, mixer), bases(2, 6)
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


def other_strand(sequence):
    return "".join({"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}[base] for base in reversed(sequence))


@pytest.mark.parametrize("side", ["left", "right", "inside"])
def test_reverse_complement_of_padded_batches(side):
    """Against strings, one by one; padding keeps its place."""
    random = np.random.default_rng(0)
    width, rows = 12, []
    for length in (0, 1, 2, 7, 12):
        sequence = "".join(random.choice(list("ACGTN"), length))
        places = {"left": np.arange(width - length, width), "right": np.arange(length)}.get(side)
        rows.append((sequence, np.sort(random.permutation(width)[:length]) if places is None else places))
    tokens, real = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (sequence, places) in enumerate(rows):
        tokens[row, places] = torch.from_numpy(encode(sequence)).long()
        real[row, places] = True
    turned = reverse_complement(tokens, real)
    for row, (sequence, places) in enumerate(rows):
        assert decode(turned[row, places]) == other_strand(sequence)
    assert (turned[~real] == PAD).all()
    assert torch.equal(reverse_complement(turned, real), tokens)
