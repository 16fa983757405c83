"""Some chunks in sequence: their keys, their writes, their readings, and the gradients of all that.

What must go from chunk to chunk does (the keys' two passes at the start weights, the update); readings and what they
leave in backward are computed for all chunks of a group at once. Names follow `reference.py`: h and delta are the two
factors of a token's gradient u = delta h^T, layer by layer. `written` (and `ended`, its last rows) are the weights of
these gradients in
the sums of `gates.py`, with step and sign: -A step. DESIGN's A includes theta, the table's does not.

Dimensions: g chunks of the group, G samples and heads, C slots of a chunk, n and m the narrow and wide side of a layer.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from titans_seq.kernels.gates import GateTable
from titans_seq.kernels.layers import Layer, by_weights, by_wide, per_matrix, scaled, weighted_sum


class Group:
    """Start states of the chunks, factors delta_i h_i^T of their tokens, and the weights of their sums.

    Chunks lead in every field; lists have one entry per layer, or per hidden layer.
    """

    def __init__(
        self, layers: Sequence[Layer], pairs: Sequence[Tensor], start: Sequence[Tensor], k: Tensor, v: Tensor,
        theta: Tensor, gates: GateTable, max_surprise: float | None, *, end: bool,
    ) -> None:  # fmt: skip
        """k, v, theta: [g, G, C, ...]. pairs: state before the group. start: where the first chunk takes its inner
        gradient; the others do at the weights they start with. end: whether the state after the group is wanted."""
        size = len(k)
        self.layers, self.gates, self.theta, self.starts = layers, gates, theta, [list(start)]
        self.pairs = [p.new_empty(size + 1, *p.shape) for p in pairs]  # the last: after the group
        widths = [layer.forward(w).shape[-1] for layer, w in zip(layers[:-1], start[:-1], strict=True)]
        hidden = [[k.new_empty(*k.shape[:-1], width) for width in widths] for _ in range(5)]
        self.inputs, self.deltas = [k, *hidden[0]], [*hidden[1], torch.empty_like(v)]  # h and delta
        self.gate, self.slope, self.pulled = hidden[2:]  # sigmoid and slope of silu, error behind it
        self.input_norms = [_norm(k), *(torch.empty_like(theta) for _ in widths)]
        self.delta_norms = [torch.empty_like(theta) for _ in layers]
        self.surprise, self.clip, self.minus_step = (
            torch.empty_like(theta),
            torch.ones_like(theta),
            torch.empty_like(theta),
        )
        self.ended = theta.new_empty(*theta.shape, 2)  # -(last rows of A and E) step [g, G, C, 2]
        self.scaled = [theta.new_empty(*theta.shape, 2 * p.shape[2]) for p in pairs]
        for buffer, pair in zip(self.pairs, pairs, strict=True):
            buffer[0] = pair
        end_written = gates.end_written.mT
        for i in range(size):
            self._keys(i, self.starts[i], v[i])
            self._surprise(i, max_surprise)
            torch.mul(end_written[i], self.minus_step[i][..., None], out=self.ended[i])
            self._write(i, end or i + 1 < size)

    def _keys(self, i: int, start: list[Tensor], v: Tensor) -> None:
        """Forward and backward pass of the keys."""
        layers, inputs, deltas = self.layers, self.inputs, self.deltas
        for l in range(len(layers) - 1):
            z = torch.bmm(inputs[l][i], layers[l].forward(start[l]))
            gate = torch.sigmoid(z, out=self.gate[l][i])
            h = torch.mul(z, gate, out=inputs[l + 1][i])
            torch.lerp(h, h.new_ones(()), gate, out=self.slope[l][i])  # h + gate (1 - h)
            _norm(h, out=self.input_norms[l + 1][i])
        # eq. 12: 2 (M(k) - v)
        torch.baddbmm(v, inputs[-1][i], layers[-1].forward(start[-1]), beta=-2, alpha=2, out=deltas[-1][i])
        for l in reversed(range(len(layers) - 1)):
            torch.bmm(deltas[l + 1][i], layers[l + 1].backward(start[l + 1]), out=self.pulled[l][i])
            torch.mul(self.pulled[l][i], self.slope[l][i], out=deltas[l][i])
        for delta, norm in zip(deltas, self.delta_norms, strict=True):
            _norm(delta[i], out=norm[i])

    def _surprise(self, i: int, max_surprise: float | None) -> None:
        """||u||, and what theta is multiplied with."""
        norms = [a[i] * b[i] for a, b in zip(self.input_norms, self.delta_norms, strict=True)]
        self.surprise[i] = functools.reduce(torch.hypot, norms)
        if max_surprise is not None:
            torch.div(max_surprise, self.surprise[i].clamp_min(max_surprise), out=self.clip[i])
        torch.mul(self.theta[i], self.clip[i], out=self.minus_step[i]).neg_()

    def _write(self, i: int, asked: bool) -> None:
        """Weights and momentum after the chunk's last slot."""
        beta, f, e = self.gates.end_start[i].T[..., None, None]
        for l, layer in enumerate(self.layers):
            narrow, wide = layer.sides(self.inputs[l][i], self.deltas[l][i])
            scaled(self.ended[i], narrow, out=self.scaled[l][i])
            if asked:  # eq. 13, 14 and 16-18 at the last slot
                before, after = self.pairs[l][i], self.pairs[l][i + 1]
                torch.mul(before[:, 0], beta, out=after[:, 0]).addcmul_(before[:, 1], f)
                torch.mul(before[:, 1], e, out=after[:, 1])
                after.flatten(1, 2).baddbmm_(self.scaled[l][i].mT, wide)
        if asked:  # copied: products with every other matrix of a tensor are slow
            self.starts.append([pair[i + 1, :, 0].clone(memory_format=torch.contiguous_format) for pair in self.pairs])


class Reading(NamedTuple):
    """What the readings of a group leave for backward, layer by layer; X = g * G."""

    inputs: list[Tensor]  # what each layer is read with [X, C, in]
    zs: list[Tensor]  # before the silu of each hidden layer [X, C, hidden]
    overlaps: list[Tensor]  # x_t . h_i [X, C, C]
    attentions: list[Tensor]  # overlaps times `written`
    both: dict[int, Tensor]  # W_0 x and S_0 x, of layers that do not rise [X, C, 2 out]
    written: Tensor  # -A step [X, C, C]
    y: Tensor  # [g, G, C, V]


def read(group: Group, q: Tensor) -> Reading:
    """M_t(q_t), eq. 15: W_t x = beta_t W_0 x + f_t S_0 x + what the chunk wrote up to t."""
    written = (group.gates.written * group.minus_step[..., None, :]).flatten(0, 1)
    start, x = group.gates.start.flatten(0, 1), q.flatten(0, 1)
    reading = Reading([], [], [], [], {}, written, x)
    for i, layer in enumerate(group.layers):
        if i > 0:
            reading.zs.append(x)
            x = F.silu(x)
        h, delta, pair = group.inputs[i].flatten(0, 1), group.deltas[i].flatten(0, 1), group.pairs[i][:-1].flatten(0, 1)
        reading.inputs.append(x)
        reading.overlaps.append(torch.bmm(x, h.mT))
        reading.attentions.append(reading.overlaps[i] * written)
        if layer.rising:
            x = by_wide(pair, scaled(start, x))
        else:
            reading.both[i] = per_matrix(pair, x)
            x = weighted_sum(start, reading.both[i])
        x.baddbmm_(reading.attentions[i], delta)
    return reading._replace(y=x.unflatten(0, q.shape[:2]))


class GroupBackward:
    """Gradients of a group: its readings at once, then chunk by chunk from the last, then what is left at once.

    `d_x` is the gradient of the field x of `Group`, of `Reading` or of the gate table (`d_start`). `d_pairs[i]` is
    complete when chunk i is.
    """

    def __init__(
        self, group: Group, reading: Reading, d_y: Tensor, d_surprise: Tensor, d_pairs: Sequence[Tensor]
    ) -> None:
        """The gradient of `read`. d_y: [g, G, C, V]. d_pairs: of the state after the group."""
        self.group, self.d_surprise = group, d_surprise.clone()
        self.d_pairs = [torch.empty_like(pair) for pair in group.pairs]
        self.d_ended, self.d_start = torch.zeros_like(group.ended), torch.zeros_like(group.gates.start)
        self.d_written = torch.zeros_like(reading.written)
        self.d_inputs: list[Tensor] = []
        self.d_deltas: list[Tensor] = []
        d_x = d_y.flatten(0, 1)
        for l in reversed(range(len(group.layers))):
            d_x = self._read_layer(l, reading, d_x)
            d_x = torch.ops.aten.silu_backward(d_x, reading.zs[l - 1]) if l > 0 else d_x
        self.d_q = d_x.view_as(group.inputs[0])
        self.d_written = self.d_written.view_as(group.gates.written)
        self.d_step = -(self.d_written * group.gates.written).sum(dim=-2)
        for buffer, d_pair in zip(self.d_pairs, d_pairs, strict=True):
            buffer[-1] = d_pair
        self._shared_factors()

    def _read_layer(self, l: int, reading: Reading, d_y: Tensor) -> Tensor:
        """The gradient of one layer's reading; returns that of what it was read with [X, C, in]."""
        group, layer, x = self.group, self.group.layers[l], reading.inputs[l]
        h, delta, pair = group.inputs[l].flatten(0, 1), group.deltas[l].flatten(0, 1), group.pairs[l][:-1].flatten(0, 1)
        start = group.gates.start.flatten(0, 1)
        narrow, wide = layer.sides(x, d_y)
        both, scaled_narrow = per_matrix(pair, wide) if layer.rising else reading.both[l], scaled(start, narrow)
        self.d_start += by_weights(narrow, both).view_as(self.d_start)
        torch.bmm(scaled_narrow.mT, wide, out=self.d_pairs[l][:-1].flatten(0, 1).flatten(1, 2))
        d_x = weighted_sum(start, both) if layer.rising else by_wide(pair, scaled_narrow)
        d_attention = torch.bmm(d_y, delta.mT)
        self.d_written.addcmul_(d_attention, reading.overlaps[l])
        d_overlap = d_attention * reading.written
        self.d_deltas.insert(0, torch.bmm(reading.attentions[l].mT, d_y).view_as(group.deltas[l]))
        self.d_inputs.insert(0, torch.bmm(d_overlap.mT, x).view_as(group.inputs[l]))
        return d_x.baddbmm_(d_overlap, h)

    def _shared_factors(self) -> None:
        """What the chunks need that does not depend on the gradients of later ones."""
        group = self.group
        over_surprise = torch.where(group.surprise > torch.finfo(group.theta.dtype).tiny, 1 / group.surprise, 0.0)
        # clip = max_surprise / max(surprise, max_surprise)
        self.clip_slope = torch.where(group.clip < 1, group.minus_step * over_surprise, 0.0)
        # surprise^2 = sum of (||delta|| ||h||)^2; at surprise 0 the gradient is 0
        self.to_inputs, self.to_deltas = (
            [norm * over_surprise * norm for norm in norms] for norms in (group.delta_norms, group.input_norms)
        )
        # silu'' = g + s (1 - 2 g), with the sigmoid g and the slope s
        self.curved = [
            torch.addcmul(gate, slope, torch.rsub(gate, 1, alpha=2)).mul_(pulled)
            for gate, slope, pulled in zip(group.gate, group.slope, group.pulled, strict=True)
        ]

    def chunk(self, i: int) -> list[Tensor]:
        """Adds to the gradient of chunk i's start state; returns that of where it took its gradient."""
        self._write(i)
        self._step(i)
        return self._keys(i)

    def _write(self, i: int) -> None:
        group = self.group
        beta, f, e = group.gates.end_start[i].T[..., None, None]
        for l, layer in enumerate(group.layers):
            d_pair, d_next = self.d_pairs[l][i], self.d_pairs[l][i + 1]
            d_pair[:, 0].addcmul_(d_next[:, 0], beta)
            d_pair[:, 1].addcmul_(d_next[:, 0], f).addcmul_(d_next[:, 1], e)
            narrow, wide = layer.sides(group.inputs[l][i], group.deltas[l][i])
            d_narrow, d_wide = layer.sides(self.d_inputs[l][i], self.d_deltas[l][i])
            d_scaled = per_matrix(d_next, wide)
            d_wide.baddbmm_(group.scaled[l][i], d_next.flatten(1, 2))
            d_narrow += weighted_sum(group.ended[i], d_scaled)
            self.d_ended[i] += by_weights(narrow, d_scaled)

    def _step(self, i: int) -> None:
        """Step and surprise."""
        group = self.group
        self.d_step[i] -= (self.d_ended[i] * group.gates.end_written[i].mT).sum(dim=-1)
        self.d_surprise[i].addcmul_(self.d_step[i], self.clip_slope[i])
        for l in range(len(group.layers)):
            self.d_inputs[l][i].addcmul_(group.inputs[l][i], (self.to_inputs[l][i] * self.d_surprise[i])[..., None])
            self.d_deltas[l][i].addcmul_(group.deltas[l][i], (self.to_deltas[l][i] * self.d_surprise[i])[..., None])

    def _keys(self, i: int) -> list[Tensor]:
        """The keys' two passes; returns the gradient of the weights they went through."""
        group, layers, start = self.group, self.group.layers, self.group.starts[i]
        d_start: list[Tensor] = []
        for l, slope in enumerate(group.slope):  # the errors came from the last layer to the first
            d_pulled = self.d_deltas[l][i] * slope[i]
            self.d_deltas[l + 1][i].baddbmm_(d_pulled, layers[l + 1].forward(start[l + 1]))
            narrow, wide = layers[l + 1].sides(d_pulled, group.deltas[l + 1][i])
            d_start.append(torch.bmm(narrow.mT, wide))
        d_out = 2 * self.d_deltas[-1][i]
        for l in reversed(range(len(layers))):
            narrow, wide = layers[l].sides(group.inputs[l][i], d_out)
            d_input = self.d_inputs[l][i].baddbmm_(d_out, layers[l].backward(start[l]))
            if l == 0:
                d_start.insert(0, torch.bmm(narrow.mT, wide))
            else:
                d_start[l - 1].baddbmm_(narrow.mT, wide)
                d_out = (self.d_deltas[l - 1][i] * self.curved[l - 1][i]).addcmul_(d_input, group.slope[l - 1][i])
        return d_start

    def tokens(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of q, k, v and theta."""
        return self.d_q, self.d_inputs[0], -2 * self.d_deltas[-1], self.d_step * self.group.clip

    def gates(self) -> GateTable:
        """Gradient of the gate table."""
        group = self.group
        minus_step = group.minus_step[..., None, :]
        d_end_start = torch.zeros_like(group.gates.end_start)
        for pair, d_pair in zip(group.pairs, self.d_pairs, strict=True):
            overlap = torch.matmul(d_pair[1:].flatten(3), pair[:-1].flatten(3).mT)  # [g, G, 2 after, 2 before]
            d_end_start += torch.stack([overlap[..., 0, 0], overlap[..., 0, 1], overlap[..., 1, 1]], dim=-1)
        return GateTable(self.d_start, self.d_written * minus_step, d_end_start, self.d_ended.mT * minus_step)


def _norm(x: Float[Tensor, "*G W"], out: Tensor | None = None) -> Float[Tensor, "*G"]:
    return torch.linalg.vector_norm(x, dim=-1, out=out)
