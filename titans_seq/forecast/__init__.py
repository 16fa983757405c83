"""The forecaster: network, mixers and its LightningModule."""

from titans_seq.forecast.mixers import MIXERS
from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import EinFFT, SimbaForecaster

__all__ = ["MIXERS", "EinFFT", "ForecastModule", "SimbaForecaster"]
