/* One chunk of LANES memories, backward: gradients of its tokens, of the state before it, and of the weights W where it
 * took its inner gradient. Each function is the transpose of the one of the same name in lanes_chunk.h; d_x is the
 * gradient of x and is added to unless it says otherwise.
 */
#ifndef TITANS_LANES_BACKWARD_H
#define TITANS_LANES_BACKWARD_H

#include "lanes_chunk.h"

typedef struct {
    vf *d_y, *d_surprise;                /* [n, V], [n]: given */
    vf *d_v, *d_alpha, *d_eta, *d_theta; /* of v [n, V] and the gates [n] */
    vf *d_h[DEEPEST], *d_x[DEEPEST];     /* as h and x; d_h[0] is that of k, d_x[0] that of q */
    vf *d_delta[DEEPEST], *d_z[DEEPEST]; /* as delta; of hidden pre-activations at the keys */
    vf *d_A, *d_E, *d_beta, *d_f, d_e;   /* d_E [n]: of the last row; d_e: of the last slot */
    vf *d_step;                          /* [n] */
    vf *dots, *wide[2];                  /* [n, n]; [n, widest] */
} ChunkBackward;

/* out[i] += sum over t >= i of weights[t, i] in[t]. */
static void add_later(vf *out, vf *weights, vf *in, int n, int width) {
    for (int i = 0; i < n; i += 4) {
        int rows = n - i < 4 ? n - i : 4;
        Mat columns = flip(mat(weights + i * n + i, n));
        add_product(mat(out + i * width, width), columns, mat(in + i * width, width), rows, width, n - i);
    }
}

static void clear_backward(const Chunk *c, ChunkBackward *b) {
    int n = c->n;
    for (int t = 0; t < n; t++) fill(b->d_A + t * n, t + 1, 0);
    fill(b->d_beta, n, 0), fill(b->d_f, n, 0), fill(b->d_step, n, 0);
    b->d_e = splat(0);
}

/* d_M and d_S: of the state after the chunk. */
static void update_backward(Chunk *c, ChunkBackward *b, const vf *M, const vf *S, vf *d_M, vf *d_S) {
    int n = c->n, end = n - 1;
    const vf *A = c->A + end * n, *E = c->E + end * n;
    fill(b->d_E, n, 0);
    for (int l = 0; l < c->depth; l++) {
        int in = c->width[l], out = c->width[l + 1];
        vf *by_M = b->wide[0], *by_S = b->wide[1];
        product(mat(by_M, out), mat(c->h[l], in), flip(layer_of(c, d_M, l)), n, out, in);
        product(mat(by_S, out), mat(c->h[l], in), flip(layer_of(c, d_S, l)), n, out, in);
        for (int i = 0; i < n; i++) {
            const vf *delta = c->delta[l] + i * out;
            vf by_A = dot(delta, by_M + i * out, out), by_E = dot(delta, by_S + i * out, out), step = c->step[i];
            b->d_A[end * n + i] -= step * by_A;
            b->d_E[i] -= step * by_E;
            b->d_step[i] -= A[i] * by_A + E[i] * by_E;
            for (int o = 0; o < out; o++) {
                b->d_delta[l][i * out + o] = -step * (A[i] * by_M[i * out + o] + E[i] * by_S[i * out + o]);
                by_M[i * out + o] = -step * A[i] * delta[o]; /* from here on the factors of the update */
                by_S[i * out + o] = -step * E[i] * delta[o];
            }
        }
        Pair of_M = {mat(by_M, out), layer_of(c, d_M, l)}, of_S = {mat(by_S, out), layer_of(c, d_S, l)};
        two_products(mat(b->d_h[l], in), of_M, of_S, n, in, out);
    }
    vf d_beta = {0}, d_f = {0}, d_e = {0};
    for (long i = 0; i < c->numbers; i++) d_beta += d_M[i] * M[i], d_f += d_M[i] * S[i], d_e += d_S[i] * S[i];
    b->d_beta[end] += d_beta, b->d_f[end] += d_f, b->d_e += d_e;
}

/* What the weights mixed[t, i] = -A[t, i] step_i x_t . h_i have for gradients; leaves -A step d in b->dots, where
 * dots[t, i] = d_y_t . delta_i is the gradient of x_t . h_i but for its factor. */
static void mix_backward(Chunk *c, ChunkBackward *b, const vf *overlap) {
    int n = c->n;
    for (int t = 0; t < n; t++) {
        for (int i = 0; i <= t; i++) {
            long at = (long)t * n + i;
            vf both = overlap[at] * b->dots[at], weight = c->A[at];
            b->d_A[at] -= c->step[i] * both;
            b->d_step[i] -= weight * both;
            b->dots[at] *= -weight * c->step[i];
        }
        for (int i = t + 1; i < n && i <= (t | 3); i++) b->dots[(long)t * n + i] = splat(0);
    }
}

/* Gradient of what layer l makes of the queries. */
INLINE vf *d_reading(const Chunk *c, const ChunkBackward *b, int l) {
    return l == c->depth - 1 ? b->d_y : b->d_x[l + 1];
}

/* From d_y through every layer to d_x[0]. */
static void reading_backward(Chunk *c, ChunkBackward *b, vf *M, vf *S) {
    int n = c->n;
    for (int l = c->depth - 1; l >= 0; l--) {
        int in = c->width[l], out = c->width[l + 1];
        vf *d_out = d_reading(c, b, l), *d_in = b->d_x[l], *x = c->x[l];
        vf *by_M = b->wide[0], *by_S = b->wide[1];
        product(mat(by_M, in), mat(d_out, out), layer_of(c, M, l), n, in, out);
        product(mat(by_S, in), mat(d_out, out), layer_of(c, S, l), n, in, out);
        for (int t = 0; t < n; t++) {
            b->d_beta[t] += dot(by_M + t * in, x + t * in, in);
            b->d_f[t] += dot(by_S + t * in, x + t * in, in);
            for (int i = t * in; i < (t + 1) * in; i++) d_in[i] = c->beta[t] * by_M[i] + c->f[t] * by_S[i];
        }
        mix(c, c->overlap[l]);
        add_later(b->d_delta[l], c->mixed, d_out, n, out);
        dot_earlier(b->dots, d_out, c->delta[l], n, out);
        mix_backward(c, b, c->overlap[l]);
        add_earlier(d_in, b->dots, c->h[l], n, in);
        add_later(b->d_h[l], b->dots, x, n, in);
        if (l > 0)
            for (int i = 0; i < n * in; i++) d_in[i] *= c->x_slope[l][i];
    }
}

static void steps_backward(Chunk *c, ChunkBackward *b) {
    for (int i = 0; i < c->n; i++) {
        vf surprise = c->surprise[i], d_surprise = b->d_surprise[i];
        b->d_theta[i] = b->d_step[i] * c->scale[i];
        if (c->max_surprise < (real)__builtin_inf()) {
            vf clipped = -b->d_step[i] * c->theta[i] * c->scale[i] / surprise;
            d_surprise += choose(surprise >= splat(c->max_surprise), clipped, splat(0));
        }
        vf share = choose(surprise == splat(0), splat(0), d_surprise / surprise);
        for (int l = 0; l < c->depth; l++) {
            int in = c->width[l], out = c->width[l + 1];
            vf of_delta = share * c->h_norm[l][i], of_h = share * c->delta_norm[l][i];
            for (int o = 0; o < out; o++) b->d_delta[l][i * out + o] += of_delta * c->delta[l][i * out + o];
            for (int j = 0; j < in; j++) b->d_h[l][i * in + j] += of_h * c->h[l][i * in + j];
        }
    }
}

/* Gradient of what layer l makes of the keys. */
INLINE vf *d_keys(const Chunk *c, const ChunkBackward *b, int l) {
    return l == c->depth - 1 ? b->d_delta[l] : b->d_z[l + 1];
}

/* From d_delta and d_h to d_v, d_h[0] and d_z. Leaves the gradient of pulled[l] in d_delta[l - 1]. */
static void keys_backward(Chunk *c, ChunkBackward *b, vf *W) {
    int n = c->n, last = c->depth - 1;
    for (int l = 1; l <= last; l++) {
        int in = c->width[l], out = c->width[l + 1];
        vf *d_pulled = b->d_delta[l - 1];
        for (int i = 0; i < n * in; i++) {
            b->d_z[l][i] = d_pulled[i] * c->pulled[l][i] * c->curve[l][i];
            d_pulled[i] *= c->slope[l][i];
        }
        add_product(mat(b->d_delta[l], out), mat(d_pulled, in), flip(layer_of(c, W, l)), n, out, in);
    }
    vf *d_out = b->d_delta[last];
    for (int i = 0; i < n * c->width[last + 1]; i++) {
        d_out[i] *= 2;
        b->d_v[i] = -d_out[i];
    }
    for (int l = last; l >= 0; l--) {
        int in = c->width[l], out = c->width[l + 1];
        add_product(mat(b->d_h[l], in), mat(d_keys(c, b, l), out), layer_of(c, W, l), n, in, out);
        for (int i = 0; l > 0 && i < n * in; i++) b->d_z[l][i] += b->d_h[l][i] * c->slope[l][i];
    }
}

/* d_M, d_S: of the state after the chunk, then of that before it. d_W: of the weights W, added to; it may be d_M. */
static void state_backward(Chunk *c, ChunkBackward *b, vf *d_M, vf *d_S, vf *d_W) {
    int n = c->n, end = n - 1;
    vf *by_M = b->wide[0], *by_S = b->wide[1];
    for (int l = 0; l < c->depth; l++) {
        int in = c->width[l], out = c->width[l + 1];
        Mat x = mat(c->x[l], in);
        scale_rows(by_M, c->beta, d_reading(c, b, l), n, out);
        scale_rows(by_S, c->f, d_reading(c, b, l), n, out);
        Moving to_S = {layer_of(c, d_S, l), c->e[end], {{flip(mat(by_S, out)), x}}, 1};
        Moving to_M = {layer_of(c, d_M, l), c->beta[end], {{flip(mat(by_M, out)), x}}, 1};
        Pair of_W[2] = {{flip(mat(d_keys(c, b, l), out)), mat(c->h[l], in)}};
        if (l > 0) of_W[1] = (Pair){flip(mat(c->delta[l], out)), mat(b->d_delta[l - 1], in)};
        for (int i = 0; i < 1 + (l > 0); i++) {
            if (d_W == d_M) to_M.pairs[to_M.count++] = of_W[i];
            else add_product(layer_of(c, d_W, l), of_W[i].a, of_W[i].b, out, in, n);
        }
        advance(&to_S, c->f[end], &to_M, out, in, n);
    }
}

/* Through the recurrences from the last slot to the first. Rows of d_A become totals in place; d_E is one such row. */
static void gate_table_backward(Chunk *c, ChunkBackward *b) {
    int n = c->n;
    vf *d_E = b->d_E, d_beta = {0}, d_f = {0}, d_e = b->d_e;
    for (int t = n - 1; t >= 0; t--) {
        vf keep = 1 - c->alpha[t], eta = c->eta[t], filled = c->filled[t];
        vf *d_A = b->d_A + t * n, *A = c->A + (t - 1) * n, *E = c->E + (t - 1) * n; /* A, E: the slot before */
        d_beta += b->d_beta[t], d_f += b->d_f[t];
        d_e += filled * d_f;
        vf d_keep = d_beta * (t ? c->beta[t - 1] : splat(1)) + d_f * (t ? c->f[t - 1] : splat(0));
        vf d_eta = d_e * (t ? c->e[t - 1] : splat(1));
        for (int i = 0; i < t; i++) {
            vf of_E = d_E[i] + filled * d_A[i];
            d_keep += d_A[i] * A[i];
            d_eta += of_E * E[i];
            d_A[i - n] += keep * d_A[i];
            d_E[i] = eta * of_E;
        }
        b->d_alpha[t] = -d_keep, b->d_eta[t] = d_eta;
        d_beta *= keep, d_f *= keep, d_e *= eta;
    }
}

#endif
