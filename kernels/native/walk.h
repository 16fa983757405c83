/* Blocks of memories through their chunks, forward and backward. Blocks share nothing and are dealt out to threads, so
 * results do not depend on how many threads there are. Forward keeps the state before every `every`-th chunk; backward
 * makes the states between anew, and with them everything else of a chunk.
 *
 * A kernel includes this behind its own Chunk and ChunkBackward, and the functions on them: how a memory lies in
 * vectors is known there only. Here a state is `c->numbers` vectors.
 */
#ifndef TITANS_WALK_H
#define TITANS_WALK_H

#include <stdlib.h>
#include <string.h>

#include "stream.h"
#include "threads.h"

typedef struct {
    Chunk chunk;
    real *rows; /* nothing and dump of a block */
    long kept;  /* states kept per block */
    vf *W, *M, *S, *stood;
} Forward;

static Forward new_forward(const Call *call, Arena *arena) {
    Forward f = {.chunk = new_chunk(call, arena), .kept = states_kept(call)};
    vf **states[] = {&f.W, &f.M, &f.S, &f.stood};
    for (int i = 0; i < 4; i++) *states[i] = take(arena, f.chunk.numbers);
    f.rows = (real *)take(arena, 2 * f.chunk.row / LANES);
    return f;
}

/* The chunk start is the weights. */
static int starts_anew(const Call *call) { return !call->state.chunk_start[0].at; }

static void copy_state(vf *out, const vf *in, long numbers) { memcpy(out, in, sizeof(vf) * numbers); }

/* out = in, or out += in, for the memories whose stream stands in chunk `index` after the call. */
static void copy_standing(const Block *block, int64_t index, vf *out, const vf *in, long numbers) {
    vi where;
    if (!standing(block, index, &where)) return;
    for (long i = 0; i < numbers; i++) out[i] = choose(where, in[i], out[i]);
}

static void add_standing(const Block *block, int64_t index, vf *out, const vf *in, long numbers) {
    vi where;
    if (!standing(block, index, &where)) return;
    for (long i = 0; i < numbers; i++) out[i] += choose(where, in[i], splat(0));
}

static void load_or_clear(const Block *block, const Chunk *c, const Layers *layers, vf *out) {
    if (layers[0].at) load_state(block, c, layers, out);
    else fill(out, c->numbers, 0);
}

/* Weights and momentum of a block before chunk number * every, number > 0. */
static vf *kept_state(const Call *call, const Forward *f, long index, long number) {
    return (vf *)call->kept + (index * f->kept + number - 1) * 2 * f->chunk.numbers;
}

static void forward_block(const Call *call, Forward *f, long index) {
    Chunk *c = &f->chunk;
    Block block = block_of(call, index, f->rows, c->row);
    int final = call->final.weights[0].at != 0;
    load_state(&block, c, call->state.weights, f->M);
    load_or_clear(&block, c, call->state.momentum, f->S);
    if (!starts_anew(call)) load_state(&block, c, call->state.chunk_start, f->W);
    vf *first_W = starts_anew(call) ? f->M : f->W;
    if (final) copy_state(f->stood, first_W, c->numbers);
    for (int64_t i = 0; i < block.chunks; i++) {
        if (call->kept && i > 0 && i % call->every == 0) {
            vf *kept = kept_state(call, f, index, i / call->every);
            copy_state(kept, f->M, c->numbers);
            copy_state(kept + c->numbers, f->S, c->numbers);
        }
        if (final && i > 0) copy_standing(&block, i, f->stood, f->M, c->numbers);
        int n = enter(&block, i);
        if (n == 0) continue;
        load_chunk(&block, c, n);
        gate_table(c);
        keys(c, i > 0 ? f->M : first_W);
        steps(c);
        reading(c, f->M, f->S, 1);
        if (final || i + 1 < block.chunks) update(c, f->M, f->S);
        store_results(&block, c, call->y, call->surprise);
    }
    if (!final) return;
    if (block.chunks > 0) copy_standing(&block, block.chunks, f->stood, f->M, c->numbers);
    store_state(&block, c, call->final.weights, f->M);
    store_state(&block, c, call->final.momentum, f->S);
    store_state(&block, c, call->final.chunk_start, f->stood);
}

typedef struct {
    Forward forward;
    ChunkBackward backward;
    vf *d_M, *d_S, *d_W, *d_stood; /* d_W: of the chunk start that the call got */
    vf *states;                    /* weights and momentum before each chunk of a segment */
} Backward;

static Backward new_backward_pass(const Call *call, Arena *arena) {
    Backward b = {.forward = new_forward(call, arena)};
    b.backward = new_backward(call, &b.forward.chunk, arena);
    long numbers = b.forward.chunk.numbers;
    vf **states[] = {&b.d_M, &b.d_S, &b.d_W, &b.d_stood};
    for (int i = 0; i < 4; i++) *states[i] = take(arena, numbers);
    b.states = take(arena, 2 * call->every * numbers);
    return b;
}

/* Everything of a chunk up to its step sizes. W: where its inner gradient is taken. */
static int open_chunk(Block *block, Chunk *c, int64_t index, vf *W) {
    int n = enter(block, index);
    if (n == 0) return 0;
    load_chunk(block, c, n);
    gate_table(c);
    keys(c, W);
    steps(c);
    return n;
}

/* The states before each chunk of a segment, first <= i < last, from the one before its first. */
static void remake_states(Block *block, Backward *b, long index, int64_t first, int64_t last) {
    const Call *call = block->call;
    Chunk *c = &b->forward.chunk;
    if (first > 0) {
        copy_state(b->states, kept_state(call, &b->forward, index, first / call->every), 2 * c->numbers);
    } else {
        if (starts_anew(call)) copy_state(b->states, b->forward.W, c->numbers);
        else load_state(block, c, call->state.weights, b->states);
        load_or_clear(block, c, call->state.momentum, b->states + c->numbers);
    }
    for (int64_t i = first; i + 1 < last; i++) {
        vf *before = b->states + 2 * c->numbers * (i - first), *after = before + 2 * c->numbers;
        copy_state(after, before, 2 * c->numbers);
        if (open_chunk(block, c, i, i > 0 ? before : b->forward.W)) update(c, after, after + c->numbers);
    }
}

/* d_M, d_S: of the state after the chunk, then of that before it. d_W: of the weights W, added to. */
static void chunk_backward(Chunk *c, ChunkBackward *b, vf *W, vf *M, vf *S, vf *d_M, vf *d_S, vf *d_W) {
    clear_backward(c, b);
    update_backward(c, b, M, S, d_M, d_S);
    reading_backward(c, b, M, S);
    steps_backward(c, b);
    keys_backward(c, b, W);
    state_backward(c, b, d_M, d_S, d_W);
    gate_table_backward(c, b);
}

static void backward_of_chunk(Block *block, Backward *b, const Gradients *given, int64_t index, vf *M, vf *S, vf *d_W) {
    Chunk *c = &b->forward.chunk;
    vf *W = index > 0 ? M : b->forward.W;
    if (open_chunk(block, c, index, W) == 0) return;
    load_gradients(block, c, &b->backward, given->y, given->surprise);
    reading(c, M, S, 0);
    chunk_backward(c, &b->backward, W, M, S, b->d_M, b->d_S, d_W);
    store_gradients(block, c, &b->backward, given);
}

static void backward_block(const Call *call, Backward *b, const Gradients *given, long index) {
    const Chunk *c = &b->forward.chunk;
    Block block = block_of(call, index, b->forward.rows, c->row);
    vf *first_W = starts_anew(call) ? b->d_M : b->d_W; /* gradient of the chunk start that the call got */
    load_state(&block, c, starts_anew(call) ? call->state.weights : call->state.chunk_start, b->forward.W);
    load_or_clear(&block, c, given->final.weights, b->d_M);
    load_or_clear(&block, c, given->final.momentum, b->d_S);
    load_or_clear(&block, c, given->final.chunk_start, b->d_stood);
    fill(b->d_W, c->numbers, 0);
    add_standing(&block, block.chunks, block.chunks > 0 ? b->d_M : first_W, b->d_stood, c->numbers);
    for (int64_t last = block.chunks; last > 0;) {
        int64_t first = (last - 1) / call->every * call->every;
        remake_states(&block, b, index, first, last);
        for (int64_t i = last - 1; i >= first; i--) {
            vf *M = b->states + 2 * c->numbers * (i - first),
               *d_W = i > 0 ? b->d_M : first_W; /* W is M, but in the first */
            backward_of_chunk(&block, b, given, i, M, M + c->numbers, d_W);
            add_standing(&block, i, d_W, b->d_stood, c->numbers);
        }
        last = first;
    }
    store_state(&block, c, given->state.weights, b->d_M);
    store_state(&block, c, given->state.momentum, b->d_S);
    store_state(&block, c, given->state.chunk_start, b->d_W);
}

typedef struct {
    const Call *call;
    const Gradients *given; /* NULL: forward */
} Job;

/* The blocks of one thread, in room of its own. */
static int run_blocks(const void *argument, long first, long last) {
    const Job *job = argument;
    Arena arena = {0};
    if (job->given) new_backward_pass(job->call, &arena);
    else new_forward(job->call, &arena);
    vf *room = arena.at = aligned_alloc(sizeof(vf), sizeof(vf) * arena.used);
    if (!room) return 1;
    arena.used = 0;
    if (job->given) {
        Backward b = new_backward_pass(job->call, &arena);
        memset(b.forward.rows, 0, sizeof(real) * b.forward.chunk.row);
        for (long i = first; i < last; i++) backward_block(job->call, &b, job->given, i);
    } else {
        Forward f = new_forward(job->call, &arena);
        memset(f.rows, 0, sizeof(real) * f.chunk.row);
        for (long i = first; i < last; i++) forward_block(job->call, &f, i);
    }
    free(room);
    return 0;
}

static long blocks(const Call *call) { return (call->batch * call->heads + MEMORIES - 1) / MEMORIES; }

/* Memories in a block of this kernel. */
int64_t NAME(memories)(void) { return MEMORIES; }

/* How many numbers `kept` must hold, aligned to sizeof(vf). */
int64_t NAME(kept)(const Call *call) {
    Arena counting = {0};
    return (int64_t)LANES * blocks(call) * states_kept(call) * 2 * new_chunk(call, &counting).numbers;
}

/* 0: done; 1: no memory. */
int NAME(forward)(const Call *call, int threads) {
    Job job = {call, 0};
    return share_out(run_blocks, &job, blocks(call), threads);
}

int NAME(backward)(const Call *call, const Gradients *given, int threads) {
    Job job = {call, given};
    return share_out(run_blocks, &job, blocks(call), threads);
}

#endif
