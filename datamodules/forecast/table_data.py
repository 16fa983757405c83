"""The LightningDataModule of one table: a named data set, the embedded series, or a file of the user's.

L lookback, H horizon, N series.
"""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from titans_seq.datamodules.common.errors import DataError, DataWarning, at_least
from titans_seq.datamodules.common.files import EMBEDDED, base_name
from titans_seq.datamodules.common.loaders import SPLITS, Batch
from titans_seq.datamodules.forecast.csv_files import read_published_csv
from titans_seq.datamodules.forecast.data import PanelData
from titans_seq.datamodules.forecast.download import download_dataset
from titans_seq.datamodules.forecast.embedded import ORIGIN, STRIDE, embedded_series
from titans_seq.datamodules.forecast.files import FileForm, Names, read_file
from titans_seq.datamodules.forecast.holiday_features import checked_holidays
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.protocol import Benchmark, Cut, Known, SeriesSplit, Shares, protocol_of, read_split
from titans_seq.datamodules.forecast.registry import UNVERIFIED, VERIFIED, find_spec, locate, missing
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.transforms import transform_of
from titans_seq.datamodules.forecast.weights import without_weight
from titans_seq.datamodules.forecast.windows import Anchors, Windows

MOST_STEPS = 500  # batches of an epoch of a long table
MOST_VALIDATED = 20_000  # windows of a long table that each epoch is validated on


class ForecastDataModule(PanelData):
    """Windows of one table of series: a named data set, the embedded one, or a user's file, wide or long.

    The protocol is that of the long-term forecasting benchmark: ETT 12/4/4 months of 30 days, everything else 70/10/20;
    validation and test begin `lookback` rows early; mean and deviation (ddof 0) of the train rows standardise every
    row; every window of a split is used, the last batch however short. Only train batches are shuffled, in an order
    fixed by seed and epoch. A batch of n windows of a wide table holds one sample for each window and series, of a long
    table one for each window (see `Windows`). Every series of a long table is split for itself.

    Args:
        dataset: a name of the registry or "embedded", case ignored; None without csv is "embedded".
        csv: a user's file instead: CSV, Excel or Parquet, also a folder of Parquet files (see `read_file`).
        time_column: of a user's file; None finds it.
        id_column: names the series of each row of a long table; None: the file is wide, one series per column.
        target: columns to forecast; empty: all columns of numbers.
        past_covariates: columns known up to now.
        future_covariates: columns also known over the horizon.
        static_covariates: columns with one value per series.
        sample_weight: column that weights the rows in the loss; read for training alone.
        freq: step between rows, a pandas alias or a whole number; None finds it.
        split: of a user's file: percentages of train, validation and test, or the two time stamps at which the last two
            begin, such as 2017-01-01/2017-06-01; None is 70/10/20.
        separator: between columns; this and the next five are as of `FileForm`, None finds them.
        decimal: point or comma.
        thousands: separator of thousands.
        encoding: of the text.
        sheet: of an Excel file.
        day_first: whether 03/04/2024 is in April.
        calendar: whether time stamps give covariates; None: for long tables.
        transform: of the target before it is standardised: "log1p", "softplus", or "counts" for an output of counts.
        holidays: codes of countries and their parts whose holidays are covariates, see `holiday_features`.
        lookback: rows seen.
        horizon: rows to forecast.
        batch_size: windows of a training batch.
        eval_batch_size: of validation, test and prediction (metrics do not depend on it).
        steps_per_epoch: batches of an epoch; None: each window once, of a long file in at most 500 batches.
        least_steps: batches that an epoch of a user's file has at least, where steps_per_epoch is None.
        data_root: folder to use instead of $TITANS_SEQ_DATA or the user's cache folder.
        seed: of the shuffles (the embedded series is always the same).
        num_workers: of the loaders; windows are cut from memory, so 0 is usually fastest.

    Attributes, after `setup`:
        panel: raw values. scaling: mean and deviation of each series. name: the data set's, or the stem of a user's
            file.

    Raises:
        DataError: at construction for contradictory or impossible arguments, at `prepare_data` or `setup` for data
            that are missing, damaged, or too short.
    """

    panel: Panel
    protocol: Benchmark | SeriesSplit

    def __init__(
        self,
        dataset: str | None = None,
        *,
        csv: str | None = None,
        time_column: str | None = None,
        id_column: str | None = None,
        target: Sequence[str] = (),
        past_covariates: Sequence[str] = (),
        future_covariates: Sequence[str] = (),
        static_covariates: Sequence[str] = (),
        sample_weight: str | None = None,
        freq: str | int | None = None,
        split: str | None = None,
        separator: str | None = None,
        decimal: str | None = None,
        thousands: str | None = None,
        encoding: str | None = None,
        sheet: str | int | None = None,
        day_first: bool | None = None,
        calendar: bool | None = None,
        transform: str | None = None,
        holidays: Sequence[str] = (),
        lookback: int = 96,
        horizon: int = 96,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        steps_per_epoch: int | None = None,
        least_steps: int = 1,
        data_root: str | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        if dataset is not None and csv is not None:
            raise DataError(f"give dataset or csv, not both; got dataset {dataset!r} and csv {str(csv)!r}")
        embedded = csv is None and (dataset or EMBEDDED).lower() == EMBEDDED
        self.spec = None if embedded or dataset is None else find_spec(dataset)
        self.csv, self.data_root = csv, data_root
        named = EMBEDDED if self.spec is None else self.spec.name
        self.name = named if csv is None else base_name(csv)
        lists = target, past_covariates, future_covariates, static_covariates
        self.names = Names(id_column, time_column, *map(_names, lists))
        self.freq, self.form = freq, FileForm(separator, decimal, thousands, encoding, sheet, day_first)
        self.cut: Cut = Shares() if split is None else read_split(split)
        at_least(1, least_steps=least_steps)
        self.sample_weight, self.least_steps = sample_weight, least_steps
        self._require_file(split)
        self._restored: PanelScaling | None = None  # of a checkpoint
        self._stage: str | None = None
        stride, origin = (STRIDE, ORIGIN) if embedded else (1, 0)
        super().__init__(
            (),
            Benchmark(None if self.spec is None else self.spec.split, stride=stride, origin=origin),
            lookback=lookback,
            horizon=horizon,
            calendar=calendar or False,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
            num_workers=num_workers,
        )
        self._asked = calendar, steps_per_epoch
        self.transform, self.holidays = transform_of(transform), checked_holidays(holidays or None)

    def _require_file(self, split: str | None) -> None:
        """A published data set has its columns and its split."""
        if self.csv is not None:
            return
        given = (
            {"split": split, "freq": self.freq, "sample_weight": self.sample_weight}
            | vars(self.names)
            | vars(self.form)
        )
        wrong = next((name for name, value in given.items() if value not in (None, ())), None)
        if wrong is not None:
            option = {"id": "id_column", "time": "time_column"}.get(wrong, wrong)
            raise DataError(f"{option} is for a file of your own (csv=); {self.name} has its own")

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
        if self.spec is not None and not hasattr(self, "panel"):  # Lightning asks before every fit, test, ...
            download_dataset(self.spec.name, data_root=self.data_root, quiet=not sys.stderr.isatty())

    def setup(self, stage: str | None = None) -> None:
        """Read, split and standardise; a repeated call does nothing.

        For stage "predict" alone a series of any length is enough; series without a restored scale are then scaled by
        all their rows, since what is forecast lies after the last of them. So is a series without a training row, such
        as one that begins after the date of a split.
        """
        if not hasattr(self, "panel"):
            self._settle(self._read(self.sample_weight if stage == "fit" else None))
        if self._stage == "fit" or (stage == "predict" and self._stage == stage):
            return
        self._stage = "predict" if stage == "predict" else "fit"
        if stage == "predict":
            self.scaling = self._fresh(self.panel).with_series(self.panel)
            return
        if self.csv is not None:
            self._plan()
        if isinstance(self.cut, Known) and not len(self._anchors(self.panel, "val")):
            raise DataError(
                f"{self.name}: the file must also hold the last rows that the forecaster has learned from, at least "
                f"{self.lookback + self.horizon} of each series: baselines are calibrated on them"
            )
        if isinstance(self.protocol, Benchmark):
            self.protocol.require(str(self.name), int(self.panel.lengths[0]), self.lookback, self.horizon)
        self.take([self.panel], self._fresh(self.protocol.learned(self.panel)))
        self._warn_of_unknown()
        for split in SPLITS:
            if not len(self.windows(split)):
                raise DataError(f"{self.name}: {self._no_window(split)}")

    def _fresh(self, learned: Panel) -> PanelScaling:
        """The restored scaling, or that of these rows."""
        found = self._restored
        if found is None:
            plain = without_weight(learned, self.sample_weight)
            found = PanelScaling.fit(plain, calendar=self.calendar, transform=self.transform, holidays=self.holidays)
        weighted = self.sample_weight in learned.columns.past_covariates
        return replace(found, weight=self.sample_weight if weighted else None)

    @property
    def restored(self) -> PanelScaling | None:
        """The scaling of an earlier training, which knows of no later series; None without."""
        return self._restored

    def _warn_of_unknown(self) -> None:
        """Series without a value in training have no scale that knows nothing of their test rows."""
        unknown = self.panel.ids[np.isnan(self.scaling.of_target(self.panel)[:, 0])]
        if len(unknown):
            warnings.warn(
                f"{len(unknown)} series have no value among the training rows, the first is {unknown[0]}: they are "
                "not measured",
                DataWarning,
                stacklevel=3,
            )

    def _no_window(self, split: str) -> str:
        found = f"no window of lookback {self.lookback} + horizon {self.horizon} in {split}"
        if isinstance(self.protocol, Benchmark):
            return f"{found}; its windows start every {self.protocol.stride} rows, so choose a shorter horizon"
        longest = int(self.panel.lengths.max())
        return f"{found}; its longest series has {longest} rows: choose a shorter horizon or another split"

    def _settle(self, panel: Panel) -> None:
        """What follows from the shape of the table."""
        self.panel, asked = panel, self._asked[0]
        if self.csv is not None and not panel.wide:
            self.calendar = asked is not False and not isinstance(panel.freq, int)
            self.val_windows = MOST_VALIDATED

    def _plan(self) -> None:
        """Where a user's file is split, and how long an epoch of it is."""
        self.protocol = protocol_of(self.panel, self.cut, self.horizon)
        windows, asked = self.protocol.anchors(self.panel, "train", self.lookback, self.horizon), self._asked[1]
        batches = -(-len(windows) // self.batch_size)
        wanted = max(batches, self.least_steps)
        wanted = wanted if self.panel.wide else min(wanted, MOST_STEPS)
        self.steps_per_epoch = asked if asked is not None or wanted == batches else wanted

    @property
    def sizes(self) -> dict[str, int]:
        """How many features a network gets of these series, by the names of its arguments."""
        some = self.panel.tail(1)
        features, ahead = self.scaling.features(some)
        static = self.scaling.static(some).shape[1]
        return {"past_features": features.shape[1], "future_features": ahead, "static_features": static}

    def _read(self, weight: str | None) -> Panel:
        if self.csv is not None:
            more = () if weight is None else (weight,)
            names = replace(self.names, past_covariates=(*self.names.past_covariates, *more))
            return read_file(self.csv, names, self.freq, self.form)
        if self.spec is None:
            return embedded_series()
        path = locate(self.spec, self.data_root)
        if path is None:
            raise missing(self.spec, self.data_root)
        return read_published_csv(path, self.spec)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """One window of each series, that after its last row; its "future_target" has no steps."""
        windows = windows_at_end(self.panel, self.scaling, self.lookback)
        return self.load(windows, batch_size=self.eval_batch_size)

    # checkpoint ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the scaling; no class of ours in it."""
        if self._stage is None:
            return {}
        about, arrays = self.scaling.pack()
        return {"about": about, "arrays": {name: torch.from_numpy(array) for name, array in arrays.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Standardise series of these names as there, now and at a later `setup`; others by their own rows."""
        if state_dict:
            self.restore(_unpacked(state_dict))

    def read_covariates_as(self, state_dict: dict[str, Any]) -> None:
        """Encode covariates as the network of that checkpoint knows them; the target stays on its own scale."""
        if state_dict:
            own = self.scaling
            self.scaling = replace(
                _unpacked(state_dict), scales=own.scales, typical=own.typical, transform=own.transform
            )
            self.take([self.panel], self.scaling)

    def restore(self, scaling: PanelScaling) -> None:
        """The same, from the scaling itself."""
        self._restored, self._asked = scaling, (scaling.calendar, self._asked[1])
        stage, self._stage = self._stage, None
        if stage is not None:
            self.setup(stage)


def _unpacked(state_dict: dict[str, Any]) -> PanelScaling:
    try:
        arrays = {name: tensor.numpy() for name, tensor in state_dict["arrays"].items()}
        return PanelScaling.unpack(state_dict["about"], arrays)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DataError("the checkpoint is damaged: it holds no mean and scale for each series") from None


def windows_at_end(panel: Panel, scaling: PanelScaling, lookback: int) -> Windows:
    """One window of each series, after its last row: of a table of columns side by side they are one."""
    every = np.arange(len(panel))
    anchors = Anchors(every[None], panel.lengths[:1]) if panel.wide else Anchors(every[:, None], panel.lengths)
    return Windows(panel, scaling, lookback, 0, anchors)


def _names(given: Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
