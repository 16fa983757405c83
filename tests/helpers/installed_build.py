"""Checks an install with compiled C: every build is there, and the one for this processor gives what `reference` gives.

A script too, which wheels are tested by where they are made: python -P tests/helpers/installed_build.py
"""

import platform

import torch

from titans_seq.kernels import MemoryState, native_library, neural_memory

BUILDS = ("avx512", "avx2", "base") if platform.machine() in ("x86_64", "AMD64") else ("base",)


def difference() -> float:
    """The largest between `native` and `reference`, values and gradients, in float64."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 9, 3, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    gates = [torch.rand(2, 9, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    weights = tuple(torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64) / 8 for _ in range(2))
    results = []
    for backend in ("native", "reference"):
        y, _ = neural_memory(
            q, k, v, *gates, MemoryState.from_weights(weights), chunk_size=4, max_surprise=1.0, backend=backend
        )
        results.append((y, *torch.autograd.grad(y.square().sum(), gates)))
    return max((a - b).abs().max().item() for a, b in zip(*results, strict=True))


if __name__ == "__main__":
    library = native_library.library()
    assert library is not None, "no native build was installed"
    missing = [name for name in BUILDS if not native_library.path_of(name).is_file()]
    assert not missing, f"builds that are missing: {missing}"
    assert difference() < 1e-12, difference()
    print(library._name)
