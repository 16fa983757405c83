"""Readers and LightningDataModules. They know neither model nor kernel."""

from titans_seq.datamodules.catalog import DatasetCheck, DatasetInfo, check_dataset, list_datasets
from titans_seq.datamodules.csv_files import read_user_csv
from titans_seq.datamodules.dna import DNAClassData, GenomeData
from titans_seq.datamodules.download import download_dataset
from titans_seq.datamodules.embedded import embedded_series
from titans_seq.datamodules.forecast import ForecastDataModule
from titans_seq.datamodules.labelled import Labelled
from titans_seq.datamodules.long_context import LongContextData
from titans_seq.datamodules.registry import data_folder
from titans_seq.datamodules.series import DataError, DataWarning, Series, future_dates
from titans_seq.datamodules.text import TextData
from titans_seq.datamodules.windows import WindowDataset

__all__ = [
    "DNAClassData",
    "DataError",
    "DataWarning",
    "DatasetCheck",
    "DatasetInfo",
    "ForecastDataModule",
    "GenomeData",
    "Labelled",
    "LongContextData",
    "Series",
    "TextData",
    "WindowDataset",
    "check_dataset",
    "data_folder",
    "download_dataset",
    "embedded_series",
    "future_dates",
    "list_datasets",
    "read_user_csv",
]
