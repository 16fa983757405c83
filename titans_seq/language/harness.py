"""Language models for lm-evaluation-harness (the library lm-eval), and a function that runs its tasks.

T time, V vocabulary.
"""

from typing import Any

import numpy as np
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from torch import Tensor

from titans_seq.datamodules.language.tokenizers import Tokenizer
from titans_seq.language.evaluation import read_stream
from titans_seq.language.generation import generate
from titans_seq.language.model import LanguageModel

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
        """Of each (context, continuation): nats of the continuation, and whether each token of it is the most likely
        one.
        """
        return [self._score(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Nats of each text."""
        return [self._stream(request.args[0]) for request in requests]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What follows each context, up to the first of the strings where it is to end."""
        return [self._continue(*request.args) for request in requests]

    @torch.inference_mode()
    def _score(self, context: str, continuation: str) -> tuple[float, bool]:
        blanks = len(context) - len(context.rstrip())
        if blanks:  # a word is one token with the blank before it
            context, continuation = context[:-blanks], context[-blanks:] + continuation
        first = self._before(context)
        tokens = self._encode(context + continuation) if context else torch.cat([first, self._encode(continuation)])
        before = min(len(first), len(tokens) - 1)
        logits = self.model(tokens[None, :-1])[0][0, before - 1 :].float()
        targets = tokens[before:]
        nats = logits.log_softmax(dim=-1).gather(1, targets[:, None]).sum()
        return nats.item(), bool((logits.argmax(dim=-1) == targets).all())

    def _stream(self, text: str) -> float:
        tokens = torch.cat([self._before(""), self._encode(text)]).cpu().numpy()
        *_, (_, nats) = read_stream(self.model, tokens)
        return -nats

    def _continue(self, context: str, options: dict[str, Any]) -> str:
        until = options.get("until") or []
        until = [until] if isinstance(until, str) else until
        temperature = float(options.get("temperature") or 0.0) if options.get("do_sample", False) else 0.0
        prompt = self._before(context)
        decode, text = self.tokenizer.decoder(prompt.tolist()), ""
        limit = int(options.get("max_gen_toks", 256))
        for token, _ in generate(self.model, prompt, tokens=limit, temperature=temperature):
            text += decode(token)
            ends = [text.index(word) for word in until if word in text]
            if ends:
                return text[: min(ends)]
        return text

    def _before(self, context: str) -> Tensor:
        """The tokens of a context, at least one: START, or token 0 where the tokenizer makes nothing of that."""
        tokens = self._encode(context or START)
        return tokens if len(tokens) else tokens.new_zeros(1)

    def _encode(self, text: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.tokenizer.encode(text))).to(self.model.encoder.embedding.weight.device)


def evaluate(
    model: LanguageModel, tokenizer: Tokenizer, task: str, manager: TaskManager, *, limit: int | None = None
) -> dict[str, float]:
    """Run one task of the harness, without examples in the prompt; its metrics by name.

    Args:
        task: one of `manager.all_tasks`.
        limit: maximum number of documents.

    Raises:
        Whatever the library raises that loads its data.
    """
    found = simple_evaluate(
        model=HarnessModel(model, tokenizer), tasks=[task], num_fewshot=0, limit=limit, bootstrap_iters=0,
        task_manager=manager, log_samples=False,
    )  # fmt: skip
    assert found is not None
    several = len(found["results"]) > 1  # a group and its parts
    return {
        f"{name} {metric}".removesuffix(",none") if several else metric.removesuffix(",none"): float(value)
        for name, metrics in found["results"].items()
        for metric, value in metrics.items()
        if "," in metric and "stderr" not in metric and isinstance(value, int | float)
    }
