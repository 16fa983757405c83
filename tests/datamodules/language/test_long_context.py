"""Tasks with answers: the answer follows from the sample by other means, lengths are exact, no part shares a sample."""

import itertools
import re

import numpy as np
import pytest

from titans_seq.datamodules import DataError, LongContextData
from titans_seq.datamodules.language.long_context import IGNORED, TASKS, TaskSamples

TEXTS = ("passkey", "number", "uuid", "one_fact", "two_facts")
every_task = pytest.mark.parametrize("task", TASKS)


def sample(task, length, index=0, seed=0):
    item = TaskSamples(task, length, 1, seed)[index]
    return item["tokens"].numpy(), item["targets"].numpy()


def read(task, length, index):
    """The text and the answer."""
    tokens, targets = sample(task, length, index)
    answer = bytes(targets[targets != IGNORED].tolist()).decode()
    return bytes([*tokens.tolist(), int(targets[-1])]).decode(), answer


@every_task
def test_length_and_tokens(task):
    least = TASKS[task][1]
    for length in (least, least + 1, least + 137, 1024):
        for index in range(5):
            tokens, targets = sample(task, length, index)
            assert len(tokens) == len(targets) == length
            assert 0 <= tokens.min() and tokens.max() < 256
            assert (targets != IGNORED).any()


@pytest.mark.parametrize("task", TEXTS)
def test_answers_end_the_text(task):
    """Each target is the next token, and the question stands before the answer."""
    for index in range(20):
        tokens, targets = sample(task, 300, index)
        asked = np.flatnonzero(targets != IGNORED)
        assert asked[-1] == 299 and (np.diff(asked) == 1).all()
        assert (targets[asked[:-1]] == tokens[asked[1:]]).all()


@pytest.mark.parametrize(("task", "value"), [("passkey", r"\d{7}"), ("number", r"\d{7}"), ("uuid", "[0-9a-f-]{36}")])
def test_a_needle_is_found_by_reading(task, value):
    places = []
    for index in range(40):
        text, answer = read(task, 600, index)
        found = re.findall(rf"One of the special magic numbers for (\w+) is: ({value})\. ", text)
        assert len(found) == 1 and found[0][1] == answer
        assert text.endswith(f"What is the special magic number for {found[0][0]}? It is: {answer}")
        places.append(text.index("One of"))
    assert min(places) < 120 and max(places) > 300


def follow(text):
    """Where everybody and everything is at the end, from the facts alone."""
    where, held = {}, {}
    for name, verb, what in re.findall(r"(\w+) (went to|took) the (\w+)\. ", text):
        if verb == "took":
            held[what] = name
        else:
            where[name] = what
    return where | {thing: where.get(name) for thing, name in held.items()}


@pytest.mark.parametrize("task", ["one_fact", "two_facts"])
def test_facts_are_followed(task):
    answers = set()
    for index in range(60):
        text, answer = read(task, 400, index)
        asked = re.search(r"Where is (?:the )?(\w+)\? ", text)[1]
        assert follow(text)[asked] == answer
        answers.add(answer)
    assert len(answers) == 6


def test_recalled_values_are_those_of_their_keys():
    for index in range(20):
        tokens, targets = sample("recall", 100, index)
        pairs = dict(zip(tokens[:24:2], tokens[1:24:2], strict=True))
        asked = np.flatnonzero(targets != IGNORED)
        assert len(pairs) == len(asked) == 12 and (asked >= 24).all()
        assert sorted(tokens[asked]) == sorted(pairs)
        assert [pairs[key] for key in tokens[asked]] == targets[asked].tolist()
        assert (tokens[24:] < 128).sum() == 12  # no key but where one is asked


@pytest.mark.parametrize(("task", "moved"), [("permutations", {0, 2, 3, 4, 5}), ("swaps", {2})])
def test_products_of_permutations(task, moved):
    """By matrices: the product of the first t of them. moved: how many of the five an element may move."""
    elements = [np.eye(5, dtype=int)[list(p)] for p in itertools.permutations(range(5))]
    tokens, targets = sample(task, 200)
    assert {5 - np.trace(elements[token]) for token in tokens} == moved
    product = np.eye(5, dtype=int)
    for token, target in zip(tokens, targets, strict=True):
        product = elements[token] @ product
        assert (product == elements[target]).all()
    assert len(set(targets.tolist())) > 60


def test_parity():
    tokens, targets = sample("parity", 50)
    assert [sum(tokens[: t + 1]) % 2 for t in range(50)] == targets.tolist()
    assert set(tokens.tolist()) == {0, 1}


@every_task
def test_samples_are_new_in_every_epoch_and_no_part_shares_them(task):
    data = LongContextData(task, length=200, steps_per_epoch=3, batch_size=4, eval_samples=12, eval_batch_size=4)
    train = data.train_dataloader()

    def rows(loader):
        return {tuple(row) for batch in loader for row in batch["tokens"].tolist()}

    epochs = []
    for epoch in range(2):
        train.sampler.set_epoch(epoch)
        epochs.append(rows(train))
    parts = [*epochs, rows(data.val_dataloader()), rows(data.test_dataloader())]
    assert [len(part) for part in parts] == [12] * 4
    assert len(set.union(*parts)) == 48
    assert rows(data.val_dataloader()) == parts[2]
    other = LongContextData(task, length=200, eval_samples=12, seed=1)
    assert not rows(other.val_dataloader()) & set.union(*parts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "riddles"}, "task must be one of passkey, number, uuid, recall, .*; got 'riddles'"),
        ({"task": "passkey", "length": 100}, "length must be at least 160 for passkey; got 100"),
        ({"task": "passkey", "eval_length": 100}, "eval_length must be at least 160 for passkey; got 100"),
        ({"task": "parity", "batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_tasks_that_cannot_be_made(options, message):
    with pytest.raises(DataError, match=message):
        LongContextData(**options)
