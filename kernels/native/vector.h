/* Vectors of LANES numbers. Only GCC/Clang vector extensions, no intrinsics.
 *
 * The build says how many floats a register holds, once per instruction set: 16 for AVX-512, 8 for AVX2, 4 for SSE and
 * NEON; under DOUBLE a vector holds half as many numbers of float64, but at least 4.
 */
#ifndef TITANS_VECTOR_H
#define TITANS_VECTOR_H

#include <stdint.h>

#include "memory.h"

#define INLINE static inline __attribute__((always_inline))

#ifdef DOUBLE
typedef int64_t whole;
enum { LANES = LANES_OF_FLOAT >= 8 ? LANES_OF_FLOAT / 2 : 4, MANTISSA = 52, TERMS = 13 };
static const real LOWEST = -708, HIGHEST = 709, LN2 = 0.693147180369123816490, LN2_REST = 1.90821492927058770002e-10;
#else
typedef int32_t whole;
enum { LANES = LANES_OF_FLOAT, MANTISSA = 23, TERMS = 7 };
static const real LOWEST = -86, HIGHEST = 88, LN2 = 0.693145752f, LN2_REST = 1.42860677e-6f;
#endif

typedef real vf __attribute__((vector_size(sizeof(real) * LANES)));
typedef whole vi __attribute__((vector_size(sizeof(real) * LANES)));
typedef real v4 __attribute__((vector_size(sizeof(real) * 4), aligned(sizeof(real))));

#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef whole i4 __attribute__((vector_size(sizeof(real) * 4)));
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (i4){i, j, k, l})
#endif

/* Whole vectors that hold so many numbers. */
INLINE long vectors_for(long numbers) { return (numbers + LANES - 1) / LANES; }

INLINE vf splat(real x) { return x - (vf){0}; }

INLINE vf choose(vi where, vf yes, vf no) { return (vf)((where & (vi)yes) | (~where & (vi)no)); }

/* The larger of x and a bound, and the smaller; NaN stays NaN. */
INLINE vf at_least(vf x, real low) { return choose(x < splat(low), splat(low), x); }
INLINE vf at_most(vf x, real high) { return choose(x > splat(high), splat(high), x); }

INLINE vf square_root(vf x) {
    vf root;
    for (int lane = 0; lane < LANES; lane++) root[lane] = (real)__builtin_sqrt(x[lane]);
    return root;
}

/* e^x, x between LOWEST and HIGHEST or taken as these: x = n ln 2 + r, ln 2 in two parts, and a series in r. */
INLINE vf exponential(vf x) {
    static const real over_factorial[] = {1,
                                          1,
                                          1 / (real)2,
                                          1 / (real)6,
                                          1 / (real)24,
                                          1 / (real)120,
                                          1 / (real)720,
                                          1 / (real)5040,
                                          1 / (real)40320,
                                          1 / (real)362880,
                                          1 / (real)3628800,
                                          1 / (real)39916800,
                                          1 / (real)479001600,
                                          1 / (real)6227020800};
    const real round = (real)1.5 * ((whole)1 << MANTISSA); /* adding it leaves no digits behind the point */
    x = at_most(at_least(x, LOWEST), HIGHEST);
    vf n = (x * (real)1.44269504088896341 + round) - round;
    vf r = (x - n * LN2) - n * LN2_REST;
    vf series = splat(over_factorial[TERMS]);
    for (int k = TERMS - 1; k >= 0; k--) series = series * r + over_factorial[k];
    return (vf)((vi)series + (__builtin_convertvector(n, vi) << MANTISSA));
}

INLINE vf sigmoid(vf z) { return 1.0f / (1.0f + exponential(-z)); }

/* h = silu(z) in the place of z; slope = silu'(z); curve = silu''(z), if wanted. */
INLINE void activate(vf *h, vf *slope, vf *curve, long count) {
    for (long i = 0; i < count; i++) {
        vf z = h[i], s = sigmoid(z), ds = s * (1 - s);
        h[i] = z * s;
        slope[i] = s + z * ds;
        if (curve) curve[i] = ds * (2 + z * (1 - 2 * s));
    }
}

/* min(1, most / ||u||); most infinite: no bound. */
INLINE vf clip(vf surprise, real most) {
    return most < (real)__builtin_inf() ? most / at_least(surprise, most) : splat(1);
}

INLINE void fill(vf *out, long count, real value) {
    for (long i = 0; i < count; i++) out[i] = splat(value);
}

/* 4 x 4 reals, rows to columns. */
INLINE void transpose4(v4 row[4]) {
    v4 a = PICK(row[0], row[1], 0, 4, 1, 5), b = PICK(row[2], row[3], 0, 4, 1, 5);
    v4 c = PICK(row[0], row[1], 2, 6, 3, 7), d = PICK(row[2], row[3], 2, 6, 3, 7);
    row[0] = PICK(a, b, 0, 1, 4, 5), row[1] = PICK(a, b, 2, 3, 6, 7);
    row[2] = PICK(c, d, 0, 1, 4, 5), row[3] = PICK(c, d, 2, 3, 6, 7);
}

#endif
