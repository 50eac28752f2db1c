/* upkeep.c - what is done for the plan cache while nobody waits for it: plans come from a file when the
 * rank starts, and go to one now and then, and when it ends.
 *
 * One thread of its own, which sleeps most of the time. It takes the cache's lock only for moments. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cache_file.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/upkeep.h"

#define DJ_LOG_MODULE "runtime"

enum { TURN_MS = 250, LAST_WAIT_MS = 1000 };

struct dj_upkeep {
    dj_rank_t *rank;
    pthread_t thread;
    bool runs;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool stop;
    uint64_t saved_ns, saved_changes; /* of the last file */
    bool told;                        /* that files cannot be written */
};

/* ---- the file ---- */

static dj_hash_t device_class(const dj_rank_t *rank)
{
    return rank->home.device->ops->info(rank->home.device)->class_hash;
}

/* Rises with everything that makes a file differ from the last one. */
static uint64_t count_changes(dj_rank_t *rank)
{
    dj_cache_counters_t plans;
    dj_cache_counters(rank->home.cache, &plans);
    return plans.misses + plans.resizes + plans.adopted + plans.received + plans.improved;
}

static void load(dj_upkeep_t *upkeep)
{
    dj_rank_t *rank = upkeep->rank;
    const char *folder = rank->config->plan_cache;
    uint32_t n_plans;
    dj_status_t status =
        dj_cache_file_load(folder, device_class(rank), rank->home.cache, &n_plans);
    if (status != DJ_OK)
        dj_log(WARN, "no plans of earlier times: %s", dj_error_text());
    else
        dj_log(INFO, "%u plans of earlier times from %s", n_plans, folder);
}

static void save(dj_upkeep_t *upkeep, uint32_t wait_ms)
{
    dj_rank_t *rank = upkeep->rank;
    uint64_t changes = count_changes(rank);
    if (!rank->config->plan_cache[0] || changes == upkeep->saved_changes)
        return;
    dj_status_t status = dj_cache_file_save(rank->config->plan_cache, device_class(rank),
                                            rank->home.cache, wait_ms);
    upkeep->saved_ns = dj_clock_ns();
    if (status == DJ_OK)
        upkeep->saved_changes = changes;
    else if (status != DJ_ERR_BUSY && !upkeep->told)
        dj_log(WARN, "plans were not kept: %s", dj_error_text());
    upkeep->told = status == DJ_OK ? false : upkeep->told || status != DJ_ERR_BUSY;
}

static void save_when_due(dj_upkeep_t *upkeep)
{
    uint64_t every_ns = upkeep->rank->config->plan_cache_ms * DJ_NS_PER_MS;
    if (dj_clock_ns() - upkeep->saved_ns >= every_ns)
        save(upkeep, 0);
}

/* ---- the thread ---- */

/* False: it is over. */
static bool sleep_a_turn(dj_upkeep_t *upkeep)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TURN_MS * (long)DJ_NS_PER_MS;
    until.tv_sec += until.tv_nsec / (long)DJ_NS_PER_S;
    until.tv_nsec %= (long)DJ_NS_PER_S;
    pthread_mutex_lock(&upkeep->lock);
    while (!upkeep->stop && pthread_cond_timedwait(&upkeep->woken, &upkeep->lock, &until) == 0)
        continue;
    bool goes_on = !upkeep->stop;
    pthread_mutex_unlock(&upkeep->lock);
    return goes_on;
}

static void *upkeep_main(void *argument)
{
    dj_upkeep_t *upkeep = argument;
    pthread_setname_np(pthread_self(), "dj-upkeep");
    while (sleep_a_turn(upkeep))
        save_when_due(upkeep);
    return NULL;
}

static dj_status_t init_waiting(dj_upkeep_t *upkeep)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    int failed = pthread_cond_init(&upkeep->woken, &attributes);
    pthread_condattr_destroy(&attributes);
    if (failed == 0 && (failed = pthread_mutex_init(&upkeep->lock, NULL)) != 0)
        pthread_cond_destroy(&upkeep->woken);
    return failed == 0 ? DJ_OK : dj_fail(DJ_ERR_SYSTEM, "no lock: %s", strerror(failed));
}

dj_status_t dj_upkeep_start(dj_rank_t *rank, dj_upkeep_t **upkeep_p)
{
    if (!rank->config->plan_cache[0])
        return DJ_OK; /* nothing to do, no thread */
    dj_upkeep_t *upkeep = calloc(1, sizeof(*upkeep));
    if (!upkeep)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the upkeep of plans");
    upkeep->rank = rank;
    dj_status_t status = init_waiting(upkeep);
    if (status != DJ_OK) {
        free(upkeep);
        return status;
    }
    *upkeep_p = upkeep;
    load(upkeep);
    upkeep->saved_ns = dj_clock_ns();
    int failed = pthread_create(&upkeep->thread, NULL, upkeep_main, upkeep);
    upkeep->runs = failed == 0;
    return failed == 0 ? DJ_OK
                       : dj_fail(DJ_ERR_SYSTEM, "no thread for upkeep: %s", strerror(failed));
}

void dj_upkeep_end(dj_upkeep_t *upkeep)
{
    if (!upkeep)
        return;
    pthread_mutex_lock(&upkeep->lock);
    upkeep->stop = true;
    pthread_cond_signal(&upkeep->woken);
    pthread_mutex_unlock(&upkeep->lock);
    if (upkeep->runs) {
        pthread_join(upkeep->thread, NULL);
        save(upkeep, LAST_WAIT_MS);
    }
    pthread_cond_destroy(&upkeep->woken);
    pthread_mutex_destroy(&upkeep->lock);
    free(upkeep);
}
