"""The gate table against the two recurrences it sums up, one slot at a time."""

import pytest
import torch
from accuracy import assert_equal_to

from titans_seq.kernels.gates import Gates, GateTable, diagonal_sums, gate_table, products, toeplitz, toeplitz_table

GATES = {"inner": (0.3, 0.9), "alpha 0": (0.0, 0.9), "alpha 1": (1.0, 0.9), "eta 0": (0.3, 0.0), "eta 1": (0.3, 1.0)}


def by_recurrence(alpha, eta, real):
    """W and S as rows over their sources (start weights, start momentum, one write per slot), slot after slot."""
    C = alpha.shape[-1]
    source = torch.eye(C + 2, dtype=alpha.dtype)
    W = source[0].expand(*alpha.shape[:-1], -1)
    S = source[1].expand(*alpha.shape[:-1], -1)
    rows = []
    for t in range(C):
        written = eta[..., t, None] * S + source[t + 2]
        kept = (1 - alpha[..., t, None]) * W + written
        here = real[..., t, None] > 0
        W, S = torch.where(here, kept, W), torch.where(here, written, S)
        rows.append(W)
    rows = torch.stack(rows, dim=-2)
    end_start = torch.stack([W[..., 0], W[..., 1], S[..., 1]], dim=-1)
    return GateTable(rows[..., :2], rows[..., 2:], end_start, torch.stack([W[..., 2:], S[..., 2:]], dim=-2))


def random_gates(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, dtype=torch.float64, generator=g).requires_grad_() for _ in range(2)]


def random_gradients(table, seed=1):
    """A gradient for every entry of a table."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(part.shape, dtype=torch.float64, generator=g) for part in table]


def only_real(table, real):
    """Writes of empty slots have no meaning: their step is 0."""
    return GateTable(
        table.start, table.written * real[..., None, :], table.end_start, table.end_written * real[..., None, :]
    )


def assert_tables_agree(gates, real, *, per_chunk=False):
    width = real.shape[-1]
    spread = [gate[..., None].expand(*gate.shape, width) if per_chunk else gate for gate in gates]
    exact = only_real(by_recurrence(*spread, real), real)
    own = Gates(*(gate.detach() for gate in gates), width, None if real.all() else real, per_chunk=per_chunk)
    for name, a, b in zip(GateTable._fields, only_real(own.table, real), exact, strict=True):
        assert_equal_to(a, b, name=name, tolerance=1e-13)
    grads = only_real(GateTable(*random_gradients(exact)), real)
    expected = torch.autograd.grad(exact, gates, grads)
    here = 1.0 if per_chunk else real  # an empty slot's gate is a constant
    for name, a, b in zip(("alpha", "eta"), own.backward(grads), expected, strict=True):
        assert_equal_to(a * here, b * here, name=f"gradient of {name}", tolerance=1e-12)


@pytest.mark.parametrize("width", [1, 2, 5, 16])
def test_gates_per_token(width):
    assert_tables_agree(random_gates(3, 2, width), torch.ones(3, 2, width, dtype=torch.float64))


@pytest.mark.parametrize("width", [1, 2, 5, 16])
def test_gates_per_chunk(width):
    assert_tables_agree(random_gates(3, 2), torch.ones(3, 2, width, dtype=torch.float64), per_chunk=True)


@pytest.mark.parametrize("per_chunk", [False, True], ids=["token", "chunk"])
def test_empty_slots_before_and_behind_the_tokens(per_chunk):
    real = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.float64)
    gates = random_gates(4) if per_chunk else random_gates(4, 5)
    if not per_chunk:  # as `Slots.fill` leaves them
        with torch.no_grad():
            gates[0].mul_(real)
            gates[1].copy_(torch.where(real > 0, gates[1], 1.0))
    assert_tables_agree(gates, real, per_chunk=per_chunk)


@pytest.mark.parametrize(("alpha", "eta"), GATES.values(), ids=GATES)
@pytest.mark.parametrize("per_chunk", [False, True], ids=["token", "chunk"])
def test_gates_exactly_zero_and_one(alpha, eta, per_chunk):
    real = torch.ones(1, 6, dtype=torch.float64)
    shape = (1,) if per_chunk else (1, 6)
    gates = [torch.full(shape, value, dtype=torch.float64, requires_grad=True) for value in (alpha, eta)]
    assert_tables_agree(gates, real, per_chunk=per_chunk)


@pytest.mark.parametrize("alpha", [1e-4, 0.5, 0.999])
def test_two_hundred_slots_in_float32(alpha):
    """Products from 1 down to far below the smallest number: no NaN, and right where there is something to see."""
    gates = torch.full((1, 200), alpha), torch.full((1, 200), 0.7)
    exact = by_recurrence(*(gate.double() for gate in gates), torch.ones(1, 200))
    for table in (gate_table(*gates, None)[0], toeplitz_table(*(gate[:, 0] for gate in gates), 200)[0]):
        for name, a, b in zip(GateTable._fields, table, exact, strict=True):
            assert a.isfinite().all()
            assert ((a.double() - b).abs() <= 1e-4 * b)[b > 1e-33].all(), name


def test_products_of_nothing_are_one():
    table = products(torch.tensor([0.0, 0.5]))
    assert torch.equal(table, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.5, 1.0]]))


def test_diagonal_sums_are_the_adjoint_of_toeplitz():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 7, generator=g), torch.randn(3, 7, 7, generator=g)
    assert torch.allclose((toeplitz(x) * y).sum(), (x * diagonal_sums(y)).sum(), atol=1e-5)
    assert torch.equal(toeplitz(torch.tensor([1.0, 2.0, 3.0])), torch.tensor([[1.0, 0, 0], [2, 1, 0], [3, 2, 1]]))
