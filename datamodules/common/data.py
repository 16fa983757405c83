"""The LightningDataModule of every field whose samples are drawn one by one: checks, loaders, streams."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from titans_seq.datamodules.common.errors import at_least
from titans_seq.datamodules.common.loaders import Batch, EpochShuffle, dealt
from titans_seq.datamodules.common.stretches import Place, StreamDataset, StretchBatches


class SplitData(lightning.LightningDataModule):
    """Loaders over the splits train, val and test; a subclass fills `splits` in `setup` and gives `dataset_for`.

    Args:
        batch_size: Samples per training batch.
        eval_batch_size: Samples per batch of validation and test.
        seed: Of splits, shuffles and draws.
        num_workers: Processes that load batches; 0: none but the own one.

    Attributes:
        splits: What each split holds, by name; empty before `setup`.
        collate_fn: What makes a batch of samples; None: as PyTorch does.
        generator: What loaders draw the seed of their workers from; None: PyTorch's global one.

    Raises:
        DataError: A size is not positive, or seed or num_workers is negative.
    """

    collate_fn: Callable[[Any], Batch] | None = None
    generator: torch.Generator | None = None

    def __init__(self, batch_size: int, eval_batch_size: int, seed: int, num_workers: int) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        at_least(0, seed=seed, num_workers=num_workers)
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.seed, self.num_workers = seed, num_workers
        self.splits: dict[str, Any] = {}

    def dataset_for(self, split: str) -> Dataset[Batch]:
        """Return the samples of "train", "val" or "test"."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader[Batch]:
        dataset = self.dataset_for("train")
        return self.load(dataset, batch_size=self.batch_size, sampler=dealt(EpochShuffle(dataset, self.seed)))

    def val_dataloader(self) -> DataLoader[Batch]:
        return self.load(self.dataset_for("val"), batch_size=self.eval_batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.load(self.dataset_for("test"), batch_size=self.eval_batch_size)

    def stream_dataloader(
        self, places: Sequence[Place], carry: int, turn: Callable[[Batch], Batch] | None = None
    ) -> DataLoader[Batch]:
        """Return batches of training windows whose rows follow on from the batch before.

        Args:
            places: Where each window of train lies, see `stretches_of`.
            carry: Number of windows that follow on each other.
            turn: Puts a window on the other strand; each stretch is then read from either one by chance.
        """
        batches = StretchBatches(
            places, carry=carry, batch_size=self.batch_size, both_strands=turn is not None, seed=self.seed
        )
        return self.load(StreamDataset(self.dataset_for("train"), turn), batch_sampler=batches)

    def load(self, dataset: Dataset[Batch], **order: Any) -> DataLoader[Batch]:
        """Return a loader; order: its batch size and samplers."""
        return DataLoader(
            dataset,
            **order,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=self.collate_fn,
            generator=self.generator,
        )
