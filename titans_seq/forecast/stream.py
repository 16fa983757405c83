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
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from titans_seq.blocks import ModelState
from titans_seq.datamodules.common.loaders import Batch
from titans_seq.datamodules.forecast.panel import Columns, Panel, pack_panel, unpack_panel
from titans_seq.datamodules.forecast.scaling import PanelScaling
from titans_seq.datamodules.forecast.windows import Anchors, Windows
from titans_seq.files import parse_json
from titans_seq.forecast.network import SimbaForecaster, inputs_of, on_device
from titans_seq.forecast.saving import WRONG, first_line
from titans_seq.model_folders import as_json
from titans_seq.state_io import ObservedState, load_state, save_state

AT_ONCE = 1024  # series per call of the network


@dataclass(frozen=True, eq=False)
class Stream:
    """What has been observed of B series.

    Args:
        rows: those a forecast may still need: from the last but two boundary of blocks on.
        blocks: [B], full blocks read.
        older, before, now: the memory's states at the last but two boundary, the last but one and the last.
        scaling: how the series are standardised, fixed at their first values.
    """

    rows: Panel
    blocks: Int[np.ndarray, " B"]
    older: ModelState
    before: ModelState
    now: ModelState
    scaling: PanelScaling

    @classmethod
    @torch.inference_mode()
    def begin(cls, network: SimbaForecaster, rows: Panel, scaling: PanelScaling) -> "Stream":
        """Nothing read yet: the learned states, and rows that wait."""
        fresh = network.fresh(len(rows))
        return cls(rows, np.zeros(len(rows), dtype=np.int64), fresh, fresh, fresh, scaling)

    def observe(self, network: SimbaForecaster, later: Panel) -> "Stream":
        """The stream with more rows; every block that they make full is read. This one stays as it is."""
        rows = self.rows.append(later)
        return replace(self, rows=rows, scaling=self.scaling.with_series(rows)).catch_up(network)

    def catch_up(self, network: SimbaForecaster) -> "Stream":
        """The stream with every full block read."""
        stream = self
        for stream, _, _ in self.reading(network):
            pass
        return stream

    @torch.inference_mode()
    def reading(
        self, network: SimbaForecaster
    ) -> Iterator[tuple["Stream", Int[np.ndarray, " S"], Float[Tensor, "S L"]]]:
        """Read the full blocks that wait, one of each series at a time: the stream after each round, which series,
        their surprise.
        """
        stream, length = self, network.lookback
        while len(full := np.flatnonzero(stream._unread(length) >= length)):
            first = stream._known(length)[full] + length
            windows = Windows(stream.rows, stream.scaling, length, 0, Anchors(full[:, None], first))
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
        which, chosen = torch.from_numpy(full), np.zeros(len(self.blocks), dtype=bool)
        chosen[full] = True
        dropped = np.where(chosen & (self.blocks > 1), length, 0)
        return replace(
            self,
            rows=self.rows.rows(dropped, self.rows.lengths),
            blocks=self.blocks + chosen,
            older=_placed(self.older, self.before.select(which), full),
            before=_placed(self.before, self.now.select(which), full),
            now=_placed(self.now, after, full),
        )


def _carried(network: SimbaForecaster, windows: Windows, state: ModelState) -> tuple[ModelState, Float[Tensor, "S L"]]:
    after, surprises = [], []
    for begin in range(0, len(windows), AT_ONCE):
        chosen = slice(begin, min(begin + AT_ONCE, len(windows)))
        batch = on_device(_read_only(windows.__getitems__(range(chosen.start, chosen.stop)), network), network)
        _, new, surprise = network.carry(**inputs_of(batch), state=state.select(chosen))
        after.append(new)
        surprises.append(surprise.cpu())
    return _joined(after), torch.cat(surprises)


def _read_only(batch: Batch, network: SimbaForecaster) -> Batch:
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


def _placed(state: ModelState, new: ModelState, rows: Int[np.ndarray, " S"]) -> ModelState:
    """The states with those of some samples replaced."""
    whole, index = iter(state.tensors()), torch.from_numpy(rows)
    return new.map(lambda tensor: next(whole).index_copy(0, index.to(tensor.device), tensor))


@torch.inference_mode()
def surprise_of(network: SimbaForecaster, panel: Panel, scaling: PanelScaling) -> Float[np.ndarray, " R"]:
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
        windows = Windows(end.rows, scaling, length, 0, Anchors(left[:, None], end.rows.lengths[left]))
        _, surprise = _carried(network, windows, end.before.select(torch.from_numpy(left)))
        for i, values in zip(left, surprise.double().numpy(), strict=True):
            rest = panel.lengths[i] - done[i]
            found[panel.offsets[i + 1] - rest : panel.offsets[i + 1]] = values[length - rest :]
    return found


# files ----------------------------------------------------------------------------------------------------------------


def save_stream(stream: Stream, network: nn.Module, path: Path) -> Path:
    """Write what was observed, and which weights the memory's state belongs to.

    Raises:
        ValueError: the path is no file in a folder that exists.
        OSError: the disk is full, or refuses it.
    """
    header, arrays = pack_panel(stream.rows)
    arrays |= {"scales": stream.scaling.of_target(stream.rows), "blocks": stream.blocks}
    header["arrays"] = list(arrays)
    tensors = tuple(torch.from_numpy(array) for array in arrays.values())
    state = ObservedState(stream.older, stream.before, stream.now, as_json(header), tensors)
    save_state(path, state, model=network)
    return path


def load_stream(path: Path, network: nn.Module, columns: Columns, scaling: PanelScaling) -> Stream:
    """Read what `save_stream` wrote; columns and scaling: of the forecaster."""
    state = load_state(path, model=network)
    if not isinstance(state, ObservedState):
        raise ValueError(f"{path} holds no observations of a forecaster")
    header = parse_json(state.header, str(path))
    try:
        arrays = {name: tensor.numpy() for name, tensor in zip(header["arrays"], state.rows, strict=True)}
        rows = unpack_panel(header, arrays, columns)
        own = replace(scaling, scales=pd.DataFrame(arrays["scales"], index=rows.ids, columns=["mean", "scale"]))
        blocks = arrays["blocks"]
    except WRONG as error:
        raise ValueError(f"{path} is damaged: {first_line(error)}") from None
    device = next(network.parameters()).device
    older, before, now = (each.to(device) for each in (state.older, state.before, state.now))
    return Stream(rows, blocks, older, before, now, own)
