"""Neural long-term memory (Titans) for time series, genomics and language."""

from typing import TYPE_CHECKING, Any

from titans_seq.attention import Attention, AttentionState
from titans_seq.blocks import Block, ModelState
from titans_seq.kernels import MemoryState
from titans_seq.memory import LayerState, NeuralMemory
from titans_seq.state_io import load_state, save_state
from titans_seq.variants import MAC, MAG, MAL, MACState, MAGState, MALState

if TYPE_CHECKING:
    from titans_seq.forecaster import TitansForecaster

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
    "TitansForecaster",
    "__version__",
    "load_state",
    "save_state",
]


def __getattr__(name: str) -> Any:
    if name == "TitansForecaster":  # it brings pandas, Lightning and GluonTS, which the layer does without
        from titans_seq.forecaster import TitansForecaster

        return TitansForecaster
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
