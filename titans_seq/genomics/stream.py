"""A sequence of any length, read piece by piece with the memory carried on, and tracks made of what was seen.

Coordinates are 0-based and half-open.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from titans_seq.files import replacing
from titans_seq.genomics.model import DNALanguageModel
from titans_seq.genomics.scoring import check_eval, log_likelihood

Track = tuple[str, Int[np.ndarray, " N+1"], Float[np.ndarray, " N"]]  # record, edges of its bins, a value per bin


@dataclass(frozen=True)
class StreamPiece:
    """What a model says of the bases [begin, begin + T) of a stream.

    log_likelihood: of each base given all before it, nats; NaN where it is no A, C, G or T.
    surprise: mean over blocks and heads of the gradient norm of the memory as it predicts the base: it takes in the
        base before, since a next-base model reads one base behind.
    """

    begin: int
    log_likelihood: Float[np.ndarray, " T"]
    surprise: Float[np.ndarray, " T"]


def read_stream(
    model: DNALanguageModel, tokens: UInt8[np.ndarray, " T"] | Iterable[UInt8[np.ndarray, " T"]], *, piece: int = 8192
) -> Iterator[StreamPiece]:
    """Read a sequence with one memory from its first base to its last; the same numbers for any `piece`.

    Memory is that of one piece, whatever the length, as long as attention, if there is any, has a window.

    Args:
        model: causal, in eval mode; read on its device.
        tokens: the whole sequence, or its parts in order, of any length each.
        piece: bases read at a time, all but the last time.

    Raises:
        ValueError: the model is bidirectional or in training mode, or piece < 1; as it is reached, a model without
            memory.
    """
    if model.encoder.bidirectional:
        raise ValueError("model must be causal: a bidirectional one reads to the end first and has no stream")
    check_eval(model)
    if piece < 1:
        raise ValueError(f"piece must be at least 1; got {piece}")
    return _read(model, _pieces([tokens] if isinstance(tokens, np.ndarray) else tokens, piece))


def _read(model: DNALanguageModel, pieces: Iterable[np.ndarray]) -> Iterator[StreamPiece]:
    begin, previous, state = 0, None, None
    for piece in pieces:
        with torch.inference_mode():  # no graph: the state can be carried as it is
            tokens = torch.from_numpy(piece).to(model.head.weight.device)[None]
            logits, state, surprise = model(tokens, previous=previous, state=state, return_surprise=True)
            nats = log_likelihood(logits, tokens)[0]
            mean = torch.stack([block.mean(dim=(0, 2)) for block in surprise]).mean(dim=0)  # [T]
            previous = tokens[:, -1]
        yield StreamPiece(begin, nats.cpu().numpy(), mean.cpu().numpy())
        begin += len(piece)


def _pieces(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same tokens in pieces of one size, the last one shorter."""
    waiting: list[np.ndarray] = []
    length = 0
    for part in parts:
        while length + len(part) >= size:
            yield np.concatenate([*waiting, part[: size - length]])
            part, waiting, length = part[size - length :], [], 0
        if len(part):
            waiting.append(part)
            length += len(part)
    if waiting:
        yield np.concatenate(waiting)


def bin_mean(
    values: Float[np.ndarray, " T"], begin: int, width: int
) -> tuple[Int[np.ndarray, " N+1"], Float[np.ndarray, " N"]]:
    """Edges of bins and the mean in each; NaN is left out of the mean, and is the mean where there is nothing else.

    Bins end at multiples of `width`, counted from 0, and where the values end. So consecutive pieces make the bins of
    the whole, if they begin at multiples of it.

    Args:
        begin: where the first value stands.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1; got {width}")
    end = begin + len(values)
    if len(values) == 0:
        return np.array([begin]), np.zeros(0)
    edges = np.concatenate([[begin], np.arange((begin // width + 1) * width, end, width), [end]])
    valid = ~np.isnan(values)
    total = np.add.reduceat(np.where(valid, values, 0.0), edges[:-1] - begin, dtype=np.float64)
    count = np.add.reduceat(valid, edges[:-1] - begin, dtype=np.int64)
    return edges, np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def write_bedgraph(path: str | Path, tracks: Iterable[Track], *, name: str, description: str) -> Path:
    """Write a bedGraph file: one header line, then `record begin end value` with six digits; bins that are NaN left
    out.

    The file takes its name once it is complete. Rows are written as the tracks come, one at a time.

    Args:
        tracks: of one record or several, or of parts of one; see `bin_mean`.
        name, description: of the track, as a genome browser shows them.

    Raises:
        ValueError: a quote or line break in a name, a blank in a record's name, edges that do not fit their values or
            do not increase from 0 or more, or an infinite value.
        OSError: the file cannot be written.
    """
    path = Path(path)
    for text in (name, description):
        if '"' in text or len(text.splitlines()) > 1:
            raise ValueError(f"name and description must be one line without double quotes; got {text!r}")
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f'track type=bedGraph name="{name}" description="{description}"\n')
        for track in tracks:
            file.writelines(_rows(*track))
    return path


def _rows(record: str, edges: np.ndarray, values: np.ndarray) -> Iterator[str]:
    if record.split() != [record]:
        raise ValueError(f"a record's name must be one word; got {record!r}")
    if len(edges) != len(values) + 1 or edges[0] < 0 or (np.diff(edges) <= 0).any():
        raise ValueError(
            f"edges of {record} must be {len(values) + 1}, one more than its values, and increase from 0 or more"
        )
    if np.isinf(values).any():
        raise ValueError(f"values of {record} must be finite or NaN; got an infinite one")
    for begin, end, value in zip(edges[:-1], edges[1:], values, strict=True):
        if not np.isnan(value):
            yield f"{record}\t{begin}\t{end}\t{value:.6g}\n"
