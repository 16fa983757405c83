"""The forecaster: network and LightningModule."""

from titans_seq.forecast.module import ForecastModule
from titans_seq.forecast.network import EinFFT, SimbaForecaster

__all__ = ["EinFFT", "ForecastModule", "SimbaForecaster"]
