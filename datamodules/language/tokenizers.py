"""Text to tokens and back: bytes, or any `tokenizer.json` of the Hugging Face library `tokenizers`."""

import codecs
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from titans_seq.datamodules.common.files import open_text, user_path

FILE = "tokenizer.json"
LARGEST = 1_000_000  # tokens of a vocabulary; each takes memory before any text is read
IGNORED = -100  # in the place of a token: a target that is not asked for; what PyTorch's cross-entropy leaves out
_BYTES = {"titans_seq": "bytes"}  # what tokenizer.json says of a model of bytes


class Tokenizer(Protocol):
    """Text to tokens and back. vocabulary: number of tokens."""

    vocabulary: int

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """The tokens of a text; a ValueError where the vocabulary lacks a part of it."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""

    def decoder(self, before: Sequence[int] = ()) -> Callable[[int], str]:
        """What turns tokens into text one at a time: each call gives the text that is certain by then.

        before: tokens that stand in front and are not shown; whether a word begins with a blank can depend on them.
        """

    def to_json(self) -> str:
        """What `read_tokenizer` reads."""


class ByteTokenizer:
    """Each byte of UTF-8 is a token."""

    vocabulary = 256

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(list(tokens)).decode(errors="replace")

    def decoder(self, before: Sequence[int] = ()) -> Callable[[int], str]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        decoder.decode(bytes(list(before)))
        return lambda token: decoder.decode(bytes([token]))

    def to_json(self) -> str:
        return json.dumps(_BYTES)


class FileTokenizer:
    """A `tokenizer.json`, read by the library `tokenizers`. Truncation and padding that it asks for are left out.

    Raises:
        ValueError: the library does not read it.
    """

    def __init__(self, definition: str) -> None:
        library = _library()
        with _library_errors("it"):
            self._tokenizer = library.Tokenizer.from_str(definition)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        known = self._tokenizer.get_vocab()
        self.vocabulary: int = max(known.values(), default=-1) + 1
        if self.vocabulary > LARGEST:
            raise ValueError(f"its tokens must be below {LARGEST:,}; got {self.vocabulary - 1:,}")
        model = json.loads(definition)["model"]
        self._unknown = model.get("unk_id", known.get(model.get("unk_token")))

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        with _library_errors("the text"):
            encoded = self._tokenizer.encode(text, add_special_tokens=False)
        tokens = np.array(encoded.ids, dtype=np.int64)
        if (self._unknown is not None and (tokens == self._unknown).any()) or _left_out(text, encoded.offsets):
            raise ValueError("the vocabulary lacks a part of the text; take a tokenizer of bytes, or another text")
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens))

    def decoder(self, before: Sequence[int] = ()) -> Callable[[int], str]:
        stream = _library().decoders.DecodeStream(skip_special_tokens=True)
        for token in before:
            stream.step(self._tokenizer, token)
        return lambda token: stream.step(self._tokenizer, token) or ""

    def to_json(self) -> str:
        return self._tokenizer.to_str()


@contextmanager
def _library_errors(what: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception:  # the library's own errors have no class of their own
            raise
        raise ValueError(f"the library tokenizers does not read {what}: {error}") from None


def _left_out(text: str, offsets: Sequence[tuple[int, int]]) -> bool:
    """Is there a letter, no blank, that no token is made of?"""
    change = np.zeros(len(text) + 1, dtype=np.int64)
    if offsets:
        begins, ends = np.array(offsets).T
        np.add.at(change, begins, 1)
        np.add.at(change, ends, -1)
    return any(not text[i].isspace() for i in np.flatnonzero(change.cumsum()[:-1] == 0))


def train_bpe(texts: Sequence[str], vocabulary: int) -> FileTokenizer:
    """Byte-pair encoding learned from texts, on bytes: nothing is unknown to it.

    Raises:
        ValueError: a vocabulary of fewer than 257 tokens, or of more than a million.
    """
    if not 257 <= vocabulary <= LARGEST:
        raise ValueError(
            f"a vocabulary of byte pairs must have 257 (one more than bytes) to {LARGEST:,} tokens; got {vocabulary}"
        )
    library = _library()
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return FileTokenizer(tokenizer.to_str())


def read_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, or of the folder it lies in.

    Raises:
        ValueError: no such file, or not a tokenizer.
    """
    path = user_path(path)
    path = path / FILE if path.is_dir() else path
    with open_text(path, "tokenizer at") as file:
        definition = file.read()
    try:
        known = json.loads(definition)
    except (ValueError, RecursionError):  # no JSON, or JSON nested too deeply
        raise ValueError(f"{path} is not a tokenizer.json: it holds no JSON") from None
    if known == _BYTES:
        return ByteTokenizer()
    if not isinstance(known, dict) or "model" not in known:
        raise ValueError(f"{path} is not a tokenizer.json: it has no model")
    try:
        return FileTokenizer(definition)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ValueError("this needs the library tokenizers: pip install 'titans-seq[lm]'") from None
    return tokenizers
