"""The layer: what it promises whatever its options are. The operation inside is judged in tests/kernels."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from accuracy import assert_equal_to
from torch import Tensor

from titans_seq import LayerState, NeuralMemory, load_state, save_state

D = 8

OPTIONS = {
    "default": {},
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
    "persistent": {"num_persistent": 4},
    "gates per chunk": {"gate_per": "chunk"},
    "gates per chunk, persistent": {"gate_per": "chunk", "num_persistent": 3},
    "plain paper": {"max_surprise": None},
    "everything off": {"depth": 1, "conv_size": 0, "momentum": False, "forgetting": False, "max_surprise": None},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def make(options=None, *, dtype=torch.float64, seed=0) -> NeuralMemory:
    """A layer whose every option matters: gates that vary from token to token, nothing at a symmetric start."""
    torch.manual_seed(seed)
    layer = NeuralMemory(D, **{"heads": 2, "chunk_size": 4} | (options or {})).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def tokens(T, *, B=2, seed=1, dtype=torch.float64):
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tensors_of(state) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    if dataclasses.is_dataclass(state):
        return tensors_of([getattr(state, f.name) for f in dataclasses.fields(state)])
    return [x for item in state for x in tensors_of(item)] if isinstance(state, tuple | list) else []


def assert_same_state(got, exact):
    pairs = list(zip(tensors_of(got), tensors_of(exact), strict=True))
    assert len(pairs) >= 5
    for i, (a, b) in enumerate(pairs):
        assert_equal_to(a.double(), b.double(), name=f"state tensor {i}")


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("T", [1, 4, 23])
@every_option
def test_every_parameter_has_a_gradient_at_the_first_step(options, T):
    """As constructed, in float32: a parameter without one breaks DDP, and is never learned."""
    torch.manual_seed(0)
    layer = NeuralMemory(D, **{"heads": 2, "chunk_size": 4} | options)
    y = layer(tokens(T, dtype=torch.float32))
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@every_option
def test_every_part_of_every_parameter_has_a_gradient(options):
    """No head, no tap, no gate, no persistent token is left out."""
    torch.manual_seed(0)
    layer = NeuralMemory(D, **{"heads": 2, "chunk_size": 4} | options)
    y = layer(tokens(23, dtype=torch.float32))
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in layer.named_parameters():
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
        assert (rows.abs().amax(1) > 0).all(), f"{name}: rows {(rows.abs().amax(1) == 0).nonzero().flatten().tolist()}"


# --- leaks ------------------------------------------------------------------------------------------------------------


@every_option
def test_no_future(options):
    layer, T = make(options), 10
    with torch.no_grad():
        y, surprise = layer(x := tokens(T), return_surprise=True)
        for t in range(T):
            other = x.clone()
            other[:, t] += 0.3
            y2, surprise2 = layer(other, return_surprise=True)
            changed = (y2 - y).abs().amax(-1) > 1e-12  # [B, T]
            assert not changed[:, :t].any(), f"token {t} reaches an earlier output"
            assert changed[:, t:].all(), f"token {t} does not reach itself and all that follows"
            assert_equal_to(surprise2[:, :t], surprise[:, :t], name="earlier surprise", tolerance=1e-12)


@every_option
def test_no_neighbour(options):
    layer = make(options)
    with torch.no_grad():
        x = tokens(10, B=3)
        y, state, surprise = layer(x, return_state=True, return_surprise=True)
        other = x.clone()
        other[1] = 5 * other[1] + 1
        y2, state2, surprise2 = layer(other, return_state=True, return_surprise=True)
    for a, b in [(y, y2), (surprise, surprise2), *zip(tensors_of(state), tensors_of(state2), strict=True)]:
        assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert not torch.equal(y[1], y2[1])


# --- streams ----------------------------------------------------------------------------------------------------------


def in_pieces(layer, x, cuts, mask=None):
    state, ys, surprises = None, [], []
    for begin, end in itertools.pairwise([0, *cuts, x.shape[1]]):
        part = None if mask is None else mask[:, begin:end]
        y, state, surprise = layer(x[:, begin:end], state=state, mask=part, return_state=True, return_surprise=True)
        ys.append(y)
        surprises.append(surprise)
    return torch.cat(ys, 1), state, torch.cat(surprises, 1)


def assert_same(got, exact):
    assert_equal_to(got[0], exact[0], name="y")
    assert_same_state(got[1], exact[1])
    assert_equal_to(got[2], exact[2], name="surprise")


@every_option
def test_a_stream_cut_anywhere(options):
    """Also in the middle of a chunk, of the convolution's reach, and with pieces of no tokens."""
    layer, T = make(options), 13
    with torch.no_grad():
        whole = layer(x := tokens(T), return_state=True, return_surprise=True)
        for cuts in [*([t] for t in range(T + 1)), [1, 2, 3, 9], [0, 5, 5, 5], [4, 8], list(range(1, T))]:
            assert_same(in_pieces(layer, x, cuts), whole)


@pytest.mark.parametrize(
    "name", ["default", "persistent", "gates per chunk", "gates per chunk, persistent", "conv_size 0"]
)
def test_gradients_through_cuts(name):
    layer = make(OPTIONS[name])
    whole, cut = (x.requires_grad_() for x in (tokens(11), tokens(11)))
    losses = [layer(whole).square().sum(), in_pieces(layer, cut, [3, 6, 7])[0].square().sum()]
    inputs = list(layer.parameters())
    exact, got = (torch.autograd.grad(l, [x, *inputs]) for l, x in zip(losses, (whole, cut), strict=True))
    for i, (a, b) in enumerate(zip(got, exact, strict=True)):
        assert_equal_to(a, b, name=f"gradient {i}")


@pytest.mark.parametrize("T", [0, 1])
@every_option
def test_very_short_sequences(options, T):
    layer = make(options)
    y, state, surprise = layer(tokens(T), return_state=True, return_surprise=True)
    assert y.shape == (2, T, D)
    assert surprise.shape == (2, T, 2)
    more, _ = layer(tokens(3), state=state, return_state=True)
    assert more.isfinite().all()


def test_nothing_read_leaves_the_state_as_it_was():
    layer = make({"gate_per": "chunk"})
    _, state = layer(tokens(6), return_state=True)
    _, after = layer(tokens(0), state=state, return_state=True)
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(state), tensors_of(after), strict=True))


def test_less_than_a_chunk_is_written():
    layer = make({"chunk_size": 64})
    _, before = layer(tokens(0), return_state=True)
    _, after = layer(tokens(3), return_state=True)
    assert (after.memory.weights[0] - before.memory.weights[0]).abs().max() > 1e-3


def test_what_is_returned():
    layer, x = make(), tokens(5)
    assert isinstance(layer(x), Tensor)
    y, state = layer(x, return_state=True)
    y2, surprise = layer(x, return_surprise=True)
    y3, state3, surprise3 = layer(x, return_state=True, return_surprise=True)
    assert torch.equal(y, y2)
    assert torch.equal(y, y3)
    assert torch.equal(surprise, surprise3)
    assert isinstance(state, LayerState)
    assert_same_state(state, state3)


def test_persistent_tokens_enter_once_per_stream():
    layer = make({"num_persistent": 3, "conv_size": 0})
    persistent = next(p for name, p in layer.named_parameters() if "persistent" in name)
    x = tokens(6)
    bare = make({"num_persistent": 0, "conv_size": 0})
    bare.load_state_dict({k: v for k, v in layer.state_dict().items() if "persistent" not in k})
    by_hand = bare(torch.cat([persistent.expand(2, -1, -1), x], dim=1))[:, 3:]
    assert_equal_to(layer(x), by_hand, name="y")


# --- masks ------------------------------------------------------------------------------------------------------------

PATTERNS = {
    "before": ["000111111111", "011111111111"],
    "inside": ["111001111011", "101010101010"],
    "after": ["111111111000", "111110000000"],
    "everywhere": ["010011101010", "001111111100"],
    "one sample empty": ["000000000000", "111111111111"],
}
every_pattern = pytest.mark.parametrize("pattern", PATTERNS)
MASKED = ["default", "persistent", "gates per chunk", "gates per chunk, persistent", "conv_size 0", "chunks of 1"]


def mask_of(name):
    return torch.tensor([[c == "1" for c in row] for row in PATTERNS[name]])


@every_pattern
@pytest.mark.parametrize("name", MASKED)
def test_a_masked_sample_is_its_real_tokens_alone(name, pattern):
    layer, x, mask = make(OPTIONS[name]), tokens(12), mask_of(pattern)
    with torch.no_grad():
        y, state, surprise = layer(x, mask=mask, return_state=True, return_surprise=True)
        assert (y[~mask] == 0).all()
        assert (surprise[~mask] == 0).all()
        for b, real in enumerate(mask):
            y1, state1, surprise1 = layer(x[b : b + 1, real], return_state=True, return_surprise=True)
            assert_equal_to(y[b : b + 1, real], y1, name="y")
            assert_equal_to(surprise[b : b + 1, real], surprise1, name="surprise")
            for i, (a, one) in enumerate(zip(tensors_of(state), tensors_of(state1), strict=True)):
                assert_equal_to(a[b : b + 1].double(), one.double(), name=f"state tensor {i}")


@every_pattern
@pytest.mark.parametrize("name", ["default", "gates per chunk, persistent"])
def test_a_masked_stream_cut_anywhere(name, pattern):
    layer, x, mask = make(OPTIONS[name]), tokens(12), mask_of(pattern)
    with torch.no_grad():
        whole = layer(x, mask=mask, return_state=True, return_surprise=True)
        for cuts in [*([t] for t in range(13)), [2, 5, 9]]:
            assert_same(in_pieces(layer, x, cuts, mask), whole)


@pytest.mark.parametrize("poison", [1e4, float("nan")], ids=str)
@pytest.mark.parametrize("name", MASKED)
def test_what_padding_holds_does_not_matter(name, poison):
    layer, x, mask = make(OPTIONS[name]), tokens(12), mask_of("everywhere")
    dirty = torch.where(mask[..., None], x, poison)
    with torch.no_grad():
        results = [layer(z, mask=mask, return_state=True, return_surprise=True) for z in (dirty, x)]
    assert_same(*results)


def test_padding_has_no_gradient():
    layer, x, mask = make({"num_persistent": 2}), tokens(12).requires_grad_(), mask_of("everywhere")
    layer(x, mask=mask).square().sum().backward()
    assert (x.grad[~mask] == 0).all()
    assert (x.grad[mask].abs().amax(-1) > 0).all()


# --- the surroundings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["default", "depth 4", "gates per chunk, persistent"])
def test_the_three_grad_modes_agree(name):
    layer, x = make(OPTIONS[name], dtype=torch.float32), tokens(11, dtype=torch.float32)

    def everything():
        y, state, surprise = layer(x.clone(), return_state=True, return_surprise=True)
        return [y, surprise, layer(x.clone(), state=state), *tensors_of(state)]

    trained = everything()
    assert trained[0].requires_grad
    with torch.no_grad():
        frozen = everything()
    with torch.inference_mode():
        inferred = everything()
    for a, b, c in zip(trained, frozen, inferred, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("name", ["default", "gates per chunk, persistent"])
def test_state_files(name, tmp_path):
    """What is loaded continues exactly as what was saved."""
    layer, x = make(OPTIONS[name]), tokens(6)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, :3] = False
    with torch.no_grad():
        _, state = layer(x, mask=mask, return_state=True)
        save_state(tmp_path / "stream.safetensors", state)
        loaded = load_state(tmp_path / "stream.safetensors")
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(tensors_of(state), tensors_of(loaded), strict=True)
        )
        assert torch.equal(layer(x, state=state), layer(x, state=loaded))
    assert [p.name for p in tmp_path.iterdir()] == ["stream.safetensors"]


def test_a_state_file_replaces_the_one_before(tmp_path):
    layer = make()
    for T in (3, 7):
        _, state = layer(tokens(T), return_state=True)
        save_state(tmp_path / "s", state)
    assert_same_state(load_state(tmp_path / "s"), state)


OTHERS = {
    "chunk size": {"chunk_size": 8},
    "heads": {"heads": 4},
    "depth": {"depth": 3},
    "expansion": {"expansion": 3},
    "conv_size": {"conv_size": 2},
    "gate_per": {"gate_per": "chunk"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_state_of_another_layer(other, tmp_path):
    _, state = make()(tokens(6), return_state=True)
    save_state(tmp_path / "s", state)
    with pytest.raises(ValueError, match="another"):
        make(other)(tokens(6), state=load_state(tmp_path / "s"))


def test_a_state_of_the_same_shape_but_other_parameters(tmp_path):
    layer, other = make(), make(seed=7)
    _, state = layer(tokens(6), return_state=True)
    save_state(tmp_path / "s", state, model=layer)
    assert_same_state(load_state(tmp_path / "s", model=layer), state)
    with pytest.raises(ValueError, match="another model"):
        load_state(tmp_path / "s", model=other)


def test_damaged_state_files(tmp_path):
    """Cut off anywhere, or no such file at all: a ValueError, and nothing is unpickled."""
    _, state = make()(tokens(6), return_state=True)
    save_state(tmp_path / "s", state)
    whole = (tmp_path / "s").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for size in [0, 1, 7, 8, 9, header // 2, header, header + 1, len(whole) // 2, len(whole) - 1]:
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cut"):
            load_state(tmp_path / "cut")
    torch.save({"a": torch.zeros(3)}, tmp_path / "cut")
    with pytest.raises(ValueError, match="cut"):
        load_state(tmp_path / "cut")


@pytest.mark.parametrize("how", ["other content", "newer version", "fields missing"])
def test_safetensors_files_that_are_no_state(how, tmp_path):
    from safetensors.torch import load_file, safe_open, save_file

    _, state = make()(tokens(6), return_state=True)
    save_state(tmp_path / "s", state)
    with safe_open(tmp_path / "s", framework="pt") as file:
        header = file.metadata()
    tensors = load_file(tmp_path / "s")
    if how == "other content":
        save_file({"a": torch.zeros(3)}, tmp_path / "s")
    elif how == "newer version":
        save_file(tensors, tmp_path / "s", metadata=header | {"version": "99"})
    else:
        save_file(dict(list(tensors.items())[:2]), tmp_path / "s", metadata=header)
    with pytest.raises(ValueError, match="s"):
        load_state(tmp_path / "s")


def test_a_missing_state_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        load_state(tmp_path / "nothing-here")


@every_option
def test_state_dict(options):
    layer, other, x = make(options), make(options, seed=9), tokens(9)
    assert not torch.equal(layer(x), other(x))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), other(x))


def test_the_start_of_theta_is_no_part_of_a_trained_layer():
    """It decides where parameters start, and nothing else: what was trained from another start reads on as it is."""
    layer, other, x = make({"theta_start": 4.0}), make({}, seed=9), tokens(9)
    assert not torch.equal(layer.gates.bias, other.gates.bias)
    other.load_state_dict(layer.state_dict())
    y, state = layer(x, return_state=True)
    assert torch.equal(other(x), y)
    assert torch.equal(other(x, state=state), layer(x, state=state))


def test_deepcopy():
    layer, x = make({"num_persistent": 2}), tokens(9)
    copied = copy.deepcopy(layer)
    assert torch.equal(layer(x), copied(x))
    with torch.no_grad():
        next(copied.parameters()).add_(1)
    assert not torch.equal(layer(x), copied(x))


def test_states_detach_and_select():
    layer, x = make({"gate_per": "chunk"}), tokens(6, B=3)
    _, state = layer(x, return_state=True)
    assert any(t.requires_grad for t in tensors_of(state))
    assert not any(t.requires_grad for t in tensors_of(state.detach()))
    order = torch.tensor([2, 0])
    assert_equal_to(layer(x[order], state=state.select(order)), layer(x, state=state)[order], name="y", tolerance=1e-12)


@every_option
def test_bfloat16_autocast(options):
    """Runs, stays near the float32 result, and back-propagates; the memory itself stays in float32."""
    torch.manual_seed(0)
    layer = NeuralMemory(D, **{"heads": 2, "chunk_size": 4} | options)
    x = tokens(23, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(x, return_state=True)
        more = layer(x, state=state)
    assert (y.float() - layer(x)).norm() < 0.1 * layer(x).norm()
    assert all(w.dtype == torch.float32 for w in (*state.memory.weights, *state.memory.momentum))
    (y.float().sum() + more.float().sum()).backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_a_bfloat16_layer():
    layer = make(dtype=torch.bfloat16)
    y, state = layer(tokens(9, dtype=torch.bfloat16), return_state=True)
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()
    assert all(w.dtype == torch.float32 for w in (*state.memory.weights, *state.memory.momentum))


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"heads": 3}, "heads"),
        ({"heads": 0}, "heads"),
        ({"depth": 0}, "depth"),
        ({"expansion": 0}, "expansion"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"conv_size": -1}, "conv_size"),
        ({"num_persistent": -1}, "num_persistent"),
        ({"gate_per": "segment"}, "gate_per"),
        ({"backend": "magic"}, "backend"),
        ({"max_surprise": 0.0}, "max_surprise"),
        ({"max_surprise": -1.0}, "max_surprise"),
        ({"theta_scale": 0}, "theta_scale"),
        ({"theta_scale": True}, "theta_scale"),
        ({"theta_scale": float("nan")}, "theta_scale"),
        ({"theta_start": -1.0}, "theta_start"),
        ({"theta_scale": 1e-323}, "theta_scale"),
    ],
    ids=str,
)
def test_wrong_options(options, argument):
    with pytest.raises(ValueError, match=argument) as error:
        NeuralMemory(D, **{"heads": 2} | options)
    assert str(next(iter(options.values()))) in str(error.value)


def test_wrong_inputs():
    layer = make()
    _, state = layer(tokens(5), return_state=True)
    for x, options, says in [
        (tokens(5)[..., :-1], {}, r"x.*\(2, 5, 7\)"),
        (tokens(5)[0], {}, r"x.*\(5, 8\)"),
        (tokens(5), {"mask": torch.ones(2, 4, dtype=torch.bool)}, r"mask.*\(2, 4\)"),
        (tokens(5), {"mask": torch.ones(2, 5)}, "mask.*float"),
        (tokens(5, B=3), {"state": state}, "state.*3.*2"),
        (tokens(5), {"state": state.memory}, "state.*MemoryState"),
    ]:
        with pytest.raises(ValueError, match=says):
            layer(x, **options)


@pytest.mark.parametrize(
    "name", ["dim", "heads", "depth", "expansion", "chunk_size", "conv_size", "num_persistent", "head_dim"]
)
@pytest.mark.parametrize("value", ["8", 8.0, True, -8, float("nan")])
def test_sizes_are_whole_numbers(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        NeuralMemory(**({"dim": 8} | {name: value}))


@pytest.mark.parametrize("name", ["momentum", "forgetting"])
def test_switches_are_true_or_false(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False; got 'no'"):
        NeuralMemory(8, **{name: "no"})


def test_numpy_sizes_make_the_same_layer():
    layer, same = NeuralMemory(8, heads=2), NeuralMemory(np.int64(8), heads=np.int32(2))
    assert layer.fingerprint == same.fingerprint


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.zeros(1, 3, 8, dtype=torch.int64), "x must be a floating tensor; got torch.int64"),
        (torch.zeros(1, 3, 8, dtype=torch.float64), "x must be torch.float32 on cpu.*got torch.float64"),
        (torch.zeros(1, 3, 8, device="meta"), "x must be torch.float32 on cpu.*meta"),
        ([[1.0]], "x must be a torch.Tensor; got list"),
    ],
    ids=["whole numbers", "float64", "elsewhere", "list"],
)
def test_inputs_unlike_the_parameters(x, why):
    with pytest.raises(ValueError, match=why):
        NeuralMemory(8)(x)


@pytest.mark.parametrize("what", [None, "tensor", "pair", "dict"])
def test_only_states_are_saved(what, tmp_path):
    layer = NeuralMemory(8)
    pair = layer(torch.randn(1, 3, 8), return_state=True)
    value = {None: None, "tensor": pair[0], "pair": pair, "dict": {"state": pair[1]}}[what]
    with pytest.raises(ValueError, match="state must be a MemoryState or a LayerState; got"):
        save_state(tmp_path / "state.safetensors", value)
    assert not list(tmp_path.iterdir())


def test_states_are_saved_into_folders_that_exist(tmp_path):
    _, state = NeuralMemory(8)(torch.randn(1, 3, 8), return_state=True)
    for path in (tmp_path, tmp_path / "no" / "state.safetensors"):
        with pytest.raises(ValueError, match="path must be a file in a folder that exists"):
            save_state(path, state)
