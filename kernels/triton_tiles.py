"""Pieces of the Triton kernels: what they are told, tiles of matrices, products at a stated precision, silu.

The matrices of all layers of one head lie one behind the other, [out, in] each, row by row: P numbers. Hidden
activations of all layers lie side by side in the rows of one matrix [C, (L - 1) HID]. Sizes are not constants of a
compilation, only the depth and the tiles are: loops stay loops, and one kernel serves all widths.

Dimensions: C slots of a chunk, K key width, V value width, HID hidden width, L depth, P numbers in the matrices of all
layers. A tile is [BC, B], all slots of a chunk (padded), or [B, B] of a matrix; sums over slots take T of them at a
time.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Dims(NamedTuple):
    """Sizes (see above), tiles, and how products are made (see `product`)."""

    K: Any
    V: Any
    HID: Any
    P: Any
    C: Any
    L: tl.constexpr
    BC: tl.constexpr
    T: tl.constexpr
    B: tl.constexpr
    MASKED: tl.constexpr  # some size is no multiple of its tile
    PRECISION: tl.constexpr
    ACC: tl.constexpr  # what is summed in, and what all but tokens and factors are kept in


class Factors(NamedTuple):
    """What the keys leave of each chunk, per sample and head; h and delta are the factors of a token's gradient.

    z, pulled: [C, (L - 1) HID], before silu, and the error behind it; last: [C, V], delta of the last layer;
    norms: [2, L, C] of h and delta; surprise, minus_step: [C], minus_step = -theta, clipped.
    """

    z: Any
    pulled: Any
    last: Any
    norms: Any
    surprise: Any
    minus_step: Any


class FactorGradients(NamedTuple):
    """Gradients of h: k [C, K] and hidden [C, (L - 1) HID]; and of delta: delta [C, (L - 1) HID] and last [C, V]."""

    k: Any
    hidden: Any
    delta: Any
    last: Any


@triton.jit
def factors_of(f, at, room, d):
    """Of the chunk, sample and head `at`; z, pulled, last and norms at `room`, which may hold one chunk after the
    other.
    """
    hidden, rows = room * d.C * (d.L - 1) * d.HID, room * d.C
    return Factors(
        f.z + hidden,
        f.pulled + hidden,
        f.last + rows * d.V,
        f.norms + rows * 2 * d.L,
        f.surprise + at * d.C,
        f.minus_step + at * d.C,
    )


@triton.jit
def factor_gradients_of(g, at, d):
    hidden, rows = at * d.C * (d.L - 1) * d.HID, at * d.C
    return FactorGradients(g.k + rows * d.K, g.hidden + hidden, g.delta + hidden, g.last + rows * d.V)


@triton.jit
def load_tile(p, i_row, i_col, rows, cols, stride, R: tl.constexpr, W: tl.constexpr, d):
    """An [R, W] tile of a [rows, cols] matrix with rows `stride` numbers apart; 0 outside. In the dtype that is summed
    in.
    """
    o_row, o_col = i_row + tl.arange(0, R)[:, None], i_col + tl.arange(0, W)[None, :]
    if d.MASKED:
        tile = tl.load(p + o_row * stride + o_col, (o_row < rows) & (o_col < cols), 0.0)
    else:
        tile = tl.load(p + o_row * stride + o_col)
    return tile.to(d.ACC)


@triton.jit
def store_tile(p, tile, i_row, i_col, rows, cols, stride, R: tl.constexpr, W: tl.constexpr, d):
    o_row, o_col = i_row + tl.arange(0, R)[:, None], i_col + tl.arange(0, W)[None, :]
    if p.dtype.element_ty == tl.bfloat16:
        tile = to_bf16(tile, d)
    if d.MASKED:
        tl.store(p + o_row * stride + o_col, tile, (o_row < rows) & (o_col < cols))
    else:
        tl.store(p + o_row * stride + o_col, tile)


@triton.jit
def load_weight(p, o, i, l: tl.constexpr, d):
    """Rows o.. (outputs) and columns i.. (inputs) of the matrix of layer l."""
    before = d.K * d.HID + (l - 1) * d.HID * d.HID if l > 0 else 0
    width = d.K if l == 0 else d.HID
    return load_tile(p + before, o, i, d.V if l == d.L - 1 else d.HID, width, width, d.B, d.B, d)


@triton.jit
def store_weight(p, tile, o, i, l: tl.constexpr, d):
    before = d.K * d.HID + (l - 1) * d.HID * d.HID if l > 0 else 0
    width = d.K if l == 0 else d.HID
    store_tile(p + before, tile, o, i, d.V if l == d.L - 1 else d.HID, width, width, d.B, d.B, d)


@triton.jit
def load_inner(p_first, p_hidden, i, l: tl.constexpr, d, c=0, R: tl.constexpr = 0):
    """Columns i.. of what is kept for the input side of layer l: [C, K] of the first, hidden layer l - 1 of the others.

    R slots from slot c on; all of them by default. So in the other functions that load activations."""
    if l == 0:
        tile = load_tile(p_first, c, i, d.C, d.K, d.K, R if R > 0 else d.BC, d.B, d)
    else:
        tile = load_tile(p_hidden + (l - 1) * d.HID, c, i, d.C, d.HID, (d.L - 1) * d.HID, R if R > 0 else d.BC, d.B, d)
    return tile


@triton.jit
def store_inner(p_first, p_hidden, tile, i, l: tl.constexpr, d):
    if l == 0:
        store_tile(p_first, tile, 0, i, d.C, d.K, d.K, d.BC, d.B, d)
    else:
        store_tile(p_hidden + (l - 1) * d.HID, tile, 0, i, d.C, d.HID, (d.L - 1) * d.HID, d.BC, d.B, d)


@triton.jit
def load_outer(p_hidden, p_last, o, l: tl.constexpr, d, c=0, R: tl.constexpr = 0):
    """Columns o.. of what is kept for the output side of layer l: hidden layer l, or [C, V] of the last."""
    if l == d.L - 1:
        tile = load_tile(p_last, c, o, d.C, d.V, d.V, R if R > 0 else d.BC, d.B, d)
    else:
        tile = load_tile(p_hidden + l * d.HID, c, o, d.C, d.HID, (d.L - 1) * d.HID, R if R > 0 else d.BC, d.B, d)
    return tile


@triton.jit
def store_outer(p_hidden, p_last, tile, o, l: tl.constexpr, d):
    if l == d.L - 1:
        store_tile(p_last, tile, 0, o, d.C, d.V, d.V, d.BC, d.B, d)
    else:
        store_tile(p_hidden + l * d.HID, tile, 0, o, d.C, d.HID, (d.L - 1) * d.HID, d.BC, d.B, d)


@triton.jit
def load_input(p_first, p_z, i, l: tl.constexpr, d, c=0, R: tl.constexpr = 0):
    """Columns i.. of what layer l is given: the first input, or silu of the layer before."""
    tile = load_inner(p_first, p_z, i, l, d, c, R)
    if l > 0:
        tile = tile * tl.sigmoid(tile)
    return tile


@triton.jit
def load_delta(f, o, l: tl.constexpr, d, c=0, R: tl.constexpr = 0):
    """Columns o.. of delta of layer l."""
    tile = load_outer(f.pulled, f.last, o, l, d, c, R)
    if l < d.L - 1:
        tile *= silu_slope(load_outer(f.z, f.last, o, l, d, c, R))
    return tile


@triton.jit
def load_square(p, d):
    """A [C, C] matrix."""
    return load_tile(p, 0, 0, d.C, d.C, d.C, d.BC, d.BC, d)


@triton.jit
def load_columns(p, c, d):
    """Columns c.. to c + T of a [C, C] matrix."""
    return load_tile(p, 0, c, d.C, d.C, d.C, d.BC, d.T, d)


@triton.jit
def load_rows_as_columns(p, c, d):
    """Rows c.. to c + T of a [C, C] matrix, transposed."""
    return tl.trans(load_tile(p, c, 0, d.C, d.C, d.C, d.T, d.BC, d))


@triton.jit
def load_row(p, stride, d, c=0, R: tl.constexpr = 0):
    """One number per slot, `stride` apart; 0 past the last."""
    o_c = c + tl.arange(0, R if R > 0 else d.BC)
    return tl.load(p + o_c * stride, o_c < d.C, 0.0)


@triton.jit
def store_row(p, row, stride, d):
    o_c = tl.arange(0, d.BC)
    tl.store(p + o_c * stride, row, o_c < d.C)


@triton.jit
def rounded_to_bf16(x):
    """To the nearest, ties to even, in float32."""
    bits = x.to(tl.float32).to(tl.int32, bitcast=True)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def to_bf16(x, d):
    """Rounded as a GPU does: Triton's interpreter cuts, and is told so by "bf16 in float32"."""
    if d.PRECISION == "bf16 in float32":
        x = rounded_to_bf16(x)
    return x.to(tl.bfloat16)


@triton.jit
def product(a, b, acc, d):
    """acc + a b. "bf16" rounds both sides and sums in the dtype of acc; "tf32x3" has float32's precision on tensor
    cores.

    "bf16 in float32" gives the numbers of "bf16" in Triton's interpreter, which multiplies the bit patterns of
    bfloat16.
    """
    if d.PRECISION == "bf16":
        acc = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), acc, out_dtype=acc.dtype)
    elif d.PRECISION == "bf16 in float32":
        acc = tl.dot(rounded_to_bf16(a), rounded_to_bf16(b), acc, input_precision="ieee", out_dtype=acc.dtype)
    else:
        acc = tl.dot(a, b, acc, input_precision=d.PRECISION, out_dtype=acc.dtype)
    return acc


@triton.jit
def silu_slope(z):
    gate = tl.sigmoid(z)
    return gate * (1 + z * (1 - gate))


@triton.jit
def silu_curvature(z):
    """Second derivative."""
    gate = tl.sigmoid(z)
    return gate * (1 - gate) * (2 + z * (1 - 2 * gate))
