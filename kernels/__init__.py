"""The memory operation and its backends. Knows torch and triton only."""

from titans_seq.kernels.memory import BACKENDS, neural_memory, read_memory, resolve_backend
from titans_seq.kernels.state import MemoryState

__all__ = ["BACKENDS", "MemoryState", "neural_memory", "read_memory", "resolve_backend"]
