/* The memory operation with vectors along the rows of one memory's matrices: for large memories, or few. */
#include "vector.h"

#define MEMORIES 1
#ifdef DOUBLE
#define NAME(word) titans_rows_##word##_float64
#else
#define NAME(word) titans_rows_##word##_float32
#endif

#include <string.h>

#include "rows_backward.h"
#include "stream.h"

/* Where the numbers of the token in a slot lie, or NULL. */
INLINE real *place_of(const Block *block, Tokens tokens, int slot) {
    real *place[1];
    places_of(block, tokens, slot, 0, place);
    return *place;
}

/* Room for a level of n slots. */
INLINE long level_room(const Chunk *c, int level, long n) {
    return even(level) ? n * c->vectors[level] : c->width[level] * vectors_for(n);
}

static __attribute__((noinline)) Chunk new_chunk(const Call *call, Arena *arena) {
    Chunk c = {.depth = (int)call->depth, .max_surprise = (real)call->max_surprise};
    long n = most_slots(call), slots = vectors_for(n), widest = 0, turned = slots;
    for (int l = 0; l <= c.depth; l++) {
        c.width[l] = (int)call->width[l];
        c.vectors[l] = vectors_for(c.width[l]);
    }
    for (int l = 0; l <= c.depth; l++) {
        if (level_room(&c, l, n) > widest) widest = level_room(&c, l, n);
        if (even(l) && c.width[l] * slots > turned) turned = c.width[l] * slots;
    }
    for (int l = 0; l < c.depth; l++) c.layer[l + 1] = c.layer[l] + c.width[odd_side(l)] * c.vectors[even_side(l)];
    c.numbers = c.layer[c.depth];
    c.row = LANES;
    vf **gates[] = {&c.alpha, &c.eta,  &c.theta, &c.filled, &c.surprise, &c.scale,
                    &c.step,  &c.beta, &c.e,     &c.f,      &c.slot[0],  &c.slot[1]};
    for (unsigned i = 0; i < sizeof gates / sizeof *gates; i++) *gates[i] = take(arena, slots);
    c.v = take(arena, level_room(&c, c.depth, n)), c.y = take(arena, level_room(&c, c.depth, n));
    vf **tables[] = {&c.A, &c.E, &c.mixed, &c.turned_mixed};
    for (unsigned i = 0; i < sizeof tables / sizeof *tables; i++) *tables[i] = take(arena, n * slots);
    for (int i = 0; i < 2; i++) c.wide[i] = take(arena, widest);
    c.turned = take(arena, turned);
    c.loaded = take(arena, n * c.vectors[c.depth]);
    for (int l = 0; l < c.depth; l++) {
        vf **inputs[] = {&c.h[l], &c.x[l], &c.slope[l], &c.curve[l], &c.x_slope[l], &c.pulled[l]};
        for (unsigned i = 0; i < sizeof inputs / sizeof *inputs; i++)
            if (i < 2 || l > 0) *inputs[i] = take(arena, level_room(&c, l, n));
        c.delta[l] = take(arena, level_room(&c, l + 1, n));
        c.h_norm[l] = take(arena, slots), c.delta_norm[l] = take(arena, slots);
        c.overlap[l] = take(arena, n * slots);
    }
    return c;
}

static __attribute__((noinline)) ChunkBackward new_backward(const Call *call, const Chunk *c, Arena *arena) {
    ChunkBackward b = {0};
    long n = most_slots(call), slots = vectors_for(n), widest = 0;
    for (int l = 0; l <= c->depth; l++)
        if (level_room(c, l, n) > widest) widest = level_room(c, l, n);
    vf **gates[] = {&b.d_alpha, &b.d_eta,  &b.d_theta, &b.d_surprise, &b.d_E,     &b.d_beta,
                    &b.d_f,     &b.d_step, &b.slot[0], &b.slot[1],    &b.slot[2], &b.slot[3]};
    for (unsigned i = 0; i < sizeof gates / sizeof *gates; i++) *gates[i] = take(arena, slots);
    b.d_y = take(arena, level_room(c, c->depth, n)), b.d_v = take(arena, level_room(c, c->depth, n));
    b.d_A = take(arena, n * slots), b.dots = take(arena, n * slots);
    for (int i = 0; i < 2; i++) b.wide[i] = take(arena, widest);
    for (int l = 0; l < c->depth; l++) {
        vf **inputs[] = {&b.d_h[l], &b.d_x[l], &b.d_z[l]};
        for (int i = 0; i < 3; i++) *inputs[i] = take(arena, level_room(c, l, n));
        b.d_delta[l] = take(arena, level_room(c, l + 1, n));
    }
    return b;
}

/* Tokens into a level; slots without one are zero, and so is what fills rows up. */
static void load_tokens(const Block *block, const Chunk *c, Tokens tokens, int level, vf *out) {
    long row = c->vectors[level];
    vf *by_token = even(level) ? out : c->loaded;
    for (int slot = 0; slot < c->n; slot++) {
        const real *place = place_of(block, tokens, slot);
        by_token[(slot + 1) * row - 1] = splat(0);
        if (place) memcpy(by_token + slot * row, place, sizeof(real) * c->width[level]);
        else fill(by_token + slot * row, row, 0);
    }
    if (!even(level)) turn(out, c->slots, by_token, row, c->n, c->width[level]);
}

static void store_tokens(const Block *block, const Chunk *c, Tokens tokens, int level, const vf *in) {
    long row = c->vectors[level];
    if (!even(level)) turn(c->loaded, row, in, c->slots, c->width[level], c->n);
    const vf *by_token = even(level) ? in : c->loaded;
    for (int slot = 0; slot < c->n; slot++) {
        real *place = place_of(block, tokens, slot);
        if (place) memcpy(place, by_token + slot * row, sizeof(real) * c->width[level]);
    }
}

static void load_gate(const Block *block, const Chunk *c, Tokens tokens, vf *out, real empty) {
    fill(out, c->slots, empty);
    for (int slot = 0; slot < c->n; slot++) {
        const real *place = place_of(block, tokens, slot);
        if (place) ((real *)out)[slot] = *place;
    }
}

static void store_gate(const Block *block, const Chunk *c, Tokens tokens, const vf *in) {
    for (int slot = 0; slot < c->n; slot++) {
        real *place = place_of(block, tokens, slot);
        if (place) *place = ((const real *)in)[slot];
    }
}

static void load_chunk(const Block *block, Chunk *c, int n) {
    const Call *call = block->call;
    c->n = n, c->slots = vectors_for(n);
    load_tokens(block, c, call->q, 0, c->x[0]);
    load_tokens(block, c, call->k, 0, c->h[0]);
    load_tokens(block, c, call->v, c->depth, c->v);
    load_gate(block, c, call->alpha, c->alpha, 0);
    load_gate(block, c, call->eta, c->eta, 1);
    load_gate(block, c, call->theta, c->theta, 0);
    fill(c->filled, c->slots, 0);
    for (int slot = 0; slot < n; slot++) ((real *)c->filled)[slot] = token_in(block, 0, slot) >= 0;
}

static void store_results(const Block *block, const Chunk *c, Tokens y, Tokens surprise) {
    store_tokens(block, c, y, c->depth, c->y);
    store_gate(block, c, surprise, c->surprise);
}

static void load_gradients(const Block *block, const Chunk *c, ChunkBackward *b, Tokens d_y, Tokens d_surprise) {
    if (d_y.at) load_tokens(block, c, d_y, c->depth, b->d_y);
    else fill(b->d_y, level_size(c, c->depth), 0);
    if (d_surprise.at) load_gate(block, c, d_surprise, b->d_surprise, 0);
    else fill(b->d_surprise, c->slots, 0);
}

/* Gradients of alpha and eta, the same for all tokens of a chunk, are summed at the first of them. */
static void sum_at_first(const Chunk *c, vf *gradient) {
    const real *filled = (const real *)c->filled;
    real *at = (real *)gradient, sum = 0, open = 1;
    for (int t = 0; t < c->n; t++) sum += filled[t] * at[t];
    for (int t = 0; t < c->n; t++) {
        at[t] = open * filled[t] * sum;
        open *= 1 - filled[t];
    }
}

static void store_gradients(const Block *block, const Chunk *c, ChunkBackward *b, const Gradients *to) {
    if (block->call->gate_per_chunk) sum_at_first(c, b->d_alpha), sum_at_first(c, b->d_eta);
    store_tokens(block, c, to->q, 0, b->d_x[0]);
    store_tokens(block, c, to->k, 0, b->d_h[0]);
    store_tokens(block, c, to->v, c->depth, b->d_v);
    store_gate(block, c, to->alpha, b->d_alpha);
    store_gate(block, c, to->eta, b->d_eta);
    store_gate(block, c, to->theta, b->d_theta);
}

/* A layer [out, in] with the odd level's side first, and back. */
static void load_state(const Block *block, const Chunk *c, const Layers *layers, vf *out) {
    for (int l = 0; l < c->depth; l++) {
        const real *from = layer_at(block, layers[l], 0);
        real *to = (real *)(out + c->layer[l]);
        int rows = c->width[odd_side(l)], cols = c->width[even_side(l)];
        long row = layer_row(c, l);
        for (int i = 0; i < rows; i++) out[c->layer[l] + (i + 1) * row - 1] = splat(0);
        if (even(l))
            for (int i = 0; i < rows; i++) memcpy(to + i * row * LANES, from + i * cols, sizeof(real) * cols);
        else transpose(to, row * LANES, from, rows, cols, rows);
    }
}

static void store_state(const Block *block, const Chunk *c, const Layers *layers, const vf *in) {
    for (int l = 0; l < c->depth && layers[l].at; l++) {
        real *to = layer_at(block, layers[l], 0);
        const real *from = (const real *)(in + c->layer[l]);
        int rows = c->width[odd_side(l)], cols = c->width[even_side(l)];
        long row = layer_row(c, l) * LANES;
        if (even(l))
            for (int i = 0; i < rows; i++) memcpy(to + i * cols, from + i * row, sizeof(real) * cols);
        else transpose(to, rows, from, row, rows, cols);
    }
}

#include "walk.h"
