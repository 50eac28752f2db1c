/* channel.c - see channel.h.
 *
 * Three lists under one lock: messages on their way out (the first one is being cut), those that have left and
 * whose sender has yet to hear of it, and those that arrived. The lock is never held while a handler runs. */
#include "comm/channel.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "comm/ucx.h"

typedef struct parcel {
    struct parcel *next;
    dj_sent_fn_t done;
    void *argument;
    dj_status_t status;
    dj_tunnel_outgoing_t message;
} parcel_t;

typedef struct arrival {
    struct arrival *next;
    dj_tunnel_whole_t message;
} arrival_t;

struct dj_channel {
    pthread_mutex_t lock;
    uint32_t references;
    dj_channel_wake_fn_t wake_carrier; /* NULL: broken */
    void *context;
    uint64_t word;
    dj_comm_t *comm; /* NULL: no endpoint, or it is closed */
    parcel_t *outgoing, **outgoing_last_p;
    parcel_t *left, **left_last_p;
    arrival_t *inbox, **inbox_last_p;
    uint64_t inbox_bytes;
    bool spoilt;
    dj_tunnel_assembly_t assembly; /* the carrier's alone */
};

dj_status_t dj_channel_create(dj_channel_wake_fn_t wake_carrier, void *context, uint64_t word,
                              dj_channel_t **channel_p)
{
    dj_channel_t *channel = calloc(1, sizeof(*channel));
    if (!channel)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a relayed connection");
    pthread_mutex_init(&channel->lock, NULL);
    channel->references = 1;
    channel->wake_carrier = wake_carrier;
    channel->context = context;
    channel->word = word;
    channel->outgoing_last_p = &channel->outgoing;
    channel->left_last_p = &channel->left;
    channel->inbox_last_p = &channel->inbox;
    *channel_p = channel;
    return DJ_OK;
}

dj_channel_t *dj_channel_get(dj_channel_t *channel)
{
    if (!channel)
        return NULL;
    pthread_mutex_lock(&channel->lock);
    channel->references++;
    pthread_mutex_unlock(&channel->lock);
    return channel;
}

static void free_arrivals(arrival_t *at)
{
    while (at) {
        arrival_t *arrival = at;
        at = at->next;
        free(arrival->message.payload);
        free(arrival);
    }
}

void dj_channel_put(dj_channel_t *channel)
{
    if (!channel)
        return;
    pthread_mutex_lock(&channel->lock);
    bool last = --channel->references == 0;
    pthread_mutex_unlock(&channel->lock);
    if (!last)
        return;
    free_arrivals(channel->inbox);
    dj_tunnel_assembly_fini(&channel->assembly);
    pthread_mutex_destroy(&channel->lock);
    free(channel);
}

/* Under the lock. */
static void wake_owner(dj_channel_t *channel)
{
    if (!channel->comm)
        return;
    channel->comm->attention = true;
    dj_comm_wake(channel->comm);
}

static void wake_carrier(dj_channel_t *channel)
{
    if (channel->wake_carrier)
        channel->wake_carrier(channel->context, channel->word);
}

/* All that has not left, to the list of what has, as lost. */
static void fail_outgoing(dj_channel_t *channel)
{
    for (parcel_t *at = channel->outgoing; at; at = at->next) {
        at->status = DJ_ERR_PEER_DIED;
        channel->spoilt = channel->spoilt || at->message.begun;
    }
    if (!channel->outgoing)
        return;
    *channel->left_last_p = channel->outgoing;
    channel->left_last_p = channel->outgoing_last_p;
    channel->outgoing = NULL;
    channel->outgoing_last_p = &channel->outgoing;
}

/* ---- the carrier's end ---- */

dj_status_t dj_channel_join(dj_channel_t *channel, const dj_tunnel_t *part, uint32_t length,
                            uint64_t payload_limit)
{
    dj_tunnel_whole_t whole;
    dj_status_t status =
        dj_tunnel_join(&channel->assembly, part, length, payload_limit, &whole);
    if (status != DJ_OK)
        return status == DJ_IN_PROGRESS ? DJ_OK : status;
    arrival_t *arrival = malloc(sizeof(*arrival));
    if (!arrival) {
        free(whole.payload);
        return dj_fail(DJ_ERR_MEMORY, "no memory for a message through the relay");
    }
    arrival->next = NULL;
    arrival->message = whole;
    pthread_mutex_lock(&channel->lock);
    *channel->inbox_last_p = arrival;
    channel->inbox_last_p = &arrival->next;
    channel->inbox_bytes += whole.payload_bytes + sizeof(*arrival);
    wake_owner(channel);
    pthread_mutex_unlock(&channel->lock);
    return DJ_OK;
}

bool dj_channel_full(dj_channel_t *channel)
{
    pthread_mutex_lock(&channel->lock);
    bool full = channel->inbox_bytes > DJ_CHANNEL_INBOX_BYTES;
    pthread_mutex_unlock(&channel->lock);
    return full;
}

bool dj_channel_cut(dj_channel_t *channel, dj_tunnel_t *part, uint8_t tail[DJ_TUNNEL_TAIL_BYTES],
                    uint32_t *tail_bytes_p)
{
    pthread_mutex_lock(&channel->lock);
    parcel_t *parcel = channel->outgoing;
    if (parcel)
        *tail_bytes_p = dj_tunnel_cut(&parcel->message, part, tail);
    if (parcel && dj_tunnel_finished(&parcel->message)) {
        channel->outgoing = parcel->next;
        if (!channel->outgoing)
            channel->outgoing_last_p = &channel->outgoing;
        parcel->next = NULL;
        *channel->left_last_p = parcel;
        channel->left_last_p = &parcel->next;
        wake_owner(channel);
    }
    pthread_mutex_unlock(&channel->lock);
    return parcel != NULL;
}

bool dj_channel_spoilt(dj_channel_t *channel)
{
    pthread_mutex_lock(&channel->lock);
    bool spoilt = channel->spoilt;
    pthread_mutex_unlock(&channel->lock);
    return spoilt;
}

void dj_channel_break(dj_channel_t *channel)
{
    pthread_mutex_lock(&channel->lock);
    channel->wake_carrier = NULL;
    fail_outgoing(channel);
    wake_owner(channel);
    pthread_mutex_unlock(&channel->lock);
}

/* ---- the owner's end ---- */

dj_status_t dj_endpoint_create_tunnel(dj_comm_t *comm, dj_channel_t *channel,
                                      dj_endpoint_t **endpoint_p)
{
    dj_endpoint_t *endpoint = calloc(1, sizeof(*endpoint));
    if (!endpoint)
        return dj_fail(DJ_ERR_MEMORY, "no memory for an endpoint");
    endpoint->comm = comm;
    endpoint->id = ++comm->next_id;
    endpoint->outstanding.next = endpoint->outstanding.previous = &endpoint->outstanding;
    endpoint->queue_last_p = &endpoint->queue;
    endpoint->state = DJ_ENDPOINT_READY;
    endpoint->channel = channel;
    endpoint->next = comm->endpoints;
    comm->endpoints = endpoint;
    pthread_mutex_lock(&channel->lock);
    channel->references++;
    channel->comm = comm;
    if (channel->inbox || !channel->wake_carrier)
        comm->attention = true;
    pthread_mutex_unlock(&channel->lock);
    *endpoint_p = endpoint;
    return DJ_OK;
}

dj_status_t dj_channel_send(dj_endpoint_t *endpoint, const void *header, uint32_t header_bytes,
                            const dj_piece_t *pieces, uint32_t n_pieces, dj_sent_fn_t done,
                            void *argument)
{
    dj_channel_t *channel = endpoint->channel;
    parcel_t *parcel = malloc(sizeof(*parcel));
    if (!parcel)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a message through the relay");
    dj_status_t status = dj_tunnel_begin(&parcel->message, header, header_bytes, pieces, n_pieces);
    if (status != DJ_OK) {
        free(parcel);
        return status;
    }
    if (endpoint->checksum)
        dj_checksum_put(parcel->message.header, header_bytes, pieces, n_pieces);
    parcel->next = NULL;
    parcel->done = done;
    parcel->argument = argument;
    parcel->status = DJ_OK;
    ++endpoint->comm->counters.messages_out;
    endpoint->comm->counters.bytes_out += parcel->message.payload_bytes;
    pthread_mutex_lock(&channel->lock);
    bool broken = channel->wake_carrier == NULL;
    if (!broken) {
        *channel->outgoing_last_p = parcel;
        channel->outgoing_last_p = &parcel->next;
        wake_carrier(channel);
    }
    pthread_mutex_unlock(&channel->lock);
    if (!broken)
        return DJ_IN_PROGRESS;
    free(parcel);
    return dj_fail(DJ_ERR_PEER_DIED, "the connection to the peer has ended");
}

static void report_left(parcel_t *at)
{
    while (at) {
        parcel_t *parcel = at;
        at = at->next;
        if (parcel->done)
            parcel->done(parcel->argument, parcel->status);
        free(parcel);
    }
}

static void hand_over(dj_endpoint_t *endpoint, const dj_tunnel_whole_t *message)
{
    dj_comm_t *comm = endpoint->comm;
    void *memory = NULL, *token = NULL;
    const dj_incoming_t incoming = {
        .header = (const dj_header_t *)message->header,
        .body = message->header + sizeof(dj_header_t),
        .payload = message->payload,
        .payload_bytes = message->payload_bytes,
        .corrupt = !dj_checksum_good(message->header, message->header_bytes, message->payload,
                                     message->payload_bytes),
    };
    comm->counters.corrupt += incoming.corrupt;
    ++comm->counters.messages_in;
    comm->counters.bytes_in += message->payload_bytes;
    if (comm->options.on_message(comm->options.context, &incoming, &memory, &token) < 0)
        ++comm->counters.refused;
}

bool dj_channel_tend(dj_endpoint_t *endpoint)
{
    dj_channel_t *channel = endpoint->channel;
    bool ends = endpoint->closed || endpoint->state >= DJ_ENDPOINT_FAILED;
    pthread_mutex_lock(&channel->lock);
    bool broken = channel->wake_carrier == NULL;
    if (ends) {
        fail_outgoing(channel);
        channel->comm = NULL;
    }
    parcel_t *left = channel->left;
    arrival_t *inbox = channel->inbox;
    channel->left = NULL;
    channel->left_last_p = &channel->left;
    channel->inbox = NULL;
    channel->inbox_last_p = &channel->inbox;
    if (channel->inbox_bytes > DJ_CHANNEL_INBOX_BYTES || channel->spoilt)
        wake_carrier(channel);
    channel->inbox_bytes = 0;
    pthread_mutex_unlock(&channel->lock);
    report_left(left);
    for (arrival_t *at = inbox; at && !endpoint->closed; at = at->next)
        hand_over(endpoint, &at->message);
    free_arrivals(inbox);
    if (broken || ends)
        endpoint->state = DJ_ENDPOINT_DEAD;
    if (!ends || !endpoint->closed)
        return false;
    dj_channel_put(channel);
    return true;
}
