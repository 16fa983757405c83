"""The layer: its state files, options and numbers. What it shares with other mixers is tested in test_blocks.py, the
operation inside in tests/kernels.
"""

import numpy as np
import pytest
import torch
from accuracy import assert_equal_to
from torch import Tensor

from titans_seq import LayerState, NeuralMemory, load_state, save_state

D = 8


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


def assert_same_state(got, exact):
    for i, (a, b) in enumerate(zip(got.tensors(), exact.tensors(), strict=True)):
        assert_equal_to(a.double(), b.double(), name=f"state tensor {i}")


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


# --- the surroundings -------------------------------------------------------------------------------------------------


def test_a_state_file_replaces_the_one_before(tmp_path):
    layer = make()
    for T in (3, 7):
        _, state = layer(tokens(T), return_state=True)
        save_state(tmp_path / "s", state)
    assert_same_state(load_state(tmp_path / "s"), state)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


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


def test_the_start_of_theta_is_no_part_of_a_trained_layer():
    """It decides where parameters start, and nothing else: what was trained from another start reads on as it is."""
    layer, other, x = make({"theta_start": 4.0}), make({}, seed=9), tokens(9)
    assert not torch.equal(layer.gates.bias, other.gates.bias)
    other.load_state_dict(layer.state_dict())
    y, state = layer(x, return_state=True)
    assert torch.equal(other(x), y)
    assert torch.equal(other(x, state=state), layer(x, state=state))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_memory_of_a_bfloat16_layer_stays_in_float32(dtype):
    """So under autocast, too."""
    layer = make(dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        y, state = layer(tokens(9, dtype=dtype), return_state=True)
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


@pytest.mark.parametrize("name", ["momentum", "forgetting"])
def test_switches_are_true_or_false(name):
    with pytest.raises(ValueError, match=f"{name} must be True or False; got 'no'"):
        NeuralMemory(8, **{name: "no"})


def test_numpy_sizes_make_the_same_layer():
    layer, same = NeuralMemory(8, heads=2), NeuralMemory(np.int64(8), heads=np.int32(2))
    assert layer.fingerprint == same.fingerprint


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
