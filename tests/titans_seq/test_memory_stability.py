"""Bounded and alive (DESIGN section 3): finite at any input and length, and still able to learn afterwards."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from titans_seq import MemoryState, NeuralMemory, memory
from titans_seq.kernels import neural_memory, read_memory

D = 8
LOUD = 1e4
BOUND = {1: 0.2, 2: 0.3, 4: 0.7}  # relative error of reading 16 pairs back, by depth


def make(**options) -> NeuralMemory:
    torch.manual_seed(0)
    return NeuralMemory(**{"dim": D, "heads": 2} | options)


def streams(T: int) -> dict[str, Tensor]:
    """One stream [T, D] per name; loud directions saturate the gates in every combination some of them can."""
    g = torch.Generator().manual_seed(0)
    sign = torch.where(torch.arange(T) % 2 == 0, 1.0, -1.0)[:, None]
    constant = torch.randn(1, D, generator=g).expand(T, D)
    noise = torch.randn(T, D, generator=g)
    named = {
        "constant": constant,
        "repeated": torch.randn(7, D, generator=g).repeat(T // 7 + 1, 1)[:T],
        "sign-flipping": constant * sign,
        "noise": noise,
    }
    named |= {f"loud {name}": x * LOUD for name, x in named.items()}
    named |= {
        "zero": torch.zeros(T, D),
        "quiet, then loud": torch.where(torch.arange(T)[:, None] < T // 2, 1e-4, LOUD) * noise,
    }
    for i, direction in enumerate(LOUD * torch.randn(12, 1, D, generator=g)):
        named |= {f"loud direction {i}": direction.expand(T, D), f"loud flipping direction {i}": direction * sign}
    return named


def relative_norms(layer: NeuralMemory, memory: MemoryState) -> Tensor:
    """Norm of each layer's weights [L, B, H] in units of its norm at the start of the stream."""
    start = layer.initial_state(1).memory.weights
    return torch.stack(
        [w.flatten(2).norm(dim=-1) / w0.flatten(2).norm(dim=-1) for w, w0 in zip(memory.weights, start, strict=True)]
    )


def assert_finite(names, **tensors):
    for what, x in tensors.items():
        fine = x.isfinite().flatten(1).all(1)
        assert fine.all(), f"{what} not finite for: {[n for n, ok in zip(names, fine, strict=True) if not ok]}"


CASES = [(chunk_size, depth, {}) for chunk_size in (1, 4, 64) for depth in (1, 2, 3, 4)]
CASES += [
    (16, depth, options)
    for depth in (1, 4)
    for options in ({"momentum": False}, {"forgetting": False}, {"gate_per": "chunk"})
]


@pytest.mark.parametrize(("chunk_size", "depth", "options"), CASES, ids=str)
@torch.no_grad()
def test_finite_and_bounded(chunk_size, depth, options):
    T = 2048 if chunk_size == 1 else 4096
    named = streams(T)
    layer = make(depth=depth, chunk_size=chunk_size, **options)
    y, state, surprise = layer(torch.stack(list(named.values())), return_state=True, return_surprise=True)
    memory = state.memory
    assert_finite(named, y=y, surprise=surprise)
    assert_finite(named, **{f"weights {i}": w for i, w in enumerate(memory.weights)})
    assert_finite(named, **{f"momentum {i}": w for i, w in enumerate(memory.momentum)})
    norms = dict(zip(named, relative_norms(layer, memory).transpose(0, 1), strict=True))
    for name, norm in norms.items():
        if "loud" not in name:
            assert norm.min() > 0.03, f"{name}: {norm.tolist()}"
            assert norm.max() < 10, f"{name}: {norm.tolist()}"
    # momentum: a geometric sum of steps of norm at most theta <= 2 (1 - eta) min(4 / C, 1 / 2) each
    largest = max(w.flatten(2).norm(dim=-1).max() for w in memory.momentum)
    assert largest <= 1.001 * min(8 / chunk_size, 1), largest


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("chunk_size", [4, 64])
@torch.no_grad()
def test_loud_inputs_do_not_kill_the_memory(chunk_size, depth):
    """For depth >= 2 zero weights are absorbing: a memory that loud tokens have driven to zero never learns again."""
    named = {name: x for name, x in streams(4096).items() if "loud" in name}
    layer = make(depth=depth, chunk_size=chunk_size)
    _, state = layer(torch.stack(list(named.values())), return_state=True)
    norms = relative_norms(layer, state.memory).amin(dim=(0, 2))
    dead = {name: f"{norm:.0e}" for name, norm in zip(named, norms.tolist(), strict=True) if norm < 1e-3}
    assert not dead, f"weights gone to zero after {len(dead)} of {len(named)} streams: {list(dead.items())[:4]} ..."


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-20, 1e-6, 1e4, 1e8, 1e15, 1e18])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_any_scale_is_finite_forward_and_backward(depth, scale):
    layer = make(depth=depth, chunk_size=16)
    x = torch.randn(2, 100, D)
    x = (x / max(1, x.norm(dim=-1).max()) * scale).requires_grad_()
    y, surprise = layer(x, return_surprise=True)
    assert y.isfinite().all()
    assert surprise.isfinite().all()
    (y / (1 + scale)).square().sum().backward()
    for name, tensor in [("x", x), *layer.named_parameters()]:
        assert tensor.grad.isfinite().all(), f"gradient of {name}"


def loudest(T: int) -> Tensor:
    """The streams at the largest norm of a token that is promised to be safe [B, T, D]."""
    return torch.stack([1e18 * x / x.norm(dim=-1).max().clamp_min(1) for x in streams(T).values()])


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("chunk_size", [4, 64])
@torch.no_grad()
def test_the_loudest_tokens(chunk_size, depth):
    """Each sample goes on with another stream: quiet ones let weights grow that loud ones are multiplied with."""
    layer, x, state = make(depth=depth, chunk_size=chunk_size), loudest(1024), None
    for piece in range(3):
        y, state = layer(x.roll(piece, 0), state=state, return_state=True)
        assert y.isfinite().all()
        assert all(w.isfinite().all() for w in (*state.memory.weights, *state.memory.momentum))


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [(b, dtype) for b in ("reference", "chunked") for dtype in (torch.float32, torch.bfloat16)]
    + [("triton", torch.float32)],
    ids=str,
)
def test_the_loudest_tokens_in_every_backend(backend, dtype):
    if backend == "triton":
        pytest.importorskip("triton", reason="triton is not installed (it exists for Linux only)")
    device = "cuda" if backend == "triton" and torch.cuda.is_available() else "cpu"
    layer = make(heads=1, depth=4, chunk_size=8, backend=backend).to(device, dtype)
    # quiet, then loud: the tokens that leave float32 first without a bound
    x = torch.cat([1e-22 * loudest(8)[:1], loudest(8)[:1]], dim=1).to(device, dtype).requires_grad_()
    y = layer(x)
    (y.float() / 1e18).square().sum().backward()
    for name, tensor in [("y", y), ("gradient of x", x.grad), *((n, p.grad) for n, p in layer.named_parameters())]:
        assert tensor.isfinite().all(), name


@torch.no_grad()
def test_ordinary_tokens_are_never_clipped(monkeypatch):
    """To the last bit, up to values of 1e9."""
    layer, x = make(depth=2, chunk_size=4), torch.randn(2, 40, D) * torch.logspace(-9, 9, 40)[:, None]
    y, clipped = layer(x), layer(1e9 * x)
    monkeypatch.setattr(memory, "LOUDEST_VALUE", torch.inf)
    assert torch.equal(layer(x), y)
    assert not torch.equal(layer(1e9 * x), clipped)


@pytest.mark.parametrize(("scale", "finite"), [(10, (True, True)), (1e3, (True, False)), (6e4, (False, False))])
def test_float16_layers_hold_what_float16_holds(scale, finite):
    """As documented: finite outputs, finite gradients."""
    layer = make(depth=2, chunk_size=16).half()
    x = (torch.randn(2, 100, D).clamp(-1, 1) * scale).half().requires_grad_()
    y = layer(x)
    (y.float() / scale).square().mean().backward()
    assert (bool(y.isfinite().all()), bool(x.grad.isfinite().all())) == finite


@pytest.mark.parametrize(("tokens", "chunk_size", "depth"), [(2**17, 64, 4), (2**20, 256, 2)])
@torch.no_grad()
def test_long_streams(tokens, chunk_size, depth):
    """Up to a million tokens, in pieces with the state carried, the kind of input changing every piece."""
    piece = 2**14 - 17  # so that pieces end inside chunks
    layer = make(dim=4, heads=1, depth=depth, chunk_size=chunk_size)
    kinds = ("noise", "constant", "sign-flipping", "zero", "repeated")
    named = streams(piece)
    state, seen = None, 0
    while seen < tokens:
        kind = kinds[seen // piece % len(kinds)]
        y, state = layer(named[kind][None, :, :4], state=state, return_state=True)
        seen += piece
        assert y.isfinite().all(), f"{kind}, token {seen}"
        norms = relative_norms(layer, state.memory)
        assert 0.01 < norms.min() <= norms.max() < 30, f"{kind}, token {seen}: {norms.flatten().tolist()}"


def feed(layer: NeuralMemory, k: Tensor, v: Tensor, state: MemoryState) -> MemoryState:
    """Write tokens k, v [T, K], the same for every head, with the gates of a zero input."""
    T, H = len(k), layer.heads
    k, v = (x[None, :, None].expand(1, T, H, -1) for x in (k, v))
    gates = (gate.reshape(1, 1, H).expand(1, T, H) for gate in layer.initial_gates())
    return neural_memory(k, k, v, *gates, state, chunk_size=layer.chunk_size, max_surprise=1.0)[1]


def random_pairs(K: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(16, K, generator=g), dim=-1), torch.randn(16, K, generator=g) / K**0.5


def recall_error(layer: NeuralMemory, k: Tensor, v: Tensor, state: MemoryState) -> float:
    """|| M(k) - v || / || v || over all pairs, of the worst head."""
    v = v[None, :, None].expand(1, 16, layer.heads, -1)
    y = read_memory(k[None, :, None].expand(1, 16, layer.heads, -1), state)
    return ((y - v).norm(dim=(1, 3)) / v.norm(dim=(1, 3))).max().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize(("K", "chunk_size"), [(32, 64), (64, 64), (32, 4)])
@torch.no_grad()
def test_alive_at_the_start(K, chunk_size, depth, seed):
    """16 random pairs repeated over 4,096 tokens are read back, with the layer's own first gates and weights."""
    layer = make(dim=2 * K, depth=depth, chunk_size=chunk_size)
    k, v = random_pairs(K, seed)
    start = layer.initial_state(1).memory
    assert recall_error(layer, k, v, start) > 0.9
    assert recall_error(layer, k, v, feed(layer, k.repeat(256, 1), v.repeat(256, 1), start)) <= BOUND[depth]


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize(("K", "token"), [(32, "random"), (32, "zero"), (64, "random")])
@torch.no_grad()
def test_alive_after_100_000_constant_tokens(K, depth, token):
    """Little is left of a memory that fades too fast; 16 new pairs must still be learned as well as at first."""
    layer = make(dim=2 * K, depth=depth, chunk_size=64)
    (k0, *_), (v0, *_) = random_pairs(K, 5)
    scale = 0.0 if token == "zero" else 1.0
    state = feed(
        layer, (scale * k0).expand(100_000, -1), (scale * v0).expand(100_000, -1), layer.initial_state(1).memory
    )
    norms = relative_norms(layer, state)
    assert 0.1 < norms.min() <= norms.max() < 10
    k, v = random_pairs(K, 3)
    assert recall_error(layer, k, v, feed(layer, k.repeat(256, 1), v.repeat(256, 1), state)) <= BOUND[depth]


def test_the_first_gates():
    """alpha <= 1e-3; theta is (1 - eta) / C, so that the weights of a chunk's steps sum to 1."""
    for chunk_size in (4, 16, 64):
        alpha, eta, theta = (gate.flatten() for gate in make(chunk_size=chunk_size).initial_gates())
        assert alpha.shape == eta.shape == theta.shape == (2,)
        assert (alpha <= 1e-3).all()
        assert ((eta > 0.3) & (eta < 1)).all()
        torch.testing.assert_close(theta, (1 - eta) / chunk_size)


def test_theta_is_of_a_chunk():
    """Whatever the chunk, until theta reaches its bound."""
    for chunk_size in (16, 64):
        usual, large = (make(chunk_size=chunk_size, **given).initial_gates()[2] for given in ({}, {"theta_start": 4.0}))
        torch.testing.assert_close(4 * usual, large)
        narrow = make(chunk_size=chunk_size, theta_scale=1.0, theta_start=4.0)
        torch.testing.assert_close(narrow.initial_gates()[2], usual)  # never beyond the middle of its range
        ranges = [
            largest_theta(make(chunk_size=chunk_size, **given))
            for given in ({}, {"theta_start": 4.0}, {"theta_scale": 1.0})
        ]
        torch.testing.assert_close(torch.tensor(ranges), torch.tensor([8.0, 8.0, 2.0]) / chunk_size)
    largest = make(chunk_size=64, theta_scale=1e9)
    assert largest_theta(largest) == 1
    largest = make(chunk_size=64, theta_scale=1e9, theta_start=1e9)
    _, eta, theta = largest.initial_gates()
    torch.testing.assert_close(theta, 0.5 * (1 - eta))


def largest_theta(layer: NeuralMemory) -> float:
    """What an open gate gives, in parts of 1 - eta."""
    with torch.no_grad():
        layer.gates.bias[: layer.heads] = 100.0
    _, eta, theta = layer.initial_gates()
    return float((theta / (1 - eta)).max().detach())


def test_the_first_gates_are_those_of_a_zero_input():
    """A stream of zeros decays the memory by (1 - alpha) per token, and by nothing else: a zero key writes nothing."""
    layer = make(depth=2)
    alpha = layer.initial_gates()[0].flatten()
    _, state = layer(torch.zeros(1, 1000, D), return_state=True)
    for norm in relative_norms(layer, state.memory):
        assert torch.allclose(norm[0], (1 - alpha) ** 1000, rtol=1e-4)
