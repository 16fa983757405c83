"""The memory operation and its backends. Knows torch and triton only."""

from titans_seq.kernels.memory import neural_memory, read_memory
from titans_seq.kernels.state import MemoryState
from titans_seq.kernels.support import BACKENDS, machine_of, resolve_backend

__all__ = ["BACKENDS", "MemoryState", "machine_of", "neural_memory", "read_memory", "resolve_backend"]
