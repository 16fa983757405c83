"""Tasks with answers far from what they are about, made on the spot at any length: needles, recall, facts, state
tracking.

T time. A sample is (tokens [T], targets [T]): the token that follows each, IGNORED where none is asked for. Needles and
facts are text in bytes, the others tokens below 256, so one vocabulary of bytes serves all.

Sources: needles after RULER (arXiv 2404.06654), recall after MQAR (arXiv 2312.04927), facts after bAbI (arXiv
1502.05698) spread in filler text as in BABILong (arXiv 2406.10149), state tracking after The Illusion of State (arXiv
2404.08819).
"""

import itertools
import uuid
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import DataLoader, Dataset

from titans_seq.datamodules.common.data import SplitData
from titans_seq.datamodules.common.errors import DataError, at_least
from titans_seq.datamodules.common.loaders import SPLITS, Batch, EpochNumbers, dealt, processes
from titans_seq.datamodules.language.tokenizers import IGNORED

Sample = tuple[Int[np.ndarray, " T"], Int[np.ndarray, " T"]]

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
_NAMES = ("Mary", "John", "Sandra", "Daniel")
_PLACES = ("kitchen", "garden", "office", "hallway", "bathroom", "bedroom")
_THINGS = ("apple", "football", "milk")
_WHO = ("A farmer", "The old clerk", "My neighbour", "A young sailor", "The captain", "Her uncle", "The miller",
        "A friend")  # fmt: skip
_DID = ("watched", "repaired", "painted", "sold", "described", "remembered", "carried", "measured")
_WHAT = ("a wooden boat", "the north wall", "two silver spoons", "an empty barn", "the long road", "a letter",
         "his coat")  # fmt: skip
_WHEN = ("in the morning", "before the rain", "after lunch", "last winter", "without a word", "every Sunday", "at noon")
_KEYS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "island", "jasper", "kelp", "lotus")
_PERMUTATIONS = list(itertools.permutations(range(5)))
_NUMBER = {permutation: i for i, permutation in enumerate(_PERMUTATIONS)}
_SWAPS = [i for i, permutation in enumerate(_PERMUTATIONS) if sum(a != b for a, b in enumerate(permutation)) == 2]


def _sentence(random: np.random.Generator) -> str:
    return " ".join(words[random.integers(len(words))] for words in (_WHO, _DID, _WHAT, _WHEN)) + ". "


def _needle(random: np.random.Generator, length: int, value: str, sentences: Callable[[], str]) -> Sample:
    fact, question = _asked(random, value)
    return _in_text(random, length, [fact], question, value, sentences)


def _asked(random: np.random.Generator, value: str) -> tuple[str, str]:
    key = _KEYS[random.integers(len(_KEYS))]
    return (
        f"One of the special magic numbers for {key} is: {value}. ",
        f"What is the special magic number for {key}? It is: ",
    )


def passkey_parts(random: np.random.Generator) -> tuple[str, str, str]:
    """Fact, question and answer of a passkey sample, without the noise."""
    value = _digits(random)
    return *_asked(random, value), value


def _passkey(random: np.random.Generator, length: int) -> Sample:
    parts = itertools.cycle(part + ". " for part in NOISE.rstrip(". ").split(". "))
    return _needle(random, length, _digits(random), lambda: next(parts))


def _number(random: np.random.Generator, length: int) -> Sample:
    return _needle(random, length, _digits(random), lambda: _sentence(random))


def _uuid(random: np.random.Generator, length: int) -> Sample:
    return _needle(random, length, str(uuid.UUID(bytes=random.bytes(16), version=4)), lambda: _sentence(random))


def _digits(random: np.random.Generator) -> str:
    return str(random.integers(10**6, 10**7))


def _one_fact(random: np.random.Generator, length: int) -> Sample:
    moves = [(_pick(random, _NAMES), _pick(random, _PLACES)) for _ in range(4)]
    name = _pick(random, [name for name, _ in moves])
    answer = next(place for who, place in reversed(moves) if who == name)
    facts = [f"{who} went to the {place}. " for who, place in moves]
    return _in_text(random, length, facts, f"Where is {name}? ", answer, lambda: _sentence(random))


def _two_facts(random: np.random.Generator, length: int) -> Sample:
    name, other = random.permutation(_NAMES)[:2]
    thing = _pick(random, _THINGS)
    here, there, elsewhere = random.permutation(_PLACES)[:3]
    facts = [f"{name} went to the {here}. ", f"{name} took the {thing}. ", f"{name} went to the {there}. "]
    facts.insert(int(random.integers(4)), f"{other} went to the {elsewhere}. ")
    return _in_text(random, length, facts, f"Where is the {thing}? ", str(there), lambda: _sentence(random))


def _in_text(
    random: np.random.Generator, length: int, facts: list[str], question: str, answer: str, sentences: Callable[[], str]
) -> Sample:
    """Facts in their order at random places between sentences, then the question and the answer."""
    wanted = length + 1 - sum(map(len, facts)) - len(question) - len(answer)
    filler, filled = [], 0
    while filled < wanted:
        filler.append(sentences())
        filled += len(filler[-1])
    filler.insert(0, filler.pop()[filled - wanted :])  # the first sentence is the one that is cut
    for place, fact in zip(sorted(random.integers(len(filler), size=len(facts)))[::-1], facts[::-1], strict=True):
        filler.insert(int(place) + 1, fact)
    text = "".join(filler) + question
    tokens = np.frombuffer((text + answer).encode(), dtype=np.uint8).astype(np.int64)
    targets = np.full(len(tokens) - 1, IGNORED)
    targets[-len(answer) :] = tokens[-len(answer) :]
    return tokens[:-1], targets


def _recall(random: np.random.Generator, length: int) -> Sample:
    """Pairs of a key (below 128) and a value, then every key again in any order, each followed by its value."""
    pairs = min(length // 8, 64)
    keys, values = random.permutation(128)[:pairs], 128 + random.integers(128, size=pairs)
    tokens = np.empty(length + 1, dtype=np.int64)
    tokens[: 2 * pairs : 2], tokens[1 : 2 * pairs : 2] = keys, values
    free = np.arange(2 * pairs, length, 2)  # where questions may stand; elsewhere values that nobody asks for
    tokens[2 * pairs :] = 128 + random.integers(128, size=length + 1 - 2 * pairs)
    asked, places = random.permutation(pairs), np.sort(random.permutation(free)[:pairs])
    tokens[places], tokens[places + 1] = keys[asked], values[asked]
    targets = np.full(length, IGNORED)
    targets[places] = values[asked]
    return tokens[:-1], targets


def _permutations(random: np.random.Generator, length: int) -> Sample:
    """Elements of S5 by number, and what the product of all up to each is."""
    return _products(random.integers(len(_PERMUTATIONS), size=length))


def _swaps(random: np.random.Generator, length: int) -> Sample:
    """The same of the ten elements that swap two, of which all others are products."""
    return _products(random.choice(_SWAPS, size=length))


def _products(tokens: Int[np.ndarray, " T"]) -> Sample:
    state, targets = tuple(range(5)), np.empty_like(tokens)
    for t, number in enumerate(tokens):
        state = tuple(state[i] for i in _PERMUTATIONS[number])
        targets[t] = _NUMBER[state]
    return tokens, targets


def _parity(random: np.random.Generator, length: int) -> Sample:
    """Bits, and whether the number of ones up to each is odd."""
    tokens = random.integers(2, size=length)
    return tokens, tokens.cumsum() % 2


def _pick(random: np.random.Generator, words: list[str] | tuple[str, ...]) -> str:
    return words[random.integers(len(words))]


# name -> (what makes a sample, the least length)
TASKS: dict[str, tuple[Callable[[np.random.Generator, int], Sample], int]] = {
    "passkey": (_passkey, 160),
    "number": (_number, 160),
    "uuid": (_uuid, 192),
    "recall": (_recall, 16),
    "one_fact": (_one_fact, 192),
    "two_facts": (_two_facts, 192),
    "permutations": (_permutations, 1),
    "swaps": (_swaps, 1),
    "parity": (_parity, 1),
}


class TaskSamples(Dataset[Batch]):
    """Samples of a task, each made from the seed and its number alone."""

    def __init__(self, task: str, length: int, count: int, seed: int) -> None:
        self.make, self.length, self.count, self.seed = TASKS[task][0], length, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Batch:
        tokens, targets = self.make(np.random.default_rng([self.seed, index]), self.length)
        return {"tokens": torch.from_numpy(tokens), "targets": torch.from_numpy(targets)}


class LongContextData(SplitData):
    """A task with answers. Training samples are new in every epoch; those of validation and test are other ones, always
    the same.

    Args:
        task: "passkey" (a number in repeated noise), "number" and "uuid" (in text), "recall" (up to 64 pairs of keys
            and values), "one_fact" and "two_facts" (where is who or what, in text), "permutations" (products in S5),
            "swaps" (the same, of swaps of two), "parity".
        length: Tokens per sample.
        eval_length: Tokens per sample of validation and test; None: the same.
        steps_per_epoch: Training batches per epoch.
        eval_samples: Number of samples of validation, and of test.
        batch_size: Samples per training batch.
        eval_batch_size: Samples per batch of validation and test.
        seed: Of all samples.
        num_workers: Processes that make samples.

    Raises:
        DataError: An unknown task, too short a length for it, a number that is not positive.
    """

    def __init__(
        self,
        task: str,
        *,
        length: int = 256,
        eval_length: int | None = None,
        steps_per_epoch: int = 250,
        eval_samples: int = 256,
        batch_size: int = 16,
        eval_batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed, num_workers)
        if task not in TASKS:
            raise DataError(f"task must be one of {', '.join(TASKS)}; got {task!r}")
        self.eval_length = length if eval_length is None else eval_length
        at_least(1, length=length, eval_length=self.eval_length)
        at_least(1, steps_per_epoch=steps_per_epoch, eval_samples=eval_samples)
        for name, tokens in (("length", length), ("eval_length", self.eval_length)):
            if tokens < TASKS[task][1]:
                raise DataError(f"{name} must be at least {TASKS[task][1]} for {task}; got {tokens}")
        self.task, self.length, self.steps_per_epoch, self.eval_samples = task, length, steps_per_epoch, eval_samples

    @property
    def dataset_name(self) -> str:
        """The task, as results call it."""
        return self.task

    def dataset_for(self, split: str) -> TaskSamples:
        length, count = self.eval_length, self.eval_samples
        if split == "train":
            length, count = self.length, self.steps_per_epoch * self.batch_size * processes()
        # a hash of both: no split shares a sample with another, of this seed or of the next
        seed = np.random.SeedSequence([self.seed, SPLITS.index(split)]).generate_state(1)[0]
        return TaskSamples(self.task, length, count, int(seed))

    def train_dataloader(self) -> DataLoader[Batch]:
        samples = self.dataset_for("train")
        count = len(samples)  # numbers that no other epoch has
        fresh = EpochNumbers(count, lambda epoch: range(epoch * count, (epoch + 1) * count))
        return self.load(samples, batch_size=self.batch_size, sampler=dealt(fresh))
