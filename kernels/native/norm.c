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

enum { TILE = 512, PIECE = 1 << 14 }; /* numbers that are in the first cache together, and numbers of a piece */

typedef struct {
    int64_t rows, width;   /* width: K */
    double eps;
    const real *y, *w, *g; /* [rows, K], [K], [rows, K]; w and g NULL: as if w, and silu(g), were 1 */
    real *out;
    const real *d_out;     /* NULL: forward */
    real *d_y, *d_w, *d_g; /* d_g NULL where g is */
} Norm;

/* Of a tile: silu(g) and its slope. Of a row: n and its gradient. w: the weights, or ones. */
typedef struct {
    real *gate, *slope, *n, *d_n, *w;
} Room;

static long rows_for(const Norm *c, long numbers) { return c->width < numbers ? numbers / c->width : 1; }
static long pieces(const Norm *c) { return (c->rows + rows_for(c, PIECE) - 1) / rows_for(c, PIECE); }

static void gates(const real *g, long count, vf *gate, vf *slope) {
    for (long i = 0; i < count; i += LANES)
        if (g) gate[i / LANES] = silu(load(g + i, count - i), &slope[i / LANES]);
        else gate[i / LANES] = splat(1);
}

INLINE real over_root(const Norm *c, const real *y) {
    return 1 / (real)__builtin_sqrt(dot(y, y, c->width) / c->width + (real)c->eps);
}

static void forward_row(const Norm *c, long row, const real *restrict gate, const real *restrict w) {
    const long K = c->width;
    const real *restrict y = c->y + row * K;
    const real over = over_root(c, y);
    real *restrict out = c->out + row * K;
    for (long i = 0; i < K; i++) out[i] = y[i] * over * w[i] * gate[i];
}

static void backward_row(const Norm *c, long row, Room room, long at, real *restrict d_w) {
    const long K = c->width;
    const real *restrict y = c->y + row * K, *restrict d_out = c->d_out + row * K;
    const real over = over_root(c, y);
    const real *restrict gate = room.gate + at, *restrict slope = room.slope + at, *restrict w = room.w;
    real *restrict n = room.n, *restrict d_n = room.d_n, *restrict d_y = c->d_y + row * K;
    for (long i = 0; i < K; i++) {
        n[i] = y[i] * over;
        d_n[i] = d_out[i] * gate[i] * w[i];
        d_w[i] += d_out[i] * gate[i] * n[i];
    }
    real along = dot(d_n, n, K) / K;
    for (long i = 0; i < K; i++) d_y[i] = (d_n[i] - n[i] * along) * over;
    real *restrict d_g = c->d_g ? c->d_g + row * K : 0;
    for (long i = 0; d_g && i < K; i++) d_g[i] = d_out[i] * n[i] * w[i] * slope[i];
}

typedef struct {
    const Norm *c;
    real *sums; /* [pieces, K], for the gradient of w; NULL: forward */
} Job;

static void run_rows(const Job *job, long first, long last, Room room, real *sum) {
    const Norm *c = job->c;
    for (long tile = first; tile < last; tile += rows_for(c, TILE)) {
        long end = tile + rows_for(c, TILE) < last ? tile + rows_for(c, TILE) : last;
        gates(c->g ? c->g + tile * c->width : 0, (end - tile) * c->width, (vf *)room.gate, (vf *)room.slope);
        for (long row = tile; row < end; row++) {
            long at = (row - tile) * c->width;
            if (sum) backward_row(c, row, room, at, sum);
            else forward_row(c, row, room.gate + at, room.w);
        }
    }
}

static int run_pieces(const void *argument, long first, long last) {
    const Job *job = argument;
    const Norm *c = job->c;
    const long K = c->width, row = vectors_for(K), tile = vectors_for(rows_for(c, TILE) * K);
    vf *vectors = aligned_alloc(sizeof(vf), sizeof(vf) * (2 * tile + 3 * row));
    if (!vectors) return 1;
    real *numbers = (real *)vectors, *rows = numbers + 2 * tile * LANES;
    Room room = {numbers, numbers + tile * LANES, rows, rows + row * LANES, rows + 2 * row * LANES};
    for (long i = 0; i < K; i++) room.w[i] = c->w ? c->w[i] : 1;
    for (long piece = first; piece < last; piece++) {
        long begin = piece * rows_for(c, PIECE), end = begin + rows_for(c, PIECE);
        real *sum = job->sums ? memset(job->sums + piece * K, 0, sizeof(real) * (size_t)K) : 0;
        run_rows(job, begin, end < c->rows ? end : c->rows, room, sum);
    }
    free(vectors);
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
