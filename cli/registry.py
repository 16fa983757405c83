"""The classes that each section of a recorded configuration may hold.

A name in a file is looked up here. It is never imported: a dotted path leads through a module's own imports to
anything (`....np.load`). Classes of the user are not listed; whoever opens a run with one names it: --trust.
"""

from collections.abc import Mapping

import lightning as L
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)

from titans_seq.datamodules import DNAClassData, ForecastDataModule, GenomeData, LongContextData, TextData
from titans_seq.forecast import ForecastModule, SimbaForecaster
from titans_seq.genomics import DNAEncoder, DNAModule, KmerClassifier
from titans_seq.language import LanguageModel, LanguageModule

Classes = Mapping[str, type]  # by the name that our yaml writes

_EVERY_TASK: dict[str, Classes] = {
    "trainer": {"lightning.Trainer": L.Trainer},
    "early_stopping": {
        "lightning.pytorch.callbacks.EarlyStopping": EarlyStopping,
        "lightning.pytorch.callbacks.Timer": Timer,
    },
    "averaging": {
        "lightning.pytorch.callbacks.EMAWeightAveraging": EMAWeightAveraging,
        "lightning.pytorch.callbacks.WeightAveraging": WeightAveraging,
        "lightning.pytorch.callbacks.StochasticWeightAveraging": StochasticWeightAveraging,
    },
}

# task -> section -> classes
REGISTRY: dict[str, Mapping[str, Classes]] = {
    "forecast": {
        "data": {"titans_seq.datamodules.ForecastDataModule": ForecastDataModule},
        "model": {"titans_seq.forecast.SimbaForecaster": SimbaForecaster},
        "training": {"titans_seq.forecast.ForecastModule": ForecastModule},
        **_EVERY_TASK,
    },
    "dna": {
        "data": {"titans_seq.datamodules.DNAClassData": DNAClassData},
        "model": {"titans_seq.genomics.DNAEncoder": DNAEncoder, "titans_seq.genomics.KmerClassifier": KmerClassifier},
        "training": {"titans_seq.genomics.DNAModule": DNAModule},
        **_EVERY_TASK,
    },
    "dna_lm": {
        "data": {"titans_seq.datamodules.GenomeData": GenomeData},
        "model": {"titans_seq.genomics.DNAEncoder": DNAEncoder},
        "training": {"titans_seq.genomics.DNAModule": DNAModule},
        **_EVERY_TASK,
    },
    "lm": {
        "data": {
            "titans_seq.datamodules.TextData": TextData,
            "titans_seq.datamodules.LongContextData": LongContextData,
        },
        "model": {"titans_seq.language.LanguageModel": LanguageModel},
        "training": {"titans_seq.language.LanguageModule": LanguageModule},
        **_EVERY_TASK,
    },
}

SECTIONS = ("data", "model", "training", *_EVERY_TASK)


def own_name(cls: type) -> str:
    """Where the class is defined."""
    return f"{cls.__module__}.{cls.__qualname__}"


def find(target: object, section: str, task: str | None = None) -> type | None:
    """The class of this name that the section of a task (None: of any) may hold; None if there is none."""
    tasks = REGISTRY if task is None else (task,)
    classes = [item for each in tasks for item in REGISTRY[each].get(section, {}).items()]
    return next((cls for name, cls in classes if target in (name, own_name(cls))), None)
