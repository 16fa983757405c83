"""Blocks with every mixer: what holds for all. test_memory_layer.py and test_attention.py judge the mixers alone."""

import copy
import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F
from accuracy import assert_equal_to
from torch import Tensor

from titans_seq.attention import Attention
from titans_seq.blocks import Block, ModelState, choose
from titans_seq.combine import MutualGate
from titans_seq.memory import NeuralMemory
from titans_seq.mixers import MIXERS, WITH_MEMORY, options_of
from titans_seq.state_io import load_state, save_state
from titans_seq.variants import MAC, MAG, MAGState

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


def assert_same(got, exact):
    assert_equal_to(got[0], exact[0], name="x")
    pairs = list(zip(tensors_of(got[1]), tensors_of(exact[1]), strict=True))
    assert len(pairs) >= 2
    for i, (a, b) in enumerate(pairs):
        assert_equal_to(a.double(), b.double(), name=f"state tensor {i}")


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


# --- who sees what ----------------------------------------------------------------------------------------------------


def changes(block, T=10):
    """[t, s]: does the output at s change with the token at t? One sample for each t: none sees another."""
    x = tokens(T, B=1).expand(T, -1, -1)
    with torch.no_grad():
        difference = block(x + 0.5 * torch.eye(T, dtype=x.dtype)[..., None])[0] - block(x)[0]
    return difference.abs().amax(dim=2) > 1e-12


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
        (y, state), (y2, state2) = block(x), block(other)
    for a, b in [(y, y2), *zip(tensors_of(state), tensors_of(state2), strict=True)]:
        assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert not torch.equal(y[1], y2[1])


@pytest.mark.parametrize("T", [0, 1])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "both sides"])
@every_block
def test_very_short_sequences(options, bidirectional, T):
    block = make({"bidirectional": bidirectional} | options)
    y, state = block(tokens(T))
    assert y.shape == (2, T, D)
    assert block(tokens(3), state=state)[0].isfinite().all()


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [False, True], ids=["causal", "both sides"])
@every_block
def test_a_masked_sample_is_its_real_tokens_alone(options, bidirectional):
    block, x = make({"bidirectional": bidirectional} | options), tokens(12, B=len(MASK))
    with torch.no_grad():
        y, state = block(x, mask=MASK)
        for b, real in enumerate(MASK):
            assert_equal_to(y[b : b + 1, real], block(x[b : b + 1, real])[0], name=f"x of sample {b}")
        dirty = block(torch.where(MASK[..., None], x, 1e4), mask=MASK)
    assert_equal_to(dirty[0][MASK], y[MASK], name="x beside other padding")
    for a, b in zip(tensors_of(dirty[1]), tensors_of(state), strict=True):
        assert_equal_to(a.double(), b.double(), name="state beside other padding")


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
    y = mixer(torch.where(MASK[..., None], x, padding), mask=MASK)
    assert torch.equal(y[MASK], mixer(x, mask=MASK)[MASK])
    assert (y[~MASK] == 0).all()
    y[MASK].square().sum().backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())


# --- streams ----------------------------------------------------------------------------------------------------------


def in_pieces(block, x, cuts, mask=None):
    state, ys = None, []
    for begin, end in itertools.pairwise([0, *cuts, x.shape[1]]):
        y, state = block(x[:, begin:end], state=state, mask=None if mask is None else mask[:, begin:end])
        ys.append(y)
    return torch.cat(ys, 1), state


@every_block
def test_a_stream_cut_anywhere(options):
    """Samples with different numbers of real tokens, pieces of none; and without padding."""
    block, x = make(options), tokens(12, B=len(MASK))
    with torch.no_grad():
        whole = block(x, mask=MASK)
        for cuts in [*([t] for t in range(0, 13, 2)), [1, 5, 9]]:
            assert_same(in_pieces(block, x, cuts, MASK), whole)
        whole = block(x)
        for cuts in [[1], [4], [2, 5, 5, 9], list(range(1, 12))]:
            assert_same(in_pieces(block, x, cuts), whole)


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


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def gated(gate: MutualGate, y: Tensor, m: Tensor) -> Tensor:
    """Each of the two through a gate that the other one opens."""
    weights = gate.state_dict()
    opened_by_y, opened_by_m = (
        1 / (1 + (-rms(z, weights[f"{name}_norm.weight"])).exp()) for name, z in (("attention", y), ("memory", m))
    )
    return y * opened_by_m + m * opened_by_y


def test_gates_start_half_open():
    gate, (y, m) = MutualGate(D), torch.randn(2, 5, D, generator=torch.Generator().manual_seed(0))
    mean = (y + m) / 2
    assert 0 < (gate(y, m) - mean).norm() < 0.1 * mean.norm()


# --- MAG --------------------------------------------------------------------------------------------------------------


def test_mag_is_attention_gated_by_memory():
    """Both read [persistent | x], the same persistent tokens, from modules of their own."""
    mag, x = make(BLOCKS["mag"]).mixer, tokens(12)
    weights = mag.state_dict()

    def part(name):
        return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}

    memory = NeuralMemory(D, heads=2, chunk_size=4).double()
    memory.load_state_dict({key: value for key, value in part("memory").items() if key != "persistent"})
    attention = Attention(D, heads=2, window=3, num_persistent=2).double()
    attention.load_state_dict(part("attention") | {"persistent": weights["memory.persistent"]})
    m = memory(torch.cat([weights["memory.persistent"].expand(2, -1, -1), x], dim=1))[:, 2:]
    y = attention(x)
    assert_equal_to(mag(x), gated(mag.gate, y, m), name="y")


def test_what_mag_returns():
    mag, x = MAG(D, heads=2), tokens(5, dtype=torch.float32)
    assert isinstance(mag(x), Tensor)
    y, state, surprise = mag(x, return_state=True, return_surprise=True)
    assert torch.equal(mag(x), y)
    assert isinstance(state, MAGState)
    assert torch.equal(mag(x, return_surprise=True)[1], surprise)
    with pytest.raises(ValueError, match="state must be a MAGState; got LayerState"):
        mag(x, state=state.memory)


# --- MAC --------------------------------------------------------------------------------------------------------------


def turned(x: Tensor, position: int) -> Tensor:
    """Rotary positions by complex numbers. x [..., K]"""
    a, b = x.chunk(2, dim=-1)
    angle = position * 10_000.0 ** (-torch.arange(a.shape[-1], dtype=torch.float64) / a.shape[-1])
    z = torch.complex(a, b) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([z.real, z.imag], dim=-1)


def mac_token_by_token(mac: MAC, x: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, one sample and one token at a time: outputs [T, D] and surprise [T, H]."""
    heads, width = mac.memory.heads, mac.memory.head_dim
    project = mac.attention.qkv.weight.unflatten(0, (3, heads, width))
    state, ys, surprises, start, rows = None, [], [], None, []
    for t, token in enumerate(x):
        slot = t % mac.segment
        if slot == 0:
            before = mac.memory.initial_state(1, dtype=x.dtype) if state is None else state
            start, rows = before.memory.weights, []
        taps = mac.query_conv
        seen = sum(
            taps[r] * mac.query(x[t - len(taps) + 1 + r]) for r in range(len(taps)) if t - len(taps) + 1 + r >= 0
        )
        q = F.silu(seen).view(heads, width)
        h = q / q.norm(dim=-1, keepdim=True)
        for layer, weight in enumerate(start):
            h = torch.einsum("hoi,hi->ho", weight[0], F.silu(h) if layer else h)
        h = mac.recall(rms(h, mac.recall_norm.weight).flatten())
        rows.append((token, h))
        kept = [] if mac.attention.persistent is None else [(row, None) for row in mac.attention.persistent]
        kept += [(h, None) for _, h in rows] + [(row, i) for i, (row, _) in enumerate(rows)]
        y = []
        for n in range(heads):
            q = project[0, n] @ token
            scores, values = [], []
            for row, place in kept:
                key = project[1, n] @ row
                scores.append(q @ key if place is None else turned(q, slot) @ turned(key, place))
                values.append(project[2, n] @ row)
            y.append(torch.stack(values).T @ (torch.stack(scores) / width**0.5).softmax(dim=0))
        y = mac.attention.out(torch.cat(y))
        learned = rms(token + rms(y, mac.residual.added_norm.weight), mac.residual.norm.weight)
        m, state, surprise = mac.memory(learned[None, None], state=state, return_state=True, return_surprise=True)
        ys.append(gated(mac.gate, y, m[0, 0]))
        surprises.append(surprise[0, 0])
    return torch.stack(ys), torch.stack(surprises)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_mac_is_its_definition(depth):
    mac = make({"mixer": "mac", "chunk_size": 3, "segment": 4, "depth": depth}).mixer
    x = tokens(11)
    y, surprise = mac(x, return_surprise=True)
    for b in range(len(x)):
        exact, norms = mac_token_by_token(mac, x[b])
        assert_equal_to(y[b], exact, name="y")
        assert_equal_to(surprise[b], norms, name="surprise")


def seen_by(function, rows: Tensor) -> Tensor:
    """[t, r]: does output t depend on row r? function: rows [R, D] -> outputs [T, D]."""
    jacobian = torch.autograd.functional.jacobian(function, rows)  # [T, D, R, D]
    return (jacobian.abs().amax(dim=(1, 3)) > 0).int()


def test_who_sees_whom_in_a_segment_of_mac():
    """Figure 3a, but for h_i of later tokens: [P P | h h h | x x x]."""
    mac = make({"mixer": "mac", "segment": 3}).mixer
    q, k, _ = mac.attention.project(tokens(3, B=1))
    slot = torch.arange(3)[None]

    def attention(rows):
        mac.attention.persistent = rows[:2]
        value = rows[2:].view(1, 2, 3, 2, D // 2)
        return mac._attend(q, torch.stack([k, k], dim=1), value, slot)[0]

    del mac.attention._parameters["persistent"]
    expected = [[1, 1, 1, 0, 0, 1, 0, 0], [1, 1, 1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1]]
    assert seen_by(attention, torch.randn(8, D, dtype=torch.float64)).tolist() == expected


def test_who_sees_whom_in_the_attention_of_mag():
    """Figure 3b: [P P | x x x x x], window 3."""
    attention = make(BLOCKS["mag"]).mixer.attention
    expected = [
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 0, 1, 1, 1, 0],
        [1, 1, 0, 0, 1, 1, 1],
    ]
    found = seen_by(lambda rows: attention(rows[None, 2:], persistent=rows[:2])[0], tokens(7, B=1)[0])
    assert found.tolist() == expected


# --- MAL --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "h3"])
def test_mal_is_memory_and_then_attention(form):
    mal, x = make({"mixer": "mal", "chunk_size": 4, "window": 3, "form": form}).mixer, tokens(9)
    if form == "plain":
        y = mal.memory(x)
    else:
        q, k, v = (x @ weight.T for weight in mal.products.weight.chunk(3))
        y = q * mal.memory(k * v)
    seen = rms(x + rms(y, mal.residual.added_norm.weight), mal.residual.norm.weight)
    assert_equal_to(mal(x), y + mal.attention(seen), name="y")
    with pytest.raises(ValueError, match="form must be plain or h3; got 'h4'"):
        make({"mixer": "mal", "form": "h4"})


# --- the surroundings -------------------------------------------------------------------------------------------------


@every_block
def test_the_three_grad_modes_agree(options):
    block, x = make(options, dtype=torch.float32), tokens(11, dtype=torch.float32)

    def everything():
        y, state = block(x.clone())
        return [y, block(x.clone(), state=state)[0], *tensors_of(state)]

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
    assert torch.equal(block(x)[0], copy.deepcopy(block)(x)[0])


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
