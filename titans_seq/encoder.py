"""Tokens to features: an embedding and a stack of blocks, shared by the models of bases and of text.

Dimensions: B batch, T time, D model width, H heads of the memory.
"""

from typing import Any

from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from titans_seq.blocks import MIXER_DEFAULTS, Block, ModelState
from titans_seq.draws import Dropout
from titans_seq.kernels.state import whole_number

Surprises = tuple[Float[Tensor, "B T H"], ...]
Features = (
    tuple[Float[Tensor, "B T D"], ModelState | None] | tuple[Float[Tensor, "B T D"], ModelState | None, Surprises]
)


class Encoder(nn.Module):
    """Tokens to features. Padding, by `mask`, writes nothing and changes no other output.

    Args:
        vocabulary: number of tokens.
        dim: D.
        layers: number of blocks.
        mixer: one of `mixers.MIXERS`, see `blocks.Block`.
        bidirectional: every position sees both sides; off for models of the next token and for streams.
        dropout: of the embedding and of the blocks.
        options: of the mixer, e.g. heads, depth, chunk_size and num_persistent of `NeuralMemory`, window of
            `Attention`, segment of `MAC`.
    """

    mixer_defaults = MIXER_DEFAULTS  # options of the mixers are the encoder's too

    def __init__(
        self,
        vocabulary: int,
        dim: int = 128,
        *,
        layers: int = 2,
        mixer: str = "memory",
        bidirectional: bool = False,
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        vocabulary, dim = whole_number("vocabulary", vocabulary, 1), whole_number("dim", dim, 1)
        layers = whole_number("layers", layers, 1)
        self.dim, self.bidirectional = dim, bidirectional
        self.embedding = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(dim, mixer=mixer, bidirectional=bidirectional, dropout=dropout, **options) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(dim, eps=1e-6)

    def forward(
        self,
        tokens: Integer[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: ModelState | None = None,
        return_surprise: bool = False,
    ) -> Features:
        """Features; the state, to give with the next piece of a stream, None if bidirectional; with `return_surprise`
        the surprise of each block's memory (see `NeuralMemory`; bidirectional: the mean of both directions).

        Raises:
            ValueError: a state for a bidirectional encoder, or of another one; surprise of a mixer without memory.
        """
        if state is not None and not isinstance(state, ModelState):
            raise ValueError(f"state must be a ModelState; got {type(state).__name__}")
        if state is not None and len(state.blocks) != len(self.blocks):
            raise ValueError(f"state.blocks must be {len(self.blocks)} states, one per block; got {len(state.blocks)}")
        x, new, surprises = self.dropout(self.embedding(tokens.long())), [], []
        for i, block in enumerate(self.blocks):
            before = None if state is None else state.blocks[i]
            x, after, *surprise = block(x, mask=mask, state=before, return_surprise=return_surprise)
            new.append(after)
            surprises += surprise
        after = None if self.bidirectional else ModelState(tuple(new))
        return (self.norm(x), after, tuple(surprises)) if return_surprise else (self.norm(x), after)
