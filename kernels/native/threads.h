/* One fork and join over pieces of work, in the threads of the caller's OpenMP or in threads of its own.
 *
 * PyTorch's operators leave the threads of their OpenMP spinning for some milliseconds. Another thread would share a
 * core with one of these all that time, so work goes to them where Python has found them (`titans_pool`). They do not
 * survive fork(): Python takes the pool away from a child. Safe in several threads at once.
 */
#ifndef TITANS_THREADS_H
#define TITANS_THREADS_H

#include <pthread.h>

enum { MOST_THREADS = 256 };

/* GOMP_parallel: runs a function with its argument in so many threads, this one among them, and waits for all; or NULL.
 */
extern void (*titans_pool)(void (*)(void *), void *, unsigned threads, unsigned flags);

/* Work on pieces first <= i < last; not 0 if it failed. */
typedef int (*Work)(const void *argument, long first, long last);

typedef struct {
    Work work;
    const void *argument;
    long pieces;
    int count, next, failed; /* shares of the pieces, the next one that nobody has taken */
} Shares;

/* What each thread does: take shares until none is left. */
static void take_shares(void *given) {
    Shares *s = given;
    for (long i; (i = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED)) < s->count;)
        if (s->work(s->argument, s->pieces * i / s->count, s->pieces * (i + 1) / s->count))
            __atomic_store_n(&s->failed, 1, __ATOMIC_RELAXED);
}

static void *start(void *given) {
    take_shares(given);
    return 0;
}

/* In threads of its own; where none can be started, in fewer. */
static void take_shares_in_new_threads(Shares *shares) {
    pthread_t thread[MOST_THREADS];
    int started = 0;
    while (started < shares->count - 1 && pthread_create(&thread[started], 0, start, shares) == 0) started++;
    take_shares(shares);
    for (int i = 0; i < started; i++) pthread_join(thread[i], 0);
}

/* Run all pieces in up to `threads` threads, this one among them. */
static int share_out(Work work, const void *argument, long pieces, int threads) {
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads > pieces) threads = (int)pieces;
    if (threads < 1) threads = 1;
    Shares shares = {work, argument, pieces, threads, 0, 0};
    if (threads == 1) take_shares(&shares);
    else if (titans_pool) titans_pool(take_shares, &shares, threads, 0);
    else take_shares_in_new_threads(&shares);
    return shares.failed;
}

#endif
