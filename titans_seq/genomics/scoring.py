"""Effects of variants without training on any: how much less likely a model finds the other allele.

Coordinates are 0-based. Both strands are read, since neither model reads them alike; scores are in nats, negative where
the alternative allele is the less likely one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from titans_seq.datamodules.genomics.alphabet import COMPLEMENT, FIRST_BASE, KNOWN, MASK, PAD, decode
from titans_seq.genomics.model import DNALanguageModel, reverse_complement

Alleles = tuple[UInt8[np.ndarray, " R"], UInt8[np.ndarray, " A"]]  # windows: reference, alternative


class Record(Protocol):
    """Tokens of a record: an array, or whatever reads them from a file slice by slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class VariantScore:
    """Nats, on the strand as given and on its reverse complement."""

    forward: float
    reverse: float

    @property
    def mean(self) -> float:
        return (self.forward + self.reverse) / 2


def alleles(
    record: Record, position: int, ref: UInt8[np.ndarray, " R"], alt: UInt8[np.ndarray, " A"], window: int
) -> Alleles:
    """Windows around a variant, which has the same bases on its two sides in both.

    Each side has (window - longest allele) // 2 bases, rounded down so that the other strand has the same window; fewer
    where the record ends. A deletion or insertion is written as in VCF, with a base that stays.

    Args:
        position: of the first base of `ref`, from 0.
        window: the most tokens a window may have.

    Raises:
        ValueError: an allele is empty or holds anything but A, C, G, T; the two are the same; `ref` is not what the
            record has there; or the window is shorter than an allele.
    """
    for name, allele in (("ref", ref), ("alt", alt)):
        if len(allele) == 0 or not _known(allele).all():
            raise ValueError(f"{name} must be one or more of A, C, G, T; got {_letters(allele)!r}")
    if np.array_equal(ref, alt):
        raise ValueError(f"ref and alt must differ; both are {_letters(ref)!r}")
    end, longest = position + len(ref), max(len(ref), len(alt))
    if position < 0 or end > len(record):
        raise ValueError(f"ref must lie in the record of {len(record)} bases; got [{position}, {end})")
    if window < longest:
        raise ValueError(f"window must hold the alleles, {longest} bases; got {window}")
    if not np.array_equal(found := record[position:end], ref):
        raise ValueError(
            f"the record has {_letters(found)!r} at position {position} (from 0); ref is {_letters(ref)!r}"
        )
    side = (window - longest) // 2
    before, after = record[max(position - side, 0) : position], record[end : end + side]
    reference, alternative = (np.concatenate([before, allele, after]).astype(np.uint8) for allele in (ref, alt))
    return reference, alternative


def score_variants(
    model: DNALanguageModel, variants: Iterable[Alleles], *, batch_size: int = 16
) -> Iterator[VariantScore]:
    """Score windows made by `alleles`, on the model's device; one score each, in order, as they are computed.

    Causal model: n_ref * (L_alt / n_alt) - L_ref, where L is the log-likelihood of all A, C, G, T of the window and n
    is their number. For substitutions it is L_alt - L_ref; else a longer allele would always be the less likely one,
    since every base costs something.

    Bidirectional model: log p(alt) - log p(ref) at the variant, which is masked; single bases only.

    Args:
        model: in eval mode.
        batch_size: variants read together, at most 4 windows each. Windows that occur twice in a batch are read once,
            so variants of one position belong next to each other.

    Raises:
        ValueError: the model is in training mode; batch_size < 1; or, as it is reached, a variant of several bases with
            a bidirectional model.
    """
    check_eval(model)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    score = _masked_scores if model.encoder.bidirectional else _causal_scores
    rest = iter(variants)
    return chain.from_iterable(score(model, batch) for batch in iter(lambda: list(islice(rest, batch_size)), []))


def check_eval(model: DNALanguageModel) -> None:
    """Raises ValueError for a model in training mode, whose dropout would be part of every number."""
    if model.training:
        raise ValueError("model must be in eval mode; call model.eval() first")


def log_likelihood(logits: Float[Tensor, "B T 4"], tokens: Integer[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """log p of each token in nats, float32 or wider; NaN where it is no A, C, G or T."""
    target = tokens.long() - FIRST_BASE
    known = (target >= 0) & (target < KNOWN)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    found = F.log_softmax(logits, dim=-1).gather(-1, target.clamp(0, KNOWN - 1)[..., None])[..., 0]
    return found.masked_fill(~known, torch.nan)


@torch.inference_mode()
def _causal_scores(model: DNALanguageModel, batch: Sequence[Alleles]) -> list[VariantScore]:
    windows, rows = _distinct(chain.from_iterable(batch))
    tokens, real = _padded(windows, _device(model))
    strands = []
    for strand in (tokens, reverse_complement(tokens, real)):
        nats = log_likelihood(_logits(model, strand, real), strand).cpu().double()
        total, count = nats.nansum(dim=1)[rows], (~nats.isnan()).sum(dim=1).double()[rows]
        ref, alt = slice(0, None, 2), slice(1, None, 2)
        strands.append((total[alt] * (count[ref] / count[alt]) - total[ref]).tolist())
    return [VariantScore(*pair) for pair in zip(*strands, strict=True)]


@torch.inference_mode()
def _masked_scores(model: DNALanguageModel, batch: Sequence[Alleles]) -> list[VariantScore]:
    places = [_only_difference(*pair) for pair in batch]
    windows, rows = _distinct(_with_mask(ref, place) for (ref, _), place in zip(batch, places, strict=True))
    tokens, real = _padded(windows, _device(model))
    bases = torch.tensor([[ref[place], alt[place]] for (ref, alt), place in zip(batch, places, strict=True)]).long()
    turned = [len(ref) - 1 - place for (ref, _), place in zip(batch, places, strict=True)]
    strands = []
    for strand, place, base in (
        (tokens, places, bases),
        (reverse_complement(tokens, real), turned, COMPLEMENT[bases]),
    ):
        logits = _logits(model, strand, real)[rows, place].cpu().double()  # [variants, 4]
        ref, alt = logits.gather(1, base - FIRST_BASE).unbind(dim=1)
        strands.append((alt - ref).tolist())  # the softmax has one denominator for both
    return [VariantScore(*pair) for pair in zip(*strands, strict=True)]


def _logits(model: DNALanguageModel, tokens: Tensor, real: Tensor) -> Tensor:
    return model(tokens, mask=None if bool(real.all()) else real)[0]


def _only_difference(ref: np.ndarray, alt: np.ndarray) -> int:
    if len(ref) != len(alt) or len(places := np.flatnonzero(ref != alt)) != 1:
        raise ValueError("a bidirectional model scores single bases only; use a causal one for other variants")
    return int(places[0])


def _with_mask(window: np.ndarray, place: int) -> np.ndarray:
    masked = window.copy()
    masked[place] = MASK
    return masked


def _distinct(windows: Iterable[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """Each window once, and for every window given which one it is."""
    numbers: dict[bytes, int] = {}
    rows = [numbers.setdefault(window.astype(np.uint8).tobytes(), len(numbers)) for window in windows]
    return [np.frombuffer(window, dtype=np.uint8) for window in numbers], rows


def _padded(windows: Sequence[np.ndarray], device: torch.device) -> tuple[Integer[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Windows in one tensor, padded at the end, and where they are."""
    lengths = torch.tensor([len(window) for window in windows], device=device)
    tokens = np.full((len(windows), max(map(len, windows))), PAD, dtype=np.uint8)
    for row, window in zip(tokens, windows, strict=True):
        row[: len(window)] = window
    return torch.from_numpy(tokens).to(device), torch.arange(tokens.shape[1], device=device) < lengths[:, None]


def _device(model: DNALanguageModel) -> torch.device:
    return model.head.weight.device


def _known(tokens: np.ndarray) -> Bool[np.ndarray, " T"]:
    return (tokens >= FIRST_BASE) & (tokens < FIRST_BASE + KNOWN)


def _letters(tokens: np.ndarray) -> str:
    return decode(torch.from_numpy(np.array(tokens)))
