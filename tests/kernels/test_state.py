"""MemoryState: what a caller may rely on."""

import copy

import numpy as np
import pytest
import torch
from memory_oracle import random_problem

from titans_seq.kernels import MemoryState, neural_memory

FIELDS = ("weights", "momentum", "chunk_start")


def carried(**description):
    """A state in the middle of a chunk, after a masked call: samples stand at different positions."""
    T = 7
    mask = torch.arange(T)[None] < torch.tensor([[7], [5], [6]])
    problem = random_problem(depth=2, chunk_size=4, T=T, B=3, **description)
    state = MemoryState.from_weights(problem.state.weights)
    return neural_memory(*problem.tensors, state, chunk_size=4, mask=mask)[1], problem


def tensors_of(state):
    return [*state.weights, *state.momentum, *state.chunk_start]


def test_from_weights_starts_a_stream():
    weights = random_problem(depth=3, B=2).state.weights
    state = MemoryState.from_weights(weights)
    assert all(torch.equal(a, b) for a, b in zip(state.weights, weights, strict=True))
    assert all((s == 0).all() and s.shape == w.shape for s, w in zip(state.momentum, weights, strict=True))
    assert state.position.dtype == torch.int64
    assert state.position.tolist() == [0, 0]


def test_from_weights_is_an_empty_history():
    """Zero momentum, chunk boundary: the same as saying so."""
    problem = random_problem(depth=2, T=9)
    weights = problem.state.weights
    zero = tuple(torch.zeros_like(w) for w in weights)
    spelled = MemoryState(weights, zero, weights, torch.zeros(2, dtype=torch.int64), 4)
    results = [
        neural_memory(*problem.tensors, s, chunk_size=4)[0] for s in (MemoryState.from_weights(weights), spelled)
    ]
    assert torch.equal(*results)


def test_the_state_remembers_where_it_stands():
    state, _ = carried()
    assert state.position.tolist() == [3, 1, 2]
    assert state.chunk_size == 4


def test_no_tokens_leave_the_state_as_it_was():
    state, problem = carried()
    y, after = neural_memory(*(x[:, :0] for x in problem.tensors), state, chunk_size=4)
    assert y.shape == (3, 0, 2, 4)
    assert torch.equal(after.position, state.position)
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(after), tensors_of(state), strict=True))


def test_detach_cuts_the_graph_and_keeps_the_values():
    problem = random_problem(depth=2, B=2)
    weights = tuple(w.requires_grad_() for w in problem.state.weights)
    state = neural_memory(*problem.tensors, MemoryState.from_weights(weights), chunk_size=4)[1]
    assert all(x.requires_grad for x in tensors_of(state))
    detached = state.detach()
    assert not any(x.requires_grad for x in tensors_of(detached))
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(detached), tensors_of(state), strict=True))
    assert all(x.requires_grad for x in tensors_of(state))


def test_to_moves_values_and_leaves_positions_integer():
    state, _ = carried()
    narrow = state.to(torch.float32)
    assert all(x.dtype == torch.float32 for x in tensors_of(narrow))
    assert narrow.position.dtype == torch.int64
    assert torch.equal(narrow.position, state.position)
    assert narrow.chunk_size == state.chunk_size
    meta = state.to("meta")
    assert all(x.device.type == "meta" for x in (*tensors_of(meta), meta.position))


def test_select_reorders_samples():
    """The selected state continues exactly as its samples would have."""
    state, _ = carried()
    order = torch.tensor([2, 0, 2])
    chosen = state.select(order)
    assert chosen.position.tolist() == [2, 3, 2]
    more = random_problem(depth=2, chunk_size=4, T=5, B=3, seed=5).tensors
    whole, _ = neural_memory(*more, state, chunk_size=4)
    part, _ = neural_memory(*(x[order] for x in more), chosen, chunk_size=4)
    assert torch.allclose(part, whole[order], rtol=0, atol=1e-12)


def test_one_state_can_be_continued_twice():
    state, problem = carried()
    first, _ = neural_memory(*problem.tensors, state, chunk_size=4)
    second, _ = neural_memory(*problem.tensors, state, chunk_size=4)
    assert torch.equal(first, second)


def test_deepcopy():
    state, _ = carried()
    copied = copy.deepcopy(state)
    assert all(torch.equal(a, b) and a is not b for a, b in zip(tensors_of(copied), tensors_of(state), strict=True))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: (), "weights"),
        (lambda w: (w[0], w[1][:, :, :, :-1]), "weights"),
        (lambda w: (w[0], w[1][:1]), "weights"),
        (lambda w: (w[0][0], w[1][0]), "weights"),
        (lambda w: (w[0].long(), w[1].long()), "weights"),
    ],
    ids=["none", "widths that do not chain", "two batch sizes", "no batch", "integers"],
)
def test_weights_that_are_no_memory(change, says):
    weights = random_problem(depth=2).state.weights
    with pytest.raises(ValueError, match=says):
        problem = random_problem(depth=2)
        neural_memory(*problem.tensors, MemoryState.from_weights(change(weights)), chunk_size=4)


@pytest.mark.parametrize("batch", [2, -3, 1.0, True, "0"])
def test_a_sample_that_is_not_there(batch):
    state = MemoryState.from_weights((torch.randn(2, 1, 3, 3),))
    with pytest.raises(ValueError, match="batch must be"):
        state.select(batch)


def test_one_sample_keeps_its_dimension():
    state = MemoryState.from_weights((torch.randn(2, 1, 3, 3),))
    for batch in (1, -1, np.int64(1)):
        assert torch.equal(state.select(batch).weights[0], state.weights[0][1:])


def test_a_state_of_whole_numbers():
    state = MemoryState.from_weights((torch.randn(2, 1, 3, 3),))
    with pytest.raises(ValueError, match="floating.*int64"):
        state.to(torch.int64)
