"""The gated delta rule against its recurrence, token by token. test_blocks.py holds what is true of every mixer."""

import itertools

import pytest
import torch
from accuracy import assert_equal_to
from torch import Tensor

from titans_seq.gated_deltanet import CHUNK, GatedDeltaNet, gated_delta_rule
from titans_seq.kernels import MemoryState, neural_memory

NAMES = ("q", "k", "v", "log_alpha", "beta", "state")


def inputs(T, *, seed=0, B=2, H=2, K=3, V=5) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, T, H, width, generator=g, dtype=torch.float64) for width in (K, K, V))
    alpha, beta = torch.rand(2, B, T, H, generator=g, dtype=torch.float64)
    state = torch.randn(B, H, V, K, generator=g, dtype=torch.float64)
    return [x.requires_grad_() for x in (q, k / k.norm(dim=-1, keepdim=True), v, alpha.log(), beta, state)]


def recurrence(q, k, v, log_alpha, beta, state) -> tuple[Tensor, Tensor]:
    """S_t = S_{t-1} (alpha_t (I - beta_t k_t k_t^T)) + beta_t v_t k_t^T; o_t = S_t q_t: one matrix at a time."""
    batch, tokens, heads, width = q.shape
    outputs, ends, eye = [], [], torch.eye(width, dtype=q.dtype)
    for b, h in itertools.product(range(batch), range(heads)):
        S, read = state[b, h], []
        for t in range(tokens):
            key, gate = k[b, t, h], beta[b, t, h]
            S = S @ (log_alpha[b, t, h].exp() * (eye - gate * torch.outer(key, key)))
            S = S + gate * torch.outer(v[b, t, h], key)
            read.append(S @ q[b, t, h])
        outputs.append(torch.stack(read) if read else v[b, :, h])
        ends.append(S)
    o = torch.stack(outputs).unflatten(0, (batch, heads)).transpose(1, 2)
    return o, torch.stack(ends).unflatten(0, (batch, heads))


@pytest.mark.parametrize("T", [0, 1, 3, 4, 5, 13])
def test_the_chunk_form_is_the_recurrence(T):
    """Outputs, the last state, and every gradient, at chunks of 4."""
    given = inputs(T)
    found, exact = gated_delta_rule(*given, chunk_size=4), recurrence(*given)
    assert_equal_to(found[0], exact[0], name="o")
    assert_equal_to(found[1], exact[1], name="state")
    weights = [torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype) for x in exact]
    gradients = [
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(pair, weights, strict=True)), given, allow_unused=True)
        for pair in (found, exact)
    ]
    for name, a, b in zip(NAMES, *gradients, strict=True):
        if T == 0 and a is None:
            continue
        assert_equal_to(a, torch.zeros_like(a) if b is None else b, name=f"gradient of {name}")


@pytest.mark.parametrize("T", [CHUNK - 1, CHUNK, CHUNK + 1, 127])
def test_whole_chunks(T):
    given = inputs(T, B=1, H=1)
    for found, exact, name in zip(gated_delta_rule(*given), recurrence(*given), ("o", "state"), strict=True):
        assert_equal_to(found, exact, name=name)


def test_gates_at_their_ends():
    """A decay that reaches 0, and writes of 0 and 1: finite, exact, with finite gradients."""
    q, k, v, log_alpha, beta, state = (x.detach() for x in inputs(11))
    log_alpha[:, 3:5], log_alpha[:, 7] = -1e4, 0.0
    beta[:, 2], beta[:, 6] = 0.0, 1.0
    given = [x.requires_grad_() for x in (q, k, v, log_alpha, beta, state)]
    found, exact = gated_delta_rule(*given, chunk_size=4), recurrence(*given)
    for a, b in zip(found, exact, strict=True):
        assert_equal_to(a, b, name="o and state")
    gradients = (torch.autograd.grad(pair[0].sum() + pair[1].sum(), given) for pair in (found, exact))
    for name, a, b in zip(NAMES, *gradients, strict=True):
        assert_equal_to(a, b, name=f"gradient of {name}")


def test_a_linear_memory_without_momentum_is_the_gated_delta_rule():
    """Titans, eq. 32-34: M_t = (1 - alpha) M - 2 theta (M k - v) k^T, with eta = 0 and chunks of one token."""
    q, k, v, log_alpha, beta, state = (x.detach() for x in inputs(9))
    decay = log_alpha.exp()  # 1 - alpha; the delta rule also decays what the write erases
    y, end = neural_memory(
        q, k, v, 1 - decay, torch.zeros_like(beta), decay * beta / 2,
        MemoryState.from_weights((state,)), chunk_size=1, backend="reference",
    )  # fmt: skip
    o, matrix = gated_delta_rule(q, k, decay[..., None] * v, log_alpha, beta, state, chunk_size=4)
    assert_equal_to(y, o, name="y")
    assert_equal_to(end.weights[0], matrix, name="state")


def test_a_pair_written_once_is_read_back():
    layer_keys = torch.eye(4)[None, :, None]
    values = torch.randn(1, 4, 1, 4, generator=torch.Generator().manual_seed(0))
    nothing, whole = torch.zeros(1, 4, 1), torch.ones(1, 4, 1)
    start = torch.zeros(1, 1, 4, 4)
    _, state = gated_delta_rule(layer_keys, layer_keys, values, nothing, whole, start)
    again, _ = gated_delta_rule(layer_keys, layer_keys, values, nothing, torch.zeros_like(whole), state)
    torch.testing.assert_close(again, values)


def test_a_long_stream_is_bounded_and_cut_anywhere():
    torch.manual_seed(0)
    layer, x = GatedDeltaNet(8, heads=2).double(), torch.randn(2, 3 * CHUNK + 7, 8, dtype=torch.float64)
    mask = torch.rand(x.shape[:2]) < 0.8
    with torch.no_grad():
        whole, end = layer(x, mask=mask, return_state=True)
        for cut in (1, CHUNK - 1, CHUNK, 101):
            first, state = layer(x[:, :cut], mask=mask[:, :cut], return_state=True)
            second, last = layer(x[:, cut:], mask=mask[:, cut:], state=state, return_state=True)
            assert_equal_to(torch.cat([first, second], dim=1), whole, name="y")
            assert_equal_to(last.hidden, end.hidden, name="state")
        constant, state = layer(1e4 * torch.ones(1, 4096, 8, dtype=torch.float64), return_state=True)
    assert constant.isfinite().all() and state.hidden.norm() < 1e6


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="dim must be a multiple of heads"):
        GatedDeltaNet(8, heads=3)
    layer = GatedDeltaNet(8, heads=2)
    state = GatedDeltaNet(8, heads=4)(torch.randn(1, 3, 8), return_state=True)[1]
    with pytest.raises(ValueError, match="state belongs to another layer: GatedDeltaNet dim=8 heads=4"):
        layer(torch.randn(1, 3, 8), state=state)
