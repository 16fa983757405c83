/* A gated norm over rows of K channels in one pass, forward and backward:
 *
 *     n = y / sqrt(mean(y^2) + eps),     out = n w silu(g)
 *
 * Rows lie one behind the other, [rows, K]. Backward makes n anew. Rows are cut into pieces, which are dealt out to
 * threads; the gradient of w is summed per piece and then in the order of the pieces, so results do not depend on the
 * number of threads.
 */
#include "channels.h"

#ifdef DOUBLE
#define NAME(word) titans_norm_##word##_float64
#else
#define NAME(word) titans_norm_##word##_float32
#endif

enum { TILE = 256, PIECE = 1 << 14 }; /* numbers that are in the first cache together, and numbers of a piece */

typedef struct {
    int64_t rows, width; /* width: K */
    double eps;
    const real *y, *w, *g; /* [rows, K], [K], [rows, K]; w and g NULL: as if w, and silu(g), were 1 */
    real *out;
    const real *d_out;     /* NULL: forward */
    real *d_y, *d_w, *d_g; /* d_g NULL where g is */
} Norm;

/* Vectors of a tile of rows. over: 1 / root, and along: (d_n . n) / K, each repeated for the K numbers of its row.
 * w: the weights, or ones, repeated for every row; d_w: their gradients, as repeated.
 */
typedef struct {
    vf *over, *along, *n, *d_n, *w, *d_w;
} Room;

static long rows_for(const Norm *c, long numbers) { return c->width < numbers ? numbers / c->width : 1; }
static long pieces(const Norm *c) { return (c->rows + rows_for(c, PIECE) - 1) / rows_for(c, PIECE); }

/* over, for `rows` rows of y. */
static void roots(const real *y, long rows, const long K, real eps, real *over) {
    for (long row = 0; row < rows; row++) {
        const real root = (real)__builtin_sqrt(dot(y + row * K, y + row * K, K) / K + eps);
        for (long i = 0; i < K; i++) over[row * K + i] = 1 / root;
    }
}

static void forward_tile(const Norm *c, long first, long rows, Room room) {
    const long at = first * c->width, count = rows * c->width;
    roots(c->y + at, rows, c->width, (real)c->eps, (real *)room.over);
    for (long i = 0; i < count; i += LANES) {
        vf out = load(c->y + at + i, count - i) * room.over[i / LANES] * room.w[i / LANES];
        if (c->g) out *= silu(load(c->g + at + i, count - i), 0);
        store(c->out + at + i, out, count - i);
    }
}

/* d_n, and the gradients of w and g. */
static void through_product(const Norm *c, long at, long count, Room room) {
    for (long i = 0; i < count; i += LANES) {
        const long j = i / LANES, left = count - i;
        vf d_out = load(c->d_out + at + i, left), gate = splat(1), slope;
        vf n = room.n[j] = load(c->y + at + i, left) * room.over[j];
        if (c->g) {
            gate = silu(load(c->g + at + i, left), &slope);
            store(c->d_g + at + i, d_out * n * room.w[j] * slope, left);
        }
        room.d_n[j] = d_out * gate * room.w[j];
        room.d_w[j] += d_out * gate * n;
    }
}

/* d_y = (d_n - n (d_n . n) / K) / root */
static void backward_tile(const Norm *c, long first, long rows, Room room) {
    const long K = c->width, at = first * K, count = rows * K;
    real *along = (real *)room.along;
    const real *n = (const real *)room.n, *d_n = (const real *)room.d_n;
    roots(c->y + at, rows, K, (real)c->eps, (real *)room.over);
    through_product(c, at, count, room);
    for (long row = 0; row < rows; row++) {
        const real mean = dot(d_n + row * K, n + row * K, K) / K;
        for (long i = 0; i < K; i++) along[row * K + i] = mean;
    }
    for (long i = 0; i < count; i += LANES) {
        const long j = i / LANES;
        store(c->d_y + at + i, (room.d_n[j] - room.n[j] * room.along[j]) * room.over[j], count - i);
    }
}

typedef struct {
    const Norm *c;
    real *sums; /* [pieces, K], for the gradient of w; NULL: forward */
} Job;

static void run_piece(const Job *job, long piece, Room room, long vectors) {
    const Norm *c = job->c;
    const long K = c->width, tile = rows_for(c, TILE), begin = piece * rows_for(c, PIECE);
    const long end = begin + rows_for(c, PIECE) < c->rows ? begin + rows_for(c, PIECE) : c->rows;
    fill(room.d_w, vectors, 0);
    for (long row = begin; row < end; row += tile) {
        long rows = row + tile < end ? tile : end - row;
        if (job->sums) backward_tile(c, row, rows, room);
        else forward_tile(c, row, rows, room);
    }
    for (long i = 0; job->sums && i < K; i++) {
        real sum = 0;
        for (long row = 0; row < tile; row++) sum += ((const real *)room.d_w)[row * K + i];
        job->sums[piece * K + i] = sum;
    }
}

static int run_pieces(const void *argument, long first, long last) {
    const Job *job = argument;
    const long K = job->c->width, count = rows_for(job->c, TILE) * K, vectors = vectors_for(count);
    vf *at = aligned_alloc(sizeof(vf), sizeof(vf) * 6 * vectors);
    if (!at) return 1;
    memset(at, 0, sizeof(vf) * 6 * vectors); /* the last vector of a tile is whole in sums */
    Room room = {at, at + vectors, at + 2 * vectors, at + 3 * vectors, at + 4 * vectors, at + 5 * vectors};
    for (long i = 0; i < count; i++) ((real *)room.w)[i] = job->c->w ? job->c->w[i % K] : 1;
    for (long piece = first; piece < last; piece++) run_piece(job, piece, room, vectors);
    free(at);
    return 0;
}

/* 0: done; 1: no memory. */
int NAME(forward)(const Norm *c, int threads) {
    Job job = {c, 0};
    return share_out(run_pieces, &job, pieces(c), threads);
}

int NAME(backward)(const Norm *c, int threads) {
    Job job = {c, malloc(sizeof(real) * (size_t)(c->width * (pieces(c) + 1)))};
    if (!job.sums) return 1;
    int failed = share_out(run_pieces, &job, pieces(c), threads);
    for (long i = 0; !failed && c->d_w && i < c->width; i++) {
        c->d_w[i] = 0;
        for (long piece = 0; piece < pieces(c); piece++) c->d_w[i] += job.sums[piece * c->width + i];
    }
    free(job.sums);
    return failed;
}
