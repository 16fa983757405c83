"""Forward kernels: `walk` goes through the chunks of a group one by one, `read` reads all of them at once.

    walk, chunk by chunk, at the chunk's start weights W (names as in `groups.py`):
        h_0 = k,  z_l = h_{l-1} W_l^T,  h_l = silu(z_l),  delta_L = 2 (h_{L-1} W_L^T - v)
        pulled_l = delta_{l+1} W_{l+1},  delta_l = pulled_l silu'(z_l)
        surprise = hypot over l of ||delta_l|| ||h_{l-1}||,  minus_step = -theta min(1, max_surprise / surprise)
        W'_l = beta W_l + f S_l + delta_l^T (ended_M h_{l-1}),  S'_l = e S_l + delta_l^T (ended_S h_{l-1})
    read, every chunk for itself, x_0 = q:
        zx_l = beta x W_l^T + f x S_l^T + ((x h_{l-1}^T) * A minus_step) delta_l,  x_l = silu(zx_l),  y = zx_L

One program of `walk` owns a sample and head. Its state goes through memory (the L2 cache) tile by tile, so it may be larger
than a program's registers or shared memory: at expansion 4 and depth 2 weights and momentum of a head are 256 KiB.

Plan, per chunk and head, P numbers in W, P_1 in its first layer, widths (in, out) of its layers:
    walk: 2 C P (keys forward) + 2 C (P - P_1) (backward) + 4 C P (update) operations; W is read three times, S once, both
        are written. K = 64, expansion 4, depth 2, C = 64: 15 million operations, .8 MB of state through L2.
    read: 4 C P + 2 C C sum(in + out) operations, W and S read: 14 million, .3 MB of state.
Activations are loaded anew for every tile of a weight, so loads and stores in all are 2.1 and 1.3 MB, in part from L1.

Dimensions: G samples and heads, g chunks of a group; the rest as in `triton_tiles.py`.
"""

import triton
import triton.language as tl

from titans_seq.kernels.triton_tiles import (
    factors_of,
    load_columns,
    load_delta,
    load_input,
    load_outer,
    load_row,
    load_tile,
    load_weight,
    product,
    silu_slope,
    store_outer,
    store_row,
    store_tile,
    store_weight,
)


@triton.jit
def hypot(a, b):
    """sqrt(a^2 + b^2) of a, b >= 0, without squares that overflow."""
    large = tl.maximum(a, b)
    ratio = tl.minimum(a, b) / tl.where(large > 0, large, 1.0)
    return large * tl.sqrt(1 + ratio * ratio)


@triton.jit
def keys(p_k, p_v, p_w, f, d):
    """The keys' passes at the weights p_w: z, pulled, last and norms."""
    dtype = f.z.dtype.element_ty
    for l in tl.static_range(d.L):
        norm = tl.zeros([d.BC], dtype)
        for i in range(0, d.K if l == 0 else d.HID, d.B):
            h = load_input(p_k, f.z, i, l, d)
            norm += tl.sum(h * h, 1)
        store_row(f.norms + l * d.C, tl.sqrt(norm), 1, d)
        for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            z = tl.zeros([d.BC, d.B], dtype)
            for i in range(0, d.K if l == 0 else d.HID, d.B):
                z = product(load_input(p_k, f.z, i, l, d), tl.trans(load_weight(p_w, o, i, l, d)), z, d)
            if l == d.L - 1:
                z = 2 * (z - load_tile(p_v, 0, o, d.C, d.V, d.V, d.BC, d.B, d.MASKED).to(dtype))
            store_outer(f.z, f.last, z, o, l, d)
        tl.debug_barrier()
    for l in tl.static_range(d.L - 1, -1, -1):
        norm = tl.zeros([d.BC], dtype)
        for i in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            if l < d.L - 1:
                pulled = tl.zeros([d.BC, d.B], dtype)
                for o in range(0, d.V if l == d.L - 2 else d.HID, d.B):
                    pulled = product(load_delta(f, o, l + 1, d), load_weight(p_w, o, i, l + 1, d), pulled, d)
                store_outer(f.pulled, f.last, pulled, i, l, d)
                delta = pulled * silu_slope(load_outer(f.z, f.last, i, l, d))
            else:
                delta = load_outer(f.z, f.last, i, l, d)
            norm += tl.sum(delta * delta, 1)
        store_row(f.norms + (d.L + l) * d.C, tl.sqrt(norm), 1, d)
        tl.debug_barrier()


@triton.jit
def write(p_k, p_end_start, p_end_written, p_before, p_after, f, d):
    """The state after a chunk. p_before, p_after: weights, and P numbers on momentum."""
    beta, keep, e = tl.load(p_end_start), tl.load(p_end_start + 1), tl.load(p_end_start + 2)
    for l in tl.static_range(d.L):
        for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            for i in range(0, d.K if l == 0 else d.HID, d.B):
                w, s = load_weight(p_before, o, i, l, d), load_weight(p_before + d.P, o, i, l, d)
                w, s = beta * w + keep * s, e * s
                for c in range(0, d.BC, d.T):
                    minus_step = load_row(f.minus_step, 1, d, c, d.T)
                    ended_m = minus_step * load_row(p_end_written, 1, d, c, d.T)
                    ended_s = minus_step * load_row(p_end_written + d.C, 1, d, c, d.T)
                    delta, h = tl.trans(load_delta(f, o, l, d, c, d.T)), load_input(p_k, f.z, i, l, d, c, d.T)
                    w = product(delta, ended_m[:, None] * h, w, d)
                    s = product(delta, ended_s[:, None] * h, s, d)
                store_weight(p_after, w, o, i, l, d)
                store_weight(p_after + d.P, s, o, i, l, d)
    tl.debug_barrier()


@triton.jit(do_not_specialize=["groups", "chunks"])
def walk(p_k, p_v, p_theta, table, p_start, p_pairs, factors, groups, chunks, max_surprise, CLIP: tl.constexpr, d):
    """One program per sample and head.

    k [g, G, C, K], v [g, G, C, V], theta [g, G, C], table: `GateTable`, start [G, P]: where the first chunk takes its gradient.
    pairs [g + 1, G, 2, P]: the state before the group in its first row; the others are written, and `factors` [g, G, ...].
    """
    i_g = tl.program_id(0)
    for n in range(chunks):
        at = (n * groups + i_g).to(tl.int64)
        f, p_before = factors_of(factors, at, d), p_pairs + at * 2 * d.P
        if n == 0:
            p_w = p_start + at * d.P
        else:
            p_w = p_before
        keys(p_k + at * d.C * d.K, p_v + at * d.C * d.V, p_w, f, d)
        surprise = tl.zeros([d.BC], f.z.dtype.element_ty)
        for l in tl.static_range(d.L):
            norm_h, norm_delta = load_row(f.norms + l * d.C, 1, d), load_row(f.norms + (d.L + l) * d.C, 1, d)
            surprise = hypot(surprise, norm_h * norm_delta)
        minus_step = -load_row(p_theta + at * d.C, 1, d)
        if CLIP:
            minus_step = minus_step * (max_surprise / tl.maximum(surprise, max_surprise))
        store_row(f.surprise, surprise, 1, d)
        store_row(f.minus_step, minus_step, 1, d)
        tl.debug_barrier()
        p_after = p_before + groups.to(tl.int64) * 2 * d.P
        write(p_k + at * d.C * d.K, table.end_start + at * 3, table.end_written + at * 2 * d.C, p_before, p_after, f, d)


@triton.jit(do_not_specialize=["groups"])
def read(p_q, p_k, table, p_pairs, factors, p_zx, p_overlap, p_y, groups, d):
    """One program per sample, head and chunk.

    q, k [g, G, C, K]; the rest as `walk` left it. Written: y [g, G, C, V]; for backward zx [g, G, C, (L - 1) HID] and overlap
    [g, G, L, C, C], x_t . h_i of each layer.
    """
    at = (tl.program_id(1) * groups + tl.program_id(0)).to(tl.int64)
    f, p_w = factors_of(factors, at, d), p_pairs + at * 2 * d.P
    p_q, p_k, p_y, p_zx = (
        p_q + at * d.C * d.K,
        p_k + at * d.C * d.K,
        p_y + at * d.C * d.V,
        p_zx + at * d.C * (d.L - 1) * d.HID,
    )
    beta, keep = load_row(table.start + at * d.C * 2, 2, d), load_row(table.start + at * d.C * 2 + 1, 2, d)
    p_written = table.written + at * d.C * d.C
    for l in tl.static_range(d.L):
        overlap = tl.zeros([d.BC, d.BC], f.z.dtype.element_ty)
        for i in range(0, d.K if l == 0 else d.HID, d.B):
            overlap = product(load_input(p_q, p_zx, i, l, d), tl.trans(load_input(p_k, f.z, i, l, d)), overlap, d)
        p_square = p_overlap + (at * d.L + l) * d.C * d.C
        store_tile(p_square, overlap, 0, 0, d.C, d.C, d.C, d.BC, d.BC, d.MASKED)
        tl.debug_barrier()
        for o in range(0, d.V if l == d.L - 1 else d.HID, d.B):
            x_new = tl.zeros([d.BC, d.B], f.z.dtype.element_ty)
            for c in range(0, d.BC, d.T):
                written = load_columns(p_written, c, d) * load_row(f.minus_step, 1, d, c, d.T)[None, :]
                x_new = product(load_columns(p_square, c, d) * written, load_delta(f, o, l, d, c, d.T), x_new, d)
            for i in range(0, d.K if l == 0 else d.HID, d.B):
                x = load_input(p_q, p_zx, i, l, d)
                x_new = product(beta[:, None] * x, tl.trans(load_weight(p_w, o, i, l, d)), x_new, d)
                x_new = product(keep[:, None] * x, tl.trans(load_weight(p_w + d.P, o, i, l, d)), x_new, d)
            store_outer(p_zx, p_y, x_new, o, l, d)
        tl.debug_barrier()
