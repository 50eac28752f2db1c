/* fuzz_rank.h - a rank without peers, for targets that hand it messages as comm would.
 *
 * The device is fake_device.c; jobs that a rank gives to its device thread run in
 * fuzz_rank_run() on this one, so that an input always does the same. Answers have nowhere to go: a
 * session without endpoint is one whose client left. Limits are small, so that what an input can make a
 * rank do is done in milliseconds. */
#ifndef TESTS_FUZZ_FUZZ_RANK_H
#define TESTS_FUZZ_FUZZ_RANK_H

#include "runtime/base/log.h"
#include "runtime/rank.h"
#include "tests/fuzz/fuzz.h"

enum { FUZZ_REQUEST_MS = 2 };

static dj_config_t fuzz_config;
static dj_rank_t fuzz_rank;

static inline void fuzz_free_executable(void *executable)
{
    dj_executable_t *exe = executable;
    dj_fold_destroy(exe->fold);
    exe->ops->destroy(exe);
}

static inline void fuzz_rank_open(const char *model_roots)
{
    char *words[] = {"fuzz",           "--threads",          "1",  "--stack-bytes",   "1M",
                     "--data-bytes",   "16M",                "--data-quota-bytes",    "1M",
                     "--text-bytes",   "8M",                 "--ingress-bytes",       "1M",
                     "--plans",        "64",                 NULL};
    int used, count = (int)(sizeof(words) / sizeof(words[0])) - 1;
    dj_session_home_t *home = &fuzz_rank.home;
    FUZZ_ASSERT(dj_hash_setup() && dj_config_load(&fuzz_config, count, words, &used) == DJ_OK);
    dj_log_init("error", "fuzz");
    fuzz_config.model_roots = model_roots;
    fuzz_config.deadline_ms = FUZZ_REQUEST_MS;
    fuzz_rank.config = home->config = &fuzz_config;
    fuzz_rank.serves = true;
    FUZZ_ASSERT(dj_queue_init(&fuzz_rank.jobs) == DJ_OK && dj_queue_init(&fuzz_rank.done) == DJ_OK &&
                dj_queue_init(&fuzz_rank.commands) == DJ_OK &&
                dj_queue_init(&fuzz_rank.outbox) == DJ_OK);
    FUZZ_ASSERT(dj_device_open(&fuzz_config, &home->device) == DJ_OK);
    FUZZ_ASSERT(dj_text_store_create(home->device, fuzz_config.text_bytes, &home->text) == DJ_OK);
    dj_cache_options_t plans = {.limit = (uint32_t)fuzz_config.plans,
                                .limit_bytes = fuzz_config.plan_bytes,
                                .free_executable = fuzz_free_executable};
    FUZZ_ASSERT(dj_cache_create(&plans, &home->cache) == DJ_OK);
    FUZZ_ASSERT(dj_runner_init(&fuzz_rank.progress_runner, &fuzz_rank) == DJ_OK);
    FUZZ_ASSERT(dj_runner_init(&fuzz_rank.device_runner, &fuzz_rank) == DJ_OK);
    /* Nobody is connected to it: what the rank asks of its comm finds no peer. */
    dj_comm_options_t options = {.loopback_only = true, .on_message = dj_worker_message,
                                 .context = &fuzz_rank};
    FUZZ_ASSERT(dj_comm_create(&options, &fuzz_rank.comm) == DJ_OK);
}

static inline dj_session_t *fuzz_session_open(void)
{
    dj_session_t *session;
    FUZZ_ASSERT(dj_session_create(&fuzz_rank.home, 0x5e551017, &session) == DJ_OK);
    FUZZ_ASSERT(dj_table_put(&fuzz_rank.sessions, dj_key_u64(session->id), session) == DJ_OK);
    session->state = DJ_SESSION_ATTACHED;
    return session;
}

/* What the device thread and the progress thread would do now. */
static inline void fuzz_rank_run(void)
{
    dj_queue_entry_t *entry;
    while ((entry = dj_queue_try_pop(&fuzz_rank.jobs))) {
        dj_job_execute(&fuzz_rank, &fuzz_rank.device_runner, (dj_job_t *)entry);
        dj_queue_push(&fuzz_rank.done, entry);
        dj_worker_turn(&fuzz_rank);
    }
}

/* The end of the session gives everything back. */
static inline void fuzz_session_close(dj_session_t *session)
{
    FUZZ_ASSERT(session->pending == 0 && session->ingress_bytes == 0);
    dj_session_end(&fuzz_rank, session);
    FUZZ_ASSERT(fuzz_rank.sessions.count == 0);
    FUZZ_ASSERT(fuzz_rank.counters.ingress_bytes == 0 && fuzz_rank.counters.refs == 0);
    FUZZ_ASSERT(fuzz_rank.counters.data_bytes == 0);
}

/* One message as comm hands it over, whole or as a rendezvous that arrives or fails. `header` is a
 * dj_header_t with its struct; the payload is aligned like UCX's. */
static inline void fuzz_rank_message(const void *header, const void *payload, uint64_t bytes,
                                     bool rendezvous, bool fails)
{
    void *memory = NULL, *token = NULL, *none = NULL;
    dj_incoming_t incoming = {.header = header, .body = (const dj_header_t *)header + 1,
                              .payload = rendezvous ? NULL : payload, .payload_bytes = bytes,
                              .rendezvous = rendezvous};
    dj_status_t status = dj_worker_message(&fuzz_rank, &incoming, &memory, &token);
    if (!rendezvous || status != DJ_OK)
        return;
    FUZZ_ASSERT(memory && token);
    incoming.token = token;
    incoming.failed = fails;
    incoming.payload = fails ? NULL : memory;
    if (!fails)
        memcpy(memory, payload, bytes);
    dj_worker_message(&fuzz_rank, &incoming, &none, &none);
}

#endif
