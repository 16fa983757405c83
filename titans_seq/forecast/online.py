"""A memory that goes on learning while series come in: blocks of them are read once, in their order, and the state is
kept.

Each series is cut into blocks of L steps from its first observed row on. A full block is read with the state of the
blocks before it. A forecast reads the last 2 L rows as two blocks, from a copy of the state as it was at the last
boundary before them: no row is read before its time or written twice, and the block it forecasts from follows on a
whole one, as in training. Up to L - 1 rows between that boundary and the two blocks are left out; left out right before
the last L rows they cost more than the memory gains. B series, L lookback.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from titans_seq.blocks import ModelState, choose
from titans_seq.datamodules.common.loaders import Batch
from titans_seq.datamodules.forecast.panel import Panel
from titans_seq.datamodules.forecast.panel_windows import PanelScaling, PanelWindows
from titans_seq.forecast.panel import PanelForecaster, inputs_of, on_device

AT_ONCE = 1024  # series per call of the network


@dataclass(frozen=True, eq=False)
class Stream:
    """What has been observed of B series.

    Args:
        rows: those a forecast may still need: from the last but two boundary of blocks on.
        blocks: [B], full blocks read.
        older, before, now: the memory's states at the last but two boundary, the last but one and the last.
        scaling: how the series are standardised, fixed at their first rows.
    """

    rows: Panel
    blocks: Int[np.ndarray, " B"]
    older: ModelState
    before: ModelState
    now: ModelState
    scaling: PanelScaling

    @classmethod
    @torch.inference_mode()
    def begin(cls, network: PanelForecaster, rows: Panel, scaling: PanelScaling) -> "Stream":
        """Nothing read yet: the learned states, and rows that wait."""
        fresh = network.fresh(len(rows))
        return cls(rows, np.zeros(len(rows), dtype=np.int64), fresh, fresh, fresh, scaling)

    def observed(self, network: PanelForecaster, later: Panel) -> "Stream":
        """The stream with more rows; every block that they make full is read. This one stays as it is."""
        waiting = replace(self, rows=self.rows.followed(later))
        return waiting.caught_up(network)

    def caught_up(self, network: PanelForecaster) -> "Stream":
        """The stream with every full block read."""
        stream = self
        for stream, _, _ in self.reading(network):
            pass
        return stream

    @torch.inference_mode()
    def reading(
        self, network: PanelForecaster
    ) -> Iterator[tuple["Stream", Int[np.ndarray, " S"], Float[Tensor, "S L"]]]:
        """Read the full blocks that wait, one of each series at a time: the stream after each round, which series,
        their surprise.
        """
        stream, length = self, network.lookback
        while len(full := np.flatnonzero(stream._unread(length) >= length)):
            first = stream._known(length)[full] + length
            windows = PanelWindows(stream.rows, stream.scaling, length, 0, (full, first))
            after, surprise = _carried(network, windows, stream.now.select(torch.from_numpy(full)))
            stream = stream._moved(full, after, length)
            yield stream, full, surprise

    def _known(self, length: int) -> Int[np.ndarray, " B"]:
        """Rows kept that have been read: two blocks, or as many as were full."""
        return np.minimum(self.blocks, 2) * length

    def _unread(self, length: int) -> Int[np.ndarray, " B"]:
        return self.rows.lengths - self._known(length)

    def _moved(self, full: Int[np.ndarray, " S"], after: ModelState, length: int) -> "Stream":
        """One block further in these series; rows before the boundary that is now the last but two are dropped."""
        chosen = torch.zeros(len(self.blocks), dtype=torch.bool)
        chosen[full] = True
        dropped = np.where(chosen.numpy() & (self.blocks > 1), length, 0)
        return replace(
            self,
            rows=self.rows.rows(dropped, self.rows.lengths),
            blocks=self.blocks + chosen.numpy(),
            older=choose(chosen, self.before, self.older),
            before=choose(chosen, self.now, self.before),
            now=_placed(self.now, after, full),
        )


def _carried(
    network: PanelForecaster, windows: PanelWindows, states: ModelState
) -> tuple[ModelState, Float[Tensor, "S L"]]:
    after, surprises = [], []
    for begin in range(0, len(windows), AT_ONCE):
        chosen = slice(begin, min(begin + AT_ONCE, len(windows)))
        batch = on_device(_read_only(windows.__getitems__(range(chosen.start, chosen.stop)), network), network)
        _, state, surprise = network.carry(**inputs_of(batch), states=states.select(chosen))
        after.append(state)
        surprises.append(surprise.cpu())
    return _joined(after), torch.cat(surprises)


def _read_only(batch: Batch, network: PanelForecaster) -> Batch:
    """A block that is only read has no known covariates ahead; the forecast they would serve is not looked at."""
    if "future_features" in batch:
        batch["future_features"] = batch["future_features"].new_zeros(
            len(batch["index"]), network.horizon, batch["future_features"].shape[-1]
        )
    return batch


def _joined(states: list[ModelState]) -> ModelState:
    parts = zip(*(state.tensors() for state in states), strict=True)
    whole = (torch.cat(tensors) for tensors in parts)
    return states[0].map(lambda tensor: next(whole))


def _placed(states: ModelState, new: ModelState, rows: Int[np.ndarray, " S"]) -> ModelState:
    """The states with those of some samples replaced."""
    whole, index = iter(states.tensors()), torch.from_numpy(rows)
    return new.map(lambda tensor: next(whole).index_copy(0, index.to(tensor.device), tensor))


@torch.inference_mode()
def surprise_of(network: PanelForecaster, panel: Panel, scaling: PanelScaling) -> Float[np.ndarray, " R"]:
    """How much each row of each series surprised a memory that reads them from the first on: [R].

    The rows after the last full block are read in the block that ends with the last row, from the state before it.
    """
    found, length = np.empty(len(panel.target)), network.lookback
    done = np.zeros(len(panel), dtype=np.int64)
    end = Stream.begin(network, panel, scaling)
    for end, which, surprise in end.reading(network):  # noqa: B020  the last one is what is left
        for i, values in zip(which, surprise.double().numpy(), strict=True):
            at = panel.offsets[i] + done[i]
            found[at : at + length] = values
        done[which] += length
    left = np.flatnonzero(done < panel.lengths)
    if len(left):
        windows = PanelWindows(end.rows, scaling, length, 0, (left, end.rows.lengths[left]))
        _, surprise = _carried(network, windows, end.before.select(torch.from_numpy(left)))
        for i, values in zip(left, surprise.double().numpy(), strict=True):
            rest = panel.lengths[i] - done[i]
            found[panel.offsets[i + 1] - rest : panel.offsets[i + 1]] = values[length - rest :]
    return found
