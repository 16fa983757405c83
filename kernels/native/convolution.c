/* From a projection to the tokens of the memory, in one pass over the sequence, forward and backward:
 *
 *     a_t = sum_r taps[r] z[t + r],     h_t = silu(a_t)
 *     y_t = h_t / max(||h_t||, EPS) for each head of the first `unit` parts (q and k),
 *           h_t clipped at +-loudest in the others (v)
 *
 * Dimensions: B batch, T time, R taps, Z = R - 1 + T rows of z, P parts, H heads, K width of a head. A row has
 * W = P H K channels, as [P, H, K]; vectors lie along them, whatever K is.
 *
 * Nothing is kept between forward and backward. Each sample's rows are cut into blocks, and blocks are dealt out to
 * threads. Backward of a block writes its rows of d_z, for which it makes the gradients d_a of the R - 1 rows before
 * it, too. The gradient of the taps is summed per piece of work and then in the order of the pieces, so results do not
 * depend on the number of threads.
 */
#include "channels.h"

#ifdef DOUBLE
#define NAME(word) titans_convolution_##word##_float64
#else
#define NAME(word) titans_convolution_##word##_float32
#endif

enum { MOST_PARTS = 3, BLOCK = 128, TILE = 256 }; /* rows of a block; channels that stay in the first cache */
static const real EPS = (real)1e-6;

typedef struct {
    int64_t batch, tokens, taps, parts, heads, width; /* B, T, R, P, H, K */
    int64_t unit;
    double loudest;
    int64_t batch_stride, row_stride; /* of z, in numbers */
    const real *z, *tap;              /* [B, Z, W], rows contiguous; [R, W], contiguous */
    Tokens part[MOST_PARTS];          /* results; in backward their gradients, NULL: zero */
    real *d_z, *d_tap;                /* as z and tap, contiguous */
} Convolution;

/* Some heads, of all P H, and their channels. */
typedef struct {
    long head, heads, first, channels;
} Tile;

/* Rows first <= t < last of a sample. */
typedef struct {
    int64_t sample, first, last;
} Block;

static long row_width(const Convolution *c) { return c->parts * c->heads * c->width; }
static long rows(const Convolution *c) { return c->taps - 1 + c->tokens; }
static long heads_of_a_tile(const Convolution *c) { return c->width < TILE ? TILE / c->width : 1; }
static long blocks_of_a_sample(const Convolution *c) { return (rows(c) + BLOCK - 1) / BLOCK; }
static long blocks(const Convolution *c) { return c->batch * blocks_of_a_sample(c); }

/* Short samples share a piece. */
static long blocks_of_a_piece(const Convolution *c) {
    long few = BLOCK / (rows(c) + 1);
    return few > 1 ? few : 1;
}

static long pieces(const Convolution *c) { return (blocks(c) + blocks_of_a_piece(c) - 1) / blocks_of_a_piece(c); }

static Block block_at(const Convolution *c, long index) {
    Block block = {index / blocks_of_a_sample(c), index % blocks_of_a_sample(c) * BLOCK, 0};
    block.last = block.first + BLOCK < rows(c) ? block.first + BLOCK : rows(c);
    return block;
}

static Tile tile_at(const Convolution *c, long head) {
    long heads = heads_of_a_tile(c), rest = c->parts * c->heads - head;
    if (heads > rest) heads = rest;
    return (Tile){head, heads, head * c->width, heads * c->width};
}

static const real *row_at(const Convolution *c, const Tile *tile, int64_t sample, int64_t t) {
    return c->z + sample * c->batch_stride + t * c->row_stride + tile->first;
}

/* Token t of a head in its part, or NULL. */
INLINE real *token_of(const Convolution *c, long head, int64_t sample, int64_t t) {
    Tokens part = c->part[head / c->heads];
    return part.at ? part.at + sample * part.batch + t * part.time + head % c->heads * part.head : 0;
}

/* h and, if wanted, slope = silu'(a) of the token whose window begins at z. */
INLINE void convolve(const Convolution *c, const Tile *tile, const real *z, vf *h, vf *slope) {
    const real *tap = c->tap + tile->first;
    const long channels = tile->channels, R = c->taps, W = row_width(c), row = c->row_stride;
    for (long i = 0; i < channels; i += LANES) {
        vf a = {0};
        for (long r = 0; r < R; r++) a += load(tap + r * W + i, channels - i) * load(z + r * row + i, channels - i);
        h[i / LANES] = silu(a, slope ? &slope[i / LANES] : 0);
    }
}

static void write_token(const Convolution *c, const Tile *tile, int64_t sample, int64_t t, const real *restrict h) {
    const long K = c->width;
    const real most = (real)c->loudest;
    for (long j = tile->head; j < tile->head + tile->heads; j++, h += K) {
        real *restrict y = token_of(c, j, sample, t);
        if (j < c->unit * c->heads) {
            real norm = (real)__builtin_sqrt(dot(h, h, K)), over = 1 / (norm < EPS ? EPS : norm);
            for (long i = 0; i < K; i++) y[i] = h[i] * over;
        } else {
            for (long i = 0; i < K; i++) y[i] = h[i] > most ? most : h[i] < -most ? -most : h[i];
        }
    }
}

static void forward_block(const Convolution *c, Block block, vf *h) {
    if (block.last > c->tokens) block.last = c->tokens;
    for (long head = 0; head < c->parts * c->heads; head += heads_of_a_tile(c)) {
        Tile tile = tile_at(c, head);
        for (int64_t t = block.first; t < block.last; t++) {
            convolve(c, &tile, row_at(c, &tile, block.sample, t), h, 0);
            write_token(c, &tile, block.sample, t, (const real *)h);
        }
    }
}

/* h becomes d_h. With n = ||h||, y = h / n: d_h = (d_y - y (y . d_y)) / n; where n < EPS, d_y / EPS. */
static void unit_backward(real *restrict h, const real *restrict d_y, long K) {
    real norm = (real)__builtin_sqrt(dot(h, h, K)), over = 1 / (norm < EPS ? EPS : norm);
    for (long i = 0; i < K; i++) h[i] *= over;
    real along = norm < EPS ? 0 : dot(h, d_y, K);
    for (long i = 0; i < K; i++) h[i] = (d_y[i] - h[i] * along) * over;
}

/* h becomes d_h. */
static void read_gradient(const Convolution *c, const Tile *tile, int64_t sample, int64_t t, real *restrict h) {
    const long K = c->width;
    const real most = (real)c->loudest;
    for (long j = tile->head; j < tile->head + tile->heads; j++, h += K) {
        const real *restrict d_y = token_of(c, j, sample, t);
        if (!d_y) memset(h, 0, sizeof(real) * (size_t)K);
        else if (j < c->unit * c->heads) unit_backward(h, d_y, K);
        else
            for (long i = 0; i < K; i++) h[i] = h[i] >= -most && h[i] <= most ? d_y[i] : 0;
    }
}

/* d_taps[r] += d_a[t] z[t + r], z the window of t. */
static void add_taps(const Convolution *c, const Tile *tile, const real *z, const vf *d_a, real *d_tap) {
    const long channels = tile->channels, R = c->taps, W = row_width(c), row = c->row_stride;
    for (long i = 0; i < channels; i += LANES)
        for (long r = 0; r < R; r++) {
            real *sum = d_tap + r * W + tile->first + i;
            store(sum, load(sum, channels - i) + d_a[i / LANES] * load(z + r * row + i, channels - i), channels - i);
        }
}

/* d_z[t] = sum_r taps[r] d_a[t - r]; d_a: row t, behind those before it. */
static void write_gradient(const Convolution *c, const Tile *tile, real *d_z, const vf *d_a) {
    const real *tap = c->tap + tile->first;
    const long channels = tile->channels, R = c->taps, W = row_width(c), vectors = vectors_for(channels);
    for (long i = 0; i < channels; i += LANES) {
        vf sum = {0};
        for (long r = 0; r < R; r++) sum += load(tap + r * W + i, channels - i) * d_a[i / LANES - r * vectors];
        store(d_z + i, sum, channels - i);
    }
}

/* d_a: room for the block's rows and R - 1 before it. */
static void backward_tile(const Convolution *c, Block block, Tile tile, vf *slope, vf *d_a, real *d_tap) {
    long vectors = vectors_for(tile.channels);
    for (int64_t t = block.first - c->taps + 1; t < block.last; t++, d_a += vectors) {
        if (t < 0 || t >= c->tokens) {
            fill(d_a, vectors, 0);
        } else {
            const real *z = row_at(c, &tile, block.sample, t);
            convolve(c, &tile, z, d_a, slope);
            read_gradient(c, &tile, block.sample, t, (real *)d_a);
            for (long i = 0; i < vectors; i++) d_a[i] *= slope[i];
            if (t >= block.first) add_taps(c, &tile, z, d_a, d_tap);
        }
        if (t >= block.first)
            write_gradient(c, &tile, c->d_z + (block.sample * rows(c) + t) * row_width(c) + tile.first, d_a);
    }
}

typedef struct {
    const Convolution *c;
    real *sums; /* [pieces, R, W], for the gradient of the taps; NULL: forward */
} Job;

static int run_pieces(const void *argument, long first, long last) {
    const Job *job = argument;
    const Convolution *c = job->c;
    long vectors = vectors_for(heads_of_a_tile(c) * c->width), size = c->taps * row_width(c);
    vf *room = aligned_alloc(sizeof(vf), sizeof(vf) * vectors * (job->sums ? BLOCK + c->taps : 1));
    if (!room) return 1;
    for (long piece = first; piece < last; piece++) {
        long begin = piece * blocks_of_a_piece(c), end = begin + blocks_of_a_piece(c);
        real *sum = job->sums ? memset(job->sums + piece * size, 0, sizeof(real) * (size_t)size) : 0;
        for (long i = begin; i < end && i < blocks(c); i++) {
            if (!sum) forward_block(c, block_at(c, i), room);
            for (long head = 0; sum && head < c->parts * c->heads; head += heads_of_a_tile(c))
                backward_tile(c, block_at(c, i), tile_at(c, head), room, room + vectors, sum);
        }
    }
    free(room);
    return 0;
}

/* 0: done; 1: no memory. */
int NAME(forward)(const Convolution *c, int threads) {
    Job job = {c, 0};
    return share_out(run_pieces, &job, pieces(c), threads);
}

int NAME(backward)(const Convolution *c, int threads) {
    long size = c->taps * row_width(c);
    Job job = {c, malloc(sizeof(real) * (size_t)(size * (pieces(c) + 1)))};
    if (!job.sums) return 1;
    int failed = share_out(run_pieces, &job, pieces(c), threads);
    memset(c->d_tap, 0, sizeof(real) * (size_t)size);
    for (long piece = 0; !failed && piece < pieces(c); piece++)
        for (long i = 0; i < size; i++) c->d_tap[i] += job.sums[piece * size + i];
    free(job.sums);
    return failed;
}
