"""Attention against a plain float64 loop over tokens, its window, its memory, its state. What it shares with the other
mixers is tested in test_blocks.py.
"""

import math

import numpy as np
import pytest
import torch
from accuracy import assert_equal_to
from torch.utils._python_dispatch import TorchDispatchMode

from titans_seq.attention import Attention, AttentionState

D = 8

OPTIONS = {
    "causal": {},
    "window": {"window": 3},
    "window 1": {"window": 1, "num_persistent": 2},
    "persistent": {"num_persistent": 2},
    "window, persistent": {"window": 4, "num_persistent": 3},
    "norm": {"window": 3, "num_persistent": 2, "qk_norm": True},
    "heads of 6": {"head_dim": 6, "heads": 3},
    "full": {"bidirectional": True},
    "full, persistent": {"bidirectional": True, "num_persistent": 2},
    "full, window": {"bidirectional": True, "window": 3},
    "full, window, persistent": {"bidirectional": True, "window": 3, "num_persistent": 2, "qk_norm": True},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def make(options=None, *, dtype=torch.float64) -> Attention:
    """A layer whose tokens differ in what they look at."""
    torch.manual_seed(0)
    layer = Attention(D, **{"heads": 2} | (options or {})).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return layer


def tokens(T, *, B=2, seed=1):
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the oracle -------------------------------------------------------------------------------------------------------


def oracle(layer: Attention, x: np.ndarray) -> np.ndarray:
    """One sample [T, D], token by token and head by head; rotation is a product of complex numbers."""
    parameters = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    inner = layer.heads * layer.head_dim
    w_q, w_k, w_v = (parameters["qkv.weight"][i * inner : (i + 1) * inner] for i in range(3))

    def head(w, token, h, norm=None):
        z = (w @ token)[h * layer.head_dim : (h + 1) * layer.head_dim]
        return z if norm not in parameters else z / math.sqrt((z * z).mean() + 1e-6) * parameters[norm]

    def turned(z, position):
        half = len(z) // 2
        pairs = [
            complex(z[i], z[half + i]) * np.exp(1j * position * 10000 ** (-2 * i / layer.head_dim)) for i in range(half)
        ]
        return np.array([p.real for p in pairs] + [p.imag for p in pairs])

    y = np.zeros_like(x)
    for t in range(len(x)):
        mixed = []
        for h in range(layer.heads):
            q = head(w_q, x[t], h, "q_norm.weight")
            scores, values = [], []
            for token in parameters.get("persistent", []):
                scores.append(q @ head(w_k, token, h, "k_norm.weight"))
                values.append(head(w_v, token, h))
            for s in range(len(x)):
                near = layer.window is None or abs(t - s) < layer.window
                if near and (s <= t or not layer.causal):
                    scores.append(turned(q, t) @ turned(head(w_k, x[s], h, "k_norm.weight"), s))
                    values.append(head(w_v, x[s], h))
            weights = np.exp(np.array(scores) / math.sqrt(layer.head_dim))
            mixed.append(weights / weights.sum() @ np.array(values))
        y[t] = parameters["out.weight"] @ np.concatenate(mixed)
    return y


@pytest.mark.parametrize("T", [1, 3, 4, 11])
@every_option
def test_equals_a_loop_over_tokens(options, T):
    layer, x = make(options), tokens(T)
    exact = np.stack([oracle(layer, sample) for sample in x.numpy()])
    assert_equal_to(layer(x), torch.from_numpy(exact), name="y")


# --- what a token sees ------------------------------------------------------------------------------------------------


def test_positions_are_relative():
    """What lies before the window changes nothing, not even by its length: a stream may be of any age."""
    layer, x = make({"window": 4, "num_persistent": 2}), tokens(40)
    with torch.no_grad():
        y = layer(x)
        for t in range(3, 40):
            assert_equal_to(y[:, t], layer(x[:, t - 3 : t + 1])[:, -1], name=f"token {t}")


def test_order_matters():
    """Without positions the last output would not change when the tokens before it trade places."""
    layer, x = make(), tokens(6)
    swapped = x[:, [1, 0, 2, 3, 4, 5]]
    assert (layer(x)[:, -1] - layer(swapped)[:, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("T", [1024, 1021])
def test_memory_with_a_window_grows_with_the_length_only(T, bidirectional):
    """No tensor of T x T entries, forward or backward, with and without masks."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            sizes = [t.untyped_storage().nbytes() for t in torch.utils._pytree.tree_leaves(out) if torch.is_tensor(t)]
            largest = max([largest, *sizes])
            return out

    layer = Attention(D, heads=1, window=8, num_persistent=2, bidirectional=bidirectional)
    mask = torch.ones(1, T, dtype=torch.bool)
    mask[0, ::3] = False
    with Watch():
        for m in (None, mask):
            layer(torch.randn(1, T, D), mask=m, return_state=True)[0].sum().backward()
    assert 0 < largest < T * T / 2  # bytes: less than half a boolean mask; linear is about 2 * 8 * T * 10 * 4


# --- streams ----------------------------------------------------------------------------------------------------------


def test_the_state_of_a_window_stays_small():
    layer = make({"window": 4})
    _, state = layer(tokens(13), return_state=True)
    _, state = layer(tokens(27), state=state, return_state=True)
    assert state.keys.shape == state.values.shape == (2, 3, 2, 4)
    assert state.count.tolist() == [40, 40]
    assert state.keys.untyped_storage().nbytes() == state.keys.numel() * 8  # no view of the whole sequence


def test_full_attention_has_no_state():
    layer, x = make({"bidirectional": True}), tokens(5)
    y, state = layer(x, return_state=True)
    assert state is None
    assert torch.equal(y, layer(x))
    with pytest.raises(ValueError, match="state must be None with bidirectional=True"):
        layer(x, state=make().initial_state(2))


def test_a_state_of_another_layer():
    _, state = make({"window": 4})(tokens(6), return_state=True)
    for other in ({"window": 5}, {"window": None}, {"window": 4, "heads": 4}, {"window": 4, "qk_norm": True}):
        with pytest.raises(ValueError, match="another layer"):
            make(other)(tokens(6), state=state)


# --- arguments --------------------------------------------------------------------------------------------------------


def test_persistent_tokens_of_another_module():
    layer, x = make({"window": 4, "num_persistent": 3}), tokens(9)
    bare = make({"window": 4})
    bare.load_state_dict({name: p for name, p in layer.state_dict().items() if name != "persistent"})
    assert torch.equal(bare(x, persistent=layer.persistent), layer(x))
    with pytest.raises(ValueError, match=r"persistent must be \[P, 8\]; got \(3, 7\)"):
        bare(x, persistent=layer.persistent[:, 1:])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"heads": 3}, "dim must be a multiple of heads.*heads 3"),
        ({"heads": 8}, "head_dim must be even.*got 1"),
        ({"head_dim": 5}, "head_dim must be even.*got 5"),
        ({"window": 0}, "window must be >= 1; got 0"),
        ({"bidirectional": "no"}, "bidirectional must be True or False; got 'no'"),
        ({"qk_norm": 1}, "qk_norm must be True or False; got 1"),
    ],
    ids=str,
)
def test_wrong_options(options, says):
    with pytest.raises(ValueError, match=says):
        Attention(D, **options)


def test_the_start_of_a_stream_can_be_given():
    layer, x = make({"window": 4, "num_persistent": 2}), tokens(9)
    state = layer.initial_state(2)
    assert isinstance(state, AttentionState)
    assert_equal_to(layer(x, state=state), layer(x), name="y")
