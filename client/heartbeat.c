/* heartbeat.c - the thread that owns the control connection: it answers heartbeats, and on a relayed connection
 * it carries the data too.
 *
 * The connection's end, or silence, is the rank's death, which it notes in `dead` for every waiter to see. A
 * relayed connection sends parts of messages as the socket takes them; heartbeats pass between them, and any
 * byte that comes is a sign of life, so a long transfer is not taken for a death. While the rank sends parts its
 * heartbeats are left out or queue behind them: on a slow line a relayed client that only answered would fall
 * silent, so it also speaks unasked, `beat_ms` after it last did. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/client.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define DJ_LOG_MODULE "client"

enum { DJ_PARTS_PER_TURN = 16, DJ_PATH_GRACE_MS = 50 };

static void mark_dead(djinn_t *djinn, dj_status_t status, const char *cause)
{
    if (atomic_load(&djinn->ending)) {
        status = (dj_status_t)atomic_load(&djinn->ending);
        memcpy(djinn->dead_text, djinn->ending_text, sizeof(djinn->dead_text));
    } else {
        snprintf(djinn->dead_text, sizeof(djinn->dead_text),
                 "rank %u at %s is lost (%.300s): its tensors are gone; connect again and rebuild them",
                 djinn->rank, djinn->peer, cause);
    }
    atomic_store(&djinn->dead, status);
    dj_comm_wake(djinn->comm);
}

/* On a relayed connection what waits there is sign enough. */
static void answer_heartbeat(djinn_t *djinn)
{
    dj_heartbeat_t beat = {dj_clock_ns()};
    djinn->beat_ns = beat.sent_ns;
    if (!djinn->channel)
        dj_control_send(djinn->control, DJ_MESSAGE_HEARTBEAT, &beat, sizeof(beat), NULL, 0,
                        dj_clock_ns() + 10 * DJ_NS_PER_MS);
    else if (!dj_control_unsent(djinn->control))
        dj_control_post(djinn->control, DJ_MESSAGE_HEARTBEAT, &beat, sizeof(beat), NULL, 0);
}

/* What is under way may still be answered; whatever else is tried fails from now on. */
static void take_ending(djinn_t *djinn, const dj_ending_t *ending)
{
    bool known = ending->status < 0 && dj_status_name(ending->status)[0] != '?';
    if (atomic_load(&djinn->ending))
        return;
    snprintf(djinn->ending_text, sizeof(djinn->ending_text), "rank %u at %s: %.400s", djinn->rank, djinn->peer,
             ending->text);
    for (char *at = djinn->ending_text; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?'; /* nothing in it may steer a terminal */
    atomic_store(&djinn->ending, known ? ending->status : DJ_ERR_CANCELLED);
}

static dj_status_t take_frame(djinn_t *djinn, const dj_frame_t *frame, const void *body)
{
    if (frame->type == DJ_MESSAGE_REFUSE)
        mark_dead(djinn, DJ_ERR_PEER_DIED, ((const dj_refuse_t *)body)->text);
    if (frame->type == DJ_MESSAGE_ENDING)
        take_ending(djinn, body);
    if (frame->type == DJ_MESSAGE_TUNNEL && djinn->channel)
        return dj_channel_join(djinn->channel, body, frame->length, DJ_TUNNEL_MESSAGE_BYTES_MAX);
    return DJ_OK;
}

/* DJ_IN_PROGRESS: all that is there has been taken, or as much as may lie here. */
static dj_status_t take_frames(djinn_t *djinn)
{
    dj_frame_t frame;
    const void *body;
    dj_status_t status = DJ_OK;
    bool asked = false;
    while (status == DJ_OK) {
        if (djinn->channel && dj_channel_full(djinn->channel))
            status = DJ_IN_PROGRESS;
        else
            status = dj_control_try_receive(djinn->control, &frame, &body);
        asked = asked || (status == DJ_OK && frame.type == DJ_MESSAGE_HEARTBEAT);
        if (status == DJ_OK)
            status = take_frame(djinn, &frame, body);
    }
    asked = asked || (djinn->channel && dj_clock_ns() - djinn->beat_ns > djinn->beat_ms * DJ_NS_PER_MS);
    if (asked && !atomic_load(&djinn->stop))
        answer_heartbeat(djinn); /* a connection that takes none ends soon enough */
    return status;
}

/* Sends parts as long as the socket takes them, but not so many that nothing is read meanwhile. *more_p: call
 * again when it is writable. */
static dj_status_t pump(djinn_t *djinn, bool *more_p)
{
    dj_tunnel_t part;
    uint32_t tail_bytes;
    dj_status_t status = dj_control_flush(djinn->control);
    *more_p = status == DJ_IN_PROGRESS;
    for (int i = 0; i < DJ_PARTS_PER_TURN && status == DJ_OK; i++) {
        if (!dj_channel_cut(djinn->channel, &part, djinn->tail, &tail_bytes))
            return DJ_OK;
        *more_p = true;
        status = dj_control_post(djinn->control, DJ_MESSAGE_TUNNEL, &part, sizeof(part),
                                 djinn->tail, tail_bytes);
        if (status == DJ_OK && dj_control_unsent(djinn->control))
            return DJ_OK;
    }
    return status < 0 ? status : DJ_OK;
}

/* Sleeps until the rank says something, the socket takes more, or a thread of ours has something for it. */
static void wait_for_news(djinn_t *djinn, bool full, bool more, int timeout_ms)
{
    uint64_t count;
    struct pollfd pollers[2] = {{.fd = dj_control_fd(djinn->control)},
                                {.fd = djinn->wake_fd, .events = POLLIN}};
    pollers[0].events = (short)((full ? 0 : POLLIN) | (more ? POLLOUT : 0));
    poll(pollers, 2, timeout_ms);
    if (pollers[1].revents && read(djinn->wake_fd, &count, sizeof(count)) < 0)
        return; /* somebody else's wake-up: look again */
}

/* A lost rank's data path often fails a moment before its control connection, which knows the cause: it has that
 * long to tell. UINT64_MAX: the path has not failed. */
static uint64_t path_grace_ms(const djinn_t *djinn)
{
    uint64_t lost_ns = atomic_load(&djinn->path_lost_ns), now_ns = dj_clock_ns();
    if (lost_ns == 0)
        return UINT64_MAX;
    uint64_t until_ns = lost_ns + DJ_PATH_GRACE_MS * DJ_NS_PER_MS;
    return now_ns >= until_ns ? 0 : (until_ns - now_ns) / DJ_NS_PER_MS + 1;
}

static void check_silence(djinn_t *djinn, dj_status_t status, bool full)
{
    uint64_t silent_ns = dj_clock_ns() - dj_control_last_heard_ns(djinn->control);
    if (status == DJ_ERR_PEER_DIED)
        mark_dead(djinn, DJ_ERR_PEER_DIED, "its control connection ended");
    else if (status < 0)
        mark_dead(djinn, DJ_ERR_PEER_DIED, dj_error_text());
    else if (!full && silent_ns > djinn->suspect_ms * DJ_NS_PER_MS)
        mark_dead(djinn, DJ_ERR_PEER_DIED, "it has been silent too long");
    else if (path_grace_ms(djinn) == 0) {
        atomic_store(&djinn->still_hears, true);
        mark_dead(djinn, DJ_ERR_PEER_DIED, "its data path failed, though it still answers heartbeats");
    }
}

/* Until the rank has been silent too long, or a relayed connection of ours has. */
static int sleep_limit_ms(const djinn_t *djinn)
{
    uint64_t silent_ns = dj_clock_ns() - dj_control_last_heard_ns(djinn->control);
    uint64_t left_ms = djinn->suspect_ms - silent_ns / DJ_NS_PER_MS;
    if (left_ms > djinn->suspect_ms)
        left_ms = 0; /* it has been */
    if (djinn->channel && left_ms > djinn->beat_ms)
        left_ms = djinn->beat_ms;
    uint64_t grace_ms = path_grace_ms(djinn);
    return (int)(left_ms < grace_ms ? left_ms : grace_ms) + 1;
}

/* The rank sets the pace: each of its heartbeats is answered, so that this thread wakes once for both. */
static void *heartbeat_main(void *argument)
{
    djinn_t *djinn = argument;
    bool full = false, more = false;
    while (!atomic_load(&djinn->stop) && !atomic_load(&djinn->dead)) {
        wait_for_news(djinn, full, more, sleep_limit_ms(djinn));
        bool was_full = full;
        dj_status_t status = take_frames(djinn);
        if (djinn->channel && status == DJ_IN_PROGRESS) {
            dj_status_t sent = pump(djinn, &more);
            status = sent < 0 ? sent : status;
            full = dj_channel_full(djinn->channel);
        }
        if (atomic_load(&djinn->stop))
            break;
        check_silence(djinn, status, full || was_full);
    }
    if (djinn->channel)
        dj_channel_break(djinn->channel);
    return NULL;
}

static void wake(void *context, uint64_t word)
{
    djinn_t *djinn = context;
    uint64_t one = 1;
    if (write(djinn->wake_fd, &one, sizeof(one)) != sizeof(one))
        dj_log(WARN, "the connection's thread could not be woken: %s", strerror(errno));
}

void dj_heartbeat_path_lost(djinn_t *djinn)
{
    uint64_t none = 0;
    if (!djinn->channel && djinn->wake_fd >= 0 &&
        atomic_compare_exchange_strong(&djinn->path_lost_ns, &none, dj_clock_ns()))
        wake(djinn, 0);
}

dj_status_t dj_heartbeat_open_channel(djinn_t *djinn)
{
    djinn->tail = malloc(DJ_TUNNEL_TAIL_BYTES);
    if (!djinn->tail)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a relayed connection");
    dj_status_t status = dj_channel_create(wake, djinn, 0, &djinn->channel);
    return status == DJ_OK
               ? dj_endpoint_create_tunnel(djinn->comm, djinn->channel, &djinn->endpoint)
               : status;
}

dj_status_t dj_heartbeat_start(djinn_t *djinn)
{
    djinn->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (djinn->wake_fd < 0)
        return dj_fail(DJ_ERR_SYSTEM, "no descriptor for the heartbeats' thread: %s; raise ulimit -n",
                       strerror(errno));
    djinn->heartbeat_runs = pthread_create(&djinn->heartbeat, NULL, heartbeat_main, djinn) == 0;
    return djinn->heartbeat_runs ? DJ_OK : dj_fail(DJ_ERR_SYSTEM, "no thread for heartbeats");
}

void dj_heartbeat_stop(djinn_t *djinn)
{
    atomic_store(&djinn->stop, true);
    if (djinn->heartbeat_runs)
        wake(djinn, 0);
    if (djinn->heartbeat_runs)
        pthread_join(djinn->heartbeat, NULL);
    if (djinn->wake_fd >= 0)
        close(djinn->wake_fd);
    djinn->wake_fd = -1;
}
