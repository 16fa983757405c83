"""The passes over tokens around the memory, compiled and in plain PyTorch: cases, and their values and gradients."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from accuracy import assert_equal_to
from torch import Tensor

from titans_seq.convolution import tokens_of
from titans_seq.norms import GatedNorm, rms_norm


class Case(NamedTuple):
    """inputs, by name; run: results from inputs and a backend, "native" or "reference" (plain operations)."""

    inputs: dict[str, Tensor]
    run: Callable[[dict[str, Tensor], str], tuple[Tensor, ...]]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def convolution(B=2, T=9, R=4, H=2, K=5, parts=3, unit=2, loudest=0.5) -> Case:
    """R = 0: no taps."""
    width = parts * H * K
    inputs = {"z": random(B, max(R, 1) - 1 + T, width, seed=0)}
    if R:
        inputs["taps"] = random(R, width, seed=1)

    def run(given: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        options = {"parts": parts, "unit": unit, "loudest": loudest, "backend": backend}
        return tokens_of(given["z"], given.get("taps"), H, **options)

    return Case(inputs, run)


def gated_norm(B=2, T=9, H=2, K=5) -> Case:
    norm = GatedNorm(K, eps=1e-6).double()

    def run(given: dict[str, Tensor], backend: str) -> tuple[Tensor, ...]:
        weight = {"weight": given["weight"]}
        return (torch.func.functional_call(norm, weight, (given["y"], given["gate"], backend)),)

    return Case(
        {"y": random(B, T, H, K, seed=0), "weight": random(K, seed=1), "gate": random(B, T, H * K, seed=2)}, run
    )


def plain_norm(*shape: int) -> Case:
    return Case({"x": random(*shape, seed=0)}, lambda given, backend: (rms_norm(given["x"], 1e-6, backend),))


def extreme(case: Case, name: str) -> Case:
    """Tokens of zeros, tiny ones, large ones and NaN-free overflow of exp, each in a row of its own."""
    x = case.inputs[name]
    for t, scale in enumerate((0.0, 1e-9, 1e-7, 1e3, 1e8)):
        x[0, t * 5 : t * 5 + 5] *= scale
    return case


CASES: dict[str, Callable[[], Case]] = {
    "convolution": convolution,
    "two taps": lambda: convolution(R=2),
    "one tap": lambda: convolution(R=1),
    "no taps": lambda: convolution(R=0),
    "more taps than tokens": lambda: convolution(R=9, T=3),
    "more taps than rows of a block": lambda: convolution(R=140, T=150, B=1, H=1, K=2),
    "one token": lambda: convolution(T=1),
    "no token": lambda: convolution(T=0),
    "no sample": lambda: convolution(B=0),
    "rows of a block": lambda: convolution(T=125, H=1, K=2),
    "one row more": lambda: convolution(T=126, H=1, K=2),
    "several blocks": lambda: convolution(T=300, H=1, K=3),
    "many short samples": lambda: convolution(B=70, T=5, H=1, K=3),
    "several tiles, the last smaller": lambda: convolution(T=6, H=3, K=70),
    "heads wider than a tile": lambda: convolution(T=6, H=2, K=301),
    "queries alone": lambda: convolution(parts=1, unit=1),
    "no heads of length 1": lambda: convolution(parts=2, unit=0),
    "extreme tokens": lambda: extreme(convolution(T=40, R=3), "z"),
    "gated norm": gated_norm,
    "gated norm, one token": lambda: gated_norm(T=1),
    "gated norm, no token": lambda: gated_norm(T=0),
    "gated norm, several pieces": lambda: gated_norm(B=9, T=50, H=4, K=11),
    "gated norm, heads wider than a tile": lambda: gated_norm(K=601),
    "gated norm, extreme tokens": lambda: extreme(gated_norm(T=40), "y"),
    "gated norm, extreme gates": lambda: extreme(gated_norm(T=40), "gate"),
    "norm": lambda: plain_norm(3, 7, 40),
    "norm, several pieces": lambda: plain_norm(2, 300, 90),
}
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33)  # of a head: every remainder of vectors of 4, 8 and 16


def everything(case: Case, backend: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Results and, of their sum with weights, the gradient of each input."""
    inputs = {name: x.to(dtype, copy=True).requires_grad_() for name, x in case.inputs.items()}
    results = case.run(inputs, backend)
    total = sum((y * random(*y.shape, seed=9).to(dtype)).sum() for y in results)
    gradients = torch.autograd.grad(total, list(inputs.values()))
    named = {f"gradient of {name}": d for name, d in zip(inputs, gradients, strict=True)}
    return {f"result {i}": y.detach() for i, y in enumerate(results)} | named


def assert_right(case: Case) -> None:
    """In float64, as plain operations compute it."""
    got, exact = everything(case, "native"), everything(case, "reference")
    for name, value in exact.items():
        assert_equal_to(got[name], value, name=name)
