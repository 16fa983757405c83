"""The forward kernel: `walk` goes through the chunks of a group one by one, reads them and writes the state.

    keys, at the chunk's start weights W (names as in `groups.py`):
        h_0 = k,  z_l = h_{l-1} W_l^T,  h_l = silu(z_l),  delta_L = 2 (h_{L-1} W_L^T - v)
        pulled_l = delta_{l+1} W_{l+1},  delta_l = pulled_l silu'(z_l)
        surprise = hypot over l of ||delta_l|| ||h_{l-1}||,  minus_step = -theta min(1, max_surprise / surprise)
    reading, x_0 = q:
        zx_l = beta x W_l^T + f x S_l^T + ((x h_{l-1}^T) * A minus_step) delta_l,  x_l = silu(zx_l),  y = zx_L
    writing:
        W'_l = beta W_l + f S_l + delta_l^T (ended_M h_{l-1}),  S'_l = e S_l + delta_l^T (ended_S h_{l-1})

One program owns a sample and head. Its state goes through memory (the L2 cache) tile by tile, so it may be larger than
a program's registers or shared memory: at expansion 4 and depth 2 weights and momentum of a head are 256 KiB. A tile of
them is loaded once for reading and writing. Forward the state moves on in place and nothing else of a chunk is left
behind but y and surprise; backward runs the same kernel again and keeps all that it needs (KEEP).

Plan, per chunk and head, P numbers in W, P_1 in its first layer, widths (in, out) of its layers:
    2 C P (keys forward) + 2 C (P - P_1) (backward) + 4 C P (writing) + 4 C P + 2 C C sum(in + out) (reading)
    operations; W is read three times (its first layer twice), S once, both are written once.
K = 64, expansion 4, depth 2, C = 64, bfloat16, tiles of 64: 28 million operations; loads .46 MB of state and .70 MB of
activations, which products take from memory activated and in the tokens' dtype (`Scratch`); stores .26 and .22 MB.

Dimensions: G samples and heads, g chunks of a group; the rest as in `triton_tiles.py`.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from titans_seq.kernels.triton_tiles import (
    factors_of,
    load_columns,
    load_inner,
    load_outer,
    load_row,
    load_weight,
    product,
    silu_slope,
    store_outer,
    store_row,
    store_tile,
    store_weight,
)


class Scratch(NamedTuple):
    """Room for one chunk, per sample and head, in the tokens' dtype: what products are made of again and again.

    h, delta, x: [C, (L - 1) HID]; silu of z and of zx, and the delta of hidden layers.
    """

    h: Any
    delta: Any
    x: Any


class Place(NamedTuple):
    """Where a chunk finds what it needs beside its factors: tokens, its part of `GateTable`, the state before and after
    it.
    """

    q: Any
    k: Any
    v: Any
    h: Any
    delta: Any
    x: Any
    zx: Any
    y: Any
    overlap: Any
    start: Any
    written: Any
    end_start: Any
    end_written: Any
    before: Any
    after: Any


@triton.jit
def hypot(a, b):
    """sqrt(a^2 + b^2) of a, b >= 0, without squares that overflow."""
    large = tl.maximum(a, b)
    ratio = tl.minimum(a, b) / tl.where(large > 0, large, 1.0)
    return large * tl.sqrt(1 + ratio * ratio)


@triton.jit
def keys(p_w, f, at, KEEP: tl.constexpr, d):
    """The keys' passes at the weights p_w: z, pulled, last and norms, h and delta."""
    norm = tl.zeros([d.BC], d.ACC)
    for i in range(0, d.K, d.B):
        k = load_inner(at.k, at.h, i, 0, d)
        norm += tl.sum(k * k, 1)
    store_row(f.norms, tl.sqrt(norm), 1, d)
    for l in tl.static_range(d.L):
        norm = tl.zeros([d.BC], d.ACC)
        for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            z = tl.zeros([d.BC, d.B], d.ACC)
            for i in range(0, d.K if l == 0 else d.HID, d.B):
                z = product(load_inner(at.k, at.h, i, l, d), tl.trans(load_weight(p_w, o, i, l, d)), z, d)
            if l < d.L - 1:
                h = z * tl.sigmoid(z)
                store_outer(at.h, f.last, h, o, l, d)
            else:
                z = 2 * (z - load_outer(f.z, at.v, o, l, d))
                h = z  # no more than its norm is needed
            store_outer(f.z, f.last, z, o, l, d)
            norm += tl.sum(h * h, 1)
        store_row(f.norms + (l + 1 if l < d.L - 1 else 2 * d.L - 1) * d.C, tl.sqrt(norm), 1, d)
        tl.debug_barrier()
    for l in tl.static_range(d.L - 2, -1, -1):
        norm = tl.zeros([d.BC], d.ACC)
        for i in range(0, d.HID, d.B):
            pulled = tl.zeros([d.BC, d.B], d.ACC)
            for o in range(0, d.V if l == d.L - 2 else d.HID, d.B):
                delta = load_outer(at.delta, f.last, o, l + 1, d)
                pulled = product(delta, load_weight(p_w, o, i, l + 1, d), pulled, d)
            if KEEP:
                store_outer(f.pulled, f.last, pulled, i, l, d)
            delta = pulled * silu_slope(load_outer(f.z, f.last, i, l, d))
            store_outer(at.delta, f.last, delta, i, l, d)
            norm += tl.sum(delta * delta, 1)
        store_row(f.norms + (d.L + l) * d.C, tl.sqrt(norm), 1, d)
        tl.debug_barrier()


@triton.jit
def read_steps(o, l: tl.constexpr, f, at, d):
    """What layer l is read as from what the tokens of this chunk have written so far."""
    out = tl.zeros([d.BC, d.B], d.ACC)
    for c in range(0, d.C, d.T):
        step = load_columns(at.written, c, d) * load_row(f.minus_step, 1, d, c, d.T)[None, :]
        attention = load_columns(at.overlap + l * d.C * d.C, c, d) * step
        out = product(attention, load_outer(at.delta, f.last, o, l, d, c, d.T), out, d)
    return out


@triton.jit
def use_tile(by_w, by_s, o, i, l: tl.constexpr, f, at, KEEP: tl.constexpr, d):
    """A tile of layer l comes into registers once, for what x reads from it and for what delta and h make of it."""
    w, s = load_weight(at.before, o, i, l, d), load_weight(at.before + d.P, o, i, l, d)
    x = load_inner(at.q, at.x, i, l, d)
    by_w, by_s = product(x, tl.trans(w), by_w, d), product(x, tl.trans(s), by_s, d)
    w, s = tl.load(at.end_start) * w + tl.load(at.end_start + 1) * s, tl.load(at.end_start + 2) * s
    for c in range(0, d.C, d.T):
        minus_step = load_row(f.minus_step, 1, d, c, d.T)
        ended_m = minus_step * load_row(at.end_written, 1, d, c, d.T)
        ended_s = minus_step * load_row(at.end_written + d.C, 1, d, c, d.T)
        delta, h = tl.trans(load_outer(at.delta, f.last, o, l, d, c, d.T)), load_inner(at.k, at.h, i, l, d, c, d.T)
        w, s = product(delta, ended_m[:, None] * h, w, d), product(delta, ended_s[:, None] * h, s, d)
    if not KEEP:
        tl.debug_barrier()  # before what other threads may still load is overwritten
    store_weight(at.after, w, o, i, l, d)
    store_weight(at.after + d.P, s, o, i, l, d)
    return by_w, by_s


@triton.jit
def read_and_write(f, at, KEEP: tl.constexpr, d):
    """Reads a chunk and writes the state after it, layer by layer.

    Products that feed each other stand in loops of their own, if only of one round: Triton lays out a product that
    directly feeds another so that all warps share the slots, and with more warps than slots / 16 some would do the
    same.
    """
    overlap = tl.zeros([d.BC, d.BC], d.ACC)
    for i in range(0, d.K, d.B):
        overlap = product(load_inner(at.q, at.x, i, 0, d), tl.trans(load_inner(at.k, at.h, i, 0, d)), overlap, d)
    for l in tl.static_range(d.L):
        store_tile(at.overlap + l * d.C * d.C, overlap, 0, 0, d.C, d.C, d.C, d.BC, d.BC, d)
        tl.debug_barrier()
        overlap = tl.zeros([d.BC, d.BC], d.ACC)
        for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            by_w, by_s = tl.zeros([d.BC, d.B], d.ACC), tl.zeros([d.BC, d.B], d.ACC)
            for i in range(0, d.K if l == 0 else d.HID, d.B):
                by_w, by_s = use_tile(by_w, by_s, o, i, l, f, at, KEEP, d)
            zx = load_row(at.start, 2, d)[:, None] * by_w + load_row(at.start + 1, 2, d)[:, None] * by_s
            zx += read_steps(o, l, f, at, d)
            if l < d.L - 1:
                x = zx * tl.sigmoid(zx)
                store_outer(at.x, at.y, x, o, l, d)
                overlap = product(x, tl.trans(load_outer(at.h, at.y, o, l, d)), overlap, d)
            if KEEP != (l == d.L - 1):
                store_outer(at.zx, at.y, zx, o, l, d)


@triton.jit
def copy(p_from, p_to, numbers, SIZE: tl.constexpr):
    for first in range(0, numbers, SIZE):
        o = first + tl.arange(0, SIZE)
        tl.store(p_to + o, tl.load(p_from + o, o < numbers), o < numbers)


@triton.jit(do_not_specialize=["groups", "chunks"])
def walk(
    p_q, p_k, p_v, p_theta, table, p_start, p_place, p_stood, p_pairs, factors, scratch, p_zx, p_overlap, p_y, groups,
    chunks, max_surprise, CLIP: tl.constexpr, KEEP: tl.constexpr, d,
):  # fmt: skip
    """One program per sample and head.

    q, k [g, G, C, K], v [g, G, C, V], theta [g, G, C], table: `GateTable`, start [G, P]: where the first chunk takes
    its gradient.
    Written: surprise, and
    KEEP, for backward: pairs [g + 1, G, 2, P] behind the first row, which holds the state before the group; `factors`
        [g, G, ...], zx [g, G, C, (L - 1) HID] and overlap [g, G, L, C, C], x_t . h_i of each layer.
    Else: y [g, G, C, V], pairs [G, 2, P] in place, and stood [G, P], the weights before chunk `place` [G] of the group,
        if there is such a chunk. Factors and zx have room for one chunk.
    """
    i_g = tl.program_id(0)
    for n in range(chunks):
        at = (n * groups + i_g).to(tl.int64)
        room = at if KEEP else i_g.to(tl.int64)
        f = factors_of(factors, at, room, d)
        own = i_g.to(tl.int64) * d.C * (d.L - 1) * d.HID
        hidden, squares = room * d.C * (d.L - 1) * d.HID, room * d.L * d.C * d.C
        p_before, p_after = p_pairs + room * 2 * d.P, p_pairs + room * 2 * d.P
        if KEEP:
            p_after += groups.to(tl.int64) * 2 * d.P
        elif n == tl.load(p_place + i_g):
            copy(p_before, p_stood + room * d.P, d.P, 1024)
        place = Place(
            p_q + at * d.C * d.K,
            p_k + at * d.C * d.K,
            p_v + at * d.C * d.V,
            scratch.h + own,
            scratch.delta + own,
            scratch.x + own,
            p_zx + hidden,
            p_y + at * d.C * d.V,
            p_overlap + squares,
            table.start + at * d.C * 2,
            table.written + at * d.C * d.C,
            table.end_start + at * 3,
            table.end_written + at * 2 * d.C,
            p_before,
            p_after,
        )
        if n == 0:
            p_w = p_start + at * d.P
        else:
            p_w = p_before
        keys(p_w, f, place, KEEP, d)
        surprise = tl.zeros([d.BC], d.ACC)
        for l in tl.static_range(d.L):
            norm_h, norm_delta = load_row(f.norms + l * d.C, 1, d), load_row(f.norms + (d.L + l) * d.C, 1, d)
            surprise = hypot(surprise, norm_h * norm_delta)
        minus_step = -load_row(p_theta + at * d.C, 1, d)
        if CLIP:
            minus_step = minus_step * (max_surprise / tl.maximum(surprise, max_surprise))
        store_row(f.surprise, surprise, 1, d)
        store_row(f.minus_step, minus_step, 1, d)
        tl.debug_barrier()
        read_and_write(f, place, KEEP, d)
        tl.debug_barrier()
