"""The memory on Triton under torch.compile(fullgraph=True): same results and gradients as without; prints what it tried."""

import os

os.environ["TRITON_INTERPRET"] = "1"

import torch

from titans_seq import NeuralMemory
from titans_seq.kernels import MemoryState, neural_memory

B, T, H, K, HIDDEN = 1, 3, 1, 2, 3


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
    total = sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in outputs)
    return torch.autograd.grad(total, leaves)


torch.manual_seed(0)
leaves = [torch.randn(B, T, H, K) for _ in range(3)] + [torch.rand(B, T, H) for _ in range(3)]
leaves = [x.requires_grad_() for x in (*leaves, torch.randn(B, H, HIDDEN, K), torch.randn(B, H, K, HIDDEN))]
mask = torch.tensor([[True, False, True]])
for name, options in {"fresh": (None, torch.tensor([0]), None), "carried": (mask, torch.tensor([1]), 2)}.items():
    expected = gradients(call, leaves, options)
    got = gradients(torch.compile(call, fullgraph=True, backend="aot_eager"), leaves, options)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    print(name)

layer = NeuralMemory(4, heads=1, expansion=1, chunk_size=2, num_persistent=1, backend="triton")
x = torch.randn(1, 3, 4)
expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
for a, b in zip(torch.autograd.grad(compiled(x).square().sum(), list(layer.parameters())), expected, strict=True):
    torch.testing.assert_close(a, b)
print("layer")

# lengths are not compiled in: ten of them stay within PyTorch's limit of eight graphs
linear = NeuralMemory(4, heads=1, depth=1, chunk_size=2, backend="triton")
compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")
for length in range(2, 12):
    compiled(torch.randn(1, length, 4)).sum().backward()
print("lengths")

# the chunked form stays outside of the graph as a whole: nothing else breaks it, however many chunks there are
layer.backend = "chunked"
breaks = torch._dynamo.explain(layer)(torch.randn(1, 40, 4)).break_reasons
assert breaks and all("chunked_memory" in str(reason) for reason in breaks), breaks
print("chunked")
