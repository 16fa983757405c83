"""Features of sequences, for other people's models: of a stated block, per base or pooled.

Dimensions: B batch, T time, D model width.
"""

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from titans_seq.datamodules.genomics.alphabet import START
from titans_seq.genomics.model import DNAClassifier, DNALanguageModel, pooled

POOLINGS = ("mean", "max", "last")


def features(
    network: DNALanguageModel | DNAClassifier,
    tokens: Integer[Tensor, "B T"],
    *,
    mask: Bool[Tensor, "B T"] | None = None,
    layer: int | None = None,
) -> Float[Tensor, "B T D"]:
    """What a network makes of each base, with the base itself seen; anything at padded positions.

    A causal language model is given START before the first base, as in its training.

    Args:
        layer: after this block, counted from 1; None: after the last one, normalised, as the heads see it.

    Raises:
        ValueError: no such block.
    """
    encoder = network.encoder
    if layer is not None and not 1 <= layer <= len(encoder.blocks):
        raise ValueError(f"layer must be 1 to {len(encoder.blocks)}, the number of blocks; got {layer}")
    first = isinstance(network, DNALanguageModel) and not encoder.bidirectional
    if first:
        tokens = torch.cat([torch.full_like(tokens[:, :1], START), tokens], dim=1)
        mask = None if mask is None else torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)
    found: list[Tensor] = []
    hook = None
    if layer is not None:
        hook = encoder.blocks[layer - 1].register_forward_hook(lambda block, given, made: found.append(made[0]))
    try:
        last, *_ = encoder(tokens, mask=mask)
    finally:
        if hook is not None:
            hook.remove()
    made = found[0] if found else last
    return made[:, 1:] if first else made


def pool(made: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None, pooling: str = "mean") -> Float[Tensor, "B D"]:
    """One vector per sequence, from its real positions only: their mean, their maximum, or the last of them.

    Raises:
        ValueError: another pooling, or a sequence without a real position for "max" and "last".
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}; got {pooling!r}")
    if pooling == "mean":
        return pooled(made, mask)
    real = torch.ones(made.shape[:2], dtype=torch.bool, device=made.device) if mask is None else mask
    if not real.any(dim=1).all():
        raise ValueError(f"pooling {pooling!r} needs a real position in every sequence")
    if pooling == "max":
        return made.masked_fill(~real[..., None], -torch.inf).amax(dim=1)
    position = torch.arange(made.shape[1], device=made.device)
    last = torch.where(real, position, -1).amax(dim=1)
    return made[torch.arange(len(made), device=made.device), last]
