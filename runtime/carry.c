/* carry.c - the data of a relayed client: TUNNEL frames of its control connection in, and parts of answers out.
 *
 * The progress thread has an endpoint for it like for any other client (comm/channel.h); this is the control
 * thread's end. Parts go out one at a time, so that heartbeats pass between them and no more than one part waits
 * for a slow reader; a connection whose messages nobody has looked at yet is not read. */
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/door.h"

#define DJ_LOG_MODULE "control"

enum { DJ_PARTS_PER_TURN = 16, DJ_PATIENCE_MS = 30000 };

/* From any thread: the outbox brings the control thread to dj_carry_out(). */
static void wake(void *context, uint64_t connection)
{
    dj_outbox_put(context, connection, 0, NULL, 0, NULL, 0, false);
}

dj_status_t dj_carry_begin(dj_rank_t *rank, dj_connection_t *c)
{
    dj_control_set_patience(c->control, DJ_PATIENCE_MS);
    return dj_channel_create(wake, rank, c->id, &c->channel);
}

bool dj_carry_in(dj_rank_t *rank, dj_connection_t *c, const dj_tunnel_t *part, uint32_t length)
{
    dj_status_t status =
        dj_channel_join(c->channel, part, length, rank->config->ingress_bytes);
    if (status != DJ_OK)
        return dj_door_refuse(rank, c, status);
    c->full = dj_channel_full(c->channel);
    return true;
}

bool dj_carry_out(dj_rank_t *rank, dj_connection_t *c)
{
    dj_tunnel_t part;
    uint8_t tail[DJ_TUNNEL_TAIL_BYTES];
    uint32_t tail_bytes;
    if (dj_channel_spoilt(c->channel)) {
        dj_door_end(rank, c);
        return false;
    }
    c->full = dj_channel_full(c->channel);
    c->more = false;
    for (int i = 0; i < DJ_PARTS_PER_TURN && !dj_control_unsent(c->control); i++) {
        c->more = dj_channel_cut(c->channel, &part, tail, &tail_bytes);
        if (!c->more)
            break;
        if (!dj_door_send(rank, c, DJ_MESSAGE_TUNNEL, &part, sizeof(part), tail, tail_bytes))
            return false;
    }
    c->more = c->more || dj_control_unsent(c->control);
    dj_door_rewatch(rank->door, c);
    return true;
}
