"""The builds of the native kernels that run on this processor."""

import os

import pytest
import torch

from titans_seq.kernels import native_library

BUILDS = native_library.BUILDS.get(torch.backends.cpu.get_cpu_capability(), ("base",))
# where CI is set a missing build is a failure
needs_build = pytest.mark.skipif(
    native_library.library() is None and "CI" not in os.environ, reason="the native kernels were not built"
)
