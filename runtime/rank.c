/* rank.c - a rank's life: open everything, run three threads, close everything. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/bind.h"
#include "runtime/links.h"
#include "runtime/reaper.h"
#include "runtime/upkeep.h"

#define DJ_LOG_MODULE "rank"

enum { DJ_FLUSH_MS = 100 };
#define DJ_PINNED_BYTES (256ull << 20) /* page-locked and kept for what passes to and from a blind device */

static void free_executable(void *executable)
{
    dj_executable_t *exe = executable;
    dj_fold_destroy(exe->fold);
    exe->ops->destroy(exe);
}

static uint64_t executable_bytes(const void *executable)
{
    const dj_executable_t *exe = executable;
    uint64_t bytes = exe->fold ? dj_fold_bytes(exe->fold) : 0;
    return bytes + (exe->ops->bytes ? exe->ops->bytes(exe) : 0);
}

static void *device_main(void *argument)
{
    dj_rank_t *rank = argument;
    dj_device_t *device = rank->home.device;
    uint64_t spin_ns = rank->config->spin_us * 1000;
    dj_queue_entry_t *entry;
    pthread_setname_np(pthread_self(), "dj-device"); /* its kernel threads inherit the name */
    dj_bind_thread(rank->config->device_cores, "device");
    if (device->ops->thread_start)
        device->ops->thread_start(device);
    while ((entry = dj_queue_pop(&rank->jobs, spin_ns))) {
        dj_job_t *job = (dj_job_t *)entry;
        if (job->exchange)
            dj_exchange_place(rank, job->exchange);
        else if (job->header.type == DJ_MESSAGE_PART)
            dj_part_copy(rank, job);
        else
            dj_job_execute(rank, &rank->device_runner, job);
        dj_queue_push(&rank->done, entry);
        dj_comm_wake(rank->comm);
    }
    return NULL;
}

static dj_status_t read_token(dj_rank_t *rank)
{
    const dj_config_t *config = rank->config;
    char path[4096];
    if (strcmp(config->auth, "none") == 0)
        return DJ_OK;
    if (strcmp(config->auth, "token") != 0)
        return dj_fail(DJ_ERR_INVALID, "--auth %s: token or none", config->auth);
    if (config->token[0])
        return dj_token_parse(config->token, rank->token);
    const char *home = dj_environment("HOME");
    snprintf(path, sizeof(path), "%s/.djinn/token", home ? home : "");
    return dj_token_read(config->token_file[0] ? config->token_file : path, rank->token);
}

/* The worker's half: device, stores, transport. */
static dj_status_t open_worker(dj_rank_t *rank)
{
    const dj_config_t *config = rank->config;
    dj_session_home_t *home = &rank->home;
    dj_cache_options_t plans = {.limit = (uint32_t)config->plans,
                                .limit_bytes = config->plan_bytes,
                                .free_executable = free_executable,
                                .executable_bytes = executable_bytes,
                                .hot_hits = config->improve_hits};
    home->config = config;
    dj_status_t status = dj_device_open(config, &home->device);
    if (status == DJ_OK)
        status = dj_text_store_create(home->device, config->text_bytes, &home->text);
    if (status == DJ_OK && !home->device->ops->info(home->device)->host_reads)
        status = dj_bounce_pool_create(home->device, DJ_PINNED_BYTES, &home->bounce);
    if (status == DJ_OK)
        status = dj_cache_create(&plans, &home->cache);
    if (status == DJ_OK)
        status = dj_runner_init(&rank->progress_runner, rank);
    if (status == DJ_OK)
        status = dj_runner_init(&rank->device_runner, rank);
    dj_comm_options_t options = {.shared_memory = strcmp(config->transports, "tcp") != 0,
                                 .loopback_only = strncmp(rank->endpoint, "127.", 4) == 0,
                                 .net_devices = config->net_devices,
                                 .batch_bytes = (uint32_t)config->batch_bytes,
                                 .on_message = dj_worker_message,
                                 .context = rank};
    if (status == DJ_OK)
        status = dj_comm_create(&options, &rank->comm);
    if (status == DJ_OK)
        status = dj_links_create(rank, &rank->links);
    if (status == DJ_OK && pthread_create(&rank->device_thread, NULL, device_main, rank) != 0)
        status = dj_fail(DJ_ERR_SYSTEM, "no thread for the device: %s", strerror(errno));
    rank->device_runs = status == DJ_OK;
    if (status == DJ_OK)
        status = dj_reaper_start(rank, &rank->reaper);
    return status == DJ_OK ? dj_upkeep_start(rank, &rank->upkeep) : status;
}

static dj_status_t open_rank(dj_rank_t *rank)
{
    if (!dj_hash_setup())
        return dj_fail(DJ_ERR_SYSTEM, "the system has no source of random bytes");
    dj_status_t status = read_token(rank);
    if (status == DJ_OK)
        status = dj_queue_init(&rank->commands);
    if (status == DJ_OK)
        status = dj_queue_init(&rank->jobs);
    if (status == DJ_OK)
        status = dj_queue_init(&rank->done);
    if (status == DJ_OK)
        status = dj_queue_init(&rank->outbox);
    if (status == DJ_OK)
        status = dj_door_open(rank);
    if (status == DJ_OK && rank->serves)
        status = open_worker(rank);
    if (status == DJ_OK && pthread_create(&rank->control_thread, NULL, dj_door_main, rank) != 0)
        status = dj_fail(DJ_ERR_SYSTEM, "no control thread: %s", strerror(errno));
    rank->control_runs = status == DJ_OK;
    return status;
}

static int exit_status(const dj_rank_t *rank, dj_status_t status)
{
    if (status != DJ_OK)
        return DJ_RANK_EXIT_FAILED;
    return atomic_load(&rank->replaced) ? DJ_RANK_EXIT_REPLACED : DJ_RANK_EXIT_TOLD;
}

/* The time is over and the device is in the middle of a request, which cannot be interrupted: its thread would be
 * waited for. Everybody has been told; the kernel closes everything. */
static void leave_computing(dj_rank_t *rank)
{
    bool hurries = dj_rank_ends(rank) || atomic_load(&rank->replaced);
    if (!hurries || !rank->comm || !dj_worker_computes(rank))
        return;
    dj_log(WARN, "rank %u ends in the middle of a request%s", rank->rank,
           dj_rank_ends(rank) ? ", which had its --drain-ms" : "");
    _exit(exit_status(rank, DJ_OK));
}

static void close_rank(dj_rank_t *rank)
{
    if (dj_rank_ends(rank) && rank->comm) /* answers are here no more when their connections end */
        dj_comm_flush(rank->comm, dj_clock_ns() + DJ_FLUSH_MS * DJ_NS_PER_MS);
    atomic_store(&rank->stop, true);
    if (rank->control_runs) {
        dj_outbox_wake(rank);
        pthread_join(rank->control_thread, NULL);
    }
    leave_computing(rank);
    if (rank->device_runs) {
        dj_queue_close(&rank->jobs);
        pthread_join(rank->device_thread, NULL);
    }
    dj_probe_end(rank);
    dj_reaper_end(rank->reaper);
    rank->reaper = NULL;
    if (rank->comm)
        dj_worker_end(rank);
    dj_upkeep_end(rank->upkeep); /* what it exchanges may have been in the queues till now */
    dj_door_close(rank);
    if (rank->comm)
        dj_comm_destroy(rank->comm);
    if (rank->home.cache)
        dj_cache_destroy(rank->home.cache);
    dj_runner_fini(&rank->progress_runner);
    dj_runner_fini(&rank->device_runner);
    if (rank->home.text)
        dj_text_store_destroy(rank->home.text);
    dj_bounce_pool_destroy(rank->home.bounce);
    if (rank->home.device)
        dj_device_close(rank->home.device);
}

/* False: nothing came or went since the last time. */
static bool count_traffic(dj_rank_t *rank)
{
    dj_comm_counters_t traffic;
    dj_comm_counters(rank->comm, &traffic);
    bool moved = traffic.messages_in != rank->counters.messages_in ||
                 traffic.messages_out != rank->counters.messages_out;
    atomic_store_explicit(&rank->counters.messages_in, traffic.messages_in, memory_order_relaxed);
    atomic_store_explicit(&rank->counters.messages_out, traffic.messages_out,
                          memory_order_relaxed);
    atomic_store_explicit(&rank->counters.bytes_in, traffic.bytes_in, memory_order_relaxed);
    atomic_store_explicit(&rank->counters.bytes_out, traffic.bytes_out, memory_order_relaxed);
    return moved;
}

/* Until told to stop: DJ_OK; or until it cannot go on. */
static dj_status_t serve(dj_rank_t *rank)
{
    uint64_t spin_ns = rank->config->spin_us * 1000;
    dj_bind_thread(rank->config->progress_cores, "progress");
    while (!dj_ending_is_over(rank)) {
        dj_comm_wait(rank->comm, spin_ns, 50);
        dj_worker_turn(rank);
        atomic_fetch_add_explicit(&rank->turns, 1, memory_order_relaxed);
        if (atomic_load_explicit(&rank->device_lost, memory_order_acquire)) /* and its text */
            dj_rank_leave_device(rank);
        uint64_t now_ns = dj_clock_ns();
        if (now_ns - rank->swept_ns < 50 * DJ_NS_PER_MS)
            continue;
        rank->swept_ns = now_ns;
        if (count_traffic(rank) || rank->counters.detached)
            dj_leases_check(rank, now_ns); /* walks all sessions: not for nothing */
        dj_links_sweep(rank->links, now_ns);
        if (!dj_probe_check(rank))
            return DJ_ERR_SYSTEM;
    }
    return DJ_OK;
}

int dj_rank_run(const dj_config_t *config)
{
    dj_rank_t *rank = calloc(1, sizeof(*rank));
    if (!rank)
        return 1;
    rank->config = config;
    rank->rank = (uint32_t)config->rank;
    rank->n_ranks = (uint32_t)config->ranks;
    rank->incarnation = (uint32_t)config->incarnation;
    rank->coordinates = rank->rank == 0;
    rank->serves = rank->rank != 0 || rank->n_ranks == 1;
    atomic_store(&rank->told_ms, -1);
    dj_bind_rank(config);
    dj_status_t status = dj_ending_catch();
    if (status == DJ_OK)
        status = open_rank(rank);
    if (status == DJ_OK) {
        dj_log(INFO, "rank %u of %u at %s", rank->rank, rank->n_ranks, rank->endpoint);
        if (rank->serves)
            status = serve(rank);
        while (status == DJ_OK && !dj_ending_is_over(rank))
            dj_ending_sleep(dj_rank_ends(rank) ? 5 : -1);
    } else {
        dj_log(ERROR, "rank %u cannot start: %s", rank->rank, dj_error_text());
    }
    close_rank(rank);
    int result = exit_status(rank, status);
    free(rank);
    return result;
}
