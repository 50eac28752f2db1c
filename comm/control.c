/* control.c - one connection of the control socket: whole frames in, whole frames out.
 *
 * Every socket is non-blocking; waiting is poll() against the caller's absolute deadline, so a peer
 * that stops reading or sends one byte a minute holds nobody. Incoming bytes gather in one buffer
 * that grows with what has truly arrived, never with what a header promises. What was posted and found no
 * room in the socket lies in a second buffer, which exists only as long as something lies in it. A stream
 * that broke inside a frame cannot be resumed: it stays broken, and every later call says so. Sockets are
 * made in control_socket.c. */
#include "comm/control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "comm/control_socket.h"
#include "runtime/base/clock.h"

#define FIRST_CAPACITY 16384

struct dj_control {
    int fd;
    pthread_mutex_t send_lock;
    uint32_t sequence_out, sequence_in;
    _Atomic bool trusted, broken;
    bool may_restart;
    _Atomic uint64_t last_heard_ns;
    char peer[DJ_CONTROL_PEER_TEXT];
    uint8_t *buffer; /* frames lie from its start, so that bodies are aligned */
    size_t capacity, filled;
    size_t taken; /* of the frame handed out last; dropped by the next call */
    bool emptied; /* the last read found less than it had room for */
    dj_bytes_t unsent; /* posted, and not yet the socket's */
    size_t unsent_from;
};

dj_status_t dj_control_adopt(int fd, dj_control_t **control_p)
{
    dj_control_t *control = calloc(1, sizeof(*control));
    uint8_t *buffer = malloc(FIRST_CAPACITY);
    if (!control || !buffer) {
        free(control);
        free(buffer);
        return dj_fail(DJ_ERR_MEMORY, "no memory for a control connection");
    }
    dj_status_t status = dj_socket_prepare(fd, control->peer);
    if (status != DJ_OK) {
        free(control);
        free(buffer);
        return status;
    }
    control->fd = fd;
    control->buffer = buffer;
    control->capacity = FIRST_CAPACITY;
    atomic_store(&control->last_heard_ns, dj_clock_ns());
    pthread_mutex_init(&control->send_lock, NULL);
    *control_p = control;
    return DJ_OK;
}

dj_status_t dj_control_connect(const char *address, uint64_t deadline_ns, dj_control_t **control_p)
{
    int fd;
    dj_status_t status = dj_socket_connect(address, deadline_ns, &fd);
    if (status != DJ_OK)
        return status;
    status = dj_control_adopt(fd, control_p);
    if (status != DJ_OK)
        close(fd);
    return status;
}

static void free_control(dj_control_t *control)
{
    pthread_mutex_destroy(&control->send_lock);
    dj_bytes_fini(&control->unsent);
    free(control->buffer);
    free(control);
}

void dj_control_close(dj_control_t *control)
{
    if (!control)
        return;
    close(control->fd);
    free_control(control);
}

int dj_control_release(dj_control_t *control)
{
    if (control->filled > control->taken || dj_control_unsent(control) > 0)
        return -1;
    int fd = control->fd;
    free_control(control);
    return fd;
}

void dj_control_may_restart(dj_control_t *control)
{
    control->may_restart = true;
}

void dj_control_set_patience(dj_control_t *control, uint32_t patience_ms)
{
    dj_socket_set_patience(control->fd, patience_ms);
}

int dj_control_fd(const dj_control_t *control)
{
    return control->fd;
}

const char *dj_control_peer(const dj_control_t *control)
{
    return control->peer;
}

void dj_control_trust(dj_control_t *control)
{
    atomic_store(&control->trusted, true);
}

uint64_t dj_control_last_heard_ns(const dj_control_t *control)
{
    return atomic_load(&control->last_heard_ns);
}

/* ---- sending ---- */

static dj_status_t peer_gone(dj_control_t *control, const char *why)
{
    atomic_store(&control->broken, true);
    return dj_fail(DJ_ERR_PEER_DIED, "the control connection to %s ended: %s", control->peer, why);
}

/* Takes what was written off the front of the vector; true when all is gone. */
static bool advance(struct iovec *pieces, int count, size_t written)
{
    bool done = true;
    for (int i = 0; i < count; ++i) {
        size_t part = written < pieces[i].iov_len ? written : pieces[i].iov_len;
        if (part > 0) /* an empty piece may be NULL */
            pieces[i].iov_base = (uint8_t *)pieces[i].iov_base + part;
        pieces[i].iov_len -= part;
        written -= part;
        done = done && pieces[i].iov_len == 0;
    }
    return done;
}

/* DJ_OK: all is written; DJ_IN_PROGRESS: the socket is full. `pieces` lose what was written. */
static dj_status_t write_pieces(dj_control_t *control, struct iovec *pieces, int count,
                                bool *begun_p)
{
    for (;;) {
        struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};
        ssize_t written = sendmsg(control->fd, &message, MSG_NOSIGNAL);
        if (written >= 0) {
            *begun_p = true;
            if (advance(pieces, count, (size_t)written))
                return DJ_OK;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return DJ_IN_PROGRESS;
        } else if (errno != EINTR) {
            return peer_gone(control, strerror(errno));
        }
    }
}

static dj_status_t send_pieces(dj_control_t *control, struct iovec *pieces, int count,
                               uint64_t deadline_ns)
{
    bool begun = false;
    for (;;) {
        dj_status_t status = write_pieces(control, pieces, count, &begun);
        if (status != DJ_IN_PROGRESS)
            return status;
        status = dj_socket_wait(control->fd, POLLOUT, deadline_ns);
        if (status == DJ_ERR_DEADLINE) {
            if (begun)
                atomic_store(&control->broken, true);
            return dj_fail(status, "%s does not read its control connection: the deadline passed",
                           control->peer);
        }
        if (status != DJ_OK)
            return status;
    }
}

static dj_status_t lock_sends(dj_control_t *control, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / DJ_NS_PER_S),
                             .tv_nsec = (long)(deadline_ns % DJ_NS_PER_S)};
    if (pthread_mutex_clocklock(&control->send_lock, CLOCK_MONOTONIC, &until) == 0)
        return DJ_OK;
    return dj_fail(DJ_ERR_DEADLINE, "the control connection to %s is busy: the deadline passed",
                   control->peer);
}

static dj_status_t check_outgoing(dj_frame_t *frame, dj_message_t type, uint32_t body_bytes,
                                  uint32_t tail_bytes)
{
    if (tail_bytes > UINT32_MAX - body_bytes)
        return dj_fail(DJ_ERR_LIMIT, "%s of more than 4 GiB", dj_message_name((uint16_t)type));
    dj_frame_init(frame, type, body_bytes + tail_bytes, 0);
    return dj_frame_check(frame, 1);
}

/* What was kept, as a piece to write first. */
static struct iovec unsent_piece(dj_control_t *control)
{
    if (!control->unsent.size)
        return (struct iovec){0};
    return (struct iovec){control->unsent.data + control->unsent_from,
                          control->unsent.size - control->unsent_from};
}

/* All of what was kept is the socket's now. */
static void drop_unsent(dj_control_t *control)
{
    dj_bytes_fini(&control->unsent);
    control->unsent_from = 0;
}

dj_status_t dj_control_send(dj_control_t *control, dj_message_t type, const void *body,
                            uint32_t body_bytes, const void *tail, uint32_t tail_bytes,
                            uint64_t deadline_ns)
{
    dj_frame_t frame;
    dj_status_t status = check_outgoing(&frame, type, body_bytes, tail_bytes);
    if (status != DJ_OK)
        return status;
    status = lock_sends(control, deadline_ns);
    if (status != DJ_OK)
        return status;
    struct iovec pieces[4] = {unsent_piece(control),
                              {&frame, sizeof(frame)},
                              {(void *)(uintptr_t)body, body_bytes},
                              {(void *)(uintptr_t)tail, tail_bytes}};
    if (atomic_load(&control->broken)) {
        status = peer_gone(control, "it broke earlier");
    } else {
        frame.sequence = control->sequence_out;
        status = send_pieces(control, pieces, 4, deadline_ns);
        if (status == DJ_OK) {
            ++control->sequence_out;
            drop_unsent(control);
        }
    }
    pthread_mutex_unlock(&control->send_lock);
    return status;
}

/* Under the lock. */
static dj_status_t flush(dj_control_t *control)
{
    bool begun = false;
    struct iovec piece = unsent_piece(control);
    if (atomic_load(&control->broken))
        return peer_gone(control, "it broke earlier");
    if (!piece.iov_len)
        return DJ_OK;
    dj_status_t status = write_pieces(control, &piece, 1, &begun);
    if (status == DJ_OK)
        drop_unsent(control);
    else if (status == DJ_IN_PROGRESS)
        control->unsent_from = control->unsent.size - piece.iov_len;
    return status;
}

/* Moves what is left to the front when it is the lesser part, so that the buffer does not grow for ever
 * behind a reader that never catches up. */
static void tidy_unsent(dj_control_t *control)
{
    size_t left = control->unsent.size - control->unsent_from;
    if (control->unsent_from < left)
        return;
    memmove(control->unsent.data, control->unsent.data + control->unsent_from, left);
    control->unsent.size = left;
    control->unsent_from = 0;
}

static dj_status_t post(dj_control_t *control, struct iovec *pieces, int count)
{
    bool begun = false;
    dj_status_t status = flush(control);
    if (status == DJ_OK)
        status = write_pieces(control, pieces, count, &begun);
    if (status != DJ_IN_PROGRESS)
        return status;
    if (control->unsent.size)
        tidy_unsent(control);
    for (int i = 0; i < count; ++i)
        dj_bytes_put(&control->unsent, pieces[i].iov_base, pieces[i].iov_len);
    if (!control->unsent.failed)
        return DJ_OK;
    atomic_store(&control->broken, true);
    return dj_fail(DJ_ERR_MEMORY, "no memory for what %s has yet to read", control->peer);
}

dj_status_t dj_control_post(dj_control_t *control, dj_message_t type, const void *body,
                            uint32_t body_bytes, const void *tail, uint32_t tail_bytes)
{
    dj_frame_t frame;
    struct iovec pieces[3] = {{&frame, sizeof(frame)},
                              {(void *)(uintptr_t)body, body_bytes},
                              {(void *)(uintptr_t)tail, tail_bytes}};
    dj_status_t status = check_outgoing(&frame, type, body_bytes, tail_bytes);
    if (status != DJ_OK)
        return status;
    pthread_mutex_lock(&control->send_lock);
    frame.sequence = control->sequence_out;
    status = post(control, pieces, 3);
    if (status == DJ_OK)
        ++control->sequence_out;
    pthread_mutex_unlock(&control->send_lock);
    return status;
}

dj_status_t dj_control_flush(dj_control_t *control)
{
    pthread_mutex_lock(&control->send_lock);
    dj_status_t status = flush(control);
    pthread_mutex_unlock(&control->send_lock);
    return status;
}

uint64_t dj_control_unsent(const dj_control_t *control)
{
    return control->unsent.size - control->unsent_from;
}

/* ---- receiving ---- */

static void drop_taken(dj_control_t *control)
{
    if (control->taken == 0)
        return;
    control->filled -= control->taken;
    memmove(control->buffer, control->buffer + control->taken, control->filled);
    control->taken = 0;
}

/* DJ_OK and the frame, DJ_IN_PROGRESS, or why the bytes here can never become a frame. */
static dj_status_t parse(dj_control_t *control, dj_frame_t *frame, const void **body_p)
{
    if (control->filled < sizeof(*frame))
        return DJ_IN_PROGRESS;
    memcpy(frame, control->buffer, sizeof(*frame));
    dj_status_t status = dj_frame_check(frame, atomic_load(&control->trusted));
    if (status != DJ_OK)
        return dj_fail_prefix(status, "from %s", control->peer);
    if (control->may_restart && frame->type == DJ_MESSAGE_CHALLENGE && frame->sequence == 0) {
        control->may_restart = false;
        control->sequence_in = control->sequence_out = 0;
        atomic_store(&control->trusted, false);
    }
    if (frame->sequence != control->sequence_in)
        return dj_fail(DJ_ERR_PROTOCOL, "from %s: %s with sequence %u instead of %u", control->peer,
                       dj_message_name(frame->type), frame->sequence, control->sequence_in);
    if (control->filled - sizeof(*frame) < frame->length)
        return DJ_IN_PROGRESS;
    ++control->sequence_in;
    control->taken = sizeof(*frame) + frame->length;
    *body_p = control->buffer + sizeof(*frame);
    return DJ_OK;
}

/* A frame is at most 24 MiB, so doubling is bounded. */
static dj_status_t make_room(dj_control_t *control)
{
    if (control->filled < control->capacity)
        return DJ_OK;
    uint8_t *grown = realloc(control->buffer, control->capacity * 2);
    if (!grown)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a frame of %s", control->peer);
    control->buffer = grown;
    control->capacity *= 2;
    return DJ_OK;
}

/* One read of what is there: DJ_OK when bytes came, DJ_IN_PROGRESS when none are here. A read that did not
 * fill its room has emptied the socket: the next call says so without asking again. */
static dj_status_t gather(dj_control_t *control)
{
    if (control->emptied) {
        control->emptied = false;
        return DJ_IN_PROGRESS;
    }
    dj_status_t status = make_room(control);
    if (status != DJ_OK)
        return status;
    ssize_t got;
    do
        got = recv(control->fd, control->buffer + control->filled,
                   control->capacity - control->filled, 0);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return peer_gone(control, "closed by the other side");
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return DJ_IN_PROGRESS;
    if (got < 0)
        return peer_gone(control, strerror(errno));
    control->filled += (size_t)got;
    control->emptied = control->filled < control->capacity;
    atomic_store(&control->last_heard_ns, dj_clock_ns());
    return DJ_OK;
}

dj_status_t dj_control_try_receive(dj_control_t *control, dj_frame_t *frame, const void **body_p)
{
    drop_taken(control);
    for (;;) {
        dj_status_t status = parse(control, frame, body_p);
        if (status != DJ_IN_PROGRESS)
            return status;
        status = gather(control);
        if (status != DJ_OK)
            return status;
    }
}

dj_status_t dj_control_receive(dj_control_t *control, uint64_t deadline_ns, dj_frame_t *frame,
                               const void **body_p)
{
    for (;;) {
        dj_status_t status = dj_control_try_receive(control, frame, body_p);
        if (status != DJ_IN_PROGRESS)
            return status;
        status = dj_socket_wait(control->fd, POLLIN, deadline_ns);
        if (status == DJ_ERR_DEADLINE)
            return dj_fail(status, "%s did not answer on its control connection in time",
                           control->peer);
        if (status != DJ_OK)
            return status;
    }
}
