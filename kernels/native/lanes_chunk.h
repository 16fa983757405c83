/* One chunk of LANES memories, forward. Names are those of reference.py and gates.py; 0 <= l < L counts layers.
 *
 * In a chunk with start state (M_0, S_0) every token's gradient is an outer product delta_i h_i^T per layer, and
 *
 *     M_t x = beta_t M_0 x + f_t S_0 x - sum_{i<=t} A[t, i] step_i delta_i (h_i . x)
 *     S_t   = e_t S_0 - sum_{i<=t} E[t, i] step_i delta_i h_i^T
 *
 * with the ratio-free recurrences, exact at gates of 0 and 1 (filled_t = 0: an empty slot, where nothing may change)
 *
 *     beta_t = (1 - alpha_t) beta_{t-1}     e_t = eta_t e_{t-1}     f_t = (1 - alpha_t) f_{t-1} + filled_t e_t
 *     E[t, i] = eta_t E[t-1, i]             A[t, i] = (1 - alpha_t) A[t-1, i] + filled_t E[t, i]
 */
#ifndef TITANS_LANES_CHUNK_H
#define TITANS_LANES_CHUNK_H

#include "lanes_matrix.h"
#include "memory.h"

/* [n, w] stands for n slots of w numbers each; hidden layers count from 1, as inputs of layer l. */
typedef struct {
    int depth, n, width[DEEPEST + 1];
    long layer[DEEPEST + 1], numbers; /* where layer l begins in a state, and how long a state is */
    long row;                         /* numbers of the longest row that is read or written for one memory */
    real max_surprise;
    vf *alpha, *eta, *theta, *filled; /* [n] */
    vf *v, *y;                        /* [n, V] */
    vf *h[DEEPEST], *x[DEEPEST];      /* [n, width[l]]: inputs of layer l at keys and at queries; h[0] = k, x[0] = q */
    vf *slope[DEEPEST], *curve[DEEPEST], *x_slope[DEEPEST]; /* silu' and silu'' at keys, silu' at queries */
    vf *delta[DEEPEST];                        /* [n, width[l + 1]]: gradient of the loss by the output of layer l */
    vf *pulled[DEEPEST];                       /* [n, width[l]]: W_l^T delta_l */
    vf *h_norm[DEEPEST], *delta_norm[DEEPEST]; /* [n]: squares of norms */
    vf *surprise, *scale, *step;               /* [n]: ||u||, min(1, max_surprise / ||u||), theta scale */
    vf *beta, *e, *f, *A, *E;                  /* [n], [n, n] */
    vf *overlap[DEEPEST];                      /* [n, n]: x_t . h_i, for i <= t */
    vf *mixed;                                 /* [n, n]: weights of a sum over i <= t, zero above the diagonal */
    vf *wide[2];                               /* [n, widest]: room for one product */
} Chunk;

INLINE Mat layer_of(const Chunk *c, vf *state, int l) { return mat(state + c->layer[l], c->width[l]); }

/* out[t] = weight[t] in[t], rows of `width`. */
static void scale_rows(vf *out, const vf *weight, const vf *in, int n, int width) {
    for (int t = 0; t < n; t++)
        for (int j = 0; j < width; j++) out[t * width + j] = weight[t] * in[t * width + j];
}

/* out[t] += sum over i <= t of weights[t, i] in[i]; weights are zero above the diagonal. */
static void add_earlier(vf *out, vf *weights, vf *in, int n, int width) {
    for (int t = 0; t < n; t += 4) {
        int rows = n - t < 4 ? n - t : 4;
        add_product(mat(out + t * width, width), mat(weights + t * n, n), mat(in, width), rows, width, t + rows);
    }
}

/* out[t, i] = a_t . b_i for i <= t, and for the few above the diagonal that share a tile with these. */
static void dot_earlier(vf *out, vf *a, vf *b, int n, int width) {
    for (int t = 0; t < n; t += 4) {
        int rows = n - t < 4 ? n - t : 4;
        product(mat(out + t * n, n), mat(a + t * width, width), flip(mat(b, width)), rows, t + rows, width);
    }
}

static void gate_table(Chunk *c) {
    int n = c->n;
    vf beta = splat(1), e = splat(1), f = splat(0);
    for (int t = 0; t < n; t++) {
        vf keep = 1 - c->alpha[t], eta = c->eta[t], filled = c->filled[t];
        vf *A = c->A + t * n, *E = c->E + t * n;
        c->beta[t] = beta = keep * beta;
        c->e[t] = e = eta * e;
        c->f[t] = f = keep * f + filled * e;
        for (int i = 0; i < t; i++) {
            E[i] = eta * E[i - n];
            A[i] = keep * A[i - n] + filled * E[i];
        }
        E[t] = splat(1), A[t] = filled;
        fill(A + t + 1, n - t - 1, 0);
    }
}

/* Forward of the keys and backward of their errors at the weights W: h, delta and what lies between. */
static void keys(Chunk *c, vf *W) {
    int n = c->n, last = c->depth - 1;
    for (int l = 0; l <= last; l++) {
        int out = c->width[l + 1];
        vf *z = l < last ? c->h[l + 1] : c->delta[last];
        product(mat(z, out), mat(c->h[l], c->width[l]), flip(layer_of(c, W, l)), n, out, c->width[l]);
        if (l < last) activate(z, c->slope[l + 1], c->curve[l + 1], n * out);
    }
    for (int i = 0; i < n * c->width[last + 1]; i++) c->delta[last][i] = 2 * (c->delta[last][i] - c->v[i]);
    for (int l = last; l > 0; l--) {
        int in = c->width[l];
        product(mat(c->pulled[l], in), mat(c->delta[l], c->width[l + 1]), layer_of(c, W, l), n, in, c->width[l + 1]);
        for (int i = 0; i < n * in; i++) c->delta[l - 1][i] = c->pulled[l][i] * c->slope[l][i];
    }
}

/* ||u_i|| from the factors, and how far each token moves the memory. */
static void steps(Chunk *c) {
    for (int i = 0; i < c->n; i++) {
        vf squares = {0};
        for (int l = 0; l < c->depth; l++) {
            const vf *h = c->h[l] + i * c->width[l], *delta = c->delta[l] + i * c->width[l + 1];
            c->h_norm[l][i] = dot(h, h, c->width[l]);
            c->delta_norm[l][i] = dot(delta, delta, c->width[l + 1]);
            squares += c->h_norm[l][i] * c->delta_norm[l][i];
        }
        c->surprise[i] = square_root(squares);
        c->scale[i] = clip(c->surprise[i], c->max_surprise);
        c->step[i] = c->theta[i] * c->scale[i];
    }
}

/* mixed[t, i] = -A[t, i] step_i dots[t, i]: how much of source i a reading at slot t holds. */
static void mix(Chunk *c, const vf *dots) {
    int n = c->n;
    for (int t = 0; t < n; t++) {
        for (int i = 0; i <= t; i++) c->mixed[t * n + i] = -c->A[t * n + i] * c->step[i] * dots[t * n + i];
        for (int i = t + 1; i < n && i <= (t | 3); i++) c->mixed[t * n + i] = splat(0);
    }
}

/* y_t = M_t(q_t) for all slots; without `y` only what backward needs of it. */
static void reading(Chunk *c, vf *M, vf *S, const int y) {
    int n = c->n, last = c->depth - 1;
    for (int l = 0; l <= last; l++) {
        int in = c->width[l], out = c->width[l + 1];
        vf *made = l < last ? c->x[l + 1] : c->y;
        dot_earlier(c->overlap[l], c->x[l], c->h[l], n, in);
        if (l == last && !y) break;
        scale_rows(c->wide[0], c->beta, c->x[l], n, in);
        scale_rows(c->wide[1], c->f, c->x[l], n, in);
        Pair of_M = {mat(c->wide[0], in), flip(layer_of(c, M, l))},
             of_S = {mat(c->wide[1], in), flip(layer_of(c, S, l))};
        two_products(mat(made, out), of_M, of_S, n, out, in);
        mix(c, c->overlap[l]);
        add_earlier(made, c->mixed, c->delta[l], n, out);
        if (l < last) activate(made, c->x_slope[l + 1], 0, n * out);
    }
}

/* The state after the last slot, in the place of that before the first. */
static void update(Chunk *c, vf *M, vf *S) {
    int n = c->n, end = n - 1;
    const vf *A = c->A + end * n, *E = c->E + end * n;
    vf *by_M = c->wide[0], *by_S = c->wide[1];
    for (int l = 0; l < c->depth; l++) {
        int in = c->width[l], out = c->width[l + 1];
        for (int i = 0; i < n; i++)
            for (int o = 0; o < out; o++) {
                vf moved = -c->step[i] * c->delta[l][i * out + o];
                by_M[i * out + o] = A[i] * moved;
                by_S[i * out + o] = E[i] * moved;
            }
        Moving to_M = {layer_of(c, M, l), c->beta[end], {{flip(mat(by_M, out)), mat(c->h[l], in)}}, 1};
        Moving to_S = {layer_of(c, S, l), c->e[end], {{flip(mat(by_S, out)), mat(c->h[l], in)}}, 1};
        advance(&to_M, c->f[end], &to_S, out, in, n);
    }
}

#endif
