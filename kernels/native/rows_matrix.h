/* Matrices of numbers whose rows are whole vectors, for one memory at a time.
 *
 * One kind of product does it all: a b, where rows of out and b are contiguous and a is read number by number through
 * strides, so that a transpose of a costs nothing.
 */
#ifndef TITANS_ROWS_MATRIX_H
#define TITANS_ROWS_MATRIX_H

#include "vector.h"

/* Entry (i, j) is at[i * row + j * col]. */
typedef struct {
    const real *at;
    long row, col;
} View;

INLINE View view(const real *at, long row) { return (View){at, row, 1}; }
INLINE View flip(View a) { return (View){a.at, a.col, a.row}; }

/* Factors of a product a b; `row` is the distance of b's rows, in vectors. */
typedef struct {
    View a;
    const vf *b;
    long row;
} Pair;

/* What a sum starts from: zero, `out` itself, or keep out + mix other, where `other` lies as `out` does. */
enum { NOTHING, ITSELF, MIXTURE };
typedef struct {
    int from;
    real keep, mix;
    const vf *other;
} Start;

/* A matrix of sums; `row` in vectors. */
typedef struct {
    vf *at;
    long row;
} Sums;

/* Vectors of sums that fit in registers beside the operands, and most vectors of a row of sums. */
#if LANES_OF_FLOAT >= 16
enum { SUMS = 24, MOST_VECTORS = 4 };
#else
enum { SUMS = 12, MOST_VECTORS = 2 };
#endif
enum { DEEP = 128 }; /* rows of b at a time, which stay in the first cache */

INLINE vf start_at(Start start, Sums out, long at) {
    if (start.from == NOTHING) return splat(0);
    if (start.from == ITSELF) return out.at[at];
    return start.keep * out.at[at] + start.mix * start.other[at];
}

/* out = start + the sum of `count` products, for rows x vectors from (i, j) on, which stay in registers. */
INLINE void tile(Sums out, Start start, const Pair *pairs, int count, int depth, int i, int j, const int rows,
                 const int vectors) {
    vf sum[12][MOST_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int s = 0; s < vectors; s++) sum[r][s] = start_at(start, out, (i + r) * out.row + j + s);
    for (const Pair *pair = pairs; pair < pairs + count; pair++) {
        const real *a = pair->a.at + i * pair->a.row;
        const vf *b = pair->b + j;
        for (int p = 0; p < depth; p++) {
            vf right[MOST_VECTORS];
            for (int s = 0; s < vectors; s++) right[s] = b[p * pair->row + s];
            for (int r = 0; r < rows; r++) {
                vf left = splat(a[r * pair->a.row + p * pair->a.col]);
                for (int s = 0; s < vectors; s++) sum[r][s] += left * right[s];
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int s = 0; s < vectors; s++) out.at[(i + r) * out.row + j + s] = sum[r][s];
}

/* Tiles of `size` rows from row i on; where they end. */
INLINE int tiles(Sums out, Start start, const Pair *pairs, int count, int depth, int i, int rows, int j,
                 const int vectors, const int size) {
    if (size * vectors <= SUMS)
        for (; i + size <= rows; i += size) tile(out, start, pairs, count, depth, i, j, size, vectors);
    return i;
}

INLINE void column(Sums out, Start start, const Pair *pairs, int count, int rows, int depth, int j, const int vectors) {
    int i = tiles(out, start, pairs, count, depth, 0, rows, j, vectors, 12);
    i = tiles(out, start, pairs, count, depth, i, rows, j, vectors, 6);
    i = tiles(out, start, pairs, count, depth, i, rows, j, vectors, 4);
    i = tiles(out, start, pairs, count, depth, i, rows, j, vectors, 2);
    tiles(out, start, pairs, count, depth, i, rows, j, vectors, 1);
}

INLINE void columns(Sums out, Start start, const Pair *pairs, int count, int rows, int vectors, int depth) {
    int j = 0;
    for (; j + MOST_VECTORS <= vectors; j += MOST_VECTORS)
        column(out, start, pairs, count, rows, depth, j, MOST_VECTORS);
    for (; j + 2 <= vectors; j += 2) column(out, start, pairs, count, rows, depth, j, 2);
    for (; j < vectors; j++) column(out, start, pairs, count, rows, depth, j, 1);
}

/* out [rows, vectors] += a [rows, depth] b [depth, vectors]. */
static void add_product(Sums out, View a, const vf *b, long b_row, int rows, int vectors, int depth) {
    for (int p = 0; p < depth; p += DEEP) {
        Pair pair = {{a.at + p * a.col, a.row, a.col}, b + p * b_row, b_row};
        columns(out, (Start){.from = ITSELF}, &pair, 1, rows, vectors, depth - p < DEEP ? depth - p : DEEP);
    }
}

/* out = a b. */
static void product(Sums out, View a, const vf *b, long b_row, int rows, int vectors, int depth) {
    Pair pair = {a, b, b_row};
    columns(out, (Start){.from = NOTHING}, &pair, 1, rows, vectors, depth < DEEP ? depth : DEEP);
    if (depth > DEEP)
        add_product(out, (View){a.at + DEEP * a.col, a.row, a.col}, b + DEEP * b_row, b_row, rows, vectors,
                    depth - DEEP);
}

/* A state [rows, vectors] and what is added to it. */
typedef struct {
    Sums at;
    real keep;
    Pair pairs[3];
    int count;
} Moving;

INLINE int advance_tiles(const Moving *P, real mix, const Moving *Q, int depth, int i, int rows, int j,
                         const int vectors, const int size) {
    for (; i + size <= rows; i += size) {
        tile(P->at, (Start){MIXTURE, P->keep, mix, Q->at.at}, P->pairs, P->count, depth, i, j, size, vectors);
        tile(Q->at, (Start){MIXTURE, Q->keep, 0, Q->at.at}, Q->pairs, Q->count, depth, i, j, size, vectors);
    }
    return i;
}

INLINE void advance_column(const Moving *P, real mix, const Moving *Q, int rows, int depth, int j, const int vectors) {
    int i = advance_tiles(P, mix, Q, depth, 0, rows, j, vectors, 6);
    i = advance_tiles(P, mix, Q, depth, i, rows, j, vectors, 2);
    advance_tiles(P, mix, Q, depth, i, rows, j, vectors, 1);
}

/* P = keep P + mix Q + products, then Q = keep Q + products, in one pass over both. */
static void advance(const Moving *P, real mix, const Moving *Q, int rows, int vectors, int depth) {
    int j = 0;
    for (; j + MOST_VECTORS <= vectors; j += MOST_VECTORS) advance_column(P, mix, Q, rows, depth, j, MOST_VECTORS);
    for (; j < vectors; j++) advance_column(P, mix, Q, rows, depth, j, 1);
}

/* to[j][i] = from[i][j] for rows x cols numbers; distances of rows are in numbers. */
static void transpose(real *to, long to_row, const real *from, long from_row, int rows, int cols) {
    int whole_rows = rows / 4 * 4, whole_cols = cols / 4 * 4;
    for (int j = 0; j < whole_cols; j += 4)
        for (int i = 0; i < whole_rows; i += 4) {
            v4 block[4];
            for (int r = 0; r < 4; r++) block[r] = *(const v4 *)(from + (i + r) * from_row + j);
            transpose4(block);
            for (int r = 0; r < 4; r++) *(v4 *)(to + (j + r) * to_row + i) = block[r];
        }
    for (int i = 0; i < rows; i++)
        for (int j = i < whole_rows ? whole_cols : 0; j < cols; j++) to[j * to_row + i] = from[i * from_row + j];
}

/* The same between matrices of whole vectors; rows of out are filled up with zeros. */
static void turn(vf *out, long out_row, const vf *in, long in_row, int rows, int cols) {
    long filled = rows / LANES; /* a vector that is not full is zeroed first */
    for (int j = 0; filled < out_row && j < cols; j++) fill(out + j * out_row + filled, out_row - filled, 0);
    transpose((real *)out, out_row * LANES, (const real *)in, in_row * LANES, rows, cols);
}

/* Sums of quarters of a vector. */
INLINE v4 quarters(vf x) {
    union {
        vf whole;
        v4 part[LANES / 4];
    } all = {x};
    for (int i = 1; i < LANES / 4; i++) all.part[0] += all.part[i];
    return all.part[0];
}

INLINE real total(vf x) {
    v4 sum = quarters(x);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

INLINE vf dot(const vf *a, const vf *b, long vectors) {
    vf sum = {0};
    for (long i = 0; i < vectors; i++) sum += a[i] * b[i];
    return sum;
}

#endif
