/* The memory operation with one memory in each lane: for small memories, whose matrices do not fill vectors. */
#include "vector.h"

#define MEMORIES LANES
#ifdef DOUBLE
#define NAME(word) titans_lanes_##word##_float64
#else
#define NAME(word) titans_lanes_##word##_float32
#endif

#include "lanes_backward.h"
#include "stream.h"

static __attribute__((noinline)) Chunk new_chunk(const Call *call, Arena *arena) {
    Chunk c = {.depth = (int)call->depth, .max_surprise = (real)call->max_surprise};
    long n = most_slots(call), widest = 0;
    for (int l = 0; l <= c.depth; l++) {
        c.width[l] = (int)call->width[l];
        if (c.width[l] > widest) widest = c.width[l];
        if (l > 0) c.layer[l] = c.layer[l - 1] + (long)c.width[l - 1] * c.width[l];
    }
    c.numbers = c.layer[c.depth];
    c.row = (widest * widest + LANES - 1) / LANES * LANES;
    vf **gates[] = {&c.alpha, &c.eta, &c.theta, &c.filled, &c.surprise, &c.scale, &c.step, &c.beta, &c.e, &c.f};
    for (unsigned i = 0; i < sizeof gates / sizeof *gates; i++) *gates[i] = take(arena, n);
    c.v = take(arena, n * c.width[c.depth]), c.y = take(arena, n * c.width[c.depth]);
    c.A = take(arena, n * n), c.E = take(arena, n * n), c.mixed = take(arena, n * n);
    for (int i = 0; i < 2; i++) c.wide[i] = take(arena, n * widest);
    for (int l = 0; l < c.depth; l++) {
        vf **inputs[] = {&c.h[l], &c.x[l], &c.slope[l], &c.curve[l], &c.x_slope[l], &c.pulled[l]};
        for (unsigned i = 0; i < sizeof inputs / sizeof *inputs; i++)
            if (i < 2 || l > 0) *inputs[i] = take(arena, n * c.width[l]);
        c.delta[l] = take(arena, n * c.width[l + 1]);
        c.h_norm[l] = take(arena, n), c.delta_norm[l] = take(arena, n);
        c.overlap[l] = take(arena, n * n);
    }
    return c;
}

static __attribute__((noinline)) ChunkBackward new_backward(const Call *call, const Chunk *c, Arena *arena) {
    ChunkBackward b = {0};
    long n = most_slots(call), widest = 0, V = c->width[c->depth];
    for (int l = 0; l <= c->depth; l++)
        if (c->width[l] > widest) widest = c->width[l];
    vf **gates[] = {&b.d_alpha, &b.d_eta, &b.d_theta, &b.d_surprise, &b.d_E, &b.d_beta, &b.d_f, &b.d_step};
    for (unsigned i = 0; i < sizeof gates / sizeof *gates; i++) *gates[i] = take(arena, n);
    b.d_y = take(arena, n * V), b.d_v = take(arena, n * V);
    b.d_A = take(arena, n * n), b.dots = take(arena, n * n);
    for (int i = 0; i < 2; i++) b.wide[i] = take(arena, n * widest);
    for (int l = 0; l < c->depth; l++) {
        b.d_h[l] = take(arena, n * c->width[l]), b.d_x[l] = take(arena, n * c->width[l]);
        b.d_z[l] = take(arena, n * c->width[l]), b.d_delta[l] = take(arena, n * c->width[l + 1]);
    }
    return b;
}

static void load_tokens(const Block *block, Tokens tokens, vf *out, int n, int width) {
    real *row[LANES];
    for (int slot = 0; slot < n; slot++) {
        places_of(block, tokens, slot, block->nothing, row);
        gather(out + (long)slot * width, (const real *const *)row, width);
    }
}

static void store_tokens(const Block *block, Tokens tokens, const vf *in, int n, int width) {
    real *row[LANES];
    for (int slot = 0; slot < n; slot++) {
        places_of(block, tokens, slot, block->dump, row);
        for (int lane = block->memories; lane < LANES; lane++) row[lane] = block->dump;
        scatter(row, in + (long)slot * width, width);
    }
}

static void load_gate(const Block *block, Tokens tokens, vf *out, int n, real empty) {
    real *place[LANES];
    for (int slot = 0; slot < n; slot++) {
        places_of(block, tokens, slot, &empty, place);
        for (int lane = 0; lane < LANES; lane++) ((real *)(out + slot))[lane] = *place[lane];
    }
}

static void load_chunk(const Block *block, Chunk *c, int n) {
    const Call *call = block->call;
    c->n = n;
    load_tokens(block, call->q, c->x[0], n, c->width[0]);
    load_tokens(block, call->k, c->h[0], n, c->width[0]);
    load_tokens(block, call->v, c->v, n, c->width[c->depth]);
    load_gate(block, call->alpha, c->alpha, n, 0);
    load_gate(block, call->eta, c->eta, n, 1);
    load_gate(block, call->theta, c->theta, n, 0);
    for (int slot = 0; slot < n; slot++)
        for (int lane = 0; lane < LANES; lane++) c->filled[slot][lane] = token_in(block, lane, slot) >= 0;
}

static void store_results(const Block *block, const Chunk *c, Tokens y, Tokens surprise) {
    store_tokens(block, y, c->y, c->n, c->width[c->depth]);
    store_tokens(block, surprise, c->surprise, c->n, 1);
}

static void load_gradients(const Block *block, const Chunk *c, ChunkBackward *b, Tokens d_y, Tokens d_surprise) {
    int V = c->width[c->depth];
    if (d_y.at) load_tokens(block, d_y, b->d_y, c->n, V);
    else fill(b->d_y, (long)c->n * V, 0);
    if (d_surprise.at) load_gate(block, d_surprise, b->d_surprise, c->n, 0);
    else fill(b->d_surprise, c->n, 0);
}

/* Gradients of alpha and eta, the same for all tokens of a chunk, are summed at the first of them. */
static void sum_at_first(const Chunk *c, vf *gradient) {
    vf total = {0}, open = splat(1);
    for (int t = 0; t < c->n; t++) total += c->filled[t] * gradient[t];
    for (int t = 0; t < c->n; t++) {
        gradient[t] = open * c->filled[t] * total;
        open *= 1 - c->filled[t];
    }
}

static void store_gradients(const Block *block, const Chunk *c, ChunkBackward *b, const Gradients *to) {
    if (block->call->gate_per_chunk) sum_at_first(c, b->d_alpha), sum_at_first(c, b->d_eta);
    store_tokens(block, to->q, b->d_x[0], c->n, c->width[0]);
    store_tokens(block, to->k, b->d_h[0], c->n, c->width[0]);
    store_tokens(block, to->v, b->d_v, c->n, c->width[c->depth]);
    store_tokens(block, to->alpha, b->d_alpha, c->n, 1);
    store_tokens(block, to->eta, b->d_eta, c->n, 1);
    store_tokens(block, to->theta, b->d_theta, c->n, 1);
}

static void load_state(const Block *block, const Chunk *c, const Layers *layers, vf *out) {
    for (int l = 0; l < c->depth; l++) {
        const real *row[LANES];
        for (int lane = 0; lane < LANES; lane++) row[lane] = layer_at(block, layers[l], lane);
        gather(out + c->layer[l], row, c->layer[l + 1] - c->layer[l]);
    }
}

static void store_state(const Block *block, const Chunk *c, const Layers *layers, const vf *in) {
    for (int l = 0; l < c->depth && layers[l].at; l++) {
        real *row[LANES];
        for (int lane = 0; lane < LANES; lane++)
            row[lane] = lane < block->memories ? layer_at(block, layers[l], lane) : block->dump;
        scatter(row, in + c->layer[l], c->layer[l + 1] - c->layer[l]);
    }
}

#include "walk.h"

#ifndef DOUBLE
void (*titans_pool)(void (*)(void *), void *, unsigned, unsigned);

/* Of what Python fills in: a library of another version says so. */
int64_t titans_sizes(void) { return sizeof(Call) + sizeof(Gradients); }
#endif
