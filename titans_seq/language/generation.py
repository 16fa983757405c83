"""Drawing tokens from a language model, one at a time, with the state carried on."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from titans_seq.blocks import ModelState
from titans_seq.kernels.state import whole_number
from titans_seq.language.model import LanguageModel


def generate(
    model: LanguageModel,
    prompt: Integer[Tensor, " T"],
    *,
    tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    state: ModelState | None = None,
    piece: int = 4096,
) -> Iterator[tuple[int, ModelState]]:
    """Yield each new token with the state before it is read, from which `generate` continues with that token as prompt.

    The same tokens for the same seed, whatever `piece` is, as far as rounding allows. A prompt costs what one pass
    over it costs, each token after it one pass over one token, at the same memory however long the stream
    (attention without a window keeps everything).

    Args:
        model: in eval mode.
        prompt: at least one token, read `piece` tokens at a time.
        tokens: how many to draw.
        temperature: logits are divided by it; 0 takes the most likely token.
        top_k: draw among the k most likely.
        top_p: draw among the fewest that have this share of the probability.
        seed: of the draws.
        state: what was read before the prompt left; None: nothing was.

    Raises:
        ValueError: an option outside of its range, an empty prompt, a token that is not in the vocabulary, a model in
            training mode.
    """
    tokens, piece = whole_number("tokens", tokens, 0), whole_number("piece", piece, 1)
    if model.training:
        raise ValueError("model must be in eval mode: call model.eval()")
    if prompt.ndim != 1 or not len(prompt):
        raise ValueError(f"prompt must be at least one token [T]; got shape {tuple(prompt.shape)}")
    if not 0 <= int(prompt.min()) <= int(prompt.max()) < model.vocabulary:
        raise ValueError(f"prompt must hold tokens 0 to {model.vocabulary - 1}")
    if not 0 <= temperature < math.inf or (top_k is not None and top_k < 1) or not (top_p is None or 0 < top_p <= 1):
        raise ValueError(
            f"temperature must be finite and >= 0, top_k >= 1 and top_p in (0, 1]; got {temperature}, {top_k} and "
            f"{top_p}"
        )
    return _generate(model, prompt, tokens, temperature, top_k, top_p, seed, state, piece)


def _generate(
    model: LanguageModel,
    prompt: Tensor,
    tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    state: ModelState | None,
    piece: int,
) -> Iterator[tuple[int, ModelState]]:
    random = torch.Generator().manual_seed(seed)
    unread = prompt
    for _ in range(tokens):
        for part in unread.split(piece):
            logits, state = read(model, part, state)
        assert state is not None
        token = draw(logits, temperature, top_k, top_p, random)
        yield token, state
        unread = torch.tensor([token])


@torch.inference_mode()
def read(model: LanguageModel, tokens: Tensor, state: ModelState | None) -> tuple[Tensor, ModelState | None]:
    """Logits [V] after the last of the tokens [T], on the CPU, and the state after it."""
    device = model.encoder.embedding.weight.device
    logits, state = model(tokens.to(device)[None], state=state)
    return logits[0, -1].float().cpu(), state


def draw(
    logits: Float[Tensor, " V"], temperature: float, top_k: int | None, top_p: float | None, random: torch.Generator
) -> int:
    """A token by its logits, as `generate` draws it."""
    if temperature == 0:
        return int(logits.argmax())
    ordered, tokens = ((logits - logits.max()).double() / temperature).sort(descending=True, stable=True)
    if top_k is not None:
        ordered, tokens = ordered[:top_k], tokens[:top_k]
    probabilities = ordered.softmax(dim=0)
    if top_p is not None:  # the first is always kept
        probabilities = torch.where(probabilities.cumsum(dim=0) - probabilities < top_p, probabilities, 0.0)
    return int(tokens[torch.multinomial(probabilities, 1, generator=random)])
