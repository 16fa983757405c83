"""Text to tokens and back: bytes, or any `tokenizer.json` of the Hugging Face library `tokenizers`."""

import codecs
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

FILE = "tokenizer.json"
_BYTES = {"titans_seq": "bytes"}  # what tokenizer.json says of a model of bytes


class Tokenizer(Protocol):
    """Text to tokens and back. vocabulary: number of tokens."""

    vocabulary: int

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """The tokens of a text; a ValueError where the vocabulary lacks a part of it."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""

    def decoder(self) -> Callable[[int], str]:
        """What turns tokens into text one at a time: each call gives the text that is certain by then."""

    def to_json(self) -> str:
        """What `read_tokenizer` reads."""


class ByteTokenizer:
    """Each byte of UTF-8 is a token."""

    vocabulary = 256

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(list(tokens)).decode(errors="replace")

    def decoder(self) -> Callable[[int], str]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        return lambda token: decoder.decode(bytes([token]))

    def to_json(self) -> str:
        return json.dumps(_BYTES)


class FileTokenizer:
    """A `tokenizer.json`, read by the library `tokenizers`."""

    def __init__(self, definition: str) -> None:
        self._tokenizer = _library().Tokenizer.from_str(definition)
        self.vocabulary: int = self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        tokens = np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)
        if text and self._unknown is not None and (tokens == self._unknown).any() or (text.strip() and not len(tokens)):
            raise ValueError("the vocabulary lacks a part of the text; take a tokenizer of bytes, or another text")
        return tokens

    @property
    def _unknown(self) -> int | None:
        token = getattr(self._tokenizer.model, "unk_token", None)
        return None if token is None else self._tokenizer.token_to_id(token)

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens))

    def decoder(self) -> Callable[[int], str]:
        stream = _library().decoders.DecodeStream(skip_special_tokens=True)
        return lambda token: stream.step(self._tokenizer, token) or ""

    def to_json(self) -> str:
        return self._tokenizer.to_str()


def train_bpe(texts: Sequence[str], vocabulary: int) -> FileTokenizer:
    """Byte-pair encoding learned from texts, on bytes: nothing is unknown to it.

    Raises:
        ValueError: a vocabulary of fewer than 257 tokens.
    """
    if vocabulary < 257:
        raise ValueError(
            f"a vocabulary of byte pairs must have at least 257 tokens, one more than bytes; got {vocabulary}"
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
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"no tokenizer at {path}")
    try:
        definition = path.read_text(encoding="utf-8")
        known = json.loads(definition)
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(f"{path} is no tokenizer.json: it holds no JSON") from None
    if known == _BYTES:
        return ByteTokenizer()
    if not isinstance(known, dict) or "model" not in known:
        raise ValueError(f"{path} is no tokenizer.json: it has no model")
    return FileTokenizer(definition)


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ValueError("this needs the library tokenizers: pip install 'titans-seq[lm]'") from None
    return tokenizers
