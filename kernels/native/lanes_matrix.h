/* Matrices whose entries are vectors, with one memory in each lane.
 *
 * The same operation runs on LANES memories at once, and no number ever moves from one lane to another, so NaN in one
 * memory stays there. Numbers change places only on their way in and out (`gather`, `scatter`).
 */
#ifndef TITANS_LANES_MATRIX_H
#define TITANS_LANES_MATRIX_H

#include "vector.h"

/* A matrix seen through strides: entry (i, j) is at[i * row + j * col]. A transpose costs nothing. */
typedef struct {
    vf *at;
    long row, col;
} Mat;

INLINE Mat mat(vf *at, long width) { return (Mat){at, width, 1}; }
INLINE Mat flip(Mat m) { return (Mat){m.at, m.col, m.row}; }
INLINE Mat from(Mat m, long i, long j) { return (Mat){m.at + i * m.row + j * m.col, m.row, m.col}; }

/* out += a b for one tile of rows x cols entries, which stay in registers while the sum over `depth` runs. */
INLINE void tile(Mat out, Mat a, Mat b, int depth, const int rows, const int cols) {
    vf sum[4][4];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) sum[i][j] = out.at[i * out.row + j * out.col];
    for (int p = 0; p < depth; p++) {
        vf right[4];
        for (int j = 0; j < cols; j++) right[j] = b.at[p * b.row + j * b.col];
        for (int i = 0; i < rows; i++) {
            vf left = a.at[i * a.row + p * a.col];
            for (int j = 0; j < cols; j++) sum[i][j] += left * right[j];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) out.at[i * out.row + j * out.col] = sum[i][j];
}

INLINE void strip(Mat out, Mat a, Mat b, int cols, int depth, const int rows) {
    int j = 0;
    for (; j + 4 <= cols; j += 4) tile(from(out, 0, j), a, from(b, 0, j), depth, rows, 4);
    for (; j + 2 <= cols; j += 2) tile(from(out, 0, j), a, from(b, 0, j), depth, rows, 2);
    for (; j < cols; j++) tile(from(out, 0, j), a, from(b, 0, j), depth, rows, 1);
}

/* out [rows, cols] += a [rows, depth] b [depth, cols]. */
static void product(Mat out, Mat a, Mat b, int rows, int cols, int depth) {
    int i = 0;
    for (; i + 4 <= rows; i += 4) strip(from(out, i, 0), from(a, i, 0), b, cols, depth, 4);
    if (rows - i == 3) strip(from(out, i, 0), from(a, i, 0), b, cols, depth, 3);
    if (rows - i == 2) strip(from(out, i, 0), from(a, i, 0), b, cols, depth, 2);
    if (rows - i == 1) strip(from(out, i, 0), from(a, i, 0), b, cols, depth, 1);
}

INLINE vf dot(const vf *a, const vf *b, int count) {
    vf sum = {0};
    for (int i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

/* `count` numbers of each memory, consecutive at row[lane], into lanes: out[i][lane] = row[lane][i]. */
static void gather(vf *out, const real *const row[LANES], long count) {
    long i = 0;
    for (; i + 4 <= count; i += 4)
        for (int lane = 0; lane < LANES; lane += 4) {
            v4 block[4];
            for (int r = 0; r < 4; r++) block[r] = *(const v4 *)(row[lane + r] + i);
            transpose4(block);
            for (int r = 0; r < 4; r++) *(v4 *)((real *)(out + i + r) + lane) = block[r];
        }
    for (; i < count; i++)
        for (int lane = 0; lane < LANES; lane++) ((real *)(out + i))[lane] = row[lane][i];
}

/* The way back: row[lane][i] = in[i][lane]. */
static void scatter(real *const row[LANES], const vf *in, long count) {
    long i = 0;
    for (; i + 4 <= count; i += 4)
        for (int lane = 0; lane < LANES; lane += 4) {
            v4 block[4];
            for (int r = 0; r < 4; r++) block[r] = *(const v4 *)((const real *)(in + i + r) + lane);
            transpose4(block);
            for (int r = 0; r < 4; r++) *(v4 *)(row[lane + r] + i) = block[r];
        }
    for (; i < count; i++)
        for (int lane = 0; lane < LANES; lane++) row[lane][i] = ((const real *)(in + i))[lane];
}

#endif
