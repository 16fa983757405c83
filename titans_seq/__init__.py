"""Neural long-term memory (Titans) for time series, genomics and language."""

TYPE_CHECKING = False  # type checkers take any variable of this name for true; `typing` would be one import more

if TYPE_CHECKING:
    from titans_seq.attention import Attention, AttentionState
    from titans_seq.blocks import Block, ModelState
    from titans_seq.forecast.estimator import TitansEstimator
    from titans_seq.forecast.forecaster import TitansForecaster
    from titans_seq.kernels import MemoryState
    from titans_seq.memory import LayerState, NeuralMemory
    from titans_seq.state_io import load_state, save_state
    from titans_seq.variants import MAC, MAG, MAL, MACState, MAGState, MALState

__version__ = "0.2.0"

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

# Imported when they are first used: PyTorch takes seconds, in which the command could neither answer `--help` nor end
# cleanly on Ctrl-C; the estimators bring pandas, Lightning and GluonTS, which the layer does without.
_HOMES = {
    "attention": ("Attention", "AttentionState"),
    "blocks": ("Block", "ModelState"),
    "forecast.estimator": ("TitansEstimator",),
    "forecast.forecaster": ("TitansForecaster",),
    "kernels": ("MemoryState",),
    "memory": ("LayerState", "NeuralMemory"),
    "state_io": ("load_state", "save_state"),
    "variants": ("MAC", "MAG", "MAL", "MACState", "MAGState", "MALState"),
}

if not TYPE_CHECKING:
    from titans_seq.datamodules.common.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(globals(), _HOMES)
