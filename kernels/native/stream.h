/* Where the memories of a block stand in their streams: which token is in which slot of which chunk.
 *
 * A block is MEMORIES memories (sample, head) that walk through their chunks together. Real tokens follow each other
 * from the state's position on; masked tokens have no slot. Slots are counted from the beginning of the first chunk.
 */
#ifndef TITANS_STREAM_H
#define TITANS_STREAM_H

#include "memory.h"
#include "vector.h"

/* Room that is handed out piece by piece; with `at` NULL it only counts. */
typedef struct {
    vf *at;
    long used;
} Arena;

static vf *take(Arena *arena, long count) {
    vf *piece = arena->at ? arena->at + arena->used : 0;
    arena->used += count;
    return piece;
}

/* Memories behind the last one repeat it and are never written. */
typedef struct {
    const Call *call;
    int64_t sample[MEMORIES], head[MEMORIES];
    int64_t before[MEMORIES], end[MEMORIES]; /* slots filled before the call and after it */
    int memories;
    int64_t chunks, first_slot; /* first_slot: of the chunk being read */
    real *nothing;              /* a row of zeros to read where there is no token */
    real *dump;                 /* a row to write where nobody reads */
} Block;

static int64_t filled_after(const Call *call, int64_t sample) {
    return call->position[sample] + (call->order ? call->count[sample] : call->tokens);
}

static int64_t chunks_of(const Call *call, int64_t slots) { return (slots + call->chunk_size - 1) / call->chunk_size; }

static Block block_of(const Call *call, long index, real *rows, long row) {
    Block block = {.call = call, .nothing = rows, .dump = rows + row};
    long rest = call->batch * call->heads - index * MEMORIES;
    block.memories = (int)(rest < MEMORIES ? rest : MEMORIES);
    for (int m = 0; m < MEMORIES; m++) {
        long g = index * MEMORIES + (m < block.memories ? m : block.memories - 1);
        int64_t sample = block.sample[m] = g / call->heads;
        block.head[m] = g % call->heads;
        block.before[m] = call->position[sample];
        block.end[m] = filled_after(call, sample);
        int64_t chunks = chunks_of(call, block.end[m]);
        if (chunks > block.chunks) block.chunks = chunks;
    }
    return block;
}

/* How many slots of chunk `index` lie between the first and the last that any memory fills; others stay out of sums. */
static int enter(Block *block, int64_t index) {
    int64_t size = block->call->chunk_size, low = (index + 1) * size, high = index * size;
    for (int m = 0; m < MEMORIES; m++) {
        int64_t begin = block->before[m] > index * size ? block->before[m] : index * size;
        int64_t end = block->end[m] < (index + 1) * size ? block->end[m] : (index + 1) * size;
        if (begin >= end) continue;
        if (begin < low) low = begin;
        if (end > high) high = end;
    }
    block->first_slot = low;
    return high > low ? (int)(high - low) : 0;
}

/* The largest number that `enter` can give. */
static long most_slots(const Call *call) {
    int64_t least = call->chunk_size, most = 0;
    for (int64_t b = 0; b < call->batch; b++) {
        if (call->position[b] < least) least = call->position[b];
        if (call->position[b] > most) most = call->position[b];
    }
    int64_t slots = call->tokens + most - least;
    return slots < call->chunk_size ? slots : call->chunk_size;
}

/* The token in a slot, or -1. */
INLINE int64_t token_in(const Block *block, int m, int slot) {
    int64_t at = block->first_slot + slot, index = at - block->before[m];
    if (at < block->before[m] || at >= block->end[m]) return -1;
    return block->call->order ? block->call->order[block->sample[m] * block->call->tokens + index] : index;
}

/* Where the numbers of the tokens in a slot lie, for each memory; `none` where there is no token. */
INLINE void places_of(const Block *block, Tokens tokens, int slot, real *none, real *place[MEMORIES]) {
    for (int m = 0; m < MEMORIES; m++) {
        int64_t t = token_in(block, m, slot);
        int64_t at = block->sample[m] * tokens.batch + t * tokens.time + block->head[m] * tokens.head;
        place[m] = t < 0 ? none : tokens.at + at;
    }
}

INLINE real *layer_at(const Block *block, Layers layers, int m) {
    return layers.at + block->sample[m] * layers.batch + block->head[m] * layers.head;
}

/* Ones in the lanes of memories whose stream stands in chunk `index` after the call; tells whether there are any. */
static int standing(const Block *block, int64_t index, vi *where) {
    int any = 0;
    for (int lane = 0; lane < LANES; lane++) {
        int here = block->end[lane % MEMORIES] / block->call->chunk_size == index;
        (*where)[lane] = -here;
        any |= here;
    }
    return any;
}

/* States kept per block: before chunks every, 2 every, ... of the block that has the most chunks. */
static long states_kept(const Call *call) {
    int64_t most = 0;
    for (int64_t b = 0; b < call->batch; b++)
        if (filled_after(call, b) > most) most = filled_after(call, b);
    int64_t chunks = chunks_of(call, most);
    return chunks > 0 ? (chunks - 1) / call->every : 0;
}

#endif
