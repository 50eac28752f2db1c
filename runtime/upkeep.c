/* upkeep.c - what is done while nobody waits for it, for the plan cache above all.
 *
 * Plans come from a file when the rank starts, and go to one now and then, and when it ends.
 *
 * Programs that are used again and again and whose plan is above its bound get a better one: another
 * rank's, where one was published since, or what exact search finds (dj_plan_improve). exchange.c puts
 * it into use, and the ranks of the class are told.
 *
 * And a GPU is asked how it is, once a second: its driver's answer may take as long as it likes here.
 *
 * One thread, which sleeps most of the time and takes the cache's lock only for moments. A search runs
 * on a thread of its own that gets what others leave of a core: where all compute it may wait long for its
 * turn, so it takes no lock, and this thread goes on with its other duties. But it does get a turn: the kernel
 * ends no process before each of its threads had one, so that a rank beside busy neighbours would not end in
 * time if its search ran on idle cores alone. After a search this thread rests in proportion. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "planner/cache_file.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/upkeep.h"

#define DJ_LOG_MODULE "runtime"

enum { TURN_MS = 250, LAST_WAIT_MS = 1000, SEARCH_MS = 2000, TELEMETRY_MS = 1000, SEARCH_NICE = 10 };

typedef struct search {
    pthread_t thread;
    bool runs;
    atomic_bool cancel;
    uint64_t began_ns;
    const dj_cache_entry_t *entry; /* upkeep's */
    dj_plan_t *better;             /* with status and text the thread's, until it has ended */
    dj_status_t status;
    char text[DJ_ERROR_TEXT_MAX];
} search_t;

struct dj_upkeep {
    dj_rank_t *rank;
    pthread_t thread;
    bool runs;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool stop;
    search_t search;
    uint64_t rests_until_ns;
    dj_cache_entry_t *entry; /* a reference, while a better plan is searched and exchanged */
    dj_exchange_t *exchange;
    uint64_t saved_ns, saved_changes; /* of the last file */
    bool told;                        /* that files cannot be written */
    uint64_t asked_ns;                /* the device, how it is */
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
    if (changes == upkeep->saved_changes)
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
    if (upkeep->rank->config->plan_cache[0] && dj_clock_ns() - upkeep->saved_ns >= every_ns)
        save(upkeep, 0);
}

/* ---- better plans ---- */

static void *search_main(void *argument)
{
    search_t *search = argument;
    struct sched_param none = {0};
    pthread_setname_np(pthread_self(), "dj-search");
    sched_setscheduler(0, SCHED_BATCH, &none); /* of this thread, as is the next */
    setpriority(PRIO_PROCESS, (id_t)gettid(), SEARCH_NICE); /* a tenth of what a thread that serves gets */
    dj_plan_limits_t limits = {.cancel = &search->cancel,
                               .deadline_ns = dj_clock_ns() + SEARCH_MS * DJ_NS_PER_MS};
    search->status =
        dj_plan_improve(search->entry->graph, search->entry->plan, &limits, &search->better);
    if (search->status != DJ_OK)
        snprintf(search->text, sizeof(search->text), "%s", dj_error_text());
    return NULL;
}

static void start_search(dj_upkeep_t *upkeep)
{
    search_t *search = &upkeep->search;
    search->began_ns = dj_clock_ns();
    search->entry = upkeep->entry;
    search->better = NULL;
    search->runs = pthread_create(&search->thread, NULL, search_main, search) == 0;
}

/* Until then at most. */
static void wait_for_search(search_t *search, const struct timespec *until)
{
    if (pthread_clockjoin_np(search->thread, NULL, CLOCK_MONOTONIC, until) == 0)
        search->runs = false;
}

/* What the search that is over has found; NULL: nothing. */
static dj_plan_t *take_better(dj_upkeep_t *upkeep)
{
    search_t *search = &upkeep->search;
    uint64_t now_ns = dj_clock_ns(), percent = upkeep->rank->config->improve_percent;
    upkeep->rests_until_ns = now_ns + (now_ns - search->began_ns) * (100 - percent) / percent;
    if (search->status != DJ_OK)
        dj_log(WARN, "the search for a better plan failed: %s", search->text);
    return search->better;
}

/* What another rank published since, if it stands the proof and is better; NULL. */
static dj_plan_t *published_better(dj_rank_t *rank, const dj_cache_entry_t *entry)
{
    dj_device_t *device = rank->home.device;
    const dj_executable_t *exe = entry->executable;
    const dj_device_info_t *info = device->ops->info(device);
    const dj_plan_t *plan = entry->plan;
    dj_plan_needs_t needs = {info->class_hash, device->ops->workspaces(exe), info->flops_per_ns,
                             info->bytes_per_ns, info->step_ns};
    dj_bytes_t structure = {0}, sizes = {0}, bytes = {0};
    dj_plan_t *better = NULL;
    if (dj_cache_published(rank->home.cache, entry->graph->exact_key, &structure, &sizes,
                           &bytes) == DJ_OK &&
        dj_plan_decode(bytes.data, bytes.size, entry->graph, &needs, &better) == DJ_OK &&
        better->peak_bytes >= plan->peak_bytes) {
        dj_plan_destroy(better);
        better = NULL;
    }
    dj_bytes_fini(&structure);
    dj_bytes_fini(&sizes);
    dj_bytes_fini(&bytes);
    return better;
}

static void publish_better(dj_rank_t *rank, const dj_cache_entry_t *entry)
{
    dj_bytes_t scratch = {0};
    if (entry->graph->fitted)
        return;
    dj_plan_publish(rank, &scratch, entry->structure, (uint32_t)entry->structure_size, entry->sizes,
                    (uint32_t)entry->sizes_size, entry->plan);
    dj_bytes_fini(&scratch);
}

static void forget_entry(dj_upkeep_t *upkeep)
{
    dj_cache_release(upkeep->rank->home.cache, upkeep->entry);
    upkeep->entry = NULL;
}

static void end_exchange(dj_upkeep_t *upkeep)
{
    dj_exchange_destroy(upkeep->rank, upkeep->exchange);
    upkeep->exchange = NULL;
    forget_entry(upkeep);
}

/* True: there is nothing to wait for. */
static bool exchange_is_over(dj_upkeep_t *upkeep)
{
    dj_status_t status;
    if (!upkeep->exchange)
        return true;
    if (!dj_exchange_is_over(upkeep->exchange, &status))
        return false;
    if (status == DJ_OK)
        publish_better(upkeep->rank, upkeep->entry);
    end_exchange(upkeep);
    return true;
}

/* Takes the plan, if there is one, and the reference to the entry. */
static void offer(dj_upkeep_t *upkeep, dj_plan_t *better)
{
    if (better) {
        dj_log(DEBUG, "a plan's peak goes from %llu to %llu bytes",
               (unsigned long long)((const dj_plan_t *)upkeep->entry->plan)->peak_bytes,
               (unsigned long long)better->peak_bytes);
        if (dj_exchange_offer(upkeep->rank, upkeep->entry, better, &upkeep->exchange) == DJ_OK)
            return;
        dj_plan_destroy(better);
    }
    forget_entry(upkeep);
}

static void forget_search(dj_upkeep_t *upkeep)
{
    dj_plan_destroy(upkeep->search.better);
    forget_entry(upkeep);
}

/* One entry at a time: the hottest is searched, its better plan exchanged. */
static void improve(dj_upkeep_t *upkeep)
{
    if (upkeep->search.runs || !exchange_is_over(upkeep))
        return;
    if (upkeep->entry) {
        offer(upkeep, take_better(upkeep));
        return;
    }
    if (dj_clock_ns() < upkeep->rests_until_ns ||
        !(upkeep->entry = dj_cache_hottest(upkeep->rank->home.cache)))
        return;
    dj_plan_t *better = published_better(upkeep->rank, upkeep->entry);
    if (better) {
        offer(upkeep, better);
        return;
    }
    start_search(upkeep);
    if (!upkeep->search.runs)
        forget_entry(upkeep);
}

/* ---- the device ---- */

static void ask_device(dj_upkeep_t *upkeep)
{
    dj_rank_t *rank = upkeep->rank;
    dj_device_t *device = rank->home.device;
    uint64_t now_ns = dj_clock_ns();
    dj_telemetry_t says = {0};
    if (!device->ops->telemetry ||
        (upkeep->asked_ns && now_ns - upkeep->asked_ns < TELEMETRY_MS * DJ_NS_PER_MS))
        return;
    upkeep->asked_ns = now_ns;
    device->ops->telemetry(device, &says);
    uint64_t last = atomic_load(&rank->counters.gpu_xids);
    atomic_store(&rank->counters.gpu_utilization_percent, says.utilization_percent);
    atomic_store(&rank->counters.gpu_temperature_c, says.temperature_c);
    atomic_store(&rank->counters.gpu_power_mw, says.power_mw);
    atomic_store(&rank->counters.gpu_memory_used_bytes, says.memory_used_bytes);
    atomic_store(&rank->counters.gpu_memory_total_bytes, says.memory_total_bytes);
    atomic_store(&rank->counters.gpu_ecc_corrected, says.ecc_corrected);
    atomic_store(&rank->counters.gpu_ecc_uncorrected, says.ecc_uncorrected);
    atomic_store(&rank->counters.gpu_xid, says.xid);
    atomic_store(&rank->counters.gpu_xids, says.xid_count);
    atomic_store(&rank->counters.gpu_known, says.known);
    if (says.known & DJ_TELEMETRY_XID && says.xid_count > last)
        dj_log(WARN, "%s reports Xid %u; %u since this rank began", device->ops->info(device)->name, says.xid,
               says.xid_count);
}

/* ---- the thread ---- */

static struct timespec end_of_turn(void)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TURN_MS * (long)DJ_NS_PER_MS;
    until.tv_sec += until.tv_nsec / (long)DJ_NS_PER_S;
    until.tv_nsec %= (long)DJ_NS_PER_S;
    return until;
}

/* Or until a search is over. False: the thread is told to stop. */
static bool sleep_a_turn(dj_upkeep_t *upkeep)
{
    struct timespec until = end_of_turn();
    bool searches = upkeep->search.runs;
    if (searches)
        wait_for_search(&upkeep->search, &until);
    pthread_mutex_lock(&upkeep->lock);
    while (!searches && !upkeep->stop &&
           pthread_cond_timedwait(&upkeep->woken, &upkeep->lock, &until) == 0)
        continue;
    bool goes_on = !upkeep->stop;
    pthread_mutex_unlock(&upkeep->lock);
    return goes_on;
}

static void *upkeep_main(void *argument)
{
    dj_upkeep_t *upkeep = argument;
    pthread_setname_np(pthread_self(), "dj-upkeep");
    while (sleep_a_turn(upkeep)) {
        ask_device(upkeep);
        improve(upkeep);
        save_when_due(upkeep);
    }
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
    if (!rank->config->plan_cache[0] && !rank->config->improve_hits && !rank->home.device->ops->telemetry)
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
    if (rank->config->plan_cache[0])
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
    atomic_store(&upkeep->search.cancel, true);
    pthread_mutex_lock(&upkeep->lock);
    upkeep->stop = true;
    pthread_cond_signal(&upkeep->woken);
    pthread_mutex_unlock(&upkeep->lock);
    if (upkeep->runs) {
        pthread_join(upkeep->thread, NULL);
        upkeep->rank->exchanging = NULL; /* the thread that would have taken it back is at rest */
        if (upkeep->search.runs)
            pthread_join(upkeep->search.thread, NULL);
        if (upkeep->exchange)
            end_exchange(upkeep);
        else if (upkeep->entry)
            forget_search(upkeep);
        if (upkeep->rank->config->plan_cache[0])
            save(upkeep, LAST_WAIT_MS);
    }
    pthread_cond_destroy(&upkeep->woken);
    pthread_mutex_destroy(&upkeep->lock);
    free(upkeep);
}
