"""Features for other people's models: what each base knows of, the blocks by hand, padding, and hooks that go away."""

import numpy as np
import pytest
import torch
from accuracy import assert_equal_to

from titans_seq.datamodules.genomics.alphabet import FIRST_BASE, KNOWN, PAD, START
from titans_seq.genomics.features import POOLINGS, features, pool
from titans_seq.genomics.model import DNAClassifier, DNAEncoder, DNALanguageModel

LAYERS = 2
OPTIONS = {"memory": {"chunk_size": 4}, "mag": {"chunk_size": 4, "window": 6}, "attention": {"window": 6}}
# which mixer it is changes nothing in `features`: those with a memory, which cost more, are looked at after all blocks
mixer_and_layer = pytest.mark.parametrize(
    ("mixer", "layer"), [(mixer, None) for mixer in OPTIONS] + [("attention", 1), ("attention", LAYERS), ("memory", 1)]
)


def model(kind, mixer="attention"):
    torch.manual_seed(0)
    options = {"dim": 8, "layers": LAYERS, "heads": 1, "num_persistent": 1, "mixer": mixer} | OPTIONS[mixer]
    encoder = DNAEncoder(**options, bidirectional=kind in ("masked", "classifier"))
    network = DNAClassifier(encoder, ("a", "b")) if "classifier" in kind else DNALanguageModel(encoder)
    return network.double().eval()


def bases(*shape, seed=0):
    return torch.randint(FIRST_BASE, FIRST_BASE + KNOWN, shape, generator=torch.Generator().manual_seed(seed))


def seen(network, length, layer):
    """[t, s]: does the feature of base s change with base t? One sample for each t: none sees another."""
    tokens = bases(1, length)
    other = FIRST_BASE + (tokens - FIRST_BASE + 1) % KNOWN
    changed = torch.where(torch.eye(length, dtype=torch.bool), other, tokens)
    made = features(network, torch.cat([tokens, changed]), layer=layer)
    # not 0: where in the batch a sample stands may change its last bit
    return (made[1:] - made[:1]).abs().amax(dim=2) > 1e-12


@mixer_and_layer
def test_a_causal_feature_knows_its_base_and_those_before(mixer, layer):
    assert torch.equal(seen(model("next", mixer), 6, layer), torch.ones(6, 6, dtype=torch.bool).triu())


@mixer_and_layer
def test_a_bidirectional_feature_knows_every_base(mixer, layer):
    assert seen(model("masked", mixer), 6, layer).all()


def test_a_classifier_may_be_causal():
    assert torch.equal(seen(model("causal classifier"), 6, None), torch.ones(6, 6, dtype=torch.bool).triu())
    assert seen(model("classifier"), 6, None).all()


@pytest.mark.parametrize("layer", [1, LAYERS, None])
@pytest.mark.parametrize(
    ("kind", "mixer"), [("next", "memory"), *((kind, "attention") for kind in ("next", "masked", "classifier"))]
)
def test_a_layer_is_what_the_blocks_make_by_hand(kind, mixer, layer):
    network, tokens = model(kind, mixer), bases(3, 7)
    given = torch.cat([torch.full((3, 1), START), tokens], dim=1) if kind == "next" else tokens
    x = network.encoder.embedding(given)
    for block in list(network.encoder.blocks)[:layer]:
        x = block(x)[0]
    x = network.encoder.norm(x) if layer is None else x
    made = features(network, tokens, layer=layer)
    assert made.shape == (3, 7, 8)
    assert_equal_to(made, x[:, -7:], name="features")


def test_what_the_heads_make_of_them_is_what_the_networks_say():
    tokens, mask = bases(2, 7), torch.arange(7) < torch.tensor([[7], [4]])
    masked, classifier, causal = model("masked"), model("classifier"), model("next")
    assert_equal_to(masked.head(features(masked, tokens)), masked(tokens)[0], name="masked")
    made = pool(features(classifier, tokens, mask=mask), mask)
    assert_equal_to(classifier.head(made), classifier(tokens, mask=mask), name="classifier")
    # a base's feature predicts the base after it
    assert_equal_to(causal.head(features(causal, tokens))[:, :-1], causal(tokens)[0][:, 1:], name="next")


@pytest.mark.parametrize(
    ("kind", "mixer", "layer"),
    [("next", "memory", None), ("classifier", "memory", None)]
    + [(kind, "attention", layer) for kind in ("next", "masked", "classifier") for layer in (1, None)],
)
def test_padding_changes_no_feature_and_no_pooling(kind, mixer, layer):
    """Behind, before, and around and between: a row of each, of the same bases."""
    network, tokens = model(kind, mixer), bases(5)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 1, 1, 0]]).bool()
    padded = torch.full((3, 8), PAD).masked_scatter(mask, tokens.repeat(3))
    made, plain = features(network, padded, mask=mask, layer=layer), features(network, tokens[None], layer=layer)
    assert_equal_to(made[mask].unflatten(0, (3, 5)), plain.expand(3, -1, -1), name="features")
    for pooling in POOLINGS:
        assert_equal_to(pool(made, mask, pooling), pool(plain, None, pooling).expand(3, -1), name=pooling)


@pytest.mark.parametrize("mixer", ["memory", "attention"])
def test_rows_of_other_lengths_change_nothing(mixer):
    """Each row is padded on its own side, by as much as it is shorter."""
    network, rows = model("next", mixer), [bases(7), bases(3, seed=1), bases(1, seed=2)]
    padded, mask = torch.full((3, 7), PAD), torch.zeros(3, 7, dtype=torch.bool)
    for i, (row, begin) in enumerate(zip(rows, (0, 4, 2), strict=True)):
        padded[i, begin : begin + len(row)], mask[i, begin : begin + len(row)] = row, True
    made = features(network, padded, mask=mask)
    for i, row in enumerate(rows):
        assert_equal_to(made[i][mask[i]], features(network, row[None])[0], name=f"row {i}")


@pytest.mark.parametrize("padding", [torch.nan, torch.inf, -torch.inf, 1e9])
def test_poolings_by_hand_whatever_stands_in_the_padding(padding):
    made = torch.randn(4, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 5  # zeros would win
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 0]]).bool()
    by_hand = {"mean": lambda rows: rows.mean(0), "max": lambda rows: rows.max(0), "last": lambda rows: rows[-1]}
    filled = made.masked_fill(~mask[..., None], padding)
    for pooling in POOLINGS:
        expected = [by_hand[pooling](row[kept].numpy()) for row, kept in zip(made, mask, strict=True)]
        assert_equal_to(pool(filled, mask, pooling), torch.from_numpy(np.stack(expected)), name=pooling)
        whole = np.stack([by_hand[pooling](row.numpy()) for row in made])
        assert_equal_to(pool(made, None, pooling), torch.from_numpy(whole), name=f"{pooling} without a mask")


def test_nothing_real_has_a_mean_only():
    made, mask = torch.ones(2, 3, 4), torch.tensor([[True, False, False], [False, False, False]])
    assert pool(made, mask).tolist() == [[1.0] * 4, [0.0] * 4]
    for pooling in ("max", "last"):
        with pytest.raises(ValueError, match=f"pooling '{pooling}' needs a real position in every sequence"):
            pool(made, mask, pooling)


@pytest.mark.parametrize("layer", [-1, 0, LAYERS + 1])
def test_a_block_that_is_not_there(layer):
    with pytest.raises(ValueError, match=f"layer must be 1 to 2, the number of blocks; got {layer}"):
        features(model("next"), bases(1, 3), layer=layer)


def test_an_unknown_pooling():
    with pytest.raises(ValueError, match="pooling must be one of mean, max, last; got 'cls'"):
        pool(torch.ones(1, 2, 3), None, "cls")


@pytest.mark.parametrize("kind", ["next", "classifier"])
def test_hooks_go_away_after_an_error_too(kind):
    network, tokens = model(kind), bases(1, 5)
    plain = network(tokens)
    before = features(network, tokens, layer=1)
    for layer in (1, 2):
        with pytest.raises(ValueError, match="mask must be boolean"):
            features(network, tokens, mask=torch.ones(1, 4, dtype=torch.bool), layer=layer)
    assert not any(block._forward_hooks for block in network.encoder.blocks)
    assert torch.equal(features(network, tokens, layer=1), before)
    after = network(tokens)
    assert torch.equal(*((x[0] if kind == "next" else x) for x in (after, plain)))


def test_hooks_go_away_when_a_later_block_fails(monkeypatch):
    network = model("next")

    def fails(*_, **__):
        raise RuntimeError("a later block")

    monkeypatch.setattr(network.encoder.blocks[1], "forward", fails)
    with pytest.raises(RuntimeError, match="a later block"):
        features(network, bases(1, 4), layer=1)
    assert not any(block._forward_hooks for block in network.encoder.blocks)
