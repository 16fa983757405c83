"""Backward kernels: `read_backward` of all chunks of a group at once, then `walk_backward` from the last chunk to the
first.

They need what the forward kernels left; names follow `GroupBackward` in `groups.py`, d_x is the gradient of x.

Plan, per chunk and head, P numbers in W, P_1 in its first layer, widths (in, out) of its layers:
    read_backward: 8 C P + 4 C C sum(in + out) operations; W and S read, their gradients written.
    walk_backward: 8 C P (update) + 4 C P + 4 C (P - P_1) (keys) operations; W read four times, S once, their gradients
        after the chunk twice, those before it once and written twice.
K = 64, expansion 4, depth 2, C = 64: 27 and 29 million operations, .5 and 1.2 MB of state through L2; loads and stores
in all, activations anew for every tile, 2.9 and 5.3 MB.

Dimensions: as in `triton_forward.py`.
"""

import triton
import triton.language as tl

from titans_seq.kernels.triton_tiles import (
    factor_gradients_of,
    factors_of,
    load_columns,
    load_delta,
    load_inner,
    load_input,
    load_outer,
    load_row,
    load_rows_as_columns,
    load_square,
    load_weight,
    product,
    silu_curvature,
    silu_slope,
    store_inner,
    store_outer,
    store_row,
    store_tile,
    store_weight,
)


@triton.jit
def squares_backward(p_written, p_overlap, p_d_written, p_d_overlap, p_d_out, p_d_y, minus_step, f, l: tl.constexpr, d):
    """Of one layer's attention = overlap * A minus_step: overlap becomes attention; d_overlap; adds to d_written, of A
    minus_step.
    """
    d_attention = tl.zeros([d.BC, d.BC], d.ACC)
    for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
        d_attention = product(load_outer(p_d_out, p_d_y, o, l, d), tl.trans(load_delta(f, o, l, d)), d_attention, d)
    overlap, written = load_square(p_overlap, d), load_square(p_written, d) * minus_step[None, :]
    d_written = d_attention * overlap
    if l < d.L - 1:
        d_written += load_square(p_d_written, d)
    tl.debug_barrier()  # before what other threads may still load is overwritten
    store_tile(p_d_written, d_written, 0, 0, d.C, d.C, d.C, d.BC, d.BC, d)
    store_tile(p_overlap, overlap * written, 0, 0, d.C, d.C, d.C, d.BC, d.BC, d)
    store_tile(p_d_overlap, d_attention * written, 0, 0, d.C, d.C, d.C, d.BC, d.BC, d)
    tl.debug_barrier()


@triton.jit(do_not_specialize=["groups"])
def read_backward(
    p_q,
    p_k,
    table,
    p_pairs,
    factors,
    p_zx,
    p_overlap,
    p_d_y,
    p_d_zx,
    p_d_overlap,
    p_d_q,
    gradients,
    p_d_pairs,
    d_table,
    p_d_step,
    groups,
    d,
):
    """One program per sample, head and chunk, from d_y [g, G, C, V].

    Written: d_q [g, G, C, K], gradients: `FactorGradients` [g, G, ...], d_pairs[n] [G, 2, P], d_table.start and
    .written, d_step [g, G, C]. Room to work in: d_zx [g, G, C, (L - 1) HID], d_overlap [g, G, C, C]; overlap is used
    up.
    """
    dtype = d.ACC
    at = (tl.program_id(1) * groups + tl.program_id(0)).to(tl.int64)
    f, g = factors_of(factors, at, at, d), factor_gradients_of(gradients, at, d)
    p_w, p_d_w, p_d_overlap = p_pairs + at * 2 * d.P, p_d_pairs + at * 2 * d.P, p_d_overlap + at * d.C * d.C
    p_q, p_k, p_d_q, p_d_y = p_q + at * d.C * d.K, p_k + at * d.C * d.K, p_d_q + at * d.C * d.K, p_d_y + at * d.C * d.V
    p_zx, p_d_zx = p_zx + at * d.C * (d.L - 1) * d.HID, p_d_zx + at * d.C * (d.L - 1) * d.HID
    p_written, p_d_written = table.written + at * d.C * d.C, d_table.written + at * d.C * d.C
    p_start = table.start + at * d.C * 2
    d_beta, d_keep = tl.zeros([d.BC], dtype), tl.zeros([d.BC], dtype)
    for l in tl.static_range(d.L - 1, -1, -1):
        p_square = p_overlap + (at * d.L + l) * d.C * d.C
        minus_step = load_row(f.minus_step, 1, d)
        squares_backward(p_written, p_square, p_d_written, p_d_overlap, p_d_zx, p_d_y, minus_step, f, l, d)
        for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            d_delta = tl.zeros([d.BC, d.B], dtype)
            for c in range(0, d.BC, d.T):
                attention = load_rows_as_columns(p_square, c, d)
                d_delta = product(attention, load_outer(p_d_zx, p_d_y, o, l, d, c, d.T), d_delta, d)
            store_outer(g.delta, g.last, d_delta, o, l, d)
        for i in range(0, d.K if l == 0 else d.HID, d.B):
            d_h = tl.zeros([d.BC, d.B], dtype)
            for c in range(0, d.BC, d.T):
                d_overlap = load_rows_as_columns(p_d_overlap, c, d)
                d_h = product(d_overlap, load_input(p_q, p_zx, i, l, d, c, d.T), d_h, d)
            store_inner(g.k, g.hidden, d_h, i, l, d)
            by_w, by_s = tl.zeros([d.BC, d.B], dtype), tl.zeros([d.BC, d.B], dtype)
            for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
                d_out = load_outer(p_d_zx, p_d_y, o, l, d)
                by_w = product(d_out, load_weight(p_w, o, i, l, d), by_w, d)
                by_s = product(d_out, load_weight(p_w + d.P, o, i, l, d), by_s, d)
            x = load_input(p_q, p_zx, i, l, d)
            d_beta += tl.sum(x * by_w, 1)
            d_keep += tl.sum(x * by_s, 1)
            d_x = load_row(p_start, 2, d)[:, None] * by_w + load_row(p_start + 1, 2, d)[:, None] * by_s
            for c in range(0, d.BC, d.T):
                d_x = product(load_columns(p_d_overlap, c, d), load_input(p_k, f.z, i, l, d, c, d.T), d_x, d)
            if l > 0:
                d_x *= silu_slope(load_inner(p_q, p_zx, i, l, d))
            store_inner(p_d_q, p_d_zx, d_x, i, l, d)
        for i in range(0, d.K if l == 0 else d.HID, d.B):
            for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
                d_w, d_s = tl.zeros([d.B, d.B], dtype), tl.zeros([d.B, d.B], dtype)
                for c in range(0, d.BC, d.T):
                    d_out, x = load_outer(p_d_zx, p_d_y, o, l, d, c, d.T), load_input(p_q, p_zx, i, l, d, c, d.T)
                    d_w = product(tl.trans(load_row(p_start, 2, d, c, d.T)[:, None] * d_out), x, d_w, d)
                    d_s = product(tl.trans(load_row(p_start + 1, 2, d, c, d.T)[:, None] * d_out), x, d_s, d)
                store_weight(p_d_w, d_w, o, i, l, d)
                store_weight(p_d_w + d.P, d_s, o, i, l, d)
        tl.debug_barrier()
    store_row(d_table.start + at * d.C * 2, d_beta, 2, d)
    store_row(d_table.start + at * d.C * 2 + 1, d_keep, 2, d)
    d_written = load_square(p_d_written, d)
    store_row(p_d_step + at * d.C, -tl.sum(d_written * load_square(p_written, d), 0), 1, d)
    minus_step = load_row(f.minus_step, 1, d)
    tl.debug_barrier()
    store_tile(p_d_written, d_written * minus_step[None, :], 0, 0, d.C, d.C, d.C, d.BC, d.BC, d)


@triton.jit
def write_backward(p_k, p_end_start, ended_m, ended_s, p_before, p_d_before, p_d_after, p_d_end_start, f, g, d):
    """Of the update: adds to d_before and to the gradients of the factors; returns those of ended_m and ended_s."""
    dtype = d.ACC
    beta, keep, e = tl.load(p_end_start), tl.load(p_end_start + 1), tl.load(p_end_start + 2)
    d_beta, d_keep, d_e = tl.zeros([d.B], dtype), tl.zeros([d.B], dtype), tl.zeros([d.B], dtype)
    d_ended_m, d_ended_s = tl.zeros([d.BC], dtype), tl.zeros([d.BC], dtype)
    for l in tl.static_range(d.L):
        for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            by_w, by_s = tl.zeros([d.BC, d.B], dtype), tl.zeros([d.BC, d.B], dtype)
            for i in range(0, d.K if l == 0 else d.HID, d.B):
                d_w, d_s = load_weight(p_d_after, o, i, l, d), load_weight(p_d_after + d.P, o, i, l, d)
                h = load_input(p_k, f.z, i, l, d)
                by_w = product(h, tl.trans(d_w), by_w, d)
                by_s = product(h, tl.trans(d_s), by_s, d)
                w, s = load_weight(p_before, o, i, l, d), load_weight(p_before + d.P, o, i, l, d)
                d_beta += tl.sum(d_w * w, 0)
                d_keep += tl.sum(d_w * s, 0)
                d_e += tl.sum(d_s * s, 0)
                store_weight(p_d_before, load_weight(p_d_before, o, i, l, d) + beta * d_w, o, i, l, d)
                d_s = load_weight(p_d_before + d.P, o, i, l, d) + keep * d_w + e * d_s
                store_weight(p_d_before + d.P, d_s, o, i, l, d)
            delta = load_delta(f, o, l, d)
            d_ended_m += tl.sum(delta * by_w, 1)
            d_ended_s += tl.sum(delta * by_s, 1)
            d_delta = load_outer(g.delta, g.last, o, l, d) + ended_m[:, None] * by_w + ended_s[:, None] * by_s
            store_outer(g.delta, g.last, d_delta, o, l, d)
        for i in range(0, d.K if l == 0 else d.HID, d.B):
            by_m, by_s = tl.zeros([d.BC, d.B], dtype), tl.zeros([d.BC, d.B], dtype)
            for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
                delta = load_delta(f, o, l, d)
                by_m = product(delta, load_weight(p_d_after, o, i, l, d), by_m, d)
                by_s = product(delta, load_weight(p_d_after + d.P, o, i, l, d), by_s, d)
            d_h = load_inner(g.k, g.hidden, i, l, d) + ended_m[:, None] * by_m + ended_s[:, None] * by_s
            store_inner(g.k, g.hidden, d_h, i, l, d)
    tl.store(p_d_end_start, tl.sum(d_beta, 0))
    tl.store(p_d_end_start + 1, tl.sum(d_keep, 0))
    tl.store(p_d_end_start + 2, tl.sum(d_e, 0))
    tl.debug_barrier()
    return d_ended_m, d_ended_s


@triton.jit
def surprise_backward(p_k, over_surprise, d_surprise, f, g, d):
    """Adds what the surprise, the root of the sum of (||delta|| ||h||)^2, passes on to its factors."""
    for l in tl.static_range(d.L):
        norm_h, norm_delta = load_row(f.norms + l * d.C, 1, d), load_row(f.norms + (d.L + l) * d.C, 1, d)
        by_h, by_delta = (
            norm_delta * over_surprise * norm_delta * d_surprise,
            norm_h * over_surprise * norm_h * d_surprise,
        )
        for i in range(0, d.K if l == 0 else d.HID, d.B):
            d_h = load_inner(g.k, g.hidden, i, l, d) + load_input(p_k, f.z, i, l, d) * by_h[:, None]
            store_inner(g.k, g.hidden, d_h, i, l, d)
        for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            d_delta = load_outer(g.delta, g.last, o, l, d) + load_delta(f, o, l, d) * by_delta[:, None]
            store_outer(g.delta, g.last, d_delta, o, l, d)
    tl.debug_barrier()


@triton.jit
def load_d_pulled(i, l: tl.constexpr, f, g, d, c=0, R: tl.constexpr = 0):
    """Gradient of pulled of hidden layer l, given that of delta = pulled silu'(z)."""
    return load_outer(g.delta, g.last, i, l, d, c, R) * silu_slope(load_outer(f.z, f.last, i, l, d, c, R))


@triton.jit
def keys_backward(p_k, p_w, p_d_w, f, g, d):
    """Of the keys' two passes at p_w: adds to d_w and g.k; g.last becomes the gradient of the output that delta is made
    of.
    """
    for l in tl.static_range(1, d.L):  # the errors came from the last layer to the first
        for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            d_delta = load_outer(g.delta, g.last, o, l, d)
            for i in range(0, d.HID, d.B):
                d_delta = product(load_d_pulled(i, l - 1, f, g, d), tl.trans(load_weight(p_w, o, i, l, d)), d_delta, d)
            store_outer(g.delta, g.last, d_delta, o, l, d)
        tl.debug_barrier()
    for o in range(0, d.V, d.B):
        store_outer(g.delta, g.last, 2 * load_outer(g.delta, g.last, o, d.L - 1, d), o, d.L - 1, d)
    tl.debug_barrier()
    # from here d_delta of a hidden layer, once used, becomes the gradient of its z
    for l in tl.static_range(d.L - 1, -1, -1):
        for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            for i in range(0, d.K if l == 0 else d.HID, d.B):
                d_w = load_weight(p_d_w, o, i, l, d)
                for c in range(0, d.BC, d.T):
                    d_z, h = load_outer(g.delta, g.last, o, l, d, c, d.T), load_input(p_k, f.z, i, l, d, c, d.T)
                    d_w = product(tl.trans(d_z), h, d_w, d)
                    if l > 0:
                        delta, d_pulled = load_delta(f, o, l, d, c, d.T), load_d_pulled(i, l - 1, f, g, d, c, d.T)
                        d_w = product(tl.trans(delta), d_pulled, d_w, d)
                store_weight(p_d_w, d_w, o, i, l, d)
        tl.debug_barrier()
        for i in range(0, d.K if l == 0 else d.HID, d.B):
            d_h = load_inner(g.k, g.hidden, i, l, d)
            for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
                d_h = product(load_outer(g.delta, g.last, o, l, d), load_weight(p_w, o, i, l, d), d_h, d)
            if l == 0:
                store_inner(g.k, g.hidden, d_h, i, l, d)
            else:
                z, pulled = load_outer(f.z, f.last, i, l - 1, d), load_outer(f.pulled, f.last, i, l - 1, d)
                d_z = load_outer(g.delta, g.last, i, l - 1, d) * pulled * silu_curvature(z) + d_h * silu_slope(z)
                store_outer(g.delta, g.last, d_z, i, l - 1, d)
        tl.debug_barrier()


@triton.jit(do_not_specialize=["groups", "chunks"])
def walk_backward(
    p_k,
    table,
    p_start,
    p_pairs,
    factors,
    p_d_surprise,
    p_d_pairs,
    p_d_start,
    gradients,
    p_d_step,
    d_table,
    groups,
    chunks,
    max_surprise,
    tiny,
    CLIP: tl.constexpr,
    d,
):
    """One program per sample and head, from d_surprise [g, G, C] and the gradient of the last state, d_pairs[g].

    Added to: d_pairs[n], d_start [G, P] (zero before) and `gradients`, as `read_backward` left them, where last becomes
        minus the
    gradient of v. d_step becomes the gradient of theta. Written: d_table.end_start and .end_written.
    """
    i_g = tl.program_id(0)
    for back in range(chunks):
        n = chunks - 1 - back
        at = (n * groups + i_g).to(tl.int64)
        f, g = factors_of(factors, at, at, d), factor_gradients_of(gradients, at, d)
        p_before, p_d_before, p_end = p_pairs + at * 2 * d.P, p_d_pairs + at * 2 * d.P, table.end_written + at * 2 * d.C
        if n == 0:
            p_w, p_d_w = p_start + at * d.P, p_d_start + at * d.P
        else:
            p_w, p_d_w = p_before, p_d_before
        minus_step, end_m, end_s = load_row(f.minus_step, 1, d), load_row(p_end, 1, d), load_row(p_end + d.C, 1, d)
        d_ended_m, d_ended_s = write_backward(
            p_k + at * d.C * d.K,
            table.end_start + at * 3,
            minus_step * end_m,
            minus_step * end_s,
            p_before,
            p_d_before,
            p_d_before + groups.to(tl.int64) * 2 * d.P,
            d_table.end_start + at * 3,
            f,
            g,
            d,
        )
        store_row(d_table.end_written + at * 2 * d.C, d_ended_m * minus_step, 1, d)
        store_row(d_table.end_written + at * 2 * d.C + d.C, d_ended_s * minus_step, 1, d)
        d_step = load_row(p_d_step + at * d.C, 1, d) - d_ended_m * end_m - d_ended_s * end_s
        surprise, d_surprise = load_row(f.surprise, 1, d), load_row(p_d_surprise + at * d.C, 1, d)
        over_surprise = tl.where(
            surprise > tiny, 1 / tl.maximum(surprise, tiny), 0.0
        )  # at surprise 0 the gradient is 0
        if CLIP:
            d_surprise += tl.where(surprise > max_surprise, d_step * minus_step * over_surprise, 0.0)
            d_step = d_step * (max_surprise / tl.maximum(surprise, max_surprise))
        tl.debug_barrier()
        store_row(p_d_step + at * d.C, d_step, 1, d)
        surprise_backward(p_k + at * d.C * d.K, over_surprise, d_surprise, f, g, d)
        keys_backward(p_k + at * d.C * d.K, p_w, p_d_w, f, g, d)
