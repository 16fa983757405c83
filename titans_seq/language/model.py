"""Language models: LMM, MAC, MAG, MAL and the Transformer, which differ in the mixer of their blocks only.

Dimensions: B batch, T time, D model width, V tokens of the vocabulary.
"""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from titans_seq.blocks import MIXER_DEFAULTS, Block, ModelState
from titans_seq.encoder import Encoder, Surprises
from titans_seq.mixer_base import Mixer

VARIANTS = {"lmm": "memory", "mac": "mac", "mag": "mag", "mal": "mal", "transformer": "attention"}
START = 0.02  # deviation of linear maps at the start, as of the embedding


class LanguageModel(nn.Module):
    """Logits of the next token at every position.

    Starts as GPT-2 does: embedding and linear maps from N(0, .02), what a block adds to its input divided by sqrt(2
    layers); the map before the output weights from N(0, 1/D), which keeps sizes. An embedding of .02 would drown in
    blocks that start with outputs of .1 to .6: all tokens alike after the first, and the memory's gradients with them
    out of bounds.

    Logits are products of embeddings with a linear map of the features. Without the map the token that was read, whose
    embedding is part of its own features, votes for itself, and tokens that cannot be told apart yet, digits of a
    number to be remembered, want equal logits, so become equal as inputs too, and then never are remembered
    (docs/LOG.md).

    Args:
        vocabulary: V.
        dim: D.
        layers: number of blocks.
        mixer: one of `mixers.MIXERS`, e.g. "memory" (LMM), "mac", "mag", "mal" or "attention" (a Transformer).
        dropout: of the blocks.
        options: of the mixer, e.g. heads, depth, chunk_size, num_persistent, segment, window.

    Attributes:
        options: all of these, by name; `LanguageModel(**options)` is a model of the same shape.
    """

    mixer_defaults = MIXER_DEFAULTS

    def __init__(
        self,
        vocabulary: int,
        dim: int = 128,
        *,
        layers: int = 4,
        mixer: str = "mac",
        dropout: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        shape = {"layers": layers, "mixer": mixer, "dropout": dropout, **options}
        self.encoder = Encoder(vocabulary, dim, **shape)
        self.output = nn.Linear(dim, dim, bias=False)
        self.options: dict[str, Any] = {"vocabulary": vocabulary, "dim": dim, **shape}
        self.reset_parameters()

    @property
    def vocabulary(self) -> int:
        return self.encoder.embedding.num_embeddings

    def reset_parameters(self) -> None:
        """Draw the linear maps anew; the embedding, gates, the memory's initial weights and persistent tokens have
        other starts.
        """
        nn.init.normal_(self.output.weight, std=self.output.in_features**-0.5)
        depth = (2 * len(self.encoder.blocks)) ** -0.5
        for block in self.encoder.blocks:
            assert isinstance(block, Block)
            for name, module in block.named_modules():
                if isinstance(module, nn.Linear) and not name.endswith("gates"):
                    nn.init.normal_(module.weight, std=START)
            nn.init.normal_(block.channels.out.weight, std=START * depth)
            for module in block.modules():
                out = getattr(module, "out", None)
                if isinstance(module, Mixer) and isinstance(out, nn.Linear):
                    nn.init.normal_(out.weight, std=START * depth)

    def forward(
        self,
        tokens: Integer[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: ModelState | None = None,
        return_surprise: bool = False,
    ) -> tuple[Float[Tensor, "B T V"], ModelState | None] | tuple[Float[Tensor, "B T V"], ModelState | None, Surprises]:
        """Logits, the state to go on from, and, with `return_surprise`, the surprise of each block's memory.

        Raises:
            ValueError: as `Encoder`.
        """
        features, *rest = self.encoder(tokens, mask=mask, state=state, return_surprise=return_surprise)
        return F.linear(self.output(features), self.encoder.embedding.weight), *rest
