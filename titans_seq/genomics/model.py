"""DNA models: a stack of blocks over single bases, with heads for bases and for whole sequences.

Dimensions: B batch, T time, D model width, N classes, H heads of the memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from titans_seq.blocks import ModelState
from titans_seq.datamodules.genomics.alphabet import COMPLEMENT, FIRST_BASE, KNOWN, SIZE, START
from titans_seq.encoder import Encoder, Surprises
from titans_seq.places import turned


class DNAEncoder(Encoder):
    """Tokens of the `alphabet` to features; see `Encoder`."""

    def __init__(
        self,
        dim: int = 128,
        *,
        layers: int = 2,
        mixer: str = "memory",
        bidirectional: bool = False,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(SIZE, dim, layers=layers, mixer=mixer, bidirectional=bidirectional, dropout=dropout, **options)


class DNALanguageModel(nn.Module):
    """Logits of A, C, G, T at every position.

    A causal encoder predicts the next base: position t sees START and the bases before t. A bidirectional one predicts
    the base at t itself, which the caller has replaced by MASK (`masked`).
    """

    def __init__(self, encoder: DNAEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.dim, KNOWN)

    def forward(
        self,
        tokens: Integer[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        previous: Integer[Tensor, " B"] | None = None,
        state: ModelState | None = None,
        return_surprise: bool = False,
    ) -> tuple[Float[Tensor, "B T 4"], ModelState | None] | tuple[Float[Tensor, "B T 4"], ModelState | None, Surprises]:
        """Logits; state and, with `return_surprise`, surprise as of the encoder.

        Args:
            previous: of a causal model, to go on: the last real token of the piece before.
            state: what that piece left.
        """
        if not self.encoder.bidirectional:
            tokens = _shifted(tokens, mask, previous)
        features, *rest = self.encoder(tokens, mask=mask, state=state, return_surprise=return_surprise)
        return self.head(features), *rest


class DNAClassifier(nn.Module):
    """Logits of classes [B, N], from the mean of the features over real positions."""

    def __init__(self, encoder: DNAEncoder, class_names: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder, self.class_names = encoder, class_names
        self.head = nn.Linear(encoder.dim, len(class_names))

    def forward(
        self, tokens: Integer[Tensor, "B T"], *, mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B N"]:
        return self.head(pooled(self.encoder(tokens, mask=mask)[0], mask))


def pooled(features: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B D"]:
    """Mean over real positions; zeros where there are none."""
    if mask is None:
        return features.mean(dim=1)
    total = features.masked_fill(~mask[..., None], 0.0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def reverse_complement(tokens: Integer[Tensor, "B T"], real: Bool[Tensor, "B T"]) -> Integer[Tensor, "B T"]:
    """The other strand, read in its own direction. Only real positions are turned round; padding stays where it is."""
    return COMPLEMENT.to(tokens.device)[tokens.gather(1, turned(real)).long()].to(tokens.dtype)


def base_loss(
    logits: Float[Tensor, "B T 4"], tokens: Integer[Tensor, "B T"], counted: Bool[Tensor, "B T"] | None = None
) -> tuple[Float[Tensor, ""], Integer[Tensor, ""]]:
    """Sum of the cross-entropies in nats, and how many bases it is over: those `counted`, never N or special tokens.

    One base costs log 4 nats, 2 bits, by chance.
    """
    target = tokens.long() - FIRST_BASE
    valid = (target >= 0) & (target < KNOWN)
    valid = valid if counted is None else valid & counted
    return F.cross_entropy(logits[valid].float(), target[valid], reduction="sum"), valid.sum()


def _shifted(tokens: Tensor, mask: Tensor | None, previous: Tensor | None) -> Tensor:
    """Each real position holds the real token before it; the first one `previous`, START by default."""
    first = tokens.new_full((len(tokens),), START) if previous is None else previous.to(tokens.dtype)
    if mask is None or not tokens.shape[1]:
        return torch.cat([first[:, None], tokens], dim=1)[:, : tokens.shape[1]]
    position = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    real_before = torch.where(mask, position, -1).cummax(dim=1).values.roll(1, dims=1)
    real_before[:, 0] = -1  # no real token yet
    taken = tokens.gather(1, real_before.clamp(min=0))
    return torch.where(real_before < 0, first[:, None], taken)
