/* probe.c - after a client was killed: does this rank's shared memory still take messages?
 *
 * Over shared memory all clients of a rank write into one queue of UCX: reserve a place, fill it,
 * mark it full. A client killed in between leaves a hole behind which the messages of everybody
 * wait for ever; UCX 1.13 neither notices nor can mend it. So after each such death a thread plays
 * a new client: it makes a comm of its own and wires up with the rank, which goes through the same
 * queue. When that does not come to an end, the rank must: its supervisor starts it anew, and its
 * clients are told within two seconds that their rank died instead of waiting for their deadlines.
 *
 * Called by the progress thread. Waits are counted, not the clock asked, so that a rank that was
 * stopped for a while does not condemn itself; and those count for nothing in which the progress
 * thread makes no turn for long (it may be giving back the memory of a large session), because then nobody
 * could answer. */
#include <errno.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/rank.h"

#define DJ_LOG_MODULE "runtime"

enum { DJ_PROBE_WAIT_MS = 10, DJ_PROBE_WAITS = 100, DJ_PROBE_STILL = 20 };
enum { PROBE_IDLE, PROBE_RUNNING, PROBE_PASSED, PROBE_FAILED };

static dj_status_t ignore(void *context, const dj_incoming_t *incoming, void **memory_p,
                          void **token_p)
{
    return DJ_ERR_PROTOCOL;
}

/* DJ_OK: wired up, or the rank ends; DJ_ERR_DEADLINE: it never came about. */
static dj_status_t wire_up(dj_rank_t *rank, dj_comm_t *comm, const void *address,
                           uint32_t address_bytes)
{
    dj_endpoint_t *endpoint;
    unsigned turns = atomic_load(&rank->turns);
    int still = 0;
    dj_status_t status = dj_endpoint_create(comm, address, address_bytes, &endpoint);
    if (status != DJ_OK)
        return status;
    for (int waits = 0; !dj_endpoint_ready(endpoint) && !atomic_load(&rank->stop);) {
        if (waits == DJ_PROBE_WAITS) {
            status = DJ_ERR_DEADLINE;
            break;
        }
        dj_comm_wait(comm, 0, DJ_PROBE_WAIT_MS);
        unsigned now = atomic_load(&rank->turns);
        still = now == turns ? still + 1 : 0;
        turns = now;
        waits += still < DJ_PROBE_STILL;
    }
    dj_endpoint_close(endpoint);
    return status;
}

static void *probe_main(void *argument)
{
    dj_rank_t *rank = argument;
    dj_comm_t *comm;
    const void *address;
    uint32_t bytes;
    dj_comm_options_t options = {.shared_memory = true,
                                 .loopback_only = strncmp(rank->endpoint, "127.", 4) == 0,
                                 .on_message = ignore};
    pthread_setname_np(pthread_self(), "dj-probe");
    dj_status_t status = dj_comm_create(&options, &comm);
    if (status == DJ_OK) {
        dj_comm_address(rank->comm, &address, &bytes);
        status = wire_up(rank, comm, address, bytes);
        dj_comm_destroy(comm);
    }
    if (status != DJ_OK && status != DJ_ERR_DEADLINE)
        dj_log(WARN, "the shared memory could not be probed: %s", dj_error_text());
    atomic_store(&rank->probe, status == DJ_ERR_DEADLINE ? PROBE_FAILED : PROBE_PASSED);
    return NULL;
}

void dj_probe_start(dj_rank_t *rank)
{
    if (strcmp(rank->config->transports, "tcp") == 0)
        return;
    rank->probe_wanted = true;
}

bool dj_probe_check(dj_rank_t *rank)
{
    int probe = atomic_load(&rank->probe);
    if (probe == PROBE_PASSED || probe == PROBE_FAILED)
        dj_probe_end(rank);
    if (probe == PROBE_FAILED) {
        dj_log(ERROR,
               "a client was killed while it wrote to this rank's shared memory, which takes "
               "no more messages: the rank starts anew");
        return false;
    }
    if (!rank->probe_wanted || probe == PROBE_RUNNING)
        return true;
    rank->probe_wanted = false;
    atomic_store(&rank->probe, PROBE_RUNNING);
    if (pthread_create(&rank->probe_thread, NULL, probe_main, rank) != 0) {
        dj_log(WARN, "no thread to probe the shared memory: %s", strerror(errno));
        atomic_store(&rank->probe, PROBE_IDLE);
    }
    return true;
}

void dj_probe_end(dj_rank_t *rank)
{
    if (atomic_load(&rank->probe) == PROBE_IDLE)
        return;
    pthread_join(rank->probe_thread, NULL);
    atomic_store(&rank->probe, PROBE_IDLE);
}
