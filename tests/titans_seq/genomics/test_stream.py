"""Streams are one call cut into pieces, at constant memory; bins and bedGraph files hold what they are given."""

import math

import numpy as np
import pytest
import torch
from accuracy import assert_equal_to

from titans_seq.datamodules.genomics.alphabet import FIRST_BASE, SIZE, UNKNOWN, encode
from titans_seq.genomics.model import DNAEncoder, DNALanguageModel
from titans_seq.genomics.stream import bin_mean, read_stream, write_bedgraph

LENGTH = 23


def network(**options):
    torch.manual_seed(0)
    options = {"chunk_size": 4, **options} if options.get("mixer") != "attention" else options
    model = DNALanguageModel(DNAEncoder(dim=8, layers=2, heads=2, **options))
    with torch.no_grad():
        model.encoder.embedding.weight.normal_()
        model.head.weight.normal_()
    return model.double().eval()


def bases(length=LENGTH):
    return np.random.default_rng(0).integers(FIRST_BASE, SIZE, length).astype(np.uint8)


@pytest.mark.parametrize("mixer", ["memory", "mag"])
@pytest.mark.parametrize("piece", [3, 4, LENGTH - 1, 100])
def test_a_stream_is_one_call(piece, mixer):
    model, tokens = network(mixer=mixer), bases()
    with torch.no_grad():
        logits, _, surprise = model(torch.from_numpy(tokens)[None], return_surprise=True)
    expected_surprise = torch.cat(surprise, dim=-1)[0].mean(dim=-1)  # two blocks with two heads each
    pieces = list(read_stream(model, tokens, piece=piece))
    assert [p.begin for p in pieces] == list(range(0, LENGTH, piece))
    got = np.concatenate([p.log_likelihood for p in pieces])
    assert np.array_equal(np.isnan(got), tokens == UNKNOWN) and (tokens == UNKNOWN).any()
    for place in np.flatnonzero(tokens != UNKNOWN):
        nats = torch.log_softmax(logits[0, place], dim=0)[int(tokens[place]) - FIRST_BASE]
        assert got[place] == pytest.approx(nats.item(), abs=1e-9)
    assert_equal_to(torch.from_numpy(np.concatenate([p.surprise for p in pieces])), expected_surprise, name="surprise")


@pytest.mark.parametrize("lengths", [[1] * LENGTH, [5, 0, 17, 1], [LENGTH], [0, LENGTH, 0]])
def test_parts_of_any_length_are_read_in_even_pieces(lengths):
    model, tokens = network(), bases()
    parts = np.split(tokens, np.cumsum(lengths)[:-1])
    whole, cut = (list(read_stream(model, given, piece=6)) for given in (tokens, iter(parts)))
    assert [(p.begin, len(p.surprise)) for p in cut] == [(0, 6), (6, 6), (12, 6), (18, 5)]
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(a.log_likelihood, b.log_likelihood)
        np.testing.assert_array_equal(a.surprise, b.surprise)


@pytest.mark.parametrize("empty", [bases(0), [], [bases(0)]], ids=["array", "no part", "an empty part"])
def test_nothing_to_read(empty):
    assert list(read_stream(network(), empty)) == []


def test_the_carried_states_do_not_grow():
    """Same bytes after each piece, what views hold on to included, and no graph."""
    model, held = network(), []

    def look(_module, _inputs, outputs):
        storages = {}

        def keep(tensor):
            assert tensor.is_inference() and tensor.grad_fn is None
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        outputs[1].map(keep)
        held.append(sum(storages.values()))

    model.register_forward_hook(look)
    list(read_stream(model, bases(40), piece=4))
    assert len(held) == 10 and len(set(held[1:])) == 1  # the first piece has persistent tokens before it


def test_surprise_is_of_the_memory_that_has_read_the_base_before():
    """Another last base changes its own likelihood and nothing else."""
    model, tokens = network(), encode("ACGTTGCA")
    changed = encode("ACGTTGCC")
    (a,), (b,) = (read_stream(model, given) for given in (tokens, changed))
    np.testing.assert_array_equal(a.surprise, b.surprise)
    assert a.log_likelihood[-1] != b.log_likelihood[-1]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (network(bidirectional=True), {}, "model must be causal"),
        (network().train(), {}, "model must be in eval mode"),
        (network(), {"piece": 0}, "piece must be at least 1; got 0"),
    ],
)
def test_wrong_use_is_told_before_anything_is_read(model, options, message):
    with pytest.raises(ValueError, match=message):
        read_stream(model, bases(), **options)


def test_a_model_without_memory_has_no_surprise():
    with pytest.raises(ValueError, match="surprise needs a mixer with a memory"):
        list(read_stream(network(mixer="attention"), bases()))


@pytest.mark.parametrize("width", [1, 3, 4, 30])
@pytest.mark.parametrize("begin", [0, 1, 4, 11])
def test_bins_are_means_between_multiples_of_the_width(begin, width):
    values = np.random.default_rng(0).standard_normal(14)
    values[[2, 5, 6, 7, 8]] = np.nan
    edges, means = bin_mean(values, begin, width)
    numbers = (begin + np.arange(14)) // width
    assert edges[0] == begin and edges[-1] == begin + 14
    assert edges[1:-1].tolist() == [number * width for number in np.unique(numbers)[1:]]
    for number, mean in zip(np.unique(numbers), means, strict=True):
        chosen = [value for value in values[numbers == number] if not math.isnan(value)]
        expected = sum(chosen) / len(chosen) if chosen else math.nan
        assert mean == pytest.approx(expected, nan_ok=True)


def test_bins_of_pieces_are_those_of_the_whole():
    values = np.random.default_rng(0).standard_normal(20).astype(np.float32)
    edges, means = bin_mean(values, 0, 3)
    parts = [bin_mean(values[begin : begin + 6], begin, 3) for begin in range(0, 20, 6)]
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), means)
    np.testing.assert_array_equal(np.unique(np.concatenate([part[0] for part in parts])), edges)


def test_bins_of_nothing():
    edges, means = bin_mean(np.zeros(0), 7, 3)
    assert edges.tolist() == [7] and means.shape == (0,)
    with pytest.raises(ValueError, match="width must be at least 1; got 0"):
        bin_mean(np.zeros(2), 0, 0)


def test_bedgraph_rows(tmp_path):
    tracks = [
        ("chr1", np.array([0, 10, 20, 25]), np.array([0.5, np.nan, 1 / 3])),
        ("chr1", np.array([25, 30]), np.array([1e-7])),
        ("plasmid", np.array([3, 4]), np.array([2.0], dtype=np.float32)),
        ("empty", np.array([9]), np.zeros(0)),
    ]
    path = write_bedgraph(tmp_path / "s.bedgraph", iter(tracks), name="surprise", description="of a model, per 10 bp")
    assert path.read_text() == (
        'track type=bedGraph name="surprise" description="of a model, per 10 bp"\n'
        "chr1\t0\t10\t0.5\nchr1\t20\t25\t0.333333\nchr1\t25\t30\t1e-07\nplasmid\t3\t4\t2\n"
    )
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("record", "edges", "values", "message"),
    [
        ("chr 1", [0, 1], [0.0], "a record's name must be one word; got 'chr 1'"),
        ("", [0, 1], [0.0], "one word"),
        ("c", [0, 1], [0.0, 1.0], "edges of c must be 3, one more than its values"),
        ("c", [0, 2, 2], [0.0, 1.0], "increase from 0"),
        ("c", [-1, 2], [0.0], "increase from 0"),
        ("c", [0, 1], [math.inf], "values of c must be finite or NaN"),
    ],
)
def test_a_wrong_track_leaves_the_old_file(record, edges, values, message, tmp_path):
    path = tmp_path / "s.bedgraph"
    path.write_text("old")
    good = ("chr1", np.array([0, 1]), np.array([1.0]))
    with pytest.raises(ValueError, match=message):
        write_bedgraph(path, [good, (record, np.array(edges), np.array(values))], name="n", description="d")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ['a "quote"', "two\nlines"])
def test_names_that_would_break_the_header(text, tmp_path):
    for names in ({"name": text, "description": "d"}, {"name": "n", "description": text}):
        with pytest.raises(ValueError, match="one line without double quotes"):
            write_bedgraph(tmp_path / "s.bedgraph", [], **names)
