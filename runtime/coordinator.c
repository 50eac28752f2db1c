/* coordinator.c - see coordinator.h. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/coordinator.h"

static dj_worker_t *find(dj_coordinator_t *coordinator, uint64_t connection)
{
    for (uint32_t i = 1; i < DJ_WORKERS_MAX; i++)
        if (coordinator->workers[i].connection == connection)
            return &coordinator->workers[i];
    return NULL;
}

/* Its connection may have been lost and made anew before we knew. */
static bool is_same_process(const dj_register_t *one, const dj_register_t *other)
{
    return one->pid == other->pid && strcmp(one->endpoint, other->endpoint) == 0;
}

dj_status_t dj_coordinator_register(dj_coordinator_t *coordinator, uint64_t connection,
                                    const dj_register_t *about, uint64_t *replaced_p)
{
    if (about->rank == 0 || about->rank >= DJ_WORKERS_MAX ||
        memchr(about->endpoint, 0, sizeof(about->endpoint)) == NULL ||
        memchr(about->device, 0, sizeof(about->device)) == NULL)
        return dj_fail(DJ_ERR_LIMIT, "rank %u cannot register: ranks 1 to %d may, with terminated "
                                     "names", about->rank, DJ_WORKERS_MAX - 1);
    const dj_worker_t *said = find(coordinator, connection);
    if (said && said->about.rank != about->rank) /* its end would be the end of one of them alone */
        return dj_fail(DJ_ERR_PROTOCOL, "rank %u registers as rank %u on the same connection",
                       said->about.rank, about->rank);
    dj_worker_t *worker = &coordinator->workers[about->rank];
    const dj_register_t *before = &worker->about;
    if (before->rank && (before->incarnation > about->incarnation ||
                         (before->incarnation == about->incarnation && !is_same_process(before, about))))
        return dj_fail(DJ_ERR_STALE, "rank %u incarnation %u (process %u at %s) was replaced: incarnation %u is "
                                     "process %u at %s", about->rank, about->incarnation, about->pid,
                       about->endpoint, before->incarnation, before->pid, before->endpoint);
    *replaced_p = worker->connection != connection ? worker->connection : 0;
    *worker = (dj_worker_t){.connection = connection, .about = *about, .heard_ns = dj_clock_ns(),
                            .news = true};
    coordinator->news = true;
    return DJ_OK;
}

void dj_coordinator_report(dj_coordinator_t *coordinator, uint64_t connection,
                           const dj_report_t *report)
{
    dj_worker_t *worker = find(coordinator, connection);
    if (!worker)
        return;
    uint64_t now_ns = dj_clock_ns();
    uint64_t before = worker->report.sessions, arrived = 0;
    if (report->sessions > before)
        arrived = report->sessions - before;
    worker->granted -= arrived < worker->granted ? arrived : worker->granted;
    if (now_ns - worker->granted_ns > DJ_NS_PER_S)
        worker->granted = 0; /* they came and went between reports, or never came */
    worker->report = *report;
    worker->heard_ns = now_ns;
}

void dj_coordinator_lost(dj_coordinator_t *coordinator, uint64_t connection)
{
    dj_worker_t *worker = find(coordinator, connection);
    if (!worker)
        return;
    worker->connection = 0;
    worker->news = coordinator->news = true;
}

void dj_coordinator_ending(dj_coordinator_t *coordinator, uint64_t connection)
{
    dj_worker_t *worker = find(coordinator, connection);
    if (worker)
        worker->ending = true;
}

bool dj_coordinator_row(const dj_coordinator_t *coordinator, uint32_t rank, dj_roster_t *row)
{
    const dj_worker_t *worker = &coordinator->workers[rank];
    *row = (dj_roster_t){.rank = rank, .incarnation = worker->about.incarnation};
    if (worker->connection)
        memcpy(row->endpoint, worker->about.endpoint, sizeof(row->endpoint));
    return worker->about.rank != 0;
}

bool dj_coordinator_news(dj_coordinator_t *coordinator, uint32_t rank, dj_roster_t *row)
{
    dj_worker_t *worker = &coordinator->workers[rank];
    bool news = worker->news;
    worker->news = false;
    return news && dj_coordinator_row(coordinator, rank, row);
}

dj_worker_t *dj_coordinator_choose(dj_coordinator_t *coordinator, uint32_t wanted)
{
    dj_worker_t *best = NULL;
    uint64_t best_load = UINT64_MAX;
    for (uint32_t i = 1; i < DJ_WORKERS_MAX; i++) {
        dj_worker_t *worker = &coordinator->workers[i];
        uint64_t load = worker->report.sessions + worker->granted;
        if (!worker->connection || worker->ending || load >= best_load || (wanted != DJ_RANK_ANY && wanted != i))
            continue;
        best = worker;
        best_load = load;
    }
    if (best) {
        best->granted++;
        best->granted_ns = dj_clock_ns();
    }
    return best;
}

static void drop_oldest_plan(dj_coordinator_t *coordinator)
{
    dj_kept_plan_t *slot = &coordinator->plans[coordinator->oldest_plan++ % DJ_KEPT_PLANS_MAX];
    coordinator->plan_bytes -= slot->bytes;
    free(slot->data);
    *slot = (dj_kept_plan_t){0};
}

/* The plan of the same program for the same class that is kept already, or NULL. */
static dj_kept_plan_t *find_plan(dj_coordinator_t *coordinator, const dj_plan_message_t *plan)
{
    for (uint32_t i = 0; i < DJ_KEPT_PLANS_MAX; i++) {
        dj_kept_plan_t *slot = &coordinator->plans[i];
        if (slot->data && dj_hash_equal(slot->exact_key, plan->exact_key) &&
            dj_hash_equal(slot->device_class, plan->device_class))
            return slot;
    }
    return NULL;
}

/* The later of two plans of one program is kept: a rank found a better one. True: it took the place. */
static bool replace_plan(dj_coordinator_t *coordinator, const void *body, uint32_t bytes)
{
    dj_kept_plan_t *slot = find_plan(coordinator, body);
    if (!slot || coordinator->plan_bytes - slot->bytes + bytes > DJ_KEPT_PLANS_BYTES)
        return false;
    void *data = realloc(slot->data, bytes);
    if (!data)
        return true; /* the old one is as good as none better */
    memcpy(data, body, bytes);
    coordinator->plan_bytes += bytes;
    coordinator->plan_bytes -= slot->bytes;
    slot->data = data;
    slot->bytes = bytes;
    return true;
}

void dj_coordinator_keep(dj_coordinator_t *coordinator, const void *body, uint32_t bytes)
{
    if (bytes > DJ_KEPT_PLANS_BYTES / 8)
        return; /* the ranks that are here have it; a late one plans for itself */
    if (replace_plan(coordinator, body, bytes))
        return;
    while (coordinator->n_plans - coordinator->oldest_plan == DJ_KEPT_PLANS_MAX ||
           coordinator->plan_bytes + bytes > DJ_KEPT_PLANS_BYTES)
        drop_oldest_plan(coordinator);
    dj_kept_plan_t *slot = &coordinator->plans[coordinator->n_plans % DJ_KEPT_PLANS_MAX];
    slot->data = malloc(bytes);
    if (!slot->data)
        return;
    memcpy(slot->data, body, bytes);
    slot->bytes = bytes;
    slot->device_class = ((const dj_plan_message_t *)body)->device_class;
    slot->exact_key = ((const dj_plan_message_t *)body)->exact_key;
    coordinator->plan_bytes += bytes;
    coordinator->n_plans++;
}

void dj_coordinator_fini(dj_coordinator_t *coordinator)
{
    for (uint32_t i = 0; i < DJ_KEPT_PLANS_MAX; i++)
        free(coordinator->plans[i].data);
}

/* ---- description ---- */

#define DJ_REPORT_FIELDS(X)                                                                        \
    X(sessions) X(detached) X(requests) X(messages_in) X(messages_out) X(bytes_in) X(bytes_out)    \
    X(plan_hits) X(plan_resizes) X(plan_misses) X(plan_received) X(plan_adopted) X(plan_rejected)  \
    X(plan_loaded) X(plan_improved) X(plan_evicted) X(plan_entries) X(plan_bytes)                  \
    X(text_entries) X(text_bytes) X(pack_bytes) X(text_mapped_bytes) X(text_shared)                \
    X(data_bytes) X(data_backed_bytes)                                                             \
    X(stack_bytes) X(stack_peak_bytes) X(ingress_bytes) X(refs) X(busy_ns) X(planning_ns)          \
    X(refused) X(stale) X(peak_checks) X(peak_mismatches) X(links) X(moves)                        \
    X(direct_bytes)

/* X(name, known): what a GPU says of itself, where it does. */
#define DJ_GPU_FIELDS(X)                                                                           \
    X(gpu_utilization_percent, DJ_TELEMETRY_UTILIZATION)                                           \
    X(gpu_temperature_c, DJ_TELEMETRY_TEMPERATURE)                                                 \
    X(gpu_power_mw, DJ_TELEMETRY_POWER)                                                            \
    X(gpu_memory_used_bytes, DJ_TELEMETRY_MEMORY)                                                  \
    X(gpu_memory_total_bytes, DJ_TELEMETRY_MEMORY)                                                 \
    X(gpu_ecc_corrected, DJ_TELEMETRY_ECC)                                                         \
    X(gpu_ecc_uncorrected, DJ_TELEMETRY_ECC)                                                       \
    X(gpu_xid, DJ_TELEMETRY_XID)                                                                   \
    X(gpu_xids, DJ_TELEMETRY_XID)

static json_t *describe_rank(uint32_t number, uint32_t incarnation, const char *role,
                             const char *state, uint32_t pid, const char *endpoint,
                             const char *device, uint32_t threads, uint64_t memory_bytes,
                             const dj_report_t *report)
{
    json_t *rank = json_object();
    json_object_set_new(rank, "rank", json_integer(number));
    json_object_set_new(rank, "incarnation", json_integer(incarnation));
    json_object_set_new(rank, "role", json_string(role));
    json_object_set_new(rank, "state", json_string(state));
    json_object_set_new(rank, "pid", json_integer(pid));
    json_object_set_new(rank, "endpoint", json_string(endpoint));
    json_object_set_new(rank, "device", json_string(device));
    json_object_set_new(rank, "threads", json_integer(threads));
    json_object_set_new(rank, "memory_bytes", json_integer((json_int_t)memory_bytes));
#define X(name) json_object_set_new(rank, #name, json_integer((json_int_t)report->name));
    DJ_REPORT_FIELDS(X)
#undef X
#define X(name, known)                                                                             \
    if (report->gpu_known & (known))                                                               \
        json_object_set_new(rank, #name, json_integer((json_int_t)report->name));
    DJ_GPU_FIELDS(X)
#undef X
    return rank;
}

static const char *state_of(const dj_worker_t *worker)
{
    if (!worker->connection)
        return "lost";
    return worker->ending ? "ending" : "serving";
}

static void describe_workers(const dj_coordinator_t *coordinator, json_t *ranks)
{
    for (uint32_t i = 1; i < DJ_WORKERS_MAX; i++) {
        const dj_worker_t *worker = &coordinator->workers[i];
        if (!worker->about.rank)
            continue;
        json_array_append_new(
            ranks, describe_rank(i, worker->about.incarnation, "worker",
                                 state_of(worker), worker->about.pid,
                                 worker->about.endpoint, worker->about.device,
                                 worker->about.threads, worker->about.memory_bytes,
                                 &worker->report));
    }
}

/* For clients that wonder whether their clock is ours. */
static int64_t real_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

char *dj_coordinator_describe(const dj_coordinator_t *coordinator, dj_rank_t *rank)
{
    dj_report_t report = {0};
    json_t *root = json_object(), *ranks = json_array();
    const dj_device_info_t *info = NULL;
    dj_rank_report(rank, &report);
    if (rank->home.device)
        info = rank->home.device->ops->info(rank->home.device);
    json_object_set_new(root, "version", json_string(DJINN_VERSION));
    json_object_set_new(root, "protocol", json_integer(DJ_PROTOCOL_VERSION));
    json_object_set_new(root, "ranks_expected", json_integer(rank->n_ranks));
    json_object_set_new(root, "time_ms", json_integer((json_int_t)real_ms()));
    json_object_set_new(root, "plans_kept", json_integer((json_int_t)coordinator->n_plans));
    json_array_append_new(
        ranks, describe_rank(rank->rank, rank->incarnation,
                             rank->coordinates ? rank->serves ? "both" : "coordinator" : "worker",
                             dj_rank_ends(rank) ? "ending" : "serving", (uint32_t)getpid(), rank->endpoint,
                             info ? info->name : "", info ? info->threads : 0,
                             info ? info->memory_bytes : 0, &report));
    if (rank->coordinates)
        describe_workers(coordinator, ranks);
    json_object_set_new(root, "ranks", ranks);
    char *text = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    return text;
}
