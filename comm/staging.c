/* staging.c - slots, parts and transfers of the staging ring.
 *
 * A slot goes round: free, copying (device to host), lent (to the network), free. Outgoing slots
 * that are being copied stand in `queue` in the order of their parts, and only its head is handed
 * on, so a copy that finishes early waits for its elders and the wire sees parts in order. Copies
 * are started wherever a slot becomes free, so that all slots but those on the wire are being
 * filled: that is the overlap.
 *
 * Transfers stand in a fixed ring, numbered since creation: [first, last) are not all over,
 * [copying, last) still have parts to copy. */
#include "comm/staging.h"

#include <assert.h>
#include <stdlib.h>

typedef enum slot_state {
    SLOT_FREE,
    SLOT_COPYING, /* out: until it is handed on; in: until it has landed */
    SLOT_LENT,
} slot_state_t;

typedef struct transfer {
    const uint8_t *device;
    uint64_t bytes, started; /* started: offset of the next part to copy; bytes when it failed */
    uint32_t open;           /* parts that have a slot */
    bool live;
    dj_status_t status; /* the first failure */
    dj_staging_send_t send;
    dj_staging_done_t done;
    void *argument;
} transfer_t;

typedef struct slot {
    uint8_t *host;
    dj_memcopy_t copy;
    slot_state_t state;
    dj_status_t copied;     /* of the copy; DJ_IN_PROGRESS while it goes on */
    transfer_t *transfer;   /* outgoing */
    uint64_t bytes, offset; /* outgoing */
    dj_staging_done_t done; /* incoming */
    void *argument;
} slot_t;

struct dj_staging {
    const dj_memops_t *ops;
    uint32_t slots; /* a direction; slot numbers below it go out, the others come in */
    uint64_t slot_bytes;
    uint8_t *pinned;
    transfer_t transfers[DJ_STAGING_TRANSFERS_MAX];
    uint64_t first, copying, last;
    uint32_t queue[DJ_STAGING_SLOTS_MAX]; /* outgoing slots from copy to send */
    uint32_t queue_first, queued;
    uint32_t lent, landing;
    bool blocked; /* the head of the queue was refused by `send` */
    bool dying;
    slot_t all[]; /* 2 * slots */
};

/* ---- creation and the end ---- */

static void free_ring(dj_staging_t *staging)
{
    dj_memops_unpin(staging->ops, staging->pinned, 2 * staging->slots * staging->slot_bytes);
    free(staging);
}

static dj_status_t prepare_slots(dj_staging_t *staging)
{
    for (uint32_t i = 0; i < 2 * staging->slots; ++i) {
        staging->all[i].host = staging->pinned + i * staging->slot_bytes;
        dj_status_t status = dj_memcopy_init(&staging->all[i].copy, staging->ops);
        if (status == DJ_OK)
            continue;
        staging->all[i].copy = (dj_memcopy_t){0};
        while (i-- > 0)
            dj_memcopy_fini(&staging->all[i].copy);
        return status;
    }
    return DJ_OK;
}

dj_status_t dj_staging_create(const dj_memops_t *ops, uint32_t slots, uint64_t slot_bytes,
                              dj_staging_t **staging_p)
{
    if (slots == 0 || slots > DJ_STAGING_SLOTS_MAX || slot_bytes == 0 ||
        slot_bytes > DJ_STAGING_SLOT_BYTES_MAX)
        return dj_fail(DJ_ERR_INVALID,
                       "a staging ring of %u slots of %llu bytes; 1 to %d slots of 1 to %d bytes "
                       "are possible",
                       slots, (unsigned long long)slot_bytes, DJ_STAGING_SLOTS_MAX,
                       DJ_STAGING_SLOT_BYTES_MAX);
    dj_staging_t *staging = calloc(1, sizeof(*staging) + 2 * slots * sizeof(slot_t));
    if (!staging)
        return dj_fail(DJ_ERR_MEMORY, "no memory for a staging ring");
    staging->ops = ops;
    staging->slots = slots;
    staging->slot_bytes = slot_bytes;
    void *pinned = NULL;
    dj_status_t status = dj_memops_pin(ops, 2 * slots * slot_bytes, &pinned);
    if (status != DJ_OK)
        goto err_free;
    staging->pinned = pinned;
    status = prepare_slots(staging);
    if (status != DJ_OK)
        goto err_unpin;
    *staging_p = staging;
    return DJ_OK;
err_unpin:
    dj_memops_unpin(ops, pinned, 2 * slots * slot_bytes);
err_free:
    free(staging);
    return status;
}

uint64_t dj_staging_slot_bytes(const dj_staging_t *staging)
{
    return staging->slot_bytes;
}

static transfer_t *transfer_at(dj_staging_t *staging, uint64_t number)
{
    return &staging->transfers[number % DJ_STAGING_TRANSFERS_MAX];
}

void dj_staging_destroy(dj_staging_t *staging)
{
    if (!staging)
        return;
    staging->dying = true; /* callbacks start nothing new */
    ++staging->lent;       /* nor free the ring under this loop */
    for (uint32_t i = 0; i < 2 * staging->slots; ++i)
        dj_memcopy_fini(&staging->all[i].copy);
    for (uint64_t number = staging->first; number < staging->last; ++number) {
        transfer_t *transfer = transfer_at(staging, number);
        if (transfer->live)
            transfer->done(transfer->argument,
                           transfer->status == DJ_OK ? DJ_ERR_CANCELLED : transfer->status);
    }
    for (uint32_t i = staging->slots; i < 2 * staging->slots; ++i)
        if (staging->all[i].state == SLOT_COPYING)
            staging->all[i].done(staging->all[i].argument, DJ_ERR_CANCELLED);
    if (--staging->lent == 0)
        free_ring(staging);
}

/* ---- outgoing: copies ---- */

static void fail_transfer(transfer_t *transfer, dj_status_t status)
{
    if (transfer->status == DJ_OK)
        transfer->status = status;
    transfer->started = transfer->bytes;
}

/* The slot's part is over, whichever way. */
static void free_part(slot_t *slot)
{
    slot->state = SLOT_FREE;
    --slot->transfer->open;
    slot->transfer = NULL;
}

static slot_t *find_free(slot_t *slots, uint32_t count)
{
    for (uint32_t i = 0; i < count; ++i)
        if (slots[i].state == SLOT_FREE)
            return &slots[i];
    return NULL;
}

static transfer_t *next_to_copy(dj_staging_t *staging)
{
    for (; staging->copying < staging->last; ++staging->copying) {
        transfer_t *transfer = transfer_at(staging, staging->copying);
        if (transfer->live && transfer->started < transfer->bytes)
            return transfer;
    }
    return NULL;
}

static void start_part(dj_staging_t *staging, transfer_t *transfer, slot_t *slot)
{
    uint64_t left = transfer->bytes - transfer->started;
    slot->state = SLOT_COPYING;
    slot->transfer = transfer;
    slot->offset = transfer->started;
    slot->bytes = left < staging->slot_bytes ? left : staging->slot_bytes;
    transfer->started += slot->bytes;
    ++transfer->open;
    slot->copied = dj_memcopy_start(&slot->copy, DJ_COPY_OUT, slot->host,
                                    transfer->device + slot->offset, slot->bytes);
    if (slot->copied < 0)
        fail_transfer(transfer, slot->copied);
    uint32_t at = (staging->queue_first + staging->queued++) % DJ_STAGING_SLOTS_MAX;
    staging->queue[at] = (uint32_t)(slot - staging->all);
}

static void start_parts(dj_staging_t *staging)
{
    transfer_t *transfer;
    slot_t *slot;
    while (!staging->dying && (slot = find_free(staging->all, staging->slots)) &&
           (transfer = next_to_copy(staging)))
        start_part(staging, transfer, slot);
}

dj_status_t dj_staging_out(dj_staging_t *staging, const void *device, uint64_t bytes,
                           dj_staging_send_t send, dj_staging_done_t done, void *argument)
{
    if (bytes == 0)
        return DJ_OK;
    if (staging->dying)
        return dj_fail(DJ_ERR_CANCELLED, "the staging ring is being destroyed");
    if (staging->last - staging->first == DJ_STAGING_TRANSFERS_MAX)
        return dj_fail(DJ_ERR_BUSY, "%d transfers are under way through one staging ring",
                       DJ_STAGING_TRANSFERS_MAX);
    *transfer_at(staging, staging->last++) = (transfer_t){
        .device = device,
        .bytes = bytes,
        .live = true,
        .send = send,
        .done = done,
        .argument = argument,
    };
    start_parts(staging);
    return DJ_IN_PROGRESS;
}

/* ---- outgoing: sends ---- */

/* The head's part goes to the network, or is over. False: it stays the head. */
static bool hand_on(dj_staging_t *staging, uint32_t number)
{
    slot_t *slot = &staging->all[number];
    transfer_t *transfer = slot->transfer;
    if (slot->copied != DJ_OK)
        fail_transfer(transfer, slot->copied);
    if (transfer->status != DJ_OK) {
        free_part(slot);
        return true;
    }
    dj_status_t status =
        transfer->send(transfer->argument, number, slot->host, slot->bytes, slot->offset);
    if (status == DJ_ERR_BUSY)
        return false;
    if (status == DJ_IN_PROGRESS) {
        slot->state = SLOT_LENT;
        ++staging->lent;
        return true;
    }
    if (status != DJ_OK)
        fail_transfer(transfer, status);
    free_part(slot);
    return true;
}

/* One head of the queue at a time; what it frees is filled again at once. */
static unsigned send_parts(dj_staging_t *staging)
{
    unsigned moved = 0;
    while (staging->queued > 0) {
        uint32_t number = staging->queue[staging->queue_first];
        slot_t *slot = &staging->all[number];
        if (slot->copied == DJ_IN_PROGRESS)
            slot->copied = dj_memcopy_test(&slot->copy);
        if (slot->copied == DJ_IN_PROGRESS)
            break;
        staging->blocked = !hand_on(staging, number);
        if (staging->blocked)
            break;
        staging->queue_first = (staging->queue_first + 1) % DJ_STAGING_SLOTS_MAX;
        --staging->queued;
        ++moved;
        start_parts(staging);
    }
    return moved;
}

void dj_staging_release(dj_staging_t *staging, uint32_t number, dj_status_t status)
{
    assert(number < 2 * staging->slots && staging->all[number].state == SLOT_LENT);
    slot_t *slot = &staging->all[number];
    --staging->lent;
    if (number >= staging->slots) {
        slot->state = SLOT_FREE;
    } else {
        if (status != DJ_OK)
            fail_transfer(slot->transfer, status);
        free_part(slot);
        start_parts(staging);
    }
    if (staging->dying && staging->lent == 0)
        free_ring(staging);
}

void dj_staging_fail(dj_staging_t *staging, dj_status_t status)
{
    for (uint64_t number = staging->first; number < staging->last; ++number)
        if (transfer_at(staging, number)->live)
            fail_transfer(transfer_at(staging, number), status);
    staging->blocked = false;
}

static bool is_over(const transfer_t *transfer)
{
    return transfer->live && transfer->open == 0 && transfer->started == transfer->bytes;
}

static unsigned report_transfers(dj_staging_t *staging)
{
    unsigned moved = 0;
    for (uint64_t number = staging->first; number < staging->last; ++number) {
        transfer_t *transfer = transfer_at(staging, number);
        if (!is_over(transfer))
            continue;
        transfer->live = false;
        ++moved;
        transfer->done(transfer->argument, transfer->status);
    }
    while (staging->first < staging->last && !transfer_at(staging, staging->first)->live)
        ++staging->first;
    if (staging->copying < staging->first)
        staging->copying = staging->first;
    return moved;
}

/* ---- incoming ---- */

dj_status_t dj_staging_in(dj_staging_t *staging, uint32_t *slot_p, void **host_p)
{
    slot_t *slot = find_free(staging->all + staging->slots, staging->slots);
    if (!slot || staging->dying)
        return dj_fail(DJ_ERR_BUSY, "all %u staging slots for incoming parts are in use",
                       staging->slots);
    slot->state = SLOT_LENT;
    ++staging->lent;
    *slot_p = (uint32_t)(slot - staging->all);
    *host_p = slot->host;
    return DJ_OK;
}

dj_status_t dj_staging_land(dj_staging_t *staging, uint32_t number, void *device, uint64_t bytes,
                            dj_staging_done_t done, void *argument)
{
    assert(number >= staging->slots && number < 2 * staging->slots &&
           staging->all[number].state == SLOT_LENT);
    slot_t *slot = &staging->all[number];
    dj_status_t status = DJ_ERR_CANCELLED;
    if (staging->dying || bytes > staging->slot_bytes) {
        if (!staging->dying)
            status = dj_fail(DJ_ERR_INVALID, "a part of %llu bytes in a staging slot of %llu",
                             (unsigned long long)bytes, (unsigned long long)staging->slot_bytes);
        dj_staging_release(staging, number, status);
        return status;
    }
    --staging->lent;
    status = dj_memcopy_start(&slot->copy, DJ_COPY_IN, device, slot->host, bytes);
    slot->state = status == DJ_IN_PROGRESS ? SLOT_COPYING : SLOT_FREE;
    slot->done = done;
    slot->argument = argument;
    staging->landing += status == DJ_IN_PROGRESS;
    return status;
}

static unsigned land_parts(dj_staging_t *staging)
{
    unsigned moved = 0;
    for (uint32_t i = staging->slots; i < 2 * staging->slots && staging->landing > 0; ++i) {
        slot_t *slot = &staging->all[i];
        if (slot->state != SLOT_COPYING)
            continue;
        dj_status_t status = dj_memcopy_test(&slot->copy);
        if (status == DJ_IN_PROGRESS)
            continue;
        slot->state = SLOT_FREE;
        --staging->landing;
        ++moved;
        slot->done(slot->argument, status);
    }
    return moved;
}

/* ---- progress ---- */

unsigned dj_staging_progress(dj_staging_t *staging)
{
    unsigned moved = land_parts(staging);
    start_parts(staging);
    moved += send_parts(staging);
    return moved + report_transfers(staging);
}

bool dj_staging_restless(const dj_staging_t *staging)
{
    if (staging->landing > 0 || (staging->queued > 0 && !staging->blocked))
        return true;
    for (uint64_t number = staging->first; number < staging->last; ++number)
        if (is_over(&staging->transfers[number % DJ_STAGING_TRANSFERS_MAX]))
            return true;
    return false;
}

bool dj_staging_idle(const dj_staging_t *staging)
{
    return staging->first == staging->last && staging->landing == 0 && staging->lent == 0;
}
