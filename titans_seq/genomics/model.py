"""DNA models: a stack of memory blocks over single bases, with heads for bases and for whole sequences.

Dimensions: B batch, T time, D model width, N classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from titans_seq.blocks import MemoryBlock
from titans_seq.genomics.alphabet import FIRST_BASE, KNOWN, SIZE, START
from titans_seq.memory import LayerState

States = tuple[LayerState, ...]


class DNAEncoder(nn.Module):
    """Tokens (`alphabet`) to features. Padding, by `mask`, writes nothing and changes no other output.

    Args:
        dim: D. layers: number of blocks.
        bidirectional: every position sees both sides; off for next-base models and for streams.
        options: of `NeuralMemory`, e.g. heads, depth, chunk_size. Persistent tokens default to 4.
    """

    def __init__(
        self,
        dim: int = 128,
        *,
        layers: int = 2,
        bidirectional: bool = False,
        dropout: float = 0.0,
        num_persistent: int = 4,
        **options: Any,
    ) -> None:
        super().__init__()
        self.dim, self.bidirectional = dim, bidirectional
        self.embedding = nn.Embedding(SIZE, dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            MemoryBlock(dim, bidirectional=bidirectional, dropout=dropout, num_persistent=num_persistent, **options)
            for _ in range(layers)
        )
        self.norm = nn.RMSNorm(dim, eps=1e-6)

    def forward(
        self,
        tokens: Integer[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        states: States | None = None,
    ) -> tuple[Float[Tensor, "B T D"], States]:
        """Features, and one state per block: give them with the next piece of a stream.

        Raises:
            ValueError: states for a bidirectional encoder, or of another one.
        """
        if states is not None and len(states) != len(self.blocks):
            raise ValueError(f"states must be {len(self.blocks)}, one per block; got {len(states)}")
        x, new = self.dropout(self.embedding(tokens.long())), []
        for i, block in enumerate(self.blocks):
            x, state = block(x, mask=mask, state=None if states is None else states[i])
            new.append(state)
        return self.norm(x), tuple(new)


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
        states: States | None = None,
    ) -> tuple[Float[Tensor, "B T 4"], States]:
        """Logits and states.

        previous, states: of a causal model, to go on: the last real token of the piece before, and the states it left.
        """
        if not self.encoder.bidirectional:
            tokens = _shifted(tokens, mask, previous)
        features, states = self.encoder(tokens, mask=mask, states=states)
        return self.head(features), states


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
    first = torch.full_like(tokens[:, 0], START) if previous is None else previous.to(tokens.dtype)
    shifted = torch.cat([first[:, None], tokens[:, :-1]], dim=1)
    if mask is None:
        return shifted
    position = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    real_before = torch.where(mask, position, -1).cummax(dim=1).values.roll(1, dims=1)
    real_before[:, 0] = -1  # no real token yet
    taken = tokens.gather(1, real_before.clamp(min=0))
    return torch.where(real_before < 0, first[:, None], taken)
