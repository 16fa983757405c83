"""The data module of the forecasting task: a series, split, scaled and cut into windows by the benchmark's protocol.

B batch, L lookback, H horizon, C channels, T rows.
"""

import sys
from typing import Any

import lightning
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from titans_seq.datamodules.common.errors import DataError, at_least
from titans_seq.datamodules.common.files import EMBEDDED
from titans_seq.datamodules.common.loaders import Batch, EpochShuffle, as_is, dealt
from titans_seq.datamodules.forecast.csv_files import read_published_csv, read_user_csv
from titans_seq.datamodules.forecast.download import download_dataset
from titans_seq.datamodules.forecast.embedded import embedded_series
from titans_seq.datamodules.forecast.protocol import SPLITS, Borders, require_windows, split_borders
from titans_seq.datamodules.forecast.registry import UNVERIFIED, VERIFIED, find_spec, locate, missing
from titans_seq.datamodules.forecast.scaling import fit_scaler, scaler_from, standardise
from titans_seq.datamodules.forecast.series import Series
from titans_seq.datamodules.forecast.windows import WindowDataset


class ForecastDataModule(lightning.LightningDataModule):
    """Windows of one multivariate series: named, embedded, or a user's CSV.

    The protocol is that of the long-term forecasting benchmark: ETT 12/4/4 months of 30 days, everything else 70/10/20;
    validation and test begin `lookback` rows early; mean and deviation (ddof 0) of the train rows standardise every
    row; every window of a split is used, the last batch however short. Only train batches are shuffled, in an order
    fixed by seed and epoch. A batch is {"past_target": float32 [B, L, C], "future_target": float32 [B, H, C],
    "index": int64 [B]}, standardised; index is the first target row.

    Args:
        dataset: a name of the registry or "embedded", case ignored; None without csv is "embedded".
        csv: a user's file instead (see `read_user_csv`).
        lookback, horizon: rows seen and rows to forecast.
        batch_size: of training; eval_batch_size: of validation, test and prediction (metrics do not depend on it).
        fill: for csv only, how missing values are filled: "ffill", "zero" (causal) or "linear" (looks ahead).
        data_root: folder to use instead of $TITANS_SEQ_DATA or the user's cache folder.
        seed: of the shuffles (the embedded series is always the same).
        num_workers: of the loaders; windows are views in memory, so 0 is usually fastest.

    Attributes, after `setup`:
        series: raw values; scaler: the fitted StandardScaler; borders: rows [begin, end) per split, empty while only
        prediction was set up.

    Raises:
        DataError: at construction for contradictory or impossible arguments, at `prepare_data` or `setup` for data
            that are missing, damaged, or too short.
    """

    series: Series
    scaler: StandardScaler

    def __init__(
        self,
        dataset: str | None = None,
        *,
        csv: str | None = None,
        lookback: int = 96,
        horizon: int = 96,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        fill: str | None = None,
        data_root: str | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if dataset is not None and csv is not None:
            raise DataError(f"give dataset or csv, not both; got dataset {dataset!r} and csv {str(csv)!r}")
        if fill is not None and csv is None:
            raise DataError(f"fill={fill!r} is for a file of your own (csv); named data sets are used as published")
        at_least(1, lookback=lookback, horizon=horizon, batch_size=batch_size, eval_batch_size=eval_batch_size)
        at_least(0, seed=seed, num_workers=num_workers)
        embedded = csv is None and (dataset or EMBEDDED).lower() == EMBEDDED
        self.spec = None if embedded or dataset is None else find_spec(dataset)
        self.csv = csv
        self.lookback, self.horizon = lookback, horizon
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.fill, self.data_root = fill, data_root
        self.seed, self.num_workers = seed, num_workers
        self.borders: Borders = {}
        self._values: Tensor | None = None  # standardised, float32 [T, C]
        self._fitted_rows = 0
        self._restored: dict[str, tuple[float, float]] = {}  # column -> (mean, scale) of a checkpoint

    # data ------------------------------------------------------------------------------------------------------------

    @property
    def provenance(self) -> str:
        """Whether the series is what its name says: "generated", "own file", "verified" (by its sha256 when it is
        read), or "unverified": no published checksum is known, so any file of the right shape is taken.
        """
        if self.csv is not None:
            return "own file"
        if self.spec is None:
            return "generated"
        return VERIFIED if self.spec.sha256 else UNVERIFIED

    def prepare_data(self) -> None:
        """Download the named data set if it is not at hand (once, see `download_dataset`)."""
        if self.spec is not None and not hasattr(self, "series"):  # Lightning asks before every fit, test, ...
            download_dataset(self.spec.name, data_root=self.data_root, quiet=not sys.stderr.isatty())

    def setup(self, stage: str | None = None) -> None:
        """Read, split and standardise; a repeated call does nothing.

        For stage "predict" alone a series of `lookback` rows is enough; columns without restored statistics are then
        standardised by all their rows, since what is forecast lies after the last of them.
        """
        if not hasattr(self, "series"):
            self.series = self._read()
        rows = len(self.series.values)
        if stage == "predict":
            if rows < self.lookback:
                raise DataError(
                    f"{self.series.name} has {rows} rows; a forecast needs at least lookback {self.lookback}"
                )
            self._standardise(self._fitted_rows or rows)
            return
        split = self.spec.split if self.spec is not None else None
        require_windows(self.series.name, rows, self.lookback, self.horizon, split)
        self.borders = split_borders(rows, self.lookback, split)
        self._standardise(self.borders["train"][1])
        for name in SPLITS:
            if not len(self.dataset_for(name)):
                raise DataError(
                    f"{self.series.name}: no window of lookback {self.lookback} + horizon {self.horizon} in {name}; "
                    f"its windows start every {self.series.stride} rows, so choose a shorter horizon"
                )

    def _read(self) -> Series:
        if self.csv is not None:
            return read_user_csv(self.csv, self.fill)
        if self.spec is None:
            return embedded_series()
        path = locate(self.spec, self.data_root)
        if path is None:
            raise missing(self.spec, self.data_root)
        return read_published_csv(path, self.spec)

    def _standardise(self, rows: int) -> None:
        """Fit on the first `rows` rows, let restored columns keep their statistics, and scale every row."""
        if rows == self._fitted_rows:
            return
        scaler = fit_scaler(self.series.values[:rows])
        known = [i for i, name in enumerate(self.series.columns) if name in self._restored]
        if known:
            mean, scale = scaler.mean_.copy(), scaler.scale_.copy()
            for i in known:
                mean[i], scale[i] = self._restored[self.series.columns[i]]
            scaler = scaler_from(mean, scale)
        self.scaler = scaler
        self._values = standardise(self.series.values, scaler)
        self._fitted_rows = rows

    @property
    def standardised(self) -> Tensor:
        """Every row, float32 [T, C], as windows hold them."""
        if self._values is None:
            raise ValueError("call setup() first")
        return self._values

    def dataset_for(self, split: str) -> WindowDataset:
        """Return the windows of "train", "val" or "test"."""
        if split not in self.borders:
            raise ValueError(f"split must be one of {SPLITS}, after setup; got {split!r}")
        begin, end = self.borders[split]
        return self._windows(begin, end, self.horizon, self.series.stride, self.series.origin)

    def _windows(self, begin: int, end: int, horizon: int, stride: int, origin: int) -> WindowDataset:
        return WindowDataset(self.standardised, begin, end, self.lookback, horizon, stride, origin)

    # loaders ---------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Batch]:
        windows = self.dataset_for("train")
        return self._loader(windows, self.batch_size, dealt(EpochShuffle(windows, self.seed)))

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.dataset_for("val"), self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.dataset_for("test"), self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """One window: the last `lookback` rows; its "future_target" has no rows, its "index" is T."""
        rows = len(self.series.values)
        return self._loader(self._windows(rows - self.lookback, rows, 0, 1, 0), self.eval_batch_size)

    def _loader(
        self, windows: WindowDataset, batch_size: int, sampler: Sampler[int] | None = None
    ) -> DataLoader[Batch]:
        return DataLoader(
            windows,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=as_is,
        )

    # checkpoint ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: columns, and mean and scale (float64) of each; no class of ours in it."""
        if self._values is None:
            return {}
        return {
            "columns": list(self.series.columns),
            "mean": torch.from_numpy(self.scaler.mean_.copy()),
            "scale": torch.from_numpy(self.scaler.scale_.copy()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Standardise columns of these names by these statistics, now and at a later `setup`; others keep their own."""
        if not state_dict:
            return
        restored = _statistics(state_dict)
        if restored == self._restored:
            return
        self._restored = restored
        rows, self._fitted_rows = self._fitted_rows, 0
        if rows:
            self._standardise(rows)


def _statistics(state: Any) -> dict[str, tuple[float, float]]:
    """Mean and scale of each column of a `ForecastDataModule.state_dict`; a DataError if it is none."""
    known: dict[str, Any] = state if isinstance(state, dict) else {}
    columns: Any = known.get("columns")
    values: list[Any] = [known.get("mean"), known.get("scale")]
    named = isinstance(columns, list) and all(isinstance(name, str) for name in columns)
    if named and all(isinstance(value, torch.Tensor) and value.shape == (len(columns),) for value in values):
        mean, scale = (value.double() for value in values)
        if mean.isfinite().all() and scale.isfinite().all() and (scale > 0).all():
            return dict(zip(columns, zip(mean.tolist(), scale.tolist(), strict=True), strict=True))
    raise DataError("the checkpoint is damaged: it holds no mean and scale for each column of a series")
