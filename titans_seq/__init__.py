"""Neural long-term memory (Titans) for time series, genomics and language."""

import importlib
from typing import TYPE_CHECKING, Any

from titans_seq.attention import Attention, AttentionState
from titans_seq.blocks import Block, ModelState
from titans_seq.kernels import MemoryState
from titans_seq.memory import LayerState, NeuralMemory
from titans_seq.state_io import load_state, save_state
from titans_seq.variants import MAC, MAG, MAL, MACState, MAGState, MALState

if TYPE_CHECKING:
    from titans_seq.forecast.estimator import TitansEstimator
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
    "TitansEstimator",
    "TitansForecaster",
    "__version__",
    "load_state",
    "save_state",
]


# they bring pandas, Lightning and GluonTS, which the layer does without
_LATER = {"TitansEstimator": "titans_seq.forecast.estimator", "TitansForecaster": "titans_seq.forecaster"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
