/* ending.c - a rank's end in good order: SIGTERM, or rank 0's word that the server ends.
 *
 * From then on no session is made and no request accepted; what comes is refused with DJ_ERR_CANCELLED and a
 * sentence. Clients hear ENDING, rank 0 tells its workers the same and refuses the clients that wait for one.
 * What was accepted is run and answered, at most for --drain-ms; a rank with nothing to do closes at once. Rank 0
 * of several waits for its workers to leave, so that relayed clients have their answers too.
 *
 * A second signal ends the process on the spot. One that follows within DJ_SAME_SIGNAL_MS is the same one: a
 * launcher that signals a whole step reaches the rank, and so does the rank's supervisor.
 *
 * Threads: the main thread decides (dj_ending_is_over), the control thread tells (dj_ending_tell). */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/door.h"

#define DJ_LOG_MODULE "rank"

enum {
    DJ_SAME_SIGNAL_MS = 300,
    DJ_WORKERS_LAST_MS = 250, /* that workers have beyond their drain, before rank 0 leaves without them */
    DJ_LAST_WORDS_MS = 100,
};

static _Atomic uint64_t signalled_ns; /* 0: not yet */
static int wake_fd = -1;

static void on_signal(int number)
{
    int wrong = errno;
    uint64_t now_ns = dj_clock_ns(), first_ns = 0, one = 1;
    (void)number;
    if (!atomic_compare_exchange_strong(&signalled_ns, &first_ns, now_ns) &&
        now_ns - first_ns > DJ_SAME_SIGNAL_MS * DJ_NS_PER_MS)
        _exit(DJ_RANK_EXIT_TOLD);
    if (write(wake_fd, &one, sizeof(one)) < 0)
        _exit(DJ_RANK_EXIT_FAILED); /* it would not be heard */
    errno = wrong;
}

dj_status_t dj_ending_catch(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0)
        return dj_fail(DJ_ERR_SYSTEM, "no descriptor to be told to end by: %s", strerror(errno));
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    return DJ_OK;
}

void dj_ending_sleep(int limit_ms)
{
    struct pollfd entry = {.fd = wake_fd, .events = POLLIN};
    uint64_t count;
    if (poll(&entry, 1, limit_ms) > 0 && read(wake_fd, &count, sizeof(count)) < 0)
        dj_log(DEBUG, "woken for nothing: %s", strerror(errno));
}

void dj_ending_wake(dj_rank_t *rank)
{
    uint64_t one = 1;
    if (rank->comm)
        dj_comm_wake(rank->comm);
    else if (write(wake_fd, &one, sizeof(one)) < 0)
        dj_log(WARN, "the main thread is not woken: %s", strerror(errno));
}

dj_status_t dj_ending_refuse(void)
{
    return dj_fail(DJ_ERR_CANCELLED, "the server is ending and takes nothing new: use another one, or connect "
                                     "again when it has been started anew");
}

/* ---- the main thread ---- */

static void begin(dj_rank_t *rank, uint64_t drain_ms)
{
    uint64_t last_ms = rank->serves ? 0 : DJ_WORKERS_LAST_MS;
    dj_log(INFO, "told to end: what was accepted has %llu ms", (unsigned long long)drain_ms);
    atomic_store(&rank->ends_ns, dj_clock_ns() + (drain_ms + last_ms) * DJ_NS_PER_MS);
    dj_outbox_wake(rank);
}

bool dj_ending_is_over(dj_rank_t *rank)
{
    int64_t told_ms = atomic_load(&rank->told_ms);
    if (atomic_load(&rank->replaced))
        return true;
    if (!dj_rank_ends(rank)) {
        if (!atomic_load(&signalled_ns) && told_ms < 0)
            return false;
        begin(rank, told_ms < 0 ? rank->config->drain_ms : (uint64_t)told_ms);
    }
    if (dj_clock_ns() >= atomic_load(&rank->ends_ns))
        return true;
    return rank->serves ? !dj_worker_is_busy(rank) : atomic_load(&rank->deserted);
}

/* ---- the control thread ---- */

static void fill(const dj_rank_t *rank, dj_ending_t *ending)
{
    uint64_t now_ns = dj_clock_ns(), ends_ns = atomic_load(&rank->ends_ns);
    uint64_t last_ms = rank->serves ? 0 : DJ_WORKERS_LAST_MS;
    uint64_t left_ms = ends_ns > now_ns ? (ends_ns - now_ns) / DJ_NS_PER_MS : 0;
    *ending = (dj_ending_t){.drain_ms = (uint32_t)(left_ms > last_ms ? left_ms - last_ms : 0),
                            .status = dj_ending_refuse()};
    snprintf(ending->text, sizeof(ending->text), "%s", dj_error_text());
}

bool dj_ending_tell_one(dj_rank_t *rank, dj_connection_t *c)
{
    dj_ending_t ending;
    if (c->waits_for_worker)
        return dj_door_refuse(rank, c, dj_ending_refuse());
    if (!c->welcomed || (c->role != DJ_ROLE_CLIENT && c->role != DJ_ROLE_WORKER))
        return true;
    fill(rank, &ending);
    return dj_door_send(rank, c, DJ_MESSAGE_ENDING, &ending, sizeof(ending), NULL, 0);
}

void dj_ending_tell(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    dj_ending_t ending;
    if (!dj_rank_ends(rank) || door->told)
        return;
    door->told = true;
    for (uint32_t i = door->n_connections; i-- > 0;)
        if (i < door->n_connections)
            dj_ending_tell_one(rank, door->connections[i]);
    fill(rank, &ending);
    if (door->link)
        dj_control_post(door->link, DJ_MESSAGE_ENDING, &ending, sizeof(ending), NULL, 0);
}

void dj_ending_watch(dj_rank_t *rank)
{
    const dj_door_t *door = rank->door;
    bool left = door->n_relays > 0;
    if (!door->told || rank->serves)
        return;
    for (uint32_t i = 0; i < door->n_connections && !left; i++)
        left = door->connections[i]->role == DJ_ROLE_WORKER;
    if (!left && !atomic_exchange(&rank->deserted, true))
        dj_ending_wake(rank);
}

/* True: some connection has not taken all. */
static bool flush(dj_rank_t *rank)
{
    dj_door_t *door = rank->door;
    bool unsent = false;
    for (uint32_t i = door->n_connections; i-- > 0;) {
        dj_connection_t *c = door->connections[i];
        dj_status_t status = dj_control_flush(c->control);
        if (status == DJ_OK && c->channel && dj_carry_out(rank, c))
            status = c->more ? DJ_IN_PROGRESS : DJ_OK;
        unsent = unsent || status == DJ_IN_PROGRESS;
        i = i < door->n_connections ? i : door->n_connections;
    }
    return unsent;
}

void dj_ending_last_words(dj_rank_t *rank)
{
    uint64_t until_ns = dj_clock_ns() + DJ_LAST_WORDS_MS * DJ_NS_PER_MS;
    dj_ending_tell(rank);
    dj_outbox_drain(rank);
    while (dj_rank_ends(rank) && flush(rank) && dj_clock_ns() < until_ns)
        poll(NULL, 0, 1);
}
