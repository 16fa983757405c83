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

/* Factors of a product a b. */
typedef struct {
    Mat a, b;
} Pair;

/* What a sum starts from: zero, `out` itself, or keep out + mix other. */
enum { NOTHING, ITSELF, MIXTURE };
typedef struct {
    int from;
    vf keep, mix;
    Mat other;
} Start;

#if LANES_OF_FLOAT >= 16
enum { TILE = 4 }; /* rows of a tile: its sums and their operands fit the registers, 32 here and 16 in other builds */
#else
enum { TILE = 2 };
#endif

INLINE vf start_at(Start start, Mat out, int i, int j) {
    if (start.from == NOTHING) return splat(0);
    vf own = out.at[i * out.row + j * out.col];
    if (start.from == ITSELF) return own;
    return start.keep * own + start.mix * start.other.at[i * start.other.row + j * start.other.col];
}

/* out = start + the sum of `count` products, for rows x cols entries from (i, j) on, which stay in registers. */
INLINE void tile(Mat out, Start start, const Pair *pairs, int count, int depth, int i, int j, const int rows,
                 const int cols) {
    vf sum[TILE][4];
    for (int r = 0; r < rows; r++)
        for (int s = 0; s < cols; s++) sum[r][s] = start_at(start, out, i + r, j + s);
    for (const Pair *pair = pairs; pair < pairs + count; pair++) {
        Mat a = from(pair->a, i, 0), b = from(pair->b, 0, j);
        for (int p = 0; p < depth; p++) {
            vf right[4];
            for (int s = 0; s < cols; s++) right[s] = b.at[p * b.row + s * b.col];
            for (int r = 0; r < rows; r++) {
                vf left = a.at[r * a.row + p * a.col];
                for (int s = 0; s < cols; s++) sum[r][s] += left * right[s];
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int s = 0; s < cols; s++) out.at[(i + r) * out.row + (j + s) * out.col] = sum[r][s];
}

INLINE void strip(Mat out, Start start, const Pair *pairs, int count, int depth, int i, int cols, const int rows) {
    int j = 0;
    for (; j + 4 <= cols; j += 4) tile(out, start, pairs, count, depth, i, j, rows, 4);
    for (; j + 2 <= cols; j += 2) tile(out, start, pairs, count, depth, i, j, rows, 2);
    for (; j < cols; j++) tile(out, start, pairs, count, depth, i, j, rows, 1);
}

INLINE void strips(Mat out, Start start, const Pair *pairs, int count, int rows, int cols, int depth) {
    int i = 0;
    for (; i + TILE <= rows; i += TILE) strip(out, start, pairs, count, depth, i, cols, TILE);
    if (TILE > 3 && rows - i == 3) strip(out, start, pairs, count, depth, i, cols, 3);
    if (TILE > 2 && rows - i == 2) strip(out, start, pairs, count, depth, i, cols, 2);
    if (rows - i == 1) strip(out, start, pairs, count, depth, i, cols, 1);
}

/* out [rows, cols] = a [rows, depth] b [depth, cols]. */
static void product(Mat out, Mat a, Mat b, int rows, int cols, int depth) {
    strips(out, (Start){.from = NOTHING}, &(Pair){a, b}, 1, rows, cols, depth);
}

/* out = the sum of two products. */
static void two_products(Mat out, Pair one, Pair other, int rows, int cols, int depth) {
    strips(out, (Start){.from = NOTHING}, (Pair[]){one, other}, 2, rows, cols, depth);
}

/* out += a b. */
static void add_product(Mat out, Mat a, Mat b, int rows, int cols, int depth) {
    strips(out, (Start){.from = ITSELF}, &(Pair){a, b}, 1, rows, cols, depth);
}

/* A state [rows, cols] and what is added to it. */
typedef struct {
    Mat at;
    vf keep;
    Pair pairs[3];
    int count;
} Moving;

INLINE void advance_tile(const Moving *P, vf mix, const Moving *Q, int depth, int i, int j, const int rows,
                         const int cols) {
    tile(P->at, (Start){MIXTURE, P->keep, mix, Q->at}, P->pairs, P->count, depth, i, j, rows, cols);
    tile(Q->at, (Start){MIXTURE, Q->keep, splat(0), Q->at}, Q->pairs, Q->count, depth, i, j, rows, cols);
}

/* P = keep P + mix Q + products, then Q = keep Q + products, in one pass over both. */
static void advance(const Moving *P, vf mix, const Moving *Q, int rows, int cols, int depth) {
    int i = 0;
    for (; i + TILE <= rows; i += TILE) {
        int j = 0;
        for (; j + 4 <= cols; j += 4) advance_tile(P, mix, Q, depth, i, j, TILE, 4);
        for (; j < cols; j++) advance_tile(P, mix, Q, depth, i, j, TILE, 1);
    }
    for (; i < rows; i++)
        for (int j = 0; j < cols; j++) advance_tile(P, mix, Q, depth, i, j, 1, 1);
}

INLINE vf dot(const vf *a, const vf *b, int count) {
    vf sum = {0};
    for (int i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

/* Numbers that are fetched before they are needed: a row for each lane is too many streams for the CPU. */
enum { AHEAD = 64 };

/* `count` numbers of each memory, consecutive at row[lane], into lanes: out[i][lane] = row[lane][i]. */
static void gather(vf *out, const real *const row[LANES], long count) {
    long i = 0;
    for (; i + 4 <= count; i += 4) {
        if (i % 16 == 0)
            for (int lane = 0; lane < LANES; lane++) __builtin_prefetch(row[lane] + i + AHEAD);
        for (int lane = 0; lane < LANES; lane += 4) {
            v4 block[4];
            for (int r = 0; r < 4; r++) block[r] = *(const v4 *)(row[lane + r] + i);
            transpose4(block);
            for (int r = 0; r < 4; r++) *(v4 *)((real *)(out + i + r) + lane) = block[r];
        }
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
