/* Rows of channels: vectors that lie anywhere, and rows that do not fill their last one. */
#ifndef TITANS_CHANNELS_H
#define TITANS_CHANNELS_H

#include <stdlib.h>
#include <string.h>

#include "threads.h"
#include "vector.h"

typedef vf anywhere __attribute__((aligned(sizeof(real))));

/* The first `left` numbers of a vector, if it has more; the others are 0. */
INLINE vf load(const real *at, long left) {
    if (left >= LANES) return *(const anywhere *)at;
    vf x = {0};
    memcpy(&x, at, sizeof(real) * (size_t)left);
    return x;
}

INLINE void store(real *at, vf x, long left) {
    if (left >= LANES) *(anywhere *)at = x;
    else memcpy(at, &x, sizeof(real) * (size_t)left);
}

INLINE real dot(const real *a, const real *b, long count) {
    vf sum = {0};
    v4 few = {0};
    real one = 0;
    long i = 0;
    for (; i + LANES <= count; i += LANES) sum += *(const anywhere *)(a + i) * *(const anywhere *)(b + i);
    for (; i + 4 <= count; i += 4) few += *(const v4 *)(a + i) * *(const v4 *)(b + i);
    for (; i < count; i++) one += a[i] * b[i];
    for (int lane = 0; lane < LANES; lane += 4) few += *(const v4 *)((const real *)&sum + lane);
    return (few[0] + few[1]) + (few[2] + few[3]) + one;
}

/* silu(a), and its slope if wanted. Below LOWEST, where `sigmoid` falls no further, a counts as LOWEST: both are within
 * 1e-35 of 0. */
INLINE vf silu(vf a, vf *slope) {
    a = at_least(a, LOWEST);
    vf s = sigmoid(a);
    if (slope) *slope = s + a * s * (1 - s);
    return a * s;
}

#endif
