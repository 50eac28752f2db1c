/* exchange.c - how a better plan takes the place of the one in use, with requests coming in all the while.
 *
 * An executable holds the plan's offsets, so it takes the new ones (place()) when no replay of it runs.
 * Replays run on two threads: short ones on the progress thread, all others on the device thread. So
 * the exchange is a job of the device thread, between two others; and from the moment the progress
 * thread hands that job over until it is back, it runs no request for this entry itself but hands those over,
 * too, behind it. No lock is taken and nobody waits; the price is one place(), a few nanoseconds a step.
 *
 *   upkeep thread ──offered──▶ progress thread ──jobs──▶ device thread ──done──▶ progress thread
 *
 * The old plan stays with the entry (cache.h), so who read the pointer before may still use it. */
#include <stdlib.h>

#include "runtime/base/log.h"
#include "runtime/rank.h"

#define DJ_LOG_MODULE "runtime"

struct dj_exchange {
    dj_job_t job;
    dj_cache_entry_t *entry;
    dj_plan_t *better; /* NULL: the entry's now */
    dj_status_t status;
    atomic_bool over;
};

dj_status_t dj_exchange_offer(dj_rank_t *rank, dj_cache_entry_t *entry, dj_plan_t *better,
                              dj_exchange_t **exchange_p)
{
    dj_exchange_t *exchange = calloc(1, sizeof(*exchange));
    if (!exchange)
        return dj_fail(DJ_ERR_MEMORY, "no memory to exchange a plan");
    exchange->job.exchange = exchange;
    exchange->entry = entry;
    exchange->better = better;
    atomic_init(&exchange->over, false);
    *exchange_p = exchange;
    atomic_store(&rank->offered, exchange);
    dj_comm_wake(rank->comm);
    return DJ_OK;
}

bool dj_exchange_is_over(const dj_exchange_t *exchange, dj_status_t *status_p)
{
    bool over = atomic_load(&exchange->over);
    if (over)
        *status_p = exchange->status;
    return over;
}

void dj_exchange_destroy(dj_rank_t *rank, dj_exchange_t *exchange)
{
    dj_exchange_t *mine = exchange;
    atomic_compare_exchange_strong(&rank->offered, &mine, NULL);
    dj_plan_destroy(exchange->better);
    free(exchange);
}

bool dj_exchange_holds(const dj_rank_t *rank, const dj_cache_entry_t *entry)
{
    return rank->exchanging && rank->exchanging->entry == entry;
}

void dj_exchange_turn(dj_rank_t *rank)
{
    if (!atomic_load_explicit(&rank->offered, memory_order_relaxed))
        return;
    rank->exchanging = atomic_exchange(&rank->offered, NULL);
    dj_queue_push(&rank->jobs, &rank->exchanging->job.entry);
}

void dj_exchange_place(dj_rank_t *rank, dj_exchange_t *exchange)
{
    dj_cache_entry_t *entry = exchange->entry;
    dj_executable_t *exe = entry->executable;
    dj_plan_t *old = entry->plan, *better = exchange->better;
    dj_status_t status = exe->ops->place(exe, better);
    if (status == DJ_OK)
        status = dj_cache_replace(rank->home.cache, entry, better);
    if (status == DJ_OK) {
        exchange->better = NULL;
    } else {
        dj_log(WARN, "a better plan could not be used: %s", dj_error_text());
        exe->ops->place(exe, old); /* it was placed before */
    }
    exchange->status = status;
}

void dj_exchange_placed(dj_rank_t *rank, dj_exchange_t *exchange)
{
    rank->exchanging = NULL;
    atomic_store(&exchange->over, true); /* from here on upkeep's */
}
