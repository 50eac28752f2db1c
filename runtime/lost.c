/* lost.c - the end of a rank whose GPU failed, or ends nothing any more.
 *
 * Whoever meets the failure says so (dj_rank_heed). A GPU that hangs gives no failure and may hold any thread that
 * calls its driver, so the control thread, which never does, asks the device at each turn.
 *
 * The progress thread then answers what clients wait for and ends the process, with exit status 4 and without asking
 * the driver to give anything back: it might not return. Requests that the device thread still has are answered beside
 * it, from memory of their own. Where the progress thread itself is held, the control thread ends the process a little
 * later, and clients see their connections end.
 *
 * Called by rank.c and door.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/rank.h"

#define DJ_LOG_MODULE "rank"

enum {
    ANSWERS_MS = 200, /* for what comes back from the device thread */
    FLUSH_MS = 100,
    HELD_MS = 500, /* beyond those, for a progress thread that does not come to it */
};

dj_status_t dj_rank_lose_device(dj_rank_t *rank)
{
    dj_device_t *device = rank->home.device;
    if (atomic_exchange(&rank->loses_device, true))
        return DJ_ERR_DEVICE;
    snprintf(rank->lost_text, sizeof(rank->lost_text), "%s", dj_error_text());
    dj_log(ERROR, "rank %u loses its device %s, and ends: %s", rank->rank, device->ops->info(device)->name,
           rank->lost_text);
    atomic_store(&rank->device_lost, true);
    return DJ_ERR_DEVICE;
}

void dj_rank_watch_device(dj_rank_t *rank, uint64_t now_ns)
{
    dj_device_t *device = rank->home.device;
    if (device && device->ops->responds && !atomic_load(&rank->device_lost))
        dj_rank_heed(rank, device->ops->responds(device));
    if (!atomic_load(&rank->device_lost))
        return;
    if (!rank->lost_ns)
        rank->lost_ns = now_ns;
    if (now_ns - rank->lost_ns < (ANSWERS_MS + FLUSH_MS + HELD_MS) * DJ_NS_PER_MS)
        return;
    dj_log(ERROR, "rank %u ends although its progress thread is still in the driver", rank->rank);
    _exit(DJ_RANK_EXIT_DEVICE);
}

/* ---- the progress thread ---- */

typedef struct answer {
    dj_header_t header;
    dj_result_t result;
} answer_t;

static void ignore(void *argument, dj_status_t status)
{
    (void)argument;
    (void)status;
}

static void answer_for_device(dj_rank_t *rank, dj_session_t *session, const dj_job_t *job)
{
    answer_t *answer = calloc(1, sizeof(*answer));
    dj_piece_t text = {rank->lost_text, strlen(rank->lost_text)};
    if (!answer)
        return;
    answer->header = (dj_header_t){.magic = DJ_HEADER_MAGIC,
                                   .version = DJ_PROTOCOL_VERSION,
                                   .type = DJ_MESSAGE_RESULT,
                                   .session = session->id,
                                   .generation = session->generation,
                                   .sequence = session->sequence_out++,
                                   .request = job->header.request};
    answer->result = (dj_result_t){.status = DJ_ERR_DEVICE, .segment = UINT32_MAX, .bytes = text.bytes};
    dj_endpoint_send(session->endpoint, answer, sizeof(*answer), &text, 1, ignore, NULL);
}

/* In order; the device thread may still write to its job, so no more is read of one than what it leaves alone. */
static void answer_held(dj_rank_t *rank)
{
    dj_session_t *session;
    dj_hash_t key;
    size_t at = 0;
    while ((session = dj_table_next(&rank->sessions, &at, &key)))
        for (const dj_job_t *job = session->first_job; job && session->endpoint; job = job->next) {
            if (job->state != DJ_JOB_RUNNING && job->state != DJ_JOB_READY)
                break;
            if (job->header.type != DJ_MESSAGE_PULL)
                answer_for_device(rank, session, job);
        }
}

void dj_rank_leave_device(dj_rank_t *rank)
{
    uint64_t until_ns = dj_clock_ns() + ANSWERS_MS * DJ_NS_PER_MS;
    while (dj_worker_is_busy(rank) && dj_clock_ns() < until_ns) {
        dj_comm_wait(rank->comm, 0, 5);
        dj_worker_turn(rank);
    }
    answer_held(rank);
    dj_comm_flush(rank->comm, dj_clock_ns() + FLUSH_MS * DJ_NS_PER_MS);
    _exit(DJ_RANK_EXIT_DEVICE);
}
