"""The LightningDataModules of forecasting: windows of panels, split by a protocol, standardised by the training rows.

L lookback, H horizon, N series.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from titans_seq.datamodules.common.data import SplitData
from titans_seq.datamodules.common.errors import DataError, at_least
from titans_seq.datamodules.common.loaders import Batch, EpochShuffle, as_is, dealt, epoch_seed
from titans_seq.datamodules.forecast.panel import Panel, join_panels
from titans_seq.datamodules.forecast.protocol import HoldOut, Protocol
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.windows import Anchors, Windows

MOST_HELD = 1_000_000  # rows of several panels that are held for validation
VISITS = 8  # panels of an epoch, where there are several: each has to be read


class PanelData(SplitData):
    """Windows of a panel, or of several panels of which one at a time is in memory.

    Training windows are shuffled by seed and epoch. Of several panels validation takes at most a million rows of series
    drawn by chance.

    Args:
        panels: all rows a model may see.
        protocol: which of them are for training, validation and test.
        lookback: L.
        horizon: H.
        calendar: whether time stamps give covariates.
        scaling: of an earlier training, to go on with; None is fitted here.
        batch_size: windows of a training batch.
        eval_batch_size: of all others; metrics do not depend on it.
        steps_per_epoch: batches of an epoch, from fewer windows than there are or from all of them several times; None:
            each window once.
        val_windows: windows that validation looks at in each epoch, evenly thinned out; None: all.
        seed: of the shuffles.
        num_workers: of the loaders; windows are cut from memory, so 0 is usually fastest.
        generator: what loaders draw the seed of their workers from; None: PyTorch's global one.

    Raises:
        DataError: no training window fits, or a size is not positive.
    """

    scaling: PanelScaling
    collate_fn = staticmethod(as_is)

    def __init__(
        self,
        panels: Panel | Sequence[Panel],
        protocol: Protocol,
        *,
        lookback: int,
        horizon: int,
        calendar: bool = True,
        scaling: PanelScaling | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        steps_per_epoch: int | None = None,
        val_windows: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed, num_workers)
        at_least(1, lookback=lookback, horizon=horizon)
        self.lookback, self.horizon, self.calendar = lookback, horizon, calendar
        self.steps_per_epoch, self.val_windows = steps_per_epoch, val_windows
        self.protocol, self.generator = protocol, generator
        panels = [panels] if isinstance(panels, Panel) else panels
        if panels:  # else they come at `setup`
            self.take(panels, scaling)

    def take(self, panels: Sequence[Panel], scaling: PanelScaling | None = None) -> None:
        """Fit or complete the scaling on the rows to learn from, and find the windows."""
        self.panels = panels
        if scaling is None:
            scaling = PanelScaling.fit(map(self.protocol.learned, panels), calendar=self.calendar)
        else:
            for panel in panels:
                scaling = scaling.with_series(self.protocol.learned(panel))
        self.scaling = scaling
        self._held: tuple[int, dict[str, Windows]] = -1, {}
        counts = [len(self._anchors(panel, "train")) for panel in panels]
        self.counts = {i: count for i, count in enumerate(counts) if count}  # training windows of panels with any
        if not self.counts:
            raise DataError(_no_window(panels, self.horizon))
        self.val = self._validation()
        for rows, windows in (("training", self.train if len(panels) == 1 else None), ("validation", self.val)):
            if windows is not None and not len(windows.weighed):
                raise DataError(f"sample_weight is 0 for all {rows} rows; give some of them a weight above 0")

    def _anchors(self, panel: Panel, split: str) -> Anchors:
        return self.protocol.anchors(panel, split, self.lookback, self.horizon)

    def dataset_for(self, split: str) -> Windows:
        return self.train if split == "train" else self.windows(split)

    def windows(self, split: str, place: int = 0) -> Windows:
        """The windows of a split of one panel; the rows of the last panel asked for stay in memory."""
        if self._held[0] != place:
            self._held = place, {}  # before the next one comes
        held = self._held[1]
        if split not in held:
            panel = self.panels[place]
            anchors = self._anchors(panel, split)
            same = next(iter(held.values()), None)
            if same is None:
                held[split] = Windows(panel, self.scaling, self.lookback, self.horizon, anchors)
            else:
                held[split] = same.at(anchors)
        return held[split]

    @property
    def train(self) -> Windows:
        """The training windows of the first panel that has any."""
        return self.windows("train", next(iter(self.counts)))

    def _validation(self) -> Windows | None:
        if len(self.panels) == 1:
            found = self.windows("val")
        else:
            held = [self._held_back(place) for place in range(len(self.panels))]
            panel = join_panels([each for each in held if len(each)] or held[:1])
            if not len(panel):
                return None
            found = Windows(panel, self.scaling, self.lookback, self.horizon, self._anchors(panel, "val"))
        return found if len(found) else None

    def _held_back(self, place: int) -> Panel:
        """Some of the series that have rows to spare, and of those only what validation looks at."""
        assert isinstance(self.protocol, HoldOut)
        panel = self.panels[place]
        spared = panel.rows(np.where(self.protocol.spare(panel) > 0, 0, panel.lengths), panel.lengths)
        longest = max(self.protocol.val_rows + 2 * self.horizon, self.protocol.val_rows + self.lookback)
        return _drawn(spared.tail(longest), MOST_HELD // len(self.panels), place)

    # loaders ---------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Batch]:
        if len(self.panels) > 1:
            return DataLoader(PanelBatches(self), batch_size=None, generator=self.generator)
        samples = None if self.steps_per_epoch is None else self.steps_per_epoch * self.batch_size
        order = EpochShuffle(self.train, self.seed, samples)
        return self.load(self.train, batch_size=self.batch_size, sampler=dealt(order))

    def val_dataloader(self) -> list[DataLoader[Batch]] | DataLoader[Batch]:  # type: ignore[override]  # maybe none
        if self.val is None:
            return []
        most = len(self.val) if self.val_windows is None else self.val_windows
        return self.load(self.val.at(self.val.weighed.thin(most)), batch_size=self.eval_batch_size)


class PanelBatches(IterableDataset[Batch]):
    """Training batches of several panels, each batch of one panel. An epoch visits a few panels, the next epoch others.

    Panels come in an order that depends on the seed only, each as often as the others; a visit's batches, as many as
    its share of the windows in this epoch, are drawn by seed and number of the visit. Without a Trainer each pass takes
    the next epoch.
    """

    def __init__(self, data: PanelData) -> None:
        self.data, self.epoch = data, 0

    def __iter__(self) -> Iterator[Batch]:
        data, epoch = self.data, self.epoch if self.data.trainer is None else self.data.trainer.current_epoch
        self.epoch += 1
        for visit, place, steps in self._visits(epoch):
            windows = data.windows("train", place)
            samples = None if steps is None else steps * data.batch_size
            drawn = list(EpochShuffle(windows, epoch_seed(data.seed, visit), samples))
            for begin in range(0, len(drawn), data.batch_size):
                yield windows.__getitems__(drawn[begin : begin + data.batch_size])
            del windows  # before the next panel comes

    def _visits(self, epoch: int) -> list[tuple[int, int, int | None]]:
        """Number of each visit of this epoch, its panel, and how many batches, None for all."""
        counts, steps = self.data.counts, self.data.steps_per_epoch
        each = len(counts) if steps is None else min(VISITS, len(counts), steps)
        visits = range(epoch * each, (epoch + 1) * each)
        places = [self._place(visit) for visit in visits]
        if steps is None:
            return [(visit, place, None) for visit, place in zip(visits, places, strict=True)]
        windows = np.cumsum([0, *(counts[place] for place in places)])
        shares = np.diff(np.round(steps * windows / windows[-1]).astype(int)).tolist()
        return [triple for triple in zip(visits, places, shares, strict=True) if triple[2]]

    def _place(self, visit: int) -> int:
        places = list(self.data.counts)
        order = np.random.default_rng(epoch_seed(self.data.seed, visit // len(places))).permutation(len(places))
        return places[int(order[visit % len(places)])]


def _drawn(panel: Panel, rows: int, seed: int) -> Panel:
    """Randomly drawn series with at most `rows` rows together, at least one series."""
    order = np.random.default_rng(seed).permutation(len(panel))
    count = max(1, int(np.searchsorted(np.cumsum(panel.lengths[order]), rows, side="right")))
    return panel.take(np.sort(order[:count]))


def _no_window(panels: Sequence[Panel], horizon: int) -> str:
    if not any((~np.isnan(panel.target)).any() for panel in panels):
        return "no series has a value: all of them are missing"
    longest = max(int(panel.lengths.max(initial=0)) for panel in panels)
    return (
        f"no series has an observed row before a horizon of {horizon} rows with one; the longest has {longest} rows: "
        "give more rows or a shorter horizon"
    )
