"""Windows of a series as views: lookback rows, then horizon rows.

B batch, L lookback, H horizon, C channels, T rows.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from titans_seq.datamodules.common.loaders import Batch


class WindowDataset(Dataset[Batch]):
    """The windows inside rows [begin, end), each L + H rows long; nothing is copied until a batch is taken.

    Args:
        values: float32 [T, C], the whole series.
        begin, end: rows the windows may touch; the first target row is `begin + lookback` at the earliest.
        lookback, horizon: L and H; H = 0 gives windows with an empty target.
        stride, origin: only first target rows t with (t - origin) % stride == 0.

    An item, and a batch of them, holds "past_target" [(B,) L, C], "future_target" [(B,) H, C] and "index" [(B,)], the
    first target row counted in the whole series.
    """

    def __init__(
        self,
        values: Float[Tensor, "T C"],
        begin: int,
        end: int,
        lookback: int,
        horizon: int,
        stride: int = 1,
        origin: int = 0,
    ) -> None:
        if not 0 <= begin <= end <= len(values):
            raise ValueError(f"rows must satisfy 0 <= begin <= end <= {len(values)}; got begin {begin}, end {end}")
        if lookback < 1 or horizon < 0 or stride < 1:
            raise ValueError(
                f"need lookback >= 1, horizon >= 0, stride >= 1; got lookback {lookback}, horizon {horizon}, "
                f"stride {stride}"
            )
        self.lookback = lookback
        earliest = begin + lookback
        first = earliest + (origin - earliest) % stride
        self.targets = range(first, end - horizon + 1, stride)
        start = first - lookback if self.targets else end
        length = lookback + horizon
        # unfold puts the window last; [N, L + H, C] keeps whole rows together, so a batch copies long runs
        self.windows = (
            values[start:end].unfold(0, length, stride).transpose(1, 2)
            if self.targets
            else values.new_empty(0, length, values.shape[1])
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Batch:
        return {name: batch[0] for name, batch in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the batch of these windows, by one indexed copy."""
        rows = torch.as_tensor([self.targets[index] for index in indices], dtype=torch.int64)
        positions = torch.as_tensor(indices, dtype=torch.int64)
        window = self.windows[positions]  # [B, L + H, C]
        return {
            "past_target": window[:, : self.lookback],
            "future_target": window[:, self.lookback :],
            "index": rows,
        }
