"""How well a language model reads: bits per byte of one long stream.

T time.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int

from titans_seq.kernels.state import whole_number
from titans_seq.language.model import LanguageModel


def read_stream(
    model: LanguageModel, tokens: Int[np.ndarray, " T"], *, piece: int = 4096, carry: bool = True
) -> Iterator[tuple[int, float]]:
    """Read tokens with one state from the first to the last; yield how many were read, and nats of all predicted so
    far.

    The first token is predicted from nothing and not counted. Memory is that of one piece (attention without a window
    keeps everything); the numbers are the same for any `piece`.

    Args:
        carry: False: every piece is read from the start, so the numbers depend on it.

    Raises:
        ValueError: a model in training mode, fewer than two tokens, one that is not in the vocabulary, or piece < 1.
    """
    if model.training:
        raise ValueError("model must be in eval mode: call model.eval()")
    piece = whole_number("piece", piece, 1)
    if len(tokens) < 2:
        raise ValueError(f"tokens must be at least 2; got {len(tokens)}")
    if not 0 <= tokens.min() <= tokens.max() < model.vocabulary:
        raise ValueError(f"tokens must be 0 to {model.vocabulary - 1}; got {tokens.min()} to {tokens.max()}")
    return _read(model, tokens, piece, carry)


def _read(model: LanguageModel, tokens: np.ndarray, piece: int, carry: bool) -> Iterator[tuple[int, float]]:
    state, nats = None, 0.0
    for begin in range(0, len(tokens) - 1, piece):
        part = torch.from_numpy(tokens[begin : begin + piece + 1].astype(np.int64))
        part = part.to(model.encoder.embedding.weight.device)
        with torch.inference_mode():
            logits, state = model(part[None, :-1], state=state if carry else None)
            nats += F.cross_entropy(logits[0].float(), part[1:], reduction="sum").item()
        yield begin + len(part), nats
