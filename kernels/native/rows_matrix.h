/* Matrices of numbers whose rows are whole vectors, for one memory at a time.
 *
 * One product does it all: out += a b, where rows of out and b are contiguous and a is read number by number through
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

/* Vectors of sums that fit in registers beside the operands, and most vectors of a row of sums. */
#if LANES_OF_FLOAT >= 16
enum { SUMS = 24, MOST_VECTORS = 4 };
#else
enum { SUMS = 12, MOST_VECTORS = 2 };
#endif
enum { DEEP = 128 }; /* rows of b at a time, which stay in the first cache */

/* One tile: rows x vectors of sums in registers. Strides of out and b are in vectors. */
INLINE void tile(vf *out, long out_row, View a, const vf *b, long b_row, int depth, const int rows, const int vectors) {
    vf sum[12][MOST_VECTORS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) sum[i][j] = out[i * out_row + j];
    for (int p = 0; p < depth; p++) {
        vf right[MOST_VECTORS];
        for (int j = 0; j < vectors; j++) right[j] = b[p * b_row + j];
        for (int i = 0; i < rows; i++) {
            vf left = splat(a.at[i * a.row + p * a.col]);
            for (int j = 0; j < vectors; j++) sum[i][j] += left * right[j];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vectors; j++) out[i * out_row + j] = sum[i][j];
}

INLINE void column(vf *out, long out_row, View a, const vf *b, long b_row, int rows, int depth, const int vectors) {
    int i = 0;
#define TILES(size)                                                                                                  \
    for (; i + (size) <= rows && (size) * vectors <= SUMS; i += (size))                                               \
        tile(out + i * out_row, out_row, (View){a.at + i * a.row, a.row, a.col}, b, b_row, depth, (size), vectors);
    TILES(12)
    TILES(6)
    TILES(4)
    TILES(2)
    TILES(1)
#undef TILES
}

/* out [rows, vectors] += a [rows, depth] b [depth, vectors]. */
static void product(vf *out, long out_row, View a, const vf *b, long b_row, int rows, int vectors, int depth) {
    for (int p = 0; p < depth; p += DEEP) {
        int deep = depth - p < DEEP ? depth - p : DEEP;
        View part = {a.at + p * a.col, a.row, a.col};
        int j = 0;
        for (; j + MOST_VECTORS <= vectors; j += MOST_VECTORS)
            column(out + j, out_row, part, b + p * b_row + j, b_row, rows, deep, MOST_VECTORS);
        for (; j + 2 <= vectors; j += 2) column(out + j, out_row, part, b + p * b_row + j, b_row, rows, deep, 2);
        for (; j < vectors; j++) column(out + j, out_row, part, b + p * b_row + j, b_row, rows, deep, 1);
    }
}

/* out[j][i] = in[i][j] for rows x cols numbers; rows of out are filled up with zeros to `out_row` vectors. */
static void turn(vf *out, long out_row, const vf *in, long in_row, int rows, int cols) {
    real *to = (real *)out;
    const real *at = (const real *)in;
    long to_row = out_row * LANES, at_row = in_row * LANES;
    for (int j = 0; j < cols; j += 4)
        for (int i = 0; i < rows; i += 4) { /* in's rows and columns are padded to whole vectors, out's rows too */
            v4 block[4] = {{0}};
            for (int r = 0; r < 4 && i + r < rows; r++) block[r] = *(const v4 *)(at + (i + r) * at_row + j);
            transpose4(block);
            for (int r = 0; r < 4 && j + r < cols; r++) *(v4 *)(to + (j + r) * to_row + i) = block[r];
        }
    for (int j = 0; j < cols; j++)
        for (long i = (rows + 3) / 4 * 4; i < to_row; i++) to[j * to_row + i] = 0;
}

INLINE real total(vf x) {
    real sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}

INLINE real dot(const vf *a, const vf *b, long vectors) {
    vf sum = {0};
    for (long i = 0; i < vectors; i++) sum += a[i] * b[i];
    return total(sum);
}

#endif
