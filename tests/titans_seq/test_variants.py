"""MAC, MAG and MAL against their definitions. What they share with the other mixers is tested in test_blocks.py."""

import pytest
import torch
import torch.nn.functional as F
from accuracy import assert_equal_to
from torch import Tensor

from titans_seq.attention import Attention
from titans_seq.combine import MutualGate
from titans_seq.memory import NeuralMemory
from titans_seq.mixer_base import Mixer
from titans_seq.mixers import MIXERS
from titans_seq.variants import MAC, MAGState

D = 8


def make(name, **options) -> Mixer:
    """A mixer whose every part matters."""
    torch.manual_seed(0)
    mixer = MIXERS[name](D, heads=2, num_persistent=2, **options).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer


def tokens(T, *, B=2):
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


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
    mag, x = make("mag", chunk_size=4, window=3), tokens(12)
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
    mag, x = make("mag"), tokens(5)
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
    mac = make("mac", chunk_size=3, segment=4, depth=depth)
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
    mac = make("mac", segment=3)
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
    attention = make("mag", chunk_size=4, window=3).attention
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
    mal, x = make("mal", chunk_size=4, window=3, form=form), tokens(9)
    if form == "plain":
        y = mal.memory(x)
    else:
        q, k, v = (x @ weight.T for weight in mal.products.weight.chunk(3))
        y = q * mal.memory(k * v)
    seen = rms(x + rms(y, mal.residual.added_norm.weight), mal.residual.norm.weight)
    assert_equal_to(mal(x), y + mal.attention(seen), name="y")
    with pytest.raises(ValueError, match="form must be plain or h3; got 'h4'"):
        make("mal", form="h4")
