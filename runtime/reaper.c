/* reaper.c - see reaper.h. */
#include "runtime/reaper.h"

#include <stdlib.h>
#include <string.h>

/* One session on its way. */
typedef struct reaped {
    dj_queue_entry_t entry; /* first */
    dj_session_t *session;
    uint64_t connection; /* that waits for its end, or 0 */
    uint64_t bytes;
} reaped_t;

struct dj_reaper {
    dj_rank_t *rank;
    pthread_t thread;
    dj_queue_t taken, returned;
    _Atomic uint64_t bytes;
};

static void return_memory(dj_rank_t *rank, dj_session_t *session)
{
    dj_session_destroy(session, &rank->home);
    dj_text_sweep(rank->home.text, 2);
}

static void *reaper_main(void *argument)
{
    dj_reaper_t *reaper = argument;
    dj_queue_entry_t *entry;
    pthread_setname_np(pthread_self(), "dj-reaper");
    while ((entry = dj_queue_pop(&reaper->taken, 0))) {
        return_memory(reaper->rank, ((reaped_t *)entry)->session);
        dj_queue_push(&reaper->returned, entry);
        dj_comm_wake(reaper->rank->comm);
    }
    return NULL;
}

dj_status_t dj_reaper_start(dj_rank_t *rank, dj_reaper_t **reaper_p)
{
    dj_reaper_t *reaper = calloc(1, sizeof(*reaper));
    if (!reaper)
        return dj_fail(DJ_ERR_MEMORY, "no memory for the end of sessions");
    reaper->rank = rank;
    dj_status_t status = dj_queue_init(&reaper->taken);
    if (status != DJ_OK)
        goto err_taken;
    status = dj_queue_init(&reaper->returned);
    if (status != DJ_OK)
        goto err_returned;
    int failed = pthread_create(&reaper->thread, NULL, reaper_main, reaper);
    if (failed) {
        status = dj_fail(DJ_ERR_SYSTEM, "no thread for the end of sessions: %s", strerror(failed));
        goto err_thread;
    }
    *reaper_p = reaper;
    return DJ_OK;

err_thread:
    dj_queue_fini(&reaper->returned);
err_returned:
    dj_queue_fini(&reaper->taken);
err_taken:
    free(reaper);
    return status;
}

void dj_reaper_take(dj_reaper_t *reaper, dj_session_t *session)
{
    dj_rank_t *rank = reaper->rank;
    reaped_t *reaped = malloc(sizeof(*reaped));
    uint64_t connection = session->closing ? session->connection : 0;
    if (!reaped) { /* then at once */
        return_memory(rank, session);
        if (connection)
            dj_outbox_put(rank, connection, 0, NULL, 0, NULL, 0, true);
        return;
    }
    dj_data_counters_t data;
    dj_data_counters(session->data, &data);
    *reaped = (reaped_t){.session = session, .connection = connection, .bytes = data.backed_bytes + data.cached_bytes};
    atomic_fetch_add(&reaper->bytes, reaped->bytes);
    dj_queue_push(&reaper->taken, &reaped->entry);
}

bool dj_reaper_turn(dj_reaper_t *reaper)
{
    dj_queue_entry_t *entry;
    bool any = false;
    while ((entry = dj_queue_try_pop(&reaper->returned))) {
        reaped_t *reaped = (reaped_t *)entry;
        atomic_fetch_sub(&reaper->bytes, reaped->bytes);
        if (reaped->connection) /* the client's close() returns when its connection ends */
            dj_outbox_put(reaper->rank, reaped->connection, 0, NULL, 0, NULL, 0, true);
        free(reaped);
        any = true;
    }
    return any;
}

uint64_t dj_reaper_bytes(const dj_reaper_t *reaper)
{
    return atomic_load(&reaper->bytes);
}

void dj_reaper_end(dj_reaper_t *reaper)
{
    if (!reaper)
        return;
    dj_queue_close(&reaper->taken);
    pthread_join(reaper->thread, NULL);
    dj_reaper_turn(reaper);
    dj_queue_fini(&reaper->taken);
    dj_queue_fini(&reaper->returned);
    free(reaper);
}
