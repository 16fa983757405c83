"""The memory on Triton under torch.compile(fullgraph=True): same results and gradients as without; prints what it
tried.

python full_graph.py [cuda]      # without it: on the CPU, in Triton's interpreter, traced but not compiled
"""

import os
import sys

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

import torch

from titans_seq import NeuralMemory
from titans_seq.kernels import MemoryState, neural_memory

B, T, H, K, HIDDEN = 1, 3, 1, 2, 3
BACKEND = "aot_eager" if DEVICE == "cpu" else "inductor"
# Inductor makes other kernels of what stands around the memory
CLOSE = {} if DEVICE == "cpu" else {"rtol": 1e-4, "atol": 1e-4}


def call(q, k, v, alpha, eta, theta, mask, position, chunk_size, *weights):
    momentum = tuple(0.1 * w for w in weights)
    state = MemoryState(weights, momentum, weights, position, chunk_size)
    y, state, surprise = neural_memory(
        q,
        k,
        v,
        alpha,
        eta,
        theta,
        state,
        chunk_size=2,
        max_surprise=1.0,
        mask=mask,
        return_surprise=True,
        backend="triton",
    )
    return y, surprise, *state.weights, *state.chunk_start


def gradients(function, leaves, options):
    outputs = function(*leaves[:6], *options, *leaves[6:])
    total = sum((x * torch.linspace(-1, 1, x.numel(), device=DEVICE).view_as(x)).sum() for x in outputs)
    return torch.autograd.grad(total, leaves)


torch.manual_seed(0)
leaves = [torch.randn(B, T, H, K) for _ in range(3)] + [torch.rand(B, T, H) for _ in range(3)]
leaves = [*leaves, torch.randn(B, H, HIDDEN, K), torch.randn(B, H, K, HIDDEN)]
leaves = [x.to(DEVICE).requires_grad_() for x in leaves]
mask = torch.tensor([[True, False, True]], device=DEVICE)
zero, one = (torch.tensor([position], device=DEVICE) for position in (0, 1))
for name, options in {"fresh": (None, zero, None), "carried": (mask, one, 2)}.items():
    expected = gradients(call, leaves, options)
    got = gradients(torch.compile(call, fullgraph=True, backend=BACKEND), leaves, options)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    print(name)

layer = NeuralMemory(4, heads=1, expansion=1, chunk_size=2, num_persistent=1, backend="triton").to(DEVICE)
x = torch.randn(1, 3, 4, device=DEVICE)
expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
compiled = torch.compile(layer, fullgraph=True, backend=BACKEND)
for a, b in zip(torch.autograd.grad(compiled(x).square().sum(), list(layer.parameters())), expected, strict=True):
    torch.testing.assert_close(a, b, **CLOSE)
print("layer")

breaks = torch._dynamo.explain(layer)(x).break_reasons  # fullgraph=True allows more than torch.compile alone
assert not breaks, breaks

# lengths are not compiled in: ten of them stay within PyTorch's limit of eight graphs
linear = NeuralMemory(4, heads=1, depth=1, chunk_size=2, backend="triton").to(DEVICE)
compiled = torch.compile(linear, fullgraph=True, backend=BACKEND)
for length in range(2, 12):
    compiled(torch.randn(1, length, 4, device=DEVICE)).sum().backward()
print("lengths")

# the chunked form stays outside of the graph as a whole: nothing else breaks it, however many chunks there are
layer.backend = "chunked"
breaks = torch._dynamo.explain(layer)(torch.randn(1, 40, 4, device=DEVICE)).break_reasons
assert breaks and all("chunked_memory" in str(reason) for reason in breaks), breaks
print("chunked")
