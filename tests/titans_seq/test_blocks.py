"""Blocks with every mixer: what holds for all. Other files judge each mixer alone."""

import copy
import dataclasses
import itertools

import pytest
import torch
from accuracy import assert_equal_to
from torch import Tensor

from titans_seq.blocks import Block, ModelState, choose
from titans_seq.mixers import MIXERS, WITH_MEMORY, options_of
from titans_seq.state_io import load_state, save_state

D = 8

# numbers that make 12 tokens cross windows and chunks
BLOCKS = {
    "memory": {"mixer": "memory", "chunk_size": 4},
    "mag": {"mixer": "mag", "chunk_size": 4, "window": 3},
    "mag, no persistent": {"mixer": "mag", "chunk_size": 4, "window": 3, "num_persistent": 0, "qk_norm": True},
    "mac": {"mixer": "mac", "chunk_size": 2, "segment": 4},
    "mac, chunks over segments": {"mixer": "mac", "chunk_size": 4, "segment": 3, "num_persistent": 0, "qk_norm": True},
    "mac, linear": {"mixer": "mac", "chunk_size": 4, "segment": 5, "depth": 1, "conv_size": 0, "gate_per": "chunk"},
    "mal": {"mixer": "mal", "chunk_size": 4, "window": 3},
    "mal, h3": {"mixer": "mal", "chunk_size": 4, "window": 3, "form": "h3", "num_persistent": 0},
    "attention": {"mixer": "attention"},
    "attention, window": {"mixer": "attention", "window": 3, "qk_norm": True},
    "ssm": {"mixer": "ssm", "states": 3},
    "ssm, no convolution": {"mixer": "ssm", "states": 3, "conv_size": 1},
    "gated_deltanet": {"mixer": "gated_deltanet"},
    "gated_deltanet, no convolution": {"mixer": "gated_deltanet", "conv_size": 0},
}
MEMORIES = {
    "no persistent": {},
    "depth 1": {"depth": 1},
    "depth 3": {"depth": 3},
    "depth 4": {"depth": 4},
    "chunks of 1": {"chunk_size": 1},
    "no momentum": {"momentum": False},
    "no forgetting": {"forgetting": False},
    "neither": {"momentum": False, "forgetting": False},
    "conv_size 0": {"conv_size": 0},
    "conv_size 1": {"conv_size": 1},
    "conv_size 2": {"conv_size": 2},
    "gates per chunk": {"gate_per": "chunk"},
    "gates per chunk, persistent": {"gate_per": "chunk", "num_persistent": 3},
    "plain paper": {"max_surprise": None},
    "everything off": {"depth": 1, "conv_size": 0, "momentum": False, "forgetting": False, "max_surprise": None},
}
BLOCKS |= {
    f"memory, {name}": {"mixer": "memory", "chunk_size": 4, "num_persistent": 0} | options
    for name, options in MEMORIES.items()
}
ATTENTIONS = {
    "no persistent": {"num_persistent": 0},
    "window 1": {"window": 1},
    "window, no persistent": {"window": 3, "num_persistent": 0},
    "heads of 6": {"head_dim": 6, "heads": 3},
}
BLOCKS |= {f"attention, {name}": {"mixer": "attention"} | options for name, options in ATTENTIONS.items()}
every_block = pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS)
with_memory = pytest.mark.parametrize("options", [o for o in BLOCKS.values() if o["mixer"] in WITH_MEMORY], ids=str)


def small(options) -> dict:
    """With two heads and two persistent tokens, where there are such."""
    known = options_of(options["mixer"])
    return {name: 2 for name in ("heads", "num_persistent") if name in known} | options


def make(options, *, dtype=torch.float64, seed=0) -> Block:
    """A block whose every part matters."""
    torch.manual_seed(seed)
    block = Block(D, **small(options)).to(dtype).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block


def tokens(T, *, B=2, seed=1, dtype=torch.float64):
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


MASK = torch.tensor(
    [
        [c == "1" for c in row]
        for row in (
            "000111111111",  # padding before
            "101011101011",  # inside
            "111110000000",  # after
            "010011101010",  # everywhere
            "000000000000",  # nothing else
            "111111111111",  # nowhere
        )
    ]
)


def tensors_of(state) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    if dataclasses.is_dataclass(state):
        return tensors_of([getattr(state, f.name) for f in dataclasses.fields(state)])
    return [x for item in state for x in tensors_of(item)] if isinstance(state, tuple | list) else []


def read(block, x, **given):
    """All that a block tells: outputs, state, and the surprise where there is a memory."""
    return block(x, **given, return_surprise=block.mixer.has_memory)


def assert_same(got, exact):
    assert_equal_to(got[0], exact[0], name="x")
    for i, (a, b) in enumerate(zip(tensors_of(got[1:]), tensors_of(exact[1:]), strict=True)):
        assert_equal_to(a.double(), b.double(), name=f"state or surprise, tensor {i}")


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "both sides"])
@pytest.mark.parametrize("T", [1, 12])
@every_block
def test_every_parameter_has_a_gradient_at_the_first_step(options, T, bidirectional):
    """As constructed, in float32: a parameter without one breaks DDP, and is never learned."""
    torch.manual_seed(0)
    block = Block(D, bidirectional=bidirectional, **small(options))
    y, *_ = block(tokens(T, dtype=torch.float32))
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in block.named_parameters():
        if T == 1 and options.get("num_persistent") == 0 and name.endswith(("q_norm.weight", "k_norm.weight")):
            continue  # a softmax over one token does not ask how alike q and k are
        if T == 1 and name.endswith("log_a"):
            continue  # how fast the state decays: there is none before the first token
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@every_block
def test_every_part_of_every_parameter_has_a_gradient(options):
    """No head, no tap, no gate, no persistent token is left out."""
    torch.manual_seed(0)
    block = Block(D, **small(options))
    y, *_ = block(tokens(23, dtype=torch.float32))
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in block.named_parameters():
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
        assert (rows.abs().amax(1) > 0).all(), f"{name}: rows {(rows.abs().amax(1) == 0).nonzero().flatten().tolist()}"


# --- who sees what ----------------------------------------------------------------------------------------------------


def changes(block, T=10):
    """[t, s]: does the output at s change with the token at t? One sample for each t: none sees another."""
    x = tokens(T, B=1).expand(T, -1, -1)
    with torch.no_grad():
        (y, _, *surprise), exact = (read(block, z) for z in (x + 0.5 * torch.eye(T, dtype=x.dtype)[..., None], x))
    if surprise and not block.bidirectional:
        earlier = torch.ones(T, T, dtype=torch.bool).tril(-1)
        assert_equal_to(surprise[0][earlier], exact[2][earlier], name="earlier surprise", tolerance=1e-12)
    return (y - exact[0]).abs().amax(dim=2) > 1e-12


@every_block
def test_no_future_and_all_of_the_past(options):
    T, window = 10, options.get("window", 10) if options["mixer"] == "attention" else 10
    past = torch.ones(T, T, dtype=torch.bool).triu()
    assert torch.equal(changes(make(options), T), past & ~past.triu(window))


@every_block
def test_bidirectional_positions_see_both_sides(options):
    T, window = 10, options.get("window", 10) if options["mixer"] == "attention" else 10
    near = torch.ones(T, T, dtype=torch.bool).triu(1 - window).tril(window - 1)
    assert torch.equal(changes(make({"bidirectional": True} | options), T), near)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "both sides"])
@every_block
def test_no_neighbour(options, bidirectional):
    block, x = make({"bidirectional": bidirectional} | options), tokens(10, B=3)
    other = x.clone()
    other[1] = 5 * other[1] + 1
    with torch.no_grad():
        found, found2 = read(block, x), read(block, other)
    for a, b in zip(tensors_of(found), tensors_of(found2), strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert not torch.equal(found[0][1], found2[0][1])


@pytest.mark.parametrize("T", [0, 1])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "both sides"])
@every_block
def test_very_short_sequences(options, bidirectional, T):
    block = make({"bidirectional": bidirectional} | options)
    y, state, *surprise = read(block, tokens(T))
    assert y.shape == (2, T, D)
    assert all(s.shape == (2, T, 2) for s in surprise)
    assert block(tokens(3), state=state)[0].isfinite().all()
    if T == 0 and state is not None:
        _, after = block(tokens(0), state=block(tokens(6))[1])
        assert_equal_to(block(tokens(3), state=after)[0], block(tokens(3), state=block(tokens(6))[1])[0], name="x")


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "both sides"])
@every_block
def test_a_masked_sample_is_its_real_tokens_alone(options, bidirectional):
    block, x = make({"bidirectional": bidirectional} | options), tokens(12, B=len(MASK))
    with torch.no_grad():
        y, state, *surprise = read(block, x, mask=MASK)
        for b, real in enumerate(MASK):
            one, own, *found = read(block, x[b : b + 1, real])
            sample = None if state is None else state.select(b)
            if options["mixer"] == "attention" and "window" not in options:
                sample = own = None  # the cache has the length of what was read, padding included
            assert_same((y[b : b + 1, real], sample, *(s[b : b + 1, real] for s in surprise)), (one, own, *found))
        dirty, *others = read(block, torch.where(MASK[..., None], x, 1e4), mask=MASK)
    assert_same((dirty[MASK], *others), (y[MASK], state, *surprise))


@every_block
def test_padding_has_no_gradient(options):
    block, x = make(options), tokens(12, B=len(MASK)).requires_grad_()
    block(x, mask=MASK)[0][MASK].square().sum().backward()
    assert (x.grad[~MASK] == 0).all()
    assert (x.grad[MASK].abs().amax(-1) > 0).all()


@pytest.mark.parametrize("padding", [float("nan"), float("inf"), 1e300])
@every_block
def test_padding_of_a_mixer_may_hold_anything(options, padding):
    """Zeros come out, and what is trained does not see it."""
    mixer, x = make(options).mixer, tokens(12, B=len(MASK))
    dirty = torch.where(MASK[..., None], x, padding).requires_grad_()
    asked = {"mask": MASK, "return_state": True, "return_surprise": mixer.has_memory}
    found, exact = mixer(dirty, **asked), mixer(x, **asked)
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(found), tensors_of(exact), strict=True))
    y, _, *surprise = found
    assert all((z[~MASK] == 0).all() for z in (y, *surprise))
    y.square().sum().backward()
    assert (dirty.grad[~MASK] == 0).all()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())


# --- streams ----------------------------------------------------------------------------------------------------------


def in_pieces(block, x, cuts, mask=None):
    state, parts = None, []
    for begin, end in itertools.pairwise([0, *cuts, x.shape[1]]):
        part = None if mask is None else mask[:, begin:end]
        y, state, *surprise = read(block, x[:, begin:end], state=state, mask=part)
        parts.append((y, *surprise))
    y, *surprise = (torch.cat(each, 1) for each in zip(*parts, strict=True))
    return y, state, *surprise


@every_block
def test_a_stream_cut_anywhere(options):
    """Samples with different numbers of real tokens, pieces of none; and without padding."""
    block, x = make(options), tokens(12, B=len(MASK))
    with torch.no_grad():
        whole = read(block, x, mask=MASK)
        for cuts in [*([t] for t in range(0, 13, 2)), [1, 5, 9]]:
            assert_same(in_pieces(block, x, cuts, MASK), whole)
        whole = read(block, x)
        for cuts in [[1], [4], [7], [11], [2, 5, 5, 9], list(range(1, 12))]:
            assert_same(in_pieces(block, x, cuts), whole)


@every_block
def test_gradients_through_cuts(options):
    block, whole, cut = make(options), tokens(11).requires_grad_(), tokens(11).requires_grad_()
    losses = [block(whole)[0].square().sum(), in_pieces(block, cut, [3, 6, 7])[0].square().sum()]
    inputs = list(block.parameters())
    exact, got = (torch.autograd.grad(l, [x, *inputs]) for l, x in zip(losses, (whole, cut), strict=True))
    for i, (a, b) in enumerate(zip(got, exact, strict=True)):
        assert_equal_to(a, b, name=f"gradient {i}")


@every_block
def test_a_bidirectional_block_has_no_stream(options):
    block, x = make({"bidirectional": True} | options), tokens(5)
    assert block(x)[1] is None
    with pytest.raises(ValueError, match="bidirectional"):
        block(x, state=make(options)(x)[1])


@pytest.mark.parametrize("name", MIXERS)
def test_a_state_of_another_mixer(name):
    state = make(BLOCKS["attention" if name == "memory" else "memory"])(tokens(5))[1]
    with pytest.raises(ValueError, match=f"state must be an? {MIXERS[name].state_type.__name__}; got"):
        make(BLOCKS[name])(tokens(5), state=state)


@every_block
def test_states_of_models(options, tmp_path):
    """Saved, selected, detached and moved, they go on as they were."""
    block, x = make(options), tokens(7, B=3)
    _, state = block(x)
    assert type(state) is MIXERS[options["mixer"]].state_type
    model = ModelState((state, block(x, state=state)[1]))
    assert any(t.requires_grad for t in tensors_of(model))
    assert not any(t.requires_grad for t in tensors_of(model.detach()))
    exact = block(x, state=model.blocks[1])[0]

    order = torch.tensor([2, 0])
    assert_equal_to(
        block(x[order], state=model.select(order).blocks[1])[0], exact[order], name="select", tolerance=1e-12
    )
    assert_equal_to(block(x[1:2], state=model.select(1).blocks[1])[0], exact[1:2], name="one", tolerance=1e-12)
    narrow = model.to(torch.float32)
    assert all(t.dtype == torch.float32 for t in tensors_of(narrow) if t.is_floating_point())
    integers = [t.dtype == torch.int64 for t in tensors_of(model)]
    assert [t.dtype == torch.int64 for t in tensors_of(narrow)] == integers

    for one in (state, model):
        save_state(tmp_path / "s", one, model=block)
        loaded = load_state(tmp_path / "s", model=block)
        assert type(loaded) is type(one)
        pairs = zip(tensors_of(one), tensors_of(loaded), strict=True)
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    assert torch.equal(block(x, state=loaded.blocks[1])[0], exact)


# --- surprise ---------------------------------------------------------------------------------------------------------


@with_memory
def test_surprise_of_a_block_is_that_of_its_memory(options):
    block, x, mask = make(options), tokens(12, B=len(MASK)), MASK
    memory = block.mixer if options["mixer"] == "memory" else block.mixer.memory
    y, state, surprise = block(x, mask=mask, return_surprise=True)
    assert_same((y, state), block(x, mask=mask))
    if options["mixer"] != "mac" and "form" not in options:  # the memory of these reads what the block reads
        _, exact = memory(block.mixer_norm(x), mask=mask, return_surprise=True)
        assert torch.equal(surprise, exact)
    assert (surprise[~mask] == 0).all()
    assert (surprise[mask] > 0).all()


@with_memory
def test_surprise_of_both_sides_is_the_mean(options):
    """Turned round, with the two readers exchanged, the numbers are the same from the other end."""
    block, x = make({"bidirectional": True} | options), tokens(7)
    other = copy.deepcopy(block)
    other.mixer, other.backward_mixer = other.backward_mixer, other.mixer
    y, _, surprise = block(x, return_surprise=True)
    y2, _, surprise2 = other(x.flip(1), return_surprise=True)
    assert_equal_to(y2.flip(1), y, name="x")
    assert_equal_to(surprise2.flip(1), surprise, name="surprise")
    _, ahead = block.mixer(block.mixer_norm(x), return_surprise=True)
    assert (2 * surprise > ahead).all()
    assert not torch.equal(surprise, ahead)


@pytest.mark.parametrize("name", [name for name in MIXERS if name not in WITH_MEMORY])
def test_only_a_memory_has_a_surprise(name):
    block = make(BLOCKS[name])
    with pytest.raises(ValueError, match="surprise needs a mixer with a memory: memory, mac, mag, mal; got [A-Z]"):
        block(tokens(3), return_surprise=True)
    with pytest.raises(ValueError, match=f"surprise needs a mixer with a memory; {MIXERS[name].__name__} has none"):
        block.mixer(tokens(3), return_surprise=True)


# --- the surroundings -------------------------------------------------------------------------------------------------


@every_block
def test_the_three_grad_modes_agree(options):
    block, x = make(options, dtype=torch.float32), tokens(11, dtype=torch.float32)

    def everything():
        found = read(block, x.clone())
        return [block(x.clone(), state=found[1])[0], *tensors_of(found)]

    trained = everything()
    assert trained[0].requires_grad
    with torch.no_grad():
        frozen = everything()
    with torch.inference_mode():
        inferred = everything()
    for a, b, c in zip(trained, frozen, inferred, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@every_block
def test_state_dict_and_deepcopy(options):
    block, other, x = make(options), make(options, seed=9), tokens(9)
    assert not torch.equal(block(x)[0], other(x)[0])
    other.load_state_dict(block.state_dict())
    assert torch.equal(block(x)[0], other(x)[0])
    copied = copy.deepcopy(block)
    assert torch.equal(block(x)[0], copied(x)[0])
    with torch.no_grad():
        next(copied.mixer.parameters()).add_(1)
    assert not torch.equal(block(x)[0], copied(x)[0])


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "both sides"])
@every_block
def test_bfloat16_autocast(options, bidirectional):
    """Runs, stays near the float32 result, goes on from its state, and back-propagates."""
    torch.manual_seed(0)
    block, x = Block(D, bidirectional=bidirectional, **small(options)), tokens(12, B=len(MASK), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = block(x, mask=MASK)
        more = block(x, state=state)[0]
    exact = block(x, mask=MASK)[0]
    assert (y - exact)[MASK].norm() < 0.05 * exact[MASK].norm()
    assert block(x, state=state)[0].dtype == torch.float32  # a state of bfloat16 under a call in float32
    (y.sum() + more.sum()).backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())


@every_block
def test_a_bfloat16_block(options):
    y, _ = make(options, dtype=torch.bfloat16)(tokens(9, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()


SIZES = {
    "dim", "heads", "head_dim", "window", "segment", "num_persistent", "depth", "expansion", "chunk_size", "conv_size",
    "states",
}  # fmt: skip


@pytest.mark.parametrize("value", ["8", 8.0, True, -8, float("nan")])
@pytest.mark.parametrize(
    ("mixer", "size"), [(mixer, size) for mixer in MIXERS for size in ("dim", *options_of(mixer)) if size in SIZES]
)
def test_sizes_are_whole_numbers(mixer, size, value):
    with pytest.raises(ValueError, match=f"{size} must be"):
        MIXERS[mixer](**{"dim": D} | {size: value})


@pytest.mark.parametrize("mixer", MIXERS)
def test_wrong_inputs(mixer):
    mixer = make(BLOCKS[mixer]).mixer
    _, state = mixer(tokens(5), return_state=True)
    for x, options, says in [
        (tokens(5)[..., :-1], {}, r"x must be \[B, T, 8\]; got \(2, 5, 7\)"),
        (tokens(5)[0], {}, r"x must be.*\(5, 8\)"),
        (tokens(5).float(), {}, "x must be torch.float64 on cpu.*torch.float32"),
        (tokens(5).to("meta"), {}, "x must be torch.float64 on cpu.*meta"),
        (tokens(5).long(), {}, "x must be a floating tensor; got torch.int64"),
        ([[1.0]], {}, "x must be a torch.Tensor; got list"),
        (tokens(5), {"mask": torch.ones(2, 4, dtype=torch.bool)}, r"mask must be.*\(2, 4\)"),
        (tokens(5), {"mask": torch.ones(2, 5)}, "mask must be boolean.*float32"),
        (tokens(5), {"mask": [True]}, "mask must be a torch.Tensor; got list"),
        (tokens(5, B=3), {"state": state}, "state must hold.*3.*2"),
        (tokens(5), {"state": tokens(5)}, f"state must be an? {mixer.state_type.__name__}; got Tensor"),
    ]:
        with pytest.raises(ValueError, match=says):
            mixer(x, **options)


def test_mixers_by_name():
    assert {name: type(make(BLOCKS[name]).mixer) for name in MIXERS} == MIXERS
    with pytest.raises(ValueError, match="mixer must be one of memory, mac, mag, mal, attention, ssm, .*; got 'lstm'"):
        Block(D, mixer="lstm")


def test_four_persistent_tokens_by_default():
    for mixer in MIXERS:
        options = {"heads": 2} if mixer != "ssm" else {}
        shapes = [p.shape for name, p in Block(D, mixer=mixer, **options).named_parameters() if "persistent" in name]
        assert shapes == ([(4, D)] if "num_persistent" in options_of(mixer) else []), mixer


@every_block
def test_samples_are_chosen_from_two_states(options):
    block, x = make(options), tokens(9, B=3)
    y = tokens(7, B=3, seed=2)
    rows = torch.tensor([True, False, True])
    states = [ModelState((block(x[:, :5])[1],)), ModelState((block(y[:, :5])[1],))]
    mixed = choose(rows, *states).blocks[0]
    pieces = torch.where(rows[:, None, None], x[:, 5:7], y[:, 5:])
    expected = torch.where(rows[:, None, None], block(x[:, :7])[0], block(y)[0])
    assert_equal_to(block(pieces, state=mixed)[0], expected[:, 5:], name="y")


def test_states_of_different_sizes_are_not_mixed():
    block, x = make({"mixer": "attention"}), tokens(5)
    states = [ModelState((block(x[:, :length])[1],)) for length in (2, 5)]
    with pytest.raises(ValueError, match="different sizes: give attention a window"):
        choose(torch.tensor([True, False]), *states)
