"""The window of `Attention` by FlexAttention against the blocks that run elsewhere (`test_attention.py` judges those by
a loop).

Without a GPU FlexAttention builds all scores, so which blocks of keys its kernels would read is compared with PyTorch's
own count.
"""

import pytest
import torch
from accuracy import assert_as_accurate_as, assert_equal_to
from torch.nn.attention.flex_attention import create_block_mask

from titans_seq import attention, flex
from titans_seq.attention import Attention

OPTIONS = {
    "window": {"window": 3},
    "window 1, persistent": {"window": 1, "num_persistent": 2},
    "norm, persistent": {"window": 4, "num_persistent": 3, "qk_norm": True},
    "both sides, persistent": {"window": 3, "num_persistent": 2, "bidirectional": True},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
# FlexAttention says so at every call that is not compiled; compiled for a CPU it has no backward
unfused = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")


def make(options, *, dim=8, heads=2):
    torch.manual_seed(0)
    layer = Attention(dim, heads=heads, **options).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return layer


@torch.no_grad()
def outcome(layer, x, mask):
    """Outputs of a stream in two calls, and the state after it. FlexAttention has no backward on a CPU."""
    if not layer.causal:
        return {"y": layer(x, mask=mask)}
    first, state = layer(x[:, :6], mask=mask[:, :6], return_state=True)
    second, state = layer(x[:, 6:], mask=mask[:, 6:], state=state, return_state=True)
    return {"y": torch.cat([first, second], dim=1), **{f"state {i}": z for i, z in enumerate(state.tensors())}}


@unfused
@every_option
def test_flex_is_what_the_blocks_give(monkeypatch, options):
    layer, x = make(options), torch.randn(3, 17, 8, dtype=torch.float64)
    mask = torch.rand(3, 17) > 0.3
    mask[1] = True
    exact = outcome(layer, x, mask)
    asked = []
    monkeypatch.setattr(attention, "runs_on", lambda q: asked.append(q.shape[1]) or True)
    got = outcome(layer, x, mask)
    assert asked, "the layer did not ask for FlexAttention"
    for name, value in exact.items():
        assert_equal_to(got[name].double(), value.double(), name=name)


def test_the_prefix_joins_with_its_gradient():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    keys, values = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def scores(k):
        return torch.einsum("bthk,bshk->bths", q, k)

    def joined():
        own = scores(k)
        y = torch.einsum("bths,bshk->bthk", own.softmax(-1), v)
        return flex.with_prefix(y, own.logsumexp(-1), torch.einsum("bthk,phk->bthp", q, keys), values)

    def at_once():
        every = torch.cat([keys.expand(2, -1, -1, -1), k], dim=1)
        return torch.einsum(
            "bths,bshk->bthk", scores(every).softmax(-1), torch.cat([values.expand(2, -1, -1, -1), v], dim=1)
        )

    leaves = (q, k, v, keys, values)
    assert_equal_to(joined(), at_once(), name="y")
    for name, got, exact in zip(
        ["q", "k", "v", "keys", "values"],
        *(torch.autograd.grad(f().square().sum(), leaves) for f in (joined, at_once)),
        strict=True,
    ):
        assert_equal_to(got, exact, name=f"gradient of {name}")


def test_positions_of_a_long_stream_stay_exact():
    """Flex turns keys by their place in the whole sequence, which float32 could not hold to 1e-4 there."""
    k, q = torch.randn(2, 1, 300, 2, 16).unbind()
    places = torch.arange(300, dtype=torch.float64) + 1e6
    score = (attention.rotated(q, places) * attention.rotated(k, places)).sum(-1)
    torch.testing.assert_close(score, (q * k).sum(-1), rtol=1e-4, atol=1e-4)
    near = (attention.rotated(q[:, 1:], places[1:]) * attention.rotated(k[:, :-1], places[:-1])).sum(-1)
    small = torch.arange(300)
    exact = (attention.rotated(q[:, 1:], small[1:]) * attention.rotated(k[:, :-1], small[:-1])).sum(-1)
    torch.testing.assert_close(near, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tokens", [1, 128, 129, 500])
@pytest.mark.parametrize(("back", "window", "reach"), [(0, 64, 0), (63, 64, 0), (299, 300, 0), (0, 100, 99), (0, 1, 0)])
def test_blocks_that_are_read_are_those_that_are_seen(tokens, back, window, reach):
    def visible(b, h, query, key):
        distance = query + back - key
        return (distance < window) & (distance >= -reach)

    made = flex.block_mask(tokens, back, window, reach, visible, torch.device("cpu"))
    exact = create_block_mask(visible, None, None, tokens, back + tokens, device="cpu", BLOCK_SIZE=flex.BLOCK)
    assert torch.equal(made.to_dense(), exact.to_dense())


def test_without_a_gpu_the_blocks_run():
    assert not flex.runs_on(torch.zeros(1, 4, 2, 64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", OPTIONS)
def test_flex_on_a_gpu(name):
    layer = make(OPTIONS[name] | {"window": 48}, dim=64)
    x, mask = torch.randn(2, 700, 64, dtype=torch.float64), torch.rand(2, 700) > 0.2

    def run(device, dtype):
        layer.to(device, dtype).zero_grad()
        y = layer(x.to(device, dtype), mask=mask.to(device))
        y.square().sum().backward()
        return {"y": y.detach().double().cpu(), **{n: p.grad.double().cpu() for n, p in layer.named_parameters()}}

    exact, plain, fast = run("cpu", torch.float64), run("cpu", torch.float32), run("cuda", torch.float32)
    for part, value in exact.items():
        assert_as_accurate_as(fast[part], plain[part], value, name=part, atol=1e-2 * value.abs().max().item())  # tf32
