/* One chunk of one memory, forward, with vectors along the rows of matrices: for large memories, and for
 * too few to fill the lanes. The formulas and the names are those of lanes_chunk.h.
 *
 * The widths between layers are levels 0 (keys, queries) to L (values). Tokens lie at even levels one after the other,
 * [n, width], at odd levels feature after feature, [width, n], and a layer is stored with the odd level's side first.
 * So every product has contiguous rows: odd = W even^T, even = odd^T W, W += odd even. Rows are filled up with zeros to
 * whole vectors; `rows` and `vectors` of a level are its shape.
 */
#ifndef TITANS_ROWS_CHUNK_H
#define TITANS_ROWS_CHUNK_H

#include "memory.h"
#include "rows_matrix.h"

typedef struct {
    int depth, n, width[DEEPEST + 1];
    long slots;                       /* vectors that hold a number per slot */
    long vectors[DEEPEST + 1];        /* vectors that hold one token at an even level */
    long layer[DEEPEST + 1], numbers; /* where layer l begins in a state, and how long a state is, in vectors */
    long row;
    real max_surprise;
    vf *alpha, *eta, *theta, *filled;                                                                   /* [n] */
    vf *v, *y;                                                                                          /* level L */
    vf *h[DEEPEST], *x[DEEPEST], *slope[DEEPEST], *curve[DEEPEST], *x_slope[DEEPEST], *pulled[DEEPEST]; /* level l */
    vf *delta[DEEPEST]; /* level l + 1 */
    vf *h_norm[DEEPEST], *delta_norm[DEEPEST];
    vf *surprise, *scale, *step, *beta, *e, *f;
    vf *A, *E, *mixed, *turned_mixed; /* [n, n] */
    vf *overlap[DEEPEST];
    vf *wide[2], *turned; /* room for one level */
    vf *loaded;           /* [n, V]: room for tokens on their way to and from an odd level */
    vf *slot[2];          /* [n]: room for a number per slot */
} Chunk;

INLINE int even(int level) { return level % 2 == 0; }
INLINE long level_rows(const Chunk *c, int level) { return even(level) ? c->n : c->width[level]; }
INLINE long level_vectors(const Chunk *c, int level) { return even(level) ? c->vectors[level] : c->slots; }
INLINE long level_size(const Chunk *c, int level) { return level_rows(c, level) * level_vectors(c, level); }
INLINE int even_side(int l) { return even(l) ? l : l + 1; } /* of layer l */
INLINE int odd_side(int l) { return even(l) ? l + 1 : l; }
INLINE long layer_row(const Chunk *c, int l) { return c->vectors[even_side(l)]; }

/* Numbers of a level, token by token or feature by feature, whichever is not contiguous: (feature, slot). */
INLINE View features(const Chunk *c, int level, const vf *at) {
    View own = view((const real *)at, level_vectors(c, level) * LANES);
    return even(level) ? flip(own) : own;
}

/* What W_l makes of `from` (one side of layer l) for `to` (the other side), added or not; the same in both directions.
 */
INLINE void through(Chunk *c, int l, const vf *W, int to_level, vf *to, const vf *from, const int add) {
    const vf *w = W + c->layer[l];
    int odd = odd_side(l), level = even_side(l);
    long row = layer_row(c, l);
    if (to_level == odd) {
        turn(c->turned, c->slots, from, c->vectors[level], c->n, c->width[level]);
        (add ? add_product : product)((Sums){to, c->slots}, view((const real *)w, row * LANES), c->turned, c->slots,
                                      c->width[odd], c->slots, c->width[level]);
    } else {
        (add ? add_product : product)((Sums){to, row}, flip(features(c, odd, from)), w, row, c->n, row, c->width[odd]);
    }
}

static void pass(Chunk *c, int l, const vf *W, int to_level, vf *to, const vf *from) {
    through(c, l, W, to_level, to, from, 0);
}
static void add_pass(Chunk *c, int l, const vf *W, int to_level, vf *to, const vf *from) {
    through(c, l, W, to_level, to, from, 1);
}

/* Factors of a sum over slots of one side of layer l times the other; above and below are the levels l + 1 and l. */
INLINE Pair outer(const Chunk *c, int l, const vf *above, const vf *below) {
    const vf *odd = even(l) ? above : below, *level = even(l) ? below : above;
    return (Pair){features(c, odd_side(l), odd), level, layer_row(c, l)};
}

/* Layer l of a state, which is multiplied by `keep` and gets one product more. */
INLINE Moving moving(const Chunk *c, int l, vf *state, real keep, Pair pair) {
    return (Moving){{state + c->layer[l], layer_row(c, l)}, keep, {pair}, 1};
}

/* out[t, i] = a_t . b_i for i <= t, and some above the diagonal. */
static void dot_earlier(Chunk *c, int level, vf *out, const vf *a, const vf *b) {
    const vf *by_feature = b;
    if (even(level)) {
        turn(c->turned, c->slots, b, c->vectors[level], c->n, c->width[level]);
        by_feature = c->turned;
    }
    View by_slot = flip(features(c, level, a));
    for (int t = 0; t < c->n; t += LANES) {
        int rows = c->n - t < LANES ? c->n - t : LANES;
        product((Sums){out + t * c->slots, c->slots}, (View){by_slot.at + t * by_slot.row, by_slot.row, by_slot.col},
                by_feature, c->slots, rows, t / LANES + 1, c->width[level]);
    }
}

/* out[t] += sum over i <= t of weights[t, i] in[i]; weights are zero above the diagonal. */
static void add_earlier(Chunk *c, int level, vf *out, vf *weights, const vf *in) {
    long wide = c->slots * LANES;
    if (!even(level)) turn(c->turned_mixed, c->slots, weights, c->slots, c->n, c->n);
    for (int t = 0; t < c->n; t += LANES) {
        int rows = c->n - t < LANES ? c->n - t : LANES;
        if (even(level))
            add_product((Sums){out + t * c->vectors[level], c->vectors[level]}, view((real *)weights + t * wide, wide),
                        in, c->vectors[level], rows, c->vectors[level], t + rows);
        else
            add_product((Sums){out + t / LANES, c->slots}, features(c, level, in), c->turned_mixed + t / LANES,
                        c->slots, c->width[level], 1, t + rows);
    }
}

/* out[i] += sum over t >= i of weights[t, i] in[t]. */
static void add_later(Chunk *c, int level, vf *out, vf *weights, const vf *in) {
    long wide = c->slots * LANES;
    for (int i = 0; i < c->n; i += LANES) {
        int rows = c->n - i < LANES ? c->n - i : LANES;
        if (even(level))
            add_product((Sums){out + i * c->vectors[level], c->vectors[level]},
                        flip(view((real *)weights + i * wide + i, wide)), in + i * c->vectors[level], c->vectors[level],
                        rows, c->vectors[level], c->n - i);
        else {
            View from_i = features(c, level, in);
            from_i.at += i;
            add_product((Sums){out + i / LANES, c->slots}, from_i, weights + i * c->slots + i / LANES, c->slots,
                        c->width[level], 1, c->n - i);
        }
    }
}

/* out[t] = weight[t] in[t], and out[t] += weight[t] in[t]. */
INLINE void scale_level(const Chunk *c, int level, vf *out, const vf *weight, const vf *in, const int add) {
    long rows = level_rows(c, level), vectors = level_vectors(c, level);
    for (long r = 0; r < rows; r++) {
        vf same = even(level) ? splat(((const real *)weight)[r]) : splat(0);
        for (long j = r * vectors; j < (r + 1) * vectors; j++) {
            vf value = (even(level) ? same : weight[j - r * vectors]) * in[j];
            out[j] = add ? out[j] + value : value;
        }
    }
}

/* The same for an even level: four slots at a time, whose sums become one vector of four. */
static void dot_tokens(const Chunk *c, long vectors, vf *out, const vf *a, const vf *b) {
    for (int t = 0; t < c->n; t += 4) {
        v4 part[4] = {{0}};
        for (int r = 0; r < 4 && t + r < c->n; r++)
            part[r] = quarters(dot(a + (t + r) * vectors, b + (t + r) * vectors, vectors));
        transpose4(part);
        *(v4 *)((real *)out + t) = (part[0] + part[1]) + (part[2] + part[3]);
    }
}

/* out[t] = a_t . b_t. */
static void dot_slots(const Chunk *c, int level, vf *out, const vf *a, const vf *b) {
    long rows = level_rows(c, level), vectors = level_vectors(c, level);
    fill(out, c->slots, 0);
    if (even(level)) dot_tokens(c, vectors, out, a, b);
    for (long r = 0; !even(level) && r < rows; r++)
        for (long j = 0; j < vectors; j++) out[j] += a[r * vectors + j] * b[r * vectors + j];
}

static void gate_table(Chunk *c) {
    const real *alpha = (real *)c->alpha, *etas = (real *)c->eta, *filled = (real *)c->filled;
    real beta = 1, e = 1, f = 0;
    long wide = c->slots;
    fill(c->A, c->n * wide, 0), fill(c->E, c->n * wide, 0);
    fill(c->beta, wide, 0), fill(c->e, wide, 0), fill(c->f, wide, 0);
    for (int t = 0; t < c->n; t++) {
        real keep = 1 - alpha[t], eta = etas[t], filled_t = filled[t];
        vf *A = c->A + t * wide, *E = c->E + t * wide;
        ((real *)c->beta)[t] = beta = keep * beta;
        ((real *)c->e)[t] = e = eta * e;
        ((real *)c->f)[t] = f = keep * f + filled_t * e;
        for (int i = 0; i * LANES < t; i++) {
            E[i] = eta * E[i - wide];
            A[i] = keep * A[i - wide] + filled_t * E[i];
        }
        ((real *)E)[t] = 1, ((real *)A)[t] = filled_t;
    }
}

static void keys(Chunk *c, vf *W) {
    int last = c->depth - 1;
    for (int l = 0; l <= last; l++) {
        vf *z = l < last ? c->h[l + 1] : c->delta[last];
        pass(c, l, W, l + 1, z, c->h[l]);
        if (l < last) activate(z, c->slope[l + 1], c->curve[l + 1], level_size(c, l + 1));
    }
    for (long i = 0; i < level_size(c, c->depth); i++) c->delta[last][i] = 2 * (c->delta[last][i] - c->v[i]);
    for (int l = last; l > 0; l--) {
        pass(c, l, W, l, c->pulled[l], c->delta[l]);
        for (long i = 0; i < level_size(c, l); i++) c->delta[l - 1][i] = c->pulled[l][i] * c->slope[l][i];
    }
}

static void steps(Chunk *c) {
    for (int l = 0; l < c->depth; l++) {
        dot_slots(c, l, c->h_norm[l], c->h[l], c->h[l]);
        dot_slots(c, l + 1, c->delta_norm[l], c->delta[l], c->delta[l]);
    }
    for (long i = 0; i < c->slots; i++) {
        vf squares = {0};
        for (int l = 0; l < c->depth; l++) squares += c->h_norm[l][i] * c->delta_norm[l][i];
        c->surprise[i] = square_root(squares);
        c->scale[i] = clip(c->surprise[i], c->max_surprise);
        c->step[i] = c->theta[i] * c->scale[i];
    }
}

/* mixed[t, i] = -A[t, i] step_i dots[t, i]; A is zero above the diagonal, but dots may hold anything there. */
static void mix(Chunk *c, const vf *dots) {
    for (int t = 0; t < c->n; t++)
        for (long i = 0; i < c->slots; i++) {
            long at = t * c->slots + i;
            c->mixed[at] = i * LANES <= t ? -c->A[at] * c->step[i] * dots[at] : splat(0);
        }
}

/* Without `y` only what backward needs of it. */
static void reading(Chunk *c, vf *M, vf *S, const int y) {
    int last = c->depth - 1;
    for (int l = 0; l <= last; l++) {
        vf *made = l < last ? c->x[l + 1] : c->y;
        dot_earlier(c, l, c->overlap[l], c->x[l], c->h[l]);
        if (l == last && !y) break;
        scale_level(c, l, c->wide[0], c->beta, c->x[l], 0);
        pass(c, l, M, l + 1, made, c->wide[0]);
        scale_level(c, l, c->wide[0], c->f, c->x[l], 0);
        add_pass(c, l, S, l + 1, made, c->wide[0]);
        mix(c, c->overlap[l]);
        add_earlier(c, l + 1, made, c->mixed, c->delta[l]);
        if (l < last) activate(made, c->x_slope[l + 1], 0, level_size(c, l + 1));
    }
}

static void update(Chunk *c, vf *M, vf *S) {
    int end = c->n - 1;
    const vf *A = c->A + end * c->slots, *E = c->E + end * c->slots;
    real beta = ((real *)c->beta)[end], e = ((real *)c->e)[end], f = ((real *)c->f)[end];
    vf *by_A = c->slot[0], *by_E = c->slot[1], *by_M = c->wide[0], *by_S = c->wide[1];
    for (long i = 0; i < c->slots; i++) by_A[i] = -A[i] * c->step[i], by_E[i] = -E[i] * c->step[i];
    for (int l = 0; l < c->depth; l++) {
        scale_level(c, l + 1, by_M, by_A, c->delta[l], 0);
        scale_level(c, l + 1, by_S, by_E, c->delta[l], 0);
        Moving to_M = moving(c, l, M, beta, outer(c, l, by_M, c->h[l])),
               to_S = moving(c, l, S, e, outer(c, l, by_S, c->h[l]));
        advance(&to_M, f, &to_S, c->width[odd_side(l)], layer_row(c, l), c->n);
    }
}

#endif
