/* batch.c - small messages to one peer that leave together.
 *
 * Within one round (a turn of progress, or of the owner between dj_comm_cork() and dj_comm_uncork())
 * the first message to a peer leaves at once, so a lone one is never kept back; what follows it in the
 * same round is gathered, up to a bound, and leaves as one BATCH at the round's end, before anything
 * large, or when the bound is reached. Gathered messages count as sent: their bytes are copied. */
#include <string.h>

#include "comm/ucx.h"

static uint64_t up_to_8(uint64_t bytes)
{
    return (bytes + 7) & ~7ull;
}

/* Whether this message may wait for the end of the round. */
bool dj_batch_wants(dj_endpoint_t *endpoint, uint32_t header_bytes, uint64_t payload_bytes)
{
    dj_comm_t *comm = endpoint->comm;
    uint64_t bytes = 2 * sizeof(uint32_t) + up_to_8(header_bytes) + up_to_8(payload_bytes);
    if (comm->corks == 0 || bytes > comm->options.batch_bytes)
        return false;
    if (endpoint->sent_round != comm->round) {
        endpoint->sent_round = comm->round;
        return false;
    }
    if (endpoint->batch_bytes + bytes > comm->options.batch_bytes)
        dj_batch_flush(endpoint);
    if (!endpoint->batch) {
        endpoint->batch = dj_operation_take(comm, DJ_OPERATION_SEND);
        endpoint->batch_bytes = endpoint->batched = 0;
    }
    return endpoint->batch != NULL;
}

void dj_batch_add(dj_endpoint_t *endpoint, const void *header, uint32_t header_bytes,
                  const dj_piece_t *pieces, uint32_t n_pieces, uint64_t payload_bytes)
{
    const uint32_t lengths[] = {header_bytes, (uint32_t)payload_bytes};
    uint8_t *at = endpoint->batch->gathered + endpoint->batch_bytes, *from = at;
    memcpy(at, lengths, sizeof(lengths));
    at += sizeof(lengths);
    memset(at + up_to_8(header_bytes) - 8, 0, 8);
    memcpy(at, header, header_bytes);
    at += up_to_8(header_bytes);
    uint8_t *end = at + up_to_8(payload_bytes);
    for (uint32_t i = 0; i < n_pieces; ++i) {
        if (pieces[i].bytes > 0)
            memcpy(at, pieces[i].data, pieces[i].bytes);
        at += pieces[i].bytes;
    }
    memset(at, 0, (size_t)(end - at));
    endpoint->batch_bytes += (uint32_t)(end - from);
    if (endpoint->batched++ > 0)
        return;
    endpoint->next_batched = endpoint->comm->batched;
    endpoint->comm->batched = endpoint;
}

/* Takes the only message out of its wrapping. */
static void unwrap(dj_operation_t *operation)
{
    uint32_t lengths[2];
    memcpy(lengths, operation->gathered, sizeof(lengths));
    uint64_t header_at = sizeof(lengths), payload_at = header_at + up_to_8(lengths[0]);
    memcpy(operation->header, operation->gathered + header_at, lengths[0]);
    memmove(operation->gathered, operation->gathered + payload_at, lengths[1]);
    operation->header_bytes = lengths[0];
    operation->payload_bytes = lengths[1];
}

static void wrap(dj_operation_t *operation, uint32_t count, uint32_t bytes)
{
    const struct {
        dj_header_t header;
        dj_batch_t batch;
    } message = {
        {.magic = DJ_HEADER_MAGIC, .version = DJ_PROTOCOL_VERSION, .type = DJ_MESSAGE_BATCH},
        {.n_messages = count}};
    memcpy(operation->header, &message, sizeof(message));
    operation->header_bytes = sizeof(message);
    operation->payload_bytes = bytes;
}

void dj_batch_flush(dj_endpoint_t *endpoint)
{
    dj_operation_t *operation = endpoint->batch;
    if (!operation)
        return;
    endpoint->batch = NULL;
    dj_endpoint_t **at = &endpoint->comm->batched;
    while (*at && *at != endpoint)
        at = &(*at)->next_batched;
    if (*at)
        *at = endpoint->next_batched;
    if (endpoint->batched == 0 || endpoint->state != DJ_ENDPOINT_READY || endpoint->closed) {
        dj_operation_give(operation);
        return;
    }
    if (endpoint->batched == 1)
        unwrap(operation);
    else
        wrap(operation, endpoint->batched, endpoint->batch_bytes);
    endpoint->comm->counters.batches_out += endpoint->batched > 1;
    operation->n_pieces = 0;
    dj_endpoint_post(endpoint, operation);
}

void dj_comm_cork(dj_comm_t *comm)
{
    if (comm->corks++ == 0)
        ++comm->round;
}

void dj_comm_uncork(dj_comm_t *comm)
{
    if (--comm->corks > 0)
        return;
    while (comm->batched)
        dj_batch_flush(comm->batched);
}
