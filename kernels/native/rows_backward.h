/* One chunk of one memory, backward, with vectors along rows; as lanes_backward.h, in the layout of rows_chunk.h. */
#ifndef TITANS_ROWS_BACKWARD_H
#define TITANS_ROWS_BACKWARD_H

#include "rows_chunk.h"

typedef struct {
    vf *d_y, *d_surprise;
    vf *d_v, *d_alpha, *d_eta, *d_theta;
    vf *d_h[DEEPEST], *d_x[DEEPEST], *d_delta[DEEPEST], *d_z[DEEPEST];
    vf *d_A, *d_E, *d_beta, *d_f;
    real d_e;
    vf *d_step;
    vf *dots, *wide[2];
    vf *slot[4]; /* [n]: room for a number per slot */
} ChunkBackward;

static void clear_backward(const Chunk *c, ChunkBackward *b) {
    fill(b->d_A, c->n * c->slots, 0), fill(b->d_E, c->slots, 0);
    fill(b->d_beta, c->slots, 0), fill(b->d_f, c->slots, 0), fill(b->d_step, c->slots, 0);
    b->d_e = 0;
}

static void update_backward(Chunk *c, ChunkBackward *b, const vf *M, const vf *S, vf *d_M, vf *d_S) {
    int end = c->n - 1;
    const vf *A = c->A + end * c->slots, *E = c->E + end * c->slots;
    vf *d_A = b->d_A + end * c->slots, *by_A = b->slot[0], *by_E = b->slot[1], *of_M = b->slot[2], *of_S = b->slot[3];
    for (long i = 0; i < c->slots; i++) by_A[i] = -A[i] * c->step[i], by_E[i] = -E[i] * c->step[i];
    for (int l = 0; l < c->depth; l++) {
        vf *by_M = b->wide[0], *by_S = b->wide[1];
        pass(c, l, d_M, l + 1, by_M, c->h[l]);
        pass(c, l, d_S, l + 1, by_S, c->h[l]);
        dot_slots(c, l + 1, of_M, c->delta[l], by_M);
        dot_slots(c, l + 1, of_S, c->delta[l], by_S);
        for (long i = 0; i < c->slots; i++) {
            d_A[i] -= c->step[i] * of_M[i];
            b->d_E[i] -= c->step[i] * of_S[i];
            b->d_step[i] -= A[i] * of_M[i] + E[i] * of_S[i];
        }
        scale_level(c, l + 1, b->d_delta[l], by_A, by_M, 0);
        scale_level(c, l + 1, b->d_delta[l], by_E, by_S, 1);
        scale_level(c, l + 1, by_M, by_A, c->delta[l], 0); /* from here on the factors of the update */
        scale_level(c, l + 1, by_S, by_E, c->delta[l], 0);
        pass(c, l, d_M, l, b->d_h[l], by_M);
        add_pass(c, l, d_S, l, b->d_h[l], by_S);
    }
    vf d_beta = {0}, d_f = {0}, d_e = {0};
    for (long i = 0; i < c->numbers; i++) d_beta += d_M[i] * M[i], d_f += d_M[i] * S[i], d_e += d_S[i] * S[i];
    ((real *)b->d_beta)[end] += total(d_beta), ((real *)b->d_f)[end] += total(d_f), b->d_e += total(d_e);
}

static void mix_backward(Chunk *c, ChunkBackward *b, const vf *overlap) {
    for (int t = 0; t < c->n; t++)
        for (long i = 0; i < c->slots; i++) {
            long at = t * c->slots + i;
            if (i * LANES > t) {
                b->dots[at] = splat(0);
                continue;
            }
            vf weight = c->A[at], both = overlap[at] * b->dots[at];
            b->d_A[at] -= c->step[i] * both; /* above the diagonal nobody reads it */
            b->d_step[i] -= weight * both;
            b->dots[at] *= -weight * c->step[i];
        }
}

INLINE vf *d_reading(const Chunk *c, const ChunkBackward *b, int l) {
    return l == c->depth - 1 ? b->d_y : b->d_x[l + 1];
}

static void reading_backward(Chunk *c, ChunkBackward *b, vf *M, vf *S) {
    for (int l = c->depth - 1; l >= 0; l--) {
        vf *d_out = d_reading(c, b, l), *d_in = b->d_x[l], *x = c->x[l];
        vf *by_M = b->wide[0], *by_S = b->wide[1], *of_M = b->slot[0], *of_S = b->slot[1];
        pass(c, l, M, l, by_M, d_out);
        pass(c, l, S, l, by_S, d_out);
        dot_slots(c, l, of_M, by_M, x);
        dot_slots(c, l, of_S, by_S, x);
        for (long i = 0; i < c->slots; i++) b->d_beta[i] += of_M[i], b->d_f[i] += of_S[i];
        scale_level(c, l, d_in, c->beta, by_M, 0);
        scale_level(c, l, d_in, c->f, by_S, 1);
        mix(c, c->overlap[l]);
        add_later(c, l + 1, b->d_delta[l], c->mixed, d_out);
        dot_earlier(c, l + 1, b->dots, d_out, c->delta[l]);
        mix_backward(c, b, c->overlap[l]);
        add_earlier(c, l, d_in, b->dots, c->h[l]);
        add_later(c, l, b->d_h[l], b->dots, x);
        if (l > 0)
            for (long i = 0; i < level_size(c, l); i++) d_in[i] *= c->x_slope[l][i];
    }
}

static void steps_backward(Chunk *c, ChunkBackward *b) {
    vf *share = b->slot[0], *part = b->slot[1];
    for (long i = 0; i < c->slots; i++) {
        vf surprise = c->surprise[i], d_surprise = b->d_surprise[i];
        b->d_theta[i] = b->d_step[i] * c->scale[i];
        if (c->max_surprise < (real)__builtin_inf()) {
            vf clipped = -b->d_step[i] * c->theta[i] * c->scale[i] / surprise;
            d_surprise += choose(surprise >= splat(c->max_surprise), clipped, splat(0));
        }
        share[i] = choose(surprise == splat(0), splat(0), d_surprise / surprise);
    }
    for (int l = 0; l < c->depth; l++) {
        for (long i = 0; i < c->slots; i++) part[i] = share[i] * c->h_norm[l][i];
        scale_level(c, l + 1, b->d_delta[l], part, c->delta[l], 1);
        for (long i = 0; i < c->slots; i++) part[i] = share[i] * c->delta_norm[l][i];
        scale_level(c, l, b->d_h[l], part, c->h[l], 1);
    }
}

INLINE vf *d_keys(const Chunk *c, const ChunkBackward *b, int l) {
    return l == c->depth - 1 ? b->d_delta[l] : b->d_z[l + 1];
}

static void keys_backward(Chunk *c, ChunkBackward *b, vf *W) {
    int last = c->depth - 1;
    for (int l = 1; l <= last; l++) {
        vf *d_pulled = b->d_delta[l - 1];
        for (long i = 0; i < level_size(c, l); i++) {
            b->d_z[l][i] = d_pulled[i] * c->pulled[l][i] * c->curve[l][i];
            d_pulled[i] *= c->slope[l][i];
        }
        add_pass(c, l, W, l + 1, b->d_delta[l], d_pulled);
    }
    vf *d_out = b->d_delta[last];
    for (long i = 0; i < level_size(c, c->depth); i++) {
        d_out[i] *= 2;
        b->d_v[i] = -d_out[i];
    }
    for (int l = last; l >= 0; l--) {
        add_pass(c, l, W, l, b->d_h[l], d_keys(c, b, l));
        for (long i = 0; l > 0 && i < level_size(c, l); i++) b->d_z[l][i] += b->d_h[l][i] * c->slope[l][i];
    }
}

static void state_backward(Chunk *c, ChunkBackward *b, vf *d_M, vf *d_S, vf *d_W) {
    int end = c->n - 1;
    real beta = ((real *)c->beta)[end], e = ((real *)c->e)[end], f = ((real *)c->f)[end];
    vf *by_M = b->wide[0], *by_S = b->wide[1];
    for (int l = 0; l < c->depth; l++) {
        scale_level(c, l + 1, by_M, c->beta, d_reading(c, b, l), 0);
        scale_level(c, l + 1, by_S, c->f, d_reading(c, b, l), 0);
        Moving to_S = moving(c, l, d_S, e, outer(c, l, by_S, c->x[l])),
               to_M = moving(c, l, d_M, beta, outer(c, l, by_M, c->x[l]));
        Pair of_W[2] = {outer(c, l, d_keys(c, b, l), c->h[l])};
        if (l > 0) of_W[1] = outer(c, l, c->delta[l], b->d_delta[l - 1]);
        int rows = c->width[odd_side(l)], vectors = layer_row(c, l);
        for (int i = 0; i < 1 + (l > 0); i++) {
            if (d_W == d_M) to_M.pairs[to_M.count++] = of_W[i];
            else add_product((Sums){d_W + c->layer[l], vectors}, of_W[i].a, of_W[i].b, vectors, rows, vectors, c->n);
        }
        advance(&to_S, f, &to_M, rows, vectors, c->n);
    }
}

static void gate_table_backward(Chunk *c, ChunkBackward *b) {
    const real *alpha = (real *)c->alpha, *etas = (real *)c->eta, *filled = (real *)c->filled;
    const real *betas = (real *)c->beta, *es = (real *)c->e, *fs = (real *)c->f;
    real d_beta = 0, d_f = 0, d_e = b->d_e;
    fill(b->d_alpha, c->slots, 0), fill(b->d_eta, c->slots, 0);
    for (int t = c->n - 1; t >= 0; t--) {
        real keep = 1 - alpha[t], eta = etas[t], filled_t = filled[t];
        vf *d_A = b->d_A + t * c->slots, *before = d_A - c->slots;
        const vf *A = c->A + (t - 1) * c->slots, *E = c->E + (t - 1) * c->slots; /* of the slot before */
        d_beta += ((real *)b->d_beta)[t], d_f += ((real *)b->d_f)[t];
        d_e += filled_t * d_f;
        real d_keep = d_beta * (t ? betas[t - 1] : 1) + d_f * (t ? fs[t - 1] : 0), d_eta = d_e * (t ? es[t - 1] : 1);
        vf keeps = {0}, etas_ = {0};
        for (long i = 0; i * LANES < t; i++) { /* A and E of the slot before are zero from slot t on */
            vf of_E = b->d_E[i] + filled_t * d_A[i];
            keeps += d_A[i] * A[i];
            etas_ += of_E * E[i];
            before[i] += keep * d_A[i];
            b->d_E[i] = eta * of_E;
        }
        ((real *)b->d_alpha)[t] = -(d_keep + total(keeps)), ((real *)b->d_eta)[t] = d_eta + total(etas_);
        d_beta *= keep, d_f *= keep, d_e *= eta;
    }
}

#endif
