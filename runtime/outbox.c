/* outbox.c - what other threads want sent: a queue that the control thread empties.
 *
 * Whoever fills it knows connections by number, because theirs may end at any time; what is for one that is
 * gone is dropped. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/door.h"

dj_status_t dj_outbox_wake(dj_rank_t *rank)
{
    uint64_t one = 1;
    return write(rank->outbox_fd, &one, sizeof(one)) == sizeof(one)
               ? DJ_OK
               : dj_fail(DJ_ERR_SYSTEM, "waking the control thread: %s", strerror(errno));
}

static dj_status_t push(dj_rank_t *rank, dj_outgoing_t *out)
{
    dj_queue_push(&rank->outbox, &out->entry);
    return dj_outbox_wake(rank);
}

static dj_outgoing_t *outgoing(uint64_t connection, uint16_t type, const void *body,
                               uint32_t body_bytes, const void *tail, uint32_t tail_bytes)
{
    dj_outgoing_t *out = calloc(1, sizeof(*out) + body_bytes + tail_bytes);
    if (!out)
        return NULL;
    out->connection = connection;
    out->type = type;
    out->body_bytes = body_bytes;
    out->tail_bytes = tail_bytes;
    if (body_bytes)
        memcpy(out->bytes, body, body_bytes);
    if (tail_bytes)
        memcpy(out->bytes + body_bytes, tail, tail_bytes);
    return out;
}

dj_status_t dj_outbox_put(dj_rank_t *rank, uint64_t connection, uint16_t type, const void *body,
                          uint32_t body_bytes, const void *tail, uint32_t tail_bytes, bool end)
{
    dj_outgoing_t *out = outgoing(connection, type, body, body_bytes, tail, tail_bytes);
    if (!out)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a control frame");
    out->end = end;
    return push(rank, out);
}

dj_status_t dj_outbox_welcome(dj_rank_t *rank, uint64_t connection, const dj_welcome_t *welcome,
                              const void *address)
{
    dj_outgoing_t *out = outgoing(connection, DJ_MESSAGE_WELCOME, welcome, sizeof(*welcome),
                                  address, welcome->address_bytes);
    if (!out)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a control frame");
    return push(rank, out);
}

dj_status_t dj_outbox_adopt(dj_rank_t *rank, dj_control_t *control, dj_command_t *news)
{
    dj_outgoing_t *out = outgoing(0, 0, NULL, 0, NULL, 0);
    if (!out)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a link");
    out->adopt = control;
    out->news = news;
    push(rank, out); /* it is there, even if the thread is not woken for it */
    return DJ_OK;
}

/* The channel has something to send, or takes messages again. */
static void resume(dj_rank_t *rank, dj_connection_t *c)
{
    if (dj_carry_out(rank, c) && c->unread && !c->full)
        rank->door->unread = true;
}

static void send_out(dj_rank_t *rank, dj_outgoing_t *out)
{
    if (out->adopt) {
        dj_door_adopt(rank, out->adopt, out->news);
        return;
    }
    if (!out->connection) {
        dj_link_write(rank, out);
        return;
    }
    dj_connection_t *c = dj_door_find(rank->door, out->connection);
    if (!c)
        return;
    if (out->type && !dj_door_send(rank, c, out->type, out->bytes, out->body_bytes,
                                   out->bytes + out->body_bytes, out->tail_bytes))
        return;
    if (out->end) {
        dj_door_end(rank, c);
    } else if (!out->type && c->channel) {
        resume(rank, c);
    } else if (out->type == DJ_MESSAGE_WELCOME) {
        c->welcomed = true;
        if (rank->door->told)
            dj_ending_tell_one(rank, c);
    }
}

void dj_outbox_drain(dj_rank_t *rank)
{
    dj_queue_entry_t *entry;
    uint64_t count;
    while (read(rank->outbox_fd, &count, sizeof(count)) > 0)
        ;
    while ((entry = dj_queue_try_pop(&rank->outbox))) {
        send_out(rank, (dj_outgoing_t *)entry);
        free(entry);
    }
}

void dj_outbox_empty(dj_rank_t *rank)
{
    dj_queue_entry_t *entry;
    while ((entry = dj_queue_try_pop(&rank->outbox))) {
        dj_outgoing_t *out = (dj_outgoing_t *)entry;
        if (out->adopt)
            dj_control_close(out->adopt);
        free(out->news);
        free(out);
    }
}
