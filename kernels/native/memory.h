/* What Python hands to the memory operation in C, for tokens of float32 (DOUBLE: float64) on a CPU. The definition is
 * reference.py:
 *
 *     u_t = grad_W ||M(k_t) - v_t||^2 at the weights at the start of t's chunk
 *     S_t = eta_t S_{t-1} - theta_t min(1, max_surprise / ||u_t||) u_t
 *     M_t = (1 - alpha_t) M_{t-1} + S_t
 *     y_t = M_t(q_t),     M(x) = W_L silu(W_{L-1} ... silu(W_1 x))
 *
 * Dimensions: B batch, T time, H heads, K key width, V value width, L depth, C chunk size. Pointers may be NULL where
 * it says so. Strides are in numbers; the last dimension of every tensor is contiguous.
 */
#ifndef TITANS_MEMORY_H
#define TITANS_MEMORY_H

#include <stdint.h>

#ifdef DOUBLE
typedef double real;
#else
typedef float real;
#endif

enum { DEEPEST = 4 };

/* A tensor [B, T, H, width], or [B, T, H] with width 1. */
typedef struct {
    real *at;
    int64_t batch, time, head;
} Tokens;

/* A tensor [B, H, out, in] of one layer, [out, in] contiguous. */
typedef struct {
    real *at;
    int64_t batch, head;
} Layers;

/* Of a call's state momentum may be NULL, which is zero, and chunk_start, which is the weights. */
typedef struct {
    Layers weights[DEEPEST], momentum[DEEPEST], chunk_start[DEEPEST];
} State;

typedef struct {
    int64_t batch, tokens, heads, depth, chunk_size;
    int64_t width[DEEPEST + 1]; /* K, hidden widths, V */
    int64_t every;              /* chunks between two states that are kept for backward */
    int64_t gate_per_chunk;     /* gradients of alpha and eta stand at the first token of each chunk */
    double max_surprise;        /* infinity: no bound */
    const int64_t *order;       /* [B, T]: the real tokens of each sample, in order; NULL: all are real */
    const int64_t *count;       /* [B]: how many there are */
    const int64_t *position;    /* [B]: slots of the current chunk that earlier calls have filled */
    Tokens q, k, v, alpha, eta, theta;
    State state;
    Tokens y, surprise;
    State final; /* NULL: not wanted */
    real *kept;  /* states kept for backward; NULL: none */
} Call;

/* Gradients of results, given, and of arguments, wanted. `at` NULL: zero, or not wanted (parts of a state only).
 * Without a chunk start in the call its gradient is part of that of the weights. */
typedef struct {
    Tokens y, surprise;
    State final;
    Tokens q, k, v, alpha, eta, theta;
    State state;
} Gradients;

#endif
