/* queue.c - the hand-over between threads.
 *
 * The count is read without the lock, so that a progress loop asks an empty queue for the price of
 * one load. A poller is woken only when the queue stops being empty: it drains until NULL, and
 * whoever pushes after that finds the queue empty and wakes it again. */
#include "runtime/base/queue.h"

#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"

#define POLLS_PER_CLOCK_READ 32

dj_status_t dj_queue_init(dj_queue_t *queue)
{
    memset(queue, 0, sizeof *queue);
    int error = pthread_mutex_init(&queue->lock, NULL);
    if (error)
        return dj_fail(DJ_ERR_SYSTEM, "cannot make a queue's lock: %s", strerror(error));
    error = pthread_cond_init(&queue->filled, NULL);
    if (error) {
        pthread_mutex_destroy(&queue->lock);
        return dj_fail(DJ_ERR_SYSTEM, "cannot make a queue's condition: %s", strerror(error));
    }
    queue->last_p = &queue->first;
    queue->wake_fd = -1;
    return DJ_OK;
}

void dj_queue_fini(dj_queue_t *queue)
{
    pthread_cond_destroy(&queue->filled);
    pthread_mutex_destroy(&queue->lock);
}

void dj_queue_wake_by(dj_queue_t *queue, int event_fd)
{
    pthread_mutex_lock(&queue->lock);
    queue->wake_fd = event_fd;
    pthread_mutex_unlock(&queue->lock);
}

/* With the lock held, so that the descriptor cannot be taken away in between. */
static void wake(dj_queue_t *queue)
{
    const uint64_t one = 1;
    /* A full eventfd (EAGAIN) is readable already. */
    if (queue->wake_fd >= 0 && write(queue->wake_fd, &one, sizeof one) < 0)
        return;
}

void dj_queue_push(dj_queue_t *queue, dj_queue_entry_t *entry)
{
    entry->next = NULL;
    pthread_mutex_lock(&queue->lock);
    *queue->last_p = entry;
    queue->last_p = &entry->next;
    if (atomic_fetch_add_explicit(&queue->count, 1, memory_order_release) == 0)
        wake(queue);
    pthread_cond_signal(&queue->filled);
    pthread_mutex_unlock(&queue->lock);
}

static dj_queue_entry_t *pop_locked(dj_queue_t *queue)
{
    dj_queue_entry_t *entry = queue->first;
    if (!entry)
        return NULL;
    queue->first = entry->next;
    if (!queue->first)
        queue->last_p = &queue->first;
    atomic_fetch_sub_explicit(&queue->count, 1, memory_order_relaxed);
    return entry;
}

dj_queue_entry_t *dj_queue_try_pop(dj_queue_t *queue)
{
    if (atomic_load_explicit(&queue->count, memory_order_acquire) == 0)
        return NULL;
    pthread_mutex_lock(&queue->lock);
    dj_queue_entry_t *entry = pop_locked(queue);
    pthread_mutex_unlock(&queue->lock);
    return entry;
}

static void spin_until_filled(dj_queue_t *queue, uint64_t spin_ns)
{
    uint64_t end_ns = dj_clock_ns() + spin_ns;
    do {
        for (unsigned i = 0; i < POLLS_PER_CLOCK_READ; i++) {
            if (atomic_load_explicit(&queue->count, memory_order_acquire) > 0)
                return;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
        sched_yield(); /* who is to fill it may want this very core */
    } while (dj_clock_ns() < end_ns);
}

dj_queue_entry_t *dj_queue_pop(dj_queue_t *queue, uint64_t spin_ns)
{
    if (spin_ns > 0)
        spin_until_filled(queue, spin_ns);
    pthread_mutex_lock(&queue->lock);
    dj_queue_entry_t *entry;
    while (!(entry = pop_locked(queue)) && !queue->closed)
        pthread_cond_wait(&queue->filled, &queue->lock);
    pthread_mutex_unlock(&queue->lock);
    return entry;
}

void dj_queue_close(dj_queue_t *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    wake(queue);
    pthread_cond_broadcast(&queue->filled);
    pthread_mutex_unlock(&queue->lock);
}
