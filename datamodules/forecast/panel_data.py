"""Training and validation of a panel of series, or of several panels of which one at a time is in memory.

B batch, L lookback, H horizon, W windows, N series.
"""

from collections.abc import Iterator, Sequence

import lightning
import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import DataLoader, IterableDataset

from titans_seq.datamodules.common.loaders import Batch, EpochShuffle, as_is, epoch_seed
from titans_seq.datamodules.forecast.panel import Panel, joined
from titans_seq.datamodules.forecast.panel_windows import PanelScaling, PanelWindows, training_anchors

MOST_VALIDATED = 2_000_000  # steps of validation windows; more of them are thinned out evenly
MOST_HELD = 1_000_000  # rows of several panels that are held for validation
VISITS = 8  # panels of an epoch, where there are several: each has to be read


class PanelData(lightning.LightningDataModule):
    """Training and validation windows of a panel, or of several of which one at a time is in memory.

    The last `val_rows` rows of every series are for validation: nothing of them enters scaling or training. Series too
    short to spare them train with all they have. Validation takes at most two million steps, windows evenly thinned
    out, and of several panels at most a million rows of series drawn by chance. Training windows are shuffled by seed
    and epoch.

    Args:
        panels: all rows a model may see.
        lookback, horizon: L and H.
        val_rows: at least H, or 0 for no validation.
        calendar: whether time stamps give covariates.
        scaling: of an earlier training, to go on with; None is fitted here.
        batch_size, eval_batch_size, seed: of the loaders.
        generator: what loaders draw the seed of their workers from; None: PyTorch's global one.
        steps_per_epoch: batches of an epoch, from fewer windows than there are or from all of them several times; None:
            each window once.

    Raises:
        ValueError: no window fits.
    """

    def __init__(
        self,
        panels: Panel | Sequence[Panel],
        *,
        lookback: int,
        horizon: int,
        val_rows: int = 0,
        calendar: bool = True,
        scaling: PanelScaling | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 512,
        seed: int = 0,
        steps_per_epoch: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.panels = [panels] if isinstance(panels, Panel) else panels
        self.lookback, self.horizon, self.val_rows = lookback, horizon, val_rows
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.steps_per_epoch, self.generator = steps_per_epoch, generator
        if scaling is None:
            scaling = PanelScaling.fit(map(self._learned, self.panels), calendar=calendar)
        else:
            for panel in self.panels:
                scaling = scaling.with_series(self._learned(panel))
        self.scaling = scaling
        counts = [len(self._anchors(self._learned(panel))[0]) for panel in self.panels]
        # training windows of the panels that have any
        self.counts = {i: count for i, count in enumerate(counts) if count}
        if not self.counts:
            longest = max(int(panel.lengths.max(initial=0)) for panel in self.panels)
            raise ValueError(
                f"no series has a row before a horizon of {horizon} observed ones; the longest has {longest} rows: "
                "give more rows or a shorter horizon"
            )
        self._current: tuple[int, PanelWindows] | None = None
        self.val = self._validation()

    def windows(self, place: int) -> PanelWindows:
        """The training windows of a panel; the last one asked for stays in memory."""
        if self._current is None or self._current[0] != place:
            self._current = None  # before the next one comes
            panel = self._learned(self.panels[place])
            cut = (self.lookback, self.horizon)
            self._current = place, PanelWindows(panel, self.scaling, *cut, self._anchors(panel))
        return self._current[1]

    @property
    def train(self) -> PanelWindows:
        """The training windows of the first panel that has any."""
        return self.windows(next(iter(self.counts)))

    def _spare(self, panel: Panel) -> Int[np.ndarray, " N"]:
        return np.where(panel.lengths >= self.val_rows + 2 * self.horizon, self.val_rows, 0)

    def _learned(self, panel: Panel) -> Panel:
        """The rows to learn from."""
        return panel.rows(np.zeros(len(panel), dtype=np.int64), panel.lengths - self._spare(panel))

    def _anchors(self, panel: Panel, last: int = 0) -> tuple[np.ndarray, np.ndarray]:
        return training_anchors(panel, self.lookback, self.horizon, last)

    def _validation(self) -> PanelWindows | None:
        if not self.val_rows:
            return None
        spared = joined([self._held_back(i) for i in range(len(self.panels))])
        if not len(spared):
            return None
        anchors = _thinned(self._anchors(spared, last=self.val_rows), self.horizon)
        return PanelWindows(spared, self.scaling, self.lookback, self.horizon, anchors)

    def _held_back(self, place: int) -> Panel:
        """The series that have rows to spare; of several panels some of them, and only the rows that validation looks
        at.
        """
        panel = self.panels[place]
        spared = panel.rows(np.where(self._spare(panel) > 0, 0, panel.lengths), panel.lengths)
        if len(self.panels) == 1:
            return spared
        return _drawn(spared.tail(self.val_rows + self.lookback), MOST_HELD // len(self.panels), place)

    def train_dataloader(self) -> DataLoader[Batch]:
        if len(self.panels) > 1:
            return DataLoader(PanelBatches(self), batch_size=None, generator=self.generator)
        samples = None if self.steps_per_epoch is None else self.steps_per_epoch * self.batch_size
        drawn = EpochShuffle(self.train, self.seed, samples)
        return DataLoader(
            self.train, batch_size=self.batch_size, sampler=drawn, collate_fn=as_is, generator=self.generator
        )

    def val_dataloader(self) -> list[DataLoader[Batch]] | DataLoader[Batch]:
        if self.val is None or not len(self.val):
            return []
        return DataLoader(self.val, batch_size=self.eval_batch_size, collate_fn=as_is, generator=self.generator)


class PanelBatches(IterableDataset[Batch]):
    """Training batches of several panels, each batch of one; an epoch of so many steps visits a few panels, the next
    epoch the next ones.

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
            windows = data.windows(place)
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
    """Series of so many rows together, at least one, drawn by chance."""
    order = np.random.default_rng(seed).permutation(len(panel))
    count = max(1, int(np.searchsorted(np.cumsum(panel.lengths[order]), rows, side="right")))
    return panel.taken(np.sort(order[:count]))


def _thinned(anchors: tuple[np.ndarray, np.ndarray], horizon: int) -> tuple[np.ndarray, np.ndarray]:
    most = max(1, MOST_VALIDATED // horizon)
    if len(anchors[0]) <= most:
        return anchors
    kept = np.linspace(0, len(anchors[0]) - 1, most).astype(np.int64)
    return anchors[0][kept], anchors[1][kept]
