/* One chunk of LANES memories, backward: gradients of its tokens, of the state before it, and of the weights W where it
 * took its inner gradient. Each function is the transpose of the one of the same name in lanes_chunk.h; d_x is the gradient of
 * x and is added to unless it says otherwise.
 */
#ifndef TITANS_LANES_BACKWARD_H
#define TITANS_LANES_BACKWARD_H

#include "lanes_chunk.h"

typedef struct {
    vf *d_y, *d_surprise;                    /* [n, V], [n]: given */
    vf *d_v, *d_alpha, *d_eta, *d_theta;     /* of v [n, V] and the gates [n] */
    vf *d_h[DEEPEST], *d_x[DEEPEST];         /* as h and x; d_h[0] is that of k, d_x[0] that of q */
    vf *d_delta[DEEPEST], *d_z[DEEPEST];     /* as delta; of hidden pre-activations at the keys */
    vf *d_A, *d_E, *d_beta, *d_f, d_e;       /* d_E [n]: of the last row; d_e: of the last slot */
    vf *d_step;                              /* [n] */
    vf *dots, *wide[3];                      /* [n, n]; [n, widest] */
} ChunkBackward;

/* out[i] += sum over t >= i of weights[t, i] in[t]. */
static void add_later(vf *out, vf *weights, vf *in, int n, int width) {
    for (int i = 0; i < n; i += 4) {
        int rows = n - i < 4 ? n - i : 4;
        Mat columns = flip(mat(weights + i * n + i, n));
        product(mat(out + i * width, width), columns, mat(in + i * width, width), rows, width, n - i);
    }
}

static void clear_backward(const Chunk *c, ChunkBackward *b) {
    int n = c->n;
    for (int l = 0; l < c->depth; l++) {
        fill(b->d_h[l], (long)n * c->width[l], 0);
        fill(b->d_delta[l], (long)n * c->width[l + 1], 0);
    }
    for (int t = 0; t < n; t++) fill(b->d_A + t * n, t + 1, 0);
    fill(b->d_beta, n, 0), fill(b->d_f, n, 0), fill(b->d_step, n, 0);
    b->d_e = splat(0);
}

/* d_M and d_S: of the state after the chunk, given; then what reaches the state before it directly. */
static void update_backward(Chunk *c, ChunkBackward *b, const vf *M, const vf *S, vf *d_M, vf *d_S) {
    int n = c->n, end = n - 1;
    const vf *A = c->A + end * n, *E = c->E + end * n;
    fill(b->d_E, n, 0);
    for (int l = 0; l < c->depth; l++) {
        int in = c->width[l], out = c->width[l + 1];
        vf *by_M = b->wide[0], *by_S = b->wide[1];
        fill(by_M, (long)n * out, 0), fill(by_S, (long)n * out, 0);
        product(mat(by_M, out), mat(c->h[l], in), flip(layer_of(c, d_M, l)), n, out, in);
        product(mat(by_S, out), mat(c->h[l], in), flip(layer_of(c, d_S, l)), n, out, in);
        for (int i = 0; i < n; i++) {
            const vf *delta = c->delta[l] + i * out;
            vf of_M = dot(delta, by_M + i * out, out), of_S = dot(delta, by_S + i * out, out), step = c->step[i];
            b->d_A[end * n + i] -= step * of_M;
            b->d_E[i] -= step * of_S;
            b->d_step[i] -= A[i] * of_M + E[i] * of_S;
            for (int o = 0; o < out; o++) {
                b->d_delta[l][i * out + o] -= step * (A[i] * by_M[i * out + o] + E[i] * by_S[i * out + o]);
                by_M[i * out + o] = -step * A[i] * delta[o]; /* from here on the factors of the update */
                by_S[i * out + o] = -step * E[i] * delta[o];
            }
        }
        product(mat(b->d_h[l], in), mat(by_M, out), layer_of(c, d_M, l), n, in, out);
        product(mat(b->d_h[l], in), mat(by_S, out), layer_of(c, d_S, l), n, in, out);
    }
    vf beta = c->beta[end], e = c->e[end], f = c->f[end];
    vf d_beta = {0}, d_f = {0}, d_e = {0};
    for (long i = 0; i < c->layer[c->depth]; i++) {
        d_beta += d_M[i] * M[i], d_f += d_M[i] * S[i], d_e += d_S[i] * S[i];
        d_S[i] = f * d_M[i] + e * d_S[i];
        d_M[i] = beta * d_M[i];
    }
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

/* From d_y through every layer to d_x[0]; adds to the gradients of the state before the chunk. */
static void reading_backward(Chunk *c, ChunkBackward *b, vf *M, vf *S, vf *d_M, vf *d_S) {
    int n = c->n;
    for (int l = c->depth - 1; l >= 0; l--) {
        int in = c->width[l], out = c->width[l + 1];
        vf *d_out = l == c->depth - 1 ? b->d_y : b->d_x[l + 1], *d_in = b->d_x[l], *x = c->x[l];
        vf *by_M = b->wide[0], *by_S = b->wide[1], *scaled = b->wide[2];
        fill(by_M, (long)n * in, 0), fill(by_S, (long)n * in, 0);
        product(mat(by_M, in), mat(d_out, out), layer_of(c, M, l), n, in, out);
        product(mat(by_S, in), mat(d_out, out), layer_of(c, S, l), n, in, out);
        for (int t = 0; t < n; t++) {
            b->d_beta[t] += dot(by_M + t * in, x + t * in, in);
            b->d_f[t] += dot(by_S + t * in, x + t * in, in);
            for (int i = t * in; i < (t + 1) * in; i++) d_in[i] = c->beta[t] * by_M[i] + c->f[t] * by_S[i];
        }
        scale_rows(scaled, c->beta, d_out, n, out);
        product(layer_of(c, d_M, l), flip(mat(scaled, out)), mat(x, in), out, in, n);
        scale_rows(scaled, c->f, d_out, n, out);
        product(layer_of(c, d_S, l), flip(mat(scaled, out)), mat(x, in), out, in, n);
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

/* From d_delta and d_h to d_v, d_h[0] and d_W. */
static void keys_backward(Chunk *c, ChunkBackward *b, vf *W, vf *d_W) {
    int n = c->n, last = c->depth - 1;
    for (int l = 1; l <= last; l++) {
        int in = c->width[l], out = c->width[l + 1];
        vf *d_pulled = b->wide[0];
        for (int i = 0; i < n * in; i++) {
            d_pulled[i] = b->d_delta[l - 1][i] * c->slope[l][i];
            b->d_z[l][i] = b->d_delta[l - 1][i] * c->pulled[l][i] * c->curve[l][i];
        }
        product(mat(b->d_delta[l], out), mat(d_pulled, in), flip(layer_of(c, W, l)), n, out, in);
        product(layer_of(c, d_W, l), flip(mat(c->delta[l], out)), mat(d_pulled, in), out, in, n);
    }
    vf *d_out = b->d_delta[last];
    for (int i = 0; i < n * c->width[last + 1]; i++) {
        d_out[i] *= 2;
        b->d_v[i] = -d_out[i];
    }
    for (int l = last; l >= 0; l--) {
        int in = c->width[l], out = c->width[l + 1];
        product(layer_of(c, d_W, l), flip(mat(d_out, out)), mat(c->h[l], in), out, in, n);
        product(mat(b->d_h[l], in), mat(d_out, out), layer_of(c, W, l), n, in, out);
        if (l == 0) break;
        for (int i = 0; i < n * in; i++) b->d_z[l][i] += b->d_h[l][i] * c->slope[l][i];
        d_out = b->d_z[l];
    }
}

/* Through the recurrences from the last slot to the first. Rows of d_A become totals in place; d_E is one such row. */
static void gate_table_backward(Chunk *c, ChunkBackward *b) {
    int n = c->n;
    vf *d_E = b->d_E, d_beta = {0}, d_f = {0}, d_e = b->d_e;
    for (int t = n - 1; t >= 0; t--) {
        vf keep = 1 - c->alpha[t], eta = c->eta[t], real = c->real[t];
        vf *d_A = b->d_A + t * n, *A = c->A + (t - 1) * n, *E = c->E + (t - 1) * n; /* A, E: the slot before */
        d_beta += b->d_beta[t], d_f += b->d_f[t];
        d_e += real * d_f;
        vf d_keep = d_beta * (t ? c->beta[t - 1] : splat(1)) + d_f * (t ? c->f[t - 1] : splat(0));
        vf d_eta = d_e * (t ? c->e[t - 1] : splat(1));
        for (int i = 0; i < t; i++) {
            vf of_E = d_E[i] + real * d_A[i];
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
