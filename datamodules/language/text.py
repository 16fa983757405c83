"""Text for language models: one file, read as tokens, cut into parts and windows.

B batch, T time. A batch is {"tokens": int64 [B, T], "targets": int64 [B, T], the token that follows each, and, where
streams are trained, "goes_on": bool [B], True = the row follows on the same row of the batch before}.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from titans_seq.datamodules.common.errors import DataError, at_least
from titans_seq.datamodules.common.files import base_name, open_text, user_path
from titans_seq.datamodules.common.loaders import dealt, epoch_seed, processes
from titans_seq.datamodules.common.stretches import Reading, StretchBatches, require_rows, stretches_of
from titans_seq.datamodules.language.tokenizers import ByteTokenizer, Tokenizer, read_tokenizer, train_bpe

Batch = dict[str, Tensor]
Tokens = Int[np.ndarray, " T"]


class TextWindows(Dataset[Batch]):
    """Windows of `length` tokens and what follows each of them, by where they begin."""

    def __init__(self, tokens: Tokens, length: int) -> None:
        self.tokens, self.length = tokens, length

    def __len__(self) -> int:
        """How many windows there are that do not overlap."""
        return (len(self.tokens) - 1) // self.length

    def __getitem__(self, begin: int) -> Batch:
        window = torch.from_numpy(self.tokens[begin : begin + self.length + 1].astype(np.int64))
        return {"tokens": window[:-1], "targets": window[1:]}


class StreamWindows(Dataset[Batch]):
    """The windows that a `StretchBatches` asks for."""

    def __init__(self, windows: TextWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, reading: Reading) -> Batch:
        return self.windows[reading.window * self.windows.length] | {"goes_on": torch.tensor(reading.goes_on)}


class RandomBegins(Sampler[int]):
    """Where windows begin, drawn with replacement: `count` per epoch, which depend on the seed and the epoch only."""

    def __init__(self, windows: TextWindows, count: int, seed: int) -> None:
        self.windows, self.count, self.seed, self.epoch = windows, count, seed, 0

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng(epoch_seed(self.seed, self.epoch))
        self.epoch += 1
        yield from random.integers(len(self.windows.tokens) - self.windows.length, size=self.count).tolist()


class TextData(lightning.LightningDataModule):
    """A text file in windows: the first 90 % of its characters train, the next 5 % validate, the last 5 % test.

    A training epoch is `steps_per_epoch` batches of windows that begin anywhere; with `carry` it is the windows that do
    not overlap, each once, see `StretchBatches`. Validation and test windows do not overlap, and the remainder behind
    the last one is left out.

    Args:
        text: a file of UTF-8. length: tokens per window.
        tokenizer: a `tokenizer.json` or the folder of one; None: bytes. vocab_size: learn byte pairs from the training
            part instead, so many tokens.
        steps_per_epoch: None: as many as cover the training part once.
        carry: 1: training windows come in any order, each for itself. n: every row of a batch follows on the row of the
            batch before, for n windows in a row.
        whole: everything is test: to measure a model on another text.

    Attributes, after `setup`: tokenizer_: what made the tokens. parts: the tokens of each part. bytes_per_token: of the
        test part.

    Raises:
        DataError: no such file, an empty one, one that is no text; parts shorter than a window; a tokenizer that cannot
            be read or lacks a part of the text.
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
        super().__init__()
        at_least(1, length=length, batch_size=batch_size, eval_batch_size=eval_batch_size, carry=carry)
        if steps_per_epoch is not None:
            at_least(1, steps_per_epoch=steps_per_epoch)
        if tokenizer is not None and vocab_size is not None:
            raise DataError("give a tokenizer or a vocab_size to learn one of, not both")
        if carry > 1 and steps_per_epoch is not None:
            raise DataError("carry reads the whole text in every epoch; leave steps_per_epoch out")
        at_least(0, seed=seed, num_workers=num_workers)
        self.text, self.length, self.tokenizer, self.vocab_size = text, length, tokenizer, vocab_size
        self.steps_per_epoch, self.carry, self.whole = steps_per_epoch, carry, whole
        self.batch_size, self.eval_batch_size, self.seed, self.num_workers = (
            batch_size,
            eval_batch_size,
            seed,
            num_workers,
        )
        self.parts: dict[str, Tokens] = {}

    @property
    def dataset_name(self) -> str:
        """Of the text, as results call it."""
        return base_name(self.text)

    def setup(self, stage: str | None = None) -> None:
        """Read and cut the text; a repeated call does nothing."""
        if self.parts:
            return
        text = read_text(self.text)
        cuts = [0] if self.whole else [0, int(0.9 * len(text)), int(0.95 * len(text))]
        texts = [text[begin:end] for begin, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]
        try:
            self.tokenizer_ = self._tokenizer(texts[0])
        except ValueError as error:
            raise DataError(str(error)) from None
        try:
            tokens = [self.tokenizer_.encode(part) for part in texts]
        except ValueError as error:
            raise DataError(f"{self.text}: {error}") from None
        parts = dict(zip(["test"] if self.whole else ["train", "val", "test"], tokens, strict=True))
        for name, part in parts.items():
            if len(part) <= self.length:
                raise DataError(
                    f"{self.text}: the {name} part has {len(part)} tokens, too few for a window of {self.length} and "
                    "what "
                    "follows it; give a longer text or a smaller length"
                )
        if self.carry > 1 and not self.whole:
            require_rows(len(TextWindows(parts["train"], self.length)), self.batch_size)
        self.bytes_per_token = len(texts[-1].encode()) / len(tokens[-1])
        self.parts = parts  # last: what is refused once is refused again

    def _tokenizer(self, text: str) -> Tokenizer:
        if self.vocab_size is not None:
            return train_bpe([text], self.vocab_size)
        return ByteTokenizer() if self.tokenizer is None else read_tokenizer(self.tokenizer)

    def train_dataloader(self) -> DataLoader[Batch]:
        windows = TextWindows(self.parts["train"], self.length)
        if self.carry > 1:
            return self._load(StreamWindows(windows), batch_sampler=self._stretches())
        once = -(-len(windows) // (self.batch_size * processes()))
        count = (self.steps_per_epoch or once) * self.batch_size * processes()
        begins = dealt(RandomBegins(windows, count, self.seed))
        return self._load(windows, batch_size=self.batch_size, sampler=begins)

    def _stretches(self) -> StretchBatches:
        windows = TextWindows(self.parts["train"], self.length)
        places = [(0, i * self.length, (i + 1) * self.length) for i in range(len(windows))]
        return StretchBatches(
            stretches_of(places, self.carry), batch_size=self.batch_size, both_strands=False, seed=self.seed
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._in_order("test")

    def _in_order(self, part: str) -> DataLoader[Batch]:
        windows = TextWindows(self.parts[part], self.length)
        begins = range(0, len(windows) * self.length, self.length)
        return self._load(windows, batch_size=self.eval_batch_size, sampler=begins)

    def _load(self, windows: Dataset[Batch], **order: Any) -> DataLoader[Batch]:
        return DataLoader(
            windows,
            **order,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        DataError: no such file, an empty one, one that is no text.
    """
    path = user_path(path)
    with open_text(path, newline=None) as file:
        text = file.read()
    if not text.strip():
        raise DataError(f"{path} is empty")
    return text
