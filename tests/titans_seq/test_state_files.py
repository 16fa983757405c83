"""States with values, types or shapes that no call makes: one ValueError, from the file or from the layer it meets."""

import pytest
import torch

from titans_seq import load_state, save_state
from titans_seq.blocks import Block, ModelState
from titans_seq.tensor_files import read_tensors, write_tensors

D = 8
OPTIONS = {
    "memory": {"heads": 2, "chunk_size": 4},
    "mac": {"heads": 2, "chunk_size": 4, "segment": 5},
    "mag": {"heads": 2, "chunk_size": 4, "window": 5},
    "mal": {"heads": 2, "chunk_size": 4, "window": 5},
    "attention": {"heads": 2, "window": 5},
    "ssm": {"states": 3},
    "gated_deltanet": {"heads": 2},
}


def block(mixer):
    torch.manual_seed(0)
    return Block(D, mixer=mixer, **OPTIONS[mixer]).eval()


def state_of(made, tokens=7):
    with torch.no_grad():
        return made(torch.randn(2, tokens, D))[1]


def tensors_of(state):
    """The place of every tensor in the order of `map`."""
    return range(len(state.tensors()))


def with_tensor(state, place, change):
    count = iter(tensors_of(state))
    return state.map(lambda tensor: change(tensor) if next(count) == place else tensor)


def refused(state, made, path):
    """Does either the file or the layer refuse it, in one line?"""
    save_state(path, state)
    with pytest.raises(ValueError, match="^[^\n]+$"), torch.no_grad():
        made(torch.randn(2, 3, D), state=load_state(path))
    return True


CHANGES = {
    "NaN": lambda t: t * float("nan"),
    "infinite": lambda t: t + float("inf"),
    "wider": lambda t: t.double(),
    "integers": lambda t: t.int(),
    "longer": lambda t: torch.cat([t, t[..., :1]], dim=-1),
    "flat": lambda t: t.flatten(),
    "other batch": lambda t: t[:1],
}


@pytest.mark.parametrize("mixer", OPTIONS)
@pytest.mark.parametrize("how", CHANGES)
def test_tensors_that_no_call_makes(mixer, how, tmp_path):
    made = block(mixer)
    state = state_of(made)
    for place, tensor in enumerate(state.tensors()):
        if tensor.is_floating_point():
            assert refused(with_tensor(state, place, CHANGES[how]), made, tmp_path / "state")


@pytest.mark.parametrize("mixer", OPTIONS)
@pytest.mark.parametrize("value", [-1, 2**40])
def test_positions_out_of_range(mixer, value, tmp_path):
    made = block(mixer)
    state = state_of(made)
    places = [place for place, tensor in enumerate(state.tensors()) if not tensor.is_floating_point()]
    assert places or mixer in ("ssm", "gated_deltanet")  # they count nothing
    for place in places:
        if value > 0 and "window" in OPTIONS[mixer] and place == places[-1]:
            continue  # the count of an attention's tokens, which has no end
        assert refused(with_tensor(state, place, lambda t: torch.full_like(t, value)), made, tmp_path / "state")
        assert refused(with_tensor(state, place, lambda t: t.int()), made, tmp_path / "state")


TREES = {
    "unknown state": lambda tree: tree.replace('"LayerState"', '"OtherState"'),
    "field of another type": lambda tree: tree.replace('{"value": 4}', '{"value": "4"}'),
    "true for a size": lambda tree: tree.replace('{"value": 4}', '{"value": true}'),
    "field missing": lambda tree: tree.replace('"chunk_size"', '"chunk"'),
    "unknown tensor": lambda tree: tree.replace('"state.inputs"}', '"state.outputs"}'),
    "a list": lambda tree: "[]",
    "a value": lambda tree: '{"value": 3}',
    "a tuple": lambda tree: '{"tuple": []}',
    "nested": lambda tree: '{"tuple": [' * 3000,
    "nested, complete": lambda tree: '{"tuple": [' * 400 + "]}" * 400,
}


@pytest.mark.parametrize("how", TREES)
def test_headers_that_no_state_has(how, tmp_path):
    path = tmp_path / "state"
    save_state(path, state_of(block("memory")))
    tensors, header = read_tensors(path)
    changed = header | {"tree": TREES[how](header["tree"])}
    assert changed != header
    write_tensors(path, tensors, changed)
    with pytest.raises(ValueError, match=r"state is damaged: [^\n]+$"):
        load_state(path)


def test_states_of_an_older_format_are_refused(tmp_path):
    path = tmp_path / "state"
    save_state(path, ModelState((state_of(block("memory")),)))
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, header | {"version": "1"})
    with pytest.raises(ValueError, match="has state format 1; this version reads format 2"):
        load_state(path)
