"""Language models for lm-evaluation-harness (the library lm-eval), and a function that runs its tasks.

T time, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from torch import Tensor

from titans_seq.language.evaluation import read_stream
from titans_seq.language.generation import generate
from titans_seq.language.model import LanguageModel
from titans_seq.language.tokenizers import Tokenizer

# the paper's Table 1, as the harness calls them
PAPER = (
    "wikitext", "lambada_openai", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "social_iqa", "boolq",
)  # fmt: skip
START = "\n"  # what stands before a text that has nothing before it: the models have no token of their own for that


class HarnessModel(LM):
    """A language model as the harness asks for it. A text of any length is read whole, in one stream."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Of each (context, continuation): nats of the continuation, and whether each token of it is the most likely one."""
        return [self._score(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Nats of each text."""
        return [self._stream(request.args[0]) for request in requests]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What follows each context, up to the first of the strings where it is to end."""
        return [self._continue(*request.args) for request in requests]

    @torch.inference_mode()
    def _score(self, context: str, continuation: str) -> tuple[float, bool]:
        context = context or START
        tokens = self._encode(context + continuation)
        before = min(len(self._encode(context)), len(tokens) - 1)
        logits = self.model(tokens[None, :-1])[0][0, before - 1 :].float()
        targets = tokens[before:]
        nats = logits.log_softmax(dim=-1).gather(1, targets[:, None]).sum()
        return nats.item(), bool((logits.argmax(dim=-1) == targets).all())

    def _stream(self, text: str) -> float:
        *_, (_, nats) = read_stream(self.model, self.tokenizer.encode(START + text))
        return -nats

    def _continue(self, context: str, options: dict[str, Any]) -> str:
        until = options.get("until") or []
        until = [until] if isinstance(until, str) else until
        temperature = float(options.get("temperature") or 0.0) if options.get("do_sample", False) else 0.0
        decode, text = self.tokenizer.decoder(), ""
        limit = int(options.get("max_gen_toks", 256))
        for token, _ in generate(self.model, self._encode(context or START), tokens=limit, temperature=temperature):
            text += decode(token)
            ends = [text.index(word) for word in until if word in text]
            if ends:
                return text[: min(ends)]
        return text

    def _encode(self, text: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.tokenizer.encode(text))).to(self.model.encoder.embedding.weight.device)


def evaluate(
    model: LanguageModel, tokenizer: Tokenizer, task: str, *, limit: int | None = None, folder: str | None = None
) -> dict[str, float]:
    """Run one task of the harness, without examples in the prompt; its metrics by name.

    Args:
        limit: at most so many documents. folder: where task files (yaml) of one's own lie.

    Raises:
        KeyError: no such task. Whatever the library raises that loads its data.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    tasks: Sequence[str] = [task]
    found = simple_evaluate(
        model=HarnessModel(model, tokenizer), tasks=list(tasks), num_fewshot=0, limit=limit, bootstrap_iters=0,
        task_manager=TaskManager(include_path=folder), log_samples=False,
    )  # fmt: skip
    assert found is not None
    numbers = {name: value for name, value in found["results"][task].items() if isinstance(value, int | float)}
    return {
        name.removesuffix(",none"): float(value)
        for name, value in numbers.items()
        if "stderr" not in name and name.endswith(",none")
    }
