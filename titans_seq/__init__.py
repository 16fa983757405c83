"""Neural long-term memory (Titans) for time series, genomics and language."""

from titans_seq.attention import Attention, AttentionState
from titans_seq.blocks import Block, ModelState
from titans_seq.kernels import MemoryState
from titans_seq.memory import LayerState, NeuralMemory
from titans_seq.state_io import load_state, save_state
from titans_seq.variants import MAC, MAG, MAL, MACState, MAGState, MALState

__version__ = "0.1.0"

__all__ = [
    "MAC",
    "MAG",
    "MAL",
    "Attention",
    "AttentionState",
    "Block",
    "LayerState",
    "MACState",
    "MAGState",
    "MALState",
    "MemoryState",
    "ModelState",
    "NeuralMemory",
    "__version__",
    "load_state",
    "save_state",
]
