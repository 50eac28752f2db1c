/* channel.h - an endpoint whose messages travel in TUNNEL frames: for clients that reach one port only.
 *
 * Two threads meet in a channel. The comm's owner has an endpoint like any other (dj_endpoint_send(), the comm's
 * handler, dj_endpoint_close()). The carrier, who owns the control connection, feeds what arrives to
 * dj_channel_join() and sends what dj_channel_cut() gives. Every message is handed over as an eager one, whole,
 * whatever its size.
 *
 * Bounds: an incoming message takes memory as it arrives; once more than DJ_CHANNEL_INBOX_BYTES lie here that
 * nobody has looked at, the carrier stops reading. Outgoing bytes stay the sender's until they are cut.
 *
 * Ownership: counted; dj_channel_create() gives one reference, an endpoint holds its own.
 * Threads: wake_carrier is called from any thread and with the channel's lock held: it only wakes. */
#ifndef DJ_COMM_CHANNEL_H
#define DJ_COMM_CHANNEL_H

#include "comm/tunnel.h"

#define DJ_CHANNEL_INBOX_BYTES (64u << 20)

typedef struct dj_channel dj_channel_t;
typedef void (*dj_channel_wake_fn_t)(void *context, uint64_t word);

dj_status_t dj_channel_create(dj_channel_wake_fn_t wake_carrier, void *context, uint64_t word,
                              dj_channel_t **channel_p);
dj_channel_t *dj_channel_get(dj_channel_t *channel); /* one reference more; NULL is allowed, here and below */
void dj_channel_put(dj_channel_t *channel);

/* The owner's end; closed with dj_endpoint_close(). DJ_ERR_MEMORY. */
dj_status_t dj_endpoint_create_tunnel(dj_comm_t *comm, dj_channel_t *channel,
                                      dj_endpoint_t **endpoint_p);

/* ---- the carrier's end ---- */

/* A TUNNEL frame's body. What is not DJ_OK is the connection's end: see dj_tunnel_join(). */
dj_status_t dj_channel_join(dj_channel_t *channel, const dj_tunnel_t *part, uint32_t length,
                            uint64_t payload_limit);
/* Read no further until wake_carrier. */
bool dj_channel_full(dj_channel_t *channel);
/* The next part to send, and its tail's length; false: none now. */
bool dj_channel_cut(dj_channel_t *channel, dj_tunnel_t *part, uint8_t tail[DJ_TUNNEL_TAIL_BYTES],
                    uint32_t *tail_bytes_p);
/* The owner gave up a message of which a part has gone out: nothing that follows would make sense. */
bool dj_channel_spoilt(dj_channel_t *channel);
/* The connection is gone: the endpoint fails, the carrier is not woken any more. */
void dj_channel_break(dj_channel_t *channel);

/* ---- for endpoint.c ---- */

dj_status_t dj_channel_send(dj_endpoint_t *endpoint, const void *header, uint32_t header_bytes,
                            const dj_piece_t *pieces, uint32_t n_pieces, dj_sent_fn_t done,
                            void *argument);
/* Hands over what arrived and reports what has left; true when the endpoint is closed: free it. */
bool dj_channel_tend(dj_endpoint_t *endpoint);

#endif
