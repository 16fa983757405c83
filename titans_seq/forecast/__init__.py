"""The forecaster: network and LightningModule."""

from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import EinFFT, SimbaForecaster
from titans_seq.mixers import MIXERS

__all__ = ["MIXERS", "EinFFT", "ForecastModule", "SimbaForecaster"]
