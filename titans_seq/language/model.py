"""Language models: LMM, MAC, MAG, MAL and the Transformer, which differ in the mixer of their blocks only.

Dimensions: B batch, T time, D model width, V tokens of the vocabulary.
"""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from titans_seq.blocks import MIXERS, ModelState
from titans_seq.encoder import Encoder, Surprises

VARIANTS = {"lmm": "memory", "mac": "mac", "mag": "mag", "mal": "mal", "transformer": "attention"}


class LanguageModel(nn.Module):
    """Logits of the next token at every position; the output weights are those of the embedding.

    Args:
        vocabulary: V. dim: D. layers: number of blocks.
        mixer: "memory" (LMM), "mac", "mag", "mal" or "attention" (a Transformer), see `blocks.Block`.
        dropout, num_persistent: of the blocks. options: of the mixer, e.g. heads, depth, chunk_size, segment, window.

    Attributes: options: all of these, by name; `LanguageModel(**options)` is a model of the same shape.
    """

    mixers = MIXERS

    def __init__(
        self,
        vocabulary: int,
        dim: int = 128,
        *,
        layers: int = 4,
        mixer: str = "mac",
        dropout: float = 0.0,
        num_persistent: int = 4,
        **options: Any,
    ) -> None:
        super().__init__()
        shape = {"layers": layers, "mixer": mixer, "dropout": dropout, "num_persistent": num_persistent, **options}
        self.encoder = Encoder(vocabulary, dim, **shape)
        self.options: dict[str, Any] = {"vocabulary": vocabulary, "dim": dim, **shape}

    @property
    def vocabulary(self) -> int:
        return self.encoder.embedding.num_embeddings

    def forward(
        self,
        tokens: Integer[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        states: ModelState | None = None,
        return_surprise: bool = False,
    ) -> tuple[Float[Tensor, "B T V"], ModelState | None] | tuple[Float[Tensor, "B T V"], ModelState | None, Surprises]:
        """Logits, the states to go on from, and, with `return_surprise`, the surprise of each block's memory.

        Raises:
            ValueError: as `Encoder`.
        """
        features, *rest = self.encoder(tokens, mask=mask, states=states, return_surprise=return_surprise)
        return F.linear(features, self.encoder.embedding.weight), *rest
