/* queue.h - an intrusive first-in first-out queue between threads.
 *
 * Any thread pushes, one thread pops. A waiter sleeps on a condition variable; a queue may also
 * carry an eventfd so that a thread that sleeps in poll() is woken.
 *
 * Ownership: entries belong to whoever holds them; the queue never frees. */
#ifndef DJ_BASE_QUEUE_H
#define DJ_BASE_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/status.h"

typedef struct dj_queue_entry {
    struct dj_queue_entry *next;
} dj_queue_entry_t;

typedef struct dj_queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    dj_queue_entry_t *first, **last_p;
    atomic_uint count;
    bool closed;
    int wake_fd; /* -1: none */
} dj_queue_t;

dj_status_t dj_queue_init(dj_queue_t *queue); /* DJ_ERR_SYSTEM */
void dj_queue_fini(dj_queue_t *queue);
void dj_queue_push(dj_queue_t *queue, dj_queue_entry_t *entry);
/* An eventfd (the caller's; -1 takes it away) that becomes readable when the queue stops being empty
 * and when it is closed. The reader clears it first, then pops until NULL. */
void dj_queue_wake_by(dj_queue_t *queue, int event_fd);
dj_queue_entry_t *dj_queue_try_pop(dj_queue_t *queue); /* NULL when empty; no lock when empty */
/* Spins up to spin_ns, then sleeps until filled or closed; NULL only once closed and empty. */
dj_queue_entry_t *dj_queue_pop(dj_queue_t *queue, uint64_t spin_ns);
void dj_queue_close(dj_queue_t *queue);

#endif
