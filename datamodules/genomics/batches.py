"""Batches of DNA sequences.

B batch, T time (bases), S sequences. A batch is {"tokens": int64 [B, T], padded behind with PAD to its longest
sequence, "mask": bool [B, T], True = base, only where something is padded, "label": int64 [B] of labelled sequences,
"carried": bool [B], True = the row follows on the same row of the batch before, only where streams are trained}.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import Dataset

from titans_seq.datamodules.common.loaders import Batch
from titans_seq.datamodules.genomics.alphabet import COMPLEMENT, PAD, Tokens
from titans_seq.datamodules.genomics.splits import GenomeWindows


class TokenDataset(Dataset[Batch]):
    """Sequences of tokens, with labels or without, as the loaders want them."""

    def __init__(
        self, sequences: Sequence[Tokens] | GenomeWindows, labels: Int[np.ndarray, " S"] | None = None
    ) -> None:
        self.sequences, self.labels = sequences, labels

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Batch:
        item = {"tokens": torch.from_numpy(self.sequences[index].astype(np.int64))}
        return item if self.labels is None else item | {"label": torch.tensor(self.labels[index])}


def turn(item: Batch) -> Batch:
    """Put a window on the other strand."""
    return {"tokens": COMPLEMENT[item["tokens"].flip(0)]}


def collate(items: Sequence[Batch]) -> Batch:
    """Pad behind, to the longest of the batch."""
    sequences = [item["tokens"] for item in items]
    batch = {"tokens": torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=PAD)}
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    if (lengths < batch["tokens"].shape[1]).any():
        batch["mask"] = torch.arange(batch["tokens"].shape[1]) < lengths[:, None]
    for name in ("label", "carried"):
        if name in items[0]:
            batch[name] = torch.stack([item[name] for item in items])
    return batch
