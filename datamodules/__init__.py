"""Readers and LightningDataModules. They know neither model nor kernel."""

TYPE_CHECKING = False

if TYPE_CHECKING:
    from titans_seq.datamodules.common.errors import DataError, DataWarning
    from titans_seq.datamodules.common.files import data_folder
    from titans_seq.datamodules.forecast.catalog import DatasetCheck, DatasetInfo, check_dataset, list_datasets
    from titans_seq.datamodules.forecast.download import download_dataset
    from titans_seq.datamodules.forecast.embedded import embedded_series
    from titans_seq.datamodules.forecast.files import FileForm, Names, read_file, read_table
    from titans_seq.datamodules.forecast.panel import Columns, Panel
    from titans_seq.datamodules.forecast.reading import read_frame
    from titans_seq.datamodules.forecast.table_data import ForecastDataModule
    from titans_seq.datamodules.genomics.data import DNAClassData, GenomeData
    from titans_seq.datamodules.genomics.labelled import Labelled
    from titans_seq.datamodules.language.long_context import LongContextData
    from titans_seq.datamodules.language.text import TextData

__all__ = [
    "Columns",
    "DNAClassData",
    "DataError",
    "DataWarning",
    "DatasetCheck",
    "DatasetInfo",
    "FileForm",
    "ForecastDataModule",
    "GenomeData",
    "Labelled",
    "LongContextData",
    "Names",
    "Panel",
    "TextData",
    "check_dataset",
    "data_folder",
    "download_dataset",
    "embedded_series",
    "list_datasets",
    "read_file",
    "read_frame",
    "read_table",
]

# Lightning, pandas and scikit-learn take seconds: no field imports the others'
_HOMES = {
    "common.errors": ("DataError", "DataWarning"),
    "common.files": ("data_folder",),
    "forecast.catalog": ("DatasetCheck", "DatasetInfo", "check_dataset", "list_datasets"),
    "forecast.table_data": ("ForecastDataModule",),
    "forecast.download": ("download_dataset",),
    "forecast.embedded": ("embedded_series",),
    "forecast.files": ("FileForm", "Names", "read_file", "read_table"),
    "forecast.panel": ("Columns", "Panel"),
    "forecast.reading": ("read_frame",),
    "genomics.data": ("DNAClassData", "GenomeData"),
    "genomics.labelled": ("Labelled",),
    "language.long_context": ("LongContextData",),
    "language.text": ("TextData",),
}

if not TYPE_CHECKING:
    from titans_seq.datamodules.common.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(globals(), _HOMES)
