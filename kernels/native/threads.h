/* One fork and join over pieces of work. No pool and no global state: safe after fork() and in several threads at once.
 */
#ifndef TITANS_THREADS_H
#define TITANS_THREADS_H

#include <pthread.h>

enum { MOST_THREADS = 256 };

/* Work on pieces first <= i < last; not 0 if it failed. */
typedef int (*Work)(const void *argument, long first, long last);

typedef struct {
    Work work;
    const void *argument;
    long first, last;
    int failed;
} Share;

static void *run_share(void *given) {
    Share *share = given;
    share->failed = share->work(share->argument, share->first, share->last);
    return 0;
}

/* Run all pieces in up to `threads` threads, this one among them; where none can be started, in fewer. */
static int share_out(Work work, const void *argument, long pieces, int threads) {
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads > pieces) threads = (int)pieces;
    if (threads < 1) threads = 1;
    Share share[MOST_THREADS];
    pthread_t thread[MOST_THREADS];
    int started[MOST_THREADS];
    for (int i = threads - 1; i >= 0; i--) {
        share[i] = (Share){work, argument, pieces * i / threads, pieces * (i + 1) / threads, 0};
        started[i] = i > 0 && pthread_create(&thread[i], 0, run_share, &share[i]) == 0;
        if (!started[i]) run_share(&share[i]);
    }
    int failed = 0;
    for (int i = 0; i < threads; i++) {
        if (started[i]) pthread_join(thread[i], 0);
        failed |= share[i].failed;
    }
    return failed;
}

#endif
