/* mover.h - one side of device memory moving through staging rings over real endpoints.
 *
 * A part is an UPLOAD whose request is its offset; a part that has landed is told by an empty one
 * whose request is CREDIT, and a sender has no more parts in flight than its peer has slots. Both
 * sides may send at once. */
#ifndef DJ_TESTS_COMM_MOVER_H
#define DJ_TESTS_COMM_MOVER_H

#include "comm/staging.h"
#include "node.h"

#define CREDIT UINT64_MAX

typedef struct part {
    struct mover *mover;
    uint32_t slot;
    uint64_t offset;
} part_t;

typedef struct mover {
    node_t *node;
    int other;
    dj_staging_t *ring;
    uint8_t *source, *target; /* the device's */
    uint64_t bytes;           /* of each */
    uint32_t slots, in_flight, incoming, peak_out, peak_in;
    uint64_t landed, parts_failed;
    bool sent, lost;
    dj_status_t status;
    part_t out[DJ_STAGING_SLOTS_MAX], in[2 * DJ_STAGING_SLOTS_MAX];
} mover_t;

static inline void mover_landed(void *argument, dj_status_t status)
{
    part_t *part = argument;
    mover_t *mover = part->mover;
    test_message_t message = make_message(mover->node, CREDIT, 0);
    CHECK(status == DJ_OK || mover->lost);
    mover->landed += 1;
    --mover->incoming;
    if (mover->lost)
        return;
    status = dj_endpoint_send(mover->node->endpoints[mover->other], &message, sizeof(message), NULL,
                              0, NULL, NULL);
    CHECK(status == DJ_OK || status == DJ_IN_PROGRESS || status == DJ_ERR_PEER_DIED);
}

/* A slot for what arrives; the sender's credits promise that there is one. */
static inline part_t *mover_take(mover_t *mover, const dj_incoming_t *incoming, void **host_p)
{
    uint32_t slot;
    uint64_t offset = incoming->header->request;
    CHECK(offset <= mover->bytes && incoming->payload_bytes <= mover->bytes - offset);
    CHECK(dj_staging_in(mover->ring, &slot, host_p) == DJ_OK);
    if (++mover->incoming > mover->peak_in)
        mover->peak_in = mover->incoming;
    mover->in[slot] = (part_t){mover, slot, offset};
    return &mover->in[slot];
}

static inline void mover_land(part_t *part, uint64_t bytes)
{
    mover_t *mover = part->mover;
    dj_status_t status = dj_staging_land(mover->ring, part->slot, mover->target + part->offset,
                                         bytes, mover_landed, part);
    if (status == DJ_OK)
        mover_landed(part, DJ_OK);
    else
        CHECK(status == DJ_IN_PROGRESS);
}

static inline dj_status_t mover_message(void *context, const dj_incoming_t *incoming,
                                        void **memory_p, void **token_p)
{
    mover_t *mover = ((node_t *)context)->state;
    part_t *part = incoming->token;
    void *host;
    if (incoming->header->request == CREDIT) {
        --mover->in_flight;
    } else if (mover->lost && !part) {
        return DJ_ERR_CANCELLED;
    } else if (incoming->failed || mover->lost) {
        ++mover->parts_failed;
        --mover->incoming;
        dj_staging_release(mover->ring, part->slot, DJ_ERR_PEER_DIED);
    } else if (!incoming->rendezvous) {
        part = mover_take(mover, incoming, &host);
        memcpy(host, incoming->payload, incoming->payload_bytes);
        mover_land(part, incoming->payload_bytes);
    } else if (!incoming->payload) {
        *token_p = mover_take(mover, incoming, memory_p);
    } else {
        mover_land(part, incoming->payload_bytes);
    }
    return DJ_OK;
}

static inline void mover_sent(void *argument, dj_status_t status)
{
    part_t *part = argument;
    dj_staging_release(part->mover->ring, part->slot, status);
}

static inline dj_status_t mover_send(void *argument, uint32_t slot, const void *host,
                                     uint64_t bytes, uint64_t offset)
{
    mover_t *mover = argument;
    if (mover->in_flight == mover->slots)
        return DJ_ERR_BUSY;
    test_message_t message = make_message(mover->node, offset, bytes);
    const dj_piece_t piece = {host, bytes};
    mover->out[slot] = (part_t){mover, slot, offset};
    dj_status_t status =
        dj_endpoint_send(mover->node->endpoints[mover->other], &message, sizeof(message), &piece, 1,
                         mover_sent, &mover->out[slot]);
    if ((status == DJ_OK || status == DJ_IN_PROGRESS) && ++mover->in_flight > mover->peak_out)
        mover->peak_out = mover->in_flight;
    return status;
}

static inline void mover_done(void *argument, dj_status_t status)
{
    mover_t *mover = argument;
    mover->sent = true;
    mover->status = status;
}

static inline void mover_open(mover_t *mover, node_t *node, int other, const dj_memops_t *ops,
                              uint32_t slots, uint64_t bytes)
{
    *mover = (mover_t){.node = node, .other = other, .slots = slots, .bytes = bytes};
    node->state = mover;
    CHECK(dj_staging_create(ops, slots, DJ_STAGING_SLOT_BYTES, &mover->ring) == DJ_OK);
    node_open(node, mover_message);
    node_join(node, other);
    node_meet(node, other);
}

static inline void mover_start(mover_t *mover)
{
    mover->sent = false;
    CHECK(dj_staging_out(mover->ring, mover->source, mover->bytes, mover_send, mover_done, mover) ==
          DJ_IN_PROGRESS);
}

static inline void mover_progress(mover_t *mover)
{
    if (dj_staging_progress(mover->ring) == 0 && !dj_staging_restless(mover->ring))
        dj_comm_wait(mover->node->comm, 20000, 10);
    else
        dj_comm_progress(mover->node->comm);
}

#endif
