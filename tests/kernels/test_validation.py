"""Wrong arguments: one ValueError that names the argument and shows what it got."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from memory_oracle import random_problem

from titans_seq.kernels import MemoryState, neural_memory, read_memory

BACKENDS = ["reference", "chunked", "native"]
NAMES = ["q", "k", "v", "alpha", "eta", "theta"]  # B=2 T=9 H=2 K=3 V=4


def good():
    problem = random_problem(depth=2, chunk_size=4)
    arguments = dict(zip(NAMES, problem.tensors, strict=True))
    return arguments | {
        "state": MemoryState.from_weights(problem.state.weights),
        "chunk_size": 4,
        "gate_per": "token",
        "max_surprise": None,
    }


def call(arguments, **options):
    arguments = dict(arguments)
    positional = [arguments.pop(name) for name in (*NAMES, "state")]
    return neural_memory(*positional, **(arguments | options))


WRONG = {
    "k too short": ("k", lambda x: x[:, :-1], "(2, 8, 2, 3)"),
    "v too short": ("v", lambda x: x[:, :-1], "(2, 8, 2, 4)"),
    "v of other batch": ("v", lambda x: x[:1], "(1, 9, 2, 4)"),
    "q too wide": ("q", lambda x: torch.cat([x, x], -1), "(2, 9, 2, 6)"),
    "q without heads": ("q", lambda x: x[:, :, 0], "(2, 9, 3)"),
    "alpha with a width": ("alpha", lambda x: x[..., None], "(2, 9, 2, 1)"),
    "eta too short": ("eta", lambda x: x[:, :-1], "(2, 8, 2)"),
    "theta of one head": ("theta", lambda x: x[..., :1], "(2, 9, 1)"),
    "q of integers": ("q", lambda x: x.long(), "int64"),
    "v of another dtype": ("v", lambda x: x.float(), "float32"),
    "theta of booleans": ("theta", lambda x: x > 0, "bool"),
    "k on another device": ("k", lambda x: x.to("meta"), "meta"),
    "eta on another device": ("eta", lambda x: x.to("meta"), "meta"),
    "chunk size 0": ("chunk_size", lambda x: 0, "0"),
    "chunk size negative": ("chunk_size", lambda x: -3, "-3"),
    "chunk size no integer": ("chunk_size", lambda x: 2.5, "2.5"),
    "max_surprise infinite": ("max_surprise", lambda x: math.inf, "inf"),
    "max_surprise a string": ("max_surprise", lambda x: "1", "'1'"),
    "gates per head": ("gate_per", lambda x: "head", "'head'"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("argument", "change", "value"), WRONG.values(), ids=WRONG)
def test_shapes_dtypes_devices(backend, argument, change, value):
    arguments = good()
    arguments[argument] = change(arguments[argument])
    with pytest.raises(ValueError) as error:
        call(arguments, backend=backend)
    assert argument in str(error.value)
    assert value in str(error.value)


MASKS = {
    "too short": (torch.ones(2, 8, dtype=torch.bool), "(2, 8)"),
    "with heads": (torch.ones(2, 9, 2, dtype=torch.bool), "(2, 9, 2)"),
    "of floats": (torch.ones(2, 9), "float32"),
    "elsewhere": (torch.ones(2, 9, dtype=torch.bool, device="meta"), "meta"),
}


@pytest.mark.parametrize(("mask", "value"), MASKS.values(), ids=MASKS)
def test_masks(mask, value):
    with pytest.raises(ValueError) as error:
        call(good(), mask=mask)
    assert "mask" in str(error.value)
    assert value in str(error.value)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_max_surprise_must_be_positive(bound):
    with pytest.raises(ValueError, match=f"max_surprise.*{bound}"):
        call(good(), max_surprise=bound)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_of_another_chunk_size(backend):
    arguments = good()
    _, arguments["state"] = call(arguments, backend=backend)
    with pytest.raises(ValueError, match="chunk_size") as error:
        call(arguments | {"chunk_size": 8}, backend=backend)
    assert "4" in str(error.value)
    assert "8" in str(error.value)


def states():
    weights = random_problem(depth=2).state.weights
    one_head = random_problem(depth=2, H=1).state.weights
    three_samples = random_problem(depth=2, B=3).state.weights
    wide_keys = random_problem(depth=2, K=7).state.weights
    wide_values = random_problem(depth=1, V=9).state.weights
    return {
        "one head": (one_head, "(2, 1, 5, 3)"),
        "three samples": (three_samples, "(3, 2, 5, 3)"),
        "wide keys": (wide_keys, "(2, 2, 5, 7)"),
        "wide values": (wide_values, "(2, 2, 9, 3)"),
        "elsewhere": (tuple(w.to("meta") for w in weights), "meta"),
    }


@pytest.mark.parametrize("name", ["one head", "three samples", "wide keys", "wide values", "elsewhere"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_that_does_not_fit(backend, name):
    weights, value = states()[name]
    with pytest.raises(ValueError) as error:
        call(good() | {"state": MemoryState.from_weights(weights)}, backend=backend)
    assert "state" in str(error.value) or "weights" in str(error.value)
    assert value in str(error.value)


@pytest.mark.parametrize("field", ["momentum", "chunk_start"])
def test_a_state_of_two_depths(field):
    state = good()["state"]
    with pytest.raises(ValueError, match=field):
        call(good() | {"state": dataclasses.replace(state, **{field: getattr(state, field)[:1]})})


@pytest.mark.parametrize("field", ["momentum", "chunk_start"])
def test_a_state_of_two_shapes(field):
    state = good()["state"]
    cut = tuple(w[:, :, :-1] for w in getattr(state, field))
    with pytest.raises(ValueError, match=field):
        call(good() | {"state": dataclasses.replace(state, **{field: cut})})


@pytest.mark.parametrize(
    "position",
    [torch.zeros(3, dtype=torch.int64), torch.zeros(2), torch.zeros(2, 1, dtype=torch.int64)],
    ids=["other batch", "floats", "two axes"],
)
def test_a_position_that_is_none(position):
    with pytest.raises(ValueError, match="position"):
        call(good() | {"state": dataclasses.replace(good()["state"], position=position)})


def test_a_state_is_not_its_weights():
    weights = random_problem(depth=2).state.weights
    with pytest.raises((ValueError, TypeError), match="state"):
        call(good() | {"state": weights})


RANGES = [
    ("alpha", 1.5), ("alpha", -0.1), ("alpha", math.nan),
    ("eta", 1.01), ("eta", -1e-3), ("eta", math.inf),
    ("theta", -0.5), ("theta", math.inf), ("theta", math.nan),
]  # fmt: skip


@pytest.mark.parametrize(("argument", "value"), RANGES)
@pytest.mark.parametrize(
    "options", [{"backend": "reference"}, {"backend": "chunked", "check": True}], ids=["reference", "check"]
)
def test_ranges(options, argument, value):
    arguments = good()
    arguments[argument] = arguments[argument].clone()
    arguments[argument][1, 3, 0] = value
    with pytest.raises(ValueError, match=argument) as error:
        call(arguments, **options)
    shown = str(value) if not math.isfinite(value) else f"{value:g}"
    assert shown in str(error.value)


@pytest.mark.parametrize(
    "options", [{"backend": "reference"}, {"backend": "chunked", "check": True}], ids=["reference", "check"]
)
def test_positions_out_of_the_chunk(options):
    state = dataclasses.replace(good()["state"], position=torch.tensor([0, 7]), chunk_size=4)
    with pytest.raises(ValueError, match="position.*7"):
        call(good() | {"state": state}, **options)


def test_padding_may_hold_any_gate():
    """A mask makes a position not exist; its gates are nobody's business."""
    arguments = good()
    arguments["alpha"] = arguments["alpha"].clone()
    arguments["alpha"][0, 3] = 7.0
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 3] = False
    y, _ = call(arguments, mask=mask, check=True)
    assert y.isfinite().all()


def test_unknown_backend():
    with pytest.raises(ValueError, match="backend.*cuda-magic"):
        call(good(), backend="cuda-magic")


def test_triton_raises_where_it_cannot_run(monkeypatch):
    """Tensors on the CPU and no interpreter: never another backend in silence."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="triton"):
        call(good(), backend="triton")


def test_values_of_another_width_than_the_memorys():
    arguments = good()
    with pytest.raises(ValueError, match=r"state.weights\[1\].*\(2, 2, 8, 5\).*\(2, 2, 4, 5\)"):
        call(arguments | {"v": torch.cat([arguments["v"]] * 2, -1)})


@pytest.mark.parametrize(
    "change",
    [
        lambda q: q[..., :2],
        lambda q: q[:, :, :1],
        lambda q: q[:1],
        lambda q: q[0],
        lambda q: q.float(),
        lambda q: q.to("meta"),
    ],
    ids=["width", "heads", "batch", "axes", "dtype", "device"],
)
def test_reading_with_the_wrong_query(change):
    arguments = good()
    with pytest.raises(ValueError, match=r"^(q|state.weights\[0\]) must be .*; got "):
        read_memory(change(arguments["q"]), arguments["state"])


@pytest.mark.parametrize("name", ["q", "k", "v", "alpha", "eta", "theta", "mask"])
@pytest.mark.parametrize("value", ["text", [1.0], np.zeros(3)], ids=["str", "list", "numpy"])
def test_what_is_no_tensor_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a torch.Tensor; got {type(value).__name__}"):
        call(good() | {name: value})


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_checked_tokens_are_finite(name):
    arguments = good()
    spoiled = arguments[name].clone()
    spoiled[0, 1] = float("nan")
    with pytest.raises(ValueError, match=f"{name} must be finite; got nan"):
        call(arguments | {name: spoiled}, check=True)


def test_reading_with_whole_numbers():
    arguments = good()
    with pytest.raises(ValueError, match="q must be a floating tensor; got torch.int64"):
        read_memory(arguments["q"].long(), arguments["state"])


def test_numpy_numbers_are_numbers():
    y, _ = call(good(), chunk_size=np.int64(3), max_surprise=np.float32(1.0))
    assert torch.equal(y, call(good(), chunk_size=3, max_surprise=1.0)[0])
