"""Text for language models: one file, read as tokens, cut into splits and windows.

B batch, T time. A batch is {"tokens": int64 [B, T], "targets": int64 [B, T], the token that follows each, and, where
streams are trained, "carried": bool [B], True = the row follows on the same row of the batch before}.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import DataLoader, Dataset, Subset

from titans_seq.datamodules.common.data import SplitData
from titans_seq.datamodules.common.errors import DataError, at_least
from titans_seq.datamodules.common.files import base_name, open_text, user_path
from titans_seq.datamodules.common.loaders import SPLITS, Batch, EpochNumbers, dealt, epoch_seed, processes
from titans_seq.datamodules.common.stretches import require_rows
from titans_seq.datamodules.language.tokenizers import ByteTokenizer, Tokenizer, read_tokenizer, train_bpe

Tokens = Int[np.ndarray, " T"]


class TextWindows(Dataset[Batch]):
    """Windows of `length` tokens and what follows each of them, by where they begin."""

    def __init__(self, tokens: Tokens, length: int) -> None:
        self.tokens, self.length = tokens, length

    def __len__(self) -> int:
        """How many windows there are, of which neighbours overlap."""
        return len(self.tokens) - self.length

    def __getitem__(self, begin: int) -> Batch:
        window = torch.from_numpy(self.tokens[begin : begin + self.length + 1].astype(np.int64))
        return {"tokens": window[:-1], "targets": window[1:]}

    def in_a_row(self) -> Subset[Batch]:
        """The windows that do not overlap."""
        return Subset(self, range(0, len(self), self.length))


class TextData(SplitData):
    """A text file in windows: the first 90 % of its characters train, the next 5 % validate, the last 5 % test.

    A training epoch is `steps_per_epoch` batches of windows that begin anywhere; with `carry` it is the windows that do
    not overlap, each once, see `StretchBatches`. Validation and test windows do not overlap, and the remainder behind
    the last one is left out.

    Args:
        text: A file of UTF-8, also .gz.
        length: Tokens per window.
        tokenizer: A `tokenizer.json` or the folder of one; None: bytes.
        vocab_size: Learn a tokenizer of byte pairs with this number of tokens from the training split instead.
        steps_per_epoch: Batches per epoch; None: as many as cover the training split once.
        carry: 1: training windows come in any order, each for itself. n: every row of a batch follows on the row of the
            batch before, for n windows in a row.
        whole: Everything is test: to measure a model on another text.
        batch_size: Windows per training batch.
        eval_batch_size: Windows per batch of validation and test.
        seed: Of the order of the windows.
        num_workers: Processes that load batches.

    Attributes:
        splits: Tokens of each split, after `setup`.
        tokenizer_: What made the tokens, after `setup`.
        bytes_per_token: Of the test split, after `setup`.

    Raises:
        DataError: Arguments contradict each other; at `setup`, the file cannot be read, a split is shorter than a
            window, or the tokenizer cannot be read or lacks a part of the text.
    """

    def __init__(
        self,
        text: str,
        *,
        length: int = 256,
        tokenizer: str | None = None,
        vocab_size: int | None = None,
        steps_per_epoch: int | None = None,
        carry: int = 1,
        whole: bool = False,
        batch_size: int = 16,
        eval_batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed, num_workers)
        at_least(1, length=length, carry=carry)
        if steps_per_epoch is not None:
            at_least(1, steps_per_epoch=steps_per_epoch)
        if tokenizer is not None and vocab_size is not None:
            raise DataError("give a tokenizer or a vocab_size to learn one of, not both")
        if carry > 1 and steps_per_epoch is not None:
            raise DataError("carry reads the whole text in every epoch; leave steps_per_epoch out")
        self.text, self.length, self.tokenizer, self.vocab_size = text, length, tokenizer, vocab_size
        self.steps_per_epoch, self.carry, self.whole = steps_per_epoch, carry, whole
        self.splits: dict[str, Tokens]

    @property
    def dataset_name(self) -> str:
        """Of the text, as results call it."""
        return base_name(self.text)

    def setup(self, stage: str | None = None) -> None:
        """Read and cut the text; a repeated call does nothing."""
        if self.splits:
            return
        text = read_text(self.text)
        cuts = [0] if self.whole else [0, int(0.9 * len(text)), int(0.95 * len(text))]
        texts = [text[begin:end] for begin, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]
        try:
            self.tokenizer_ = self._tokenizer(texts[0])
        except ValueError as error:
            raise DataError(str(error)) from None
        try:
            tokens = [self.tokenizer_.encode(each) for each in texts]
        except ValueError as error:
            raise DataError(f"{self.text}: {error}") from None
        splits = dict(zip(["test"] if self.whole else SPLITS, tokens, strict=True))
        for name, each in splits.items():
            if len(each) <= self.length:
                raise DataError(
                    f"{self.text}: the {name} split has {len(each)} tokens, too few for a window of {self.length} and "
                    "what follows it; give a longer text or a smaller length"
                )
        if self.carry > 1 and not self.whole:
            require_rows(len(TextWindows(splits["train"], self.length).in_a_row()), self.batch_size)
        self.bytes_per_token = len(texts[-1].encode()) / len(tokens[-1])
        self.splits = splits  # last: what is refused once is refused again

    def _tokenizer(self, text: str) -> Tokenizer:
        if self.vocab_size is not None:
            return train_bpe([text], self.vocab_size)
        return ByteTokenizer() if self.tokenizer is None else read_tokenizer(self.tokenizer)

    def dataset_for(self, split: str) -> Subset[Batch]:
        return TextWindows(self.splits[split], self.length).in_a_row()

    def train_dataloader(self) -> DataLoader[Batch]:
        in_a_row = self.dataset_for("train")
        if self.carry > 1:
            return self.stream_dataloader([(0, begin, begin + self.length) for begin in in_a_row.indices], self.carry)
        steps = self.steps_per_epoch or -(-len(in_a_row) // (self.batch_size * processes()))
        windows = TextWindows(self.splits["train"], self.length)
        count = steps * self.batch_size * processes()

        def begins(epoch: int) -> list[int]:
            return np.random.default_rng(epoch_seed(self.seed, epoch)).integers(len(windows), size=count).tolist()

        return self.load(windows, batch_size=self.batch_size, sampler=dealt(EpochNumbers(count, begins)))


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        DataError: no such file, an empty one, one that is not text.
    """
    path = user_path(path)
    with open_text(path, newline=None) as file:
        text = file.read()
    if not text.strip():
        raise DataError(f"{path} is empty")
    return text
